//! The plan for people: what would happen first, then why, then what stands in the way. What is alike is said once.

use std::collections::BTreeMap;

use smartscale_planner::{
    Action, Blocker, BlockerCode, Destination, Hold, Launch, NodeVerdict, Plan, Removal, RemovalReason, Rule,
    RuleName, model::NodeName,
};

use super::layout::{Page, and, count, hourly, money, percent, some, span};

/// Groups of nodes that are shown before the rest is counted.
const GROUPS: usize = 8;

/// The whole plan.
pub(super) fn of(plan: &Plan) -> String {
    let mut page = Page::default();
    page.line(0, &format!("{}: {}", plan.action, plan.summary));
    launches(&mut page, plan);
    removals(&mut page, &plan.remove);
    net(&mut page, plan);
    pending(&mut page, plan);
    holds(&mut page, plan);
    nodes(&mut page, plan);
    rules(&mut page, &plan.rules);
    if !plan.assumptions.is_empty() {
        page.heading("Assumed");
        plan.assumptions.iter().for_each(|one| page.item(2, one));
    }
    if let Some(first) = plan.pods.pending.first() {
        page.heading(&format!(
            "The whole chain: the same command with --why {}",
            first.pod
        ));
    }
    page.into_text()
}

/// Launches of one kind in one entry.
fn launches(page: &mut Page, plan: &Plan) {
    let launches = &plan.launch;
    if launches.is_empty() {
        return;
    }
    let price: f64 = launches.iter().map(|launch| launch.price_per_hour).sum();
    page.heading(&format!(
        "Launch {}: {}",
        count(launches.len(), "node"),
        money(price)
    ));
    let kind = |launch: &Launch| {
        (
            launch.pool.clone(),
            launch.zone.clone(),
            launch.market,
            launch.instance_types.clone(),
        )
    };
    let mut kinds: Vec<(_, Vec<usize>)> = Vec::new();
    for (index, launch) in launches.iter().enumerate() {
        let kind = kind(launch);
        match kinds.iter_mut().find(|(other, _)| *other == kind) {
            Some((_, indices)) => indices.push(index),
            None => kinds.push((kind, vec![index])),
        }
    }
    for (_, indices) in kinds {
        let Some(launch) = indices.first().and_then(|index| launches.get(*index)) else {
            continue;
        };
        let many = indices.len() > 1;
        let label = if many {
            format!("{} ×", indices.len())
        } else {
            indices
                .first()
                .map_or_else(String::new, |index| format!("launch[{index}]"))
        };
        page.hanging(2, &label, 13, &kind_of(launch));
        let each = if many { " each" } else { "" };
        let pods: Vec<_> = indices
            .iter()
            .filter_map(|index| launches.get(*index))
            .flat_map(|l| &l.pods)
            .collect();
        let moves = plan.remove.iter().flat_map(|removal| &removal.moves);
        let moved: Vec<_> = moves
            .filter(|planned| matches!(planned.to, Destination::Launch(to) if indices.contains(&to)))
            .map(|planned| &planned.pod)
            .collect();
        let what = match (pods.is_empty(), moved.is_empty()) {
            (false, _) => format!("for {}: {}", count(pods.len(), "pod"), some(pods)),
            (true, false) => format!("for what moves there: {}", some(moved)),
            (true, true) => "for no pod that waits".to_owned(),
        };
        page.line(
            13,
            &format!("{} an hour{each}, {what}", hourly(launch.price_per_hour)),
        );
        if many {
            let names: Vec<String> = indices.iter().map(|index| format!("launch[{index}]")).collect();
            page.line(13, &some(names));
        }
    }
}

/// `t3.small or 2 more types, spot, us-east-1a, pool workers`.
pub(super) fn kind_of(launch: &Launch) -> String {
    let first = launch.instance_types.first().map_or("-", |name| name.as_str());
    let others = match launch.instance_types.as_slice() {
        [_, second] => format!(" or {second}"),
        [] | [_] => String::new(),
        more => format!(" or {} more types", more.len() - 1),
    };
    format!(
        "{first}{others}, {}, {}, pool {}",
        launch.market, launch.zone, launch.pool
    )
}

