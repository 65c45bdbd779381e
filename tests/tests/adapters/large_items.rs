//! What DynamoDB's limits mean for the store: 400 KB an item, 4 MB a transaction, 1 MB a page.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};
use serde_json::{Value, json};
use smartscale_coordinator::aws::dynamodb::DynamoStore;
use smartscale_coordinator::ids::Epoch;
use smartscale_coordinator::state::conformance::{lease, put};
use smartscale_coordinator::state::{Attributes, Condition, StateStore as _, StoreError, Write};
use smartscale_proto::time::SystemClock;
use smartscale_tests::rig::{DynamoDb, Folder};
use tokio::task::JoinSet;

use super::store::{Connections, TABLE};

const CLUSTER: &str = "large";

/// A server with the table, and a store that leads its cluster in epoch 1.
async fn start(name: &str) -> (DynamoDb, DynamoStore) {
    let folder = Folder::new(name).unwrap();
    let server = DynamoDb::start(&folder).await.unwrap();
    let store = Connections(&server).connect(CLUSTER, Arc::new(SystemClock)).await;
    store.create_table().await.unwrap();
    let first = lease(Some("a"), "r1", 1);
    assert!(store.replace_lease(None, &first).await.unwrap());
    (server, store)
}

/// The names of an item's attributes as they lie in the table.
async fn attributes(client: &Client, key: &str) -> Vec<String> {
    let answer = client
        .get_item()
        .table_name(TABLE)
        .key("cluster_id", AttributeValue::S(CLUSTER.to_owned()))
        .key("item", AttributeValue::S(key.to_owned()))
        .consistent_read(true)
        .send()
        .await
        .unwrap();
    let mut names: Vec<_> = answer.item.unwrap_or_default().into_keys().collect();
    names.sort_unstable();
    names
}

/// A record of a decision about so many pods.
fn decision(pods: u32) -> Value {
    let pods: Vec<_> = (0..pods)
        .map(|n| json!({ "pod": format!("shop/web-{n}"), "cpu": n, "why": ["no node has room", "zone"] }))
        .collect();
    json!({ "action": "scale_up", "share": 0.25, "pods": pods })
}

