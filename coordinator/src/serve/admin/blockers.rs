//! What keeps nodes from being removed: since when, by which budget, and what would lift it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use smartscale_planner::{
    Blocker, BlockerCode, Plan,
    explain::{self, Questions},
    model::{NodeName, PodKey},
};
use smartscale_proto::{
    time::{age, duration_to_wire, to_wire},
    v1::{self, BlockerView},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::serve::view::Latest;

type Key = (NodeName, BlockerCode, Option<PodKey>);

/// Since when each blocker has been there without a break.
#[derive(Default)]
pub(crate) struct Ages(Mutex<BTreeMap<Key, Timestamp>>);

impl Ages {
    /// Takes note of a plan.
    pub(crate) fn note(&self, plan: &Plan, at: Timestamp) {
        let present: BTreeSet<Key> = plan
            .nodes
            .iter()
            .flat_map(|verdict| verdict.blockers.iter().map(|one| key(&verdict.node, one)))
            .collect();
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.retain(|key, _| present.contains(key));
        for key in present {
            since.entry(key).or_insert(at);
        }
    }

    /// Since when a blocker has been there.
    pub(crate) fn since(&self, node: &NodeName, blocker: &Blocker) -> Option<Timestamp> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key(node, blocker))
            .copied()
    }

    /// A node's blockers for the wire.
    pub(crate) fn of_node(&self, node: &NodeName, blockers: &[Blocker]) -> Vec<v1::Blocker> {
        blockers
            .iter()
            .map(|blocker| v1::Blocker {
                code: blocker.code.to_string(),
                pod: blocker.pod.as_ref().map(ToString::to_string).unwrap_or_default(),
                since: self.since(node, blocker).map(to_wire),
            })
            .collect()
    }

    /// Every blocker of our nodes, oldest first.
    pub(super) fn views(&self, latest: &Latest, causes: &Causes, now: Timestamp) -> Vec<BlockerView> {
        let mut all: Vec<(Option<Timestamp>, BlockerView)> = Vec::new();
        for verdict in &latest.plan.nodes {
            for blocker in verdict
                .blockers
                .iter()
                .filter(|one| one.code != BlockerCode::NotOurs)
            {
                let since = self.since(&verdict.node, blocker);
                let view = BlockerView {
                    node: verdict.node.to_string(),
                    code: blocker.code.to_string(),
                    pod: blocker.pod.as_ref().map(ToString::to_string).unwrap_or_default(),
                    budget: budget(latest, blocker).unwrap_or_default(),
                    age: since.map(|since| duration_to_wire(age(since, now))),
                    remedy: causes.remedy(&verdict.node, blocker),
                };
                all.push((since, view));
            }
        }
        // One that is not followed yet is the youngest.
        all.sort_by_key(|(since, _)| since.unwrap_or(Timestamp::MAX));
        all.into_iter().map(|(_, view)| view).collect()
    }
}

/// Nodes whose blockers the planner is asked about at once, at most; the others' advice is more general.
const ASKED: usize = 50;

/// What exactly is behind blockers that have more than one cause: thresholds or the drain guard, the policy's minimum or a
/// schedule's, a limit on disruptions or what evictions cost.
#[derive(Debug, Default)]
pub(super) struct Causes(BTreeMap<(NodeName, BlockerCode), String>);

impl Causes {
    /// Of our nodes, or of one of them. The planner decides once more for it, beside the runtime.
    pub(super) async fn of(latest: &Arc<Latest>, only: Option<&NodeName>) -> Self {
        let is_open = |blocker: &Blocker| has_causes(blocker.code) && blocker.pod.is_none();
        let verdicts = latest.plan.nodes.iter().filter(|verdict| {
            only.is_none_or(|only| verdict.node == *only) && verdict.blockers.iter().any(is_open)
        });
        let nodes: Vec<NodeName> = verdicts.map(|verdict| verdict.node.clone()).take(ASKED).collect();
        if nodes.is_empty() {
            return Self::default();
        }
        let latest = Arc::clone(latest);
        let asking = tokio::task::spawn_blocking(move || {
            let questions = Questions {
                nodes,
                ..Questions::default()
            };
            explain::explain(&latest.snapshot, &latest.policy, latest.at, &questions)
        });
        let Ok(Ok((_, answers))) = asking.await else {
            return Self::default();
        };
        let causes = answers.nodes.into_iter().flat_map(|answer| {
            let name = answer.node;
            let blockers = answer.blockers.into_iter();
            let of_node = blockers.filter(|one| one.pod.is_none() && !one.detail.is_empty());
            of_node.map(move |one| ((name.clone(), one.code), one.detail))
        });
        Self(causes.collect())
    }

