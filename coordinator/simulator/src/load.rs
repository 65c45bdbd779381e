//! Demand: what the users of the cluster want, how many pods that makes, and how busy the machines are with it.
//!
//! ```text
//!   set(demand) ─┬─ replicas, as a HorizontalPodAutoscaler would want them ─▶ Deployments
//!                └─ use of each pod ─▶ usage of its node ─▶ agents' vital signs · the simulated Prometheus
//! ```
//!
//! Single pods stray from the average by a few percent, drawn from the seed for each pod and each ten seconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use smartscale_coordinator::observe::{MetricsError, MetricsReading, MetricsSource};
use smartscale_planner::model::{self, Node, NodeName, Phase, Pod};
use smartscale_proto::time::SharedClock;

use crate::{
    cluster::Cluster,
    log::{Log, Source},
    seed::Seed,
};

/// How far a pod's use strays from the average of its service.
const STRAY: f64 = 0.06;
/// How far a service's demand strays from what the story says.
const DEMAND_STRAY: f64 = 0.015;
/// A pod strays anew so often.
const STRAY_PERIOD: Duration = Duration::from_secs(10);
/// What a machine's system and K3s use, in thousandths of a CPU.
const SYSTEM_CPU: f64 = 60.0;
/// What they take of its memory, in bytes.
const SYSTEM_MEMORY: f64 = 420.0 * 1024.0 * 1024.0;
/// Share of its memory request that a pod uses.
const MEMORY_USE: f64 = 0.7;
/// Share of its CPU request that a pod uses which serves nobody.
const IDLE_USE: f64 = 0.1;
/// A pod uses at most so many times what it asks for.
const BURST: f64 = 2.0;

/// A Deployment whose number of pods follows demand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Service {
    /// The Deployment's name, and the label `app` of its pods.
    pub name: &'static str,
    /// Fewest pods.
    pub min: u32,
    /// Most pods.
    pub max: u32,
    /// The share of its request that each pod shall use.
    pub target: f64,
}

/// What the users want of a service.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// The service.
    pub service: &'static str,
    /// How many pods would be busy with it that use all they ask for.
    pub full_pods: f64,
    /// Most pods for the time being, in place of the service's own bound.
    pub max: Option<u32>,
}

/// The demand. Clones share it.
#[derive(Clone)]
pub struct Load {
    clock: SharedClock,
    cluster: Cluster,
    log: Option<Log>,
    seed: Seed,
    services: Arc<[Service]>,
    full_pods: Arc<Mutex<BTreeMap<&'static str, f64>>>,
}

impl Load {
    /// No demand yet.
    #[must_use]
    pub fn new(cluster: Cluster, clock: SharedClock, seed: Seed, services: Vec<Service>) -> Self {
        Self {
            clock,
            cluster,
            log: None,
            seed,
            services: services.into(),
            full_pods: Arc::default(),
        }
    }

    /// Tells of each change of demand.
    #[must_use]
    pub fn telling(mut self, log: Log) -> Self {
        self.log = Some(log);
        self
    }

    /// From now on the demand is this; services that are not named keep theirs. `act` names the change, so that the seed
    /// gives it its own strays.
    pub fn set(&self, act: &str, demands: &[Demand]) {
        let mut wanted = Vec::new();
        for demand in demands {
            let Some(service) = self
                .services
                .iter()
                .find(|service| service.name == demand.service)
            else {
                continue;
            };
            let stray = self
                .seed
                .around_one(&format!("demand/{act}/{}", service.name), DEMAND_STRAY);
            let full = demand.full_pods * stray;
            self.full_pods().insert(service.name, full);
            let most = demand.max.unwrap_or(service.max);
            wanted.push((service.name, pods(full / service.target).clamp(service.min, most)));
        }
        self.cluster.scale(&wanted);
        // The pods exist from this moment, so that whoever waits for rest does not find the rest of before.
        self.cluster.step();
        if let Some(log) = &self.log {
            let parts: Vec<String> = wanted
                .iter()
                .map(|(name, pods)| format!("{name} {pods}"))
                .collect();
            log.write(
                Source::Story,
                "demand",
                act,
                format!("pods wanted: {}", parts.join(", ")),
            );
        }
    }

    /// CPU and memory in use on a node, in percent of what its machine has; `None` when there is no such node.
    #[must_use]
    pub fn usage(&self, node: &str) -> Option<(f64, f64)> {
        let cluster = self.cluster.model();
        let node = cluster.nodes.iter().find(|known| known.name.as_str() == node)?;
        Some(self.usage_in(&cluster, node))
    }

    fn usage_in(&self, cluster: &model::Cluster, node: &Node) -> (f64, f64) {
        let slot = self.clock.elapsed().as_secs() / STRAY_PERIOD.as_secs();
        let (mut cpu, mut memory) = (SYSTEM_CPU, SYSTEM_MEMORY);
        for pod in running(cluster).filter(|pod| pod.node.as_ref() == Some(&node.name)) {
            let stray = self.seed.around_one(&format!("use/{}/{slot}", pod.key), STRAY);
            cpu += pod.requests.cpu.as_f64() * self.share_of(cluster, pod) * stray;
            memory += pod.requests.memory.as_f64() * MEMORY_USE;
        }
        let percent = |used: f64, all: f64| {
            if all > 0.0 {
                (100.0 * used / all).min(100.0)
            } else {
                0.0
            }
        };
        (
            percent(cpu, node.capacity.cpu.as_f64()),
            percent(memory, node.capacity.memory.as_f64()),
        )
    }

