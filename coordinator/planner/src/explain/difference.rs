//! What is different between two plans.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{
    Action, Blocker, Hold, Launch, NodeVerdict, PendingPod, Plan, Removal, RuleName, model::NodeName,
};

/// Something that was and is otherwise now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change<T> {
    /// What it was.
    pub old: T,
    /// What it is.
    pub new: T,
}

impl<T: PartialEq + Clone> Change<T> {
    fn of(old: &T, new: &T) -> Option<Self> {
        (old != new).then(|| Self {
            old: old.clone(),
            new: new.clone(),
        })
    }
}

/// The difference between two plans: what is only in the old one, only in the new one, or changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Difference {
    /// Nothing is different but ages of figures.
    pub same: bool,
    /// The action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Change<Action>>,
    /// The summary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<Change<String>>,
    /// What the launches cost per hour less what the removals save, in USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_per_hour: Option<Change<f64>>,
    /// Launches.
    pub launch: Launches,
    /// Removals that only the old plan has.
    pub removals_dropped: Vec<Removal>,
    /// Removals that only the new plan has.
    pub removals_added: Vec<Removal>,
    /// Removals of the same node for another reason or with other moves.
    pub removals_changed: Vec<Change<Removal>>,
    /// How many pods found a place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placed: Option<Change<usize>>,
    /// Pods without a place.
    pub pending: PendingDifference,
    /// Nodes whose blockers differ, or which only one plan knows.
    pub nodes: Vec<NodeDifference>,
    /// Rules whose figure, threshold or verdict differs.
    pub rules: Vec<RuleDifference>,
    /// Holds that only the old plan has.
    pub holds_dropped: Vec<Hold>,
    /// Holds that only the new plan has.
    pub holds_added: Vec<Hold>,
}

/// Launches that differ. Those of the same pool, zone, market and types are one, however they are numbered.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Launches {
    /// Only in the old plan.
    pub dropped: Vec<Launch>,
    /// Only in the new plan.
    pub added: Vec<Launch>,
    /// The same node for other pods, or at another price.
    pub changed: Vec<Change<Launch>>,
}

/// Pods without a place that differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct PendingDifference {
    /// Pending in the old plan only.
    pub dropped: Vec<PendingPod>,
    /// Pending in the new plan only.
    pub added: Vec<PendingPod>,
    /// Pending in both for different reasons.
    pub changed: Vec<Change<PendingPod>>,
}

/// A node that is judged otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeDifference {
    /// The node.
    pub node: NodeName,
    /// Whether the old and the new plan know it.
    pub known: Change<bool>,
    /// Whether it is a candidate, if that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<Change<bool>>,
    /// Blockers that only the old plan has.
    pub blockers_dropped: Vec<Blocker>,
    /// Blockers that only the new plan has.
    pub blockers_added: Vec<Blocker>,
}

/// A rule that is judged otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleDifference {
    /// The rule.
    pub rule: RuleName,
    /// Its figure, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Change<Option<f64>>>,
    /// Its threshold, if it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<Change<f64>>,
    /// Whether it fired, if that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fired: Option<Change<bool>>,
}

impl Difference {
    /// What is different in `new`. Ages and sources of figures, and the numbers of launches, are not looked at.
    pub fn of(old: &Plan, new: &Plan) -> Self {
        let (removals_dropped, removals_added, removals_changed) = by_key(
            &old.remove,
            &new.remove,
            |removal| removal.node.clone(),
            is_same_removal,
        );
        let (dropped, added, changed) = by_key(
            &old.pods.pending,
            &new.pods.pending,
            |pending| pending.pod.clone(),
            PartialEq::eq,
        );
        let cost = |plan: &Plan| {
            let launches: f64 = plan.launch.iter().map(|launch| launch.price_per_hour).sum();
            let saves: f64 = plan.remove.iter().map(|removal| removal.saves_per_hour).sum();
            launches - saves
        };
        let (was, is) = (cost(old), cost(new));
        let holds = |of: &Plan, other: &Plan| -> Vec<Hold> {
            of.held_by
                .iter()
                .copied()
                .filter(|hold| !other.held_by.contains(hold))
                .collect()
        };
        let mut difference = Self {
            same: false,
            action: Change::of(&old.action, &new.action),
            summary: Change::of(&old.summary, &new.summary),
            cost_per_hour: ((was - is).abs() > 1e-9).then_some(Change { old: was, new: is }),
            launch: launches(&old.launch, &new.launch),
            removals_dropped,
            removals_added,
            removals_changed,
            placed: Change::of(&old.pods.placed, &new.pods.placed),
            pending: PendingDifference {
                dropped,
                added,
                changed,
            },
            nodes: nodes(&old.nodes, &new.nodes),
            rules: rules(old, new),
            holds_dropped: holds(old, new),
            holds_added: holds(new, old),
        };
        difference.same = difference == Self::default();
        difference
    }
}