/// A text of which gzip makes three quarters at best.
fn noise(seed: u64, bytes: usize) -> Value {
    let mut noise = vec![0; bytes];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut noise);
    json!(base64::engine::general_purpose::STANDARD.encode(noise))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_item_is_stored_as_gzip_and_read_like_any_other() {
    let (server, store) = start("large-items").await;
    let client = server.client().await;
    let (small, large) = (decision(3), decision(10_000));
    assert!(large.to_string().len() > 500_000);
    let readable = ["body", "cluster_id", "item", "version"];
    let packed = ["body_gzip", "cluster_id", "item", "version"];
    for (version, body, names) in [
        (1, &large, packed),
        (2, &small, readable),
        (3, &large, packed),
        (4, &large, packed),
    ] {
        store.append(&put("decision#1", body.clone())).await.unwrap();
        let item = store.get("decision#1").await.unwrap().unwrap();
        assert_eq!(item.version, version);
        assert!(item.body == *body, "version {version}");
        assert_eq!(
            attributes(&client, "decision#1").await,
            names,
            "version {version}"
        );
    }
    let writes = [
        Write::Put {
            key: "decision#1".to_owned(),
            body: small.clone(),
            expires_at: None,
            condition: Condition::Version(4),
        },
        put("op#1", large.clone()),
    ];
    store.commit(Epoch(1), &writes, &Attributes::new()).await.unwrap();
    assert_eq!(attributes(&client, "decision#1").await, readable);
    assert_eq!(attributes(&client, "op#1").await, packed);
    let listed = store.list("", false, 10).await.unwrap();
    let bodies: Vec<_> = listed
        .iter()
        .map(|item| (&*item.key, item.body == large))
        .collect();
    assert_eq!(bodies, [("decision#1", false), ("op#1", true)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_that_is_too_large_even_as_gzip_is_refused_by_name_and_one_just_below_is_taken() {
    let (_server, store) = start("largest-items").await;
    // Between a size that is taken and one that is not, half by half.
    let (mut taken, mut refused) = (200_000, 400_000);
    while refused - taken > 64 {
        let middle = (taken + refused) / 2;
        match store.append(&put("decision#1", noise(1, middle))).await {
            Ok(()) => taken = middle,
            // That the server itself refuses it would be another error.
            Err(StoreError::TooLarge { key, bytes, limit }) => {
                assert_eq!((&*key, limit), ("decision#1", 400 * 1024));
                assert!(bytes > limit);
                refused = middle;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let last = store.get("decision#1").await.unwrap().unwrap();
    assert!(last.body == noise(1, taken), "the last that was taken");

    let writes = [put("op#1", json!(1)), put("op#2", noise(2, 2 * refused))];
    let error = store
        .commit(Epoch(1), &writes, &Attributes::new())
        .await
        .unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains("`op#2`") && words.contains("409600 at most"),
        "{words}"
    );
    assert_eq!(store.get("op#1").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_more_than_a_transaction_takes_is_refused_whole() {
    let (_server, store) = start("large-commits").await;
    let writes = |count: u64| {
        let writes = (0..count).map(|n| put(&format!("op#{n:02}"), noise(n, 290_000)));
        writes.collect::<Vec<_>>()
    };
    store
        .commit(Epoch(1), &writes(10), &Attributes::new())
        .await
        .unwrap();
    let error = store
        .commit(Epoch(1), &writes(20), &Attributes::new())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::TooLarge { .. }), "{error}");
    let listed = store.list("op#", false, 100).await.unwrap();
    assert_eq!(listed.len(), 10);
    assert!(listed.iter().all(|item| item.version == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_several_pages_is_read_whole_in_both_orders() {
    let (server, store) = start("long-lists").await;
    let past = jiff::Timestamp::from_second(1).unwrap();
    let keys: Vec<_> = (0..90).map(|n| format!("sample#{n:03}")).collect();
    for (n, key) in keys.iter().enumerate() {
        // Just small enough to stay readable. Some have lapsed, and count for the page but not for the answer.
        let sample = Write::Put {
            key: key.clone(),
            body: json!("x".repeat(32_000)),
            expires_at: (n % 9 == 4).then_some(past),
            condition: Condition::Always,
        };
        store.append(&sample).await.unwrap();
    }
    let page = server
        .client()
        .await
        .query()
        .table_name(TABLE)
        .key_condition_expression("cluster_id = :c AND begins_with(#i, :p)")
        .expression_attribute_names("#i", "item")
        .expression_attribute_values(":c", AttributeValue::S(CLUSTER.to_owned()))
        .expression_attribute_values(":p", AttributeValue::S("sample#".to_owned()))
        .send()
        .await
        .unwrap();
    assert!(
        page.count() < 45 && page.last_evaluated_key().is_some(),
        "several pages"
    );

    let living: Vec<_> = keys
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 9 != 4)
        .map(|(_, key)| key.clone())
        .collect();
    let listed = async |newest_first, limit| {
        let items = store.list("sample#", newest_first, limit).await.unwrap();
        items.into_iter().map(|item| item.key).collect::<Vec<_>>()
    };
    assert_eq!(listed(false, 1_000).await, living);
    assert_eq!(listed(false, 50).await, living[..50]);
    let newest: Vec<_> = living.iter().rev().cloned().collect();
    assert_eq!(listed(true, 1_000).await, newest);
    assert_eq!(listed(true, 50).await, newest[..50]);
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_that_make_the_table_at_once_all_find_it_ready() {
    let folder = Folder::new("tables").unwrap();
    let server = DynamoDb::start(&folder).await.unwrap();
    let mut starting = JoinSet::new();
    for n in 0..6 {
        let store = Connections(&server)
            .connect(&format!("cluster-{n}"), Arc::new(SystemClock))
            .await;
        starting.spawn(async move {
            store.create_table().await?;
            store.append(&put("op#1", json!(n))).await
        });
    }
    for started in starting.join_all().await {
        started.unwrap();
    }
    let table = server
        .client()
        .await
        .describe_time_to_live()
        .table_name(TABLE)
        .send()
        .await
        .unwrap();
    let lapses = table
        .time_to_live_description()
        .and_then(|lapses| lapses.attribute_name());
    assert_eq!(lapses, Some("expires_at"));
}
