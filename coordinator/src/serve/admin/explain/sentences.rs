//! The sentences that explanations are made of.

use jiff::Timestamp;
use smartscale_planner::{
    Action, BlockerCode, Hold, NodeVerdict, Plan, PriceSource, Rule, RuleName,
    policy::{OnNotice, Pool},
};
use smartscale_proto::{
    time::{age, duration_from_wire, from_wire},
    v1::{BootReport, DrainReport, ExplainResponse, OperationView, PodState},
};

use crate::{
    observe::notices::{Notice, NoticeKind},
    serve::sessions::words,
    state::records::BootTime,
};

/// What EC2 announced of a machine, who said so, and what is done about it.
pub(super) fn notice_lines(notice: &Notice, pool: Option<&Pool>, now: Timestamp) -> Vec<String> {
    let said: Vec<String> = notice
        .sightings
        .iter()
        .map(|sighting| format!("{} {}", sighting.source.as_str(), ago(sighting.at, now)))
        .collect();
    let mut lines = vec![format!("{}; said by {}.", notice.words(), said.join(" and "))];
    let follows = |setting: &str, wish: OnNotice, when: String| match wish {
        OnNotice::Drain => format!("It is replaced for that{when}, under the limits on disruption."),
        OnNotice::Ignore => format!("Nothing is done about that: its pool says {setting} = \"ignore\"."),
    };
    lines.extend(match (notice.kind, pool) {
        (NoticeKind::SpotInterruption, _) | (_, None) => None,
        (NoticeKind::Rebalance, Some(pool)) => Some(follows("rebalance", pool.rebalance, String::new())),
        (NoticeKind::Maintenance, Some(pool)) => {
            let lead = format!(" from {} before it begins", span(pool.maintenance_lead));
            Some(follows("maintenance", pool.maintenance, lead))
        }
    });
    lines
}

/// The reasons of a plan: rules with their figures, holds, and what was decided.
pub(super) fn plan_lines(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan.rules.iter().map(rule_line).collect();
    lines.extend(
        plan.held_by
            .iter()
            .map(|hold| format!("Held: {}.", hold_words(*hold))),
    );
    for launch in &plan.launch {
        let types: Vec<_> = launch
            .instance_types
            .iter()
            .take(3)
            .map(ToString::to_string)
            .collect();
        let more = launch.instance_types.len().saturating_sub(types.len());
        lines.push(format!(
            "Launch one node of pool {} in {} ({}): {}{} at {}{}.",
            launch.pool,
            launch.zone,
            launch.market,
            types.join(" or "),
            if more > 0 {
                format!(" or {more} more types")
            } else {
                String::new()
            },
            price_words(
                launch.price_per_hour,
                launch.price_source,
                launch.price_age_seconds
            ),
            match launch.pods.len() {
                0 => String::new(),
                1 => format!(" for {}", launch.pods[0]),
                many => format!(" for {many} pods, {} among them", launch.pods[0]),
            }
        ));
    }
    for removal in &plan.remove {
        lines.push(format!(
            "Remove {} ({}): {} of its pods move, {} saved.",
            removal.node,
            removal.reason,
            removal.moves.len(),
            price_words(
                removal.saves_per_hour,
                removal.saves_source,
                removal.saves_age_seconds
            ),
        ));
    }
    if plan.pods.placed > 0 {
        lines.push(format!("{} pending pods found a place.", plan.pods.placed));
    }
    for waiting in plan.pods.pending.iter().take(20) {
        lines.push(format!(
            "{} found none: {} ({}).",
            waiting.pod, waiting.reason, waiting.code
        ));
    }
    if plan.pods.pending.len() > 20 {
        lines.push(format!("{} more pods found none.", plan.pods.pending.len() - 20));
    }
    if plan.remove.is_empty() && plan.action == Action::None {
        let kept = plan.nodes.iter().filter(|verdict| !verdict.candidate);
        let ours = kept.filter(|verdict| {
            verdict
                .blockers
                .iter()
                .all(|one| one.code != BlockerCode::NotOurs)
        });
        for verdict in ours.take(20) {
            lines.push(format!("{} stays: {}.", verdict.node, codes(verdict)));
        }
    }
    lines.extend(plan.assumptions.iter().map(|one| format!("Assumed: {one}.")));
    lines
}

