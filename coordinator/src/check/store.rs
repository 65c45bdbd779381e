//! The store: whether it can be read and written. What is written is an item of a minute that nobody reads, and it is deleted.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use smartscale_proto::{check::Finding, time::SharedClock};

use super::Check;
use crate::{
    config::Store,
    ids::CoordinatorName,
    state::{Condition, SharedStore, StoreError, Write},
};

const AREA: &str = "store";
/// What is left by a check that was killed lapses after this.
const LIFE: Duration = Duration::from_secs(60);

/// Reads the lease, writes an item and deletes it.
pub struct StoreCheck {
    /// What the configuration says.
    pub kind: Store,
    /// The store.
    pub store: SharedStore,
    /// Who writes.
    pub name: CoordinatorName,
    /// The clock.
    pub clock: SharedClock,
}

#[async_trait]
impl Check for StoreCheck {
    fn area(&self) -> &'static str {
        AREA
    }

    async fn run(&self) -> Vec<Finding> {
        let place = match &self.kind {
            Store::Sqlite(path) => path.display().to_string(),
            Store::DynamoDb(table) => format!("table {table}"),
        };
        let tried = format!("read the lease in {place}");
        let read = match self.store.lease().await {
            Err(error) => return vec![self.failed(tried, &error)],
            Ok(None) => Finding::passed(AREA, tried, "there was none yet"),
            Ok(Some(row)) => {
                let holder = row.holder.map_or("nobody holds it".to_owned(), |holder| {
                    format!("{holder} holds it")
                });
                Finding::passed(AREA, tried, format!("{holder}, term {}", row.epoch))
            }
        };
        let tried = format!("wrote an item into {place} and deleted it");
        let written = match self.write().await {
            Ok(()) => Finding::passed(AREA, tried, "it went"),
            Err(error) => self.failed(tried, &error),
        };
        vec![read, written]
    }
}

impl StoreCheck {
    async fn write(&self) -> Result<(), StoreError> {
        let key = format!("check#{}", self.name);
        let put = Write::Put {
            key: key.clone(),
            body: json!({}),
            expires_at: Some(self.clock.now() + LIFE),
            condition: Condition::Always,
        };
        self.store.append(&put).await?;
        self.store.append(&Write::Delete { key }).await
    }

    fn failed(&self, tried: String, error: &StoreError) -> Finding {
        let remedy = match &self.kind {
            Store::Sqlite(path) => format!(
                "let the coordinator's user write {} and its folder, which must not be on NFS",
                path.display()
            ),
            Store::DynamoDb(table) => format!(
                "look at store.table and aws.region, and whether the role of this machine may read and write table {table}"
            ),
        };
        Finding::failed(AREA, tried, error.to_string(), remedy)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::sync::Arc;

    use smartscale_proto::{check::Outcome, time::SystemClock};

    use super::{
        super::testing::{name, outcomes, says_what_to_do},
        *,
    };
    use crate::{
        ids::Epoch,
        state::{Attributes, Item, LeaseRow, StateStore, sqlite::SqliteStore},
    };

    fn check(store: SharedStore) -> StoreCheck {
        StoreCheck {
            kind: Store::DynamoDb("smartscale".to_owned()),
            store,
            name: name(),
            clock: Arc::new(SystemClock),
        }
    }

    #[tokio::test]
    async fn a_store_is_read_and_written_and_nothing_stays() {
        let store = SqliteStore::in_memory("k3s".into(), Arc::new(SystemClock)).unwrap();
        let store = Arc::new(store);
        let findings = check(Arc::<SqliteStore>::clone(&store)).run().await;
        assert_eq!(outcomes(&findings), [Outcome::Passed; 2]);
        says_what_to_do(&findings);
        assert_eq!(store.list("check#", false, 10).await.unwrap(), []);
    }

    /// A store that does not answer.
    struct Away;

    #[async_trait]
    impl StateStore for Away {
        async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
            Err(away())
        }
        async fn replace_lease(&self, _: Option<&str>, _: &LeaseRow) -> Result<bool, StoreError> {
            Err(away())
        }
        async fn commit(&self, _: Epoch, _: &[Write], _: &Attributes) -> Result<(), StoreError> {
            Err(away())
        }
        async fn append(&self, _: &Write) -> Result<(), StoreError> {
            Err(away())
        }
        async fn get(&self, _: &str) -> Result<Option<Item>, StoreError> {
            Err(away())
        }
        async fn list(&self, _: &str, _: bool, _: usize) -> Result<Vec<Item>, StoreError> {
            Err(away())
        }
        async fn attributes(&self) -> Result<Attributes, StoreError> {
            Err(away())
        }
    }

    fn away() -> StoreError {
        StoreError::Unavailable("ResourceNotFoundException".to_owned())
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_read_fails_with_what_to_look_at() {
        let findings = check(Arc::new(Away)).run().await;
        assert_eq!(outcomes(&findings), [Outcome::Failed]);
        says_what_to_do(&findings);
        assert!(findings[0].found.contains("ResourceNotFoundException"));
    }
}
