//! Builders for everybody's tests: `node("a").cpu("2").pool("workers").build()`.
//!
//! They panic on a quantity or time that does not parse, because a test that writes nonsense should stop there.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "only tests build with it"
)]

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    model::{
        Bytes, Cluster, DaemonSet, Deletion, DisruptionBudget, HostPort, LabelSelector, Labels, Market,
        MilliCpu, Node, NodeOperator, NodeRequirement, NodeTerm, Owner, Phase, Pod, PodAffinityTerm,
        PodVolume, Protocol, Resources, SpreadConstraint, Taint, TaintEffect, Toleration, TolerationOperator,
        UnsatisfiableAction, VolumeSource, Weighted, keys,
    },
    policy::Policy,
    quantity,
    snapshot::{Metrics, Reading, Snapshot, Source, State},
};

/// The moment at which tests decide.
pub const NOW: &str = "2026-01-02T03:04:05Z";

/// [`NOW`] as a timestamp.
pub fn now() -> Timestamp {
    time(NOW)
}

/// A time.
pub fn time(text: &str) -> Timestamp {
    text.parse().expect("a time of a test")
}

/// A node: Ready, an hour old at [`now`], 2 cores, 4 GiB, 110 pods, on demand `t3.medium` in `us-east-1a` of pool
/// `workers`.
pub fn node(name: &str) -> NodeFixture {
    let mut labels = Labels::new();
    for (key, value) in [
        (keys::HOSTNAME, name),
        (keys::POOL, "workers"),
        (keys::MARKET, "on-demand"),
        (keys::INSTANCE_TYPE, "t3.medium"),
        (keys::ZONE, "us-east-1a"),
        (keys::REGION, "us-east-1"),
        (keys::ARCH, "amd64"),
        (keys::OS, "linux"),
    ] {
        labels.insert(key.into(), value.into());
    }
    let room = Resources {
        cpu: MilliCpu(2000),
        memory: Bytes(4 << 30),
        ephemeral_storage: Bytes(20 << 30),
        pods: 110,
        ..Resources::default()
    };
    NodeFixture(Node {
        name: name.into(),
        labels: labels.into(),
        annotations: Labels::new(),
        taints: Vec::new(),
        unschedulable: false,
        ready: true,
        created: Some(now() - jiff::SignedDuration::from_hours(1)),
        being_deleted: false,
        allocatable: room.clone(),
        capacity: room,
        provider_id: None,
    })
}

/// Builds a [`Node`].
#[derive(Clone, Debug)]
pub struct NodeFixture(pub Node);

