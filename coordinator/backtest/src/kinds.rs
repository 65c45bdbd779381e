//! What can be bought, as the model sees it: every type of every pool, with its room and its prices.

use std::sync::Arc;

use smartscale_planner::{
    Policy,
    model::{Market, Resources, Zone},
    policy::TypeSpec,
};

use crate::workload::Workload;

/// A type in a pool.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    /// Index of its pool in the policy.
    pub(crate) pool: usize,
    pub(crate) spec: Arc<TypeSpec>,
    pub(crate) allocatable: Resources,
    /// Pods that it holds; 0 in a pool whose taints keep them off.
    pub(crate) room: u32,
}

/// All of them, pool by pool.
pub(crate) fn all(policy: &Policy, workload: &Workload) -> Vec<Kind> {
    let pools = policy.pools.iter().enumerate();
    let kinds = pools.flat_map(|(pool, of)| {
        of.types.iter().map(move |spec| {
            let allocatable = of.allocatable(spec);
            Kind {
                pool,
                room: if of.is_tainted() {
                    0
                } else {
                    room(&allocatable, workload)
                },
                spec: Arc::clone(spec),
                allocatable,
            }
        })
    });
    kinds.collect()
}

fn room(allocatable: &Resources, workload: &Workload) -> u32 {
    let by_cpu = allocatable.cpu.0.max(0) / workload.cpu.0;
    let by_memory = allocatable.memory.0.max(0) / workload.memory.0;
    u32::try_from(by_cpu.min(by_memory).min(allocatable.pods.max(0))).unwrap_or(u32::MAX)
}

impl Kind {
    /// What it costs in a market of a zone, in USD per hour, if it can be bought there.
    pub(crate) fn price(&self, policy: &Policy, zone: &Zone, market: Market) -> Option<f64> {
        policy.pools[self.pool].price(&self.spec, zone, market)
    }

    /// What it costs in the cheapest zone.
    pub(crate) fn least_price(&self, policy: &Policy, market: Market) -> Option<f64> {
        let zones = policy.pools[self.pool].zones.iter();
        zones
            .filter_map(|zone| self.price(policy, zone, market))
            .min_by(f64::total_cmp)
    }
}
