//! The reference of metrics, from an exposition in which each of them has a sample.

use std::fmt::Write as _;

/// A table of the metrics of an exposition, as they are asked for in PromQL.
pub fn samples(text: &str) -> String {
    let mut table = "| metric | type | labels | is |\n| --- | --- | --- | --- |\n".to_owned();
    for line in text.lines() {
        let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) else {
            continue;
        };
        let start = format!("# TYPE {name} ");
        let kind = text
            .lines()
            .find_map(|line| line.strip_prefix(&start))
            .unwrap_or_else(|| panic!("{name} has no type"));
        let suffix = match kind {
            "counter" if !name.ends_with("_total") => "_total",
            "info" => "_info",
            "histogram" => "_bucket",
            _ => "",
        };
        let sample = format!("{name}{suffix}");
        let labels = text
            .lines()
            .find_map(|line| {
                let rest = line.strip_prefix(&sample)?;
                let rest = rest.strip_prefix('{').map_or_else(
                    || rest.starts_with(' ').then_some(""),
                    |rest| rest.split_once('}').map(|(labels, _)| labels),
                )?;
                Some(labels_of(rest))
            })
            .unwrap_or_else(|| panic!("{name} has no sample"));
        let _ = writeln!(
            table,
            "| `{sample}` | {kind} | {} | {} |",
            if labels.is_empty() {
                "–".to_owned()
            } else {
                labels.join(", ")
            },
            help.trim_end_matches('.')
        );
    }
    table
}

fn labels_of(text: &str) -> Vec<String> {
    text.split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(label, _)| format!("`{label}`"))
        .collect()
}
