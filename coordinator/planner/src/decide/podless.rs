//! Nodes that are launched for no pod: for minimums, and for averages above the thresholds.

use super::{
    Context,
    offerings::Offering,
    packing::{Room, that_hold},
};
use crate::{
    Launch, Rule,
    model::{InstanceType, Resources},
    placement::{Place, World},
    policy::Pool,
};

/// One amount of what a node has.
type Amount = fn(&Resources) -> f64;

/// Which limits were met.
#[derive(Default)]
pub(super) struct Limits {
    pub(super) at_max: bool,
    pub(super) out_of_steps: bool,
    pub(super) too_dear: bool,
}

impl<'a> Context<'a> {
    /// The cheapest offering of a pool in the market that its next node should be of; among equal prices the zone with
    /// the fewest nodes of the pool.
    fn cheapest(
        &self,
        room: &Room,
        pool_index: usize,
        wanted: impl Fn(&Offering<'a>) -> bool,
    ) -> Option<usize> {
        let pool = self.policy.pools.get(pool_index)?;
        let count = room.pools.get(&pool.name)?;
        if count.nodes >= pool.max_nodes as usize {
            return None;
        }
        count.markets(pool).into_iter().find_map(|market| {
            let candidates = (0..self.offerings.len()).filter(|index| {
                let offering = &self.offerings[*index];
                offering.pool == pool_index
                    && offering.market == market
                    && !offering.backed_off
                    && wanted(offering)
            });
            candidates.min_by(|a, b| {
                let key = |index: &usize| {
                    let offering = &self.offerings[*index];
                    (
                        offering.price,
                        count.zones.get(&offering.zone).copied().unwrap_or(0),
                        *index,
                    )
                };
                let ((pa, za, ia), (pb, zb, ib)) = (key(a), key(b));
                pa.total_cmp(&pb).then(za.cmp(&zb)).then(ia.cmp(&ib))
            })
        })
    }

    /// Nodes for the pools' minimums and for the cluster's.
    pub(super) fn fill_minimums(
        &self,
        world: &mut World<'a>,
        room: &mut Room,
        launches: &mut Vec<Launch>,
        limited: &mut Limits,
    ) {
        for (index, pool) in self.policy.pools.iter().enumerate() {
            let staying = |room: &Room| {
                room.pools
                    .get(&pool.name)
                    .map_or(0, |c| c.nodes - c.being_deleted)
            };
            while staying(room) < self.floors.of_pool(index) {
                let Some(offering) = self.cheapest(room, index, |_| true) else {
                    break;
                };
                if !self.launch_empty(world, room, launches, offering, limited, |_| true) {
                    break;
                }
            }
        }
        let all_tainted = self.policy.pools.iter().all(Pool::is_tainted);
        loop {
            let staying: usize = room
                .pools
                .values()
                .map(|count| count.nodes - count.being_deleted)
                .sum();
            if staying >= self.floors.all.nodes {
                break;
            }
            let cheapest = (0..self.policy.pools.len())
                .filter(|index| all_tainted || !self.policy.pools[*index].is_tainted())
                .filter_map(|index| self.cheapest(room, index, |_| true))
                .min_by(|a, b| {
                    self.offerings[*a]
                        .price
                        .total_cmp(&self.offerings[*b].price)
                        .then(a.cmp(b))
                });
            let Some(offering) = cheapest else { break };
            if !self.launch_empty(world, room, launches, offering, limited, |_| true) {
                break;
            }
        }
    }

    /// The fewest nodes that bring the projected averages down to the thresholds, at least one; among equally few the
    /// cheapest. What is used now is spread over the Ready nodes, those under way and the new ones.
    pub(super) fn follow_averages(
        &self,
        world: &mut World<'a>,
        room: &mut Room,
        launches: &mut Vec<Launch>,
        limited: &mut Limits,
    ) {
        let averages = &self.averages;
        let nodes = &self.snapshot.cluster.nodes;
        let mut lacking: Vec<(f64, Amount)> = Vec::new();
        let coming = || {
            world
                .hosts
                .iter()
                .filter(|host| matches!(host.place, Place::Launching(_) | Place::Planned))
        };
        let rules: [(&Rule, Amount); 2] = [
            (&averages.cpu_above, |room| room.cpu.as_f64()),
            (&averages.memory_above, |room| room.memory.as_f64()),
        ];
        for (rule, of) in rules.into_iter().filter(|(rule, _)| rule.fired) {
            let ready = nodes.iter().filter(|node| node.ready);
            let ready: f64 = ready.map(|node| of(&node.allocatable)).sum();
            let under_way: f64 = coming().map(|host| of(&host.allocatable)).sum();
            let needed = ready * rule.value.unwrap_or(0.0) / rule.threshold.max(1e-9);
            lacking.push((needed - ready - under_way, of));
        }
        let mut first = true;
        while first || lacking.iter().any(|(lack, _)| *lack > 1e-6) {
            first = false;
            // How many nodes of an offering alone would do: fewest first, then cheapest.
            let nodes_of = |offering: &Offering<'_>| {
                lacking
                    .iter()
                    .map(|(lack, of)| {
                        (lack / of(&offering.host.allocatable).max(1e-9) - 1e-9)
                            .ceil()
                            .max(1.0)
                    })
                    .fold(1.0, f64::max)
            };
            let open: Vec<usize> = (0..self.policy.pools.len())
                .filter(|index| {
                    !self.policy.pools[*index].is_tainted() || self.policy.pools.iter().all(Pool::is_tainted)
                })
                .collect();
            let fewest = |index: usize| {
                let offerings = self.offerings.iter().filter(|o| o.pool == index && !o.backed_off);
                offerings.map(nodes_of).fold(f64::INFINITY, f64::min)
            };
            let best = open
                .iter()
                .filter_map(|index| {
                    let few = fewest(*index);
                    self.cheapest(room, *index, |o| nodes_of(o) <= few)
                        .map(|offering| (few, offering))
                })
                .min_by(|a, b| {
                    let price = |x: &(f64, usize)| self.offerings[x.1].price;
                    a.0.total_cmp(&b.0)
                        .then_with(|| price(a).total_cmp(&price(b)))
                        .then(a.1.cmp(&b.1))
                });
            let Some((few, offering)) = best else {
                limited.at_max |= !self.offerings.is_empty() && open.iter().all(|i| self.is_full(room, *i));
                return;
            };
            let does = |o: &Offering<'_>| nodes_of(o) <= few;
            if !self.launch_empty(world, room, launches, offering, limited, does) {
                return;
            }
            for (lack, of) in &mut lacking {
                *lack -= of(&self.offerings[offering].host.allocatable);
            }
        }
    }

