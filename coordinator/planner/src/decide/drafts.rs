//! New nodes for a whole batch at once, by what each would cost against what its pods are worth.
//!
//! ```text
//! seed (the pod that is hardest to place) ─▶ types that hold it ─▶ each filled ─▶ least price per worth ─▶ repeated
//! ```
//!
//! What a pod is worth comes from the cheapest fractional mix for the whole batch ([`bound`](super::bound)): scarce things
//! count more. A filled node is a pattern of so many pods of each lot; the same pattern is repeated as long as the lots
//! last. Where pods that keep apart force many nodes, none of these may grow so large that it takes from the others what
//! would fill them. Nothing here asks what is on other nodes: a draft is only a proposal, the world judges it.

mod improve;

use super::{
    bound,
    company::Company,
    lots::{Lot, Lots},
    offerings::Offering,
    packing::Room,
};
use crate::{
    Policy,
    model::{Market, Resources},
    placement::{Host, Profile, QuickMap, QuickSet, World},
};

/// A node to be launched: so many pods of each lot.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) offering: usize,
    pub(super) content: Vec<(usize, usize)>,
}

/// How a batch is drafted; several are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// How much larger than their even share nodes may be that pods which keep apart force.
    pub(super) slack: f64,
    /// What a node costs beside its price, in USD: the more, the fewer.
    pub(super) per_node: f64,
    /// How strongly what is still free draws pods that ask for it: 0 is the largest pod first.
    pub(super) balance: i32,
}

/// Drafts with what they cost.
#[derive(Clone, Debug)]
pub(super) struct Drafts {
    pub(super) nodes: Vec<Draft>,
    pub(super) cost: f64,
    /// Pods that found no node.
    pub(super) left: usize,
}

impl Drafts {
    /// Fewer pods left, then cheaper, then fewer nodes.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        self.left
            .cmp(&other.left)
            .then(self.cost.total_cmp(&other.cost))
            .then(self.nodes.len().cmp(&other.nodes.len()))
            .is_lt()
    }
}

/// Pods of one size, in lots that are not used up.
#[derive(Clone)]
struct Size<'l> {
    requests: &'l Resources,
    amounts: [f64; bound::ROWS],
    worth: f64,
    lots: Vec<usize>,
}

/// The work in progress.
pub(super) struct Drafting<'d, 'o, 'a> {
    world: &'d World<'a>,
    offerings: &'d [Offering<'a>],
    policy: &'d Policy,
    lots: &'d Lots<'o, 'a>,
    /// By cell, the dearest first; `sizes` is what is left of them.
    all_sizes: Vec<Vec<Size<'d>>>,
    sizes: Vec<Vec<Size<'d>>>,
    /// By cell: offerings with what they give, the cheapest first.
    gives: Vec<Vec<Give>>,
    /// Lots by worth, the dearest first.
    seeds: Vec<usize>,
    /// Shapes whose pods keep apart from one another, with their lots.
    apart: Vec<Vec<usize>>,
    /// Where each lot stands among the seeds.
    rank: Vec<usize>,
    /// Seeds, and lots that keep apart, of which something is left.
    open_seeds: Vec<usize>,
    open_apart: Vec<Vec<usize>>,
    left: Vec<usize>,
    company: Company<'a>,
    /// Work done, in sizes looked at.
    pub(super) steps: usize,
}

/// What an offering gives for its price.
#[derive(Clone, Copy)]
struct Give {
    offering: usize,
    market: Market,
    price: f64,
    /// What its room is worth.
    worth: f64,
    /// Its step in a ladder of prices.
    step: i64,
}

/// A node as it could be filled.
struct Filled {
    offering: usize,
    content: Vec<(usize, usize)>,
    worth: f64,
}

