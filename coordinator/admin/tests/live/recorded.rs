//! `smartscale backtest --recorded`: the history is what the coordinators wrote down.

use std::process::Output;

use jiff::Timestamp;
use smartscale_coordinator::state::records::{ForecastHour, Record as _};
use smartscale_planner::forecast::Hour;

use super::*;

const POLICY: &str = r#"
[cluster]
id = "demo"
[limits]
min_nodes = 1
max_nodes = 20
[[pool]]
name = "workers"
instance_types = ["t3.small"]
zones = ["us-east-1a"]
"#;

const WORKLOAD: &str =
    "[workload]\nrequests_per_pod = 10.0\ntarget_utilization = 0.5\ncpu = \"500m\"\nmemory = \"256Mi\"\n";

/// Writes down what leaders did within these hours, each with its minutes, counted back from the last that is over.
async fn record(cluster: &Cluster, hours: impl IntoIterator<Item = (u64, Vec<Option<u32>>)>) {
    let last = u64::try_from(Timestamp::now().as_second()).unwrap() / 3600 - 1;
    for (back, minutes) in hours {
        let record = ForecastHour {
            hour: Hour {
                hour: last - back,
                share: Some(0.7),
                minutes,
            },
            each: None,
        };
        let write = Write::Put {
            key: record.key(),
            body: record.body().unwrap(),
            expires_at: None,
            condition: Condition::Always,
        };
        cluster.store.append(&write).await.unwrap();
    }
}

async fn backtest(cluster: &Cluster, more: &[&str]) -> Output {
    let file = |name: &str| cluster.folder.path().join(name).display().to_string();
    let (policy, workload, series) = (file("policy.toml"), file("workload.toml"), file("series.csv"));
    std::fs::write(&policy, POLICY).unwrap();
    std::fs::write(&workload, WORKLOAD).unwrap();
    let files = ["--policy", &policy, "--workload", &workload, "--series", &series];
    cluster
        .run(
            Role::Viewer,
            &[&["backtest", "--recorded"], &files[..], more].concat(),
        )
        .await
}

/// Pods wanted in each minute of the series that it wrote.
fn wanted(cluster: &Cluster) -> Vec<u32> {
    let series = std::fs::read_to_string(cluster.folder.path().join("series.csv")).unwrap();
    let mut lines = series.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let column = header.iter().position(|name| *name == "pods_wanted").unwrap();
    lines.map(|row| row[column].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_tried_on_what_the_coordinators_recorded() {
    let cluster = Cluster::new().await;
    // Eight pods and twelve; nobody looked for ten minutes.
    let mut with_a_gap = vec![Some(4_000); 60];
    with_a_gap[20..30].fill(None);
    record(&cluster, [(1, with_a_gap), (0, vec![Some(6_000); 60])]).await;
    let output = backtest(&cluster, &["-o", "json"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(
        text(&output.stderr).contains("target_utilization says 50 %"),
        "{}",
        said(&output)
    );
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["minutes"], 120);
    let wanted = wanted(&cluster);
    assert_eq!((wanted[0], wanted[19]), (8, 8));
    // The stabilization window holds pods for five minutes of the gap.
    assert_eq!((wanted[26], wanted[30], wanted[119]), (2, 8, 12));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_record_and_with_other_histories_it_is_said_what_is_wrong() {
    let cluster = Cluster::new().await;
    record(&cluster, [(50, vec![Some(1_000); 60])]).await;
    for (arguments, words) in [
        (&["--days", "2"][..], "nothing was recorded for --days 2"),
        (&["--days", "57"], "expected 56 at most"),
        (&["--trace", "x.csv"], "cannot be used with"),
        (&["--query", "up"], "cannot be used with"),
        (&["--endpoint", "127.0.0.1:1"], "no coordinator answers"),
    ] {
        let output = backtest(&cluster, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(
            text(&output.stderr).contains(words),
            "{arguments:?}: {}",
            said(&output)
        );
    }
    let older = backtest(&cluster, &["--days", "3"]).await;
    assert_eq!(older.status.code(), Some(0), "{}", said(&older));
}
