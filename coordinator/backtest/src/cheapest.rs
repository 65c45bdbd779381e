//! C(n): the cheapest set of nodes that holds n pods within minimums, maximums and shares of markets, in any zone.
//!
//! ```text
//!   pool after pool, node after node of it:   best[N][r] = min over types ( best[N − 1][r − room] + price )
//!   where node k of a pool is on demand if `on_demand_of(k) > on_demand_of(k − 1)`, else of the cheaper market
//! ```
//! The number of nodes that must be on demand grows by one at most from one node of a pool to the next; so a pool's nodes can
//! be bought one after the other. `best[N][r]` is the least cost of N nodes that hold r pods or more.

use std::collections::BTreeMap;

use smartscale_planner::{Policy, model::Market};

use crate::kinds::Kind;

/// The cheapest sets for every number of pods up to a bound.
#[derive(Debug)]
pub(crate) struct Cheapest {
    /// By pods.
    sets: Vec<Set>,
    rooms: Vec<u32>,
    /// What is needed to say which nodes a set has.
    pools: Vec<(Vec<Layer>, Taken)>,
}

/// A set of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Set {
    /// USD per hour.
    pub(crate) cost: f64,
    /// How many nodes.
    pub(crate) nodes: usize,
    /// Pods that it was chosen for: fewer than were asked for, where no set holds them all.
    pods: usize,
}

/// A way to a state: what was bought last.
#[derive(Debug, Clone, Copy)]
struct Step {
    cost: f64,
    kind: u32,
    market: Market,
}

const NOWHERE: Step = Step {
    cost: f64::INFINITY,
    kind: 0,
    market: Market::OnDemand,
};

/// After some nodes of a pool: by the number of nodes of all pools so far, then by pods held. What cannot be has no row.
type Layer = BTreeMap<usize, Vec<Step>>;
/// How many nodes of a pool the best way to a state takes.
type Taken = BTreeMap<usize, Vec<usize>>;

/// More states than these are not looked at: some hundred megabytes.
const MOST_STATES: usize = 50_000_000;

/// The fleet is too large to be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Cheapest {
    /// Looks for the cheapest sets for up to `most` pods.
    ///
    /// # Errors
    /// [`TooMany`] where that would take too much memory.
    pub(crate) fn new(policy: &Policy, kinds: &[Kind], most: u32) -> Result<Self, TooMany> {
        let most = most as usize;
        let limits = policy.limits;
        let minimums: usize = policy.pools.iter().map(|pool| pool.min_nodes as usize).sum();
        // A node that holds no pod is there for a minimum.
        let useful = most
            .saturating_add(minimums)
            .saturating_add(limits.min_nodes as usize);
        let max_nodes = (limits.max_nodes as usize).min(useful);
        let mut states: usize = 0;
        let mut begin = Layer::from([(0, vec![NOWHERE; most + 1])]);
        if let Some(nothing) = begin.get_mut(&0).and_then(|row| row.first_mut()) {
            nothing.cost = 0.0;
        }
        let mut pools = Vec::new();
        for (index, pool) in policy.pools.iter().enumerate() {
            let offers = Offers::new(policy, kinds, index);
            let (least, greatest) = (pool.min_nodes as usize, (pool.max_nodes as usize).min(max_nodes));
            let mut bought = vec![begin];
            for k in 1..=greatest {
                let forced = pool.on_demand_of(k) > pool.on_demand_of(k - 1);
                let next = grown(&bought[k - 1], offers.of(forced), max_nodes);
                states += next.len() * (most + 1);
                if states > MOST_STATES {
                    return Err(TooMany);
                }
                bought.push(next);
            }
            // What the next pool begins with, and how many nodes of this one that takes.
            let mut best = Layer::new();
            let mut taken = Taken::new();
            for (k, layer) in bought.iter().enumerate().skip(least.min(greatest)) {
                for (nodes, row) in layer {
                    let best = best.entry(*nodes).or_insert_with(|| vec![NOWHERE; most + 1]);
                    let taken = taken.entry(*nodes).or_insert_with(|| vec![0; most + 1]);
                    for ((step, best), taken) in row.iter().zip(best).zip(taken) {
                        if step.cost < best.cost {
                            (*best, *taken) = (*step, k);
                        }
                    }
                }
            }
            pools.push((bought, taken));
            begin = best;
        }
        let min_nodes = (limits.min_nodes as usize).min(max_nodes);
        let mut sets: Vec<Set> = Vec::with_capacity(most + 1);
        for pods in 0..=most {
            let fleets = begin.range(min_nodes..).filter_map(|(nodes, row)| {
                let cost = row.get(pods)?.cost;
                let nodes = *nodes;
                cost.is_finite().then_some(Set { cost, nodes, pods })
            });
            let cheapest = fleets.min_by(|a, b| a.cost.total_cmp(&b.cost).then(a.nodes.cmp(&b.nodes)));
            // Else the cheapest set with most room.
            let most_room = sets.last().copied();
            sets.extend(cheapest.or(most_room).or(Some(Set::default())));
        }
        Ok(Self {
            sets,
            rooms: kinds.iter().map(|kind| kind.room).collect(),
            pools,
        })
    }

    /// The cheapest set for so many pods.
    pub(crate) fn of(&self, pods: u32) -> Set {
        let set = self.sets.get(pods as usize).or(self.sets.last());
        set.copied().unwrap_or_default()
    }

    /// Index of the kind, and market, of each node of a set.
    pub(crate) fn nodes(&self, set: Set) -> Vec<(usize, Market)> {
        let Set {
            mut nodes, mut pods, ..
        } = set;
        let mut found = Vec::with_capacity(nodes);
        for (layers, taken) in self.pools.iter().rev() {
            let Some(most) = taken.get(&nodes).and_then(|row| row.get(pods)) else {
                break;
            };
            for k in (1..=*most).rev() {
                let step = layers[k][&nodes][pods];
                let kind = step.kind as usize;
                found.push((kind, step.market));
                pods = pods.saturating_sub(self.rooms[kind] as usize);
                nodes -= 1;
            }
        }
        found.reverse();
        found
    }
}

