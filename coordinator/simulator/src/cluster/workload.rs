//! What creates pods: the controllers of Deployments (one ReplicaSet each) and of DaemonSets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use smartscale_planner::model::{
    Labels, NamespaceName, NodeName, Owner, Phase, Pod, PodKey, Resources, Toleration, keys,
};

use super::{PodEntry, State, scheduler};
use crate::log::{Log, Source};

/// The pods of a workload.
#[derive(Debug, Clone)]
pub struct Template {
    /// Labels; `app` is set to the workload's name.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// What each asks for; `pods` is 1.
    pub requests: Resources,
    /// Taints that they bear.
    pub tolerations: Vec<Toleration>,
    /// Labels that their node must have.
    pub node_selector: Labels,
    /// Their resolved priority.
    pub priority: i32,
    /// From being bound to Ready.
    pub start: Duration,
    /// What they need to end after SIGTERM.
    pub stop: Duration,
    /// `terminationGracePeriodSeconds`.
    pub grace: Duration,
}

impl Template {
    /// Pods that ask for this much CPU and memory, start in 5 s and end in 8 s of 30.
    #[must_use]
    pub fn new(requests: Resources) -> Self {
        Self {
            labels: Labels::new(),
            annotations: Labels::new(),
            requests: Resources { pods: 1, ..requests },
            tolerations: Vec::new(),
            node_selector: Labels::new(),
            priority: 0,
            start: Duration::from_secs(5),
            stop: Duration::from_secs(8),
            grace: Duration::from_secs(30),
        }
    }

    pub(crate) fn pod(&self, key: PodKey, app: &Arc<str>, owner: Owner, now: Timestamp) -> Pod {
        let mut labels = self.labels.clone();
        labels.insert("app".into(), app.clone());
        Pod {
            key,
            uid: "".into(),
            labels,
            annotations: self.annotations.clone(),
            node: None,
            phase: Phase::Pending,
            ready: false,
            created: Some(now),
            started: None,
            deletion: None,
            controller: Some(owner),
            requests: self.requests.clone(),
            priority: self.priority,
            preempts: true,
            nominated: None,
            scheduler: smartscale_planner::model::DEFAULT_SCHEDULER.into(),
            node_selector: self.node_selector.clone(),
            node_affinity: smartscale_planner::model::NodeAffinity::default(),
            pod_affinity: Vec::new(),
            pod_anti_affinity: Vec::new(),
            preferred_pod_affinity: Vec::new(),
            tolerations: self.tolerations.clone(),
            spread: Vec::new(),
            host_ports: Vec::new(),
            gated: false,
            volumes: Vec::new(),
            resource_claims: false,
        }
    }

    fn entry(&self, pod: Pod) -> PodEntry {
        PodEntry {
            pod,
            grace: self.grace,
            start: self.start,
            stop: self.stop,
            ready_at: None,
            gone_at: None,
        }
    }
}

/// A Deployment and its one ReplicaSet.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Its namespace.
    pub namespace: NamespaceName,
    /// Its name.
    pub name: Arc<str>,
    /// How many pods it wants.
    pub replicas: u32,
    /// What they are like.
    pub template: Template,
    created: u32,
}

impl Deployment {
    /// A Deployment.
    #[must_use]
    pub fn new(namespace: &str, name: &str, replicas: u32, template: Template) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            replicas,
            template,
            created: 0,
        }
    }

    /// The ReplicaSet that owns its pods.
    #[must_use]
    pub fn replica_set(&self) -> Arc<str> {
        format!("{}-rs", self.name).into()
    }
}

pub(super) fn step(state: &mut State, now: Timestamp, log: &Log) {
    deployments(state, now, log);
    daemon_sets(state, now);
}

