//! The plan in one sentence.

use crate::{Hold, Plan, RuleName, explain::words::count};

pub(super) fn of(plan: &Plan) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !plan.launch.is_empty() {
        let price: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
        let pods: usize = plan.launch.iter().map(|launch| launch.pods.len()).sum();
        let what = if pods > 0 {
            format!(" for {}", count(pods, "pending pod"))
        } else if let Some(rule) = plan.rules.iter().find(|rule| rule.fired && is_up(rule.rule)) {
            let what = if rule.rule == RuleName::CpuAbove {
                "CPU"
            } else {
                "memory"
            };
            format!(
                " because the average {what}{} is above {} %",
                value(rule.value),
                rule.threshold
            )
        } else if let Some(due) = plan.remove.iter().find_map(|removal| removal.due) {
            format!(" in the place of one that {}", due.words())
        } else if plan.action == crate::Action::Replace {
            match plan.remove.len() {
                0 | 1 => " in the place of a dearer one".to_owned(),
                nodes => format!(" in the place of {nodes} that cost more together"),
            }
        } else {
            " to reach a minimum or to keep headroom".to_owned()
        };
        parts.push(format!(
            "launch {}{what} ({price:.4} USD an hour)",
            count(plan.launch.len(), "node")
        ));
    }
    if !plan.remove.is_empty() {
        let moves: usize = plan.remove.iter().map(|removal| removal.moves.len()).sum();
        let saves: f64 = plan.remove.iter().map(|removal| removal.saves_per_hour).sum();
        let moved = if moves > 0 {
            format!(", moving {}", count(moves, "pod"))
        } else {
            String::new()
        };
        let due: Vec<_> = plan.remove.iter().filter_map(|removal| removal.due).collect();
        let due = match due.first() {
            Some(first) if plan.launch.is_empty() && due.iter().all(|one| one == first) => {
                let of_all = due.len() == plan.remove.len();
                let number = if of_all {
                    String::new()
                } else {
                    format!(", {} of them", due.len())
                };
                format!("{number} that {}", first.words())
            }
            Some(_) if plan.launch.is_empty() => format!(" ({} of them due)", due.len()),
            _ => String::new(),
        };
        parts.push(format!(
            "remove {}{due}{moved} (saves {saves:.4} USD an hour)",
            count(plan.remove.len(), "node")
        ));
    }
    if parts.is_empty() {
        parts.push("nothing to do".to_owned());
    }
    if !plan.pods.pending.is_empty() {
        parts.push(format!(
            "{} without a place",
            count(plan.pods.pending.len(), "pod")
        ));
    }
    // Beside a launch only its own limit is news: that nothing goes at the same time goes without saying.
    let holds: Vec<_> = plan
        .held_by
        .iter()
        .filter(|hold| plan.launch.is_empty() || hold.bounds_launches())
        .collect();
    if !holds.is_empty() {
        let holds: Vec<_> = holds.into_iter().map(|hold| words(*hold)).collect();
        parts.push(format!("held by {}", holds.join(" and ")));
    }
    parts.join("; ")
}

fn value(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| {
        format!(" of {}", crate::model::Percent(value))
    })
}

fn is_up(rule: RuleName) -> bool {
    matches!(rule, RuleName::CpuAbove | RuleName::MemoryAbove)
}

fn words(hold: Hold) -> &'static str {
    match hold {
        Hold::CooldownUp => "the cooldown of scale-up",
        Hold::CooldownDown => "the cooldown of scale-down",
        Hold::AtMax => "the maximum of nodes",
        Hold::AtMin => "the minimum of nodes",
        Hold::NotSustained => "a threshold not passed for long enough",
        Hold::MetricsUnknown => "unknown cluster metrics",
        Hold::OperationInProgress => "an operation in progress",
        Hold::Paused => "a pause",
        Hold::PendingPods => "pods that wait for a place",
        Hold::Freeze => "a freeze",
        Hold::LaunchRate => "the most launches of an hour",
        Hold::Spending => "the most dollars of an hour",
    }
}