/// What a node of a pool may be: kind, room, price, market.
type Offer = (u32, usize, f64, Market);

/// What the nodes of a pool may be, each kind in its cheaper market.
struct Offers {
    on_demand: Vec<Offer>,
    any: Vec<Offer>,
}

impl Offers {
    fn new(policy: &Policy, kinds: &[Kind], pool: usize) -> Self {
        let of_pool = || kinds.iter().zip(0..).filter(|(kind, _)| kind.pool == pool);
        let offer = |kind: &Kind, index: u32, market: Market| {
            let price = kind.least_price(policy, market)?;
            Some((index, kind.room as usize, price, market))
        };
        let on_demand = of_pool().filter_map(|(kind, index)| offer(kind, index, Market::OnDemand));
        let cheaper = |(kind, index): (&Kind, u32)| {
            let markets = [Market::Spot, Market::OnDemand].into_iter();
            let offers = markets.filter_map(|market| offer(kind, index, market));
            offers.min_by(|a, b| a.2.total_cmp(&b.2))
        };
        Self {
            on_demand: on_demand.collect(),
            any: of_pool().filter_map(cheaper).collect(),
        }
    }

    fn of(&self, on_demand: bool) -> &[Offer] {
        if on_demand { &self.on_demand } else { &self.any }
    }
}