fn removals(page: &mut Page, removals: &[Removal]) {
    if removals.is_empty() {
        return;
    }
    let saves: f64 = removals.iter().map(|removal| removal.saves_per_hour).sum();
    page.heading(&format!(
        "Remove {}: saves {}",
        count(removals.len(), "node"),
        money(saves)
    ));
    let (empty, others): (Vec<&Removal>, Vec<&Removal>) = removals
        .iter()
        .partition(|removal| removal.reason == RemovalReason::Empty);
    if let [only] = empty.as_slice() {
        page.line(2, &format!("{}: empty", only.node));
    } else if !empty.is_empty() {
        let names: Vec<String> = empty.iter().map(|removal| removal.node.to_string()).collect();
        page.line(2, &format!("{} empty: {}", empty.len(), names.join(", ")));
    }
    for removal in others {
        let moves = count(removal.moves.len(), "pod");
        page.line(
            2,
            &format!(
                "{}: {}, {} an hour, {moves} to move",
                removal.node,
                word(removal),
                hourly(removal.saves_per_hour)
            ),
        );
        let mut by_place: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for planned in &removal.moves {
            by_place
                .entry(planned.to.to_string())
                .or_default()
                .push(planned.pod.to_string());
        }
        for (place, pods) in by_place {
            page.item(4, &format!("to {place}: {}", some(pods)));
        }
    }
}

/// What comes of it, where nodes come and go at once.
fn net(page: &mut Page, plan: &Plan) {
    if plan.action != Action::Replace {
        return;
    }
    let costs: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
    let saves: f64 = plan.remove.iter().map(|removal| removal.saves_per_hour).sum();
    if saves < costs {
        page.heading(&format!("Together that costs {}", money(costs - saves)));
    } else {
        page.heading(&format!("Together that saves {}", money(saves - costs)));
    }
}

/// What is done with a node, as people say it.
fn word(removal: &Removal) -> String {
    let word = match removal.reason {
        RemovalReason::Empty => "empty",
        RemovalReason::Underutilised => "its pods fit elsewhere",
        RemovalReason::Replaced if removal.due.is_some() => "replaced by another",
        RemovalReason::Replaced => "replaced by a cheaper one",
    };
    match removal.due {
        Some(due) => format!("{}, {word}", due.clause()),
        None => word.to_owned(),
    }
}

/// Pods without a place, those of one reason together.
fn pending(page: &mut Page, plan: &Plan) {
    let pending = &plan.pods.pending;
    if pending.is_empty() {
        return;
    }
    let mut groups: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for pod in pending {
        groups
            .entry((pod.code, &pod.reason))
            .or_default()
            .push(pod.pod.to_string());
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, pods)| std::cmp::Reverse(pods.len()));
    page.heading(&format!("{} without a place", count(pending.len(), "pod")));
    for ((code, reason), pods) in groups {
        page.line(2, &format!("{code}: {}", some(&pods)));
        page.line(4, reason);
    }
}

fn holds(page: &mut Page, plan: &Plan) {
    // Beside a launch only its own limit is news: that nothing goes at the same time goes without saying.
    let news = |hold: &&Hold| plan.launch.is_empty() || hold.bounds_launches();
    let holds: Vec<&Hold> = plan.held_by.iter().filter(news).collect();
    if holds.is_empty() {
        return;
    }
    page.heading("Held");
    for hold in holds {
        page.item(2, &format!("{hold}: {}", hold_words(*hold)));
    }
}

/// What a hold means, with the key that would change it.
pub(super) fn hold_words(hold: Hold) -> &'static str {
    match hold {
        Hold::CooldownUp => "the last scale-up is too recent for metrics to add nodes (scale_up.cooldown)",
        Hold::CooldownDown => "the last action is too recent for a removal (scale_down.cooldown)",
        Hold::AtMax => "the cluster or a pool is at its maximum (max_nodes)",
        Hold::AtMin => "the cluster or a pool is at its minimum (min_nodes, on_demand_base)",
        Hold::NotSustained => "a threshold is passed, but not for long enough yet",
        Hold::MetricsUnknown => "there is no fresh cluster reading, so nothing is removed",
        Hold::OperationInProgress => "an operation is under way, so nothing else is begun",
        Hold::Paused => "scaling is paused",
        Hold::PendingPods => "pods wait that some node can take, so nothing is removed",
        Hold::Freeze => "a freeze window of the policy stops something ([[freeze]])",
        Hold::LaunchRate => "the launches of an hour are used up (limits.max_launches_per_hour)",
        Hold::Spending => "what nodes may cost in an hour is used up (limits.max_usd_per_hour)",
    }
}