    fn is_full(&self, room: &Room, pool: usize) -> bool {
        let pool = &self.policy.pools[pool];
        room.pools
            .get(&pool.name)
            .is_some_and(|count| count.nodes >= pool.max_nodes as usize)
    }

    /// Launches a node for no pod. `false` if a limit forbids it.
    fn launch_empty(
        &self,
        world: &mut World<'a>,
        room: &mut Room,
        launches: &mut Vec<Launch>,
        index: usize,
        limited: &mut Limits,
        does: impl Fn(&Offering<'a>) -> bool,
    ) -> bool {
        if room.nodes == 0 {
            let nodes: usize = room.pools.values().map(|count| count.nodes).sum();
            if nodes >= self.policy.limits.max_nodes as usize {
                limited.at_max = true;
            } else {
                limited.out_of_steps = true;
            }
            return false;
        }
        let offering = &self.offerings[index];
        if !self.affords(launches, offering) {
            limited.too_dear = true;
            return false;
        }
        let allowed = |name: &InstanceType| {
            self.offerings.iter().any(|o| {
                o.pool == offering.pool
                    && o.zone == offering.zone
                    && o.market == offering.market
                    && o.spec.name == *name
                    && does(o)
            })
        };
        let types = that_hold(world, &self.offerings, index, &[]);
        let names = types.map(|offering| &offering.spec.name);
        launches.push(self.element(offering, names.filter(|name| allowed(name)), &[]));
        world.push(super::offerings::named(
            &offering.host,
            &format!("launch[{}]", launches.len() - 1),
        ));
        self.count(room, offering);
        true
    }
}
