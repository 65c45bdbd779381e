//! Preferences are honoured while that costs nothing.
//!
//! ```text
//! plan that knows of no preference ─▶ nodes change zone, type or pool at the same price ─┐
//!            ▲                     └▶ pods change places, alone or in pairs ─────────────┤ again while it helps
//!            └──────────── undone if some pod could no longer be placed in its turn ◀────┘
//! ```
//!
//! Places are found without looking at preferences; after that everything may change that neither changes a price nor
//! leaves a pod without a place. So a plan never costs more, nor places fewer pods, because of a preference. Of two that
//! cannot both be had the lesser weight gives way.

use super::{
    Context,
    offerings::{Offering, named},
    packing::Room,
    wishes::{Liking, Wishes},
};
use crate::{
    Policy,
    model::Pod,
    placement::{Host, Place, QuickMap, QuickSet, World},
};

/// Pods with their places, in the order in which these were found, and the nodes that are launched for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Places<'a> {
    /// Each with the index of its host.
    pub(super) pods: Vec<(&'a Pod, usize)>,
    pub(super) nodes: Vec<New>,
}

/// A node that is launched for pods.
#[derive(Clone, Copy, Debug)]
pub(super) struct New {
    pub(super) host: usize,
    pub(super) offering: usize,
    /// What it costs: the price of the cheapest type that does.
    pub(super) price: f64,
}

/// How often everything is gone through.
const ROUNDS: usize = 4;
/// Work bound, in places looked at.
const LOOKS: usize = 5_000_000;
/// With how many hosts that are liked better a swap is tried, and with how many pods of each.
const SWAPS: (usize, usize) = (8, 16);

impl<'a> Context<'a> {
    /// Honours the preferences of these pods as far as it costs nothing. The pods are on their hosts, before and after.
    /// Returns whether anything changed.
    pub(super) fn honour(&self, world: &mut World<'a>, room: &mut Room, places: &mut Places<'a>) -> bool {
        let pods = places.pods.iter().map(|(pod, _)| *pod);
        let Some(wishes) = Wishes::new(world, &self.offerings, pods) else {
            return false;
        };
        let mut search = Search {
            offerings: &self.offerings,
            policy: self.policy,
            index: places
                .pods
                .iter()
                .enumerate()
                .map(|(index, (pod, _))| (std::ptr::from_ref(*pod), index))
                .collect(),
            wishes,
            room,
            places: places.clone(),
            looks: 0,
            ordered: true,
        };
        // With those whose turn matters to others; if that ends badly, without.
        for ordered in [true, false] {
            search.ordered = ordered;
            search.looks = 0;
            if !search.run(world) {
                return false;
            }
            if search.holds(world) {
                *places = search.places;
                return true;
            }
            search.restore(world, places);
        }
        false
    }
}

struct Search<'s, 'a> {
    offerings: &'s [Offering<'a>],
    policy: &'s Policy,
    wishes: Wishes<'a>,
    room: &'s mut Room,
    places: Places<'a>,
    /// Where in `places` a pod stands.
    index: QuickMap<*const Pod, usize>,
    looks: usize,
    /// Pods may change places too whose turn matters to others.
    ordered: bool,
}

