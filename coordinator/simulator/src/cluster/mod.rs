//! A Kubernetes in memory: enough of the API server, its controllers, the scheduler and the kubelets that everything
//! SmartScale does to a cluster has the effect it would have on a real one.
//!
//! ```text
//!   deployments ─replica controller─▶ pods ─scheduler─▶ bound ─kubelet─▶ running ─▶ terminating ─▶ gone
//!                                      ▲ evict (budgets)                    ▲
//!   coordinator ── api ────────────────┤                 node lifecycle ────┘
//!   agents ─────── node_api ───────────┘
//! ```
//!
//! Requests of coordinators and agents change the state at once, as an API server does. Everything that happens by
//! itself happens in [`Cluster::step`], in a fixed order, so that a step's result depends on the state alone.

pub mod api;
mod budget;
mod kubelet;
mod manifest;
pub mod node_api;
mod scheduler;
mod workload;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use smartscale_manifests::Objects;
use smartscale_planner::model::{self, DaemonSet, Deletion, NamespaceName, Node, NodeName, Pod, PodKey};
use smartscale_proto::time::SharedClock;
use tokio::sync::watch;

pub use budget::{Bound, Budget, EvictionRefused};
pub use workload::{Deployment, Template};

use crate::{
    log::{Log, Source},
    seed::Seed,
};

/// A namespaced name.
type Key = (NamespaceName, Arc<str>);

/// A node with what only its kubelet and the node lifecycle controller know.
#[derive(Debug, Clone)]
pub(crate) struct NodeEntry {
    pub(crate) node: Node,
    /// Whether the kubelet runs.
    pub(crate) kubelet: bool,
    /// When it last said that it does.
    pub(crate) heartbeat: Timestamp,
    /// From then on it says that it is Ready.
    pub(crate) ready_from: Timestamp,
}

impl NodeEntry {
    /// What tells it from a later node of the same name.
    pub(crate) fn uid(&self) -> String {
        let created = self.node.created.unwrap_or_default();
        format!("{}-{}", self.node.name, created.as_millisecond())
    }
}

/// A pod with what only its kubelet knows.
#[derive(Debug, Clone)]
pub(crate) struct PodEntry {
    pub(crate) pod: Pod,
    /// `terminationGracePeriodSeconds`.
    pub(crate) grace: Duration,
    /// Time from being bound to Ready.
    pub(crate) start: Duration,
    /// What it needs to end after SIGTERM; at the end of its grace it is killed.
    pub(crate) stop: Duration,
    /// When it becomes Ready.
    pub(crate) ready_at: Option<Timestamp>,
    /// When its processes will have ended.
    pub(crate) gone_at: Option<Timestamp>,
}

pub(crate) struct State {
    pub(crate) seed: Seed,
    pub(crate) nodes: BTreeMap<NodeName, NodeEntry>,
    pub(crate) pods: BTreeMap<PodKey, PodEntry>,
    pub(crate) deployments: BTreeMap<Key, Deployment>,
    pub(crate) daemon_sets: BTreeMap<Key, DaemonSet>,
    pub(crate) budgets: BTreeMap<Key, Budget>,
    /// Numbers of replicas that the log has told of.
    pub(crate) announced: BTreeMap<Key, usize>,
    /// When nodes were deleted that still have pods.
    pub(crate) deleted_nodes: BTreeMap<NodeName, Timestamp>,
    serial: u64,
    changed: bool,
    version: u64,
    rendered: Option<(u64, Arc<Objects>)>,
}

impl State {
    /// A UID that nothing else has.
    pub(crate) fn uid(&mut self) -> Arc<str> {
        self.serial += 1;
        let number = self.seed.number(&format!("uid/{}", self.serial));
        format!("{:08x}-0000-4000-8000-{:012x}", number >> 32, self.serial).into()
    }

    /// Notes that an object has changed that bears on a decision.
    pub(crate) fn touch(&mut self) {
        self.changed = true;
    }