/// A price with who said it and how long before the decision.
fn price_words(per_hour: f64, source: Option<PriceSource>, age_seconds: Option<i64>) -> String {
    let said = match (source, age_seconds.and_then(|age| u64::try_from(age).ok())) {
        (None, _) => "nobody knows its price".to_owned(),
        (Some(source), None) => source.to_string(),
        (Some(source), Some(age)) => {
            format!("{source}, {} old", span(std::time::Duration::from_secs(age)))
        }
    };
    format!("{per_hour:.4} USD/h ({said})")
}

pub(super) fn codes(verdict: &NodeVerdict) -> String {
    let mut codes: Vec<String> = verdict
        .blockers
        .iter()
        .map(|one| {
            one.pod
                .as_ref()
                .map_or_else(|| one.code.to_string(), |pod| format!("{} ({pod})", one.code))
        })
        .collect();
    let more = codes.len().saturating_sub(4);
    codes.truncate(4);
    if more > 0 {
        codes.push(format!("{more} more"));
    }
    codes.join(", ")
}

pub(super) fn rule_line(rule: &Rule) -> String {
    let what = match rule.rule {
        RuleName::CpuAbove => "average CPU above",
        RuleName::MemoryAbove => "average memory above",
        RuleName::CpuBelow => "average CPU below",
        RuleName::MemoryBelow => "average memory below",
        RuleName::PendingPods => "pending pods above",
    };
    let unit = if rule.rule == RuleName::PendingPods {
        ""
    } else {
        " %"
    };
    let value = rule.value.map_or_else(
        || "unknown".to_owned(),
        |value| format!("{}{unit}", figure(value)),
    );
    let age = rule
        .age_seconds
        .map_or_else(String::new, |age| format!(", {age} s old"));
    let fired = if rule.fired { "fired" } else { "did not fire" };
    format!(
        "Rule {} {fired}: {what} {}{unit}; it is {value} ({}{age}).",
        rule.rule,
        figure(rule.threshold),
        rule.source
    )
}

pub(super) fn figure(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

pub(super) fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.1} %"))
}

pub(super) fn hold_words(hold: Hold) -> &'static str {
    match hold {
        Hold::CooldownUp => "the last scale-up is too recent (scale_up.cooldown)",
        Hold::CooldownDown => "the last action is too recent for a removal (scale_down.cooldown)",
        Hold::AtMax => "the maximum of nodes is reached",
        Hold::AtMin => "the minimum of nodes is reached",
        Hold::NotSustained => "a threshold is passed, but not for long enough yet",
        Hold::MetricsUnknown => "there are no fresh cluster metrics, so nothing is removed",
        Hold::OperationInProgress => "an operation is under way",
        Hold::Paused => "somebody paused scaling (`smartscale resume` ends it)",
        Hold::PendingPods => "pods that some node could take are waiting, so nothing is removed",
        Hold::Freeze => "a freeze window of the policy holds (`smartscale resume --lift-brakes 1h` lifts it)",
        Hold::LaunchRate => {
            "limits.max_launches_per_hour is used up (`smartscale resume --lift-brakes 1h` lifts it)"
        }
        Hold::Spending => {
            "limits.max_usd_per_hour is used up (`smartscale resume --lift-brakes 1h` lifts it)"
        }
    }
}

