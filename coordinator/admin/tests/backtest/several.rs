//! Several policies in one call: side by side, and with values swept.

use serde_json::{Value, json as value};

use super::{Folder, POLICY, json, keys, said};

/// A folder with a second policy, which waits longer until a node goes, and a history in which nodes become idle.
fn folder() -> Folder {
    let folder = Folder::new();
    let waits = |time: &str| {
        let rules = format!("[scale_down]\nwhen = \"fits\"\nsustained = \"{time}\"\n[[pool]]");
        POLICY.replace("[[pool]]", &rules)
    };
    folder.write("policy.toml", &waits("10m"));
    folder.write("patient.toml", &waits("40m"));
    let rows = (0..120).map(|minute| {
        let requests = if minute < 20 { 100 } else { 10 };
        format!(
            "2026-01-01T{:02}:{:02}:00Z,{requests}\n",
            minute / 60,
            minute % 60
        )
    });
    folder.write(
        "trace.csv",
        &("time,requests\n".to_owned() + &rows.collect::<String>()),
    );
    folder
}

/// What one policy alone comes to.
fn alone(folder: &Folder, policy: &str) -> Value {
    let mut result = json(&folder.backtest(&["--trace", "trace.csv", "--policy", policy, "-o", "json"]));
    let result = result.as_object_mut().unwrap();
    result.remove("minutes");
    result.remove("wall_seconds");
    Value::Object(result.clone())
}

