//! Replacing nodes by a cheaper one: their pods fit on no node that is there, but on a new one that saves enough.
//!
//! One for one, or several for one ([`joint`](super::joint)), within the nodes' own pool; there must be room for the old
//! and the new at once.

use std::sync::Arc;

use super::{
    Context,
    headroom::is_headroom,
    offerings::named,
    packing::types_for,
    verdicts::{Verdict, try_all},
};
use crate::{
    Destination, Launch, Move, Placement, Removal, RemovalReason,
    model::{InstanceType, Market, Node, Pod, PodKey, Resources},
    placement::World,
    policy::TypeSpec,
};

/// What a node can be replaced by.
#[derive(Clone, Debug)]
pub(crate) struct Replacement<'a> {
    offering: usize,
    /// Types that hold the pods and still save enough, cheapest first.
    types: Vec<(Arc<TypeSpec>, f64)>,
    /// Where the pods go; `None` is the new node.
    moves: Vec<(&'a Pod, Option<Arc<str>>)>,
}

impl Replacement<'_> {
    /// Its moves, in the order in which their places were found.
    pub(super) fn placements(&self) -> impl Iterator<Item = Placement> {
        self.moves
            .iter()
            .filter(|(pod, _)| !is_headroom(pod))
            .map(|(pod, to)| Placement {
                pod: pod.key.clone(),
                to: to
                    .as_deref()
                    .map_or(Destination::Launch(0), |name| Destination::Node(name.into())),
            })
    }
}

/// What is asked of a replacement beside room for the pods.
#[derive(Clone, Copy)]
pub(super) enum Terms<'t> {
    /// It saves `scale_down.min_saving_percent`, and what its evictions cost.
    Saving,
    /// The node goes whatever it costs; `bears` says whether so much CPU and memory is enough for what is used.
    AnyPrice { bears: &'t dyn Fn((f64, f64)) -> bool },
}

/// A node that is to be replaced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaver<'n, 'a> {
    pub(super) host: usize,
    pub(super) node: &'a Node,
    /// Its pods that need another place.
    pub(super) movers: &'n [&'a Pod],
}