    /// Sets a deletion timestamp, as the API server does for a delete with this grace; a pod that no node has goes at
    /// once. A second deletion may only shorten the grace.
    pub(crate) fn delete_pod(&mut self, key: &PodKey, grace: Option<Duration>, now: Timestamp) {
        self.touch();
        let Some(entry) = self.pods.get_mut(key) else {
            return;
        };
        let grace = grace.unwrap_or(entry.grace);
        let unbound = entry.pod.node.is_none();
        let finished = entry.pod.is_finished();
        if unbound || finished {
            self.pods.remove(key);
            return;
        }
        let ends = now + signed(grace);
        let at = entry
            .pod
            .deletion
            .as_ref()
            .map_or(ends, |earlier| earlier.at.min(ends));
        let stopped = now + signed(entry.stop.min(grace));
        let since = entry
            .pod
            .deletion
            .as_ref()
            .map_or(Some(now), |earlier| earlier.since);
        entry.pod.deletion = Some(Deletion { at, since });
        entry.gone_at = Some(entry.gone_at.map_or(stopped, |earlier| earlier.min(at)));
    }
}

/// A duration for arithmetic with times.
pub(crate) fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// The cluster. Clones share it.
#[derive(Clone)]
pub struct Cluster {
    clock: SharedClock,
    log: Log,
    state: Arc<Mutex<State>>,
    version: Arc<watch::Sender<u64>>,
}

