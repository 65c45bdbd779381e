//! `smartscale plan` from files: what it reads, what it refuses and where it says the mistake is.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
#![allow(
    dead_code,
    reason = "the module is part of the program; a test asks only some of it"
)]

#[path = "../src"]
mod program {
    pub(crate) mod input;
    pub(crate) mod plan;
}

use std::{fs, path::PathBuf};

use program::plan::{Output, PlanArgs, decide, render, show};
use smartscale_planner::model::PodKey;

const POLICY: &str = r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
[[pool]]
name = "workers"
instance_types = ["t3.small"]
zones = ["us-east-1a"]
"#;

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {containers: [{resources: {requests: {cpu: '1'}}}]}}";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("policy.toml", POLICY);
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn args(&self, files: &[PathBuf]) -> PlanArgs {
        PlanArgs {
            files: files.to_vec(),
            policy: self.0.path().join("policy.toml"),
            metrics: None,
            state: None,
            now: Some("2026-01-02T03:04:05Z".parse().unwrap()),
            why: Vec::new(),
            why_node: Vec::new(),
            against: None,
            output: Output::Json,
        }
    }

    fn error(&self, args: &PlanArgs) -> String {
        decide(args, &mut std::io::empty()).unwrap_err().to_string()
    }
}

#[test]
fn files_folders_and_standard_input_give_the_same_plan() {
    let folder = Folder::new();
    let file = folder.write("c/one.yaml", POD);
    folder.write("c/deeper/two.yaml", "not: [valid");
    folder.write("c/readme.txt", "not: [valid");
    let of = |files: &[PathBuf], stdin: &str| {
        let plan = decide(&folder.args(files), &mut stdin.as_bytes()).unwrap().plan;
        render(&plan, Output::Json).unwrap()
    };
    let expected = of(std::slice::from_ref(&file), "");
    assert!(
        expected.contains("\"scale_up\"") && expected.contains("default/web"),
        "{expected}"
    );
    assert_eq!(of(&[file.parent().unwrap().to_owned()], ""), expected);
    assert_eq!(of(&["-".into()], POD), expected);
    assert_eq!(of(&["-".into(), file], POD), expected);
}

#[test]
fn every_form_of_output_says_what_is_launched() {
    let folder = Folder::new();
    let plan = decide(&folder.args(&["-".into()]), &mut POD.as_bytes())
        .unwrap()
        .plan;
    for output in [Output::Table, Output::Json, Output::Yaml] {
        let text = render(&plan, output).unwrap();
        assert!(
            text.contains("t3.small") && text.contains("scale_up") && text.ends_with('\n'),
            "{text}"
        );
    }
    let json: smartscale_planner::Plan = serde_json::from_str(&render(&plan, Output::Json).unwrap()).unwrap();
    assert_eq!(json.launch, plan.launch);
    let yaml: smartscale_planner::Plan =
        serde_saphyr::from_str(&render(&plan, Output::Yaml).unwrap()).unwrap();
    assert_eq!(yaml.launch, plan.launch);
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::new();
    let missing = folder.0.path().join("nowhere.yaml");
    assert!(
        folder
            .error(&folder.args(&[missing]))
            .contains("nowhere.yaml: cannot be read")
    );
    let mut args = folder.args(&["-".into()]);
    args.policy = folder.0.path().join("none.toml");
    assert!(folder.error(&args).contains("none.toml: cannot be read"));
}

#[test]
fn a_bad_quantity_names_file_object_and_path() {
    let folder = Folder::new();
    let file = folder.write("bad.yaml", &POD.replace("'1'", "lots"));
    let error = folder.error(&folder.args(&[file]));
    assert!(
        error.contains("bad.yaml: Pod default/web: spec.containers[0].resources.requests.cpu"),
        "{error}"
    );
}

