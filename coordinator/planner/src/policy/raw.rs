//! The policy as it is written, with every default as a value. What it means is decided in `validate`.
//!
//! `docs/reference/policy.md` is made from this file: its doc comments, types and defaults.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PolicyError;

/// A duration, as text: `90s`, `5m`, `1h30m`.
type Span = String;

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    /// Which cluster it is for.
    pub(super) cluster: Cluster,
    /// How many nodes there may be: those of pools only, launching ones included. The K3s server is never counted nor
    /// touched.
    #[serde(default)]
    pub(super) limits: Limits,
    /// When nodes are added. Pods that cannot be scheduled act at once; what is here is for averages and for how much
    /// is added.
    #[serde(default)]
    pub(super) scale_up: ScaleUp,
    /// When nodes are removed.
    #[serde(default)]
    pub(super) scale_down: ScaleDown,
    /// How nodes are drained.
    #[serde(default)]
    pub(super) drain: Drain,
    /// Room ahead of demand. It raises the floor and never lowers it.
    #[serde(default)]
    pub(super) forecast: Forecast,
    /// What a removal costs beside what it saves.
    #[serde(default)]
    pub(super) cost: Cost,
    /// Times in which something is not done. May be repeated.
    #[serde(default)]
    pub(super) freeze: Vec<Freeze>,
    /// Times in which there are more nodes than otherwise. May be repeated.
    #[serde(default)]
    pub(super) schedule: Vec<Schedule>,
    /// Where nodes come from. At least one.
    #[serde(default)]
    pub(super) pool: Vec<Pool>,
    /// A type that the built-in catalogue lacks, or that is to count otherwise. With AWS, types and prices that are not
    /// written here are asked for.
    #[serde(default)]
    pub(super) instance_type: Vec<InstanceType>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    /// Its id: in identities, in the store and in the tags of instances.
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// Never fewer; what is missing is launched at once.
    pub(super) min_nodes: u32,
    /// Never more.
    pub(super) max_nodes: u32,
    /// Most nodes launched within any hour, whatever for; 0 is no bound.
    pub(super) max_launches_per_hour: u32,
    /// What the nodes may cost together; 0 is no bound.
    pub(super) max_usd_per_hour: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_nodes: 2,
            max_nodes: 10,
            max_launches_per_hour: 0,
            max_usd_per_hour: 0.0,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScaleUp {
    /// Cluster average of CPU, strictly above.
    pub(super) cpu_percent: f64,
    /// Cluster average of memory, strictly above.
    pub(super) memory_percent: f64,
    /// So many consecutive readings have to be above.
    pub(super) sustained_readings: u32,
    /// A reading of the averages is taken so often.
    pub(super) reading_interval: Span,
    /// After any scale-up. Below a minimum, or for pods that no node under way can take, it does not apply.
    pub(super) cooldown: Span,
    /// Bound on the improvement of a plan for many pods, in steps that take about so long, so that the same input gives
    /// the same plan.
    pub(super) think: Span,
    /// Most nodes launched in one decision, also to reach a minimum; 0 is no bound.
    pub(super) max_step: u32,
    /// No node is launched for pods of a lower priority; they use room that is there. Without it: for every pod.
    pub(super) priority_cutoff: Option<i32>,
}