impl<'a> Context<'a> {
    /// The cheapest node that could take the place of these of one pool, if any saves enough. The world is left as it was.
    /// `stuck` are those of the movers that find no place now: the new node must hold all of them.
    pub(super) fn replacement(
        &self,
        world: &mut World<'a>,
        leavers: &[Leaver<'_, 'a>],
        stuck: &[&'a Pod],
        terms: Terms<'_>,
    ) -> Option<Replacement<'a>> {
        let policy = self.policy;
        let pool = policy.pool_of(leavers.first()?.node)?;
        let pool_index = policy.pools.iter().position(|other| other.name == pool.name)?;
        let mut count = self.counts.get(&pool.name)?.clone();
        let all: usize = self.counts.values().map(|count| count.nodes).sum();
        if all >= policy.limits.max_nodes as usize || count.nodes >= pool.max_nodes as usize {
            return None;
        }
        let prices: Option<Vec<f64>> = leavers
            .iter()
            .map(|leaver| policy.price_of(leaver.node))
            .collect();
        let price: f64 = match prices {
            Some(prices) => prices.into_iter().sum(),
            None if matches!(terms, Terms::AnyPrice { .. }) => 0.0,
            None => return None,
        };
        let most = price * (1.0 - policy.scale_down.min_saving_percent.fraction());
        let evicted = leavers.iter().flat_map(|leaver| leaver.movers);
        let evicted = evicted.filter(|pod| !pod.is_terminating()).count();
        let most = most.min(price - policy.cost.per_hour(evicted));
        let saves = |offered: f64| match terms {
            Terms::Saving => offered <= most + 1e-12 && offered < price - 1e-12,
            Terms::AnyPrice { .. } => true,
        };
        for Leaver { node, .. } in leavers {
            count.nodes = count.nodes.saturating_sub(1);
            if node.market() != Some(Market::Spot) {
                count.on_demand = count.on_demand.saturating_sub(1);
            }
            if let Some(nodes) = node.zone().and_then(|zone| count.zones.get_mut(&zone)) {
                *nodes = nodes.saturating_sub(1);
            }
        }
        let hosts: Vec<usize> = leavers.iter().map(|leaver| leaver.host).collect();
        let movers: Vec<&'a Pod> = leavers.iter().flat_map(|leaver| leaver.movers).copied().collect();
        let wanted = count.wanted(pool);
        let has_wanted = self
            .offerings
            .iter()
            .any(|o| o.pool == pool_index && o.market == wanted && !o.backed_off);
        let zone = |index: usize| count.zones.get(&self.offerings[index].zone).copied().unwrap_or(0);
        let mut candidates: Vec<usize> = (0..self.offerings.len())
            .filter(|index| {
                let offering = &self.offerings[*index];
                offering.pool == pool_index
                    && (offering.market == wanted || !has_wanted)
                    && !offering.backed_off
                    && saves(offering.price)
            })
            .collect();
        candidates.sort_by(|a, b| {
            let price = |index: &usize| self.offerings[*index].price;
            price(a)
                .total_cmp(&price(b))
                .then(zone(*a).cmp(&zone(*b)))
                .then(a.cmp(b))
        });
        let mut asked = Resources::default();
        stuck.iter().for_each(|pod| asked.add(&pod.requests));
        for offering in candidates {
            let new = &self.offerings[offering].host;
            let room = (new.allocatable.cpu.as_f64(), new.allocatable.memory.as_f64());
            if matches!(terms, Terms::AnyPrice { bears } if !bears(room)) {
                continue;
            }
            if new.allocatable.fits(&new.used, &asked).is_err()
                || stuck.iter().any(|pod| world.check_alone(pod, new).is_err())
            {
                continue;
            }
            let mut new = named(&self.offerings[offering].host, "launch[0]");
            new.is_destination = true;
            let last = world.push(new);
            let (moves, stuck) = try_all(world, &hosts, &movers);
            world.truncate(last);
            if !stuck.is_empty() {
                continue;
            }
            let taken: Vec<&Pod> = moves
                .iter()
                .filter(|(_, to)| *to == last)
                .map(|(pod, _)| *pod)
                .collect();
            let mut types = types_for(world, &self.offerings, offering, &taken);
            types.retain(|(_, offered)| saves(*offered));
            let moves = moves
                .iter()
                .map(|(pod, to)| (*pod, (*to != last).then(|| world.hosts[*to].name.clone())))
                .collect();
            return Some(Replacement {
                offering,
                types,
                moves,
            });
        }
        None
    }

    /// The price of the new node, in USD per hour.
    pub(super) fn price_of(&self, replacement: &Replacement<'a>) -> f64 {
        let first = replacement.types.first().map(|(_, price)| *price);
        first.unwrap_or(self.offerings[replacement.offering].price)
    }

    /// How the new node is bought.
    pub(super) fn market_of(&self, replacement: &Replacement<'a>) -> Market {
        self.offerings[replacement.offering].market
    }

    /// CPU and memory that the new node brings.
    pub(super) fn brings(&self, replacement: &Replacement<'a>) -> (f64, f64) {
        let room = &self.offerings[replacement.offering].host.allocatable;
        (room.cpu.as_f64(), room.memory.as_f64())
    }

    /// The launch and the removal.
    pub(crate) fn replaced(&self, verdict: &Verdict<'a>, replacement: &Replacement<'a>) -> (Launch, Removal) {
        let offering = &self.offerings[replacement.offering];
        let mut names: Vec<InstanceType> = replacement
            .types
            .iter()
            .map(|(spec, _)| spec.name.clone())
            .take(super::launches::MOST_TYPES)
            .collect();
        self.sort_by_quote(offering, &mut names);
        let quote = self.quote_for(offering, names.first());
        let launch = Launch {
            pool: self.policy.pools[offering.pool].name.clone(),
            zone: offering.zone.clone(),
            market: offering.market,
            instance_types: names,
            price_per_hour: quote.per_hour,
            price_source: Some(quote.source),
            price_age_seconds: quote.age_seconds(self.now),
            pods: Vec::new(),
        };
        let own = |pod: &PodKey| verdict.movers.iter().any(|mover| mover.key == *pod);
        let mut moves: Vec<Move> = replacement
            .placements()
            .filter(|placement| own(&placement.pod))
            .map(|Placement { pod, to }| Move { pod, to })
            .collect();
        moves.sort_by(|a, b| a.pod.cmp(&b.pod));
        (launch, self.leaves(verdict, RemovalReason::Replaced, moves))
    }
}