/// Dropped, added and changed elements of two lists without doubles.
type Sides<T> = (Vec<T>, Vec<T>, Vec<Change<T>>);

/// Whether two launches are the same, whoever said their price and when.
fn is_same_launch(one: &Launch, other: &Launch) -> bool {
    let Launch {
        pool,
        zone,
        market,
        instance_types,
        price_per_hour,
        price_source: _,
        price_age_seconds: _,
        pods,
    } = one;
    *pool == other.pool
        && *zone == other.zone
        && *market == other.market
        && *instance_types == other.instance_types
        && price_per_hour.to_bits() == other.price_per_hour.to_bits()
        && *pods == other.pods
}

/// The same of removals.
fn is_same_removal(one: &Removal, other: &Removal) -> bool {
    let Removal {
        node,
        reason,
        moves,
        saves_per_hour,
        saves_source: _,
        saves_age_seconds: _,
        due,
    } = one;
    *node == other.node
        && *reason == other.reason
        && *moves == other.moves
        && saves_per_hour.to_bits() == other.saves_per_hour.to_bits()
        && *due == other.due
}

fn by_key<T: Clone, K: Ord>(
    old: &[T],
    new: &[T],
    key: impl Fn(&T) -> K,
    is_same: impl Fn(&T, &T) -> bool,
) -> Sides<T> {
    let known: BTreeMap<K, &T> = new.iter().map(|one| (key(one), one)).collect();
    let before: BTreeSet<K> = old.iter().map(&key).collect();
    let mut sides: Sides<T> = (Vec::new(), Vec::new(), Vec::new());
    for one in old {
        match known.get(&key(one)) {
            None => sides.0.push(one.clone()),
            Some(now) if is_same(one, now) => {}
            Some(now) => sides.2.push(Change {
                old: one.clone(),
                new: (*now).clone(),
            }),
        }
    }
    sides.1 = new
        .iter()
        .filter(|one| !before.contains(&key(one)))
        .cloned()
        .collect();
    sides
}

/// Equal launches belong together first, then those of the same kind, in order.
fn launches(old: &[Launch], new: &[Launch]) -> Launches {
    let kind = |launch: &Launch| {
        (
            launch.pool.clone(),
            launch.zone.clone(),
            launch.market,
            launch.instance_types.clone(),
        )
    };
    let mut left: Vec<&Launch> = new.iter().collect();
    let unmatched: Vec<&Launch> = old
        .iter()
        .filter(
            |launch| match left.iter().position(|other| is_same_launch(other, launch)) {
                Some(index) => {
                    left.remove(index);
                    false
                }
                None => true,
            },
        )
        .collect();
    let mut launches = Launches::default();
    for launch in unmatched {
        match left.iter().position(|other| kind(other) == kind(launch)) {
            Some(index) => launches.changed.push(Change {
                old: launch.clone(),
                new: left.remove(index).clone(),
            }),
            None => launches.dropped.push(launch.clone()),
        }
    }
    launches.added = left.into_iter().cloned().collect();
    launches
}

fn nodes(old: &[NodeVerdict], new: &[NodeVerdict]) -> Vec<NodeDifference> {
    let names: BTreeSet<&NodeName> = old.iter().chain(new).map(|verdict| &verdict.node).collect();
    let find = |list: &'_ [NodeVerdict], name: &NodeName| list.iter().find(|v| v.node == *name).cloned();
    let mut different = Vec::new();
    for name in names {
        let (was, is) = (find(old, name), find(new, name));
        let blockers = |verdict: &Option<NodeVerdict>| {
            verdict
                .as_ref()
                .map_or_else(Vec::new, |verdict| verdict.blockers.clone())
        };
        let only = |of: &[Blocker], other: &[Blocker]| -> Vec<Blocker> {
            of.iter()
                .filter(|blocker| !other.contains(blocker))
                .cloned()
                .collect()
        };
        let (before, after) = (blockers(&was), blockers(&is));
        let candidate = match (&was, &is) {
            (Some(was), Some(is)) => Change::of(&was.candidate, &is.candidate),
            _ => None,
        };
        let one = NodeDifference {
            node: name.clone(),
            known: Change {
                old: was.is_some(),
                new: is.is_some(),
            },
            candidate,
            blockers_dropped: only(&before, &after),
            blockers_added: only(&after, &before),
        };
        let known_to_both = was.is_some() && is.is_some();
        let same =
            one.candidate.is_none() && one.blockers_dropped.is_empty() && one.blockers_added.is_empty();
        if !(known_to_both && same) {
            different.push(one);
        }
    }
    different
}