impl NodeFixture {
    fn with(mut self, change: impl FnOnce(&mut Node)) -> Self {
        change(&mut self.0);
        self
    }
    /// CPU, allocatable and capacity.
    pub fn cpu(self, cpu: &str) -> Self {
        let cpu = MilliCpu(quantity::parse_milli(cpu).expect("a quantity"));
        self.with(|n| (n.allocatable.cpu, n.capacity.cpu) = (cpu, cpu))
    }
    /// Memory, allocatable and capacity.
    pub fn memory(self, memory: &str) -> Self {
        let memory = Bytes(quantity::parse_units(memory).expect("a quantity"));
        self.with(|n| (n.allocatable.memory, n.capacity.memory) = (memory, memory))
    }
    /// Slots for pods.
    pub fn max_pods(self, pods: i64) -> Self {
        self.with(|n| (n.allocatable.pods, n.capacity.pods) = (pods, pods))
    }
    /// An extended resource.
    pub fn extended(self, name: &str, amount: i64) -> Self {
        self.with(|n| {
            n.allocatable.extended.insert(name.into(), amount);
        })
    }
    /// A label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.with(|n| {
            Arc::make_mut(&mut n.labels).insert(key.into(), value.into());
        })
    }
    /// Without a label.
    pub fn without_label(self, key: &str) -> Self {
        self.with(|n| {
            Arc::make_mut(&mut n.labels).remove(key);
        })
    }
    /// Its pool.
    pub fn pool(self, pool: &str) -> Self {
        self.label(keys::POOL, pool)
    }
    /// Its zone.
    pub fn zone(self, zone: &str) -> Self {
        self.label(keys::ZONE, zone)
    }
    /// Its market.
    pub fn market(self, market: Market) -> Self {
        self.label(keys::MARKET, market.as_str())
    }
    /// Its type (the label only).
    pub fn instance_type(self, name: &str) -> Self {
        self.label(keys::INSTANCE_TYPE, name)
    }
    /// An annotation.
    pub fn annotation(self, key: &str, value: &str) -> Self {
        self.with(|n| {
            n.annotations.insert(key.into(), value.into());
        })
    }
    /// A taint without value.
    pub fn taint(self, key: &str, effect: TaintEffect) -> Self {
        self.with(|n| {
            n.taints.push(Taint {
                key: key.into(),
                value: "".into(),
                effect,
            });
        })
    }
    /// Cordoned.
    pub fn cordoned(self) -> Self {
        self.with(|n| n.unschedulable = true)
    }
    /// Not Ready.
    pub fn not_ready(self) -> Self {
        self.with(|n| n.ready = false)
    }
    /// When it was created.
    pub fn created(self, at: &str) -> Self {
        self.with(|n| n.created = Some(time(at)))
    }
    /// On its way out.
    pub fn being_deleted(self) -> Self {
        self.with(|n| n.being_deleted = true)
    }
    /// The node.
    pub fn build(self) -> Node {
        self.0
    }
}

impl From<NodeFixture> for Node {
    fn from(fixture: NodeFixture) -> Self {
        fixture.0
    }
}

/// A pod (`namespace/name`, or a name in `default`): pending, 100m and 128Mi, owned by a ReplicaSet named after it.
pub fn pod(key: &str) -> PodFixture {
    let (namespace, name) = key.split_once('/').unwrap_or(("default", key));
    let owner = name.rsplit_once('-').map_or(name, |(owner, _)| owner);
    let requests = Resources {
        cpu: MilliCpu(100),
        memory: Bytes(128 << 20),
        pods: 1,
        ..Resources::default()
    };
    PodFixture(Pod {
        uid: format!("uid-{namespace}-{name}").into(),
        labels: [("app".into(), owner.into())].into(),
        created: Some(now() - jiff::SignedDuration::from_mins(1)),
        controller: Some(Owner {
            kind: "ReplicaSet".into(),
            name: owner.into(),
        }),
        ..Pod::pending(crate::model::PodKey::new(namespace, name), requests)
    })
}

/// Builds a [`Pod`].
#[derive(Clone, Debug)]
pub struct PodFixture(pub Pod);