/// Nodes that stay, those of the same reasons together. Beside launches nothing goes anyway: then their number will do.
fn nodes(page: &mut Page, plan: &Plan) {
    let goes = |node: &NodeName| plan.remove.iter().any(|removal| removal.node == *node);
    let staying: Vec<&NodeVerdict> = plan.nodes.iter().filter(|verdict| !goes(&verdict.node)).collect();
    if staying.is_empty() {
        return;
    }
    let not_ours = |verdict: &NodeVerdict| {
        verdict
            .blockers
            .iter()
            .any(|blocker| blocker.code == BlockerCode::NotOurs)
    };
    let (foreign, ours): (Vec<&NodeVerdict>, Vec<&NodeVerdict>) =
        staying.into_iter().partition(|verdict| not_ours(verdict));
    let foreign = match foreign.as_slice() {
        [] => String::new(),
        some_nodes => format!(
            "not ours: {}",
            some(some_nodes.iter().map(|verdict| &verdict.node))
        ),
    };
    if plan.action == Action::ScaleUp {
        let mut parts = vec![format!("{} of ours", count(ours.len(), "node"))];
        parts.extend((!foreign.is_empty()).then_some(foreign));
        page.heading(&format!("There already: {}", parts.join("; ")));
        return;
    }
    page.heading("Nodes that stay");
    let mut groups: Vec<(Vec<BlockerCode>, Vec<&NodeVerdict>)> = Vec::new();
    for verdict in ours {
        let mut codes: Vec<BlockerCode> = verdict.blockers.iter().map(|blocker| blocker.code).collect();
        codes.dedup();
        match groups.iter_mut().find(|(other, _)| *other == codes) {
            Some((_, nodes)) => nodes.push(verdict),
            None => groups.push((codes, vec![verdict])),
        }
    }
    groups.sort_by_key(|(_, nodes)| std::cmp::Reverse(nodes.len()));
    let more: usize = groups.iter().skip(GROUPS).map(|(_, nodes)| nodes.len()).sum();
    for (codes, nodes) in groups.into_iter().take(GROUPS) {
        page.line(2, &some(nodes.iter().map(|verdict| &verdict.node)));
        let reasons = match nodes.as_slice() {
            _ if codes.is_empty() => "could go, were it not for what holds".to_owned(),
            [only] => of_one(only),
            _ => and(&codes.iter().map(ToString::to_string).collect::<Vec<_>>()),
        };
        page.line(4, &reasons);
    }
    if more > 0 {
        page.line(2, &format!("and {}", count(more, "more node")));
    }
    if !foreign.is_empty() {
        page.line(2, &foreign);
    }
}

/// Every code once, with the pods that it is about.
fn of_one(node: &NodeVerdict) -> String {
    let mut parts: Vec<String> = Vec::new();
    for group in node.blockers.chunk_by(|a, b| a.code == b.code) {
        let Some(Blocker { code, .. }) = group.first() else {
            continue;
        };
        let pods: Vec<_> = group.iter().filter_map(|blocker| blocker.pod.as_ref()).collect();
        parts.push(if pods.is_empty() {
            code.to_string()
        } else {
            format!("{code} ({})", some(pods))
        });
    }
    and(&parts)
}

/// CPU and memory with both thresholds, a line each.
fn rules(page: &mut Page, rules: &[Rule]) {
    let find = |name: RuleName| rules.iter().find(|rule| rule.rule == name);
    if rules
        .iter()
        .all(|rule| rule.rule == RuleName::PendingPods || rule.value.is_none())
    {
        page.heading("Averages: unknown, so they ask for nothing and allow no removal");
        return;
    }
    page.heading("Averages");
    for (what, above, below) in [
        ("CPU", RuleName::CpuAbove, RuleName::CpuBelow),
        ("memory", RuleName::MemoryAbove, RuleName::MemoryBelow),
    ] {
        let (Some(above), Some(below)) = (find(above), find(below)) else {
            continue;
        };
        let value = above.value.map_or_else(|| "unknown".to_owned(), percent);
        let fired = |rule: &Rule| if rule.fired { "yes" } else { "no" };
        let age = above.age_seconds.map_or_else(String::new, |age| {
            format!("; {}, {} old", above.source, span(age))
        });
        page.hanging(
            2,
            &format!("{what:<6}  {value:<8}"),
            20,
            &format!(
                "above {}: {}; below {}: {}{age}",
                percent(above.threshold),
                fired(above),
                percent(below.threshold),
                fired(below)
            ),
        );
    }
}