    /// What would lift it.
    pub(super) fn remedy(&self, node: &NodeName, blocker: &Blocker) -> String {
        let cause = || self.0.get(&(node.clone(), blocker.code));
        match cause().filter(|_| has_causes(blocker.code) && blocker.pod.is_none()) {
            Some(cause) => format!("{cause}; {}", advice(blocker.code)),
            None => remedy(blocker.code).to_owned(),
        }
    }
}

fn has_causes(code: BlockerCode) -> bool {
    matches!(
        code,
        BlockerCode::AtMinNodes | BlockerCode::Budget | BlockerCode::Utilised
    )
}

/// What to do about a cause that has been named.
fn advice(code: BlockerCode) -> &'static str {
    match code {
        BlockerCode::AtMinNodes => "lower that, or end a floor with `smartscale scale --to 0`",
        BlockerCode::Utilised => "wait for less load, or change what is named",
        _ => "wait, or change what is named",
    }
}

fn key(node: &NodeName, blocker: &Blocker) -> Key {
    (node.clone(), blocker.code, blocker.pod.clone())
}

/// Takes note of every decision.
pub(crate) async fn follow(
    ages: Arc<Ages>,
    mut latest: watch::Receiver<Option<Arc<Latest>>>,
    ending: CancellationToken,
) {
    loop {
        let current = latest.borrow_and_update().clone();
        if let Some(current) = current {
            ages.note(&current.plan, current.at);
        }
        tokio::select! {
            () = ending.cancelled() => return,
            changed = latest.changed() => if changed.is_err() { return },
        }
    }
}

/// The disruption budgets that cover a blocker's pod, where the blocker is about them.
fn budget(latest: &Latest, blocker: &Blocker) -> Option<String> {
    if !matches!(
        blocker.code,
        BlockerCode::NotEnoughPdb | BlockerCode::MultiplePdbs
    ) {
        return None;
    }
    let cluster = &latest.snapshot.cluster;
    let wanted = blocker.pod.as_ref()?;
    let pod = cluster.pods.iter().find(|pod| pod.key == *wanted)?;
    let covering: Vec<_> = cluster
        .disruption_budgets
        .iter()
        .filter(|budget| budget.covers(pod))
        .map(|budget| format!("{}/{}", budget.namespace, budget.name))
        .collect();
    Some(covering.join(", "))
}

/// What would lift a blocker.
pub(super) fn remedy(code: BlockerCode) -> &'static str {
    match code {
        BlockerCode::NotOurs => "the node belongs to no pool of the policy: it is never removed",
        BlockerCode::ScaleDownDisabled => "remove the annotation that disables scale-down from the node",
        BlockerCode::BeingDeleted => "nothing: the node is on its way out",
        BlockerCode::NotUnneededLongEnough => "wait until it has been unneeded for scale_down.sustained",
        BlockerCode::Utilised => {
            "it is in use, or its load would be too much for the others: wait for less load, or change the thresholds or \
             scale_down.guard_percent"
        }
        BlockerCode::UnknownUsage => "its usage is not known: look after its agent, or after Prometheus",
        BlockerCode::AtMinNodes => {
            "the cluster or its pool is at its minimum: lower min_nodes, wait for the end of a schedule, or end a floor with \
             `smartscale scale --to 0`"
        }
        BlockerCode::Budget => {
            "wait for the disruptions under way, or raise scale_down.budget; where evictions cost something ([cost]), it must \
             save more"
        }
        BlockerCode::TooYoung => "wait until it is older than scale_down.min_age",
        BlockerCode::NotReplicated => {
            "give the pod a controller, or annotate it with cluster-autoscaler.kubernetes.io/safe-to-evict=true"
        }
        BlockerCode::KubeSystemWithoutPdb => {
            "give the pod a disruption budget, or set scale_down.kube_system = \"move\""
        }
        BlockerCode::LocalStorage => {
            "set scale_down.local_storage = \"move\", or annotate the pod with safe-to-evict-local-volumes"
        }
        BlockerCode::NotSafeToEvict => "remove the pod's safe-to-evict annotation",
        BlockerCode::DoNotDisrupt => "remove the pod's karpenter.sh/do-not-disrupt annotation",
        BlockerCode::NotEnoughPdb => {
            "let the budget allow a disruption: more ready replicas, or a lower minAvailable"
        }
        BlockerCode::MultiplePdbs => {
            "let only one disruption budget cover the pod: the API server never evicts it otherwise"
        }
        BlockerCode::NoPlaceToMove => {
            "no other node can take the pod: free some room, or loosen its constraints"
        }
    }
}
