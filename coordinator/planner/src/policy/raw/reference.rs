//! `docs/reference/policy.md` and `codes.md`, made from what reads a policy and says what came of it.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use serde_json::Value;
use smartscale_reference::{Default, Source, agree, tables, words};

use super::Policy;

/// As little as may be written of each table: what it must have.
const LEAST: &str = r#"
    cluster = { id = "k3s-demo" }
    freeze = [{ cron = "0 18 * * FRI", duration = "62h" }]
    schedule = [{ cron = "0 8 * * MON-FRI", duration = "10h", min_nodes = 4 }]
    pool = [{ name = "workers", zones = [], requirements = {} }]
    instance_type = [{ name = "t3.small", cpu = 2, memory = "2Gi", on_demand_price = 0.0208 }]
"#;

const ABOUT: &str = "\
# `policy.toml`

What is decided. `smartscale-coordinator init` writes a commented one, `smartscale plan --policy` tries one on a cluster's objects.
Unknown keys, impossible bounds and names that are given twice are errors with the key's path.

Durations are written `90s`, `5m`, `1h30m`; quantities as in Kubernetes, `500m`, `512Mi`. A default of – is explained in the
meaning. This page is made from the code that reads the file (`make reference`); a test holds it against that.
";

/// The value at a path such as `pool[].name`.
fn at<'a>(document: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .fold(document, |value, key| match key.strip_suffix("[]") {
            Some(key) => &value[key][0],
            None => &value[key],
        })
}

#[test]
fn the_reference_of_the_policy_is_what_the_code_reads() {
    let source = Source::new(
        &[
            include_str!("../raw.rs"),
            include_str!("../mod.rs"),
            include_str!("../freeze.rs"),
            include_str!("../../model/node.rs"),
        ],
        &[("Span", "duration"), ("Scalar", "quantity")],
    );
    let written: toml::Table = toml::from_str(LEAST).unwrap();
    let written = serde_json::to_value(&written).unwrap();
    let read = serde_json::to_value(Policy::from_toml(LEAST).unwrap()).unwrap();
    let default = |path: &str| match (at(&written, path), at(&read, path)) {
        (Value::Null, Value::Null) => Default::Absent,
        (Value::Null, value) => Default::Value(value.clone()),
        (..) => Default::Required,
    };
    let page = format!("{ABOUT}{}", tables(&source, "Policy", &default));
    agree("policy.md", &page);
}

#[test]
fn the_reference_of_codes_is_what_a_plan_says() {
    let source = Source::new(&[include_str!("../../outcome.rs")], &[]);
    let page = format!(
        "# Codes of a plan\n\n\
         What `smartscale plan`, `decisions`, `explain`, `blockers` and the metrics say in a word. Made from the planner \
         (`make reference`).\n\n\
         ## Why a pod has no place\n\n\
         The label `code` of `smartscale_unplaced_pods`.\n\n{}\n\
         ## Why a node stays\n\n{}\n\
         ## What holds a decision back\n\n\
         `held_by`, and the label `hold` of `smartscale_held`.\n\n{}",
        words(&source, "PendingCode", "code"),
        words(&source, "BlockerCode", "code"),
        words(&source, "Hold", "hold"),
    ) + &format!(
        "\n## Rules\n\n`rules` of a decision.\n\n{}",
        words(&source, "RuleName", "rule")
    );
    agree("codes.md", &page);
}
