//! The policy, by the very planner that runs clusters: the world becomes a snapshot, the plan becomes launches and removals.
//!
//! What a coordinator keeps between decisions is kept here: readings, cooldowns, since when nodes are unneeded, offerings that
//! failed, removals that wait for their replacements.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::{
    Action, Launch, Plan, Planner, Policy, Removal, Snapshot,
    model::{
        Cluster, InstanceType, Labels, Market, NodeName, Owner, Phase, Pod, PodKey, Resources, SETTLING,
        Zone, keys,
    },
    snapshot::{Backoff, Launched, Launching, Metrics, Reading, Source},
};

use super::{Decider, calm::Calm, foresight::Foresight};
use crate::{
    series::Forecast,
    tick::{Tick, ticks},
    world::{Node, NodeId, PodId, World},
};

/// An offering that failed is tried again after so long, which doubles with every failure …
const FIRST_BACKOFF: SignedDuration = SignedDuration::from_mins(3);
/// … up to this.
const LONGEST_BACKOFF: SignedDuration = SignedDuration::from_mins(30);
/// Plans in one tick, while launches fail.
const ATTEMPTS: usize = 10;
/// Readings are kept for so much longer than a rule asks about them.
const SPARE: Duration = Duration::from_secs(600);
/// Launches are kept for so long, for the bound on them in an hour.
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// Runs the planner.
pub(crate) struct ByPolicy<'p> {
    policy: &'p Policy,
    planner: Planner,
    snapshot: Snapshot,
    /// The version of the world that the snapshot's objects show.
    shown: Option<u64>,
    pods: Pods,
    nodes: BTreeMap<NodeId, smartscale_planner::model::Node>,
    failures: BTreeMap<(InstanceType, Zone, Market), u32>,
    /// Removals that wait until these nodes are Ready.
    replacements: Vec<(NodeId, Vec<NodeId>)>,
    /// The last plan did nothing, and may still be the same.
    calm: Option<Calm>,
    /// Every plan is made, whether it can be another or not.
    tireless: bool,
    /// What comes, where the policy asks for it.
    foresight: Option<Foresight>,
    /// Ticks between readings.
    interval: u32,
    /// How long readings are kept.
    kept: SignedDuration,
}

impl<'p> ByPolicy<'p> {
    pub(crate) fn new(policy: &'p Policy, requests: Resources) -> Self {
        let sustained = policy.scale_down.sustained;
        let readings = policy.scale_up.reading_interval * (policy.scale_up.sustained_readings + 1);
        let kept = sustained.max(readings).saturating_add(SPARE);
        Self {
            policy,
            planner: Planner::default(),
            snapshot: Snapshot {
                metrics: Metrics {
                    source: Source::Prometheus,
                    ..Metrics::default()
                },
                ..Snapshot::default()
            },
            shown: None,
            foresight: Foresight::new(policy, &requests),
            pods: Pods::new(requests),
            nodes: BTreeMap::new(),
            failures: BTreeMap::new(),
            replacements: Vec::new(),
            calm: None,
            tireless: false,
            interval: ticks(policy.scale_up.reading_interval).max(1),
            kept: SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX),
        }
    }
}

#[cfg(test)]
impl ByPolicy<'_> {
    /// Makes every plan.
    pub(crate) fn tireless(self) -> Self {
        Self {
            tireless: true,
            ..self
        }
    }
}