impl<'d, 'o, 'a> Drafting<'d, 'o, 'a> {
    pub(super) fn new(
        world: &'d World<'a>,
        offerings: &'d [Offering<'a>],
        policy: &'d Policy,
        lots: &'d Lots<'o, 'a>,
    ) -> Self {
        let mut seeds: Vec<usize> = (0..lots.all.len()).collect();
        let dearest = |a: &Lot<'_>, b: &Lot<'_>| {
            b.worth
                .total_cmp(&a.worth)
                .then_with(|| a.pods[0].key.cmp(&b.pods[0].key))
        };
        seeds.sort_by(|a, b| dearest(&lots.all[*a], &lots.all[*b]));
        let mut apart: Vec<(usize, Vec<usize>)> = Vec::new();
        for index in &seeds {
            let shape = lots.all[*index].shape;
            let profile = &lots.profiles[shape];
            if profile.holds.iter().any(|term| profile.matched.contains(term)) {
                match apart.iter_mut().find(|(known, _)| *known == shape) {
                    Some((_, members)) => members.push(*index),
                    None => apart.push((shape, vec![*index])),
                }
            }
        }
        let all_sizes = (0..lots.cells.len())
            .map(|cell| sizes(lots, &seeds, cell))
            .collect();
        let give = |index: &usize| {
            let offering = &offerings[*index];
            let room = bound::room(&offering.host.allocatable, &offering.host.used);
            #[allow(clippy::cast_possible_truncation, reason = "a logarithm of a price")]
            let step = (offering.price.max(1e-6).ln() / 0.2).floor() as i64;
            Give {
                offering: *index,
                market: offering.market,
                price: offering.price,
                worth: room.iter().zip(lots.worth).map(|(r, w)| r * w).sum(),
                step,
            }
        };
        let gives = lots
            .cells
            .iter()
            .map(|cell| cell.offerings.iter().map(give).collect());
        let mut rank = vec![0; seeds.len()];
        for (place, lot) in seeds.iter().enumerate() {
            rank[*lot] = place;
        }
        Self {
            rank,
            open_seeds: Vec::new(),
            open_apart: Vec::new(),
            gives: gives.collect(),
            all_sizes,
            sizes: Vec::new(),
            world,
            offerings,
            policy,
            lots,
            seeds,
            apart: apart.into_iter().map(|(_, members)| members).collect(),
            left: Vec::new(),
            company: Company::new(world.terms()),
            steps: 0,
        }
    }

    /// Drafts nodes for all lots, as far as the room goes.
    pub(super) fn draft(&mut self, style: Style, room: &Room) -> Drafts {
        self.left = self.lots.all.iter().map(|lot| lot.pods.len()).collect();
        self.sizes.clone_from(&self.all_sizes);
        self.open_seeds.clone_from(&self.seeds);
        self.open_apart.clone_from(&self.apart);
        self.run(style, room)
    }

    /// Drafts nodes for what is left.
    fn run(&mut self, style: Style, room: &Room) -> Drafts {
        let mut room = room.clone();
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        let mut worth: f64 = self
            .lots
            .all
            .iter()
            .zip(&self.left)
            .map(|(lot, left)| lot.worth * *left as f64)
            .sum();
        let mut given_up = vec![false; self.lots.all.len()];
        let mut drafts = Drafts {
            nodes: Vec::new(),
            cost: 0.0,
            left: 0,
        };
        let seeds = std::mem::take(&mut self.open_seeds);
        let mut first = 0;
        while drafts.nodes.len() < room.nodes {
            while seeds.get(first).is_some_and(|lot| self.left[*lot] == 0) {
                first += 1;
            }
            let (seed, forced) = match self.forced(&given_up) {
                Some(forced) => forced,
                None => {
                    let rest = seeds.iter().skip(first);
                    let open = |lot: &&usize| self.left[**lot] > 0 && !given_up[**lot];
                    match rest.copied().find(|lot| open(&lot)) {
                        Some(seed) => (seed, 1.0),
                        None => break,
                    }
                }
            };
            let most = style.slack * worth / forced;
            let Some((cell, filled)) = self.best(seed, style, most, worth, &room) else {
                given_up[seed] = true;
                continue;
            };
            worth -= self.repeat(cell, &filled, &mut room, &mut drafts);
            for (lot, _) in &filled.content {
                if self.left[*lot] == 0 {
                    self.use_up(*lot);
                }
            }
        }
        drafts.left = self.left.iter().sum();
        drafts
    }

    /// The dearest lot of the shape that forces most nodes, if any forces more than one, and how many.
    fn forced(&self, given_up: &[bool]) -> Option<(usize, f64)> {
        let pods = |members: &Vec<usize>| members.iter().map(|lot| self.left[*lot]).sum::<usize>();
        let (members, pods) = self
            .open_apart
            .iter()
            .map(|members| (members, pods(members)))
            .filter(|(_, pods)| *pods > 1)
            .max_by(|a, b| a.1.cmp(&b.1).then(b.0[0].cmp(&a.0[0])))?;
        let seed = members
            .iter()
            .copied()
            .find(|lot| self.left[*lot] > 0 && !given_up[*lot])?;
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        Some((seed, pods as f64))
    }

    /// The best node around the seed, over pools, and in each over the zones with the fewest nodes of those that cost the
    /// same.
    fn best(
        &mut self,
        seed: usize,
        style: Style,
        most: f64,
        worth: f64,
        room: &Room,
    ) -> Option<(usize, Filled)> {
        let mut best: Option<(usize, Filled, f64)> = None;
        for (index, pool) in self.policy.pools.iter().enumerate() {
            let Some(count) = room.pools.get(&pool.name) else {
                continue;
            };
            if count.nodes >= pool.max_nodes as usize {
                continue;
            }
            let lot = &self.lots.all[seed];
            let nodes = |cell: usize| {
                let zone = &self.offerings[self.lots.cells[cell].offerings[0]].zone;
                count.zones.get(zone).copied().unwrap_or(0)
            };
            let mut cells: Vec<usize> = (0..self.lots.cells.len())
                .filter(|cell| self.lots.cells[*cell].pool == index && may_go(lot, *cell))
                .collect();
            cells.sort_by_key(|cell| nodes(*cell));
            let mut seen = QuickSet::default();
            cells.retain(|cell| seen.insert(self.lots.cells[*cell].prices));
            for market in count.markets(pool) {
                let mut found = false;
                for cell in &cells {
                    for offering in self.candidates(seed, *cell, market, most, worth) {
                        let Some(filled) = self.fill(*cell, offering, seed, style.balance) else {
                            continue;
                        };
                        found = true;
                        let ratio = (self.offerings[filled.offering].price + style.per_node) / filled.worth;
                        let better = best.as_ref().is_none_or(|(_, other, least)| {
                            if (ratio - least).abs() > 1e-9 * least.abs() {
                                ratio < *least
                            } else {
                                filled.worth > other.worth
                            }
                        });
                        if better {
                            best = Some((*cell, filled, ratio));
                        }
                    }
                }
                // Without an offering of the wanted market the other allowed one is used.
                if found {
                    break;
                }
            }
        }
        best.map(|(cell, filled, _)| (cell, filled))
    }

    /// Takes a lot off the lists.
    fn use_up(&mut self, lot: usize) {
        let requests = self.lots.all[lot].requests;
        for sizes in &mut self.sizes {
            if let Some(place) = sizes.iter().position(|size| size.requests == requests) {
                sizes[place].lots.retain(|other| *other != lot);
                if sizes[place].lots.is_empty() {
                    sizes.remove(place);
                }
            }
        }
    }

    /// Offerings worth a trial: of each step of prices the one that gives most for its price.
    fn candidates(&self, seed: usize, cell: usize, market: Market, most: f64, worth: f64) -> Vec<usize> {
        let mut best: Vec<Give> = Vec::new();
        let mut cheapest: Option<f64> = None;
        for give in self.gives[cell].iter().filter(|give| give.market == market) {
            let host = &self.offerings[give.offering].host;
            if !self.fits(seed, cell, host, &host.used) {
                continue;
            }
            let least = *cheapest.get_or_insert(give.price);
            if give.price > least.max(most) + 1e-9 && best.len() > 1 {
                break;
            }
            let ratio = |give: &Give| give.price / give.worth.max(1e-12);
            match best.last_mut().filter(|known| known.step == give.step) {
                Some(known) if ratio(give) < ratio(known) => *known = *give,
                Some(_) => {}
                None => best.push(*give),
            }
            // Larger ones cannot be filled any more.
            if give.worth > 3.0 * worth {
                break;
            }
        }
        best.into_iter().map(|give| give.offering).collect()
    }

    /// Fills a node of the offering, the seed first. What would be the same on a cheaper one is put there.
    fn fill(&mut self, cell: usize, offering: usize, seed: usize, balance: i32) -> Option<Filled> {
        let host = &self.offerings[offering].host;
        self.company.begin(&self.lots.profiles, self.world, host);
        let mut used = host.used.clone();
        let mut content: Vec<(usize, usize)> = Vec::new();
        let capacity = bound::amounts(&host.allocatable).map(|amount| amount.max(1.0));
        let mut worth = 0.0;
        let lots = &self.lots.all;
        if !self.fits(seed, cell, host, &used)
            || !self.company.accepts(self.profile(seed), lots[seed].pods[0])
        {
            return None;
        }
        self.company.add(self.profile(seed), lots[seed].pods[0]);
        used.add(lots[seed].requests);
        worth += lots[seed].worth;
        content.push((seed, 1));
        let mut open: Vec<usize> = (0..self.sizes[cell].len()).collect();
        while !open.is_empty() {
            let free = bound::room(&host.allocatable, &used);
            let pull: [f64; bound::ROWS] =
                std::array::from_fn(|row| self.lots.worth[row] * (free[row] / capacity[row]).powi(balance));
            self.steps += open.len();
            let mut best: Option<(usize, f64)> = None;
            open.retain(|index| {
                let size = &self.sizes[cell][*index];
                if host.allocatable.fits(&used, size.requests).is_err() {
                    return false;
                }
                let score: f64 =
                    size.amounts.iter().zip(pull).map(|(a, p)| a * p).sum::<f64>() + size.worth * 1e-6;
                if best.is_none_or(|(_, other)| score > other) {
                    best = Some((*index, score));
                }
                true
            });
            let Some((chosen, _)) = best else { break };
            let taken = |lot: usize, content: &[(usize, usize)]| {
                content
                    .iter()
                    .find(|(known, _)| *known == lot)
                    .map_or(0, |(_, n)| *n)
            };
            let size = &self.sizes[cell][chosen];
            let next = size.lots.iter().copied().find(|lot| {
                self.left[*lot] > taken(*lot, &content)
                    && self.fits(*lot, cell, host, &used)
                    && self.company.accepts(self.profile(*lot), lots[*lot].pods[0])
            });
            let Some(lot) = next else {
                open.retain(|index| *index != chosen);
                continue;
            };
            let available = self.left[lot] - taken(lot, &content);
            let number = if self.profile(lot).is_plain() && lots[lot].pods[0].host_ports.is_empty() {
                // A quarter of what fits at a time, so that others still balance it.
                (times(size.requests, &free) / 4).clamp(1, available)
            } else {
                1
            };
            for _ in 0..number {
                used.add(size.requests);
            }
            self.company.add(self.profile(lot), lots[lot].pods[0]);
            #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
            let added = size.worth * number as f64;
            worth += added;
            match content.iter_mut().find(|(known, _)| *known == lot) {
                Some((_, n)) => *n += number,
                None => content.push((lot, number)),
            }
        }
        let offering = self.cheapest(cell, offering, &used, &content);
        Some(Filled {
            offering,
            content,
            worth,
        })
    }

    /// The cheapest offering of the same cell and market that holds the same pods.
    fn cheapest(&self, cell: usize, offering: usize, used: &Resources, content: &[(usize, usize)]) -> usize {
        let like = &self.offerings[offering];
        let mut asked = used.clone();
        asked.subtract(&like.host.used);
        let uniform = self.lots.cells[cell].uniform;
        let holds = |host: &Host<'_>| {
            host.allocatable.fits(&host.used, &asked).is_ok()
                && host.allocatable.short_extended(&host.used, &asked).is_none()
                && (uniform
                    || content
                        .iter()
                        .all(|(lot, _)| self.world.check_alone(self.lots.all[*lot].pods[0], host).is_ok()))
        };
        let cheaper = self.lots.cells[cell].offerings.iter().copied().find(|index| {
            self.offerings[*index].market == like.market && holds(&self.offerings[*index].host)
        });
        cheaper.unwrap_or(offering)
    }

    /// Whether one more of the lot goes onto the node, as far as the node alone says.
    fn fits(&self, lot: usize, cell: usize, host: &Host<'_>, used: &Resources) -> bool {
        let lot = &self.lots.all[lot];
        host.allocatable.fits(used, lot.requests).is_ok()
            && (lot.requests.extended.is_empty()
                || host.allocatable.short_extended(used, lot.requests).is_none())
            && (self.lots.cells[cell].uniform || self.world.check_alone(lot.pods[0], host).is_ok())
    }

    fn profile(&self, lot: usize) -> &'d Profile {
        &self.lots.profiles[self.lots.all[lot].shape]
    }

    /// Drafts the node as often as the lots and the room allow. Returns the worth of what it took.
    fn repeat(&mut self, cell: usize, filled: &Filled, room: &mut Room, drafts: &mut Drafts) -> f64 {
        let offering = &self.offerings[filled.offering];
        let pool = &self.policy.pools[offering.pool];
        let mut taken = 0.0;
        // Where every lot may go to other zones too, these take turns.
        let rotates = filled
            .content
            .iter()
            .all(|(lot, _)| self.lots.all[*lot].cell.is_none());
        let mut offering_in = filled.offering;
        let mut zone = cell;
        loop {
            let zone_name = &self.offerings[offering_in].zone;
            for (lot, number) in &filled.content {
                self.left[*lot] -= number;
            }
            taken += filled.worth;
            drafts.cost += self.offerings[offering_in].price;
            drafts.nodes.push(Draft {
                offering: offering_in,
                content: filled.content.clone(),
            });
            if let Some(count) = room.pools.get_mut(&pool.name) {
                count.add(Some(zone_name.clone()), offering.market);
            }
            let lasts = filled
                .content
                .iter()
                .all(|(lot, number)| self.left[*lot] >= *number);
            let Some(count) = room.pools.get(&pool.name) else {
                break;
            };
            if !lasts
                || drafts.nodes.len() >= room.nodes
                || count.nodes >= pool.max_nodes as usize
                || count.wanted(pool) != offering.market
            {
                break;
            }
            if rotates {
                let nodes = |cell: usize| {
                    let zone = &self.offerings[self.lots.cells[cell].offerings[0]].zone;
                    count.zones.get(zone).copied().unwrap_or(0)
                };
                let same = |cell: usize| {
                    self.lots.cells[cell].offerings.iter().copied().find(|index| {
                        let other = &self.offerings[*index];
                        other.market == offering.market
                            && other.spec.name == offering.spec.name
                            && (other.price - offering.price).abs() < 1e-12
                            && other.host.used == offering.host.used
                            && filled.content.iter().all(|(lot, _)| {
                                may_go(&self.lots.all[*lot], cell)
                                    && self
                                        .world
                                        .check_alone(self.lots.all[*lot].pods[0], &other.host)
                                        .is_ok()
                            })
                    })
                };
                let next = (0..self.lots.cells.len())
                    .filter(|cell| self.lots.cells[*cell].pool == offering.pool)
                    .filter_map(|cell| same(cell).map(|index| (nodes(cell), cell, index)))
                    .min();
                if let Some((_, cell, index)) = next {
                    (zone, offering_in) = (cell, index);
                }
            }
        }
        let _ = zone;
        taken
    }
}

