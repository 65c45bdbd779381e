//! The state store on DynamoDB keeps every promise that the one on SQLite does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use smartscale_coordinator::aws::dynamodb::DynamoStore;
use smartscale_coordinator::ids::Epoch;
use smartscale_coordinator::state::conformance::{self, Factory, lease, put};
use smartscale_coordinator::state::{Attributes, SharedStore, StateStore as _, StoreError};
use smartscale_proto::time::{SharedClock, SystemClock};
use smartscale_tests::rig::{DynamoDb, Folder, aws};

pub(super) const TABLE: &str = "smartscale";

/// Connections to one server, each with a client of its own.
pub(super) struct Connections<'a>(pub(super) &'a DynamoDb);

impl Connections<'_> {
    pub(super) async fn connect(&self, cluster: &str, clock: SharedClock) -> DynamoStore {
        let config = aws::config(&self.0.url(), &aws::Key::root()).await;
        DynamoStore::new(&config, TABLE, cluster.into(), clock)
    }
}

#[async_trait]
impl Factory for Connections<'_> {
    async fn open(&self, cluster: &str, clock: SharedClock) -> SharedStore {
        Arc::new(self.connect(cluster, clock).await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_keeps_what_every_store_promises() {
    let folder = Folder::new("store").unwrap();
    let server = DynamoDb::start(&folder).await.unwrap();
    let connections = Connections(&server);
    let store = connections.connect("first", Arc::new(SystemClock)).await;
    // Two coordinators start at once, and each makes the table.
    let (first, second) = tokio::join!(store.create_table(), store.create_table());
    first.unwrap();
    second.unwrap();
    store.create_table().await.unwrap();
    conformance::all(&connections).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_reached_says_whether_a_write_may_have_taken_place() {
    let folder = Folder::new("store-outage").unwrap();
    let mut server = DynamoDb::start(&folder).await.unwrap();
    let store = Connections(&server).connect("c", Arc::new(SystemClock)).await;
    let unavailable = |result: Result<(), StoreError>| {
        assert!(matches!(&result, Err(StoreError::Unavailable(_))), "{result:?}");
    };
    // No table: refused, so nothing was written.
    unavailable(store.append(&put("op#1", 1.into())).await);
    unavailable(store.commit(Epoch(1), &[], &Attributes::new()).await);
    unavailable(store.lease().await.map(drop));
    store.create_table().await.unwrap();
    assert!(
        store
            .replace_lease(None, &lease(Some("a"), "r1", 1))
            .await
            .unwrap()
    );

    // It hangs: the request may be carried out when it wakes. The answer comes all the same, in time.
    server.process().pause().unwrap();
    let began = Instant::now();
    let (append, commit, renewal) = tokio::join!(
        async { store.append(&put("op#1", 1.into())).await },
        async {
            let writes = [put("op#2", 2.into())];
            store.commit(Epoch(1), &writes, &Attributes::new()).await
        },
        async {
            let next = lease(Some("a"), "r2", 1);
            store.replace_lease(Some("r1"), &next).await.map(drop)
        },
    );
    for result in [append, commit, renewal] {
        assert!(matches!(&result, Err(StoreError::Unknown(_))), "{result:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    server.process().resume().unwrap();

    // Nobody listens: nothing was sent.
    server.process_mut().kill();
    unavailable(store.append(&put("op#1", 1.into())).await);
    unavailable(
        store
            .replace_lease(Some("r2"), &lease(Some("a"), "r3", 1))
            .await
            .map(drop),
    );
    unavailable(store.commit(Epoch(1), &[], &Attributes::new()).await);
}
