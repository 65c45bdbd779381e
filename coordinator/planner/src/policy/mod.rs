//! The policy: what the people who own the cluster want, validated before anything is decided by it.
//!
//! ```text
//! text ─▶ raw (serde, unknown keys fail) ─▶ validate ─▶ Policy
//!                                              ▲            │ with_offers (what a cloud says)
//!                              catalogue (built-in EC2 types) ▼
//!                                                           Policy
//! ```
//!
//! Every default of FORMATS §1 stands in `raw` as a value, with its unit in its type.

mod catalogue;
mod freeze;
mod offers;
mod price;
mod raw;
mod schedule;
mod spec;
mod validate;
mod window;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

pub use self::{
    freeze::{Freeze, Stop},
    offers::{Nominal, Offers, Undescribed},
    price::{Price, PriceSource, SpotPrice},
    schedule::Schedule,
    spec::TypeSpec,
    window::{Invalid as InvalidWindow, Window},
};
use crate::{
    drainability::Strictness,
    model::{
        Bytes, ClusterId, ControlPlaneLabels, InstanceType, Labels, Market, MilliCpu, Node, Percent,
        PoolName, Resources, Taint, TaintEffect, Zone,
    },
};

/// Everything the decision is made by. Made by [`Policy::from_toml`].
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The cluster it is for.
    pub cluster_id: ClusterId,
    /// Bounds on the number of nodes of all pools.
    pub limits: Limits,
    /// When nodes are added.
    pub scale_up: ScaleUp,
    /// When nodes are removed.
    pub scale_down: ScaleDown,
    /// How nodes are drained.
    pub drain: Drain,
    /// The forecast of demand.
    pub forecast: Forecast,
    /// What a decision costs beside the price of nodes.
    pub cost: Cost,
    /// In what money people are shown what it cost.
    pub currency: Currency,
    /// When something is not done.
    pub freezes: Vec<Freeze>,
    /// When minimums are higher than otherwise.
    pub schedules: Vec<Schedule>,
    /// Where nodes come from, in the order of the file.
    pub pools: Vec<Pool>,
    /// Prices and sizes of every type that a pool may use or the file describes.
    pub types: BTreeMap<InstanceType, Arc<TypeSpec>>,
}

/// Bounds on the number of nodes of pools, launching ones included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Never fewer.
    pub min_nodes: u32,
    /// Never more.
    pub max_nodes: u32,
    /// Most nodes launched within any hour, whatever for; 0 is no bound.
    pub max_launches_per_hour: u32,
    /// What the nodes may cost together, in USD per hour, each at the price of its type (a new one at that of the
    /// cheapest that would do); 0 is no bound.
    pub max_usd_per_hour: f64,
}

/// When nodes are added.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleUp {
    /// Average CPU, strictly above.
    pub cpu_percent: Percent,
    /// Average memory, strictly above.
    pub memory_percent: Percent,
    /// Consecutive readings above.
    pub sustained_readings: u32,
    /// How often the coordinator takes a reading.
    pub reading_interval: Duration,
    /// After any scale-up.
    pub cooldown: Duration,
    /// Bound on the improvement pass.
    pub think: Duration,
    /// Most nodes launched in one decision; 0 is no bound.
    pub max_step: u32,
    /// No node is launched for a pod of a priority below; the least number is no cutoff.
    pub priority_cutoff: i32,
}

/// What must hold for any removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleDownWhen {
    /// The cluster averages are below the thresholds, and the node's own usage too.
    Thresholds,
    /// The pods fit elsewhere and measured usage agrees.
    Fits,
}

/// When nodes are removed.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleDown {
    /// What must hold.
    pub when: ScaleDownWhen,
    /// With thresholds: usage strictly below.
    pub cpu_percent: Percent,
    /// With thresholds: usage strictly below.
    pub memory_percent: Percent,
    /// Mark the pods of the next candidates so that scale-ins of workloads empty those nodes.
    pub steer: bool,
    /// For how long a node must be unneeded and the averages low.
    pub sustained: Duration,
    /// After any action.
    pub cooldown: Duration,
    /// Younger nodes stay.
    pub min_age: Duration,
    /// Which of the optional blockers are asked for.
    pub strictness: Strictness,
    /// Most nodes drained at once.
    pub max_parallel_drains: u32,
    /// Most empty nodes removed at once.
    pub max_parallel_empty: u32,
    /// Most nodes of a pool in disruption at once.
    pub budget: Budget,
    /// What a drain or replacement must save, of the price of the nodes it removes.
    pub min_saving_percent: Percent,
    /// A node is drained only if the CPU requests of the pods that serve elsewhere are so much of the CPU that is used; 0 is
    /// not asked.
    pub guard_percent: Percent,
    /// Only nodes below this by requests are candidates; 100 is not asked.
    pub unneeded_when_requests_below_percent: Percent,
}

/// A number of a pool's nodes: a count or a share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// So many.
    Count(u32),
    /// Such a share.
    Share(Percent),
}

