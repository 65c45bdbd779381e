//! What the calls end in: one store, one cluster, one cloud, as they are and without a fault.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use rand::{RngExt as _, rngs::SmallRng};
use smartscale_coordinator::{act::fleet::LaunchRequest, observe::Observed, state::records::Record};
use smartscale_manifests::Objects;
use smartscale_planner::{
    Policy,
    model::{Bytes, Labels, MilliCpu, Node, Resources, Taint, TaintEffect, keys},
};
use smartscale_proto::time::SharedClock;
use smartscale_simulator::{
    cloud::{Cloud, Machine, Times},
    cluster::{Bound, Budget, Cluster, Deployment, Template},
    log::Log,
    seed::Seed,
};
use tokio::sync::mpsc;

use crate::{queue::Queue, store::MemoryStore};

/// The most nodes there may be.
pub(crate) const MOST_NODES: u32 = 30;
/// The most machines at the beginning.
pub(crate) const MACHINES: u32 = 20;

/// Short times, so that much happens in a few simulated minutes.
pub(crate) const POLICY: &str = r#"
[cluster]
id = "chaos"

[limits]
min_nodes = 2
max_nodes = 30

[scale_up]
cooldown = "20s"
reading_interval = "15s"

[scale_down]
when = "fits"
sustained = "20s"
cooldown = "20s"
max_parallel_drains = 2

[drain]
timeout = "90s"

[[pool]]
name = "workers"
zones = ["us-east-1a", "us-east-1b"]
instance_types = ["t3.medium", "t3.large"]
markets = ["spot", "on-demand"]
on_demand_base = 2
spot_share_percent = 100
reserved = { cpu = "100m", memory = "256Mi" }

[[instance_type]]
name = "t3.medium"
cpu = "2"
memory = "3788Mi"
on_demand_price = 0.0416
spot_price = 0.0146

[[instance_type]]
name = "t3.large"
cpu = "2"
memory = "7577Mi"
on_demand_price = 0.0832
spot_price = 0.0291
"#;

/// Mistakes that were made once, made again on purpose: each by the world around the program, to see that the invariants
/// notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// The store takes the writes of a leader whose term is over.
    NoFence,
    /// The cloud launches again for the same client token.
    NoTokens,
    /// A new leader does not read what its predecessor had begun.
    BlindTakeover,
    /// A coordinator's clock stands still while its machine is suspended (CLOCK_MONOTONIC in place of CLOCK_BOOTTIME).
    ClockStops,
}

/// What was last seen of the cluster, with the change that it is of.
type Watched = (u64, Observed<Objects>);

/// Store, cluster, cloud and queue. Clones share them.
#[derive(Clone)]
pub(crate) struct Town {
    pub(crate) store: MemoryStore,
    pub(crate) cluster: Cluster,
    pub(crate) cloud: Cloud,
    pub(crate) queue: Arc<Queue>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) bug: Option<Bug>,
    calls: Arc<AtomicU32>,
    watched: Arc<Mutex<Option<Watched>>>,
}

impl Town {
    pub(crate) fn new(
        seed: u64,
        policy: &str,
        clock: &SharedClock,
        bug: Option<Bug>,
    ) -> (Self, mpsc::UnboundedReceiver<Machine>) {
        let (policy, _) = Policy::from_toml(policy).unwrap();
        let policy = Arc::new(policy);
        let log = Log::new(Arc::clone(clock));
        let cluster = Cluster::new(Arc::clone(clock), log.clone(), Seed(seed));
        let times = Times {
            boot: Duration::from_secs(20),
            boot_spread: 0.5,
            shutdown: Duration::from_secs(10),
        };
        let (cloud, machines) = Cloud::new(Arc::clone(clock), log, Seed(seed), times, Arc::clone(&policy));
        let mut store = MemoryStore::new("chaos", Arc::clone(clock));
        if bug == Some(Bug::NoFence) {
            store = store.without_fence();
        }
        let town = Self {
            store,
            cluster,
            cloud,
            queue: Arc::default(),
            policy,
            bug,
            calls: Arc::default(),
            watched: Arc::default(),
        };
        (town, machines)
    }