impl Cluster {
    /// An empty cluster.
    #[must_use]
    pub fn new(clock: SharedClock, log: Log, seed: Seed) -> Self {
        let state = State {
            seed,
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            deployments: BTreeMap::new(),
            daemon_sets: BTreeMap::new(),
            budgets: BTreeMap::new(),
            announced: BTreeMap::new(),
            deleted_nodes: BTreeMap::new(),
            serial: 0,
            changed: false,
            version: 0,
            rendered: None,
        };
        Self {
            clock,
            log,
            state: Arc::new(Mutex::new(state)),
            version: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Runs the controllers, the scheduler and the kubelets every `period` until the future is dropped.
    pub async fn run(&self, period: Duration) {
        loop {
            self.step();
            self.clock.sleep(period).await;
        }
    }

    /// Lets everything happen that happens by itself.
    pub fn step(&self) {
        self.change(|state, now, log| {
            kubelet::step(state, now, log);
            workload::step(state, now, log);
            scheduler::step(state, now, log);
            budget::step(state, now);
        });
    }

    /// Creates or replaces a Deployment; its pods follow with the next step.
    pub fn apply_deployment(&self, deployment: Deployment) {
        self.change(|state, _, _| {
            state.deployments.insert(
                (deployment.namespace.clone(), deployment.name.clone()),
                deployment,
            );
            state.touch();
        });
    }

    /// Sets the replicas of Deployments, all at once; unknown names are passed over.
    pub fn scale(&self, wanted: &[(&str, u32)]) {
        self.change(|state, _, _| {
            for (name, replicas) in wanted {
                for deployment in state.deployments.values_mut().filter(|d| &*d.name == *name) {
                    deployment.replicas = *replicas;
                }
            }
            state.touch();
        });
    }

    /// Creates or replaces a DaemonSet; its pods follow with the next step.
    pub fn apply_daemon_set(&self, set: DaemonSet) {
        self.change(|state, _, _| {
            state
                .daemon_sets
                .insert((set.namespace.clone(), set.name.clone()), set);
            state.touch();
        });
    }

    /// Creates or replaces a disruption budget; its status follows with the next step.
    pub fn apply_budget(&self, budget: Budget) {
        self.change(|state, _, _| {
            state
                .budgets
                .insert((budget.namespace.clone(), budget.name.clone()), budget);
            state.touch();
        });
    }

    /// Registers a node whose kubelet runs, or the kubelet of a node that is registered already. It says that it is Ready
    /// `after` from now. A node without a time of creation is created now.
    pub fn register(&self, node: Node, after: Duration) {
        self.change(|state, now, log| {
            let ready_from = now + signed(after);
            if let Some(entry) = state.nodes.get_mut(&node.name) {
                (entry.kubelet, entry.heartbeat) = (true, now);
            } else {
                log.write(
                    Source::Cluster,
                    "node_registered",
                    node.name.as_str(),
                    "node registered",
                );
                let node = Node {
                    ready: false,
                    created: node.created.or(Some(now)),
                    ..node
                };
                let entry = NodeEntry {
                    node,
                    kubelet: true,
                    heartbeat: now,
                    ready_from,
                };
                state.nodes.insert(entry.node.name.clone(), entry);
            }
            state.touch();
        });
    }

    /// Puts a node there whose kubelet runs and that is as the node says: Ready, of its age.
    pub fn found(&self, node: Node) {
        self.change(|state, now, _| {
            let entry = NodeEntry {
                kubelet: true,
                heartbeat: now,
                ready_from: now,
                node,
            };
            state.nodes.insert(entry.node.name.clone(), entry);
            state.touch();
        });
    }

    /// The kubelet of a node ends, by order or because its machine ends. Its pods go on as far as anybody can tell.
    pub fn stop_kubelet(&self, node: &str) {
        self.change(|state, _, _| {
            if let Some(entry) = state.nodes.get_mut(node) {
                entry.kubelet = false;
            }
        });
    }

    /// Whether the kubelet of a node runs.
    #[must_use]
    pub fn kubelet_runs(&self, node: &str) -> bool {
        self.state().nodes.get(node).is_some_and(|entry| entry.kubelet)
    }

    /// The pods whose containers run on a node, those that are ending included.
    #[must_use]
    pub fn running_on(&self, node: &NodeName) -> Vec<Pod> {
        self.state()
            .pods
            .values()
            .map(|entry| &entry.pod)
            .filter(|pod| pod.node.as_ref() == Some(node) && pod.phase == model::Phase::Running)
            .cloned()
            .collect()
    }

    /// The objects, in the planner's terms.
    #[must_use]
    pub fn model(&self) -> model::Cluster {
        let state = self.state();
        let mut cluster = model::Cluster {
            nodes: state.nodes.values().map(|entry| entry.node.clone()).collect(),
            pods: state
                .pods
                .values()
                .map(|entry| entry.pod.clone().into())
                .collect(),
            daemon_sets: state.daemon_sets.values().cloned().collect(),
            disruption_budgets: state.budgets.values().map(Budget::to_model).collect(),
            ..model::Cluster::default()
        };
        cluster.sort();
        cluster
    }

    /// A receiver that changes with every change of an object that bears on a decision.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Pods of Deployments that no node has taken.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.state()
            .pods
            .values()
            .filter(|entry| entry.pod.wants_place())
            .count()
    }

    /// How many pods each Deployment wants, by name.
    #[must_use]
    pub fn replicas(&self) -> BTreeMap<Arc<str>, usize> {
        self.state()
            .deployments
            .values()
            .map(|d| (Arc::clone(&d.name), d.replicas as usize))
            .collect()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state; whoever watches is told if something that bears on a decision has changed.
    pub(crate) fn change<T>(&self, act: impl FnOnce(&mut State, Timestamp, &Log) -> T) -> T {
        let mut state = self.state();
        let result = act(&mut state, self.clock.now(), &self.log);
        if std::mem::take(&mut state.changed) {
            state.version += 1;
            let version = state.version;
            drop(state);
            self.version.send_replace(version);
        }
        result
    }
}

#[cfg(test)]
mod tests;

/// An eviction as the API server carries it out, whoever asks.
#[cfg(test)]
fn evicted(cluster: &Cluster, key: &PodKey, uid: Option<&str>) -> Result<(), EvictionRefused> {
    cluster.change(|state, now, _| budget::evict(state, key, uid, now))
}