    /// The share of its CPU request that a pod uses: the demand is spread over the pods that are Ready.
    fn share_of(&self, cluster: &model::Cluster, pod: &Pod) -> f64 {
        let Some(app) = pod.labels.get("app") else {
            return IDLE_USE;
        };
        let Some(full) = self.full_pods().get(&**app).copied() else {
            return IDLE_USE;
        };
        if !serves(pod) {
            return IDLE_USE;
        }
        let serving = running(cluster)
            .filter(|other| serves(other) && other.labels.get("app") == Some(app))
            .count();
        let serving = u32::try_from(serving).unwrap_or(u32::MAX);
        (full / f64::from(serving.max(1))).min(BURST)
    }

    fn full_pods(&self) -> MutexGuard<'_, BTreeMap<&'static str, f64>> {
        self.full_pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn running(cluster: &model::Cluster) -> impl Iterator<Item = &Pod> {
    let pods = cluster.pods.iter().map(|pod| &**pod);
    pods.filter(|pod| pod.phase == Phase::Running)
}

fn serves(pod: &Pod) -> bool {
    pod.ready && !pod.is_terminating()
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of pods are small and not negative"
)]
fn pods(wanted: f64) -> u32 {
    wanted.ceil().max(0.0) as u32
}

/// The simulated Prometheus: averages over the Ready workers, as a node exporter on each would give them.
#[async_trait]
impl MetricsSource for Load {
    async fn read(&self) -> Result<MetricsReading, MetricsError> {
        let cluster = self.cluster.model();
        let mut reading = MetricsReading::default();
        let (mut cpu, mut memory, mut count) = (0.0, 0.0, 0_u32);
        for node in cluster
            .nodes
            .iter()
            .filter(|node| node.ready && node.pool().is_some())
        {
            let usage = self.usage_in(&cluster, node);
            reading
                .nodes
                .insert(NodeName::clone(&node.name), (Some(usage.0), Some(usage.1)));
            (cpu, memory, count) = (cpu + usage.0, memory + usage.1, count + 1);
        }
        if count > 0 {
            reading.cpu_percent = Some(cpu / f64::from(count));
            reading.memory_percent = Some(memory / f64::from(count));
        }
        Ok(reading)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use smartscale_planner::{
        fixtures,
        model::{Bytes, MilliCpu, Resources},
    };

    use super::*;
    use crate::{
        clock::ScaledClock,
        cluster::{Deployment, Template},
    };

    async fn world(full_pods: f64, max: Option<u32>) -> (Arc<ScaledClock>, Cluster, Load) {
        let clock = ScaledClock::new("2026-01-05T09:00:00Z".parse().unwrap(), 1.0).unwrap();
        let cluster = Cluster::new(clock.clone(), Log::new(clock.clone()), Seed(1));
        cluster.register(fixtures::node("a").build(), Duration::ZERO);
        let requests = Resources {
            cpu: MilliCpu(200),
            memory: Bytes(128 << 20),
            ..Resources::default()
        };
        cluster.apply_deployment(Deployment::new("default", "web", 1, Template::new(requests)));
        let service = Service {
            name: "web",
            min: 1,
            max: 8,
            target: 0.5,
        };
        let load = Load::new(cluster.clone(), clock.clone(), Seed(1), vec![service]);
        let demand = Demand {
            service: "web",
            full_pods,
            max,
        };
        load.set("test", &[demand]);
        for _ in 0..10 {
            cluster.step();
            clock.advance(Duration::from_secs(1)).await;
        }
        (clock, cluster, load)
    }

    #[tokio::test]
    async fn pods_follow_demand_within_their_bounds() {
        for (full_pods, max, pods) in [
            (1.9, None, 4),
            (40.0, None, 8),
            (0.0, None, 1),
            (40.0, Some(2), 2),
        ] {
            let (_, cluster, _) = world(full_pods, max).await;
            assert_eq!(cluster.model().pods.len(), pods, "{full_pods} {max:?}");
        }
    }

    #[tokio::test]
    async fn a_machine_is_as_busy_as_its_pods_make_it() {
        let (_, _, load) = world(1.9, None).await;
        let (cpu, _) = load.usage("a").unwrap();
        // 1.9 pods of 200 thousandths, and the system, on two CPUs.
        let expected = 100.0 * (1.9 * 200.0 + SYSTEM_CPU) / 2000.0;
        assert!((cpu - expected).abs() < 2.0, "{cpu} {expected}");
        assert_eq!(load.usage("b"), None);
        let reading = load.read().await.unwrap();
        assert_eq!(
            reading.cpu_percent,
            reading.nodes.values().next().and_then(|node| node.0)
        );
    }

    #[tokio::test]
    async fn pods_that_may_not_become_more_become_hot() {
        let (_, _, cool) = world(1.9, None).await;
        let (_, _, hot) = world(4.0, Some(2)).await;
        assert!(hot.usage("a").unwrap().0 > cool.usage("a").unwrap().0 + 10.0);
    }
}