#[test]
fn each_of_several_policies_is_what_it_is_alone_with_its_file_in_their_order() {
    let folder = folder();
    let output = folder.run(&["--policy", "patient.toml", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let result = json(&output);
    assert_eq!(keys(&result), ["minutes", "policies", "wall_seconds"]);
    assert_eq!(result["minutes"], 120);
    for (index, file) in ["policy.toml", "patient.toml"].into_iter().enumerate() {
        let mut tried = result["policies"][index].clone();
        assert_eq!(tried.as_object_mut().unwrap().remove("file"), Some(file.into()));
        assert_eq!(tried, alone(&folder, file));
    }
    assert_ne!(result["policies"][0]["policy"], result["policies"][1]["policy"]);
}

#[test]
fn a_sweep_is_the_policy_with_the_value_in_its_file() {
    let folder = folder();
    let output = folder.run(&["--sweep", "scale_down.sustained=10m,40m", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let result = json(&output);
    let tried = &result["policies"][1];
    assert_eq!(tried["file"], "policy.toml");
    assert_eq!(tried["set"], value!({ "scale_down.sustained": "40m" }));
    assert_eq!(tried["policy"], alone(&folder, "patient.toml")["policy"]);
    assert_eq!(
        result["policies"][0]["policy"],
        alone(&folder, "policy.toml")["policy"]
    );
}

#[test]
fn sweeps_are_combined_with_each_other_and_with_every_policy() {
    let folder = folder();
    let output = folder.run(&[
        "--policy",
        "patient.toml",
        "--sweep",
        "scale_up.cpu_percent=60,70.5",
        "--sweep",
        "scale_down.steer=true,false",
        "-o",
        "json",
    ]);
    let result = json(&output);
    let tried = result["policies"].as_array().unwrap();
    let labels: Vec<Value> = tried
        .iter()
        .map(|tried| {
            value!([
                tried["file"],
                tried["set"]["scale_up.cpu_percent"],
                tried["set"]["scale_down.steer"]
            ])
        })
        .collect();
    assert_eq!(labels.len(), 8);
    assert_eq!(
        labels[..5],
        [
            value!(["policy.toml", 60, true]),
            value!(["policy.toml", 60, false]),
            value!(["policy.toml", 70.5, true]),
            value!(["policy.toml", 70.5, false]),
            value!(["patient.toml", 60, true]),
        ]
    );
}

#[test]
fn a_sweep_of_one_value_has_the_shape_of_several() {
    let folder = folder();
    let result = json(&folder.run(&["--sweep", "limits.max_nodes=9", "-o", "json"]));
    assert_eq!(result["policies"][0]["set"], value!({ "limits.max_nodes": 9 }));
}

#[test]
fn a_swept_limit_moves_the_fixed_fleet_and_the_oracle_too() {
    let folder = folder();
    let result = json(&folder.run(&["--sweep", "limits.max_nodes=1,10", "-o", "json"]));
    let peak = |index: usize| {
        result["policies"][index]["compare"]["fixed"]["peak_nodes"]
            .as_u64()
            .unwrap()
    };
    assert!(peak(0) == 1 && peak(1) > 1);
}

#[test]
fn a_swept_value_that_cannot_be_is_named_with_its_key_and_file() {
    let folder = folder();
    for (sweep, said_of_it) in [
        (
            "scale_down.sustained=2x",
            "policy.toml with scale_down.sustained=2x: scale_down.sustained: ",
        ),
        (
            "scale_up.cpu_percent=70,170",
            "policy.toml with scale_up.cpu_percent=170: scale_up.cpu_percent: ",
        ),
        (
            "scale_down.sometimes=1",
            "with scale_down.sometimes=1: scale_down.sometimes: ",
        ),
        (
            "pool[0].max_nodes=many",
            "with pool[0].max_nodes=many: pool[0].max_nodes: ",
        ),
        ("pool[1].max_nodes=3", "there is no pool[1]"),
        ("scale_down.sustained", "expected KEY=VALUE"),
        ("scale_down.sustained=", "a value is empty"),
    ] {
        let output = folder.run(&["--sweep", sweep]);
        assert_eq!(output.status.code(), Some(2), "{sweep}");
        assert!(said(&output).contains(said_of_it), "{sweep}: {}", said(&output));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_key_that_is_swept_twice_and_too_many_policies_are_refused() {
    let folder = folder();
    let output = folder.run(&["--sweep", "limits.max_nodes=3", "--sweep", "limits.max_nodes=4"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("limits.max_nodes is given twice"));
    let values: Vec<String> = (1..=65).map(|value| value.to_string()).collect();
    let output = folder.run(&["--sweep", &format!("limits.max_nodes={}", values.join(","))]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("65 policies to try: expected 64 at most"),
        "{}",
        said(&output)
    );
}

#[test]
fn the_table_of_several_has_a_row_each_and_fits_eighty_columns() {
    let folder = folder();
    let output = folder.run(&[
        "--policy",
        "patient.toml",
        "--sweep",
        "scale_up.cpu_percent=60,70",
    ]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let firsts: Vec<&str> = text
        .lines()
        .map(|line| line.get(..12).unwrap_or(line))
        .map(str::trim)
        .filter(|first| !first.is_empty() && !first.contains(' '))
        .collect();
    let expected = [
        "policy.toml",
        "60",
        "70",
        "patient.toml",
        "60",
        "70",
        "fixed",
        "oracle",
        "thresholds",
    ];
    assert_eq!(firsts, expected, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn series_and_plot_of_several_are_a_file_each_that_the_result_names() {
    let folder = folder();
    let files = [
        "--policy",
        "patient.toml",
        "--series",
        "out.csv",
        "--plot",
        "out.svg",
    ];
    let result = json(&folder.run(&[&files[..], &["-o", "json"]].concat()));
    for (index, tried) in result["policies"].as_array().unwrap().iter().enumerate() {
        let [series, plot] = ["csv", "svg"].map(|ending| format!("out-{}.{ending}", index + 1));
        assert_eq!(
            (&tried["series"], &tried["plot"]),
            (&value!(series), &value!(plot))
        );
        let own = folder.backtest(&[
            "--trace",
            "trace.csv",
            "--policy",
            tried["file"].as_str().unwrap(),
            "--series",
            "own.csv",
        ]);
        assert_eq!(own.status.code(), Some(0));
        let read = |name: &str| std::fs::read_to_string(folder.path(name)).unwrap();
        assert_eq!(read(&series), read("own.csv"));
        assert!(read(&plot).starts_with("<svg "));
    }
    let table = folder.run(&files);
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.contains("\nout-2.csv, out-2.svg: patient.toml\n"), "{text}");
}

#[test]
fn of_several_policies_the_one_that_cannot_be_is_named() {
    let folder = folder();
    folder.write("small.toml", &POLICY.replace("t3.small", "t3.nano"));
    folder.write(
        "workload.toml",
        "[workload]\nrequests_per_pod = 1\ncpu = \"500m\"\nmemory = \"1Gi\"\n",
    );
    let output = folder.run(&["--policy", "small.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("workload.toml, by small.toml: workload.memory: a pod is larger"),
        "{}",
        said(&output)
    );
}

#[test]
fn a_warning_of_a_policy_is_said_once_however_often_it_is_swept() {
    let folder = folder();
    let unknown = POLICY.replace("[[pool]]", "[[instance_type]]\nname = \"a\"\ncpu = \"2\"\nmemory = \"4Gi\"\non_demand_price = 1.0\nzones = [\"us-east-1b\"]\n[[pool]]\nname = \"idle\"\ninstance_types = [\"a\"]\nzones = [\"us-east-1a\"]\n[[pool]]");
    folder.write("policy.toml", &unknown);
    let output = folder.run(&["--sweep", "scale_up.cpu_percent=60,70"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(
        said(&output).matches("warning: policy.toml: ").count(),
        1,
        "{}",
        said(&output)
    );
}
