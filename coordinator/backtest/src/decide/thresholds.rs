//! What people write by hand: averages against thresholds, every two minutes.
//!
//! ```text
//!   below the minimum ─▶ fill · pods wait ─▶ +2 · above twice, cooldown over ─▶ +1
//!   below for 10 min, nothing waits, 10 min since any action ─▶ the node with the fewest pods goes, whether they fit or not
//! ```

use smartscale_planner::model::{Market, Zone};

use super::{Decider, markets, may_go, of_pool, zones_by_nodes};
use crate::{
    tick::{PER_MINUTE, Tick},
    world::{NodeId, World},
};

/// Between decisions: 2 min.
const PERIOD: u32 = 2 * PER_MINUTE;
/// After a scale-up: 5 min.
const UP_COOLDOWN: u32 = 5 * PER_MINUTE;
/// After any action, and for so long below: 10 min.
const DOWN_COOLDOWN: u32 = 10 * PER_MINUTE;
const UP_CPU: f64 = 70.0;
const UP_MEMORY: f64 = 75.0;
const DOWN_CPU: f64 = 30.0;
const DOWN_MEMORY: f64 = 50.0;
/// Consecutive decisions above.
const READINGS: u32 = 2;
/// Nodes for pods that wait.
const STEP: usize = 2;

/// The thresholds with the printed defaults, whatever the policy says.
#[derive(Default)]
pub(crate) struct Thresholds {
    above: u32,
    below_since: Option<Tick>,
    last_up: Option<Tick>,
    last_action: Option<Tick>,
}

impl Decider for Thresholds {
    fn decide(&mut self, world: &mut World<'_>) -> bool {
        let now = world.now();
        if now.0 == 0 || !now.0.is_multiple_of(PERIOD) {
            return false;
        }
        let usage = world.averages();
        let waits = !world.pending().is_empty();
        let above = usage.cpu_percent > UP_CPU || usage.memory_percent > UP_MEMORY;
        let below = usage.cpu_percent < DOWN_CPU && usage.memory_percent < DOWN_MEMORY && !waits;
        self.above = if above { self.above + 1 } else { 0 };
        self.below_since = below.then(|| self.below_since.unwrap_or(now));

        let is_over = |last: Option<Tick>, cooldown| last.is_none_or(|at| now.since(at) >= cooldown);
        let min = world.scenery().policy.limits.min_nodes as usize;
        let staying = world.nodes().iter().filter(|node| !node.removed).count();
        let launched = if staying < min {
            launch(world, min - staying)
        } else if waits {
            launch(world, STEP)
        } else if self.above >= READINGS && is_over(self.last_up, UP_COOLDOWN) {
            launch(world, 1)
        } else {
            let is_low = self
                .below_since
                .is_some_and(|since| now.since(since) >= DOWN_COOLDOWN);
            if !(is_low && is_over(self.last_action, DOWN_COOLDOWN) && staying > min) {
                return false;
            }
            let Some(node) = emptiest(world) else { return false };
            world.remove(node);
            self.last_action = Some(now);
            return true;
        };
        if launched > 0 {
            (self.last_up, self.last_action) = (Some(now), Some(now));
        }
        launched > 0
    }
}

/// Launches up to `count` nodes. How many.
fn launch(world: &mut World<'_>, count: usize) -> usize {
    let done = |_: &usize| {
        let offers = offers(world);
        offers
            .into_iter()
            .any(|(kind, zone, market)| world.launch(kind, &zone, market).is_ok())
    };
    (0..count).take_while(done).count()
}

/// What may be launched, the cheapest for each pod first: of the market that the shares ask for, in the zone with fewest nodes;
/// then the others.
fn offers(world: &World<'_>) -> Vec<(usize, Zone, Market)> {
    let scenery = world.scenery();
    let mut offers = Vec::new();
    let billed = |pool: Option<usize>| {
        let is_of = |kind: usize| pool.is_none_or(|pool| scenery.kinds[kind].pool == pool);
        world.nodes().iter().filter(|node| is_of(node.kind)).count()
    };
    if billed(None) >= scenery.policy.limits.max_nodes as usize {
        return Vec::new();
    }
    for (index, pool) in scenery.policy.pools.iter().enumerate() {
        if billed(Some(index)) >= pool.max_nodes as usize {
            continue;
        }
        let (all, on_demand) = markets(of_pool(world, index));
        let wanted = match on_demand < pool.on_demand_of(all + 1) {
            true => Market::OnDemand,
            false => Market::Spot,
        };
        let kinds = scenery.kinds.iter().enumerate();
        for (kind, of) in kinds.filter(|(_, kind)| kind.pool == index && kind.room > 0) {
            for market in &pool.markets {
                for (rank, zone) in zones_by_nodes(world, index, pool).into_iter().enumerate() {
                    if let Some(price) = of.price(scenery.policy, zone, *market) {
                        let each = price / f64::from(of.room);
                        let order = (*market != wanted, each, of.spec.name.clone(), rank);
                        offers.push((order, (kind, zone.clone(), *market)));
                    }
                }
            }
        }
    }
    offers.sort_by(
        |((other_a, each_a, name_a, rank_a), _), ((other_b, each_b, name_b, rank_b), _)| {
            let by_market = other_a.cmp(other_b);
            let by_price = by_market.then(each_a.total_cmp(each_b));
            by_price.then_with(|| name_a.cmp(name_b)).then(rank_a.cmp(rank_b))
        },
    );
    offers.into_iter().map(|(_, offer)| offer).collect()
}

/// The Ready node with the fewest pods, the youngest of those.
fn emptiest(world: &World<'_>) -> Option<NodeId> {
    let scenery = world.scenery();
    let may = |node: &&crate::world::Node| {
        let pool = scenery.kinds[node.kind].pool;
        let of = &scenery.policy.pools[pool];
        let staying = of_pool(world, pool).count();
        node.is_open() && staying > of.min_nodes as usize && may_go(world, pool, of, node)
    };
    let order = |node: &&crate::world::Node| {
        (
            node.pods.len(),
            std::cmp::Reverse(node.launched),
            std::cmp::Reverse(node.id),
        )
    };
    world
        .nodes()
        .iter()
        .filter(may)
        .min_by_key(order)
        .map(|node| node.id)
}