impl Default for ScaleUp {
    fn default() -> Self {
        Self {
            cpu_percent: 70.0,
            memory_percent: 75.0,
            sustained_readings: 2,
            reading_interval: "60s".into(),
            cooldown: "5m".into(),
            think: "200ms".into(),
            max_step: 0,
            priority_cutoff: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct ScaleDown {
    /// What must hold for a removal.
    pub(super) when: When,
    /// With `thresholds`: cluster average of CPU and the node's own, strictly below.
    pub(super) cpu_percent: f64,
    /// With `thresholds`: cluster average of memory and the node's own, strictly below.
    pub(super) memory_percent: f64,
    /// Marks the pods of the next candidates by `controller.kubernetes.io/pod-deletion-cost`, so that scale-ins of
    /// workloads empty them without evictions. It needs `packaging/kubernetes/steer`.
    pub(super) steer: bool,
    /// A node has to be unneeded, and averages low, for so long.
    pub(super) sustained: Span,
    /// After any scale-down, scale-up or replacement.
    pub(super) cooldown: Span,
    /// Younger nodes stay.
    pub(super) min_age: Span,
    /// Pods of `kube-system` without a disruption budget. K3s' own coredns, metrics-server, traefik and local-path have
    /// none.
    pub(super) kube_system: BlockOrMove,
    /// Pods with an `emptyDir` that is not in memory, or a `hostPath`.
    pub(super) local_storage: BlockOrMove,
    /// Most nodes drained at once.
    pub(super) max_parallel_drains: u32,
    /// Most empty nodes removed at once, counted apart from drains.
    pub(super) max_parallel_empty: u32,
    /// Most nodes of a pool in disruption at once: a count, or a percentage of the pool's nodes (rounded down, but at
    /// least 1 unless it is 0). Nodes that are being deleted use it up.
    pub(super) budget: Scalar,
    /// What a drain or replacement must save, of the price of the nodes it removes. Not asked of empty nodes.
    pub(super) min_saving_percent: f64,
    /// A node is drained or replaced to save money only if the Ready pods elsewhere request so much of the CPU that is
    /// used now; 0 is not asked.
    pub(super) guard_percent: f64,
    /// Only nodes whose requests (the higher of CPU and memory, DaemonSet pods included) are below this are candidates;
    /// 100 is not asked.
    pub(super) unneeded_when_requests_below_percent: f64,
}

impl Default for ScaleDown {
    fn default() -> Self {
        Self {
            when: When::Thresholds,
            cpu_percent: 30.0,
            memory_percent: 50.0,
            steer: false,
            sustained: "10m".into(),
            cooldown: "10m".into(),
            min_age: "5m".into(),
            kube_system: BlockOrMove::Block,
            local_storage: BlockOrMove::Block,
            max_parallel_drains: 1,
            max_parallel_empty: 10,
            budget: Scalar("100%".into()),
            min_saving_percent: 10.0,
            guard_percent: 0.0,
            unneeded_when_requests_below_percent: 100.0,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum When {
    /// Cluster averages are below both figures, and so is the node.
    Thresholds,
    /// The node's pods fit elsewhere and measured usage agrees.
    Fits,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum BlockOrMove {
    /// Their node stays.
    Block,
    /// They move like any other pod.
    Move,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Drain {
    /// Time for the whole drain of a node.
    pub(super) timeout: Span,
    /// What happens at its end.
    pub(super) on_timeout: OnTimeout,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: "5m".into(),
            on_timeout: OnTimeout::Abort,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum OnTimeout {
    /// The node takes pods again, and those that would not leave are reported.
    Abort,
    /// The pods that are left are deleted with the grace that is left.
    Force,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Forecast {
    /// Whether there is one.
    pub(super) enabled: bool,
    /// A node more pays while over 1 − quantile of it is expected to be used; above 0, below 1.
    pub(super) quantile: f64,
    /// How far above the nodes that the last hour needed it may go.
    pub(super) max_extra_percent: f64,
}

impl Default for Forecast {
    fn default() -> Self {
        Self {
            enabled: false,
            quantile: 0.9,
            max_extra_percent: 50.0,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Cost {
    /// What the eviction of a pod costs.
    pub(super) eviction_usd: f64,
    /// A drain or replacement must have saved that by then.
    pub(super) payback: Span,
    /// How often EC2 takes a spot node back, a node and day. Spot is not bought where that, at what its evictions cost, is more than
    /// it saves.
    pub(super) spot_interruptions_per_node_day: f64,
    /// What amounts are shown in: three letters of ISO 4217.
    pub(super) currency: String,
    /// So many of it are one USD. Without it: 1, and any other currency is an error.
    pub(super) per_usd: Option<f64>,
}

impl Default for Cost {
    fn default() -> Self {
        Self {
            eviction_usd: 0.0,
            payback: "1h".into(),
            spot_interruptions_per_node_day: 0.0,
            currency: "USD".into(),
            per_usd: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Freeze {
    /// When it begins: minute, hour, day of month, month, day of week.
    pub(super) cron: String,
    /// How long it lasts.
    pub(super) duration: Span,
    /// A name of the IANA database.
    #[serde(default = "utc")]
    pub(super) time_zone: String,
    /// What is not done meanwhile. The default lets pods that wait have their nodes.
    #[serde(default = "disruptions")]
    pub(super) stops: Vec<super::Stop>,
}

fn utc() -> String {
    "UTC".into()
}

/// Pods that wait still get their nodes.
fn disruptions() -> Vec<super::Stop> {
    vec![super::Stop::ScaleDown, super::Stop::Replace]
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    /// In explanations. Without it: the crontab.
    pub(super) name: Option<String>,
    /// When it begins: minute, hour, day of month, month, day of week.
    pub(super) cron: String,
    /// How long it holds.
    pub(super) duration: Span,
    /// A name of the IANA database.
    #[serde(default = "utc")]
    pub(super) time_zone: String,
    /// It holds so much sooner, because nodes boot.
    #[serde(default = "none")]
    pub(super) lead: Span,
    /// Never fewer meanwhile.
    pub(super) min_nodes: u32,
    /// Counts the nodes of that pool. Without it: those of all pools.
    pub(super) pool: Option<String>,
}

fn none() -> String {
    "0s".into()
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// Its name: the value of the label `smartscale.io/pool` of its nodes.
    pub(super) name: String,
    /// Never fewer of its nodes.
    #[serde(default)]
    pub(super) min_nodes: u32,
    /// Never more of its nodes. Without it: `limits.max_nodes`.
    pub(super) max_nodes: Option<u32>,
    /// The types that may be launched. Either this or `requirements`.
    pub(super) instance_types: Option<Vec<String>>,
    /// What a type must have, in place of naming types.
    pub(super) requirements: Option<Requirements>,
    /// The zones that may be used.
    pub(super) zones: Vec<String>,
    /// How instances may be bought. Without it: on demand.
    pub(super) markets: Option<Vec<Market>>,
    /// So many nodes of the pool are on demand before any is spot.
    #[serde(default)]
    pub(super) on_demand_base: u32,
    /// Of the pool's nodes above the base, running and launching ones, rounded in favour of on demand. Without it: 0
    /// where both markets are allowed.
    pub(super) spot_share_percent: Option<f64>,
    /// Keys of taints that go away by themselves: ignored on nodes younger than 5 minutes. Without it: none.
    pub(super) startup_taints: Option<Vec<String>>,
    /// Labels of its nodes, beside those that every node has.
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    /// Taints of its nodes.
    #[serde(default)]
    pub(super) taints: Vec<Taint>,
    /// Subtracted from what a type reports, to get what pods can have.
    #[serde(default)]
    pub(super) reserved: Reserved,
    /// Most pods of a node; the smaller of this and the type's holds.
    #[serde(default = "default_max_pods")]
    pub(super) max_pods: u32,
    /// How the CPU of burstable types is counted.
    #[serde(default)]
    pub(super) burstable_cpu: BurstableCpu,
    /// Room kept free in the pool, as pods of the lowest priority would: `cpu` and `memory` as quantities or
    /// percentages of what its Ready nodes that stay offer to pods, `pods` as a number.
    #[serde(default)]
    pub(super) headroom: Headroom,
    /// Nodes for which EC2 recommends to rebalance.
    #[serde(default = "ignore")]
    pub(super) rebalance: OnNotice,
    /// Nodes for which EC2 has scheduled maintenance.
    #[serde(default = "drain")]
    pub(super) maintenance: OnNotice,
    /// They are replaced from so long before it begins.
    #[serde(default = "default_maintenance_lead")]
    pub(super) maintenance_lead: Span,
    /// Nodes of another template, version or image than launches have now.
    #[serde(default = "report")]
    pub(super) drift: super::OnDrift,
    /// Nodes that are out of CPU credits.
    #[serde(default = "report")]
    pub(super) throttled: super::OnDrift,
    /// Older nodes are replaced; at least 1h. Without it: never.
    pub(super) max_age: Option<Span>,
}

fn report() -> super::OnDrift {
    super::OnDrift::Report
}

fn ignore() -> OnNotice {
    OnNotice::Ignore
}

fn drain() -> OnNotice {
    OnNotice::Drain
}

fn default_maintenance_lead() -> String {
    "24h".into()
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum OnNotice {
    /// The notice is shown and nothing is done.
    Ignore,
    /// They are replaced, the other node first, one at a time.
    Drain,
}

fn default_max_pods() -> u32 {
    110
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Requirements {
    /// Range of CPUs: `2..8`, `4..`, `..16`, `4`. Without it: any.
    pub(super) cpu: Option<Scalar>,
    /// Range of memory: `4Gi..`. Without it: any.
    pub(super) memory: Option<Scalar>,
    /// Architectures: `amd64`, `arm64`. Without it: every one.
    pub(super) arch: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) enum Market {
    /// At a discount, with two minutes' notice before it is taken back.
    #[serde(rename = "spot")]
    Spot,
    /// At the full price, for as long as wanted.
    #[serde(rename = "on-demand")]
    OnDemand,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Taint {
    /// Its key.
    pub(super) key: String,
    /// Its value.
    #[serde(default)]
    pub(super) value: String,
    /// Its effect.
    pub(super) effect: crate::model::TaintEffect,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Reserved {
    /// CPU.
    pub(super) cpu: Scalar,
    /// Memory.
    pub(super) memory: Scalar,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(default, deny_unknown_fields)]
pub(super) struct Headroom {
    /// CPU.
    pub(super) cpu: Scalar,
    /// Memory.
    pub(super) memory: Scalar,
    /// Pods.
    pub(super) pods: u32,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum BurstableCpu {
    /// All of it, though it lasts for minutes only.
    #[default]
    Nominal,
    /// What may be used for ever.
    Baseline,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceType {
    /// Its name.
    pub(super) name: String,
    /// CPUs.
    pub(super) cpu: Scalar,
    /// What such a node reports as capacity.
    pub(super) memory: Scalar,
    /// Most pods. Without it: the pool's bound alone.
    pub(super) max_pods: Option<u32>,
    /// Architecture. Without it: `amd64`.
    pub(super) arch: Option<String>,
    /// Disk for pods. Without it: not checked.
    pub(super) ephemeral_storage: Option<Scalar>,
    /// Extended resources, for example `nvidia.com/gpu`.
    #[serde(default)]
    pub(super) resources: BTreeMap<String, Scalar>,
    /// Price on demand.
    pub(super) on_demand_price: f64,
    /// Price as spot. Without it: not offered as spot.
    pub(super) spot_price: Option<f64>,
    /// Where it is offered. Without it: in every zone of the pool.
    pub(super) zones: Option<Vec<String>>,
}

/// A quantity, count or range: a string, or a number written without quotes.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(test, derive(serde::Serialize))]
pub(super) struct Scalar(pub(super) String);

impl Default for Scalar {
    fn default() -> Self {
        Self("0".into())
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a quantity such as \"500m\", \"2Gi\" or 2")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl Policy {
    /// Reads the text. A key that is not known is an error with its own path.
    pub(super) fn from_toml(text: &str) -> Result<Self, PolicyError> {
        let line_of = |error: &toml::de::Error| {
            let start = error.span().map_or(0, |span| span.start).min(text.len());
            let before = text.as_bytes().get(..start).unwrap_or_default();
            1 + before
                .iter()
                .fold(0_usize, |lines, byte| lines + usize::from(*byte == b'\n'))
        };
        let document = toml::Deserializer::parse(text).map_err(|error| PolicyError {
            path: format!("line {}", line_of(&error)),
            message: error.message().to_owned(),
        })?;
        serde_path_to_error::deserialize(document).map_err(|error| {
            let line = line_of(error.inner());
            let message = error.inner().message().to_owned();
            PolicyError {
                path: path_of(&error.path().to_string(), &message),
                message: format!("{message} (line {line})"),
            }
        })
    }
}

/// The path down to the key itself: serde names an unknown or missing key in its message only.
fn path_of(path: &str, message: &str) -> String {
    let named = ["unknown field `", "missing field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))
        .and_then(|rest| rest.split('`').next());
    let parent = path
        .trim_end_matches(".?")
        .trim_end_matches('?')
        .trim_end_matches('.');
    match named.filter(|key| !key.is_empty()) {
        Some(key) if parent.is_empty() => key.to_owned(),
        Some(key) if parent.ends_with(&format!(".{key}")) || parent == key => parent.to_owned(),
        Some(key) => format!("{parent}.{key}"),
        None if parent.is_empty() => "policy".to_owned(),
        None => parent.to_owned(),
    }
}

#[cfg(test)]
mod reference;