pub(super) fn boot_line(boot: &BootReport) -> String {
    let step = words(boot.step().as_str_name(), "BOOT_STEP_");
    let outcome = words(boot.outcome().as_str_name(), "OUTCOME_");
    let took = boot.took.as_ref().and_then(|took| duration_from_wire(took).ok());
    let took = took.map_or_else(String::new, |took| format!(" after {:.1} s", took.as_secs_f64()));
    let attempts = if boot.attempts > 1 {
        format!(", {} attempts", boot.attempts)
    } else {
        String::new()
    };
    let error = if boot.error.is_empty() {
        String::new()
    } else {
        format!(": {}", boot.error)
    };
    let remedy = if boot.remedy.is_empty() {
        String::new()
    } else {
        format!(" To do: {}.", boot.remedy)
    };
    format!("Boot step {step}: {outcome}{took}{attempts}{error}.{remedy}")
}

pub(super) fn booted_line(boot: &BootTime) -> String {
    let BootTime {
        step,
        seconds,
        attempts,
        error,
    } = boot;
    let error = if error.is_empty() {
        String::new()
    } else {
        format!(": {error}")
    };
    match attempts {
        0 | 1 => format!("Boot step {step} took {seconds:.1} s{error}."),
        many => format!("Boot step {step} took {seconds:.1} s, {many} attempts{error}."),
    }
}

pub(super) fn drain_lines(drain: &DrainReport) -> Vec<String> {
    let phase = words(drain.phase().as_str_name(), "DRAIN_PHASE_");
    let gone = drain
        .pods
        .iter()
        .filter(|pod| pod.state() == PodState::Gone)
        .count();
    let mut lines = vec![format!(
        "Drain {}: {phase}, {gone} of {} pods are gone.",
        drain.operation_id,
        drain.pods.len()
    )];
    for pod in drain
        .pods
        .iter()
        .filter(|pod| pod.state() != PodState::Gone)
        .take(20)
    {
        let state = words(pod.state().as_str_name(), "POD_STATE_");
        let reason = if pod.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", pod.reason)
        };
        lines.push(format!("Pod {}/{} is {state}{reason}.", pod.namespace, pod.name));
    }
    if !drain.error.is_empty() {
        lines.push(format!("The drain's last error: {}.", drain.error));
    }
    lines
}

pub(super) fn operation_explained(operation: &OperationView, now: Timestamp) -> ExplainResponse {
    let outcome = match (operation.ended, operation.succeeded) {
        (false, _) => format!("is in phase {}", operation.phase),
        (true, true) => "ended well".to_owned(),
        (true, false) => "failed".to_owned(),
    };
    let summary = format!("{} of {} {outcome}", operation.kind, operation.nodes.join(", "));
    let mut lines = vec![format!("Begun because: {}.", operation.reason)];
    if !operation.decision.is_empty() {
        lines.push(format!(
            "It came of decision {0}: `smartscale explain {0}`.",
            operation.decision
        ));
    }
    for step in &operation.steps {
        let at = step.time.as_ref().and_then(|time| from_wire(time).ok());
        let at = at.map_or_else(String::new, |at| format!("{}: ", ago(at, now)));
        lines.push(format!("{at}{} {}", step.phase, step.note).trim_end().to_owned());
    }
    if operation.takeovers > 0 {
        lines.push(format!(
            "Another leader took it over {} times.",
            operation.takeovers
        ));
    }
    if !operation.error.is_empty() {
        lines.push(format!("Its last error: {}.", operation.error));
    }
    ExplainResponse {
        summary,
        lines,
        record_json: String::new(),
    }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn ago(time: Timestamp, now: Timestamp) -> String {
    format!("{} ago", span(age(time, now)))
}

/// A span of time for people, in its two greatest units.
pub(super) fn span(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_told_with_its_source_and_age() {
        let words = |source, age| price_words(0.0062, source, age);
        assert_eq!(
            words(Some(PriceSource::SpotPriceHistory), Some(130)),
            "0.0062 USD/h (spot-price-history, 2 min 10 s old)"
        );
        assert_eq!(words(Some(PriceSource::Policy), None), "0.0062 USD/h (policy)");
        assert_eq!(words(None, None), "0.0062 USD/h (nobody knows its price)");
    }
}
