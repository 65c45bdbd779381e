//! What every store must do, as one suite: `sqlite` runs it here, DynamoDB against a server in the rig. Each
//! function is one behaviour, panics where it fails, and works in a cluster of its own, so that they may share a
//! table.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a suite of tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use smartscale_proto::time::{Clock, SharedClock, SystemClock};

use super::{Attributes, Condition, LeaseRow, SharedStore, StateStore, StoreError, Write};
use crate::ids::Epoch;

/// Where stores come from.
#[async_trait]
pub trait Factory: Sync {
    /// Another connection to the store of this cluster, as a process of its own would make it.
    async fn open(&self, cluster: &str, clock: SharedClock) -> SharedStore;
}

/// A clock whose wall clock stands apart from the machine's.
#[derive(Debug, Clone, Copy)]
struct Shifted(SignedDuration);

#[async_trait]
impl Clock for Shifted {
    fn now(&self) -> Timestamp {
        SystemClock.now() + self.0
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// An unconditional write.
#[must_use]
pub fn put(key: &str, body: Value) -> Write {
    put_if(key, body, Condition::Always)
}

fn put_if(key: &str, body: Value, condition: Condition) -> Write {
    Write::Put {
        key: key.to_owned(),
        body,
        expires_at: None,
        condition,
    }
}

/// A lease as a coordinator would write it.
#[must_use]
pub fn lease(holder: Option<&str>, rvn: &str, epoch: u64) -> LeaseRow {
    LeaseRow {
        holder: holder.map(|name| name.parse().unwrap()),
        rvn: rvn.to_owned(),
        epoch: Epoch(epoch),
        lease: Duration::from_secs(15),
        expires_at: "2026-01-02T03:04:05Z".parse().unwrap(),
    }
}

async fn lead(store: &dyn StateStore, epoch: u64) {
    let expected = store.lease().await.unwrap().map(|row| row.rvn);
    let next = lease(Some("a"), &format!("rvn-{epoch}"), epoch);
    assert!(store.replace_lease(expected.as_deref(), &next).await.unwrap());
}

/// Runs the whole suite.
pub async fn all(factory: &dyn Factory) {
    an_item_is_read_as_it_was_written(factory).await;
    versions_grow_by_one_and_guard_writes(factory).await;
    items_are_listed_by_prefix_in_both_orders(factory).await;
    expired_items_are_not_seen(factory).await;
    clusters_do_not_see_each_other(factory).await;
    a_lease_is_replaced_only_from_what_was_seen(factory).await;
    a_commit_is_for_the_present_epoch_only(factory).await;
    a_commit_is_all_or_nothing(factory).await;
    attributes_are_merged_and_stay_beside_the_lease(factory).await;
    a_large_commit_goes_through(factory).await;
    reserved_names_are_refused(factory).await;
    of_contenders_one_wins_each_epoch(factory, 4, 5).await;
    no_update_is_lost(factory, 4, 10).await;
}

/// Every kind of JSON comes back, another connection sees it, a delete ends it.
pub async fn an_item_is_read_as_it_was_written(factory: &dyn Factory) {
    let (a, b) = (
        factory.open("items", clock()).await,
        factory.open("items", clock()).await,
    );
    let body = json!({
        "text": "ä\n\"", "empty": "", "number": 12.5, "large": 9_007_199_254_740_993_i64, "negative": -3, "yes": true,
        "nothing": null, "list": [1, "two", {"three": []}], "map": {}, "key with.dots#and": {"deep": {"er": false}},
    });
    a.append(&put("op#1", body.clone())).await.unwrap();
    let item = b.get("op#1").await.unwrap().unwrap();
    assert_eq!(
        (item.body, item.version, item.key.as_str(), item.expires_at),
        (body, 1, "op#1", None)
    );
    assert_eq!(b.get("op#2").await.unwrap(), None);
    for _ in 0..2 {
        b.append(&Write::Delete {
            key: "op#1".to_owned(),
        })
        .await
        .unwrap();
    }
    assert_eq!(a.get("op#1").await.unwrap(), None);
}

/// Conditions on versions.
pub async fn versions_grow_by_one_and_guard_writes(factory: &dyn Factory) {
    let store = factory.open("versions", clock()).await;
    let write = async |body: u64, condition| store.append(&put_if("op#1", json!(body), condition)).await;
    let version = async || {
        store
            .get("op#1")
            .await
            .unwrap()
            .map(|item| (item.version, item.body))
    };
    let conflict = |result: Result<(), StoreError>| {
        assert!(
            matches!(&result, Err(StoreError::Conflict(key)) if key == "op#1"),
            "{result:?}"
        );
    };
    conflict(write(1, Condition::Version(1)).await);
    write(2, Condition::Absent).await.unwrap();
    assert_eq!(version().await, Some((1, json!(2))));
    conflict(write(3, Condition::Absent).await);
    write(4, Condition::Version(1)).await.unwrap();
    conflict(write(5, Condition::Version(1)).await);
    write(6, Condition::Always).await.unwrap();
    assert_eq!(version().await, Some((3, json!(6))));
    store
        .append(&Write::Delete {
            key: "op#1".to_owned(),
        })
        .await
        .unwrap();
    write(7, Condition::Absent).await.unwrap();
    assert_eq!(version().await, Some((1, json!(7))));
}

/// Listing.
pub async fn items_are_listed_by_prefix_in_both_orders(factory: &dyn Factory) {
    let store = factory.open("listing", clock()).await;
    for key in ["op#2", "op#1", "op#3", "node#1", "op", "oq#1"] {
        store.append(&put(key, json!(key))).await.unwrap();
    }
    let keys = async |prefix, newest, limit| {
        let items = store.list(prefix, newest, limit).await.unwrap();
        items.into_iter().map(|item| item.key).collect::<Vec<_>>()
    };
    assert_eq!(keys("op#", false, 10).await, ["op#1", "op#2", "op#3"]);
    assert_eq!(keys("op#", true, 10).await, ["op#3", "op#2", "op#1"]);
    assert_eq!(keys("op#", true, 2).await, ["op#3", "op#2"]);
    assert_eq!(keys("none#", true, 2).await, Vec::<String>::new());
    lead(&*store, 1).await;
    let all = ["node#1", "op", "op#1", "op#2", "op#3", "oq#1"];
    assert_eq!(keys("", false, 10).await, all, "all but the lease");
}

/// Readers filter; a new item may take an expired one's place.
pub async fn expired_items_are_not_seen(factory: &dyn Factory) {
    let store = factory.open("expiry", clock()).await;
    let later = factory
        .open("expiry", Arc::new(Shifted(SignedDuration::from_mins(10))))
        .await;
    let in_minutes = |minutes: i64| {
        // Whole seconds: DynamoDB keeps no finer time.
        let second = SystemClock.now().as_second() + minutes * 60;
        Some(Timestamp::from_second(second).unwrap())
    };
    let sample = |expires_at, condition| Write::Put {
        key: "sample#1".to_owned(),
        body: json!(1),
        expires_at,
        condition,
    };
    let expires_at = in_minutes(5);
    store
        .append(&sample(expires_at, Condition::Always))
        .await
        .unwrap();
    store.append(&put("sample#2", json!(2))).await.unwrap();
    assert_eq!(
        store.get("sample#1").await.unwrap().unwrap().expires_at,
        expires_at
    );
    assert_eq!(later.get("sample#1").await.unwrap(), None);
    assert_eq!(store.list("sample#", false, 10).await.unwrap().len(), 2);
    assert_eq!(
        later
            .list("sample#", false, 1)
            .await
            .unwrap()
            .first()
            .unwrap()
            .key,
        "sample#2"
    );
    later
        .append(&sample(in_minutes(60), Condition::Absent))
        .await
        .unwrap();
    assert_eq!(later.get("sample#1").await.unwrap().unwrap().version, 1);
}

/// Two clusters in one table.
pub async fn clusters_do_not_see_each_other(factory: &dyn Factory) {
    let (a, b) = (
        factory.open("one", clock()).await,
        factory.open("other", clock()).await,
    );
    lead(&*a, 1).await;
    a.commit(
        Epoch(1),
        &[put("op#1", json!(1))],
        &Attributes::from([("node_count".into(), json!(3))]),
    )
    .await
    .unwrap();
    assert_eq!(b.lease().await.unwrap(), None);
    assert_eq!(b.list("op#", false, 9).await.unwrap(), []);
    assert_eq!(b.attributes().await.unwrap(), Attributes::new());
}

/// The lease.
pub async fn a_lease_is_replaced_only_from_what_was_seen(factory: &dyn Factory) {
    let store = factory.open("lease", clock()).await;
    assert_eq!(store.lease().await.unwrap(), None);
    assert!(
        !store
            .replace_lease(Some("x"), &lease(Some("a"), "r1", 1))
            .await
            .unwrap()
    );
    assert!(
        store
            .replace_lease(None, &lease(Some("a"), "r1", 1))
            .await
            .unwrap()
    );
    assert!(
        !store
            .replace_lease(None, &lease(Some("b"), "r2", 1))
            .await
            .unwrap()
    );
    assert_eq!(store.lease().await.unwrap(), Some(lease(Some("a"), "r1", 1)));
    assert!(
        store
            .replace_lease(Some("r1"), &lease(None, "r2", 1))
            .await
            .unwrap()
    );
    assert!(
        !store
            .replace_lease(Some("r1"), &lease(Some("b"), "r3", 2))
            .await
            .unwrap()
    );
    assert_eq!(store.lease().await.unwrap(), Some(lease(None, "r2", 1)));
}

/// The fence.
pub async fn a_commit_is_for_the_present_epoch_only(factory: &dyn Factory) {
    let store = factory.open("fence", clock()).await;
    let fenced = async |epoch| {
        let result = store
            .commit(Epoch(epoch), &[put("op#1", json!(epoch))], &Attributes::new())
            .await;
        assert!(matches!(result, Err(StoreError::Fenced)), "{result:?}");
        assert_eq!(store.get("op#1").await.unwrap(), None);
    };
    fenced(1).await;
    lead(&*store, 1).await;
    fenced(0).await;
    fenced(2).await;
    lead(&*store, 2).await;
    fenced(1).await;
    let refused = store
        .commit(
            Epoch(1),
            &[],
            &Attributes::from([("node_count".into(), json!(1))]),
        )
        .await;
    assert!(matches!(refused, Err(StoreError::Fenced)));
    store
        .commit(Epoch(2), &[put("op#1", json!(2))], &Attributes::new())
        .await
        .unwrap();
    // The fence comes first: a leader of the past learns that it is one, whatever else is wrong.
    let both = [put_if("op#1", json!(3), Condition::Absent)];
    assert!(matches!(
        store.commit(Epoch(1), &both, &Attributes::new()).await,
        Err(StoreError::Fenced)
    ));
}

/// Transactions.
pub async fn a_commit_is_all_or_nothing(factory: &dyn Factory) {
    let store = factory.open("atomic", clock()).await;
    lead(&*store, 1).await;
    store
        .commit(Epoch(1), &[put("op#1", json!(1))], &Attributes::new())
        .await
        .unwrap();
    let writes = [
        put("op#2", json!(2)),
        Write::Delete {
            key: "op#3".to_owned(),
        },
        put_if("op#1", json!(9), Condition::Version(7)),
    ];
    let attributes = Attributes::from([("node_count".to_owned(), json!(9))]);
    let result = store.commit(Epoch(1), &writes, &attributes).await;
    assert!(
        matches!(&result, Err(StoreError::Conflict(key)) if key == "op#1"),
        "{result:?}"
    );
    assert_eq!(store.get("op#2").await.unwrap(), None);
    assert_eq!(store.attributes().await.unwrap().get("node_count"), None);
}

/// The published attributes.
pub async fn attributes_are_merged_and_stay_beside_the_lease(factory: &dyn Factory) {
    let store = factory.open("attributes", clock()).await;
    lead(&*store, 1).await;
    let publish = async |attributes: &[(&str, Value)]| {
        let attributes = attributes
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        store.commit(Epoch(1), &[], &attributes).await.unwrap();
    };
    publish(&[
        ("cluster_id", json!("attributes")),
        ("node_count", json!(2)),
        ("last_cpu_avg", json!(41.5)),
        ("scaling_in_progress", json!(true)),
    ])
    .await;
    publish(&[
        ("node_count", json!(3)),
        ("last_scale_action", json!("scale_up")),
        ("last_cpu_avg", json!(null)),
    ])
    .await;
    assert!(
        store
            .replace_lease(Some("rvn-1"), &lease(Some("b"), "r2", 1))
            .await
            .unwrap()
    );
    let expected = [
        ("cluster_id", json!("attributes")),
        ("node_count", json!(3)),
        ("scaling_in_progress", json!(true)),
        ("last_scale_action", json!("scale_up")),
        ("lock_holder", json!("b")),
        ("lock_expiry", json!("2026-01-02T03:04:05Z")),
    ];
    let expected: Attributes = expected
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    assert_eq!(store.attributes().await.unwrap(), expected);
    assert_eq!(store.lease().await.unwrap(), Some(lease(Some("b"), "r2", 1)));
    assert!(
        store
            .replace_lease(Some("r2"), &lease(None, "r3", 1))
            .await
            .unwrap()
    );
    assert_eq!(store.attributes().await.unwrap().get("lock_holder"), None);
}

/// 90 writes are allowed, 91 are not.
pub async fn a_large_commit_goes_through(factory: &dyn Factory) {
    let store = factory.open("large", clock()).await;
    lead(&*store, 1).await;
    let mut writes: Vec<_> = (0..90)
        .map(|n| put(&format!("node#{n:03}"), json!({"n": n})))
        .collect();
    let attributes = Attributes::from([("node_count".to_owned(), json!(90))]);
    store.commit(Epoch(1), &writes, &attributes).await.unwrap();
    assert_eq!(store.list("node#", false, 1_000).await.unwrap().len(), 90);
    writes.push(put("node#091", json!(1)));
    assert!(store.commit(Epoch(1), &writes, &attributes).await.is_err());
    let twice = [put("node#1", json!(1)), put("node#1", json!(2))];
    assert!(matches!(
        store.commit(Epoch(1), &twice, &attributes).await,
        Err(StoreError::Conflict(_))
    ));
}

/// Names of the store's own.
pub async fn reserved_names_are_refused(factory: &dyn Factory) {
    let store = factory.open("reserved", clock()).await;
    lead(&*store, 1).await;
    assert!(store.append(&put("state", json!(1))).await.is_err());
    assert!(store.append(&put("", json!(1))).await.is_err());
    for name in ["epoch", "rvn", "lock_holder", "item"] {
        let attributes = Attributes::from([(name.to_owned(), json!(7))]);
        assert!(store.commit(Epoch(1), &[], &attributes).await.is_err(), "{name}");
    }
    assert_eq!(store.lease().await.unwrap(), Some(lease(Some("a"), "rvn-1", 1)));
}

/// Contenders that all saw the same: one replaces it. No epoch repeats.
pub async fn of_contenders_one_wins_each_epoch(factory: &dyn Factory, contenders: u64, rounds: u64) {
    let mut won = BTreeSet::new();
    for epoch in 1..=rounds {
        let expected = (epoch > 1).then(|| factory.open("contended", clock()));
        let expected = match expected {
            Some(store) => store.await.lease().await.unwrap().map(|row| row.rvn),
            None => None,
        };
        let mut tasks = tokio::task::JoinSet::new();
        for contender in 0..contenders {
            let store = factory.open("contended", clock()).await;
            let expected = expected.clone();
            tasks.spawn(async move {
                let next = lease(
                    Some(&format!("c{contender}")),
                    &format!("{epoch}-{contender}"),
                    epoch,
                );
                store.replace_lease(expected.as_deref(), &next).await
            });
        }
        let outcomes = tasks.join_all().await;
        let winners = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Ok(true)))
            .count();
        assert_eq!(winners, 1, "epoch {epoch}: {outcomes:?}");
        assert!(won.insert(epoch));
    }
}

/// Read, add one, write if unchanged: all of it counts.
pub async fn no_update_is_lost(factory: &dyn Factory, writers: u64, each: u64) {
    let first = factory.open("counter", clock()).await;
    lead(&*first, 1).await;
    first.append(&put("op#n", json!(0))).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        let store = factory.open("counter", clock()).await;
        tasks.spawn(async move {
            let mut done = 0;
            while done < each {
                let item = store.get("op#n").await.unwrap().unwrap();
                let next = json!(item.body.as_u64().unwrap() + 1);
                let write = put_if("op#n", next, Condition::Version(item.version));
                match store.commit(Epoch(1), &[write], &Attributes::new()).await {
                    Ok(()) => done += 1,
                    // Another was first, or (DynamoDB) two transactions met: nothing was written.
                    Err(StoreError::Conflict(_) | StoreError::Unavailable(_)) => {
                        tokio::task::yield_now().await;
                    }
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    tasks.join_all().await;
    let item = first.get("op#n").await.unwrap().unwrap();
    assert_eq!(item.body, json!(writers * each));
    assert_eq!(item.version, writers * each + 1);
}
