//! The workload and the cloud that a history is replayed with.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use smartscale_planner::{
    Policy, duration,
    model::{Bytes, InstanceType, Market, MilliCpu, Zone},
    quantity,
};

use crate::tick::{Tick, ticks};

/// Most pods of a workload.
const MOST_PODS: u32 = 1_000_000;

/// What serves the requests, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// Per minute, what one pod serves at 100 % of its CPU request.
    pub requests_per_pod: f64,
    /// What its `HorizontalPodAutoscaler` aims at, in (0, 1].
    pub target_utilization: f64,
    /// Never fewer pods.
    pub min_pods: u32,
    /// Never more pods.
    pub max_pods: u32,
    /// What a pod requests.
    pub cpu: MilliCpu,
    /// What a pod requests.
    pub memory: Bytes,
    /// From its binding until it serves.
    pub pod_start: Duration,
    /// Where it runs.
    pub cloud: Cloud,
}

/// How the cloud behaves, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Cloud {
    /// Launch call to node Ready.
    pub boot: Duration,
    /// Uniform, to both sides.
    pub boot_jitter: Duration,
    /// Removal of a node that holds pods to its termination.
    pub drain: Duration,
    /// Of a node's life as spot, per day.
    pub interruptions_per_day: f64,
    /// When what cannot be bought.
    pub stockouts: Vec<Stockout>,
}

/// A time in which something cannot be bought; what is `None` matches all.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stockout {
    /// The type.
    pub instance_type: Option<InstanceType>,
    /// The zone.
    pub zone: Option<Zone>,
    /// The market.
    pub market: Option<Market>,
    /// From then on.
    pub from: Timestamp,
    /// Until before then.
    pub until: Timestamp,
}

impl Stockout {
    pub(crate) fn covers(
        &self,
        instance_type: &InstanceType,
        zone: &Zone,
        market: Market,
        at: Timestamp,
    ) -> bool {
        (self.from..self.until).contains(&at)
            && self.instance_type.as_ref().is_none_or(|own| own == instance_type)
            && self.zone.as_ref().is_none_or(|own| own == zone)
            && self.market.is_none_or(|own| own == market)
    }
}

/// Why a workload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct WorkloadError {
    /// The key's path, or `line N` where the text is no TOML.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

type Result<T> = std::result::Result<T, WorkloadError>;

