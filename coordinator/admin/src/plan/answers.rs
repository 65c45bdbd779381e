//! Answers to `--why` and `--why-node` for people: the chain from what is asked for to what comes of it.

use smartscale_planner::{
    BlockerCode, PendingCode, RemovalReason,
    explain::{Answers, Attempt, BlockerAnswer, Fate, NodeAnswer, Offer, PodAnswer, Reason, Standing, Tried},
    model::PodKey,
};

use super::layout::{Page, and, count, hourly, money, percent, some, span};

/// Refusals by one filter that are shown with their figures.
const SHOWN: usize = 3;

/// All answers, in the order of the questions, pods first.
pub(super) fn of(answers: &Answers) -> String {
    let mut page = Page::default();
    answers.pods.iter().for_each(|answer| pod(&mut page, answer));
    answers.nodes.iter().for_each(|answer| node(&mut page, answer));
    page.into_text()
}

fn pod(page: &mut Page, answer: &PodAnswer) {
    let place = answer
        .place
        .as_ref()
        .map_or_else(String::new, ToString::to_string);
    let standing = match answer.standing {
        Standing::Placed => format!("has a place: {place}"),
        Standing::Pending => answer
            .code
            .map_or_else(|| "is pending".to_owned(), |code| format!("is pending: {code}")),
        Standing::Bound => format!("is on {place}"),
        Standing::Terminating => "is leaving".to_owned(),
        Standing::Finished => "has ended".to_owned(),
        Standing::DaemonSet => "is a DaemonSet's".to_owned(),
        Standing::OtherScheduler => "waits for another scheduler".to_owned(),
    };
    page.heading(&format!("{} {standing}", answer.pod));
    page.line(2, &answer.answer);
    answer.notes.iter().for_each(|note| page.line(2, note));

    page.heading("It asks for");
    let requests: Vec<String> = answer
        .requests
        .iter()
        .map(|(name, amount)| format!("{name} {amount}"))
        .collect();
    let mut asks = if requests.is_empty() {
        "no CPU and no memory".to_owned()
    } else {
        requests.join(", ")
    };
    if answer.priority != 0 {
        asks.push_str(&format!("; priority {}", answer.priority));
    }
    page.line(2, &asks);
    answer
        .constraints
        .iter()
        .for_each(|constraint| page.line(2, constraint));

    for (what, tried) in [
        ("Nodes that are there", &answer.existing),
        ("Nodes that are launching", &answer.launching),
        ("Nodes that this plan launches", &answer.planned),
    ] {
        if let Some(tried) = tried
            .as_ref()
            .filter(|tried| tried.asked > 0 || what.ends_with("there"))
        {
            nodes(page, what, tried);
        }
    }
    if let Some(tried) = &answer.offerings {
        offerings(page, tried);
    }
    if !answer.limits.is_empty() {
        page.heading("Limits");
        for limit in &answer.limits {
            let stops = if limit.stops { " (this stops it)" } else { "" };
            page.line(2, &format!("{}: {}{stops}", limit.limit, limit.detail));
        }
    }
    if let Some(leaving) = &answer.leaving {
        if !leaving.blockers.is_empty() {
            page.heading(&format!("What keeps it on {place}"));
            blockers(page, &leaving.blockers, false);
        }
        if let Some(others) = &leaving.others {
            nodes(page, "If its node went: the other nodes", others);
        }
    }
}

fn verdict(what: &str, asked: usize, accept: usize) -> String {
    match (asked, accept) {
        (0, _) => format!("{what}: none"),
        (1, 0) => format!("{what}: the only one does not take it"),
        (1, _) => format!("{what}: the only one takes it"),
        (_, 0) => format!("{what}: none of {asked} takes it"),
        _ => format!("{what}: {accept} of {asked} would take it"),
    }
}

fn nodes(page: &mut Page, what: &str, tried: &Tried<String>) {
    page.heading(&verdict(what, tried.asked, tried.accept.len()));
    if !tried.accept.is_empty() {
        page.line(2, &some(&tried.accept));
    }
    for group in &tried.refused {
        let attempts = &group.attempts;
        if attempts.iter().all(|attempt| attempt.detail.is_empty()) {
            let names = some(attempts.iter().map(|attempt| &attempt.by));
            page.line(2, &format!("{}: {names}", title(group.code, attempts.len())));
            continue;
        }
        page.line(2, &title(group.code, attempts.len()));
        for attempt in attempts.iter().take(SHOWN) {
            page.item(4, &format!("{}: {}", attempt.by, attempt.detail));
        }
        let more = attempts.iter().skip(SHOWN).map(|attempt| &attempt.by);
        if attempts.len() > SHOWN {
            page.line(4, &format!("further off: {}", some(more)));
        }
    }
}

