//! Which pods are patched in a round, by what is written on them, what is wished of their nodes and what was patched lately.
//!
//! - Only pods of the next candidates are given a cost, five nodes at most, and only those of ReplicaSets: no other controller
//!   asks for it.
//! - What is wished of a node counts once it has been wished for [`SETTLED`] without a break: candidates that come and go
//!   change nothing. A new leader begins to count with its term, so that what the one before it patched is as old by then.
//! - A pod is patched once in [`ONCE_IN`] at most, a cluster [`MOST`] times.
//! - Pods of a node that is on its way out stay as they are: they go with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use smartscale_planner::model::{NamespaceName, NodeName, Pod, PodKey};

use super::{
    ladder,
    standing::{Change, Standing},
};

/// Most nodes whose pods are given a cost, whatever the plan says: each is a patch for each of its pods.
const MOST_NODES: usize = 5;
/// A wish counts once it is so old.
const SETTLED: Duration = Duration::from_secs(60);
/// A pod is patched at most once in this time ("avoid updating the annotation frequently": Kubernetes, *ReplicaSet*).
const ONCE_IN: Duration = Duration::from_secs(60);
/// Most patches within [`ONCE_IN`]: five a second.
const MOST: usize = 300;
/// Most patches of one round; the next one is made by what is seen then.
const MOST_OF_A_ROUND: usize = 50;

/// A pod with what is written on it.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) pod: Arc<Pod>,
    pub(super) standing: Standing,
}

/// A pod of which something is to be said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Patch {
    pub(super) pod: PodKey,
    pub(super) uid: Arc<str>,
    pub(super) change: Change,
}

/// What the pods of a node are to cost, `None` being that we say nothing.
#[derive(Debug, Clone, Copy)]
struct Wish {
    cost: Option<i32>,
    since: Duration,
}

/// What is remembered from one round to the next, within a term. Times are [`Clock::elapsed`](smartscale_proto::time::Clock).
#[derive(Debug, Default)]
pub(super) struct Ledger {
    wishes: BTreeMap<NodeName, Wish>,
    patched: BTreeMap<PodKey, Duration>,
}

impl Ledger {
    /// What is to be patched now. `order` are the nodes that scale-ins are to empty, the first one first; `leaving` those that
    /// are on their way out. What is taken back comes first, then the pods that are to go first.
    pub(super) fn round(
        &mut self,
        pods: &[Seen],
        order: &[NodeName],
        leaving: &BTreeSet<NodeName>,
        now: Duration,
    ) -> Vec<Patch> {
        self.wish(pods, order, now);
        self.patched
            .retain(|_, patched| now.saturating_sub(*patched) < ONCE_IN);
        let spread = Spread::of(pods, &self.wishes);
        let mut patches: Vec<Patch> = pods
            .iter()
            .filter_map(|seen| {
                let pod = &seen.pod;
                let node = pod.node.as_ref()?;
                let wish = self.wishes.get(node)?;
                let is_settled = now.saturating_sub(wish.since) >= SETTLED;
                let stays = leaving.contains(node) || pod.is_terminating() || pod.is_finished();
                if !is_settled || stays || self.patched.contains_key(&pod.key) {
                    return None;
                }
                let change = seen.standing.change(wish.cost)?;
                let matters = match seen.standing {
                    Standing::Free => spread.has_a_choice(pod),
                    Standing::Ours(_) | Standing::Theirs { .. } => true,
                };
                matters.then(|| Patch {
                    pod: pod.key.clone(),
                    uid: Arc::clone(&pod.uid),
                    change,
                })
            })
            .collect();
        patches.sort_by(|a, b| (a.change, &a.pod).cmp(&(b.change, &b.pod)));
        patches.truncate(MOST_OF_A_ROUND.min(MOST.saturating_sub(self.patched.len())));
        patches
    }

    /// Takes note of a patch that is about to be sent: whether it took effect may never be known.
    pub(super) fn note(&mut self, pod: &PodKey, now: Duration) {
        self.patched.insert(pod.clone(), now);
    }

    /// Notes what is wished of each node now, and since when.
    fn wish(&mut self, pods: &[Seen], order: &[NodeName], now: Duration) {
        let order = order.get(..MOST_NODES).unwrap_or(order);
        let mut present: BTreeMap<&NodeName, Option<i32>> = BTreeMap::new();
        for seen in pods {
            let (Some(node), standing) = (&seen.pod.node, seen.standing) else {
                continue;
            };
            match standing {
                Standing::Ours(cost) => {
                    let lowest = present.entry(node).or_default();
                    *lowest = Some(lowest.map_or(cost, |lowest| lowest.min(cost)));
                }
                Standing::Theirs { is_marked: true } => drop(present.entry(node).or_default()),
                Standing::Free | Standing::Theirs { is_marked: false } => {}
            }
        }
        let costs = order.iter().map(|node| present.get(node).copied().flatten());
        let costs = ladder::costs(&costs.collect::<Vec<_>>());
        let mut wishes: BTreeMap<&NodeName, Option<i32>> = present.keys().map(|node| (*node, None)).collect();
        wishes.extend(order.iter().zip(costs.into_iter().map(Some)));
        let known = std::mem::take(&mut self.wishes);
        self.wishes = wishes
            .into_iter()
            .map(|(node, cost)| {
                let before = known.get(node).filter(|wish| wish.cost == cost);
                let since = before.map_or(now, |wish| wish.since);
                (node.clone(), Wish { cost, since })
            })
            .collect();
    }
}

/// On how many nodes the pods of each ReplicaSet are.
struct Spread<'a>(BTreeMap<(&'a NamespaceName, &'a str), (&'a NodeName, bool)>);

impl<'a> Spread<'a> {
    /// Of those that have pods on a node of which something is wished.
    fn of(pods: &'a [Seen], wishes: &BTreeMap<NodeName, Wish>) -> Self {
        let mut sets = BTreeMap::new();
        if wishes.values().all(|wish| wish.cost.is_none()) {
            return Self(sets);
        }
        for pod in pods.iter().map(|seen| &*seen.pod) {
            let (Some(set), Some(node)) = (set_of(pod), &pod.node) else {
                continue;
            };
            let (first, several) = sets.entry(set).or_insert((node, false));
            *several |= *first != node;
        }
        Self(sets)
    }

    /// Whether its ReplicaSet has pods on other nodes too. Where all of them are on one, a cost changes nothing.
    fn has_a_choice(&self, pod: &Pod) -> bool {
        set_of(pod).is_some_and(|set| self.0.get(&set).is_some_and(|(_, several)| *several))
    }
}

/// The ReplicaSet of a pod.
fn set_of(pod: &Pod) -> Option<(&NamespaceName, &str)> {
    let owner = pod
        .controller
        .as_ref()
        .filter(|owner| &*owner.kind == "ReplicaSet")?;
    Some((&pod.key.namespace, &owner.name))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
