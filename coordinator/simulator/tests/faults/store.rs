//! A store in memory with the contract of the others, without a thread or a disk.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use serde_json::Value;
use smartscale_coordinator::{
    ids::Epoch,
    state::{Attributes, Condition, Item, LeaseRow, StateStore, StoreError, Write},
};
use smartscale_proto::time::SharedClock;

/// The most writes of a commit, and the attributes that are the store's own.
const MOST_WRITES: usize = 90;
const RESERVED: [&str; 6] = ["item", "rvn", "epoch", "lease_ms", "lock_holder", "lock_expiry"];

#[derive(Default)]
struct State {
    lease: Option<LeaseRow>,
    attributes: Attributes,
    items: BTreeMap<String, Item>,
}

/// The store of one cluster. Clones share it.
#[derive(Clone)]
pub(crate) struct MemoryStore {
    cluster: String,
    clock: SharedClock,
    state: Arc<Mutex<State>>,
    /// Off only where a test shows what the fence is good for.
    fenced: bool,
}

impl MemoryStore {
    pub(crate) fn new(cluster: &str, clock: SharedClock) -> Self {
        Self {
            cluster: cluster.to_owned(),
            clock,
            state: Arc::default(),
            fenced: true,
        }
    }

    /// The same store by another clock.
    pub(crate) fn with_clock(&self, clock: SharedClock) -> Self {
        Self {
            clock,
            ..self.clone()
        }
    }

    /// A store that lets everybody commit.
    pub(crate) fn without_fence(self) -> Self {
        Self {
            fenced: false,
            ..self
        }
    }

    /// The term of the lease.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        self.state.lock().unwrap().lease.as_ref().map(|row| row.epoch)
    }

    /// An item as it is now.
    pub(crate) fn peek(&self, key: &str) -> Option<Item> {
        self.seen(self.state.lock().unwrap().items.get(key))
    }

    /// The items of a prefix as they are now.
    pub(crate) fn peek_all(&self, prefix: &str) -> Vec<Item> {
        let state = self.state.lock().unwrap();
        let from = state.items.range(prefix.to_owned()..);
        from.take_while(|(key, _)| key.starts_with(prefix))
            .filter_map(|(_, item)| self.seen(Some(item)))
            .collect()
    }

    fn seen(&self, item: Option<&Item>) -> Option<Item> {
        let now = self.clock.now();
        item.filter(|item| item.expires_at.is_none_or(|at| at > now))
            .cloned()
    }

    fn check(&self, state: &State, write: &Write) -> Result<(), StoreError> {
        let Write::Put { key, condition, .. } = write else {
            return Ok(());
        };
        let present = self.seen(state.items.get(key));
        let holds = match condition {
            Condition::Always => true,
            Condition::Absent => present.is_none(),
            Condition::Version(version) => present.is_some_and(|item| item.version == *version),
        };
        if holds {
            Ok(())
        } else {
            Err(StoreError::Conflict(key.clone()))
        }
    }

    fn apply(&self, state: &mut State, write: &Write) {
        match write {
            Write::Delete { key } => {
                state.items.remove(key);
            }
            Write::Put {
                key,
                body,
                expires_at,
                ..
            } => {
                let version = self.seen(state.items.get(key)).map_or(0, |item| item.version) + 1;
                let item = Item {
                    key: key.clone(),
                    body: body.clone(),
                    version,
                    expires_at: *expires_at,
                };
                state.items.insert(key.clone(), item);
            }
        }
    }
}

fn checked(writes: &[Write], attributes: &Attributes) -> Result<(), StoreError> {
    if writes.len() > MOST_WRITES {
        return Err(StoreError::Unavailable(format!(
            "a commit of {} writes",
            writes.len()
        )));
    }
    let mut keys = std::collections::BTreeSet::new();
    for write in writes {
        let (Write::Put { key, .. } | Write::Delete { key }) = write;
        if key.is_empty() || key.len() > 1_024 || key == "state" || !keys.insert(key) {
            return Err(StoreError::Conflict(key.clone()));
        }
    }
    match attributes.keys().find(|name| RESERVED.contains(&name.as_str())) {
        Some(name) => Err(StoreError::Conflict(format!("state.{name}"))),
        None => Ok(()),
    }
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        Ok(self.state.lock().unwrap().lease.clone())
    }

    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        let mut state = self.state.lock().unwrap();
        let present = state.lease.as_ref().map(|row| row.rvn.as_str());
        if present != expected {
            return Ok(false);
        }
        state.lease = Some(next.clone());
        Ok(true)
    }

    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        checked(writes, attributes)?;
        let mut state = self.state.lock().unwrap();
        if self.fenced && state.lease.as_ref().map(|row| row.epoch) != Some(epoch) {
            return Err(StoreError::Fenced);
        }
        writes.iter().try_for_each(|write| self.check(&state, write))?;
        for write in writes {
            self.apply(&mut state, write);
        }
        for (name, value) in attributes {
            if value.is_null() {
                state.attributes.remove(name);
            } else {
                state.attributes.insert(name.clone(), value.clone());
            }
        }
        Ok(())
    }

    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        checked(std::slice::from_ref(write), &Attributes::new())?;
        let mut state = self.state.lock().unwrap();
        self.check(&state, write)?;
        self.apply(&mut state, write);
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        Ok(self.peek(key))
    }

    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        let mut items = self.peek_all(prefix);
        if newest_first {
            items.reverse();
        }
        items.truncate(limit);
        Ok(items)
    }

    async fn attributes(&self) -> Result<Attributes, StoreError> {
        let state = self.state.lock().unwrap();
        let Some(row) = &state.lease else {
            return Ok(Attributes::new());
        };
        let mut attributes = state.attributes.clone();
        attributes.insert("cluster_id".to_owned(), Value::from(self.cluster.as_str()));
        if let Some(holder) = &row.holder {
            attributes.insert("lock_holder".to_owned(), Value::from(holder.as_str()));
            attributes.insert("lock_expiry".to_owned(), Value::from(row.expires_at.to_string()));
        }
        Ok(attributes)
    }
}

mod tests {
    use smartscale_coordinator::state::{SharedStore, conformance};

    use super::*;

    #[derive(Default)]
    struct Clusters(Mutex<BTreeMap<String, MemoryStore>>);

    #[async_trait]
    impl conformance::Factory for Clusters {
        async fn open(&self, cluster: &str, clock: SharedClock) -> SharedStore {
            let mut known = self.0.lock().unwrap();
            let store = known
                .entry(cluster.to_owned())
                .or_insert_with(|| MemoryStore::new(cluster, Arc::clone(&clock)));
            Arc::new(store.with_clock(clock))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_store_in_memory_keeps_the_contract_of_the_others() {
        conformance::all(&Clusters::default()).await;
    }
}