fn rules(old: &Plan, new: &Plan) -> Vec<RuleDifference> {
    let differs = |rule: &crate::Rule| {
        let was = old.rules.iter().find(|other| other.rule == rule.rule)?;
        let one = RuleDifference {
            rule: rule.rule,
            value: Change::of(&was.value, &rule.value),
            threshold: Change::of(&was.threshold, &rule.threshold),
            fired: Change::of(&was.fired, &rule.fired),
        };
        let differs = one.value.is_some() || one.threshold.is_some() || one.fired.is_some();
        differs.then_some(one)
    };
    new.rules.iter().filter_map(differs).collect()
}

impl Plan {
    /// Reads what `smartscale plan -o json` printed.
    ///
    /// # Errors
    /// The first key that is no part of a plan as it is, with its path.
    pub fn from_json(text: &str) -> Result<Self, crate::snapshot::InputError> {
        crate::snapshot::from_json(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        PendingCode,
        model::{Market, PodKey},
        policy::PriceSource,
    };

    fn launch(pods: &[&str]) -> Launch {
        Launch {
            pool: "workers".into(),
            zone: "us-east-1a".into(),
            market: Market::Spot,
            instance_types: vec!["t3.small".into()],
            price_per_hour: 0.01,
            price_source: Some(PriceSource::Catalogue),
            price_age_seconds: Some(60),
            pods: pods.iter().map(|name| PodKey::new("default", *name)).collect(),
        }
    }

    fn pending(name: &str, code: PendingCode) -> PendingPod {
        PendingPod {
            pod: PodKey::new("default", name),
            reason: code.to_string(),
            code,
        }
    }

    #[test]
    fn a_plan_does_not_differ_from_itself() {
        let plan = Plan {
            launch: vec![launch(&["a"]), launch(&["b"])],
            ..Plan::default()
        };
        assert!(Difference::of(&plan, &plan).same);
    }

    #[test]
    fn a_price_that_another_said_or_that_is_older_makes_no_difference() {
        let old = Plan {
            launch: vec![launch(&["a"])],
            ..Plan::default()
        };
        let mut new = old.clone();
        new.launch[0].price_source = Some(PriceSource::SpotPriceHistory);
        new.launch[0].price_age_seconds = Some(3);
        assert!(Difference::of(&old, &new).same);
        new.launch[0].price_per_hour = 0.02;
        assert_eq!(Difference::of(&old, &new).launch.changed.len(), 1);
    }

    #[test]
    fn launches_are_compared_whatever_their_numbers() {
        let old = [launch(&["a"]), launch(&["b"])];
        let new = [launch(&["b"]), launch(&["c"]), launch(&["d"])];
        let difference = launches(&old, &new);
        assert_eq!(difference.changed.len(), 1);
        assert_eq!(difference.changed[0].old, old[0]);
        assert_eq!(difference.added, [launch(&["d"])]);
        assert!(difference.dropped.is_empty());
    }

    #[test]
    fn a_pod_that_waits_for_another_reason_is_a_change() {
        let mut old = Plan::default();
        old.pods.pending = vec![
            pending("a", PendingCode::Taints),
            pending("b", PendingCode::Taints),
        ];
        let mut new = Plan::default();
        new.pods.pending = vec![pending("b", PendingCode::Held), pending("c", PendingCode::Held)];
        let difference = Difference::of(&old, &new).pending;
        assert_eq!(difference.dropped, [pending("a", PendingCode::Taints)]);
        assert_eq!(difference.added, [pending("c", PendingCode::Held)]);
        assert_eq!(difference.changed[0].new.code, PendingCode::Held);
    }
}