impl Budget {
    /// How many of `nodes` that is: a share is rounded down, but at least 1 unless it is 0 %.
    pub fn of(self, nodes: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Share(Percent(share)) if share <= 0.0 => 0,
            Self::Share(Percent(share)) => {
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a share of 0–100 % of a number of nodes"
                )]
                let units = (nodes as f64 * share / 100.0 + 1e-9).floor() as usize;
                units.max(1)
            }
        }
    }
}

/// What a drain does at its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTimeout {
    /// Uncordon and report.
    Abort,
    /// Delete the pods that are left.
    Force,
}

/// How nodes are drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// The deadline of the whole drain.
    pub timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
}

/// The forecast of demand; it raises the floor, never lowers it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// Whether there is one.
    pub enabled: bool,
    /// Which quantile of demand is provided for, 0–1.
    pub quantile: f64,
    /// How far above the nodes that the last hour needed it may go; one node always may be added.
    pub max_extra_percent: Percent,
}

/// What a decision costs beside the price of nodes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// What the eviction of a pod costs, in USD.
    pub eviction_usd: f64,
    /// A drain or replacement must have saved within so long what its evictions cost.
    pub payback: Duration,
    /// How often EC2 takes a spot node back, for each node and day.
    pub spot_interruptions_per_node_day: f64,
}

impl Cost {
    /// What a node must save to be drained, in USD per hour, if so many pods are evicted for it.
    pub fn per_hour(self, evictions: usize) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        let evictions = evictions as f64;
        evictions * self.eviction_usd * 3600.0 / self.payback.as_secs_f64()
    }
}

/// The money that people think in. Everything is reckoned in USD, as AWS bills it; this is for showing alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Currency {
    /// Three letters, as in ISO 4217.
    pub code: Arc<str>,
    /// So many of it are one USD.
    pub per_usd: f64,
}

impl Default for Currency {
    fn default() -> Self {
        Self {
            code: "USD".into(),
            per_usd: 1.0,
        }
    }
}

/// How the CPU of burstable types is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurstableCpu {
    /// All of it, though it lasts for minutes only.
    Nominal,
    /// What may be used for ever.
    Baseline,
}

/// Where nodes come from.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// Never fewer nodes.
    pub min_nodes: u32,
    /// Never more nodes.
    pub max_nodes: u32,
    /// The types it may use, cheapest on demand first.
    pub types: Vec<Arc<TypeSpec>>,
    /// The zones it may use, sorted.
    pub zones: Vec<Zone>,
    /// The markets it may use, sorted.
    pub markets: Vec<Market>,
    /// The first nodes are bought on demand.
    pub on_demand_base: u32,
    /// Of the nodes above the base, this share is spot.
    pub spot_share: Percent,
    /// Keys of taints that go away by themselves.
    pub startup_taints: Vec<Arc<str>>,
    /// Labels of its nodes.
    pub labels: Labels,
    /// Taints of its nodes.
    pub taints: Vec<Taint>,
    /// Subtracted from capacity.
    pub reserved: Reserved,
    /// Most pods of a node; the type's own may be smaller.
    pub max_pods: u32,
    /// How the CPU of burstable types is counted.
    pub burstable_cpu: BurstableCpu,
    /// Room kept free in the pool.
    pub headroom: Headroom,
    /// What is done about a node for which EC2 recommends to rebalance.
    pub rebalance: OnNotice,
    /// What is done about a node for which EC2 has scheduled maintenance.
    pub maintenance: OnNotice,
    /// A node is replaced from so long before its maintenance begins.
    pub maintenance_lead: Duration,
    /// What is done about a node that is not what a launch would be now.
    pub drift: OnDrift,
    /// What is done about a burstable node that is out of CPU credits.
    pub throttled: OnDrift,
    /// Older nodes are replaced; `None`: they may grow as old as they like.
    pub max_age: Option<Duration>,
}

/// What is done about a node of another template, version or image than the pool launches now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub enum OnDrift {
    /// It is shown and nothing is done.
    Report,
    /// It is replaced, under the limits on disruption.
    Replace,
}

/// What is done about a node that EC2 gave notice of. A spot interruption is not asked: its node goes in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNotice {
    /// The notice is shown and nothing is done.
    Ignore,
    /// The node is drained and replaced, under the limits on disruption.
    Drain,
}

/// What the system keeps of a node for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// CPU.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
}

/// Room kept free in a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Headroom {
    /// CPU, in thousandths of a core.
    pub cpu: Kept,
    /// Memory, in bytes.
    pub memory: Kept,
    /// Slots for pods.
    pub pods: u32,
}

/// How much of a resource is kept free: an amount, or a share of what the pool has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kept {
    /// So much.
    Amount(i64),
    /// Such a share, below 100 %, of what the pool's nodes offer to pods, as far as they are Ready, not cordoned and not
    /// on their way out.
    Share(Percent),
}

impl Default for Kept {
    fn default() -> Self {
        Self::Amount(0)
    }
}