/// Whether it is no filter that refuses, but a limit on launches.
fn is_limit(code: Reason) -> bool {
    matches!(code, Reason::Filter(code) if code > PendingCode::TopologySpread || code == PendingCode::PriorityCutoff)
}

fn title(code: Reason, number: usize) -> String {
    if number == 1 {
        code.to_string()
    } else {
        format!("{number} × {code}")
    }
}

/// Offerings of one pool that say the same.
struct Alike<'t> {
    first: &'t Offer,
    detail: &'t str,
    types: Vec<String>,
    zones: Vec<String>,
    markets: Vec<String>,
}

impl<'t> Alike<'t> {
    fn group(offers: impl Iterator<Item = (&'t Offer, &'t str)>) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (offer, detail) in offers {
            let found = all
                .iter()
                .position(|one| one.first.pool == offer.pool && one.detail == detail);
            let index = found.unwrap_or_else(|| {
                all.push(Self {
                    first: offer,
                    detail,
                    types: Vec::new(),
                    zones: Vec::new(),
                    markets: Vec::new(),
                });
                all.len() - 1
            });
            if let Some(one) = all.get_mut(index) {
                for (list, name) in [
                    (&mut one.types, offer.instance_type.to_string()),
                    (&mut one.zones, offer.zone.to_string()),
                    (&mut one.markets, offer.market.to_string()),
                ] {
                    if !list.contains(&name) {
                        list.push(name);
                    }
                }
                if offer.price_per_hour < one.first.price_per_hour {
                    one.first = offer;
                }
            }
        }
        all
    }

    fn words(&self) -> String {
        format!(
            "{} in {}, {}, pool {}, from {} an hour",
            some(&self.types),
            some(&self.zones),
            and(&self.markets),
            self.first.pool,
            hourly(self.first.price_per_hour)
        )
    }
}

fn offerings(page: &mut Page, tried: &Tried<Offer>) {
    let limited = tried.refused.iter().filter(|group| is_limit(group.code));
    let limited: usize = limited.map(|group| group.attempts.len()).sum();
    page.heading(&match (limited, tried.accept.len()) {
        (0, accept) => verdict("New nodes", tried.asked, accept),
        (limited, 0) => format!(
            "New nodes: {limited} of {} would hold it, but nothing is launched",
            count(tried.asked, "offering")
        ),
        (_, accept) => verdict("New nodes", tried.asked, accept),
    });
    // Of each type its cheapest, the cheapest types first.
    let mut types: Vec<&Offer> = Vec::new();
    for offer in &tried.accept {
        if !types
            .iter()
            .any(|other| other.instance_type == offer.instance_type)
        {
            types.push(offer);
        }
    }
    for offer in types.iter().take(SHOWN) {
        page.line(
            2,
            &format!(
                "{}: {} an hour, {}, {}, pool {}",
                offer.instance_type,
                hourly(offer.price_per_hour),
                offer.market,
                offer.zone,
                offer.pool
            ),
        );
    }
    if types.len() > SHOWN {
        page.line(
            2,
            &format!("and {}, dearer", count(types.len() - SHOWN, "more type")),
        );
    }
    for group in &tried.refused {
        page.line(2, &title(group.code, group.attempts.len()));
        let offers = group
            .attempts
            .iter()
            .map(|attempt: &Attempt<Offer>| (&attempt.by, attempt.detail.as_str()));
        let alike = Alike::group(offers);
        for one in alike.iter().take(SHOWN) {
            page.line(4, &one.words());
            if !one.detail.is_empty() {
                page.line(6, one.detail);
            }
        }
        let more: usize = alike.iter().skip(SHOWN).map(|one| one.types.len()).sum();
        if more > 0 {
            page.line(4, &format!("further off: {}", count(more, "more type")));
        }
    }
}

