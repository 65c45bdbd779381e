//! Packing pods that wait onto new nodes: cheapest total first, then fewer nodes, then names.
//!
//! Several packings are made and the best one taken. Each adds one node after another, the one that holds its pods at
//! the best price compared with what those pods would cost at least; one packing may use every type, the others a single
//! type each. The price of a node is that of the cheapest type that holds the pods it was given.

use std::{collections::BTreeMap, sync::Arc};

use super::offerings::{Offering, PoolCount, named};
use crate::{
    Policy,
    model::{Market, Pod, PoolName, Resources},
    placement::{Host, ShapeId, World},
    policy::TypeSpec,
};

/// How many nodes may be launched.
#[derive(Clone, Debug)]
pub(super) struct Room {
    /// In all.
    pub(super) nodes: usize,
    /// Counts of each pool, kept up to date while packing.
    pub(super) pools: BTreeMap<PoolName, PoolCount>,
}

/// A node of a packing.
#[derive(Clone, Debug)]
pub(super) struct PackedNode<'a> {
    pub(super) offering: usize,
    /// Every type that would do, cheapest first.
    pub(super) types: Vec<(Arc<TypeSpec>, f64)>,
    pub(super) pods: Vec<&'a Pod>,
}

/// New nodes with their pods, and pods that found room on older nodes once others had been placed.
#[derive(Clone, Debug, Default)]
pub(super) struct Packing<'a> {
    pub(super) nodes: Vec<PackedNode<'a>>,
    pub(super) elsewhere: Vec<(&'a Pod, usize)>,
    /// All of them in the order in which they were placed, each with its host; new nodes come after those of the world.
    pub(super) order: Vec<(&'a Pod, usize)>,
    pub(super) left: Vec<&'a Pod>,
}

impl Packing<'_> {
    fn cost(&self) -> f64 {
        self.nodes
            .iter()
            .map(|node| node.types.first().map_or(0.0, |(_, price)| *price))
            .sum()
    }

    /// Fewer pods left, then cheaper, then fewer nodes.
    fn is_better_than(&self, other: &Self) -> bool {
        if self.left.len() != other.left.len() {
            return self.left.len() < other.left.len();
        }
        let (mine, theirs) = (self.cost(), other.cost());
        if (mine - theirs).abs() > 1e-9 {
            return mine < theirs;
        }
        self.nodes.len() < other.nodes.len()
    }
}

/// Work bound: so many pod-against-offering trials for all alternative packings together.
const TRIALS: usize = 400_000;

/// The best packing of those considered. The world is left as it was; so is `room`.
pub(super) fn best<'a>(
    world: &mut World<'a>,
    offerings: &[Offering<'a>],
    policy: &Policy,
    pods: &[&'a Pod],
    room: &Room,
) -> Packing<'a> {
    // A pod that asks for a type by label may need one that another type outdoes.
    let names_types = pods.iter().any(|pod| {
        pod.node_selector.contains_key(crate::model::keys::INSTANCE_TYPE)
            || pod
                .node_affinity
                .required
                .iter()
                .flatten()
                .flat_map(|term| &term.expressions)
                .next()
                .is_some()
    });
    let usable: Vec<usize> = (0..offerings.len())
        .filter(|i| !offerings[*i].backed_off && (names_types || !offerings[*i].dominated))
        .collect();
    let mut best = pack(world, offerings, policy, pods, room.clone(), &usable);
    let mut types: Vec<&crate::model::InstanceType> = Vec::new();
    for index in &usable {
        if !types.contains(&&offerings[*index].spec.name) {
            types.push(&offerings[*index].spec.name);
        }
    }
    let mut trials = 0;
    for name in types {
        let only: Vec<usize> = usable
            .iter()
            .copied()
            .filter(|i| offerings[*i].spec.name == *name)
            .collect();
        trials += pods.len() * only.len() * (1 + best.nodes.len());
        if trials > TRIALS {
            break;
        }
        let other = pack(world, offerings, policy, pods, room.clone(), &only);
        if other.is_better_than(&best) {
            best = other;
        }
    }
    best
}

