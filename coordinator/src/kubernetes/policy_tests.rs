#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::sync::Arc;

use serde_json::json;
use smartscale_proto::time::SystemClock;

use super::*;
use crate::kubernetes::testing::{Seen, client, lines, status};

/// A ConfigMap over an API server that answers so, and what it was asked.
fn map(
    answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static,
) -> (PolicyMap, crate::kubernetes::testing::Log) {
    let (client, log) = client(answer);
    let api = Api::new(client, Arc::new(SystemClock));
    let name = "kube-system/smartscale-policy".parse().unwrap();
    (PolicyMap::new(api, name), log)
}

fn list(items: &Value) -> String {
    json!({ "metadata": { "resourceVersion": "7" }, "items": items }).to_string()
}

fn object(text: &str) -> Value {
    json!({ "metadata": { "name": "smartscale-policy", "uid": "u1" }, "data": { "policy.toml": text } })
}

/// What the offers come to when `holds`.
async fn until(offers: &watch::Sender<Option<Offer>>, holds: impl Fn(&Offer) -> bool) -> Offer {
    let mut seen = offers.subscribe();
    let found = seen.wait_for(|offer| offer.as_ref().is_some_and(&holds));
    tokio::time::timeout(Duration::from_secs(20), found)
        .await
        .expect("an offer in time")
        .unwrap()
        .clone()
        .unwrap()
}

#[tokio::test]
async fn the_config_map_is_asked_for_by_its_name_alone() {
    let (map, log) = map(|_| (200, list(&json!([object("[cluster]")]))));
    let offer = map.look().await.unwrap();
    assert_eq!(offer.text, Ok("[cluster]".to_owned()));
    assert_eq!(offer.uid.as_deref(), Some("u1"));
    assert_eq!(
        lines(&log),
        ["GET /api/v1/namespaces/kube-system/configmaps?fieldSelector=metadata.name%3Dsmartscale-policy"]
    );
}

#[tokio::test]
async fn one_that_is_not_there_or_lacks_the_key_is_an_offer_of_nothing_that_says_so() {
    let (absent, _) = map(|_| (200, list(&Value::Null)));
    let why = absent.look().await.unwrap().text.unwrap_err();
    assert_eq!(why, "there is no ConfigMap kube-system/smartscale-policy");

    let other = json!([{ "metadata": { "uid": "u1" }, "data": { "policy.yaml": "" } }]);
    let (keyless, _) = map(move |_| (200, list(&other)));
    let offer = keyless.look().await.unwrap();
    assert_eq!(
        offer.text.unwrap_err(),
        "ConfigMap kube-system/smartscale-policy has no key policy.toml"
    );
    assert_eq!(offer.uid.as_deref(), Some("u1"), "it can be told at the object");
}

#[tokio::test]
async fn changes_and_the_deletion_are_offered_as_the_watch_tells_them() {
    let changed = json!({ "type": "MODIFIED", "object": object("second") });
    let deleted = json!({ "type": "DELETED", "object": object("second") });
    let lines = format!("{changed}\n{deleted}\n");
    let (map, log) = map(move |_| (200, lines.clone()));
    let (offers, mut seen) = watch::channel(None);
    map.watch("7", &offers).await.unwrap();
    let last = seen.borrow_and_update().clone().unwrap();
    assert!(last.text.unwrap_err().starts_with("there is no ConfigMap"));
    let asked = log.lock().unwrap()[0].line.clone();
    assert!(
        asked.contains("fieldSelector=metadata.name%3Dsmartscale-policy")
            && asked.contains("resourceVersion=7"),
        "{asked}"
    );
}

#[tokio::test]
async fn a_coordinator_without_the_right_says_so_and_tries_again() {
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let (map, _) = map(move |seen| {
        if seen.line.contains("watch=1") {
            return (200, String::new());
        }
        match asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => status(403, "configmaps is forbidden", None),
            _ => (200, list(&json!([object("found")]))),
        }
    });
    let (offers, _) = watch::channel(None);
    let offers = offers.clone();
    let stop = CancellationToken::new();
    let running = tokio::spawn(map.run(offers.clone(), stop.clone()));
    let refused = until(&offers, |offer| offer.text.is_err()).await;
    assert!(refused.text.unwrap_err().contains("configmaps is forbidden"));
    until(&offers, |offer| offer.text.as_deref() == Ok("found")).await;
    stop.cancel();
    running.await.unwrap();
}

#[test]
fn what_was_offered_already_is_not_offered_again() {
    let (offers, mut seen) = watch::channel(None);
    let offer = Offer {
        text: Ok("first".to_owned()),
        uid: None,
    };
    publish(&offers, offer.clone());
    assert!(seen.has_changed().unwrap());
    seen.mark_unchanged();
    publish(&offers, offer);
    assert!(!seen.has_changed().unwrap());
}
