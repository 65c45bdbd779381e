//! Grafana's dashboard and Prometheus' alerts ask for what the coordinator really shows.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_coordinator::decide::Foreseen;
use smartscale_coordinator::tell::{
    Event, Grounds, Happening, Hub, Metrics, Notifier, NotifyError, Severity, Sink, Tell as _,
};
use smartscale_planner::forecast::{Accuracy, Band, Expectation, Source};
use smartscale_proto::time::{SharedClock, SystemClock};
use smartscale_tests::rig::{Folder, Prometheus, cache, wait};

use crate::{packaging, text};

struct Nobody;

#[async_trait]
impl Notifier for Nobody {
    fn name(&self) -> &'static str {
        "nobody"
    }

    async fn notify(&self, _: &Happening) -> Result<(), NotifyError> {
        Ok(())
    }
}

/// The metrics of a leader to which everything has happened once.
fn leader() -> Metrics {
    let metrics = Metrics::new("1.0.0");
    let clock: SharedClock = Arc::new(SystemClock);
    let sink = Sink::for_people(Arc::new(Nobody), Severity::Info);
    let (hub, _couriers) = Hub::new(metrics.clone(), &clock, vec![sink]);
    let ended = |kind: &str| Event::Operation {
        operation: "op-1".parse().unwrap(),
        operation_kind: kind.into(),
        phase: "done".into(),
        ended: true,
        succeeded: true,
        reason: "pending_pods".into(),
        nodes: Vec::new(),
        pods: Vec::new(),
        error_type: None,
        decision: None,
        grounds: Grounds::default(),
    };
    let instance = || "i-1".parse().unwrap();
    for event in [
        Event::Decided {
            decision: "d-1".parse().unwrap(),
            action: "none".into(),
            reasons: Vec::new(),
            seconds: 0.02,
            grounds: Grounds::default(),
            nodes: Vec::new(),
            operations: Vec::new(),
        },
        ended("launch"),
        ended("remove"),
        Event::Joined {
            instance: instance(),
            seconds: 41.0,
        },
        Event::BootStep {
            instance: instance(),
            step: "ready".into(),
            outcome: "done".into(),
            seconds: 12.0,
        },
        Event::Noticed {
            instance: instance(),
            notice: "rebalance".into(),
            source: "agent".into(),
        },
        Event::Drain {
            instance: instance(),
            operation: "op-1".into(),
            pod: Some(smartscale_planner::model::PodKey::new("default", "web-1")),
            state: "gone".into(),
        },
        Event::Trouble {
            error_type: "store".into(),
        },
    ] {
        hub.tell(Happening {
            time: Timestamp::now(),
            severity: Severity::Detail,
            message: String::new(),
            event,
        });
    }
    metrics.count_queue_message("handled");
    metrics.set_leader(true);
    metrics.set_nodes(3, 4);
    metrics.set_agents(4);
    metrics.set_pending(2, 30.0);
    metrics.set_unplaced(std::iter::once("NodeSelector".to_owned()));
    metrics.set_held(std::iter::once("AtMax".to_owned()));
    metrics.set_utilisation(Some(60.0), Some(50.0));
    metrics.set_cost(0.0624);
    metrics.set_source("kubernetes", true, Some(0.5));
    metrics.set_forecast(Some(&Foreseen {
        expectation: Expectation {
            extra: 500.0,
            launch: 400.0,
            surplus: 0.0,
            band: Band {
                median: 4_000.0,
                high: 5_000.0,
            },
            source: Source::Lately,
        },
        accuracy: Accuracy {
            loss: 90.0,
            reactive_loss: 120.0,
            coverage: 0.97,
            helps: true,
            source: Source::Lately,
        },
        quantile: 0.95,
    }));
    metrics
}

fn queries(panels: &serde_json::Value) -> Vec<(String, String)> {
    let panels = panels.as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| {
        let title = panel["title"].as_str().unwrap().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| {
            let query = target["expr"].as_str().unwrap();
            (title.clone(), query.replace("$__rate_interval", "1m"))
        })
    });
    targets.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_returns_data_of_a_leader_to_which_everything_happened() {
    let folder = Folder::new("dashboard").unwrap();
    let prometheus = Prometheus::start(&folder).await.unwrap();
    for line in leader().encode().lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        // As a scrape of that coordinator would label it.
        let series = match series.split_once('{') {
            Some((name, labels)) => format!("{name}{{instance=\"a\",{labels}"),
            None => format!("{series}{{instance=\"a\"}}"),
        };
        prometheus.figures().sample(&series, value.parse().unwrap());
    }
    wait::until_true("two scrapes", Duration::from_secs(30), || async {
        let scrapes = prometheus.value("count_over_time(smartscale_leader[1m])").await?;
        Ok(scrapes.is_some_and(|scrapes| scrapes >= 2.0))
    })
    .await
    .unwrap();
    let dashboard = std::fs::read_to_string(packaging().join("grafana/smartscale.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let queries = queries(&dashboard["panels"]);
    assert!(queries.len() > 30, "{}", queries.len());
    for (title, query) in queries {
        let value = prometheus.value(&query).await.unwrap();
        assert!(value.is_some(), "{title}: {query} returns nothing");
    }
}

#[test]
fn the_alerts_fire_when_they_should_and_only_then() {
    let promtool = cache::installed("prometheus/usr/bin/promtool").unwrap();
    let run = |what: &str, file: &str| {
        let output = Command::new(&promtool)
            .args([what, "rules", file])
            .current_dir(packaging().join("prometheus"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    run("check", "smartscale.rules.yaml");
    run("test", "smartscale.rules.test.yaml");
}

#[test]
fn every_alert_has_a_test_that_it_fires() {
    let read =
        |name: &str| std::fs::read_to_string(packaging().join("prometheus").join(Path::new(name))).unwrap();
    let (rules, tests) = (read("smartscale.rules.yaml"), read("smartscale.rules.test.yaml"));
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() >= 9, "{alerts:?}");
    for alert in alerts {
        let fires = format!("alertname: {alert}\n        exp_alerts:\n          - exp_labels");
        assert!(tests.contains(&fires), "no test has {alert} fire");
    }
}
