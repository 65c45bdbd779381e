//! `docs/reference/agent.md`, made from what reads the configuration.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use serde_json::Value;
use smartscale_reference::{Default, Source, agree, tables};

use super::Raw;

/// As little as may be written of each table: what it must have.
const LEAST: &str = r#"
    coordinators = ["10.0.0.10:7443"]
    trust_domain = "smartscale"
    cluster = "k3s-demo"
    machine = { id = "a", type = "t3.small", zone = "here", ip = "10.0.0.20" }
"#;

const ABOUT: &str = "\
# `agent.toml`

The agent's configuration, `/etc/smartscale/agent.toml` on each worker, as user-data writes it. `smartscale-agent check-config` tells
whether it is sound. Unknown keys and values that cannot be are errors with the key's path.

Durations are written `90s`, `5m`, `1h30m`. A default of – is explained in the meaning. This page is made from the code that reads
the file (`make reference`); a test holds it against that.
";

fn at<'a>(document: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(document, |value, key| &value[key])
}

#[test]
fn the_reference_of_the_configuration_is_what_the_code_reads() {
    let source = Source::new(
        &[
            include_str!("../raw.rs"),
            include_str!("../../drain/mod.rs"),
            include_str!("../../drain/terms.rs"),
            include_str!("../../../../coordinator/planner/src/names.rs"),
        ],
        &[("Span", "duration"), ("Endpoint", "host:port")],
    );
    let written = serde_json::to_value(toml::from_str::<toml::Table>(LEAST).unwrap()).unwrap();
    let read: Raw = toml::from_str(LEAST).unwrap();
    let read = serde_json::to_value(read).unwrap();
    let default = |path: &str| match (at(&written, path), at(&read, path)) {
        (Value::Null, Value::Null) => Default::Absent,
        (Value::Null, value) => Default::Value(value.clone()),
        (..) => Default::Required,
    };
    let page = format!("{ABOUT}{}", tables(&source, "Raw", &default));
    agree("agent.md", &page);
}
