//! Packing pods that wait onto new nodes: cheapest total first, then fewer nodes, then names.
//!
//! Several packings are considered and the best one taken. Most are drafts for the whole batch ([`drafts`](super::drafts)),
//! which the world then judges pod by pod; what a draft does not place, and small batches as a whole, are packed node by
//! node: always the node that holds its pods at the best price compared with what those pods would cost at least.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    bound,
    drafts::{Drafting, Drafts, Style},
    lots::Lots,
    offerings::{Offering, PoolCount, named},
    one_by_one::{next_node, references, thin},
};
use crate::{
    Policy,
    model::{Pod, PoolName, Resources},
    placement::{Host, QuickMap, QuickSet, ShapeId, World},
    policy::TypeSpec,
};

/// How many nodes may be launched.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    /// In all.
    pub(crate) nodes: usize,
    /// Counts of each pool, kept up to date while packing.
    pub(crate) pools: BTreeMap<PoolName, PoolCount>,
}

/// A node of a packing.
#[derive(Clone, Debug)]
pub(super) struct PackedNode<'a> {
    pub(super) offering: usize,
    /// Of the cheapest type that would do, in USD per hour.
    pub(super) price: f64,
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
    /// Something of the draft that it began with was refused.
    refused: bool,
}

impl Packing<'_> {
    fn cost(&self) -> f64 {
        self.nodes.iter().map(|node| node.price).sum()
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

/// Work bound of packing node by node: so many pods against offerings.
const TRIALS: usize = 20_000;

/// Of so many pods the first draft is always judged beside the best.
const FEW: usize = 500;

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
    let packer = Packer {
        offerings,
        policy,
        pods,
        room,
    };
    let (first, thought) = drafted(world, &packer, &usable);
    // What is tried besides must not depend on how long was thought: more thinking never makes it dearer.
    let nodes = 1 + first.nodes.len();
    let mut best = match thought {
        Some(thought) => {
            let best = packer.pack(world, &usable, thought);
            // A draft of which something was refused may cost more than it promised.
            if best.refused || pods.len() <= FEW {
                let other = packer.pack(world, &usable, first);
                if other.is_better_than(&best) { other } else { best }
            } else {
                best
            }
        }
        None => packer.pack(world, &usable, first),
    };
    let mut trials = pods.len() * usable.len() * nodes;
    if trials > TRIALS {
        return best;
    }
    let mut consider = |world: &mut World<'a>, usable: &[usize]| {
        let other = packer.pack(world, usable, Start::default());
        if other.is_better_than(&best) {
            best = other;
        }
    };
    consider(world, &usable);
    let mut types: Vec<&crate::model::InstanceType> = Vec::new();
    for index in &usable {
        if !types.contains(&&offerings[*index].spec.name) {
            types.push(&offerings[*index].spec.name);
        }
    }
    for name in types {
        let only: Vec<usize> = usable
            .iter()
            .copied()
            .filter(|i| offerings[*i].spec.name == *name)
            .collect();
        trials += pods.len() * only.len() * nodes;
        if trials > TRIALS {
            break;
        }
        consider(world, &only);
    }
    best
}

/// The first draft, and the best if thinking found another.
fn drafted<'a>(
    world: &mut World<'a>,
    packer: &Packer<'_, 'a>,
    usable: &[usize],
) -> (Start<'a>, Option<Start<'a>>) {
    let Packer {
        offerings,
        policy,
        pods,
        room,
    } = *packer;
    let bound = bound::of(world, offerings, pods, false);
    let worth = bound.softened();
    let lots = Lots::new(world, offerings, usable, pods, worth);
    let mut drafting = Drafting::new(world, offerings, policy, &lots);
    let [style, others @ ..] = &STYLES;
    let mut first = drafting.draft(*style, room);
    // Where nodes are short, the fewer and larger hold more.
    if first.left > 0 && first.nodes.len() >= room.nodes {
        let fewest = drafting.draft(FEWEST, room);
        if fewest.is_better_than(&first) {
            first = fewest;
        }
    }
    // The first answer comes at once; how much is tried besides is a matter of work done, not of the clock.
    let steps = usize::try_from(policy.scale_up.think.as_millis()).unwrap_or(usize::MAX);
    let steps = steps.saturating_mul(STEPS);
    let mut best: Option<Drafts> = None;
    for style in others {
        if drafting.steps >= steps {
            break;
        }
        let drafts = drafting.draft(*style, room);
        if drafts.is_better_than(best.as_ref().unwrap_or(&first)) {
            best = Some(drafts);
        }
    }
    let mut improved = best.clone().unwrap_or_else(|| first.clone());
    if drafting.improve(&mut improved, &STYLES, room, steps) {
        best = Some(improved);
    }
    (Start::of(&first, &lots), best.map(|best| Start::of(&best, &lots)))
}