/// One node more of a pool.
fn grown(last: &Layer, offers: &[Offer], max_nodes: usize) -> Layer {
    let rows = last.iter().filter(|(nodes, _)| **nodes < max_nodes);
    let rows = rows.map(|(nodes, before)| {
        let step = |pods: usize| {
            let mut best = NOWHERE;
            for (kind, room, price, market) in offers {
                let cost = before[pods.saturating_sub(*room)].cost + price;
                if cost < best.cost {
                    best = Step {
                        cost,
                        kind: *kind,
                        market: *market,
                    };
                }
            }
            best
        };
        (nodes + 1, (0..before.len()).map(step).collect())
    });
    rows.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use proptest::prelude::*;

    use super::*;
    use crate::{kinds, workload::Workload};

    fn workload() -> Workload {
        Workload::from_toml("[workload]\nrequests_per_pod = 1.0\ncpu = \"500m\"\nmemory = \"512Mi\"\n")
            .unwrap()
    }

    fn policy(limits: &str, pool: &str) -> Policy {
        let text = format!(
            "[cluster]\nid = \"c\"\n[limits]\n{limits}\n[[pool]]\nname = \"w\"\nzones = [\"us-east-1a\"]\n{pool}\n
             [[instance_type]]\nname = \"s\"\ncpu = \"1\"\nmemory = \"2Gi\"\non_demand_price = 1.0\nspot_price = 0.3\n
             [[instance_type]]\nname = \"l\"\ncpu = \"4\"\nmemory = \"8Gi\"\non_demand_price = 3.0\n"
        );
        Policy::from_toml(&text).unwrap().0
    }

    fn cheapest(policy: &Policy, most: u32) -> Cheapest {
        Cheapest::new(policy, &kinds::all(policy, &workload()), most).unwrap()
    }

    #[test]
    fn the_cheapest_mix_holds_the_pods_within_the_minimum() {
        // `s` holds 2 for 1, `l` 8 for 3.
        let policy = policy("min_nodes = 1\nmax_nodes = 4", "instance_types = [\"s\", \"l\"]");
        let sets = cheapest(&policy, 40);
        let cost = |pods| sets.of(pods).cost;
        assert_eq!(
            [0, 2, 3, 4, 5, 8, 9, 11].map(cost),
            [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 5.0]
        );
        assert_eq!(sets.nodes(sets.of(11)).len(), 3);
        // More than the maximum can hold: most room, 4 × 8.
        assert_eq!(
            (cost(32), cost(33), cost(40), cost(1000)),
            (12.0, 12.0, 12.0, 12.0)
        );
    }

    #[test]
    fn shares_of_markets_are_kept_and_what_has_no_spot_price_is_on_demand() {
        let pool = "instance_types = [\"s\"]\nmarkets = [\"spot\", \"on-demand\"]\non_demand_base = 1\nspot_share_percent = 50";
        let policy = policy("min_nodes = 1\nmax_nodes = 5", pool);
        let sets = cheapest(&policy, 10);
        let markets = |pods: u32| {
            let is_spot = |(_, market): &&(usize, Market)| *market == Market::Spot;
            let nodes = sets.nodes(sets.of(pods));
            (nodes.len(), nodes.iter().filter(is_spot).count())
        };
        // 1 + ceil((n − 1) / 2) on demand.
        assert_eq!(
            [2, 4, 6, 8, 10].map(markets),
            [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)]
        );
        assert!((sets.of(10).cost - 3.6).abs() < 1e-9);
    }

    #[test]
    fn pools_share_the_clusters_limits_and_a_tainted_one_takes_no_pod() {
        let text = "[cluster]\nid = \"c\"\n[limits]\nmin_nodes = 0\nmax_nodes = 3\n
            [[pool]]\nname = \"a\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"s\"]\nmax_nodes = 1\n
            [[pool]]\nname = \"b\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"l\"]\n
            [[pool]]\nname = \"t\"\nzones = [\"us-east-1a\"]\ninstance_types = [\"s\"]\nmin_nodes = 1\n
            taints = [{ key = \"k\", value = \"v\", effect = \"NoSchedule\" }]\n
            [[instance_type]]\nname = \"s\"\ncpu = \"1\"\nmemory = \"2Gi\"\non_demand_price = 1.0\n
            [[instance_type]]\nname = \"l\"\ncpu = \"4\"\nmemory = \"8Gi\"\non_demand_price = 3.0\n";
        let policy = Policy::from_toml(text).unwrap().0;
        let sets = cheapest(&policy, 20);
        let cost = |pods| sets.of(pods).cost;
        assert_eq!(
            [0, 2, 3, 8, 10, 16, 17].map(cost),
            [1.0, 2.0, 4.0, 4.0, 5.0, 7.0, 7.0]
        );
    }

    #[test]
    fn a_fleet_that_nobody_needs_takes_no_memory_and_one_that_is_too_large_is_refused() {
        let vast = policy(
            "min_nodes = 0\nmax_nodes = 4000000000",
            "instance_types = [\"s\", \"l\"]",
        );
        assert_eq!(cheapest(&vast, 100).of(100).cost, 38.0);
        let kinds = kinds::all(&vast, &workload());
        assert_eq!(Cheapest::new(&vast, &kinds, 10_000).unwrap_err(), TooMany);
    }

    proptest! {
        /// Against every set that there is.
        #[test]
        fn no_set_is_cheaper(pods in 0_u32..20, max in 1_u32..5, base in 0_u32..3, share in 0_u32..=100) {
            let pool = format!(
                "instance_types = [\"s\", \"l\"]\nmarkets = [\"spot\", \"on-demand\"]\non_demand_base = {base}\nspot_share_percent = {share}"
            );
            let policy = policy(&format!("min_nodes = 1\nmax_nodes = {max}"), &pool);
            let found = cheapest(&policy, 20).of(pods);
            let mut best: Option<(bool, u32, f64)> = None;
            for s in 0..=max { for spot in 0..=s { for l in 0..=max - s {
                let nodes = s + l;
                if nodes == 0 || (nodes - spot) < u32::try_from(policy.pools[0].on_demand_of(nodes as usize)).unwrap() {
                    continue;
                }
                let room = s * 2 + l * 8;
                let cost = f64::from(s - spot) + f64::from(spot) * 0.3 + f64::from(l) * 3.0;
                let key = (room >= pods, if room >= pods { 0 } else { room }, cost);
                let better = best.is_none_or(|(holds, most, least)| match (key.0, holds) {
                    (true, false) => true,
                    (false, true) => false,
                    (true, true) => cost < least,
                    (false, false) => room > most || room == most && cost < least,
                });
                if better { best = Some(key); }
            } } }
            let (_, _, cost) = best.unwrap();
            prop_assert!((found.cost - cost).abs() < 1e-9, "{} for {}", found.cost, cost);
        }
    }
}