/// Each with its figures; pods without another place together, since what they lack stands with the pods.
fn blockers(page: &mut Page, blockers: &[BlockerAnswer], of_node: bool) {
    for blocker in blockers
        .iter()
        .filter(|blocker| !(of_node && is_homeless(blocker)))
    {
        let whose = blocker.pod.as_ref().filter(|_| of_node);
        let whose = whose.map_or_else(String::new, |pod| format!(" {pod}"));
        page.line(2, &format!("{}{whose}", blocker.code));
        page.line(4, &blocker.detail);
    }
    let homeless = blockers
        .iter()
        .filter(|blocker| of_node && is_homeless(blocker))
        .count();
    if homeless > 0 {
        page.line(2, &BlockerCode::NoPlaceToMove.to_string());
        page.line(4, &format!("{} below", count(homeless, "pod")));
    }
}

fn is_homeless(blocker: &BlockerAnswer) -> bool {
    blocker.code == BlockerCode::NoPlaceToMove && blocker.pod.is_some()
}

fn node(page: &mut Page, answer: &NodeAnswer) {
    page.heading(&format!("{}: {}", answer.node, answer.answer));
    let mut what: Vec<String> = Vec::new();
    what.extend(answer.pool.as_ref().map(|pool| format!("pool {pool}")));
    what.extend(answer.instance_type.as_ref().map(ToString::to_string));
    what.extend(answer.market.map(|market| market.to_string()));
    what.extend(answer.zone.as_ref().map(ToString::to_string));
    if !what.is_empty() {
        page.line(2, &what.join(", "));
    }
    page.line(
        2,
        &answer.price_per_hour.map_or_else(
            || "price unknown".to_owned(),
            |price| format!("costs {}", money(price)),
        ),
    );
    let mut state = vec![if answer.ready { "Ready" } else { "not Ready" }.to_owned()];
    state.extend(answer.cordoned.then(|| "cordoned".to_owned()));
    state.extend(answer.age_seconds.map(|age| format!("{} old", span(age))));
    page.line(2, &state.join(", "));
    let asked = &answer.requested;
    page.line(
        2,
        &format!(
            "requested: cpu {} of {} ({:.0} %), memory {} of {} ({:.0} %), {} of {} pods",
            asked.cpu,
            asked.cpu_allocatable,
            asked.share.cpu_percent,
            asked.memory,
            asked.memory_allocatable,
            asked.share.memory_percent,
            asked.pods,
            asked.pods_allocatable
        ),
    );
    let measured = answer.measured.map_or_else(
        || "unknown".to_owned(),
        |usage| {
            format!(
                "CPU {}, memory {}",
                percent(usage.cpu_percent),
                percent(usage.memory_percent)
            )
        },
    );
    page.line(2, &format!("measured: {measured}"));
    if answer.fate == Fate::Stays
        && let (Some(how), Some(saves)) = (answer.would_be, answer.would_save_per_hour)
    {
        let how = match how {
            RemovalReason::Empty => "go as empty",
            RemovalReason::Underutilised => "be drained",
            RemovalReason::Replaced if answer.due.is_some() => "be replaced by another",
            RemovalReason::Replaced => "be replaced by a cheaper one",
        };
        page.line(
            2,
            &format!(
                "otherwise it would {how}, which would save {} an hour",
                hourly(saves)
            ),
        );
    }
    if !answer.blockers.is_empty() {
        page.heading("What keeps it");
        blockers(page, &answer.blockers, true);
    }
    if !answer.held.is_empty() {
        page.heading("What holds every removal now");
        answer.held.iter().for_each(|held| page.line(2, held));
    }
    page.heading(&if answer.pods.is_empty() {
        "Its pods: none".to_owned()
    } else {
        "Its pods".to_owned()
    });
    let mut alike: Vec<(&str, Vec<&PodKey>)> = Vec::new();
    for pod in &answer.pods {
        match alike.iter_mut().find(|(detail, _)| *detail == pod.detail) {
            Some((_, pods)) => pods.push(&pod.pod),
            None => alike.push((&pod.detail, vec![&pod.pod])),
        }
    }
    for (detail, pods) in alike {
        let pods: Vec<String> = pods.iter().map(ToString::to_string).collect();
        page.line(2, &pods.join(", "));
        page.line(4, detail);
    }
}