impl PodFixture {
    fn with(mut self, change: impl FnOnce(&mut Pod)) -> Self {
        change(&mut self.0);
        self
    }
    /// Requested CPU.
    pub fn cpu(self, cpu: &str) -> Self {
        self.with(|p| p.requests.cpu = MilliCpu(quantity::parse_milli(cpu).expect("a quantity")))
    }
    /// Requested memory.
    pub fn memory(self, memory: &str) -> Self {
        self.with(|p| p.requests.memory = Bytes(quantity::parse_units(memory).expect("a quantity")))
    }
    /// A requested extended resource.
    pub fn extended(self, name: &str, amount: i64) -> Self {
        self.with(|p| {
            p.requests.extended.insert(name.into(), amount);
        })
    }
    /// Bound, running and ready on this node.
    pub fn on(self, node: &str) -> Self {
        self.with(|p| {
            p.node = Some(node.into());
            p.phase = Phase::Running;
            p.ready = true;
            p.started = p.created;
        })
    }
    /// Its phase.
    pub fn phase(self, phase: Phase) -> Self {
        self.with(|p| p.phase = phase)
    }
    /// Told to go; its grace ends (or ended) at this time.
    pub fn terminating(self, at: &str) -> Self {
        self.with(|p| {
            p.deletion = Some(Deletion {
                at: time(at),
                since: None,
            });
        })
    }
    /// Told to go, at this time.
    pub fn told_to_go(self, since: &str) -> Self {
        self.with(|p| {
            p.deletion = Some(Deletion {
                at: time(since) + jiff::SignedDuration::from_secs(30),
                since: Some(time(since)),
            });
        })
    }
    /// Owned by this controller.
    pub fn owned_by(self, kind: &str, name: &str) -> Self {
        self.with(|p| {
            p.controller = Some(Owner {
                kind: kind.into(),
                name: name.into(),
            });
        })
    }
    /// Owned by nobody.
    pub fn bare(self) -> Self {
        self.with(|p| p.controller = None)
    }
    /// A label.
    pub fn label(self, key: &str, value: &str) -> Self {
        self.with(|p| {
            p.labels.insert(key.into(), value.into());
        })
    }
    /// An annotation.
    pub fn annotation(self, key: &str, value: &str) -> Self {
        self.with(|p| {
            p.annotations.insert(key.into(), value.into());
        })
    }
    /// A label its node must have.
    pub fn node_selector(self, key: &str, value: &str) -> Self {
        self.with(|p| {
            p.node_selector.insert(key.into(), value.into());
        })
    }
    /// Bears every taint of this key.
    pub fn tolerates(self, key: &str) -> Self {
        self.with(|p| {
            p.tolerations.push(Toleration {
                key: Some(key.into()),
                operator: TolerationOperator::Exists,
                value: "".into(),
                effect: None,
            });
        })
    }
    /// Takes a TCP port of the host.
    pub fn host_port(self, port: u16) -> Self {
        self.with(|p| {
            p.host_ports.push(HostPort {
                protocol: Protocol::Tcp,
                ip: None,
                port,
            });
        })
    }
    /// A volume.
    pub fn volume(self, name: &str, source: VolumeSource) -> Self {
        self.with(|p| {
            p.volumes.push(PodVolume {
                name: name.into(),
                source,
            });
        })
    }
    /// Waits for scheduling gates.
    pub fn gated(self) -> Self {
        self.with(|p| p.gated = true)
    }
    /// Its priority.
    pub fn priority(self, priority: i32) -> Self {
        self.with(|p| p.priority = priority)
    }
    /// Preempts nobody.
    pub fn never_preempts(self) -> Self {
        self.with(|p| p.preempts = false)
    }
    /// The scheduler makes room for it on this node.
    pub fn nominated(self, node: &str) -> Self {
        self.with(|p| p.nominated = Some(node.into()))
    }
    /// Not two of the pods labelled `app = …` in one domain.
    pub fn apart_from(self, app: &str, topology_key: &str) -> Self {
        self.with(|p| {
            let term = affinity_term(p, app, topology_key);
            p.pod_anti_affinity.push(term);
        })
    }
    /// In a domain with a pod labelled `app = …`.
    pub fn near(self, app: &str, topology_key: &str) -> Self {
        self.with(|p| {
            let term = affinity_term(p, app, topology_key);
            p.pod_affinity.push(term);
        })
    }
    /// Spread with the pods of its `app` label.
    pub fn spread(self, topology_key: &str, max_skew: i32) -> Self {
        self.with(|p| {
            let app = p.labels.get("app").cloned().unwrap_or_default();
            p.spread.push(SpreadConstraint {
                max_skew,
                topology_key: topology_key.into(),
                when_unsatisfiable: UnsatisfiableAction::DoNotSchedule,
                selector: Some(LabelSelector::of("app", &app)),
                min_domains: None,
                honor_node_affinity: true,
                honor_taints: false,
            });
        })
    }
    /// Likes nodes with this label.
    pub fn likes_nodes(self, key: &str, value: &str, weight: i32) -> Self {
        self.with(|p| {
            let requirement = NodeRequirement {
                key: key.into(),
                operator: NodeOperator::In,
                values: vec![value.into()],
            };
            p.node_affinity.preferred.push(Weighted {
                weight,
                item: NodeTerm {
                    expressions: vec![requirement],
                    fields: Vec::new(),
                },
            });
        })
    }
    /// Likes domains with pods labelled `app = …`, or such without where the weight is negative.
    pub fn likes_pods(self, app: &str, topology_key: &str, weight: i32) -> Self {
        self.with(|p| {
            let item = affinity_term(p, app, topology_key);
            p.preferred_pod_affinity.push(Weighted { weight, item });
        })
    }
    /// Spread with the pods of its `app` label, if possible.
    pub fn spread_if_possible(self, topology_key: &str, max_skew: i32) -> Self {
        let mut pod = self.spread(topology_key, max_skew);
        if let Some(constraint) = pod.0.spread.last_mut() {
            constraint.when_unsatisfiable = UnsatisfiableAction::ScheduleAnyway;
        }
        pod
    }
    /// The pod.
    pub fn build(self) -> Pod {
        self.0
    }
}

