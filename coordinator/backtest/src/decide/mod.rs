//! Who decides about the nodes.

mod calm;
pub(crate) mod fixed;
mod foresight;
pub(crate) mod policy;
pub(crate) mod thresholds;

use smartscale_planner::{
    model::{Market, Zone},
    policy::Pool,
};

use crate::{
    series::Forecast,
    world::{Node, World},
};

/// Decides at every tick, by what is there and what was there before: nothing else can be reached from a [`World`].
pub(crate) trait Decider {
    /// Launches and removes nodes. Whether it did.
    fn decide(&mut self, world: &mut World<'_>) -> bool;

    /// What it expected at its last decision. `None`: it forecasts nothing, or has seen too little to.
    fn forecast(&self) -> Option<Forecast> {
        None
    }
}

/// A pool's nodes that were not removed.
fn of_pool<'w>(world: &'w World<'_>, pool: usize) -> impl Iterator<Item = &'w Node> {
    let kinds = &world.scenery().kinds;
    let nodes = world.nodes().iter();
    nodes.filter(move |node| kinds[node.kind].pool == pool && !node.removed)
}

/// Nodes, and those among them that are on demand.
fn markets<'w>(nodes: impl Iterator<Item = &'w Node>) -> (usize, usize) {
    nodes.fold((0, 0), |(all, on_demand), node| {
        (all + 1, on_demand + usize::from(node.market == Market::OnDemand))
    })
}

/// Whether the shares of markets allow a node to go.
fn may_go(world: &World<'_>, pool: usize, of: &Pool, node: &Node) -> bool {
    let (all, on_demand) = markets(of_pool(world, pool));
    node.market == Market::Spot || on_demand > of.on_demand_of(all.saturating_sub(1))
}

/// The pool's zones, the one with fewest nodes first, then by name.
fn zones_by_nodes<'p>(world: &World<'_>, pool: usize, of: &'p Pool) -> Vec<&'p Zone> {
    let mut zones: Vec<&Zone> = of.zones.iter().collect();
    zones.sort_by_key(|zone| {
        (
            of_pool(world, pool).filter(|node| node.zone == **zone).count(),
            *zone,
        )
    });
    zones
}
