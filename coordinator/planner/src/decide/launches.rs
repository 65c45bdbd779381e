//! Which nodes are launched, and for what: pods, minimums, averages.

use std::collections::BTreeSet;

use super::{
    Context,
    headroom::is_only_kept,
    honour::{New, Places},
    offerings::Offering,
    packing::{self, PackedNode, Packing, Room, that_hold, types_for},
    podless::Limits,
};
use crate::{
    Destination, Hold, Launch, Placement,
    model::{InstanceType, Pod},
    placement::{Host, Place, World},
    policy::{Price, TypeSpec},
};

/// `instance_types` of a launch holds no more.
pub(super) const MOST_TYPES: usize = 60;

/// What came of the pods that found no place on nodes that are there.
pub(crate) struct Outcome<'a> {
    pub(crate) launches: Vec<Launch>,
    /// Pods that found a place now, in order.
    pub(crate) placed: Vec<Placement>,
    /// Pods that would have had one, were anything launched now.
    pub(crate) held: Vec<&'a Pod>,
    /// Pods without any.
    pub(crate) left: Vec<&'a Pod>,
    /// `max_step` or the launches of an hour are used up.
    pub(crate) out_of_steps: bool,
    /// What may be spent in an hour is.
    pub(crate) too_dear: bool,
    /// Counts with the launches.
    pub(crate) room: Room,
}

