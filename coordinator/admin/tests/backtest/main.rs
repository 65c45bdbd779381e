//! `smartscale backtest` as people and programs call it: its result, its files, and what it refuses.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod prometheus;
mod several;

use std::{
    path::PathBuf,
    process::{Command, Output},
};

const POLICY: &str = r#"
[cluster]
id = "test"
[limits]
min_nodes = 1
max_nodes = 10
[[pool]]
name = "workers"
instance_types = ["t3.small"]
zones = ["us-east-1a"]
"#;

const WORKLOAD: &str = "[workload]\nrequests_per_pod = 10.0\ncpu = \"500m\"\nmemory = \"256Mi\"\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("policy.toml", POLICY);
        folder.write("workload.toml", WORKLOAD);
        let rows = (0..60).map(|minute| format!("2026-01-01T00:{minute:02}:00Z,{}\n", 20 + minute % 7 * 10));
        folder.write(
            "trace.csv",
            &("time,requests\n".to_owned() + &rows.collect::<String>()),
        );
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// By the policy, on the history.
    fn run(&self, more: &[&str]) -> Output {
        let usual = ["--trace", "trace.csv", "--policy", "policy.toml"];
        self.backtest(&[&usual, more].concat())
    }

    fn backtest(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_smartscale"))
            .args(["backtest", "--workload", "workload.toml"])
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .output()
            .unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn keys(value: &serde_json::Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn the_result_has_the_keys_of_the_contract() {
    let folder = Folder::new();
    let output = folder.run(&["-o", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let result = json(&output);
    assert_eq!(
        keys(&result),
        [
            "compare",
            "minutes",
            "over_oracle_percent",
            "policy",
            "saving_percent",
            "wall_seconds"
        ]
    );
    assert_eq!(keys(&result["compare"]), ["fixed", "oracle", "thresholds"]);
    assert_eq!(keys(&result["saving_percent"]), ["fixed", "thresholds"]);
    let totals = [
        "cost_usd",
        "decisions",
        "evictions",
        "launches",
        "node_hours",
        "peak_nodes",
        "pending_pod_seconds",
        "shortfall_minutes",
        "terminations",
        "unserved_requests",
    ];
    for run in [
        &result["policy"],
        &result["compare"]["fixed"],
        &result["compare"]["oracle"],
    ] {
        assert_eq!(keys(run), totals);
    }
    assert_eq!(result["minutes"], 60);
}

#[test]
fn what_was_not_asked_for_is_absent() {
    let folder = Folder::new();
    let result = json(&folder.run(&["-o", "json", "--compare", "thresholds"]));
    assert_eq!(
        keys(&result),
        ["compare", "minutes", "policy", "saving_percent", "wall_seconds"]
    );
    assert_eq!(keys(&result["compare"]), ["thresholds"]);
    assert_eq!(keys(&result["saving_percent"]), ["thresholds"]);
}

#[test]
fn the_same_seed_gives_the_same_bytes_but_for_the_time_it_took() {
    let folder = Folder::new();
    folder.write(
        "workload.toml",
        &(WORKLOAD.to_owned() + "[cloud]\nboot = \"90s\"\nboot_jitter = \"60s\"\n"),
    );
    let run = |seed: &str| {
        let output = folder.run(&["-o", "json", "--seed", seed, "--series", "series.csv"]);
        let mut result = json(&output);
        result["wall_seconds"] = 0.into();
        (
            result.to_string(),
            std::fs::read(folder.path("series.csv")).unwrap(),
        )
    };
    let first = run("7");
    assert_eq!(run("7"), first);
    assert_ne!(run("8").1, first.1);
}

#[test]
fn the_table_fits_eighty_columns() {
    let folder = Folder::new();
    let output = folder.run(&[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("cost, USD") && text.contains("oracle"), "{text}");
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn input_that_cannot_be_used_is_named_with_its_file_and_place() {
    let folder = Folder::new();
    for (file, text, said) in [
        (
            "trace.csv",
            "time,requests\n2026-01-01T00:00:00Z,x\n",
            "trace.csv: line 2: `x` is no number",
        ),
        ("trace.csv", "", "trace.csv: is empty"),
        (
            "workload.toml",
            "[workload]\nrequests_per_pod = 0\ncpu = \"1\"\nmemory = \"1Gi\"\n",
            "workload.toml: workload.requests_per_pod",
        ),
        (
            "workload.toml",
            "[workload]\nrequests_per_pod = 1\ncpu = \"64\"\nmemory = \"1Gi\"\n",
            "workload.toml: workload.cpu: a pod is larger",
        ),
        (
            "policy.toml",
            "[cluster]\nid = \"c\"\nname = \"d\"\n",
            "policy.toml: cluster.name",
        ),
    ] {
        let folder = Folder::new();
        folder.write(file, text);
        let output = folder.run(&[]);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(said), "{said}: {stderr}");
        assert!(output.stdout.is_empty());
    }
    let output = folder.run(&["--compare", "karpenter"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("expected fixed, thresholds or oracle"),
        "{stderr}"
    );
    std::fs::remove_file(folder.path("trace.csv")).unwrap();
    let output = folder.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("trace.csv: cannot be read"), "{stderr}");
}

#[test]
fn the_plot_is_one_svg_with_a_panel_for_each_figure() {
    let folder = Folder::new();
    let output = folder.run(&["--plot", "run.svg"]);
    assert_eq!(output.status.code(), Some(0));
    let svg = std::fs::read_to_string(folder.path("run.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    assert_eq!(svg.matches("class=\"title\"").count(), 4);
    assert!(!svg.contains("class=\"band\""), "no forecast, no band");
    assert!(svg.contains("prefers-color-scheme:dark") && svg.contains("2026-01-01 00:00"));
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
}

#[test]
fn the_plot_of_a_policy_with_a_forecast_has_its_band_and_the_series_the_columns_of_the_contract() {
    let folder = Folder::new();
    folder.write("policy.toml", &format!("{POLICY}[forecast]\nenabled = true\n"));
    let output = folder.run(&["--plot", "run.svg", "--series", "run.csv"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let svg = std::fs::read_to_string(folder.path("run.svg")).unwrap();
    assert_eq!(svg.matches("class=\"title\"").count(), 5);
    assert_eq!(svg.matches("class=\"band\" d=\"M").count(), 1);
    assert!(svg.contains("band: forecast") && !svg.contains("NaN") && !svg.contains("inf"));
    let csv = std::fs::read_to_string(folder.path("run.csv")).unwrap();
    assert!(csv.starts_with(
        "time,requests,pods_wanted,pods_serving,pods_pending,nodes_ready,nodes_billed,cost_per_hour\n"
    ));
}

#[test]
fn the_plot_is_a_png_by_its_ending_and_other_endings_are_bad_usage_that_names_both() {
    let folder = Folder::new();
    let output = folder.run(&["--plot", "run.png"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let png = std::fs::read(folder.path("run.png")).unwrap();
    assert!(png.starts_with(b"\x89PNG\r\n\x1a\n") && png.len() < 200_000);
    for other in ["run.pdf", "run"] {
        let output = folder.run(&["--plot", other]);
        assert_eq!(output.status.code(), Some(2));
        assert!(
            said(&output).contains("ends in .svg or .png"),
            "{}",
            said(&output)
        );
        assert!(!folder.path(other).exists() && output.stdout.is_empty());
    }
}

#[test]
fn one_policy_has_the_keys_in_the_order_of_the_contract_and_stderr_stays_empty() {
    let folder = Folder::new();
    let output = folder.run(&["-o", "json"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let at = |key: &str| text.find(&format!("\n  \"{key}\": ")).unwrap();
    let keys = [
        "policy",
        "compare",
        "saving_percent",
        "over_oracle_percent",
        "minutes",
        "wall_seconds",
    ];
    assert!(keys.map(at).is_sorted(), "{text}");
    // No bar is drawn where nobody looks on.
    assert_eq!(said(&output), "");
}

#[test]
fn a_series_that_cannot_be_written_is_a_failure() {
    let folder = Folder::new();
    let output = folder.run(&["--series", "no/such/folder.csv"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("no/such/folder.csv")
    );
}
