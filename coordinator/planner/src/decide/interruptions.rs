//! What spot costs beside its price: a node that EC2 takes back evicts its pods, and evictions cost what the policy says.
//!
//! ```text
//! interruptions a node and hour × pods of an average size that fit on the node × eviction_usd
//! ```
//! Where that and the spot price exceed what holds as many pods on demand, spot is not bought, as if it were dearer.

use crate::{
    Policy,
    model::{Cluster, Market, Resources, Zone},
    policy::{Cost, Pool, TypeSpec},
};

/// The rule, as it holds for one plan.
#[derive(Clone, Debug)]
pub(super) struct Interruptions {
    /// USD an hour for each pod on a spot node.
    per_pod: f64,
    /// What an average pod that an interruption would evict requests; none where there is no such pod.
    average: Option<Average>,
}

/// Requests of an average pod, in the units of [`Resources`].
#[derive(Clone, Copy, Debug)]
struct Average {
    cpu: f64,
    memory: f64,
}

/// Why spot is not bought though it is offered.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TooDear {
    /// Pods of an average size on such a node.
    pub(super) pods: usize,
    /// What their interruptions cost, in USD per hour.
    pub(super) per_hour: f64,
}

impl Interruptions {
    pub(super) fn of(policy: &Policy, cluster: &Cluster) -> Self {
        let Cost {
            eviction_usd,
            spot_interruptions_per_node_day,
            ..
        } = policy.cost;
        let per_pod = eviction_usd * spot_interruptions_per_node_day / 24.0;
        // Whoever does not price them pays for no look at the pods.
        let average = (per_pod > 0.0).then(|| Average::of(cluster)).flatten();
        Self { per_pod, average }
    }

    /// What a pool has on demand in a zone, to hold its spot against. `None` where interruptions cost nothing.
    pub(super) fn beside(&self, pool: &Pool, zone: &Zone) -> Option<Beside> {
        let average = self.average?;
        let mut types: Vec<(f64, f64)> = pool
            .types
            .iter()
            .filter_map(|spec| {
                let price = pool.price(spec, zone, Market::OnDemand)?;
                Some((average.on(&pool.allocatable(spec)), price))
            })
            .collect();
        types.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        let mut cheapest = f64::INFINITY;
        for (_, price) in types.iter_mut().rev() {
            cheapest = cheapest.min(*price);
            *price = cheapest;
        }
        Some(Beside {
            types,
            average,
            per_pod: self.per_pod,
        })
    }
}

/// What a pool has on demand in a zone.
#[derive(Clone, Debug)]
pub(super) struct Beside {
    /// Numbers of average pods, ascending, and the cheapest price of a type that holds as many or more.
    types: Vec<(f64, f64)>,
    average: Average,
    per_pod: f64,
}

impl Beside {
    /// Why spot of this type at this price is not worth it, if it is not.
    pub(super) fn forbids(&self, pool: &Pool, spec: &TypeSpec, spot: f64) -> Option<TooDear> {
        let pods = self.average.on(&pool.allocatable(spec));
        let per_hour = pods * self.per_pod;
        let first = self.types.partition_point(|(held, _)| *held < pods);
        let (_, on_demand) = self.types.get(first)?;
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a number of pods"
        )]
        let number = pods as usize;
        (spot + per_hour > *on_demand).then_some(TooDear {
            pods: number,
            per_hour,
        })
    }
}

impl Average {
    /// Of the pods that an interruption evicts: those of DaemonSets and of the node itself end with it anyhow.
    fn of(cluster: &Cluster) -> Option<Self> {
        let (mut number, mut cpu, mut memory) = (0.0, 0.0, 0.0);
        let evicted = cluster
            .pods
            .iter()
            .filter(|pod| !pod.is_finished() && !pod.is_owned_by("DaemonSet") && !pod.is_mirror());
        for pod in evicted {
            number += 1.0;
            cpu += pod.requests.cpu.as_f64();
            memory += pod.requests.memory.as_f64();
        }
        (number > 0.0).then(|| Self {
            cpu: cpu / number,
            memory: memory / number,
        })
    }

    /// How many of them fit on so much; at least one.
    fn on(self, allocatable: &Resources) -> f64 {
        let by = |have: f64, each: f64| {
            if each > 0.0 {
                (have / each).floor()
            } else {
                f64::INFINITY
            }
        };
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        let slots = allocatable.pods as f64;
        let pods = by(allocatable.cpu.as_f64(), self.cpu).min(by(allocatable.memory.as_f64(), self.memory));
        pods.min(slots).max(1.0)
    }
}
