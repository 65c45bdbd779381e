//! Packing node by node: always the offering whose price is lowest against the least cost of the pods that its node would
//! hold. Slower than drafts for a whole batch, but nothing is too odd for it: every trial asks the world.

use std::collections::BTreeMap;

use super::{offerings::Offering, packing::Room};
use crate::{
    Policy,
    model::{Pod, Resources},
    placement::{QuickMap, World},
};

/// Of each pool, zone, market and step of prices the cheapest and the dearest, where there are too many to try them all.
pub(super) fn thin(offerings: &[Offering<'_>], usable: &[usize]) -> Vec<usize> {
    let mut steps: BTreeMap<(usize, i64), (usize, usize)> = BTreeMap::new();
    for index in usable {
        let offering = &offerings[*index];
        #[allow(clippy::cast_possible_truncation, reason = "a logarithm of a price")]
        let step = (offering.price.max(1e-6).ln() / 0.7).floor() as i64;
        let ends = steps.entry((offering.group, step)).or_insert((*index, *index));
        ends.1 = *index;
    }
    let mut thinned: Vec<usize> = steps
        .into_values()
        .flat_map(|(first, last)| [first, last])
        .collect();
    thinned.sort_unstable();
    thinned.dedup();
    thinned
}

/// What each pod costs at least: its largest share of a node times the node's price, on the offering where that is least.
pub(super) fn references(
    offerings: &[Offering<'_>],
    usable: &[usize],
    pods: &[&Pod],
) -> BTreeMap<*const Pod, f64> {
    let mut known: QuickMap<&Resources, f64> = QuickMap::default();
    pods.iter()
        .map(|pod| {
            let request = &pod.requests;
            if let Some(cost) = known.get(request) {
                return (std::ptr::from_ref(*pod), *cost);
            }
            let share = |asked: f64, free: f64| {
                if asked <= 0.0 {
                    0.0
                } else if free <= 0.0 {
                    f64::INFINITY
                } else {
                    asked / free
                }
            };
            let cost = usable
                .iter()
                .map(|index| {
                    let (host, price) = (&offerings[*index].host, offerings[*index].price);
                    let (have, used) = (&host.allocatable, &host.used);
                    let largest = share(request.cpu.as_f64(), have.cpu.minus(used.cpu).as_f64()).max(share(
                        request.memory.as_f64(),
                        have.memory.minus(used.memory).as_f64(),
                    ));
                    price.max(1e-6) * largest.max(1e-3)
                })
                .fold(f64::INFINITY, f64::min);
            known.insert(request, cost);
            (std::ptr::from_ref(*pod), cost)
        })
        .collect()
}

/// The next node: the offering whose price is lowest against the least cost of the pods that it would hold. Ties: more
/// pods' worth, then the zone with the fewest nodes of the pool, then by name.
pub(super) fn next_node<'a>(
    world: &mut World<'a>,
    offerings: &[Offering<'a>],
    policy: &Policy,
    left: &[&'a Pod],
    room: &Room,
    usable: &[usize],
    references: &BTreeMap<*const Pod, f64>,
) -> Option<(usize, Vec<&'a Pod>)> {
    let mut best: Option<(usize, Vec<&'a Pod>, f64, f64, usize)> = None;
    for (pool_index, pool) in policy.pools.iter().enumerate() {
        let count = room.pools.get(&pool.name)?;
        if count.nodes >= pool.max_nodes as usize {
            continue;
        }
        for market in count.markets(pool) {
            let mut found = false;
            for index in usable.iter().copied() {
                let offering = &offerings[index];
                if offering.pool != pool_index || offering.market != market {
                    continue;
                }
                let taken = fill(world, offering, left);
                let worth: f64 = taken
                    .iter()
                    .map(|pod| references.get(&std::ptr::from_ref(*pod)).copied().unwrap_or(0.0))
                    .sum();
                if taken.is_empty() {
                    continue;
                }
                found = true;
                let score = offering.price / worth.max(1e-12);
                let zone = count.zones.get(&offering.zone).copied().unwrap_or(0);
                let better = best
                    .as_ref()
                    .is_none_or(|(_, _, other_score, other_worth, other_zone)| {
                        if (score - other_score).abs() > 1e-9 * other_score.abs() {
                            return score < *other_score;
                        }
                        if (worth - other_worth).abs() > 1e-9 * other_worth.abs() {
                            return worth > *other_worth;
                        }
                        zone < *other_zone
                    });
                if better {
                    best = Some((index, taken, score, worth, zone));
                }
            }
            // Without an offering of the wanted market the other allowed one is used.
            if found {
                break;
            }
        }
    }
    best.map(|(index, taken, ..)| (index, taken))
}

/// The pods that such a node would take, tried in order, again until none fits.
fn fill<'a>(world: &mut World<'a>, offering: &Offering<'a>, left: &[&'a Pod]) -> Vec<&'a Pod> {
    let index = world.push(offering.host.clone());
    let mut taken: Vec<&'a Pod> = Vec::new();
    loop {
        let before = taken.len();
        // A pod like one that has just been refused is refused as well.
        let mut refused: Option<usize> = None;
        for pod in left {
            let class = world.classes.class(pod);
            if refused == Some(class) || taken.iter().any(|other| std::ptr::eq(*other, *pod)) {
                continue;
            }
            let fits = match world.check_alone(pod, &world.hosts[index]) {
                Err(_) => false,
                Ok(()) if world.looks_around(pod) => world.check(pod, &world.hosts[index]).is_ok(),
                Ok(()) => true,
            };
            if fits {
                world.put(pod, index);
                taken.push(pod);
            } else {
                refused = Some(class);
            }
        }
        let again = taken.len() > before && taken.iter().any(|pod| world.looks_around(pod));
        if !again || taken.len() == left.len() {
            break;
        }
    }
    world.truncate(index);
    taken
}