#[test]
fn broken_text_names_file_and_line() {
    let folder = Folder::new();
    let file = folder.write("broken.json", "{\n \"kind\": \n");
    let error = folder.error(&folder.args(&[file]));
    assert!(error.contains("broken.json: line 3"), "{error}");
    let file = folder.write("broken.yaml", "a: 1\nb: [\n");
    assert!(folder.error(&folder.args(&[file])).contains("broken.yaml: line"));
}

#[test]
fn a_bad_policy_metrics_or_state_names_file_and_key() {
    let folder = Folder::new();
    let mut args = folder.args(&["-".into()]);
    args.metrics = Some(folder.write(
        "m.json",
        r#"{"nodes": {"a": {"time": "2026-01-02T03:04:05Z", "cpu_percent": -1}}}"#,
    ));
    assert!(folder.error(&args).contains("m.json: nodes.a.cpu_percent"));
    args.metrics = None;
    args.state = Some(folder.write("s.json", r#"{"cluster_id": "other"}"#));
    assert!(folder.error(&args).contains("s.json: cluster_id"));
    folder.write("policy.toml", &POLICY.replace("min_nodes", "min_node"));
    assert!(
        folder.error(&args).contains("policy.toml: limits.min_node"),
        "{}",
        folder.error(&args)
    );
}

const TWO: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop}, spec: {containers: [{}]}}
---
{kind: Node, metadata: {name: node-a}}
";

#[test]
fn what_does_not_exist_is_bad_input_with_what_was_probably_meant() {
    let folder = Folder::new();
    let mut args = folder.args(&["-".into()]);
    let error = |args: &PlanArgs| decide(args, &mut TWO.as_bytes()).unwrap_err().to_string();
    args.why = vec![PodKey::new("default", "web-1")];
    assert_eq!(
        error(&args),
        "--why: the cluster has no pod default/web-1; did you mean `shop/web-1`?"
    );
    args.why.clear();
    args.why_node = vec!["nod-a".into()];
    assert_eq!(
        error(&args),
        "--why-node: the cluster has no node nod-a; did you mean `node-a`?"
    );
}

#[test]
fn answers_are_structured_in_json_and_yaml() {
    let folder = Folder::new();
    let mut args = folder.args(&["-".into()]);
    args.why = vec![PodKey::new("shop", "web-1")];
    args.why_node = vec!["node-a".into()];
    let decided = decide(&args, &mut TWO.as_bytes()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&show(&decided, Output::Json).unwrap()).unwrap();
    assert_eq!(json["pods"][0]["pod"], "shop/web-1");
    assert_eq!(json["pods"][0]["standing"], "placed");
    assert_eq!(json["nodes"][0]["blockers"][0]["code"], "NotOurs");
    assert!(json.get("action").is_none(), "the answer, not the plan");
    let yaml: serde_json::Value = serde_saphyr::from_str(&show(&decided, Output::Yaml).unwrap()).unwrap();
    assert_eq!(yaml, json);
}

#[test]
fn an_earlier_plan_must_be_what_json_output_was() {
    let folder = Folder::new();
    let mut args = folder.args(&["-".into()]);
    let plan = decide(&args, &mut POD.as_bytes()).unwrap();
    args.against = Some(folder.write("old.json", &show(&plan, Output::Json).unwrap()));
    let same = decide(&args, &mut POD.as_bytes()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&show(&same, Output::Json).unwrap()).unwrap();
    assert_eq!(json["same"], true);
    let other = decide(&args, &mut POD.replace("'1'", "'64'").as_bytes()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&show(&other, Output::Json).unwrap()).unwrap();
    assert_eq!(json["action"]["new"], "none");
    assert_eq!(json["pending"]["added"][0]["code"], "NoInstanceTypeFits");
    args.against = Some(folder.write("old.json", "{\"action\": \"dance\"}"));
    let error = folder.error(&args);
    assert!(
        error.contains("old.json: action: unknown variant `dance`")
            && error.contains("`smartscale plan -o json`"),
        "{error}"
    );
    args.against = Some(folder.0.path().join("nowhere.json"));
    assert!(folder.error(&args).contains("nowhere.json: cannot be read"));
}