impl Decider for ByPolicy<'_> {
    fn decide(&mut self, world: &mut World<'_>) -> bool {
        let mut acted = self.replace(world);
        let is_new = self.read(world);
        self.look_ahead(world);
        let reading = self.snapshot.metrics.cluster.last().filter(|_| is_new);
        if let Some(calm) = self.calm.take()
            && !self.tireless
            && calm.lasts(self.policy, world, reading)
        {
            self.calm = Some(calm);
            return acted;
        }
        self.read_nodes(world);
        for _ in 0..ATTEMPTS {
            self.show(world);
            let now = world.time();
            let plan = self.planner.plan(&self.snapshot, self.policy, now);
            self.snapshot.state.unneeded_since = plan.unneeded_since.clone();
            world.mark(plan.steer.iter().filter_map(id_of).collect());
            if plan.action == Action::None {
                self.calm = Calm::after(&plan, self.policy, &self.snapshot, world);
                break;
            }
            let done = self.carry_out(world, &plan);
            if done.acted {
                acted = true;
                self.snapshot.state.last_scale_time = Some(now);
                self.snapshot.state.last_scale_action = Some(plan.action);
            }
            if !done.failed {
                break;
            }
        }
        acted
    }

    fn forecast(&self) -> Option<Forecast> {
        self.foresight.as_ref()?.band()
    }
}

/// What became of a plan.
#[derive(Default)]
struct Done {
    acted: bool,
    /// Something could not be bought.
    failed: bool,
}

