//! What `kubectl describe` shows of the coordinator's doings.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::events::v1::Event as Said;
use kube::Api;
use kube::api::ListParams;
use smartscale_coordinator::kubernetes::annotations::Annotations;
use smartscale_coordinator::kubernetes::events::Events;
use smartscale_coordinator::tell::{Event, Grounds, Happening, Notifier as _, Severity};
use smartscale_planner::model::PodKey;
use smartscale_tests::rig::kubernetes::{node, pod};

use super::{Place, shared};

/// What a coordinator tells of a launch at a time.
pub(super) fn launch(node: &str, pods: &[PodKey], time: &str) -> Happening {
    Happening {
        time: time.parse().unwrap(),
        severity: Severity::Info,
        message: format!("launch {node} for pending pods"),
        event: Event::Operation {
            operation: "op-1".parse().unwrap(),
            operation_kind: "launch".to_owned(),
            phase: "launching".to_owned(),
            ended: false,
            succeeded: false,
            reason: "pending_pods".to_owned(),
            nodes: vec![node.into()],
            pods: pods.to_vec(),
            error_type: None,
            decision: None,
            grounds: Grounds::default(),
        },
    }
}

/// The events about one object.
async fn about(events: &Api<Said>, name: &str) -> Vec<Said> {
    let mut said = events.list(&ListParams::default()).await.unwrap().items;
    said.retain(|event| {
        let ours = event.reporting_controller.as_deref() == Some("smartscale.io/coordinator");
        ours && event.regarding.as_ref().and_then(|about| about.name.as_deref()) == Some(name)
    });
    said
}

fn counted(events: &[Said]) -> Vec<Option<i32>> {
    let series = events.iter().map(|event| event.series.as_ref());
    series.map(|series| series.map(|series| series.count)).collect()
}

#[test]
fn what_was_done_is_said_at_the_node_and_at_its_pods_and_counted_when_it_is_said_again() {
    shared(async |world| {
        let place = world.place("events").await;
        world.node(node("told")).await;
        let uid = place.pod(pod("web").on("told")).await;
        let of_nodes = Place {
            name: "default",
            ..place.clone()
        };
        let (of_nodes, of_pods) = (of_nodes.all::<Said>(), place.all::<Said>());
        let events = Events::new(world.coordinator().await, "coordinator-a");
        let pods = [PodKey::new("events", "web"), PodKey::new("events", "gone")];
        let first = launch("told", &pods, "2026-01-02T03:04:05.123456789Z");
        // The second time as after an answer that got lost.
        for _ in 0..2 {
            events.notify(&first).await.unwrap();
            for (said, name) in [
                (about(&of_nodes, "told").await, "told"),
                (about(&of_pods, "web").await, "web"),
            ] {
                assert_eq!(counted(&said), [None], "{name}");
                assert_eq!(said[0].reason.as_deref(), Some("TriggeredScaleUp"));
                assert_eq!(said[0].note.as_deref(), Some("launch told for pending pods"));
                assert_eq!(said[0].reporting_instance.as_deref(), Some("coordinator-a"));
            }
        }
        assert!(about(&of_pods, "gone").await.is_empty());
        // `kubectl describe pod` asks by the UID.
        let by_uid = ListParams::default().fields(&format!("involvedObject.uid={uid}"));
        let described = place.all::<core::Event>().list(&by_uid).await.unwrap();
        assert!(
            described
                .items
                .iter()
                .any(|event| event.reason.as_deref() == Some("TriggeredScaleUp"))
        );

        // Another leader says the same later.
        let other = Events::new(world.coordinator().await, "coordinator-b");
        for (count, time) in [(2, "2026-01-02T03:14:05Z"), (3, "2026-01-02T03:24:05Z")] {
            other.notify(&launch("told", &pods, time)).await.unwrap();
            assert_eq!(counted(&about(&of_nodes, "told").await), [Some(count)]);
            assert_eq!(counted(&about(&of_pods, "web").await), [Some(count)]);
        }
        // A pod that came again is another pod.
        place.remove_pod("web").await;
        place.pod(pod("web").on("told")).await;
        other
            .notify(&launch("told", &pods, "2026-01-02T03:34:05Z"))
            .await
            .unwrap();
        let mut counts = counted(&about(&of_pods, "web").await);
        counts.sort_unstable();
        assert_eq!(counts, [None, Some(3)]);
    });
}

/// The same operation in another phase.
fn at(mut happening: Happening, is: &str, over: bool, well: bool) -> Happening {
    if let Event::Operation {
        operation_kind,
        ended,
        succeeded,
        ..
    } = &mut happening.event
    {
        is.clone_into(operation_kind);
        (*ended, *succeeded) = (over, well);
    }
    happening
}

#[test]
fn a_node_says_what_it_was_launched_for_and_why_it_is_going_as_long_as_it_is() {
    shared(async |world| {
        world.node(node("explained").annotation("mine", "stays")).await;
        let nodes: Api<core::Node> = world.admin();
        let said = async || -> Vec<(String, String)> {
            let node = nodes.get("explained").await.unwrap();
            let all = node.metadata.annotations.unwrap_or_default();
            all.into_iter()
                .filter(|(key, _)| key == "mine" || key.starts_with("smartscale.io/l"))
                .collect()
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let launched = [
            pair("mine", "stays"),
            pair("smartscale.io/launched-because", "pending_pods"),
            pair("smartscale.io/launched-by", "op-1"),
        ];
        let leaving = [
            pair("mine", "stays"),
            pair("smartscale.io/launched-because", "pending_pods"),
            pair("smartscale.io/launched-by", "op-1"),
            pair("smartscale.io/leaving-because", "pending_pods"),
            pair("smartscale.io/leaving-by", "op-1"),
        ];
        let annotations = Annotations::new(world.coordinator().await);
        let of = || launch("explained", &[], "2026-01-02T03:04:05Z");
        annotations.notify(&at(of(), "launch", true, true)).await.unwrap();
        assert_eq!(said().await, launched);
        annotations
            .notify(&at(of(), "remove", false, false))
            .await
            .unwrap();
        assert_eq!(said().await, leaving);
        annotations
            .notify(&at(of(), "remove", true, false))
            .await
            .unwrap();
        assert_eq!(said().await, launched);
    });
}
