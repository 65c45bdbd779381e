//! `docs/reference/coordinator.md`, made from what reads the configuration. What stands in the template is the default of a key
//! if writing it changes nothing, where writing something else does.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{collections::BTreeMap, path::Path};

use smartscale_reference::{Default, Source, agree, tables};
use toml::{Table, Value};

use super::{Config, TEMPLATE, parse};
use crate::observe::prometheus;

const ABOUT: &str = "\
# `coordinator.toml`

Where things are; what is decided stands in [`policy.toml`](policy.md). `smartscale-coordinator init` writes a commented one to
`/etc/smartscale`, `check-config` tells whether it is sound. Unknown keys and values that cannot be are errors with the key's path.

Durations are written `90s`, `5m`, `1h30m`, and are above zero. Paths are relative to the file. A default of – is explained in the
meaning. SIGHUP (`systemctl reload smartscale-coordinator`) reloads the policy and the certificate authority; what stands here counts
from the next start. This page is made from the code that reads the file (`make reference`); a test holds it against that.
";

/// In each of these every value of the template is read, except those of other choices.
const SITUATIONS: [&str; 5] = [
    "",
    "store.kind = 'dynamodb'",
    "aws.region = 'us-east-1'\nenrolment.attestor = 'ec2'",
    "notify.sns_topic = 'arn:aws:sns:us-east-1:123456789012:smartscale'",
    "join.tokens = 'minted'\njoin.server = 'https://10.0.0.10:6443'",
];

/// Values other than the default's, one of which a key of any kind takes.
const OTHERS: [&str; 12] = [
    "'77m'",
    "'2h'",
    "'1s'",
    "'4h'",
    "'warning'",
    "'other'",
    "'127.0.0.1:1'",
    "'dynamodb'",
    "'none'",
    "'ec2'",
    "true",
    "'minted'",
];

/// The only values that there are, or that another key comes with.
const ALONE: [&str; 2] = ["fleet.kind", "join.tokens"];

/// What a table must have that need not be there itself.
const REQUIRED_THERE: [&str; 1] = ["fleet.command.program"];

fn least() -> Table {
    toml::from_str(
        r#"
        mode = "act"
        policy = "policy.toml"
        aws = { region = "us-east-1" }
        serve = { listen = "127.0.0.1:0", advertise = "127.0.0.1:7443" }
        prometheus = { url = "http://127.0.0.1:30090" }
        cloudwatch = { enabled = true, log_group = "/smartscale/demo/decisions" }
        fleet = { pool = { workers = { launch_template = "lt-0123456789abcdef0" } } }
        "#,
    )
    .unwrap()
}

fn read(table: &Table) -> Option<Config> {
    parse(Path::new("/etc/smartscale/coordinator.toml"), &table.to_string()).ok()
}

/// The table that has the key, made if it is not there, and the key's own name.
fn place<'a, 'p>(table: &'a mut Table, path: &'p str) -> (&'a mut Table, &'p str) {
    match path.split_once('.') {
        None => (table, path),
        Some((first, rest)) => {
            let first = if first == "*" { "workers" } else { first };
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            place(inner.as_table_mut().unwrap(), rest)
        }
    }
}

fn with(table: &Table, path: &str, value: Value) -> Table {
    let mut table = table.clone();
    let (inner, key) = place(&mut table, path);
    inner.insert(key.to_owned(), value);
    table
}

fn without(table: &Table, path: &str) -> Table {
    let mut table = table.clone();
    let (inner, key) = place(&mut table, path);
    inner.remove(key);
    table
}

/// Every value of the template by its path, whether commented out or not.
fn template() -> BTreeMap<String, Value> {
    let filled = TEMPLATE
        .replace("@LISTEN@", "0.0.0.0:7443")
        .replace("@ADVERTISE@", "10.0.0.10:7443")
        .replace("@TRUST@", "smartscale");
    let (mut values, mut section) = (BTreeMap::new(), String::new());
    for line in filled.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some((name, _)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            section = format!("{}.", name.replace("pool.workers", "pool.*"));
        } else if let Ok(pair) = toml::from_str::<Table>(line) {
            values.extend(
                pair.into_iter()
                    .map(|(key, value)| (format!("{section}{key}"), value)),
            );
        }
    }
    values
}

/// What the program asks Prometheus for.
fn query(path: &str) -> Option<String> {
    let settings = prometheus::Settings::default();
    let query = match path.strip_prefix("prometheus.queries.")? {
        "cpu" => settings.queries.cpu?,
        "memory" => settings.queries.memory?,
        "node_cpu" => settings.queries.node_cpu?,
        "node_memory" => settings.queries.node_memory?,
        "node_label" => settings.node_label,
        _ => return None,
    };
    assert_eq!(settings.window.as_secs(), 120);
    Some(query.replace("$window", "2m"))
}

fn default(values: &BTreeMap<String, Value>, path: &str) -> Default {
    // A table of values: nothing is in it unless it is written.
    if ["serve.peers", "fleet.pool.*.subnets"].contains(&path) {
        return Default::Absent;
    }
    if REQUIRED_THERE.contains(&path) {
        return Default::Required;
    }
    // Of what has a table of its own, the template shows the most likely, and no key that another has followed.
    let of_its_own =
        path.starts_with("fleet.command.") || path.starts_with("notify.") && path.matches('.').count() > 1;
    if of_its_own || ["notify.sns_topic", "notify.quiet"].contains(&path) {
        return Default::Absent;
    }
    let written = values
        .get(path)
        .unwrap_or_else(|| panic!("the template (coordinator.toml) lacks {path}"));
    if let Some(query) = query(path) {
        assert_eq!(written.as_str(), Some(query.as_str()), "{path} in the template");
        return Default::Value(query.into());
    }
    if read(&without(&least(), path)).is_none() {
        return Default::Required;
    }
    for situation in SITUATIONS {
        let mut base = least();
        for (key, value) in toml::from_str::<Table>(situation).unwrap() {
            for (inner, value) in value.as_table().unwrap() {
                base = with(&base, &format!("{key}.{inner}"), value.clone());
            }
        }
        let base = without(&base, path);
        let (Some(plain), Some(same)) = (read(&base), read(&with(&base, path, written.clone()))) else {
            continue;
        };
        let matters = OTHERS.iter().any(|other| {
            let other: Table = toml::from_str(&format!("it = {other}")).unwrap();
            read(&with(&base, path, other["it"].clone())).is_some_and(|other| other != plain)
        });
        if plain == same && (matters || ALONE.contains(&path)) {
            return Default::Value(serde_json::to_value(written).unwrap());
        }
    }
    Default::Absent
}

#[test]
fn the_reference_of_the_configuration_is_what_the_code_reads() {
    let source = Source::new(
        &[include_str!("raw.rs")],
        &[
            ("Span", "duration"),
            ("Address", "address:port"),
            ("Endpoint", "host:port"),
            ("RawPolicy", "path or table"),
        ],
    );
    let values = template();
    let page = format!(
        "{ABOUT}{}",
        tables(&source, "Raw", &|path| default(&values, path))
    );
    agree("coordinator.md", &page);
}