fn deployments(state: &mut State, now: Timestamp, log: &Log) {
    let keys: Vec<_> = state.deployments.keys().cloned().collect();
    for key in keys {
        let Some(deployment) = state.deployments.get(&key) else {
            continue;
        };
        let replica_set = deployment.replica_set();
        let wanted = deployment.replicas as usize;
        let owned: Vec<PodKey> = state
            .pods
            .values()
            .filter(|entry| {
                let pod = &entry.pod;
                pod.key.namespace == key.0
                    && !pod.is_finished()
                    && !pod.is_terminating()
                    && pod
                        .controller
                        .as_ref()
                        .is_some_and(|owner| owner.name == replica_set)
            })
            .map(|entry| entry.pod.key.clone())
            .collect();
        if owned.len() < wanted {
            create(state, &key, wanted - owned.len(), now);
        } else if owned.len() > wanted {
            for pod in surplus(state, &owned, wanted) {
                state.delete_pod(&pod, None, now);
            }
        }
        if owned_changed(state, &key, wanted) {
            log.write(
                Source::Cluster,
                "scaled",
                &*key.1,
                format!("{} wants {wanted} pods", key.1),
            );
        }
    }
}

/// Notes a new number of replicas once.
fn owned_changed(state: &mut State, key: &super::Key, wanted: usize) -> bool {
    let previous = state.announced.insert(key.clone(), wanted);
    previous != Some(wanted)
}

fn create(state: &mut State, key: &super::Key, count: usize, now: Timestamp) {
    for _ in 0..count {
        let uid = state.uid();
        let Some(deployment) = state.deployments.get_mut(key) else {
            return;
        };
        deployment.created += 1;
        let name = format!("{}-{:02}", deployment.name, deployment.created);
        let owner = Owner {
            kind: "ReplicaSet".into(),
            name: deployment.replica_set(),
        };
        let pod_key = PodKey::new(key.0.clone(), name);
        let pod = deployment
            .template
            .pod(pod_key.clone(), &deployment.name, owner, now);
        let entry = deployment.template.entry(Pod { uid, ..pod });
        state.pods.insert(pod_key, entry);
    }
    state.touch();
}

/// Which pods a ReplicaSet deletes first: unbound, not ready, cheaper to delete, on the node with more of its like, younger
/// (`getPodsRankedByRelatedPodsOnSameNode` and `ActivePodsWithRanks` of kube-controller-manager).
fn surplus(state: &State, owned: &[PodKey], wanted: usize) -> Vec<PodKey> {
    let mut on_node: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for node in owned
        .iter()
        .filter_map(|key| state.pods.get(key)?.pod.node.as_ref())
    {
        *on_node.entry(node).or_default() += 1;
    }
    let mut ranked: Vec<_> = owned
        .iter()
        .filter_map(|key| {
            let pod = &state.pods.get(key)?.pod;
            let cost: i64 = pod
                .annotations
                .get(keys::DELETION_COST)
                .and_then(|cost| cost.parse().ok())
                .unwrap_or(0);
            let related = pod
                .node
                .as_ref()
                .and_then(|node| on_node.get(node))
                .copied()
                .unwrap_or(0);
            let newest_first = std::cmp::Reverse(pod.created);
            let rank = (
                pod.node.is_some(),
                pod.ready,
                cost,
                std::cmp::Reverse(related),
                newest_first,
                key.clone(),
            );
            Some(rank)
        })
        .collect();
    ranked.sort();
    ranked.truncate(owned.len() - wanted);
    ranked.into_iter().map(|rank| rank.5).collect()
}

fn daemon_sets(state: &mut State, now: Timestamp) {
    let sets: Vec<_> = state.daemon_sets.values().cloned().collect();
    for set in sets {
        let nodes: Vec<_> = state.nodes.values().map(|entry| entry.node.clone()).collect();
        for node in nodes {
            let key = PodKey::new(set.namespace.clone(), format!("{}-{}", set.name, node.name));
            if state.pods.contains_key(&key) || !scheduler::daemon_belongs(&set.template, &node) {
                continue;
            }
            // The controller names the node by affinity and the scheduler binds; the outcome is the same.
            let pod = Pod {
                key: key.clone(),
                uid: state.uid(),
                node: Some(node.name.clone()),
                created: Some(now),
                ..set.template.clone()
            };
            let mut entry = PodEntry {
                pod,
                grace: Duration::from_secs(30),
                start: Duration::from_secs(3),
                stop: Duration::from_secs(1),
                ready_at: None,
                gone_at: None,
            };
            entry.ready_at = Some(now + super::signed(entry.start));
            state.pods.insert(key, entry);
            state.touch();
        }
    }
}