fn error<T>(path: &str, message: impl Into<String>) -> Result<T> {
    Err(WorkloadError {
        path: path.to_owned(),
        message: message.into(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    workload: RawWorkload,
    #[serde(default)]
    cloud: RawCloud,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWorkload {
    requests_per_pod: f64,
    #[serde(default = "target")]
    target_utilization: f64,
    #[serde(default = "min_pods")]
    min_pods: u32,
    #[serde(default = "max_pods")]
    max_pods: u32,
    cpu: String,
    memory: String,
    #[serde(default = "pod_start")]
    pod_start: String,
}

fn target() -> f64 {
    0.7
}

fn min_pods() -> u32 {
    2
}

fn max_pods() -> u32 {
    10_000
}

fn pod_start() -> String {
    "5s".to_owned()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawCloud {
    boot: String,
    boot_jitter: String,
    drain: String,
    spot_interruptions_per_node_day: f64,
    stockouts: Vec<Stockout>,
}

impl Default for RawCloud {
    fn default() -> Self {
        Self {
            boot: "90s".to_owned(),
            boot_jitter: "0s".to_owned(),
            drain: "30s".to_owned(),
            spot_interruptions_per_node_day: 0.0,
            stockouts: Vec::new(),
        }
    }
}

impl Workload {
    /// Reads and validates `workload.toml`.
    ///
    /// # Errors
    /// The first thing that is wrong, with its key's path.
    pub fn from_toml(text: &str) -> Result<Self> {
        let line = |error: &toml::de::Error| {
            let at = error.span().map_or(0, |span| span.start);
            text.get(..at)
                .map_or(1, |before| before.matches('\n').count() + 1)
        };
        let broken = |error: &toml::de::Error| WorkloadError {
            path: format!("line {}", line(error)),
            message: error.message().to_owned(),
        };
        let toml = toml::Deserializer::parse(text).map_err(|error| broken(&error))?;
        let file: File = serde_path_to_error::deserialize(toml).map_err(|error| {
            let path = error.path().to_string();
            match path.as_str() {
                "." => broken(error.inner()),
                _ => WorkloadError {
                    path,
                    message: error.inner().message().to_owned(),
                },
            }
        })?;
        validate(file)
    }

    /// Pods that this demand asks for at once, without what was wanted a moment ago.
    pub(crate) fn wanted(&self, demand_per_minute: f64) -> u32 {
        let exact = demand_per_minute / (self.requests_per_pod * self.target_utilization) - 1e-6;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the cast saturates, and so do the bounds"
        )]
        let pods = exact.ceil().max(0.0) as u32;
        pods.clamp(self.min_pods, self.max_pods)
    }

    /// Refuses a pod that no node of the policy could hold.
    ///
    /// # Errors
    /// Names the larger of its requests.
    pub fn check_against(&self, policy: &Policy) -> Result<()> {
        let holds = |pool: &smartscale_planner::policy::Pool| {
            pool.types.iter().any(|spec| {
                let have = pool.allocatable(spec);
                have.cpu >= self.cpu && have.memory >= self.memory && have.pods >= 1
            })
        };
        if policy.pools.iter().any(holds) {
            return Ok(());
        }
        let most = |of: &dyn Fn(&smartscale_planner::model::Resources) -> i64| {
            let rooms = policy
                .pools
                .iter()
                .flat_map(|pool| pool.types.iter().map(|spec| pool.allocatable(spec)));
            rooms.map(|room| of(&room)).max().unwrap_or(0)
        };
        let path = match most(&|room| room.cpu.0) < self.cpu.0 {
            true => "workload.cpu",
            false => "workload.memory",
        };
        error(
            path,
            "a pod is larger than what any type of the policy's pools offers: expected a smaller pod, or a larger type",
        )
    }
}

fn validate(file: File) -> Result<Workload> {
    let File { workload, cloud } = file;
    if !(workload.requests_per_pod.is_finite() && workload.requests_per_pod > 0.0) {
        return error(
            "workload.requests_per_pod",
            format!(
                "{} is not above 0: expected the requests a minute that one pod serves",
                workload.requests_per_pod
            ),
        );
    }
    if !(workload.target_utilization > 0.0 && workload.target_utilization <= 1.0) {
        return error(
            "workload.target_utilization",
            format!(
                "{} is outside (0, 1]: expected for example 0.7",
                workload.target_utilization
            ),
        );
    }
    if workload.max_pods > MOST_PODS {
        return error(
            "workload.max_pods",
            format!("{} is more than {MOST_PODS}", workload.max_pods),
        );
    }
    if workload.min_pods > workload.max_pods {
        return error(
            "workload.min_pods",
            format!("{} is above max_pods = {}", workload.min_pods, workload.max_pods),
        );
    }
    let rate = cloud.spot_interruptions_per_node_day;
    if !(rate.is_finite() && rate >= 0.0) {
        return error(
            "cloud.spot_interruptions_per_node_day",
            format!("{rate} is no rate: expected 0 or more"),
        );
    }
    let boot = time("cloud.boot", &cloud.boot)?;
    let boot_jitter = time("cloud.boot_jitter", &cloud.boot_jitter)?;
    if boot_jitter > boot {
        return error(
            "cloud.boot_jitter",
            format!("{} is above boot = {}", cloud.boot_jitter, cloud.boot),
        );
    }
    for (index, stockout) in cloud.stockouts.iter().enumerate() {
        if stockout.from >= stockout.until {
            return error(
                &format!("cloud.stockouts[{index}].until"),
                "is not after from: expected from before until",
            );
        }
    }
    let cpu = quantity::parse_milli(&workload.cpu).map_err(|bad| (bad.to_string(), "workload.cpu"));
    let memory = quantity::parse_units(&workload.memory).map_err(|bad| (bad.to_string(), "workload.memory"));
    let positive = |quantity: std::result::Result<i64, (String, &str)>, path: &str| match quantity {
        Err((message, _)) => error(path, message),
        Ok(amount) if amount <= 0 => error(path, "is not above 0: expected what a pod requests"),
        Ok(amount) => Ok(amount),
    };
    Ok(Workload {
        requests_per_pod: workload.requests_per_pod,
        target_utilization: workload.target_utilization,
        min_pods: workload.min_pods,
        max_pods: workload.max_pods,
        cpu: MilliCpu(positive(cpu, "workload.cpu")?),
        memory: Bytes(positive(memory, "workload.memory")?),
        pod_start: time("workload.pod_start", &workload.pod_start)?,
        cloud: Cloud {
            boot,
            boot_jitter,
            drain: time("cloud.drain", &cloud.drain)?,
            interruptions_per_day: rate,
            stockouts: cloud.stockouts,
        },
    })
}

fn time(path: &str, text: &str) -> Result<Duration> {
    duration::parse(text).map_err(|bad| WorkloadError {
        path: path.to_owned(),
        message: bad.to_string(),
    })
}

/// When a node that is launched at `tick` will be Ready. `chance` is in [0, 1).
pub(crate) fn ready_at(cloud: &Cloud, tick: Tick, chance: f64) -> Tick {
    let jitter = cloud.boot_jitter.as_secs_f64() * (2.0 * chance - 1.0);
    let boot = (cloud.boot.as_secs_f64() + jitter).max(0.0);
    tick.after(ticks(Duration::from_secs_f64(boot)))
}

/// When a spot node that is launched at `tick` will be interrupted, if ever: an exponential life.
pub(crate) fn interrupted_at(cloud: &Cloud, tick: Tick, chance: f64) -> Option<Tick> {
    if cloud.interruptions_per_day <= 0.0 {
        return None;
    }
    let days = -(1.0 - chance).ln() / cloud.interruptions_per_day;
    let life = Duration::try_from_secs_f64(days * 86_400.0).ok()?;
    Some(tick.after(ticks(life).max(1)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    const LEAST: &str = "[workload]\nrequests_per_pod = 60.0\ncpu = \"500m\"\nmemory = \"512Mi\"\n";

    #[test]
    fn what_is_not_said_has_the_printed_default() {
        let workload = Workload::from_toml(LEAST).unwrap();
        assert_eq!(
            workload,
            Workload {
                requests_per_pod: 60.0,
                target_utilization: 0.7,
                min_pods: 2,
                max_pods: 10_000,
                cpu: MilliCpu(500),
                memory: Bytes(512 << 20),
                pod_start: Duration::from_secs(5),
                cloud: Cloud {
                    boot: Duration::from_secs(90),
                    boot_jitter: Duration::ZERO,
                    drain: Duration::from_secs(30),
                    interruptions_per_day: 0.0,
                    stockouts: Vec::new(),
                },
            }
        );
    }

    #[test]
    fn bad_keys_are_named_by_their_path() {
        for (text, path) in [
            (
                "[workload]\ncpu = \"1\"\nmemory = \"1Gi\"\n".to_owned(),
                "workload",
            ),
            (format!("{LEAST}colour = 1\n"), "workload.colour"),
            (format!("{LEAST}[clouds]\n"), "clouds"),
            (format!("{LEAST}[cloud]\nboot = \"soon\"\n"), "cloud.boot"),
            (
                format!("{LEAST}[cloud]\nboot = \"1m\"\nboot_jitter = \"2m\"\n"),
                "cloud.boot_jitter",
            ),
            (
                format!("{LEAST}[cloud]\nspot_interruptions_per_node_day = -1.0\n"),
                "cloud.spot_interruptions_per_node_day",
            ),
            (LEAST.replace("60.0", "0"), "workload.requests_per_pod"),
            (LEAST.replace("60.0", "nan"), "workload.requests_per_pod"),
            (LEAST.replace("500m", "-1"), "workload.cpu"),
            (LEAST.replace("512Mi", "much"), "workload.memory"),
            (
                format!("{LEAST}target_utilization = 1.5\n"),
                "workload.target_utilization",
            ),
            (
                format!("{LEAST}target_utilization = 0.0\n"),
                "workload.target_utilization",
            ),
            (
                format!("{LEAST}min_pods = 5\nmax_pods = 4\n"),
                "workload.min_pods",
            ),
            ("[workload\n".to_owned(), "line 1"),
            (
                format!(
                    "{LEAST}[cloud]\nstockouts = [{{ from = \"2026-01-02T00:00:00Z\", until = \"2026-01-01T00:00:00Z\" }}]\n"
                ),
                "cloud.stockouts[0].until",
            ),
            (
                format!(
                    "{LEAST}[cloud]\nstockouts = [{{ from = \"2026-01-02\", until = \"2026-01-03T00:00:00Z\" }}]\n"
                ),
                "cloud.stockouts[0].from",
            ),
        ] {
            let error = Workload::from_toml(&text).unwrap_err();
            assert_eq!(error.path, path, "{text}: {error}");
        }
    }

    #[test]
    fn pods_wanted_are_rounded_up_but_for_a_millionth_and_kept_within_bounds() {
        let text = LEAST.replace("60.0", "10.0") + "target_utilization = 0.5\nmax_pods = 9\n";
        let workload = Workload::from_toml(&text).unwrap();
        for (demand, pods) in [
            (0.0, 2),
            (10.0, 2),
            (15.0, 3),
            (15.000_001, 3),
            (15.1, 4),
            (1e300, 9),
        ] {
            assert_eq!(workload.wanted(demand), pods, "{demand}");
        }
    }

    #[test]
    fn a_stock_out_lasts_until_before_its_end_and_what_it_does_not_name_matches_all() {
        let stockout = Stockout {
            instance_type: Some("t3.medium".into()),
            zone: None,
            market: Some(Market::Spot),
            from: "2026-01-01T00:00:00Z".parse().unwrap(),
            until: "2026-01-01T01:00:00Z".parse().unwrap(),
        };
        let covers = |name: &str, market, at: &str| {
            stockout.covers(&name.into(), &"us-east-1a".into(), market, at.parse().unwrap())
        };
        assert!(covers("t3.medium", Market::Spot, "2026-01-01T00:00:00Z"));
        assert!(!covers("t3.medium", Market::Spot, "2026-01-01T01:00:00Z"));
        assert!(!covers("t3.medium", Market::OnDemand, "2026-01-01T00:00:00Z"));
        assert!(!covers("t3.small", Market::Spot, "2026-01-01T00:00:00Z"));
    }
}