impl ByPolicy<'_> {
    /// Removes what was waiting for nodes that are Ready by now.
    fn replace(&mut self, world: &mut World<'_>) -> bool {
        let mut acted = false;
        self.replacements.retain(|(victim, new)| {
            let node = |id: NodeId| world.nodes().iter().find(|node| node.id == id);
            let is_there = |id: &NodeId| node(*id).is_none_or(|node| node.ready);
            if node(*victim).is_none_or(|node| node.removed) {
                return false;
            }
            // One that was interrupted while it booted leaves the victim where it is.
            if new.iter().any(|id| node(*id).is_none_or(|node| node.removed)) {
                return false;
            }
            if !new.iter().all(is_there) {
                return true;
            }
            world.remove(*victim);
            acted = true;
            false
        });
        acted
    }

    /// Raises or lowers the floor.
    fn look_ahead(&mut self, world: &World<'_>) {
        let Some(foresight) = &mut self.foresight else {
            return;
        };
        let expected = foresight.expect(world);
        let state = &mut self.snapshot.state;
        if state.expected != expected {
            state.expected = expected;
            self.calm = None;
        }
    }

    /// Takes the reading of the averages that is due. Whether one was.
    fn read(&mut self, world: &World<'_>) -> bool {
        let now = world.time();
        let metrics = &mut self.snapshot.metrics;
        let is_due = world.now().0.is_multiple_of(self.interval);
        if is_due {
            let usage = world.averages();
            metrics.cluster.push(Reading {
                time: now,
                cpu_percent: Some(usage.cpu_percent),
                memory_percent: Some(usage.memory_percent),
                source: Source::Prometheus,
            });
            let oldest = now - self.kept;
            let old = metrics
                .cluster
                .iter()
                .take_while(|reading| reading.time < oldest)
                .count();
            // Not one by one: the vector would be moved each time.
            if old > metrics.cluster.len() / 2 {
                metrics.cluster.drain(..old);
            }
        }
        is_due
    }

    /// Takes a reading of every node.
    fn read_nodes(&mut self, world: &World<'_>) {
        let now = world.time();
        let readings = &mut self.snapshot.metrics.nodes;
        readings.clear();
        for node in world.nodes().iter().filter(|node| node.is_open()) {
            let usage = world.usage(node);
            readings.insert(
                name(node.id),
                Reading {
                    time: now,
                    cpu_percent: Some(usage.cpu_percent),
                    memory_percent: Some(usage.memory_percent),
                    source: Source::Agent,
                },
            );
        }
    }

    /// Shows the world as it is.
    fn show(&mut self, world: &World<'_>) {
        let now = world.time();
        self.show_state(world, now);
        if self.shown == Some(world.version()) {
            return;
        }
        self.shown = Some(world.version());
        let cluster = &mut self.snapshot.cluster;
        cluster.nodes.clear();
        cluster.pods.clear();
        let leaves = |id: NodeId| self.replacements.iter().any(|(victim, _)| *victim == id);
        for node in world.nodes().iter().filter(|node| node.ready) {
            let shown = self.nodes.entry(node.id).or_insert_with(|| as_node(world, node));
            shown.being_deleted = node.removed || leaves(node.id);
            cluster.nodes.push(shown.clone());
            for pod in &node.pods {
                cluster
                    .pods
                    .push(self.pods.of(world, pod.id, pod.made, Some(&shown.name)));
            }
        }
        for pod in world.pending() {
            cluster.pods.push(self.pods.of(world, pod.id, pod.made, None));
        }
        let present = world.nodes();
        if self.nodes.len() > 2 * present.len() + 64 {
            self.nodes
                .retain(|id, _| present.iter().any(|node| node.id == *id));
        }
        self.pods.forget(cluster);
    }

    fn show_state(&mut self, world: &World<'_>, now: Timestamp) {
        let state = &mut self.snapshot.state;
        state.launching.clear();
        // A node that takes longer to boot is on its way all the same.
        let latest = now - SETTLING + SignedDuration::from_secs(1);
        let scenery = world.scenery();
        for node in world.nodes().iter().filter(|node| !node.ready) {
            let kind = &scenery.kinds[node.kind];
            state.launching.push(Launching {
                pool: self.policy.pools[kind.pool].name.clone(),
                instance_type: kind.spec.name.clone(),
                zone: node.zone.clone(),
                market: node.market,
                since: node.launched.time(scenery.start).max(latest),
            });
        }
        state.backoff.retain(|backoff| backoff.until > now);
        state
            .launched
            .retain(|launched| now.duration_since(launched.time) <= HOUR);
    }

    fn carry_out(&mut self, world: &mut World<'_>, plan: &Plan) -> Done {
        let mut done = Done::default();
        let mut new = Vec::new();
        for launch in &plan.launch {
            match self.launch(world, launch) {
                Some(id) => new.push(id),
                None => done.failed = true,
            }
        }
        let count = u32::try_from(new.len()).unwrap_or(u32::MAX);
        if count > 0 {
            done.acted = true;
            self.snapshot.state.launched.push(Launched {
                time: world.time(),
                nodes: count,
            });
        }
        for removal in &plan.remove {
            done.acted |= self.remove(world, removal, &new, done.failed);
        }
        done
    }

    /// Launches the first type of the list that can be bought.
    fn launch(&mut self, world: &mut World<'_>, launch: &Launch) -> Option<NodeId> {
        for instance_type in &launch.instance_types {
            let kinds = &world.scenery().kinds;
            let is_it = |kind: &crate::kinds::Kind| {
                kind.spec.name == *instance_type && self.policy.pools[kind.pool].name == launch.pool
            };
            let Some(kind) = kinds.iter().position(is_it) else {
                continue;
            };
            let offering = (instance_type.clone(), launch.zone.clone(), launch.market);
            match world.launch(kind, &launch.zone, launch.market) {
                Ok(id) => {
                    self.failures.remove(&offering);
                    return Some(id);
                }
                Err(_) => self.back_off(world.time(), offering),
            }
        }
        None
    }

    fn back_off(&mut self, now: Timestamp, offering: (InstanceType, Zone, Market)) {
        let failures = self.failures.entry(offering.clone()).or_default();
        let delay = (FIRST_BACKOFF * (1 << (*failures).min(4))).min(LONGEST_BACKOFF);
        *failures += 1;
        let (instance_type, zone, market) = offering;
        let backoffs = &mut self.snapshot.state.backoff;
        backoffs.retain(|old| (&old.instance_type, &old.zone, old.market) != (&instance_type, &zone, market));
        backoffs.push(Backoff {
            instance_type,
            zone,
            market,
            until: now + delay,
        });
    }

    /// Removes a node; one that is replaced once its successors are there. Whether that is done or begun.
    fn remove(&mut self, world: &mut World<'_>, removal: &Removal, new: &[NodeId], failed: bool) -> bool {
        let Some(id) = id_of(&removal.node) else {
            return false;
        };
        let goes_to_new = removal
            .moves
            .iter()
            .any(|place| matches!(place.to, smartscale_planner::Destination::Launch(_)));
        if !goes_to_new {
            world.remove(id);
            return true;
        }
        if failed {
            return false;
        }
        self.replacements.push((id, new.to_vec()));
        self.shown = None;
        true
    }
}

