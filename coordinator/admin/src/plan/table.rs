//! The plan for people: what would happen first, then why, then what stands in the way.

use std::fmt::{self, Write};

use smartscale_planner::{Blocker, NodeVerdict, Plan};

/// The whole plan.
pub(super) fn of(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = write(plan, &mut text);
    text
}

fn write(plan: &Plan, out: &mut String) -> fmt::Result {
    writeln!(out, "{}: {}", plan.action, plan.summary)?;
    if !plan.launch.is_empty() {
        let rows = plan.launch.iter().enumerate().map(|(index, launch)| {
            let more = launch.instance_types.len().saturating_sub(1);
            let first = launch.instance_types.first().map_or("-", |name| name.as_str());
            vec![
                format!("launch[{index}]"),
                launch.pool.to_string(),
                if more > 0 {
                    format!("{first} (or {more} more)")
                } else {
                    first.to_owned()
                },
                launch.zone.to_string(),
                launch.market.to_string(),
                format!("{:.4}", launch.price_per_hour),
                some(launch.pods.iter()),
            ]
        });
        table(
            out,
            "Launch",
            &["NODE", "POOL", "TYPE", "ZONE", "MARKET", "USD/H", "FOR PODS"],
            rows,
        )?;
    }
    if !plan.remove.is_empty() {
        let rows = plan.remove.iter().map(|removal| {
            vec![
                removal.node.to_string(),
                removal.reason.to_string(),
                format!("{:.4}", removal.saves_per_hour),
                some(removal.moves.iter().map(|m| format!("{} to {}", m.pod, m.to))),
            ]
        });
        table(out, "Remove", &["NODE", "REASON", "SAVES USD/H", "MOVES"], rows)?;
    }
    if !plan.pods.pending.is_empty() {
        let rows = plan
            .pods
            .pending
            .iter()
            .map(|pod| vec![pod.pod.to_string(), pod.code.to_string(), pod.reason.clone()]);
        table(out, "Pods without a place", &["POD", "CODE", "REASON"], rows)?;
    }
    let rows = plan.nodes.iter().map(|node| {
        let verdict = if plan.remove.iter().any(|removal| removal.node == node.node) {
            "goes"
        } else if node.candidate {
            "could go"
        } else {
            "stays"
        };
        vec![node.node.to_string(), verdict.to_owned(), blockers(node)]
    });
    table(out, "Nodes", &["NODE", "VERDICT", "BECAUSE OF"], rows)?;
    let rows = plan.rules.iter().map(|rule| {
        vec![
            rule.rule.to_string(),
            rule.value
                .map_or_else(|| "unknown".to_owned(), |value| format!("{value}")),
            format!("{}", rule.threshold),
            if rule.fired { "yes" } else { "no" }.to_owned(),
            rule.source.to_string(),
            rule.age_seconds
                .map_or_else(|| "-".to_owned(), |age| format!("{age}s")),
        ]
    });
    table(
        out,
        "Rules",
        &["RULE", "VALUE", "THRESHOLD", "FIRED", "SOURCE", "AGE"],
        rows,
    )?;
    for assumption in &plan.assumptions {
        writeln!(out, "\nAssumed: {assumption}.")?;
    }
    Ok(())
}

/// Every code once, with the pods that it is about.
fn blockers(node: &NodeVerdict) -> String {
    let mut parts: Vec<String> = Vec::new();
    for group in node.blockers.chunk_by(|a, b| a.code == b.code) {
        let Some(Blocker { code, .. }) = group.first() else {
            continue;
        };
        let pods: Vec<_> = group.iter().filter_map(|blocker| blocker.pod.as_ref()).collect();
        parts.push(if pods.is_empty() {
            code.to_string()
        } else {
            format!("{code} ({})", some(pods.iter()))
        });
    }
    if parts.is_empty() {
        "-".to_owned()
    } else {
        parts.join(", ")
    }
}

/// The first three, and how many more.
fn some<T: fmt::Display>(items: impl ExactSizeIterator<Item = T>) -> String {
    let count = items.len();
    let mut shown: Vec<String> = items.take(3).map(|item| item.to_string()).collect();
    if count > 3 {
        shown.push(format!("{} more", count - 3));
    }
    if shown.is_empty() {
        "-".to_owned()
    } else {
        shown.join(", ")
    }
}

fn table(
    out: &mut String,
    title: &str,
    header: &[&str],
    rows: impl Iterator<Item = Vec<String>>,
) -> fmt::Result {
    let rows: Vec<Vec<String>> = rows.collect();
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, name)| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([name.len()]).max().unwrap_or(0)
        })
        .collect();
    writeln!(out, "\n{title}")?;
    let header = header.iter().map(|name| (*name).to_owned()).collect();
    for row in std::iter::once(&header).chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}", width = *width))
            .collect();
        writeln!(out, "  {}", cells.join("  ").trim_end())?;
    }
    Ok(())
}