/// Steps of drafting that a millisecond of `scale_up.think` stands for.
const STEPS: usize = 50_000;

/// How drafts are made, one after another.
const STYLES: [Style; 3] = [
    Style {
        slack: 1.25,
        per_node: 0.0,
        balance: 1,
    },
    Style {
        slack: 1.0,
        per_node: 0.0,
        balance: 2,
    },
    Style {
        slack: 3.0,
        per_node: 0.0,
        balance: 1,
    },
];

/// So that price hardly matters against the number of nodes.
const FEWEST: Style = Style {
    slack: f64::INFINITY,
    per_node: 1e4,
    balance: 1,
};

/// Nodes that a packing begins with, by offering, and the pods for them, in an order in which they can be placed.
#[derive(Clone, Debug, Default)]
struct Start<'a> {
    nodes: Vec<usize>,
    pods: Vec<(&'a Pod, usize)>,
}

impl<'a> Start<'a> {
    /// The draft's nodes with pods, in the order in which these can be placed.
    fn of(drafts: &Drafts, lots: &Lots<'_, 'a>) -> Self {
        let mut start = Self::default();
        let mut next = vec![0; lots.all.len()];
        let mut by_address: QuickMap<*const Pod, usize> = QuickMap::default();
        let mut free: Vec<(&'a Pod, usize)> = Vec::new();
        for (node, draft) in drafts.nodes.iter().enumerate() {
            start.nodes.push(draft.offering);
            for (lot, number) in &draft.content {
                let (lot, next) = (&lots.all[*lot], &mut next[*lot]);
                for pod in lot.pods.iter().skip(*next).take(*number) {
                    if lot.cell.is_some() {
                        by_address.insert(std::ptr::from_ref(*pod), node);
                    } else {
                        free.push((pod, node));
                    }
                }
                *next += number;
            }
        }
        // Those whose cell was settled first, in that order: what settled it holds only then.
        let settled = lots.settled.iter();
        let node_of = |pod: &&'a Pod| Some((*pod, *by_address.get(&std::ptr::from_ref(*pod))?));
        start.pods = settled.filter_map(node_of).collect();
        start.pods.append(&mut free);
        start
    }
}

/// What every packing of a batch reads.
#[derive(Clone, Copy)]
struct Packer<'p, 'a> {
    offerings: &'p [Offering<'a>],
    policy: &'p Policy,
    pods: &'p [&'a Pod],
    room: &'p Room,
}

impl<'a> Packer<'_, 'a> {
    /// Begins with the given nodes, then adds nodes of the usable offerings until nothing more can be placed.
    fn pack(&self, world: &mut World<'a>, usable: &[usize], start: Start<'a>) -> Packing<'a> {
        let mut work = Work {
            packer: self,
            room: self.room.clone(),
            existing: world.hosts.len(),
            chosen: Vec::new(),
            elsewhere: Vec::new(),
            order: Vec::new(),
            left: Vec::new(),
        };
        for offering in &start.nodes {
            let host = work.launch(world, *offering);
            world.set_gone(host, true);
        }
        let mut placed: QuickSet<*const Pod> = QuickSet::default();
        let mut taken = vec![false; start.nodes.len()];
        let mut joining = (work.existing..world.hosts.len()).peekable();
        for (pod, node) in &start.pods {
            let host = work.existing + node;
            // Nodes join in their order, as late as a pod needs them: until then their own daemons count for nobody.
            while let Some(joins) = joining.next_if(|next| *next <= host) {
                world.set_gone(joins, false);
            }
            // The filters have the last word.
            if world.check(pod, &world.hosts[host]).is_ok() {
                work.put(world, pod, host);
                placed.insert(std::ptr::from_ref(*pod));
                taken[*node] = true;
            }
        }
        joining.for_each(|joins| world.set_gone(joins, false));
        if taken.contains(&false) {
            // A node for nobody is left out, and its number with it.
            work.undo(world);
            let mut number = 0;
            let renumbered: Vec<usize> = taken
                .iter()
                .map(|taken| {
                    number += usize::from(*taken);
                    number.saturating_sub(1)
                })
                .collect();
            let of_taken = |(pod, node): (&'a Pod, usize)| taken[node].then(|| (pod, renumbered[node]));
            let kept = start.nodes.iter().zip(&taken).filter(|(_, taken)| **taken);
            let start = Start {
                nodes: kept.map(|(offering, _)| *offering).collect(),
                pods: start.pods.into_iter().filter_map(of_taken).collect(),
            };
            let packing = self.pack(world, usable, start);
            return Packing {
                refused: true,
                ..packing
            };
        }
        let is_left = |pod: &&&'a Pod| !placed.contains(&std::ptr::from_ref(**pod));
        work.left = self.pods.iter().filter(is_left).copied().collect();
        if !start.nodes.is_empty() {
            work.place_on_hosts(world, true);
        }
        work.add_nodes(world, usable);
        let refused = placed.len() < start.pods.len();
        Packing {
            refused,
            ..work.finish(world)
        }
    }
}

