//! The reference of a configuration, written from the source of the structs that read it, so that it says what they do.
//!
//! ```text
//!  raw.rs ── syn ──▶ keys, types, meanings (doc comments) ─┐
//!  the program's own defaults ── serde ──▶ values ─────────┴─▶ docs/reference/*.md ◀── agree: the committed page
//! ```
//!
//! A key without a doc comment, a type that nobody has named and a default that is not known are panics: the page has no gaps.
//! `UPDATE_GOLDEN=1` (`make reference`) writes the page anew.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "for tests alone: what is wrong fails them"
)]

mod exposition;
mod source;

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use serde_json::Value;

pub use exposition::samples;
pub use source::Source;
use source::{Kind, Shape};

/// What a key is worth when it is not written.
#[derive(Debug, Clone, PartialEq)]
pub enum Default {
    /// This value.
    Value(Value),
    /// Nothing: the meaning says what that is.
    Absent,
    /// It has to be written.
    Required,
}

/// A page of tables, one for each table of the file that begins with the struct `root`. `default` is asked with a key's path:
/// `drain.timeout`, `pool[].name`, `fleet.pool.*.version`.
pub fn tables(source: &Source, root: &str, default: &dyn Fn(&str) -> Default) -> String {
    let mut page = String::new();
    let mut left = vec![(String::new(), root.to_owned(), String::new())];
    let mut seen = BTreeSet::new();
    while !left.is_empty() {
        let (path, name, about) = left.remove(0);
        assert!(seen.insert(path.clone()), "{path} is there twice");
        let mut inner = Vec::new();
        let mut rows = String::new();
        for key in source.keys(&name) {
            let path = if path.is_empty() {
                key.name.clone()
            } else {
                format!("{path}.{}", key.name)
            };
            assert!(!key.meaning.is_empty(), "{name}.{} has no doc comment", key.name);
            let deeper = match &key.shape {
                Shape::Table(table) => Some((path.clone(), table)),
                Shape::Tables(table) => Some((format!("{path}[]"), table)),
                Shape::Named(table) => Some((format!("{path}.*"), table)),
                Shape::Value(_) => None,
            };
            if let Some((path, table)) = deeper {
                inner.push((path, table.clone(), key.meaning.clone()));
                continue;
            }
            let Shape::Value(kind) = &key.shape else { continue };
            let mut meaning = key.meaning.clone();
            if let Kind::Choice(words) = kind {
                let said: Vec<String> = words
                    .iter()
                    .map(|word| {
                        assert!(
                            !word.meaning.is_empty(),
                            "{} of {path} has no doc comment",
                            word.name
                        );
                        format!("`{}`: {}", word.name, lower(&word.meaning))
                    })
                    .collect();
                let _ = write!(meaning, " {}", said.join(" "));
            }
            let default = match default(&path) {
                Default::Value(value) => format!("`{}`", written(&value)),
                Default::Absent => {
                    let says = ["Without", "Either"]
                        .iter()
                        .any(|word| key.meaning.contains(word));
                    assert!(
                        says,
                        "{path} has no default, and its doc comment does not say what is then"
                    );
                    "–".to_owned()
                }
                Default::Required => "**required**".to_owned(),
            };
            let _ = writeln!(
                rows,
                "| `{}` | {} | {} | {} |",
                key.name,
                unit(&key.name, &kind.label()),
                cell(&default),
                cell(&meaning)
            );
        }
        if !rows.is_empty() {
            let title = if path.is_empty() {
                "At the top".to_owned()
            } else {
                header(&path)
            };
            let _ = write!(page, "\n## {title}\n\n");
            if !about.is_empty() {
                let _ = write!(page, "{about}\n\n");
            }
            let _ = write!(
                page,
                "| key | type | default | meaning |\n| --- | --- | --- | --- |\n{rows}"
            );
        }
        // A table's own tables follow it at once.
        inner.append(&mut left);
        left = inner;
    }
    page
}

/// The words of an enum and what they mean.
pub fn meanings(source: &Source, name: &str) -> Vec<(String, String)> {
    let words = source.words(name).into_iter();
    words
        .map(|word| {
            let (word, meaning) = (word.name, word.meaning);
            assert!(!meaning.is_empty(), "{name}::{word} has no doc comment");
            (word, meaning)
        })
        .collect()
}

/// The same as a table.
pub fn words(source: &Source, name: &str, heading: &str) -> String {
    let mut table = format!("| {heading} | means |\n| --- | --- |\n");
    for (word, meaning) in meanings(source, name) {
        let _ = writeln!(table, "| `{word}` | {} |", cell(&meaning));
    }
    table
}

/// Holds the page at `path` below `docs/reference` against what it should be, or writes it with `UPDATE_GOLDEN=1`.
pub fn agree(path: &str, page: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, page).unwrap();
        return;
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    if committed == page {
        return;
    }
    let differs = page
        .lines()
        .zip(committed.lines().chain(std::iter::repeat("")))
        .find(|(new, old)| new != old);
    panic!(
        "docs/reference/{path} does not say what the code does: run `make reference`. First difference: {differs:?}"
    );
}

/// A JSON value as TOML has it.
fn written(value: &Value) -> String {
    match value {
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(written).collect();
            format!("[{}]", values.join(", "))
        }
        Value::Object(values) => {
            let values: Vec<String> = values
                .iter()
                .map(|(key, value)| format!("{key} = {}", written(value)))
                .collect();
            if values.is_empty() {
                "{}".to_owned()
            } else {
                format!("{{ {} }}", values.join(", "))
            }
        }
        Value::String(text) if text.contains('"') => format!("'{text}'"),
        plain => plain.to_string(),
    }
}

/// Numbers say their unit in their name.
fn unit(name: &str, label: &str) -> String {
    if label != "number" {
        return label.to_owned();
    }
    let unit = if name.ends_with("_percent") {
        "percent"
    } else if name.ends_with("_usd_per_hour") || name.ends_with("_price") {
        "USD an hour"
    } else if name.ends_with("_usd") {
        "USD"
    } else {
        "number"
    };
    unit.to_owned()
}

fn header(path: &str) -> String {
    match path.strip_suffix("[]") {
        Some(path) => format!("`[[{}]]`", path.replace("[]", "")),
        None => format!("`[{}]`", path.replace("[]", "").replace(".*", ".NAME")),
    }
}

fn lower(text: &str) -> String {
    let mut letters = text.chars();
    let Some(first) = letters.next() else {
        return String::new();
    };
    // Not of names such as EC2 or KMS.
    if letters
        .as_str()
        .starts_with(|next: char| next.is_ascii_uppercase() || next.is_ascii_digit())
    {
        return text.to_owned();
    }
    first.to_lowercase().chain(letters).collect()
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
