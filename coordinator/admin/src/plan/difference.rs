//! What is different from an earlier plan, for people: `+` is new, `-` is gone, `~` has changed.

use smartscale_planner::{
    Blocker, Launch, Removal,
    explain::{Change, Difference, NodeDifference, RuleDifference},
};

use super::{
    layout::{Page, count, hourly, percent, some},
    table::{hold_words, kind_of},
};

/// Nodes that are shown before the rest is counted.
const NODES: usize = 12;

/// The whole difference.
pub(super) fn of(difference: &Difference) -> String {
    let mut page = Page::default();
    if difference.same {
        page.line(0, "no difference: the plan is the same");
        return page.into_text();
    }
    match &difference.action {
        Some(Change { old, new }) => page.line(0, &format!("Action: {old} before, {new} now")),
        None => page.line(0, "The action is the same, but not all of the plan"),
    }
    if let Some(Change { old, new }) = &difference.summary {
        page.hanging(2, "before:", 10, old);
        page.hanging(2, "now:", 10, new);
    }
    if let Some(Change { old, new }) = &difference.cost_per_hour {
        page.line(
            2,
            &format!(
                "launches less removals: {} an hour before, {} now",
                hourly(*old),
                hourly(*new)
            ),
        );
    }
    launches(&mut page, difference);
    removals(&mut page, difference);
    pods(&mut page, difference);
    if !difference.holds_added.is_empty() || !difference.holds_dropped.is_empty() {
        page.heading("Held by");
        for hold in &difference.holds_added {
            page.line(2, &format!("+ {hold}: {}", hold_words(*hold)));
        }
        for hold in &difference.holds_dropped {
            page.line(2, &format!("- {hold}"));
        }
    }
    nodes(&mut page, &difference.nodes);
    if !difference.rules.is_empty() {
        page.heading("Rules");
        difference
            .rules
            .iter()
            .for_each(|rule| page.line(2, &of_rule(rule)));
    }
    page.into_text()
}

fn launches(page: &mut Page, difference: &Difference) {
    let launch = &difference.launch;
    if launch.added.is_empty() && launch.dropped.is_empty() && launch.changed.is_empty() {
        return;
    }
    let words = |launch: &Launch| {
        let pods = if launch.pods.is_empty() {
            String::new()
        } else {
            format!(", for {}", some(&launch.pods))
        };
        format!(
            "{}, {} an hour{pods}",
            kind_of(launch),
            hourly(launch.price_per_hour)
        )
    };
    page.heading("Launches");
    for (sign, launches) in [("+", &launch.added), ("-", &launch.dropped)] {
        for alike in launches.chunk_by(|a, b| words(a) == words(b)) {
            let many = match alike.len() {
                1 => String::new(),
                many => format!("{many} × "),
            };
            let one = alike.first().map(words).unwrap_or_default();
            page.hanging(2, sign, 4, &format!("{many}{one}"));
        }
    }
    for Change { old, new } in &launch.changed {
        page.hanging(2, "~", 4, &words(new));
        page.line(
            4,
            &format!(
                "before: {} an hour, for {}",
                hourly(old.price_per_hour),
                some(&old.pods)
            ),
        );
    }
}

fn removals(page: &mut Page, difference: &Difference) {
    let (added, dropped, changed) = (
        &difference.removals_added,
        &difference.removals_dropped,
        &difference.removals_changed,
    );
    if added.is_empty() && dropped.is_empty() && changed.is_empty() {
        return;
    }
    let words = |removal: &Removal| {
        format!(
            "{}: {}, {} an hour, {} to move",
            removal.node,
            removal.reason,
            hourly(removal.saves_per_hour),
            count(removal.moves.len(), "pod")
        )
    };
    page.heading("Removals");
    added
        .iter()
        .for_each(|one| page.line(2, &format!("+ {}", words(one))));
    dropped
        .iter()
        .for_each(|one| page.line(2, &format!("- {}", words(one))));
    for Change { old, new } in changed {
        page.line(2, &format!("~ {}", words(new)));
        let otherwise = new.moves.iter().filter(|planned| !old.moves.contains(planned));
        let otherwise: Vec<String> = otherwise
            .map(|planned| format!("{} to {}", planned.pod, planned.to))
            .collect();
        if !otherwise.is_empty() {
            page.line(4, &format!("moves otherwise: {}", some(&otherwise)));
        }
    }
}

fn pods(page: &mut Page, difference: &Difference) {
    let pending = &difference.pending;
    if let Some(Change { old, new }) = difference.placed {
        page.heading(&format!("Pods that find a place: {old} before, {new} now"));
    }
    if pending.added.is_empty() && pending.dropped.is_empty() && pending.changed.is_empty() {
        return;
    }
    page.heading("Pods without a place");
    for one in &pending.added {
        page.line(2, &format!("+ {}: {}", one.pod, one.code));
        page.line(4, &one.reason);
    }
    for one in &pending.dropped {
        page.line(2, &format!("- {}: was {}", one.pod, one.code));
    }
    for Change { old, new } in &pending.changed {
        if old.code == new.code {
            page.line(2, &format!("~ {}: {}", new.pod, new.code));
        } else {
            page.line(
                2,
                &format!("~ {}: {} before, {} now", new.pod, old.code, new.code),
            );
        }
        page.line(4, &new.reason);
    }
}

fn nodes(page: &mut Page, nodes: &[NodeDifference]) {
    if nodes.is_empty() {
        return;
    }
    page.heading("Nodes");
    for one in nodes.iter().take(NODES) {
        let what = match (one.known.old, one.known.new, &one.candidate) {
            (false, _, _) => "is new",
            (_, false, _) => "is no longer there",
            (_, _, Some(Change { new: true, .. })) => "could go now",
            (_, _, Some(Change { new: false, .. })) => "must stay now",
            (_, _, None) => "stays for other reasons",
        };
        page.line(2, &format!("{} {what}", one.node));
        if one.known.new && !one.blockers_added.is_empty() {
            page.hanging(4, "+", 6, &codes(&one.blockers_added));
        }
        if one.known.new && !one.blockers_dropped.is_empty() {
            page.hanging(4, "-", 6, &codes(&one.blockers_dropped));
        }
    }
    if nodes.len() > NODES {
        page.line(2, &format!("and {}", count(nodes.len() - NODES, "more node")));
    }
}

fn codes(blockers: &[Blocker]) -> String {
    let one = |blocker: &Blocker| {
        let pod = blocker.pod.as_ref();
        pod.map_or_else(
            || blocker.code.to_string(),
            |pod| format!("{} ({pod})", blocker.code),
        )
    };
    some(blockers.iter().map(one))
}

fn of_rule(rule: &RuleDifference) -> String {
    let is_count = rule.rule == smartscale_planner::RuleName::PendingPods;
    let figure = |value: f64| {
        if is_count {
            format!("{value}")
        } else {
            percent(value)
        }
    };
    let known = |value: &Option<f64>| value.map_or_else(|| "unknown".to_owned(), figure);
    let mut parts = Vec::new();
    if let Some(Change { old, new }) = &rule.value {
        parts.push(format!("{} before, {} now", known(old), known(new)));
    }
    if let Some(Change { old, new }) = &rule.threshold {
        parts.push(format!("threshold {} before, {} now", figure(*old), figure(*new)));
    }
    if let Some(Change { new, .. }) = &rule.fired {
        parts.push(if *new { "fires now" } else { "fires no longer" }.to_owned());
    }
    format!("{}: {}", rule.rule, parts.join("; "))
}