impl From<PodFixture> for Pod {
    fn from(fixture: PodFixture) -> Self {
        fixture.0
    }
}

fn affinity_term(pod: &Pod, app: &str, topology_key: &str) -> PodAffinityTerm {
    PodAffinityTerm {
        selector: Some(LabelSelector::of("app", app)),
        namespaces: vec![pod.key.namespace.clone()],
        namespace_selector: None,
        topology_key: topology_key.into(),
    }
}

/// A disruption budget over `app = …` of `default`.
pub fn budget(app: &str, disruptions_allowed: i32) -> DisruptionBudget {
    DisruptionBudget {
        namespace: "default".into(),
        name: Arc::from(app),
        selector: Some(LabelSelector::of("app", app)),
        disruptions_allowed,
        always_evict_unhealthy: false,
    }
}

/// A DaemonSet whose template is this pod.
pub fn daemon_set(name: &str, template: impl Into<Pod>) -> DaemonSet {
    let mut template: Pod = template.into();
    template.controller = Some(Owner {
        kind: "DaemonSet".into(),
        name: name.into(),
    });
    DaemonSet {
        namespace: template.key.namespace.clone(),
        name: name.into(),
        template,
    }
}

/// A snapshot of these nodes and pods, with nothing measured and nothing past.
pub fn snapshot<N: Into<Node>, P: Into<Pod>>(
    nodes: impl IntoIterator<Item = N>,
    pods: impl IntoIterator<Item = P>,
) -> Snapshot {
    Snapshot {
        cluster: Cluster {
            nodes: nodes.into_iter().map(Into::into).collect(),
            pods: pods.into_iter().map(|pod| Arc::new(pod.into())).collect(),
            ..Cluster::default()
        },
        metrics: Metrics::default(),
        state: State::default(),
    }
}

/// A reading at a time, from a file.
pub fn reading(at: &str, cpu: f64, memory: f64) -> Reading {
    Reading {
        time: time(at),
        cpu_percent: Some(cpu),
        memory_percent: Some(memory),
        source: Source::File,
    }
}

/// A policy with one pool `workers` of `t3.small` and `t3.medium` (described, spot offered) in `us-east-1a` and `-b`,
/// `limits` 0–10, followed by `extra` (more tables).
pub fn policy(extra: &str) -> Policy {
    let text = format!(
        r#"
[cluster]
id = "test"
[limits]
min_nodes = 0
max_nodes = 10
[[pool]]
name = "workers"
instance_types = ["t3.small", "t3.medium"]
zones = ["us-east-1a", "us-east-1b"]
[[instance_type]]
name = "t3.small"
cpu = "2"
memory = "2Gi"
on_demand_price = 0.0208
spot_price = 0.0062
[[instance_type]]
name = "t3.medium"
cpu = "2"
memory = "4Gi"
on_demand_price = 0.0416
spot_price = 0.0125
{extra}"#
    );
    policy_of(&text)
}

/// The policy of this text.
pub fn policy_of(text: &str) -> Policy {
    match Policy::from_toml(text) {
        Ok((policy, _)) => policy,
        Err(error) => panic!("the policy of a test is wrong: {error}"),
    }
}