fn name(id: NodeId) -> NodeName {
    // Of one width, so that the order of names is that of ages.
    format!("node-{:08}", id.0).as_str().into()
}

fn id_of(name: &NodeName) -> Option<NodeId> {
    name.as_str().strip_prefix("node-")?.parse().ok().map(NodeId)
}

/// The node as its kubelet registers it when it is Ready.
fn as_node(world: &World<'_>, node: &Node) -> smartscale_planner::model::Node {
    let scenery = world.scenery();
    let kind = &scenery.kinds[node.kind];
    let pool = &scenery.policy.pools[kind.pool];
    let name = name(node.id);
    let mut labels = pool.labels.clone();
    for (key, value) in [
        (keys::POOL, pool.name.as_str()),
        (keys::MARKET, node.market.as_str()),
        (keys::ZONE, node.zone.as_str()),
        (keys::REGION, node.zone.region()),
        (keys::OS, "linux"),
        (keys::ARCH, &kind.spec.arch),
        (keys::INSTANCE_TYPE, kind.spec.name.as_str()),
        (keys::HOSTNAME, name.as_str()),
    ] {
        labels.insert(key.into(), value.into());
    }
    smartscale_planner::model::Node {
        name,
        labels: labels.into(),
        annotations: Labels::new(),
        taints: pool.taints.clone(),
        unschedulable: false,
        ready: true,
        created: Some(world.time()),
        being_deleted: false,
        allocatable: kind.allocatable.clone(),
        capacity: kind.allocatable.clone(),
        provider_id: None,
    }
}

/// The pods as the API server shows them, kept from one snapshot to the next: the planner remembers what it knows of them.
struct Pods {
    template: Pod,
    shown: BTreeMap<PodId, Arc<Pod>>,
}

impl Pods {
    fn new(requests: Resources) -> Self {
        Self {
            template: Pod {
                labels: [("app".into(), "workload".into())].into(),
                controller: Some(Owner {
                    kind: "ReplicaSet".into(),
                    name: "workload".into(),
                }),
                ..Pod::pending(PodKey::new("default", "workload"), requests)
            },
            shown: BTreeMap::new(),
        }
    }

    fn of(&mut self, world: &World<'_>, id: PodId, made: Tick, node: Option<&NodeName>) -> Arc<Pod> {
        if let Some(known) = self.shown.get(&id).filter(|pod| pod.node.as_ref() == node) {
            return Arc::clone(known);
        }
        let name = format!("workload-{:010}", id.0);
        let pod = Arc::new(Pod {
            key: PodKey::new("default", name.as_str()),
            uid: name.into(),
            node: node.cloned(),
            phase: if node.is_some() {
                Phase::Running
            } else {
                Phase::Pending
            },
            ready: node.is_some(),
            created: Some(made.time(world.scenery().start)),
            ..self.template.clone()
        });
        self.shown.insert(id, Arc::clone(&pod));
        pod
    }

    /// Forgets pods that are gone, now and then.
    fn forget(&mut self, cluster: &Cluster) {
        if self.shown.len() > 2 * cluster.pods.len() + 64 {
            let present: BTreeSet<*const Pod> = cluster.pods.iter().map(Arc::as_ptr).collect();
            self.shown.retain(|_, pod| present.contains(&Arc::as_ptr(pod)));
        }
    }
}