impl<'a> Search<'_, 'a> {
    /// Returns whether anything changed.
    fn run(&mut self, world: &mut World<'a>) -> bool {
        self.shrink_nodes(world);
        let mut ever = false;
        for _ in 0..ROUNDS {
            let mut changed = false;
            for node in 0..self.places.nodes.len() {
                changed |= self.improve_node(world, node);
            }
            for pod in 0..self.places.pods.len() {
                changed |= self.improve_pod(world, pod);
            }
            ever |= changed;
            if !changed || self.looks >= LOOKS {
                break;
            }
        }
        ever
    }

    /// Makes every new node one of the type that it is paid for, so that no pod comes for whom a dearer one is needed.
    fn shrink_nodes(&mut self, world: &mut World<'a>) {
        for node in 0..self.places.nodes.len() {
            let New { offering, price, .. } = self.places.nodes[node];
            let like = &self.offerings[offering];
            if like.price <= price + 1e-9 {
                continue;
            }
            let paid = |index: &usize| {
                let other = &self.offerings[*index];
                !other.backed_off && (other.price - price).abs() <= 1e-9
            };
            let siblings = like.siblings.iter().copied();
            siblings
                .filter(paid)
                .any(|index| self.rebuild(world, node, index));
        }
    }

    /// Whether pods may come to the host: new nodes only if they are launched for pods, and no larger than paid for.
    fn takes_part(&self, place: Place, host: usize) -> bool {
        let nodes = &self.places.nodes;
        let new = || nodes.get(host.checked_sub(nodes.first()?.host)?);
        place != Place::Planned
            || new().is_some_and(|node| self.offerings[node.offering].price <= node.price + 1e-9)
    }

    fn put(&mut self, world: &mut World<'a>, pod: &'a Pod, host: usize) {
        world.put(pod, host);
        self.wishes.change(world, pod, host, 1);
    }

    fn take(&mut self, world: &mut World<'a>, pod: &'a Pod, host: usize) {
        world.take(pod, host);
        self.wishes.change(world, pod, host, -1);
    }

    fn place(&mut self, pod: &Pod, host: usize) {
        if let Some(index) = self.index.get(&std::ptr::from_ref(pod)) {
            self.places.pods[*index].1 = host;
        }
    }

    fn may_change(&self, world: &World<'a>, pod: &Pod) -> bool {
        self.ordered || !world.depends_on_order(pod)
    }

    /// What is on a new node beside its DaemonSets' pods.
    fn content(&self, world: &World<'a>, node: usize) -> Vec<&'a Pod> {
        let New { host, offering, .. } = self.places.nodes[node];
        let daemons = self.offerings[offering].host.pods.len();
        world.hosts[host].pods.iter().skip(daemons).copied().collect()
    }

    /// Looks for an offering of the same price that the node's pods like better.
    fn improve_node(&mut self, world: &mut World<'a>, node: usize) -> bool {
        let New {
            host,
            offering,
            price,
        } = self.places.nodes[node];
        let content = self.content(world, node);
        let mut wishes: Vec<(usize, i64)> = Vec::new();
        for wish in content.iter().filter_map(|pod| self.wishes.of(pod)) {
            match wishes.iter_mut().find(|(known, _)| *known == wish) {
                Some((_, number)) => *number += 1,
                None => wishes.push((wish, 1)),
            }
        }
        if wishes.is_empty() || self.looks >= LOOKS || content.iter().any(|pod| !self.may_change(world, pod))
        {
            return false;
        }
        for pod in &content {
            self.wishes.change(world, pod, host, -1);
        }
        let mut here = Liking::default();
        for (wish, number) in &wishes {
            here += self.wishes.liking(*wish, world, host).times(*number);
        }
        let first = self.offerings.partition_point(|other| other.price < price - 1e-9);
        let mut better: Vec<(Liking, usize, usize)> = Vec::new();
        for index in first..self.offerings.len() {
            let other = &self.offerings[index];
            if other.price > price + 1e-9 {
                break;
            }
            if index == offering || !self.may_be(offering, index) {
                continue;
            }
            self.looks += wishes.len();
            let domains = self.wishes.domains(&other.host.labels);
            let mut there = Liking::default();
            for (wish, number) in &wishes {
                there += self.wishes.liking_of(*wish, &other.host, &domains).times(*number);
            }
            if there > here {
                better.push((there, self.nodes_in_zone(index), index));
            }
        }
        for pod in &content {
            self.wishes.change(world, pod, host, 1);
        }
        better.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)).then(a.2.cmp(&b.2)));
        better
            .into_iter()
            .any(|(.., index)| self.rebuild(world, node, index))
    }

    /// Whether limits and shares of markets allow the one offering in the place of the other.
    fn may_be(&self, offering: usize, other: usize) -> bool {
        let (offering, other) = (&self.offerings[offering], &self.offerings[other]);
        if other.backed_off || other.market != offering.market {
            return false;
        }
        let pool = &self.policy.pools[other.pool];
        other.pool == offering.pool
            || self.room.pools.get(&pool.name).is_some_and(|count| {
                count.nodes < pool.max_nodes as usize && count.wanted(pool) == other.market
            })
    }

    fn nodes_in_zone(&self, offering: usize) -> usize {
        let offering = &self.offerings[offering];
        let count = self.room.pools.get(&self.policy.pools[offering.pool].name);
        count.map_or(0, |count| count.zones.get(&offering.zone).copied().unwrap_or(0))
    }

    /// Makes the node one of another offering, if that takes all its pods.
    fn rebuild(&mut self, world: &mut World<'a>, node: usize, offering: usize) -> bool {
        let host = self.places.nodes[node].host;
        let content = self.content(world, node);
        let name = world.hosts[host].name.clone();
        let former = self.exchange(world, host, named(&self.offerings[offering].host, &name));
        for pod in &content {
            if world.check(pod, &world.hosts[host]).is_err() {
                self.exchange(world, host, former);
                return false;
            }
            self.put(world, pod, host);
        }
        self.count(node, offering);
        true
    }

    /// Puts another node in the place of one.
    fn exchange(&mut self, world: &mut World<'a>, index: usize, host: Host<'a>) -> Host<'a> {
        for pod in &world.hosts[index].pods {
            self.wishes.change(world, pod, index, -1);
        }
        let former = world.replace(index, host);
        self.wishes.replace(index, &world.hosts[index]);
        for pod in &world.hosts[index].pods {
            self.wishes.change(world, pod, index, 1);
        }
        former
    }

    fn count(&mut self, node: usize, offering: usize) {
        let former = std::mem::replace(&mut self.places.nodes[node].offering, offering);
        let name = |index: usize| &self.policy.pools[self.offerings[index].pool].name;
        if let Some(count) = self.room.pools.get_mut(name(former)) {
            count.remove(&self.offerings[former].zone, self.offerings[former].market);
        }
        if let Some(count) = self.room.pools.get_mut(name(offering)) {
            let offering = &self.offerings[offering];
            count.add(Some(offering.zone.clone()), offering.market);
        }
    }

    /// Looks for a place that the pod likes better: one with room, or that of a pod that may have its own.
    fn improve_pod(&mut self, world: &mut World<'a>, index: usize) -> bool {
        let (pod, host) = self.places.pods[index];
        let Some(wish) = self.wishes.of(pod).filter(|_| self.looks < LOOKS) else {
            return false;
        };
        if !self.may_change(world, pod) || !self.takes_part(world.hosts[host].place, host) {
            return false;
        }
        let alike = |place: Place| std::mem::discriminant(&place);
        let kind = alike(world.hosts[host].place);
        self.take(world, pod, host);
        let here = self.wishes.liking(wish, world, host);
        // A node that is launched for nobody would be an odd one.
        let may_leave = self.may_leave(world, host);
        let mut best: (Liking, Option<usize>) = (here, None);
        let mut better: Vec<(Liking, usize)> = Vec::new();
        for other in world.in_order().to_vec() {
            let candidate = &world.hosts[other];
            if other == host || candidate.gone || !candidate.accepts || alike(candidate.place) != kind {
                continue;
            }
            self.looks += 1;
            let there = self.wishes.liking(wish, world, other);
            if there > best.0 && self.takes_part(world.hosts[other].place, other) {
                if may_leave && world.check(pod, &world.hosts[other]).is_ok() {
                    best = (there, Some(other));
                } else {
                    better.push((there, other));
                }
            }
        }
        better.retain(|(there, _)| *there > best.0);
        // The best first, of equals the fullest.
        better.sort_by_key(|(there, _)| std::cmp::Reverse(*there));
        for (_, other) in better.into_iter().take(SWAPS.0) {
            if self.swap(world, (pod, wish, host), other) {
                return true;
            }
        }
        let to = best.1.unwrap_or(host);
        self.put(world, pod, to);
        self.places.pods[index].1 = to;
        to != host
    }

    fn may_leave(&self, world: &World<'a>, host: usize) -> bool {
        world.hosts[host].place != Place::Planned
            || world.hosts[host]
                .pods
                .iter()
                .any(|pod| self.index.contains_key(&std::ptr::from_ref(*pod)))
    }

    /// Lets the pod, which is taken off its host, change places with one of the other host, if both together gain.
    fn swap(
        &mut self,
        world: &mut World<'a>,
        (pod, wish, host): (&'a Pod, usize, usize),
        other: usize,
    ) -> bool {
        let mut seen: QuickSet<(usize, Option<usize>)> = QuickSet::default();
        let partners: Vec<&'a Pod> = world.hosts[other]
            .pods
            .iter()
            .copied()
            .filter(|partner| {
                self.index.contains_key(&std::ptr::from_ref(*partner))
                    && self.may_change(world, partner)
                    && seen.insert((world.classes.class(partner), self.wishes.of(partner)))
            })
            .take(SWAPS.1)
            .collect();
        for partner in partners {
            self.looks += 1;
            self.take(world, partner, other);
            let mut gain = self.wishes.liking(wish, world, other) - self.wishes.liking(wish, world, host);
            if let Some(theirs) = self.wishes.of(partner) {
                gain += self.wishes.liking(theirs, world, host) - self.wishes.liking(theirs, world, other);
            }
            if gain > Liking::default() && world.check(pod, &world.hosts[other]).is_ok() {
                self.put(world, pod, other);
                if world.check(partner, &world.hosts[host]).is_ok() {
                    self.put(world, partner, host);
                    self.place(pod, other);
                    self.place(partner, host);
                    return true;
                }
                self.take(world, pod, other);
            }
            self.put(world, partner, other);
        }
        false
    }

    /// Whether all pods can be placed so, one after another in their order, while new nodes join as late as one of them
    /// needs them.
    fn holds(&mut self, world: &mut World<'a>) -> bool {
        let pods = self.places.pods.clone();
        for (pod, host) in &pods {
            self.take(world, pod, *host);
        }
        let is_new = |host: &usize| world.hosts[*host].place == Place::Planned;
        let new: Vec<usize> = (0..world.hosts.len()).filter(is_new).collect();
        new.iter().for_each(|host| world.set_gone(*host, true));
        let mut joining = new.into_iter().peekable();
        let mut holds = true;
        for (pod, host) in &pods {
            while let Some(joins) = joining.next_if(|next| next <= host) {
                world.set_gone(joins, false);
            }
            holds &= world.check(pod, &world.hosts[*host]).is_ok();
            self.put(world, pod, *host);
        }
        joining.for_each(|joins| world.set_gone(joins, false));
        holds
    }

    /// Everything as it was.
    fn restore(&mut self, world: &mut World<'a>, places: &Places<'a>) {
        for (pod, host) in self.places.pods.clone() {
            self.take(world, pod, host);
        }
        for node in 0..places.nodes.len() {
            let New { host, offering, .. } = places.nodes[node];
            if self.places.nodes[node].offering != offering {
                // Headroom goes along.
                let rest = self.content(world, node);
                let name = world.hosts[host].name.clone();
                self.exchange(world, host, named(&self.offerings[offering].host, &name));
                rest.into_iter().for_each(|pod| self.put(world, pod, host));
                self.count(node, offering);
            }
        }
        for (pod, host) in &places.pods {
            self.put(world, pod, *host);
        }
        self.places = places.clone();
    }
}