impl<'a> Context<'a> {
    pub(super) fn launch(
        &self,
        world: &mut World<'a>,
        found: Vec<(&'a Pod, usize)>,
        unplaced: &[&'a Pod],
        expendable: &mut Vec<&'a Pod>,
        holds: &mut BTreeSet<Hold>,
    ) -> Outcome<'a> {
        let existing: usize = self.counts.values().map(|count| count.nodes).sum();
        let below_max = (self.policy.limits.max_nodes as usize).saturating_sub(existing);
        let step = match self.policy.scale_up.max_step {
            0 => usize::MAX,
            step => step as usize,
        };
        let step = step.min(self.brakes.nodes);
        let mut room = Room {
            nodes: below_max.min(step),
            pools: self.counts.clone(),
        };
        let packing = if unplaced.is_empty() {
            Packing::default()
        } else {
            packing::best(world, &self.offerings, self.policy, unplaced, &room)
        };
        let (packing, mut too_dear) = self.affordable(world, packing, unplaced, &room);
        let Packing {
            nodes,
            elsewhere,
            order,
            mut left,
            ..
        } = packing;
        // Asked before any of these pods stands in the world: its claims would be taken.
        let types_of = |node: &PackedNode<'a>| self.types_for(world, node);
        let types: Vec<Vec<InstanceType>> = nodes.iter().map(types_of).collect();
        let mut launches = Vec::new();
        let mut places = Places {
            pods: found,
            nodes: Vec::new(),
        };
        let mut held = Vec::new();
        if self.brakes.launches {
            // Those that would go to older nodes could do so only because of others on new ones.
            held.extend(order.iter().map(|(pod, _)| *pod));
        } else {
            places.pods.extend(order);
            for (pod, host) in &elsewhere {
                world.put(pod, *host);
            }
        }
        let first = world.hosts.len();
        for (node, types) in nodes.iter().zip(types).filter(|_| !self.brakes.launches) {
            let offering = &self.offerings[node.offering];
            self.count(&mut room, offering);
            let mut host = super::offerings::named(&offering.host, &format!("launch[{}]", launches.len()));
            for pod in &node.pods {
                host.add(pod);
            }
            places.nodes.push(New {
                host: world.push(host),
                offering: node.offering,
                price: node.price,
            });
            launches.push(self.element(offering, types.iter(), &node.pods));
        }
        let for_pods = launches.len();
        let mut out_of_steps = nodes.len() >= step;
        let mut rated = out_of_steps && !left.is_empty();
        self.keep_headroom(world, &mut room, &mut launches);
        if !self.brakes.launches {
            let mut limited = Limits::default();
            self.fill_minimums(world, &mut room, &mut launches, &mut limited);
            if for_pods == 0 && self.averages.up() {
                if self.cooldown_up {
                    holds.insert(Hold::CooldownUp);
                } else {
                    self.follow_averages(world, &mut room, &mut launches, &mut limited);
                }
            }
            if limited.at_max {
                holds.insert(Hold::AtMax);
            }
            out_of_steps |= limited.out_of_steps;
            rated |= limited.out_of_steps;
            too_dear |= limited.too_dear;
        }
        if rated && self.brakes.rate_is_least(&self.policy.scale_up) {
            holds.insert(Hold::LaunchRate);
        }
        if too_dear {
            holds.insert(Hold::Spending);
        }
        if self.honour(world, &mut room, &mut places) {
            // Where some have gone there may be room for others.
            for waiting in [&mut left, expendable] {
                self.place_late(world, waiting, &mut places);
            }
            self.list_anew(world, &places, &mut launches);
        }
        let placed = self.placements(world, &places.pods, first);
        let room = Room {
            nodes: below_max.saturating_sub(launches.len()),
            ..room
        };
        Outcome {
            launches,
            placed,
            held,
            left,
            out_of_steps,
            too_dear,
            room,
        }
    }

    /// The packing, or one of fewer nodes that `limits.max_usd_per_hour` allows; whether that bound was met.
    fn affordable(
        &self,
        world: &mut World<'a>,
        mut packing: Packing<'a>,
        pods: &[&'a Pod],
        room: &Room,
    ) -> (Packing<'a>, bool) {
        let mut room = room.clone();
        let mut too_dear = false;
        loop {
            let mut spent = 0.0;
            let affords = |node: &&PackedNode<'a>| {
                spent += node.price;
                spent <= self.brakes.usd + 1e-9
            };
            room.nodes = packing.nodes.iter().take_while(affords).count();
            if room.nodes == packing.nodes.len() {
                return (packing, too_dear);
            }
            too_dear = true;
            packing = packing::best(world, &self.offerings, self.policy, pods, &room);
        }
    }

    /// Whether `limits.max_usd_per_hour` leaves room for a node of the offering beside these launches.
    pub(super) fn affords(&self, launches: &[Launch], offering: &Offering<'_>) -> bool {
        let spent: f64 = launches.iter().map(|launch| launch.price_per_hour).sum();
        spent + offering.price <= self.brakes.usd + 1e-9
    }

    /// Places those of the pods that some node takes now, again until none is placed: nodes launched for a minimum or for
    /// headroom take none.
    fn place_late(&self, world: &mut World<'a>, waiting: &mut Vec<&'a Pod>, places: &mut Places<'a>) {
        let new: Vec<_> = places
            .nodes
            .iter()
            .map(|node| world.hosts[node.host].name.clone())
            .collect();
        let takes =
            |host: &Host<'_>| host.accepts && (host.place != Place::Planned || new.contains(&host.name));
        loop {
            let before = waiting.len();
            waiting.retain(|pod| {
                let host = world.find(pod, takes);
                if let Some(host) = host {
                    world.put(pod, host);
                    places.pods.push((pod, host));
                }
                host.is_none()
            });
            if waiting.len() == before || waiting.is_empty() {
                break;
            }
        }
    }

    /// The launches for pods once these have changed places. The type that was chosen leads those of its price.
    fn list_anew(&self, world: &mut World<'a>, places: &Places<'a>, launches: &mut [Launch]) {
        let mut pods: Vec<Vec<&'a Pod>> = vec![Vec::new(); places.nodes.len()];
        let first = places.nodes.first().map_or(usize::MAX, |node| node.host);
        for (pod, host) in &places.pods {
            if let Some(pods) = host.checked_sub(first).and_then(|node| pods.get_mut(node)) {
                pods.push(pod);
            }
        }
        for ((launch, node), pods) in launches.iter_mut().zip(&places.nodes).zip(pods) {
            let offering = &self.offerings[node.offering];
            // Their claims are theirs, not taken.
            let with_volumes: Vec<_> = pods.iter().filter(|pod| !pod.volumes.is_empty()).collect();
            with_volumes.iter().for_each(|pod| world.take(pod, node.host));
            let mut types = types_for(world, &self.offerings, node.offering, &pods);
            with_volumes.iter().for_each(|pod| world.put(pod, node.host));
            types.sort_by(|a, b| {
                let other = |spec: &TypeSpec| spec.name != offering.spec.name;
                a.1.total_cmp(&b.1).then(other(&a.0).cmp(&other(&b.0)))
            });
            *launch = self.element(offering, types.iter().map(|(spec, _)| &spec.name), &pods);
        }
    }

    /// Pods with the places of their hosts; hosts from `first` on are launches.
    pub(super) fn placements(
        &self,
        world: &World<'a>,
        order: &[(&'a Pod, usize)],
        first: usize,
    ) -> Vec<Placement> {
        let placement = |(pod, host): &(&'a Pod, usize)| Placement {
            pod: pod.key.clone(),
            to: match world.hosts.get(*host).map(|host| host.place) {
                Some(Place::Existing(node)) => {
                    Destination::Node(self.snapshot.cluster.nodes[node].name.clone())
                }
                Some(Place::Launching(entry)) => Destination::Launching(entry),
                Some(Place::Planned) | None => Destination::Launch(host.saturating_sub(first)),
            },
        };
        order.iter().map(placement).collect()
    }

    /// Nodes for the room that is to be kept free and is not there.
    fn keep_headroom(&self, world: &mut World<'a>, room: &mut Room, launches: &mut Vec<Launch>) {
        let wanted: Vec<&'a Pod> = self.headroom.iter().collect();
        let (_, mut unplaced) = super::place_on_nodes(world, &wanted);
        unplaced.retain(|pod| !is_only_kept(pod));
        // What has no room is given none while nothing may be launched; what has some keeps it.
        if unplaced.is_empty() || self.brakes.launches {
            return;
        }
        let packing = packing::best(world, &self.offerings, self.policy, &unplaced, room);
        for node in &packing.nodes {
            let offering = &self.offerings[node.offering];
            if !self.affords(launches, offering) {
                break;
            }
            let types = self.types_for(world, node);
            self.count(room, offering);
            let mut host = super::offerings::named(&offering.host, &format!("launch[{}]", launches.len()));
            for pod in &node.pods {
                host.add(pod);
            }
            world.push(host);
            launches.push(self.element(offering, types.iter(), &[]));
        }
    }

    /// The types that would do for a node of a packing, as many as a launch may list.
    fn types_for(&self, world: &World<'a>, node: &PackedNode<'a>) -> Vec<InstanceType> {
        that_hold(world, &self.offerings, node.offering, &node.pods)
            .map(|offering| offering.spec.name.clone())
            .take(MOST_TYPES)
            .collect()
    }

    pub(super) fn element<'t>(
        &self,
        offering: &Offering<'_>,
        types: impl Iterator<Item = &'t InstanceType>,
        pods: &[&Pod],
    ) -> Launch {
        let mut instance_types: Vec<InstanceType> = types.take(MOST_TYPES).cloned().collect();
        self.sort_by_quote(offering, &mut instance_types);
        let pool = &self.policy.pools[offering.pool];
        let quote = self.quote_for(offering, instance_types.first());
        let mut pods: Vec<_> = pods.iter().map(|pod| pod.key.clone()).collect();
        pods.sort();
        Launch {
            pool: pool.name.clone(),
            zone: offering.zone.clone(),
            market: offering.market,
            instance_types,
            price_per_hour: quote.per_hour,
            price_source: Some(quote.source),
            price_age_seconds: quote.age_seconds(self.now),
            pods,
        }
    }

    /// Cheapest first by what they really cost where the offering is: they came in the order of what they are compared by.
    pub(super) fn sort_by_quote(&self, offering: &Offering<'_>, types: &mut [InstanceType]) {
        if offering.spec.differs_by_zone(offering.market) {
            let price = |name: &InstanceType| self.quote_for(offering, Some(name)).per_hour;
            types.sort_by(|a, b| price(a).total_cmp(&price(b)));
        }
    }

    /// What a type costs where the offering is; without one, what the offering does.
    pub(super) fn quote_for(&self, offering: &Offering<'_>, first: Option<&InstanceType>) -> Price {
        let pool = &self.policy.pools[offering.pool];
        let quote = first
            .and_then(|name| self.policy.types.get(name))
            .and_then(|spec| pool.quote(spec, &offering.zone, offering.market));
        *quote.unwrap_or(&offering.quote)
    }

    pub(super) fn count(&self, room: &mut Room, offering: &Offering<'_>) {
        room.nodes = room.nodes.saturating_sub(1);
        if let Some(count) = room.pools.get_mut(&self.policy.pools[offering.pool].name) {
            count.add(Some(offering.zone.clone()), offering.market);
        }
    }
}
