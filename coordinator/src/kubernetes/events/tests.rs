#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use serde_json::json;

use super::{
    object::{cut, event, of_node, of_pod, once_more},
    *,
};
use crate::{
    kubernetes::testing::{Seen, client, lines, status},
    tell::{Event, Grounds, Severity},
};
use smartscale_planner::model::PodKey;

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
            decision: None,
            grounds: Grounds::default(),
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
async fn a_pod_that_is_gone_is_passed_over() {
    let (client, log) = client(|seen| {
        if seen.line.starts_with("GET") {
            status(404, "not found", None)
        } else {
            (201, "{}".into())
        }
    });
    let events = Events::new(client, "coordinator-1");
    assert_eq!(events.notify(&launch()).await, Ok(()));
    assert_eq!(lines(&log).len(), 2, "the node's event, and a look for the pod");
}

/// What the patches of a series were, when the event was told at `told` last.
async fn counted(told: &str, count: Option<i32>) -> Vec<Seen> {
    let series = count.map(|count| json!({ "count": count, "lastObservedTime": told }));
    let there = json!({
        "metadata": { "name": "x", "resourceVersion": "7" },
        "eventTime": if count.is_some() { "2026-01-01T00:00:00.000000Z" } else { told }, "series": series,
    });
    let (client, log) = client(move |seen| match seen.line.split(' ').next() {
        Some("POST") => status(409, "already exists", None),
        Some("GET") => (200, there.to_string()),
        _ => (200, "{}".into()),
    });
    let events = Events::new(client, "coordinator-1");
    let mut launch = launch();
    if let Event::Operation { pods, .. } = &mut launch.event {
        pods.clear();
    }
    events.notify(&launch).await.unwrap();
    let log = log.lock().unwrap();
    log.iter()
        .filter(|seen| seen.line.starts_with("PATCH"))
        .cloned()
        .collect()
}

#[tokio::test]
async fn what_is_said_again_counts_one_more_and_what_was_told_before_does_not() {
    for (count, next) in [(None, 2), (Some(2), 3)] {
        let patches = counted("2026-01-02T03:04:05.123455Z", count).await;
        assert_eq!(patches.len(), 1);
        let expected = json!({
            "metadata": { "resourceVersion": "7" },
            "series": { "count": next, "lastObservedTime": "2026-01-02T03:04:05.123456Z" },
        });
        assert_eq!(patches[0].body, expected);
        let same = counted("2026-01-02T03:04:05.123456Z", count).await;
        assert!(same.is_empty(), "an answer that got lost: {same:?}");
    }
}

#[test]
fn a_series_counts_from_the_first_time() {
    let first = v1::Event {
        event_time: None,
        ..v1::Event::default()
    };
    let series = once_more(&first, launch().time).unwrap();
    assert_eq!(series.count, 2);
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
fn the_same_thing_has_the_same_name_at_any_time_and_another_object_another() {
    let note = note(&launch()).unwrap();
    let later = Happening {
        time: "2026-01-02T04:00:00Z".parse().unwrap(),
        ..launch()
    };
    let worse = Happening {
        severity: Severity::Warning,
        ..launch()
    };
    let named =
        |happening: &Happening, regarding| event(happening, &note, regarding, "x").metadata.name.unwrap();
    let node = |name: &str| of_node(&name.into());
    let pod = |uid: &str| of_pod(&PodKey::new("default", "i-1"), Some(uid.to_owned()));
    let name = named(&launch(), node("i-1"));
    assert!(name.starts_with("i-1."));
    assert_eq!(named(&later, node("i-1")), name);
    let others = [
        named(&worse, node("i-1")),
        named(&launch(), node("i-2")),
        named(&launch(), pod("i-1")),
        named(&launch(), pod("u-2")),
    ];
    for (index, other) in others.iter().enumerate() {
        assert!(*other != name && !others[..index].contains(other), "{others:?}");
    }
}

#[test]
fn a_long_note_is_cut_between_characters() {
    assert_eq!(cut("añb", 2), "a");
    assert_eq!(cut("añb", 3), "añ");
    assert_eq!(cut("a", 9), "a");
}

#[tokio::test]
async fn a_refused_policy_is_said_at_its_config_map() {
    let (client, log) = client(|_| (201, "{}".into()));
    let happening = Happening {
        severity: Severity::Warning,
        message: "the policy is refused".into(),
        event: Event::Policy {
            origin: "ConfigMap kube-system/smartscale-policy".into(),
            state: "refused".into(),
            config_map: Some("kube-system/smartscale-policy".parse().unwrap()),
            uid: Some("u1".into()),
        },
        ..launch()
    };
    let events = Events::new(client, "coordinator-1");
    events.notify(&happening).await.unwrap();
    assert_eq!(
        lines(&log),
        ["POST /apis/events.k8s.io/v1/namespaces/kube-system/events"]
    );
    let event = log.lock().unwrap()[0].body.clone();
    let regarding = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "namespace": "kube-system", "name": "smartscale-policy", "uid": "u1",
    });
    assert_eq!(event["regarding"], regarding);
    assert_eq!(event["reason"], json!("PolicyRefused"));
    assert_eq!(event["type"], json!("Warning"));
}
