//! The fewest nodes that there are to be now: the policy's minimums, or what a schedule asks for meanwhile.

use jiff::Timestamp;

use crate::{Policy, policy::Schedule};

/// A minimum of nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor<'p> {
    /// Never fewer.
    pub(crate) nodes: usize,
    /// The schedule that asks for more than the policy does otherwise, and until when.
    pub(crate) raised: Option<(&'p Schedule, Timestamp)>,
}

/// The minimums of all pools together and of each.
#[derive(Clone, Debug)]
pub(crate) struct Floors<'p> {
    pub(crate) all: Floor<'p>,
    /// By the index of the pool in the policy.
    pub(crate) pools: Vec<Floor<'p>>,
}

impl<'p> Floors<'p> {
    pub(super) fn of(policy: &'p Policy, now: Timestamp) -> Self {
        let asked = |nodes: u32| Floor {
            nodes: nodes as usize,
            raised: None,
        };
        let mut floors = Self {
            all: asked(policy.limits.min_nodes),
            pools: policy.pools.iter().map(|pool| asked(pool.min_nodes)).collect(),
        };
        for schedule in &policy.schedules {
            let Some(until) = schedule.window.until(now) else {
                continue;
            };
            let floor = match &schedule.pool {
                None => Some(&mut floors.all),
                Some(name) => {
                    let index = policy.pools.iter().position(|pool| pool.name == *name);
                    index.and_then(|index| floors.pools.get_mut(index))
                }
            };
            if let Some(floor) = floor.filter(|floor| floor.nodes < schedule.min_nodes as usize) {
                *floor = Floor {
                    nodes: schedule.min_nodes as usize,
                    raised: Some((schedule, until)),
                };
            }
        }
        floors
    }

    /// The minimum of a pool, by its index in the policy.
    pub(crate) fn of_pool(&self, pool: usize) -> usize {
        self.pools.get(pool).map_or(0, |floor| floor.nodes)
    }

    /// What a reader must know of them: those that a schedule has raised.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        let all = [self.all].into_iter().chain(self.pools.iter().copied());
        all.filter_map(|floor| {
            let (schedule, until) = floor.raised?;
            let of_pool = schedule.pool.as_ref();
            let of_pool = of_pool.map_or_else(String::new, |pool| format!(" of pool {pool}"));
            Some(format!(
                "schedule {}: at least {} nodes{of_pool} until {until:.0}",
                schedule.name, floor.nodes
            ))
        })
    }
}