fn may_go(lot: &Lot<'_>, cell: usize) -> bool {
    lot.cells[cell] && lot.cell.is_none_or(|settled| settled == cell)
}

/// How often a request fits into what is free.
fn times(requests: &Resources, free: &[f64; bound::ROWS]) -> usize {
    let most = bound::amounts(requests)
        .iter()
        .zip(free)
        .filter(|(asked, _)| **asked > 0.0)
        .map(|(asked, free)| free / asked)
        .fold(f64::from(u16::MAX), f64::min);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 65535"
    )]
    let times = most.max(0.0) as usize;
    times
}

/// Lots that may go to the cell by their size. Within a size those come first that keep others away.
fn sizes<'l>(lots: &'l Lots<'_, '_>, dearest: &[usize], cell: usize) -> Vec<Size<'l>> {
    let mut sizes: Vec<Size<'l>> = Vec::new();
    let mut known: QuickMap<&Resources, usize> = QuickMap::default();
    for index in dearest.iter().filter(|index| may_go(&lots.all[**index], cell)) {
        let lot = &lots.all[*index];
        let next = sizes.len();
        let size = *known.entry(lot.requests).or_insert(next);
        if size == next {
            sizes.push(Size {
                requests: lot.requests,
                amounts: bound::amounts(lot.requests),
                worth: lot.worth,
                lots: Vec::new(),
            });
        }
        sizes[size].lots.push(*index);
    }
    for size in &mut sizes {
        size.lots.sort_by_key(|index| {
            let lot = &lots.all[*index];
            (lots.profiles[lot.shape].is_plain(), lot.cell.is_none())
        });
    }
    sizes
}