impl Kept {
    /// How much that is where the nodes have so much.
    pub fn of(self, allocatable: i64) -> i64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Share(share) => {
                #[allow(
                    clippy::cast_precision_loss,
                    clippy::cast_possible_truncation,
                    reason = "a share of what nodes have"
                )]
                let kept = (allocatable as f64 * share.fraction() - 1e-6).ceil() as i64;
                kept
            }
        }
    }
}

impl Pool {
    /// Whether its taints keep pods off that tolerate none of them.
    pub fn is_tainted(&self) -> bool {
        self.taints
            .iter()
            .any(|taint| taint.effect != TaintEffect::PreferNoSchedule)
    }

    /// What a node of this type offers to pods in this pool.
    pub fn allocatable(&self, spec: &TypeSpec) -> Resources {
        let cpu = match self.burstable_cpu {
            BurstableCpu::Baseline if spec.is_burstable() =>
            {
                #[allow(clippy::cast_possible_truncation, reason = "a share of a number of cores")]
                MilliCpu((spec.cpu.as_f64() * spec.baseline_percent.fraction()).floor() as i64)
            }
            _ => spec.cpu,
        };
        Resources {
            cpu: cpu.minus(self.reserved.cpu),
            memory: spec.memory.minus(self.reserved.memory),
            ephemeral_storage: spec.ephemeral_storage.unwrap_or(Bytes(i64::MAX)),
            pods: i64::from(self.max_pods.min(spec.max_pods.unwrap_or(u32::MAX))),
            extended: spec.extended.clone(),
        }
    }

    /// What a type costs here in a market, in USD per hour, if it can be bought: the market must be allowed, the type
    /// offered, and spot not dearer than on demand where both are allowed.
    pub fn price(&self, spec: &TypeSpec, zone: &Zone, market: Market) -> Option<f64> {
        self.quote(spec, zone, market).map(|price| price.per_hour)
    }

    /// The same with who said so.
    pub fn quote<'s>(&self, spec: &'s TypeSpec, zone: &Zone, market: Market) -> Option<&'s Price> {
        if !self.markets.contains(&market) || !self.zones.contains(zone) || !spec.is_offered_in(zone) {
            return None;
        }
        let price = spec.price(zone, market)?;
        let too_dear = market == Market::Spot && price.per_hour > spec.on_demand.per_hour;
        (!too_dear).then_some(price)
    }

    /// How many of `nodes` must be on demand: the base, and of the rest what the spot share leaves, rounded in favour of
    /// on demand.
    pub fn on_demand_of(&self, nodes: usize) -> usize {
        if !self.markets.contains(&Market::Spot) {
            return nodes;
        }
        if !self.markets.contains(&Market::OnDemand) {
            return 0;
        }
        let base = (self.on_demand_base as usize).min(nodes);
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of 0–100 % of a number of nodes"
        )]
        let spot = ((nodes - base) as f64 * self.spot_share.fraction() + 1e-9).floor() as usize;
        nodes - spot
    }
}

/// Something that is allowed but surely not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key's path.
    pub path: String,
    /// What is odd.
    pub message: String,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct PolicyError {
    /// The key's path, or `line N` where the text is no TOML.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Policy {
    /// Reads and validates `policy.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key's path.
    pub fn from_toml(text: &str) -> Result<(Self, Vec<Warning>), PolicyError> {
        validate::policy(raw::Policy::from_toml(text)?)
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name.as_str() == name)
    }

    /// The pool that a node belongs to. `None`: it is not ours; it takes pods, is never removed and counts in no limit.
    pub fn pool_of(&self, node: &Node) -> Option<&Pool> {
        self.pool_index_of(node).map(|index| &self.pools[index])
    }

    /// The same by its index in `pools`.
    pub(crate) fn pool_index_of(&self, node: &Node) -> Option<usize> {
        let name = node.label(crate::model::keys::POOL)?;
        let is_named = |pool: &Pool| pool.name.as_str() == name;
        self.pools
            .iter()
            .position(is_named)
            .filter(|_| !node.is_control_plane())
    }

    /// What is known of a type: what the policy says, else the built-in catalogue.
    pub fn spec(&self, instance_type: &str) -> Option<&TypeSpec> {
        let described = self.types.get(instance_type).map(AsRef::as_ref);
        described.or_else(|| catalogue::find(instance_type).map(AsRef::as_ref))
    }

    /// What a node costs per hour, in USD, if its type is known. A node without a market label counts as on demand.
    pub fn price_of(&self, node: &Node) -> Option<f64> {
        self.quote_of(node).map(|price| price.per_hour)
    }

    /// The same with who said so.
    pub fn quote_of(&self, node: &Node) -> Option<&Price> {
        let name = node.label(crate::model::keys::INSTANCE_TYPE)?;
        let spec = self.spec(name)?;
        let spot = match (node.market(), &spec.spot) {
            (Some(Market::Spot), SpotPrice::Everywhere(price)) => Some(price),
            (Some(Market::Spot), spot) => node.zone().and_then(|zone| spot.in_zone(&zone)),
            _ => None,
        };
        Some(spot.unwrap_or(&spec.on_demand))
    }
}
