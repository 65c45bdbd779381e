#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use serde_json::json;

use super::*;
use crate::kubernetes::testing::{client, lines, status};

fn launch() -> Happening {
    Happening {
        time: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
        severity: Severity::Info,
        message: "Launching a t3.small for 1 pending pod.".into(),
        event: Event::Operation {
            operation: "op-1".parse().unwrap(),
            operation_kind: "launch".into(),
            phase: "launching".into(),
            ended: false,
            succeeded: false,
            reason: "pending_pods".into(),
            nodes: vec!["i-1".into()],
            pods: vec![PodKey::new("shop", "web-1")],
            error_type: None,
        },
    }
}

#[tokio::test]
async fn a_launch_is_said_at_the_node_and_at_its_pods() {
    let (client, log) = client(|seen| {
        if seen.line.starts_with("GET") {
            (
                200,
                json!({ "metadata": { "name": "web-1", "uid": "u1" } }).to_string(),
            )
        } else {
            (201, "{}".into())
        }
    });
    let events = Events::new(client, "coordinator-1");
    events.notify(&launch()).await.unwrap();
    assert_eq!(
        lines(&log),
        [
            "POST /apis/events.k8s.io/v1/namespaces/default/events",
            "GET /api/v1/namespaces/shop/pods/web-1",
            "POST /apis/events.k8s.io/v1/namespaces/shop/events",
        ]
    );
    let event = log.lock().unwrap()[2].body.clone();
    assert_eq!(event["regarding"]["uid"], json!("u1"));
    assert_eq!(event["reason"], json!("TriggeredScaleUp"));
    assert_eq!(event["type"], json!("Normal"));
    assert_eq!(event["eventTime"], json!("2026-01-02T03:04:05.123456Z"));
    assert_eq!(event["note"], json!("Launching a t3.small for 1 pending pod."));
}

#[tokio::test]
async fn what_was_told_before_counts_as_told_and_a_pod_that_is_gone_is_passed_over() {
    let (client, _) = client(|seen| {
        if seen.line.starts_with("GET") {
            status(404, "not found", None)
        } else {
            status(409, "already exists", None)
        }
    });
    let events = Events::new(client, "coordinator-1");
    assert_eq!(events.notify(&launch()).await, Ok(()));
}

#[tokio::test]
async fn an_outage_passes_and_a_refusal_does_not() {
    for (code, passes) in [(503, true), (429, true), (403, false)] {
        let (client, _) = client(move |_| status(code, "no", None));
        let events = Events::new(client, "coordinator-1");
        let error = events.notify(&launch()).await.unwrap_err();
        assert_eq!(matches!(error, NotifyError::Passing(_)), passes, "{code}");
    }
}

#[test]
fn the_same_thing_has_the_same_name_and_another_object_another() {
    let note = note(&launch()).unwrap();
    let named = |node: &str| {
        let event = event(&launch(), &note, of_node(&node.into()), "x");
        event.metadata.name.unwrap()
    };
    assert_eq!(named("i-1"), named("i-1"));
    assert_ne!(named("i-1"), named("i-2"));
    assert!(named("i-1").starts_with("i-1."));
}

#[test]
fn a_long_note_is_cut_between_characters() {
    assert_eq!(cut("añb", 2), "a");
    assert_eq!(cut("añb", 3), "añ");
    assert_eq!(cut("a", 9), "a");
}
