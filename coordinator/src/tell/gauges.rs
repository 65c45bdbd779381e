//! Keeps the gauges that show a state (nodes, pods that wait, utilisation, who leads) in step with it.

use std::sync::Arc;

use smartscale_proto::time::SharedClock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::{serve::view::Latest, state::lease::Leadership};

/// Sets the gauges at each decision and each change of the leader, until `stop`.
pub async fn keep(
    metrics: Metrics,
    mut latest: watch::Receiver<Option<Arc<Latest>>>,
    mut leadership: watch::Receiver<Leadership>,
    clock: SharedClock,
    stop: CancellationToken,
) {
    loop {
        metrics.set_leader(leadership.borrow_and_update().may_act(&*clock).is_some());
        if let Some(latest) = &*latest.borrow_and_update() {
            show(&metrics, latest);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            Ok(()) = latest.changed() => {}
            Ok(()) = leadership.changed() => {}
            // Whoever decided and whoever led have ended: nothing will change any more.
            else => return stop.cancelled().await,
        }
    }
}

fn show(metrics: &Metrics, latest: &Latest) {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let ready = latest.our_nodes().filter(|node| node.ready).count();
    metrics.set_nodes(count(ready), count(latest.our_nodes().count()));
    metrics.set_cost(latest.cost_per_hour());
    metrics.set_pending(latest.pending(), latest.longest_pending().as_secs_f64());
    let unplaced = latest.plan.pods.pending.iter();
    metrics.set_unplaced(unplaced.map(|pod| pod.code.to_string()));
    metrics.set_held(latest.plan.held_by.iter().map(ToString::to_string));
    metrics.set_forecast(latest.foreseen.as_ref());
    metrics.set_steered(latest.steered.len());
    let reading = latest.reading(latest.at);
    metrics.set_utilisation(
        reading.and_then(|reading| reading.cpu_percent),
        reading.and_then(|reading| reading.memory_percent),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::SignedDuration;
    use smartscale_planner::{
        PendingCode, PendingPod, Plan, fixtures,
        model::{Pod, PodKey},
        snapshot::{Reading, Source},
    };

    use super::*;

    fn latest(reading_age: SignedDuration) -> Latest {
        let mut snapshot = fixtures::snapshot(
            [fixtures::node("a"), fixtures::node("b").not_ready()],
            Vec::<Pod>::new(),
        );
        snapshot.metrics.cluster = vec![Reading {
            time: fixtures::now() - reading_age,
            cpu_percent: Some(50.0),
            memory_percent: None,
            source: Source::Prometheus,
        }];
        Latest {
            at: fixtures::now(),
            snapshot: Arc::new(snapshot),
            plan: Arc::new(Plan::default()),
            policy: Arc::new(fixtures::policy("")),
            policy_toml: "".into(),
            decision: None,
            cost_change_per_hour: 0.0,
            of_templates: Vec::new(),
            foreseen: None,
            steered: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn who_has_waited_longest_is_told_and_who_has_no_place_at_all() {
        let mut latest = latest(SignedDuration::ZERO);
        let waits = |name: &str, minutes: i64| {
            let mut pod = fixtures::pod(name).0;
            pod.created = Some(fixtures::now() - SignedDuration::from_mins(minutes));
            pod
        };
        let mut snapshot = fixtures::snapshot([fixtures::node("a")], [waits("young", 1), waits("old", 7)]);
        snapshot.metrics.cluster.clear();
        latest.snapshot = Arc::new(snapshot);
        let mut plan = Plan::default();
        plan.pods.pending = vec![PendingPod {
            pod: PodKey::new("default", "old"),
            reason: String::new(),
            code: PendingCode::NodeSelector,
        }];
        latest.plan = Arc::new(plan);
        let metrics = Metrics::new("0");
        show(&metrics, &latest);
        let text = metrics.encode();
        for line in [
            "smartscale_pending_pods 2",
            "smartscale_pending_pods_oldest_seconds 420.0",
            r#"smartscale_unplaced_pods{code="NodeSelector"} 1"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
    }

    #[test]
    fn what_was_seen_is_shown_and_an_old_reading_is_unknown() {
        let metrics = Metrics::new("0");
        show(&metrics, &latest(SignedDuration::from_secs(10)));
        assert_eq!(metrics.node_count(), Some(2));
        assert!(metrics.encode().contains("cpu_ratio 0.5"), "{}", metrics.encode());
        let mut later = latest(SignedDuration::from_mins(4));
        later.steered.insert(PodKey::new("default", "web-1"), -99);
        assert!(metrics.encode().contains("steered_pods 0"));
        show(&metrics, &later);
        assert!(metrics.encode().contains("steered_pods 1"));
        assert!(metrics.encode().contains("cpu_ratio NaN"), "{}", metrics.encode());
    }
}
