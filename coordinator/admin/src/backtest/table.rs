//! One policy's result for people, in 80 columns: a column for each that was tried, and what the difference comes to.

use std::fmt::Write as _;

use smartscale_backtest::Totals;

use super::{
    result::{Compared, Of, Results},
    several,
};

/// Columns of a label and of a figure.
const LABEL: usize = 30;
const FIGURE: usize = 12;

/// The whole result.
pub(super) fn of(results: &Results) -> String {
    let mut text = match &results.of {
        Of::One(compared) => one(compared),
        Of::Several { policies } => several::of(policies),
    };
    // A string takes whatever is written.
    let _ = writeln!(
        text,
        "{} minutes were replayed in {:.1} s.",
        results.minutes, results.wall_seconds
    );
    text
}

fn one(compared: &Compared) -> String {
    let mut text = String::new();
    let runs: Vec<(&str, &Totals)> = std::iter::once(("policy", &compared.policy))
        .chain(compared.compare.iter().map(|(name, totals)| (*name, totals)))
        .collect();
    let mut row = |label: &str, figure: &dyn Fn(&str, &Totals) -> String| {
        let figures: String = runs
            .iter()
            .map(|(name, totals)| format!("{:>FIGURE$}", figure(name, totals)))
            .collect();
        let line = format!("{label:<LABEL$}{figures}");
        // A string takes whatever is written.
        let _ = writeln!(text, "{}", line.trim_end());
    };
    row("", &|name, _| name.to_owned());
    row("cost, USD", &|_, totals| format!("{:.2}", totals.cost_usd));
    row("node hours", &|_, totals| format!("{:.1}", totals.node_hours));
    row("most nodes", &|_, totals| totals.peak_nodes.to_string());
    row("minutes short of capacity", &|_, totals| {
        totals.shortfall_minutes.to_string()
    });
    row("requests not served", &|_, totals| {
        format!("{:.0}", totals.unserved_requests)
    });
    row("hours that pods waited", &|_, totals| {
        format!("{:.1}", totals.pending_pod_seconds / 3600.0)
    });
    row("pods evicted", &|_, totals| totals.evictions.to_string());
    row("launches", &|_, totals| totals.launches.to_string());
    row("terminations", &|_, totals| totals.terminations.to_string());
    row("decisions", &|_, totals| totals.decisions.to_string());
    text.push('\n');
    let mut line = |words: String| {
        let _ = writeln!(text, "{words}");
    };
    for (name, percent) in &compared.saving_percent {
        let (how, percent) = match *percent >= 0.0 {
            true => ("less", *percent),
            false => ("more", -percent),
        };
        line(format!(
            "The policy costs {percent:.1} % {how} than {}.",
            meaning(name)
        ));
    }
    if let Some(percent) = compared.over_oracle_percent {
        let (how, percent) = match percent >= 0.0 {
            true => ("more", percent),
            false => ("less", -percent),
        };
        line(format!(
            "It costs {percent:.1} % {how} than the oracle, which knows what comes and lets no"
        ));
        line("pod wait: read this together with the minutes and the waiting.".to_owned());
    }
    if let Some(fixed) = compared.compare.get("fixed") {
        let minutes = i128::from(compared.policy.shortfall_minutes) - i128::from(fixed.shortfall_minutes);
        line(format!(
            "{minutes} of its minutes short of capacity are for want of nodes; in the others pods\n\
             start late, as they do in a fixed fleet."
        ));
    }
    text
}

fn meaning(rival: &str) -> &str {
    match rival {
        "fixed" => "a fixed fleet for the peak",
        "thresholds" => "thresholds on averages",
        other => other,
    }
}