    /// What the watches of the cluster show: everybody hears of a change within two seconds.
    pub(crate) fn watched(&self, now: Duration, at: Timestamp) -> Observed<Objects> {
        let mut watched = self.watched.lock().unwrap();
        let slot = now.as_secs() / 2;
        if let Some((known, observed)) = &*watched
            && *known == slot
        {
            return observed.clone();
        }
        let observed = Observed {
            value: Some(Arc::new(self.cluster.objects_to_read())),
            at: Some(at),
            error: None,
        };
        *watched = Some((slot, observed.clone()));
        observed
    }

    /// The records of a kind as they are now.
    pub(crate) fn records<R: Record>(&self) -> Vec<R> {
        let items = self.store.peek_all(R::PREFIX);
        items.iter().map(|item| R::from_item(item).unwrap()).collect()
    }

    /// The request as a cloud that knows no tokens takes it: each time another one.
    pub(crate) fn with_fresh_token(&self, request: &LaunchRequest) -> LaunchRequest {
        LaunchRequest {
            attempt: 1_000 + self.calls.fetch_add(1, Ordering::Relaxed),
            ..request.clone()
        }
    }

    /// What runs in the cluster at the beginning: three services, two of them under a budget.
    pub(crate) fn settle(&self, random: &mut SmallRng) {
        for (name, replicas, cpu, memory) in SERVICES {
            let requests = Resources {
                cpu: MilliCpu(cpu),
                memory: Bytes(memory << 20),
                ..Resources::default()
            };
            let mut template = Template::new(requests);
            if name == "late" {
                // Leaves last, and takes its time.
                template.priority = 1_000_000;
                template.stop = Duration::from_secs(25);
            }
            let replicas = random.random_range(replicas * 2 / 3..=replicas);
            self.cluster
                .apply_deployment(Deployment::new("shop", name, replicas, template));
        }
        self.cluster
            .apply_budget(Budget::new("shop", "web", "web", Bound::MaxUnavailable(2)));
        self.cluster
            .apply_budget(Budget::new("shop", "late", "late", Bound::MaxUnavailable(1)));
    }
}

/// Name, most replicas, CPU in thousandths, memory in MiB. All of them fit on a few nodes less than there may be.
pub(crate) const SERVICES: [(&str, u32, i64, i64); 3] = [
    ("web", 44, 500, 300),
    ("api", 14, 800, 700),
    ("late", 8, 400, 500),
];

/// The Node that the kubelet of a machine registers.
pub(crate) fn node(
    policy: &Policy,
    instance: &smartscale_coordinator::act::fleet::Instance,
    verified: bool,
) -> Node {
    let mut labels = Labels::new();
    let pool = instance
        .pool
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    for (key, value) in [
        (keys::HOSTNAME, instance.id.as_str()),
        (keys::POOL, &pool),
        (keys::MARKET, instance.market.as_str()),
        (keys::INSTANCE_TYPE, instance.instance_type.as_ref()),
        (keys::ZONE, instance.zone.as_ref()),
        (keys::ARCH, "amd64"),
        (keys::OS, "linux"),
    ] {
        labels.insert(key.into(), value.into());
    }
    let spec = policy.types.get(&instance.instance_type).unwrap();
    let allocatable = policy.pool(&pool).unwrap().allocatable(spec);
    let unverified = Taint {
        key: keys::UNVERIFIED.into(),
        value: "true".into(),
        effect: TaintEffect::NoSchedule,
    };
    Node {
        name: instance.id.as_str().into(),
        labels: labels.into(),
        annotations: Labels::new(),
        taints: if verified { Vec::new() } else { vec![unverified] },
        unschedulable: false,
        ready: verified,
        created: verified.then_some(instance.launched_at),
        being_deleted: false,
        capacity: allocatable.clone(),
        allocatable,
        provider_id: Some(format!("aws:///{}/{}", instance.zone, instance.id).into()),
    }
}