/// Adds nodes of these offerings until nothing more can be placed.
fn pack<'a>(
    world: &mut World<'a>,
    offerings: &[Offering<'a>],
    policy: &Policy,
    pods: &[&'a Pod],
    mut room: Room,
    usable: &[usize],
) -> Packing<'a> {
    let existing = world.hosts.len();
    let mut left: Vec<&'a Pod> = pods.to_vec();
    let mut elsewhere: Vec<(&'a Pod, usize)> = Vec::new();
    let mut order: Vec<(&'a Pod, usize)> = Vec::new();
    let mut chosen: Vec<usize> = Vec::new();
    let references = references(offerings, usable, pods);
    loop {
        // What has just been placed may have made room for others: affinity is met, a domain is no longer the fullest.
        let mut placed = true;
        while placed {
            placed = false;
            left.retain(|pod| {
                if !world.looks_around(pod) {
                    return true;
                }
                let Some(host) = world.find(pod, |host| host.accepts) else {
                    return true;
                };
                world.put(pod, host);
                order.push((pod, host));
                if host < existing {
                    elsewhere.push((pod, host));
                }
                placed = true;
                false
            });
        }
        if left.is_empty() || chosen.len() >= room.nodes {
            break;
        }
        let Some((offering, taken)) = next_node(world, offerings, policy, &left, &room, usable, &references)
        else {
            break;
        };
        let host = named(&offerings[offering].host, &format!("launch[{}]", chosen.len()));
        let last = world.push(host);
        for pod in &taken {
            world.put(pod, last);
            order.push((pod, last));
        }
        left.retain(|pod| !taken.iter().any(|other| std::ptr::eq(*other, *pod)));
        let offering_ref = &offerings[offering];
        if let Some(count) = room.pools.get_mut(&policy.pools[offering_ref.pool].name) {
            count.add(Some(offering_ref.zone.clone()), offering_ref.market);
        }
        chosen.push(offering);
    }
    let launched = world.truncate(existing);
    let nodes = chosen
        .iter()
        .zip(launched)
        .map(|(offering, host)| {
            let daemons = offerings[*offering].host.pods.len();
            let pods: Vec<&'a Pod> = host.pods.iter().skip(daemons).copied().collect();
            PackedNode {
                offering: *offering,
                types: types_for(world, offerings, *offering, &pods),
                pods,
            }
        })
        .collect();
    for (pod, host) in &elsewhere {
        world.take(pod, *host);
    }
    Packing {
        nodes,
        elsewhere,
        order,
        left,
    }
}

/// What each pod costs at least: its largest share of a node times the node's price, on the offering where that is least.
fn references(offerings: &[Offering<'_>], usable: &[usize], pods: &[&Pod]) -> BTreeMap<*const Pod, f64> {
    let mut known: Vec<(crate::model::Resources, f64)> = Vec::new();
    pods.iter()
        .map(|pod| {
            let request = &pod.requests;
            if let Some((_, cost)) = known.iter().find(|(other, _)| other == request) {
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
            known.push((request.clone(), cost));
            (std::ptr::from_ref(*pod), cost)
        })
        .collect()
}

/// The next node: the offering whose price is lowest against the least cost of the pods that it would hold. Ties: more
/// pods' worth, then the zone with the fewest nodes of the pool, then by name.
fn next_node<'a>(
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
        let wanted = count.wanted(pool);
        let other = if wanted == Market::Spot {
            Market::OnDemand
        } else {
            Market::Spot
        };
        for market in [wanted, other] {
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
        let mut refused: Option<&Pod> = None;
        for pod in left {
            if taken.iter().any(|other| std::ptr::eq(*other, *pod))
                || refused.is_some_and(|other| super::is_alike(other, pod))
            {
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
                refused = Some(pod);
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

/// Every type of the offering's pool, zone and market that holds all these pods, cheapest first.
pub(super) fn types_for(
    world: &World<'_>,
    offerings: &[Offering<'_>],
    like: usize,
    pods: &[&Pod],
) -> Vec<(Arc<TypeSpec>, f64)> {
    let like = &offerings[like];
    let mut asked = Resources::default();
    let mut shapes: Vec<(ShapeId, &Pod)> = Vec::new();
    for pod in pods {
        asked.add(&pod.requests);
        let shape = world.classes.shape(pod);
        if !shapes.iter().any(|(known, _)| *known == shape) {
            shapes.push((shape, pod));
        }
    }
    let with_volumes = shapes.iter().filter(|(_, pod)| !pod.volumes.is_empty());
    let with_volumes: Vec<ShapeId> = with_volumes.map(|(shape, _)| *shape).collect();
    // One pod that asks for all of it at once, then one of each shape for what does not add up.
    let fits = |host: &Host<'_>| {
        (pods.is_empty()
            || (host.allocatable.fits(&host.used, &asked).is_ok()
                && host.allocatable.short_extended(&host.used, &asked).is_none()))
            && shapes.iter().all(|(_, pod)| world.check_alone(pod, host).is_ok())
            && (with_volumes.is_empty() || world.attaches(&with_volumes, host))
    };
    offerings
        .iter()
        .filter(|o| o.pool == like.pool && o.market == like.market && o.zone == like.zone && !o.backed_off)
        .filter(|offering| fits(&offering.host))
        .map(|offering| (Arc::clone(&offering.spec), offering.price))
        .collect()
}
