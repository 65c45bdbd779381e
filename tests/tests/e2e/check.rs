//! What `check` finds of a coordinator's surroundings, before one runs and by one that does.

use std::collections::BTreeMap;

use serde_json::Value;
use smartscale_tests::rig::{programs, wait};
use smartscale_tests::site::{DEADLINE, Site, policy};

/// What `smartscale-coordinator check` prints for the first coordinator, and its exit code.
async fn check(site: &Site) -> (Option<i32>, Value) {
    let output = tokio::process::Command::new(programs::path("smartscale-coordinator").unwrap())
        .args(["check", "--output", "json", "--config"])
        .arg(site.stack.home.join("coordinator-a.toml"))
        .envs(site.stack.coordinator_environment())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), report)
}

/// How many lines of each area went so.
fn count(report: &Value, outcome: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for finding in report["findings"].as_array().unwrap() {
        if finding["outcome"] == outcome {
            let area = finding["area"].as_str().unwrap().to_owned();
            *counts.entry(area).or_default() += 1;
        }
    }
    counts
}

fn counted(areas: &[(&str, usize)]) -> BTreeMap<String, usize> {
    areas
        .iter()
        .map(|(area, count)| ((*area).to_owned(), *count))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_names_what_is_missing_and_coordinators_that_run_say_the_same_of_themselves() {
    let mut site = Site::new("check", &policy("[limits]\nmin_nodes = 1\n"))
        .await
        .unwrap();
    // Nobody serves yet, and no node has figures: four queries return nothing.
    let (code, report) = check(&site).await;
    let failed = count(&report, "failed");
    assert_eq!(failed, counted(&[("peers", 1), ("prometheus", 4)]), "{report:#}");
    assert_eq!(code, Some(1));
    let passed: Vec<_> = count(&report, "passed").into_keys().collect();
    assert_eq!(
        passed,
        [
            "certificates",
            "clock",
            "cloudwatch",
            "cloudwatch-logs",
            "files",
            "fleet",
            "kubernetes",
            "policy",
            "rights",
            "sns",
            "store"
        ],
        "{report:#}"
    );
    assert_eq!(count(&report, "skipped"), BTreeMap::new(), "{report:#}");

    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    site.start_coordinator(1).unwrap();
    let nodes = site.ready_nodes(1).await.unwrap();
    site.stack.prometheus.figures().node(&nodes[0], 0.5, 0.5);
    let reports = wait::until("all to be well", DEADLINE, || async {
        // One line that failed would be an exit code of 1.
        Ok(Some(site.ask(&["check"]).await?))
    })
    .await
    .unwrap();
    let programs: Vec<_> = reports["reports"].as_array().unwrap().iter().collect();
    let names: Vec<_> = programs.iter().map(|report| &report["program"]).collect();
    let agent = format!("agent {}", nodes[0]);
    assert_eq!(
        names,
        [
            "coordinator coordinator-a",
            "coordinator coordinator-b",
            agent.as_str()
        ]
    );
    for report in programs {
        assert_eq!(count(report, "failed"), BTreeMap::new(), "{report:#}");
    }

    // A launch template that is gone, and a coordinator that is.
    site.configure(0, "launch_template = \"", "launch_template = \"gone-")
        .unwrap();
    let (_, report) = check(&site).await;
    assert_eq!(count(&report, "failed"), counted(&[("fleet", 1)]), "{report:#}");
    site.coordinator(1).unwrap().kill();
    let refused = site.ask(&["check"]).await.unwrap_err().to_string();
    assert!(refused.contains("2 checks failed"), "{refused}");
}
