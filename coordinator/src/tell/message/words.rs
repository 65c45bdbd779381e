//! Titles, figures and prices, in words.

use smartscale_planner::{Rule, RuleName};

use crate::tell::Event;

/// Hours of a month, as AWS' price lists count them.
const HOURS_A_MONTH: f64 = 730.0;

/// What happened, in a few words.
pub(super) fn title(event: &Event) -> String {
    let spaced = |word: &str| word.replace('_', " ");
    match event {
        Event::LeaseAcquired { epoch } => format!("A coordinator leads (term {epoch})"),
        Event::LeaseLost { epoch } => format!("A coordinator leads no more (term {epoch})"),
        Event::Decided { action, .. } => format!("Decision: {}", spaced(action)),
        Event::Operation {
            operation_kind,
            phase,
            nodes,
            ..
        } => {
            let kind = match operation_kind.as_str() {
                "launch" => "Launch",
                "remove" => "Removal",
                "drain" => "Drain",
                "recycle" => "Replacement",
                other => other,
            };
            match nodes.as_slice() {
                [] => format!("{kind}: {phase}"),
                [node] => format!("{kind} of {node}: {phase}"),
                nodes => format!("{kind} of {} nodes: {phase}", nodes.len()),
            }
        }
        Event::Joined { instance, .. } => format!("{instance} joined"),
        Event::Noticed { instance, notice, .. } => format!("{instance}: {}", spaced(notice)),
        Event::Drain { instance, state, .. } => format!("Drain of {instance}: {state}"),
        Event::Source { source, fresh: true } => format!("{source} answers"),
        Event::Source { source, fresh: false } => format!("{source} does not answer"),
        Event::Agent { instance, state } => format!("Agent of {instance}: {state}"),
        Event::BootStep {
            instance,
            step,
            outcome,
            ..
        } => format!("Boot of {instance}: {step} {outcome}"),
        Event::Admin { who, call } => format!("{who}: {call}"),
        Event::Brake { brake, holds: true } => format!("Brake {} holds", spaced(brake)),
        Event::Brake { brake, holds: false } => format!("Brake {} holds no more", spaced(brake)),
        Event::Policy { state, .. } => format!("Policy: {}", spaced(state)),
        Event::Trouble { error_type } => format!("Trouble: {}", spaced(error_type)),
    }
}

/// The command that explains it; its ids and names are of characters that no shell minds.
pub(super) fn explain(event: &Event) -> Option<String> {
    match event {
        Event::Decided { decision, .. } => Some(format!("smartscale explain {decision}")),
        Event::Operation { operation, .. } => Some(format!("smartscale explain {operation}")),
        Event::Joined { instance, .. }
        | Event::Noticed { instance, .. }
        | Event::Drain { instance, .. }
        | Event::Agent { instance, .. }
        | Event::BootStep { instance, .. } => Some(format!("smartscale explain node {instance}")),
        Event::LeaseAcquired { .. }
        | Event::LeaseLost { .. }
        | Event::Source { .. }
        | Event::Admin { .. }
        | Event::Brake { .. }
        | Event::Policy { .. }
        | Event::Trouble { .. } => None,
    }
}

/// A rule with its figure, what that is compared with, who said it and how old it is.
pub(super) fn figure(rule: &Rule) -> String {
    let Rule { value, threshold, .. } = rule;
    let (what, relation) = match rule.rule {
        RuleName::PendingPods => {
            let pods = value.map(|pods| format!("{pods:.0} "));
            return format!("{}pods wait for a place", pods.unwrap_or_default());
        }
        RuleName::CpuAbove => ("CPU", "above"),
        RuleName::CpuBelow => ("CPU", "below"),
        RuleName::MemoryAbove => ("memory", "above"),
        RuleName::MemoryBelow => ("memory", "below"),
    };
    let value = value.map(|value| format!("{value:.1} %, "));
    let age = rule.age_seconds.map(|age| format!(", {age} s old"));
    format!(
        "{what} {}{relation} {threshold:.1} % ({}{})",
        value.unwrap_or_default(),
        rule.source,
        age.unwrap_or_default()
    )
}

/// A price per hour, and what that is a month.
pub(super) fn cost(per_hour: f64) -> String {
    let month = per_hour * HOURS_A_MONTH;
    format!("{per_hour:+.4} USD an hour, {month:+.2} USD a month")
}
