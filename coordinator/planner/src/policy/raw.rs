//! The policy as it is written, with every default as a value. What it means is decided in `validate`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::PolicyError;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) cluster: Cluster,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) scale_up: ScaleUp,
    #[serde(default)]
    pub(super) scale_down: ScaleDown,
    #[serde(default)]
    pub(super) drain: Drain,
    #[serde(default)]
    pub(super) forecast: Forecast,
    #[serde(default)]
    pub(super) cost: Cost,
    #[serde(default)]
    pub(super) freeze: Vec<Freeze>,
    #[serde(default)]
    pub(super) schedule: Vec<Schedule>,
    #[serde(default)]
    pub(super) pool: Vec<Pool>,
    #[serde(default)]
    pub(super) instance_type: Vec<InstanceType>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cluster {
    pub(super) id: String,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) min_nodes: u32,
    pub(super) max_nodes: u32,
    pub(super) max_launches_per_hour: u32,
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
#[serde(default, deny_unknown_fields)]
pub(super) struct ScaleUp {
    pub(super) cpu_percent: f64,
    pub(super) memory_percent: f64,
    pub(super) sustained_readings: u32,
    pub(super) reading_interval: String,
    pub(super) cooldown: String,
    pub(super) think: String,
    pub(super) max_step: u32,
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
#[serde(default, deny_unknown_fields)]
pub(super) struct ScaleDown {
    pub(super) when: When,
    pub(super) cpu_percent: f64,
    pub(super) memory_percent: f64,
    pub(super) steer: bool,
    pub(super) sustained: String,
    pub(super) cooldown: String,
    pub(super) min_age: String,
    pub(super) kube_system: BlockOrMove,
    pub(super) local_storage: BlockOrMove,
    pub(super) max_parallel_drains: u32,
    pub(super) max_parallel_empty: u32,
    pub(super) budget: Scalar,
    pub(super) min_saving_percent: f64,
    pub(super) guard_percent: f64,
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
#[serde(rename_all = "lowercase")]
pub(super) enum When {
    Thresholds,
    Fits,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BlockOrMove {
    Block,
    Move,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Drain {
    pub(super) timeout: String,
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
#[serde(rename_all = "lowercase")]
pub(super) enum OnTimeout {
    Abort,
    Force,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Forecast {
    pub(super) enabled: bool,
    pub(super) quantile: f64,
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
#[serde(default, deny_unknown_fields)]
pub(super) struct Cost {
    pub(super) eviction_usd: f64,
    pub(super) payback: String,
    pub(super) spot_interruptions_per_node_day: f64,
    pub(super) currency: String,
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
#[serde(deny_unknown_fields)]
pub(super) struct Freeze {
    pub(super) cron: String,
    pub(super) duration: String,
    #[serde(default = "utc")]
    pub(super) time_zone: String,
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
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    pub(super) name: Option<String>,
    pub(super) cron: String,
    pub(super) duration: String,
    #[serde(default = "utc")]
    pub(super) time_zone: String,
    #[serde(default = "none")]
    pub(super) lead: String,
    pub(super) min_nodes: u32,
    pub(super) pool: Option<String>,
}

fn none() -> String {
    "0s".into()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    pub(super) name: String,
    #[serde(default)]
    pub(super) min_nodes: u32,
    pub(super) max_nodes: Option<u32>,
    pub(super) instance_types: Option<Vec<String>>,
    pub(super) requirements: Option<Requirements>,
    pub(super) zones: Vec<String>,
    pub(super) markets: Option<Vec<Market>>,
    #[serde(default)]
    pub(super) on_demand_base: u32,
    pub(super) spot_share_percent: Option<f64>,
    pub(super) startup_taints: Option<Vec<String>>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) taints: Vec<Taint>,
    #[serde(default)]
    pub(super) reserved: Reserved,
    #[serde(default = "default_max_pods")]
    pub(super) max_pods: u32,
    #[serde(default)]
    pub(super) burstable_cpu: BurstableCpu,
    #[serde(default)]
    pub(super) headroom: Headroom,
    #[serde(default = "ignore")]
    pub(super) rebalance: OnNotice,
    #[serde(default = "drain")]
    pub(super) maintenance: OnNotice,
    #[serde(default = "default_maintenance_lead")]
    pub(super) maintenance_lead: String,
    #[serde(default = "report")]
    pub(super) drift: super::OnDrift,
    #[serde(default = "report")]
    pub(super) throttled: super::OnDrift,
    pub(super) max_age: Option<String>,
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
#[serde(rename_all = "lowercase")]
pub(super) enum OnNotice {
    Ignore,
    Drain,
}

fn default_max_pods() -> u32 {
    110
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Requirements {
    pub(super) cpu: Option<Scalar>,
    pub(super) memory: Option<Scalar>,
    pub(super) arch: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) enum Market {
    #[serde(rename = "spot")]
    Spot,
    #[serde(rename = "on-demand")]
    OnDemand,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Taint {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
    pub(super) effect: crate::model::TaintEffect,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Reserved {
    pub(super) cpu: Scalar,
    pub(super) memory: Scalar,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Headroom {
    pub(super) cpu: Scalar,
    pub(super) memory: Scalar,
    pub(super) pods: u32,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BurstableCpu {
    #[default]
    Nominal,
    Baseline,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstanceType {
    pub(super) name: String,
    pub(super) cpu: Scalar,
    pub(super) memory: Scalar,
    pub(super) max_pods: Option<u32>,
    pub(super) arch: Option<String>,
    pub(super) ephemeral_storage: Option<Scalar>,
    #[serde(default)]
    pub(super) resources: BTreeMap<String, Scalar>,
    pub(super) on_demand_price: f64,
    pub(super) spot_price: Option<f64>,
    pub(super) zones: Option<Vec<String>>,
}

/// A quantity, count or range: a string, or a number written without quotes.
#[derive(Debug, Clone, PartialEq)]
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