/// A packing in progress; what it places stands in the world until it is finished.
struct Work<'w, 'p, 'a> {
    packer: &'w Packer<'p, 'a>,
    room: Room,
    /// Hosts from here on are new.
    existing: usize,
    chosen: Vec<usize>,
    elsewhere: Vec<(&'a Pod, usize)>,
    order: Vec<(&'a Pod, usize)>,
    left: Vec<&'a Pod>,
}

impl<'a> Work<'_, '_, 'a> {
    fn launch(&mut self, world: &mut World<'a>, index: usize) -> usize {
        let offering = &self.packer.offerings[index];
        let pool = &self.packer.policy.pools[offering.pool].name;
        if let Some(count) = self.room.pools.get_mut(pool) {
            count.add(Some(offering.zone.clone()), offering.market);
        }
        let host = named(&offering.host, &format!("launch[{}]", self.chosen.len()));
        self.chosen.push(index);
        world.push(host)
    }

    fn put(&mut self, world: &mut World<'a>, pod: &'a Pod, host: usize) {
        world.put(pod, host);
        self.order.push((pod, host));
        if host < self.existing {
            self.elsewhere.push((pod, host));
        }
    }

    /// What has just been placed may have made room for others: affinity is met, a domain is no longer the fullest. With
    /// `all`, for those too that look at no other host.
    fn place_on_hosts(&mut self, world: &mut World<'a>, all: bool) {
        // A pod like one that was refused is refused as well, until something is placed.
        let mut refused: QuickMap<usize, usize> = QuickMap::default();
        loop {
            let before = self.order.len();
            for pod in std::mem::take(&mut self.left) {
                let class = world.classes.class(pod);
                let tried = refused.get(&class) == Some(&self.order.len());
                if tried || !(all || world.looks_around(pod)) {
                    self.left.push(pod);
                } else if let Some(host) = world.find(pod, |host| host.accepts) {
                    self.put(world, pod, host);
                } else {
                    refused.insert(class, self.order.len());
                    self.left.push(pod);
                }
            }
            if self.order.len() == before || self.left.is_empty() {
                break;
            }
        }
    }

    /// Adds one node after another.
    fn add_nodes(&mut self, world: &mut World<'a>, usable: &[usize]) {
        let Packer {
            offerings,
            policy,
            pods,
            ..
        } = *self.packer;
        if self.left.is_empty() {
            return;
        }
        // Without an offering that holds it a pod need not be tried on each.
        let mut held: QuickMap<usize, bool> = QuickMap::default();
        let mut hopeless = Vec::new();
        let mut hopeful = Vec::new();
        for pod in &self.left {
            let holds = |index: &usize| world.check_alone(pod, &offerings[*index].host).is_ok();
            let class = world.classes.class(pod);
            if *held
                .entry(class)
                .or_insert_with(|| usable.iter().rev().any(holds))
            {
                hopeful.push(*pod);
            } else {
                hopeless.push(*pod);
            }
        }
        self.left = hopeful;
        let thinned = if self.left.len() * usable.len() > TRIALS {
            thin(offerings, usable)
        } else {
            usable.to_vec()
        };
        let references = references(offerings, &thinned, &self.left);
        loop {
            self.place_on_hosts(world, false);
            if self.left.is_empty() || self.chosen.len() >= self.room.nodes {
                break;
            }
            let next = next_node(
                world,
                offerings,
                policy,
                &self.left,
                &self.room,
                &thinned,
                &references,
            );
            let Some((offering, taken)) = next else { break };
            let host = self.launch(world, offering);
            let taken: QuickSet<*const Pod> = taken
                .into_iter()
                .map(|pod| {
                    self.put(world, pod, host);
                    std::ptr::from_ref(pod)
                })
                .collect();
            self.left.retain(|pod| !taken.contains(&std::ptr::from_ref(*pod)));
        }
        if !hopeless.is_empty() {
            let hopeless: QuickSet<*const Pod> = hopeless.into_iter().map(std::ptr::from_ref).collect();
            let left: QuickSet<*const Pod> = self.left.iter().map(|pod| std::ptr::from_ref(*pod)).collect();
            let remains = |pod: &&&'a Pod| {
                let address = std::ptr::from_ref(**pod);
                left.contains(&address) || hopeless.contains(&address)
            };
            self.left = pods.iter().filter(remains).copied().collect();
            // What no new node holds may find room on an older one, now that others are placed.
            self.place_on_hosts(world, false);
        }
    }

    fn undo(&mut self, world: &mut World<'a>) -> Vec<Host<'a>> {
        for (pod, host) in &self.elsewhere {
            world.take(pod, *host);
        }
        world.truncate(self.existing)
    }

    fn finish(mut self, world: &mut World<'a>) -> Packing<'a> {
        let launched = self.undo(world);
        let offerings = self.packer.offerings;
        let nodes = self
            .chosen
            .iter()
            .zip(launched)
            .map(|(offering, host)| {
                let daemons = offerings[*offering].host.pods.len();
                let pods: Vec<&'a Pod> = host.pods.iter().skip(daemons).copied().collect();
                PackedNode {
                    offering: *offering,
                    price: that_hold(world, offerings, *offering, &pods)
                        .next()
                        .map_or(offerings[*offering].price, |cheapest| cheapest.price),
                    pods,
                }
            })
            .collect();
        Packing {
            nodes,
            elsewhere: self.elsewhere,
            order: self.order,
            left: self.left,
            refused: false,
        }
    }
}

/// Every type of the offering's pool, zone and market that holds all these pods, cheapest first.
pub(super) fn types_for(
    world: &World<'_>,
    offerings: &[Offering<'_>],
    like: usize,
    pods: &[&Pod],
) -> Vec<(Arc<TypeSpec>, f64)> {
    that_hold(world, offerings, like, pods)
        .map(|offering| (Arc::clone(&offering.spec), offering.price))
        .collect()
}

/// The offerings of the same pool, zone and market that hold all these pods, cheapest first.
pub(super) fn that_hold<'o, 'a>(
    world: &'o World<'a>,
    offerings: &'o [Offering<'a>],
    like: usize,
    pods: &[&Pod],
) -> impl Iterator<Item = &'o Offering<'a>> + use<'o, 'a> {
    let like = &offerings[like];
    // One pod that asks for all of it at once, then one of each shape for what does not add up.
    let mut asked = Resources::default();
    let mut shapes: Vec<ShapeId> = Vec::new();
    for pod in pods {
        asked.add(&pod.requests);
        let shape = world.classes.shape(pod);
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    // Another type would be another domain, for which nothing was tried.
    let alike = if shapes.is_empty() {
        Vec::new()
    } else {
        world.domains_of_types()
    };
    let fits = move |host: &Host<'_>| {
        (shapes.is_empty()
            || (host.allocatable.fits(&host.used, &asked).is_ok()
                && host.allocatable.short_extended(&host.used, &asked).is_none()))
            && alike
                .iter()
                .all(|key| host.labels.get(*key) == like.host.labels.get(*key))
            && shapes.iter().all(|shape| world.admits(*shape, host))
            && world.attaches(&shapes, host)
    };
    let siblings = like.siblings.iter().map(|index| &offerings[*index]);
    siblings.filter(move |offering| !offering.backed_off && fits(&offering.host))
}
