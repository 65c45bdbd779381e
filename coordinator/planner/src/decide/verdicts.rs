//! What keeps each node from being removed, by itself: all of it, not only the first thing.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use super::{
    Context,
    headroom::{is_expected, is_headroom},
    replacements::{Leaver, Replacement, Terms},
    rules::node_usage,
};
use crate::{
    Blocker, BlockerCode, Due,
    drainability::{self, Evictability},
    model::{DisruptionBudget, MilliCpu, Node, Pod},
    placement::{ClassId, Place, Refuge, Refuges, World},
};

/// What is known of a node before limits and other removals are asked.
#[derive(Clone, Debug)]
pub(crate) struct Verdict<'a> {
    pub(crate) node: &'a Node,
    /// Its place in the world.
    pub(crate) host: usize,
    /// The pool that it belongs to, by its index in the policy. `None`: it is not ours.
    pub(crate) pool: Option<usize>,
    pub(crate) blockers: Vec<Blocker>,
    /// Its pods that need another place.
    pub(crate) movers: Vec<&'a Pod>,
    /// Those of them that are to be evicted (the others are leaving already).
    pub(crate) evicted: Vec<&'a Pod>,
    /// It is not needed: nothing of its own says otherwise.
    pub(crate) unneeded: bool,
    /// Its pods fit nowhere else, but on a cheaper node.
    pub(crate) replacement: Option<Replacement<'a>>,
    /// Why it is to go, needed or not.
    pub(crate) due: Option<Due>,
    /// It can go together with others, for which one node is launched ([`Joint`](super::joint::Joint)).
    pub(crate) goes_jointly: bool,
}

impl Verdict<'_> {
    /// Its pods have places on nodes that are there, if it has any.
    pub(crate) fn goes_without_a_new_node(&self) -> bool {
        self.replacement.is_none() && !self.goes_jointly
    }
}

/// How much each budget still allows, by its index in the cluster.
pub(super) type BudgetsLeft = BTreeMap<usize, i32>;

impl<'a> Context<'a> {
    pub(super) fn budgets_left(&self) -> BudgetsLeft {
        let budgets = &self.snapshot.cluster.disruption_budgets;
        budgets
            .iter()
            .enumerate()
            .map(|(index, budget)| (index, budget.disruptions_allowed))
            .collect()
    }

    /// The budgets that cover a pod.
    pub(crate) fn covering(
        &self,
        world: &World<'a>,
        pod: &Pod,
    ) -> impl Iterator<Item = (usize, &'a DisruptionBudget)> {
        self.covering.of(&self.snapshot.cluster, world.classes.shape(pod))
    }

    /// Judges every existing node; nodes in order of their names.
    pub(super) fn verdicts(&self, world: &mut World<'a>) -> Vec<Verdict<'a>> {
        let existing: Vec<(usize, usize)> = world
            .hosts
            .iter()
            .enumerate()
            .filter_map(|(host, h)| match h.place {
                Place::Existing(node) => Some((host, node)),
                _ => None,
            })
            .collect();
        let (due, others): (Vec<_>, Vec<_>) = existing
            .into_iter()
            .partition(|(host, node)| self.needs_no_room_kept(world, *host, *node));
        let mut refuges = Refuges::new(world);
        let mut verdicts: Vec<Verdict<'a>> = others
            .into_iter()
            .map(|(host, node)| self.judge(world, &mut refuges, host, node))
            .collect();
        if let Some(expected) = self.snapshot.state.expected {
            let surplus = match self.policy.scale_down.steer {
                true => i64::from(expected.surplus).saturating_mul(expected.cpu_millis.0),
                false => 0,
            };
            unneeded_but_for_what_is_expected(world, &mut verdicts, MilliCpu(surplus));
        }
        if !due.is_empty() {
            let aside = set_aside(world);
            let mut refuges = Refuges::new(world);
            let of_due = due.into_iter();
            verdicts.extend(of_due.map(|(host, node)| self.judge(world, &mut refuges, host, node)));
            aside.into_iter().for_each(|(pod, host)| world.put(pod, host));
            verdicts.sort_by_key(|verdict| verdict.host);
        }
        verdicts
    }

    /// Judges one node. Of a node that is due the world is left without what is only expected.
    pub(crate) fn verdict(&self, world: &mut World<'a>, host: usize, node: usize) -> Verdict<'a> {
        if self.needs_no_room_kept(world, host, node) {
            set_aside(world);
        }
        let mut refuges = Refuges::new(world);
        self.judge(world, &mut refuges, host, node)
    }

    /// A node that is due does not stay for what is only expected: a next decision launches for that.
    fn needs_no_room_kept(&self, world: &World<'a>, host: usize, node: usize) -> bool {
        let node = &self.snapshot.cluster.nodes[node];
        let due = || self.due(node, &self.policy.pools[world.hosts[host].pool?]);
        self.snapshot.state.expected.is_some() && due().is_some()
    }

    fn judge(&self, world: &mut World<'a>, refuges: &mut Refuges, host: usize, node: usize) -> Verdict<'a> {
        let (cluster, policy, now) = (&self.snapshot.cluster, self.policy, self.now);
        let node = &cluster.nodes[node];
        let pool = world.hosts[host].pool;
        let ours = pool.is_some();
        let mut blockers = Vec::new();
        let bound = world.hosts[host].bound.len();
        let mut movers = Vec::with_capacity(bound);
        let mut evicted = Vec::with_capacity(bound);
        let mut classes = Vec::with_capacity(bound);
        for index in &world.hosts[host].bound {
            let pod = &*cluster.pods[*index];
            let class = world.classes.of_cluster[*index];
            let shape = world.classes.shape_of(class);
            if world.classes.facts[*index].yields && self.covering.of(cluster, shape).next().is_none() {
                movers.push(pod);
                evicted.push(pod);
                classes.push(class);
                continue;
            }
            let covered = self.covering(world, pod).next().is_some();
            let codes = match drainability::classify(pod, policy.scale_down.strictness, Some(covered), now) {
                Evictability::Skip(_) | Evictability::Leaving { needs_place: false } => continue,
                Evictability::Leaving { needs_place: true } => {
                    movers.push(pod);
                    classes.push(class);
                    continue;
                }
                Evictability::Evict(_) => Vec::new(),
                Evictability::Block(codes, _) => codes,
            };
            let covering = self.covering(world, pod).map(|(_, budget)| budget);
            let budget = drainability::pdb_blocker(pod, covering, |b| b.disruptions_allowed);
            blockers.extend(
                codes
                    .into_iter()
                    .chain(budget)
                    .map(|code| Blocker::of_pod(code, pod.key.clone())),
            );
            movers.push(pod);
            evicted.push(pod);
            classes.push(class);
        }
        let mut of_node = |code, holds: bool| {
            if holds {
                blockers.push(Blocker::of_node(code));
            }
        };
        let says = |key: &str| node.annotations.get(key).is_some_and(|value| &**value == "true");
        of_node(BlockerCode::NotOurs, !ours);
        of_node(
            BlockerCode::ScaleDownDisabled,
            says(drainability::SCALE_DOWN_DISABLED) || says(drainability::DO_NOT_DISRUPT),
        );
        of_node(BlockerCode::BeingDeleted, node.being_deleted);
        let mut unneeded = false;
        let mut replacement = None;
        let due = pool.and_then(|pool| self.due(node, &policy.pools[pool]));
        if ours {
            let is_utilised = due.is_none() && self.is_utilised(world, host, node);
            of_node(BlockerCode::Utilised, is_utilised);
            if !node.being_deleted {
                let stuck = without_place(world, refuges, host, &movers, &classes);
                if !stuck.is_empty() && blockers.is_empty() {
                    let leaver = Leaver {
                        host,
                        node,
                        movers: &movers,
                    };
                    let terms = match due {
                        None => Terms::Saving,
                        Some(_) => Terms::AnyPrice { bears: &|_| true },
                    };
                    replacement = self.replacement(world, &[leaver], &stuck, terms);
                }
                if replacement.is_none() {
                    let stuck = stuck.into_iter().map(no_place);
                    blockers.extend(stuck);
                }
            }
            unneeded = blockers.is_empty();
            let min_age = SignedDuration::try_from(policy.scale_down.min_age).unwrap_or(SignedDuration::MAX);
            let usage = node_usage(&self.snapshot.metrics, node.name.as_str(), now);
            if due.is_none() && usage.is_none() {
                blockers.push(Blocker::of_node(BlockerCode::UnknownUsage));
            }
            if due.is_none() && node.is_younger_than(min_age, now) {
                blockers.push(Blocker::of_node(BlockerCode::TooYoung));
            }
        }
        Verdict {
            node,
            host,
            pool,
            blockers,
            movers,
            evicted,
            unneeded,
            replacement,
            due,
            goes_jointly: false,
        }
    }

    /// In use above the thresholds: measured, where the thresholds are asked, or by requests, where they are.
    fn is_utilised(&self, world: &World<'_>, host: usize, node: &Node) -> bool {
        let down = &self.policy.scale_down;
        let measured = self.asks_averages_below()
            && node_usage(&self.snapshot.metrics, node.name.as_str(), self.now).is_some_and(|usage| {
                usage.cpu >= down.cpu_percent.0 || usage.memory >= down.memory_percent.0
            });
        let bound = down.unneeded_when_requests_below_percent;
        let requested = bound.0 < 100.0 && world.hosts[host].fullness * 100.0 >= bound.0;
        measured || requested
    }

    /// Since when the node is unneeded: as remembered, or from now. While its usage is unknown nothing new begins.
    pub(super) fn unneeded_since(&self, verdict: &Verdict<'_>) -> Option<Timestamp> {
        if !verdict.unneeded {
            return None;
        }
        let known = self
            .snapshot
            .state
            .unneeded_since
            .get(&verdict.node.name)
            .map(|since| (*since).min(self.now));
        let usage_known = node_usage(&self.snapshot.metrics, verdict.node.name.as_str(), self.now).is_some();
        known.or_else(|| usage_known.then_some(self.now))
    }
}

/// A node whose pods fit elsewhere, and that only room for what is expected keeps, is unneeded all the same: as with a minimum,
/// it has waited long enough when that falls. So is one whose pods are about to be ended (`surplus`, of what they request): it
/// has waited since its demand went, not since the workload's autoscaler believed that.
fn unneeded_but_for_what_is_expected<'a>(
    world: &mut World<'a>,
    verdicts: &mut [Verdict<'a>],
    surplus: MilliCpu,
) {
    let aside = set_aside(world);
    let has_no_place = |blocker: &Blocker| blocker.code == BlockerCode::NoPlaceToMove;
    let kept_by_places = |verdict: &Verdict<'a>| {
        let own =
            |blocker: &&Blocker| !matches!(blocker.code, BlockerCode::TooYoung | BlockerCode::UnknownUsage);
        verdict.pool.is_some()
            && !verdict.unneeded
            && verdict.blockers.iter().filter(own).all(has_no_place)
            && verdict.blockers.iter().any(has_no_place)
    };
    for verdict in verdicts.iter_mut().filter(|verdict| kept_by_places(verdict)) {
        verdict.unneeded = try_all(world, &[verdict.host], &verdict.movers).1.is_empty();
    }
    // Scale-ins take the pods of those with the fewest first.
    let mut order: Vec<&mut Verdict<'a>> = verdicts
        .iter_mut()
        .filter(|verdict| !verdict.movers.is_empty() && (verdict.unneeded || kept_by_places(verdict)))
        .collect();
    order.sort_by(|a, b| {
        let fewest = a.movers.len().cmp(&b.movers.len());
        fewest.then_with(|| b.node.name.cmp(&a.node.name))
    });
    let mut left = surplus;
    for verdict in order {
        let ends = |pod: &&&Pod| {
            let fits = pod.requests.cpu <= left;
            if fits {
                left -= pod.requests.cpu;
            }
            fits
        };
        let ended = verdict.movers.iter().take_while(ends).count();
        if ended == 0 {
            break;
        }
        verdict.unneeded |= try_all(world, &[verdict.host], &verdict.movers[ended..])
            .1
            .is_empty();
    }
    aside.into_iter().for_each(|(pod, host)| world.put(pod, host));
}

/// Takes what is only expected from its places, which are returned.
pub(super) fn set_aside<'a>(world: &mut World<'a>) -> Vec<(&'a Pod, usize)> {
    let mut aside: Vec<(&'a Pod, usize)> = Vec::new();
    for (host, of) in world.hosts.iter().enumerate() {
        let pods = of.later().iter().copied().filter(|pod| is_expected(pod));
        aside.extend(pods.map(|pod| (pod, host)));
    }
    aside.iter().for_each(|(pod, host)| world.take(pod, *host));
    aside
}

/// Gives what is only expected its places back where they are still free, or others. What finds none is launched for later.
pub(super) fn give_places<'a>(world: &mut World<'a>, aside: Vec<(&'a Pod, usize)>) {
    for (pod, former) in aside {
        let has_room = |host: usize| !world.hosts[host].gone && world.check(pod, &world.hosts[host]).is_ok();
        let place = if has_room(former) {
            Some(former)
        } else {
            world.find(pod, |host| host.is_destination)
        };
        if let Some(host) = place {
            world.put(pod, host);
        }
    }
}

/// Those of a node's pods that no other node can take, when all of them must go. `classes` are theirs.
fn without_place<'a>(
    world: &mut World<'a>,
    refuges: &mut Refuges,
    host: usize,
    movers: &[&'a Pod],
    classes: &[ClassId],
) -> Vec<&'a Pod> {
    let kept_free = || world.hosts[host].later().iter().filter(|pod| is_headroom(pod));
    let number = movers.len() + kept_free().count();
    let mut finds_place = |class: ClassId| match refuges.of(world, class) {
        Some(Refuge::Hosts(hosts)) => hosts > number,
        _ => false,
    };
    let mut kept_classes = kept_free().map(|pod| world.classes.class(pod));
    if classes.iter().copied().all(&mut finds_place) && kept_classes.all(finds_place) {
        return Vec::new();
    }
    let (mut stuck, movers): (Vec<&'a Pod>, Vec<&'a Pod>) = movers.iter().partition(|pod| {
        let refuge = refuges.of(world, world.classes.class(pod));
        matches!(refuge, Some(Refuge::Nowhere(but)) if but.is_none_or(|but| but == host))
    });
    stuck.extend(try_all(world, &[host], &movers).1);
    stuck
}

/// Thinks the hosts away and finds a place for each of their pods on the others, again until a pass places none. Returns
/// the moves, which stand in the world now, and the pods without a place.
pub(crate) fn move_all<'a>(
    world: &mut World<'a>,
    leaving: &[usize],
    movers: &[&'a Pod],
) -> (Vec<(&'a Pod, usize)>, Vec<&'a Pod>) {
    leaving.iter().for_each(|host| world.set_gone(*host, true));
    let mut moves = Vec::new();
    let mut left: Vec<&'a Pod> = movers.to_vec();
    left.sort_by(|a, b| size_order(a, b));
    for host in leaving {
        let kept_free = world.hosts[*host].later().iter().copied();
        left.extend(kept_free.filter(|pod| is_headroom(pod)));
    }
    loop {
        let before = left.len();
        left.retain(|pod| {
            if pod.resource_claims {
                return true;
            }
            let Some(to) = world.find(pod, |host| host.is_destination) else {
                return true;
            };
            world.put(pod, to);
            moves.push((*pod, to));
            false
        });
        if left.len() == before || left.is_empty() {
            return (moves, left);
        }
    }
}

/// As [`move_all`]; the world is left as it was.
pub(super) fn try_all<'a>(
    world: &mut World<'a>,
    leaving: &[usize],
    movers: &[&'a Pod],
) -> (Vec<(&'a Pod, usize)>, Vec<&'a Pod>) {
    let found = move_all(world, leaving, movers);
    for (pod, to) in &found.0 {
        world.take(pod, *to);
    }
    leaving.iter().for_each(|host| world.set_gone(*host, false));
    found
}

/// The largest first, then by name.
fn size_order(a: &Pod, b: &Pod) -> std::cmp::Ordering {
    let size = |pod: &Pod| (pod.requests.cpu, pod.requests.memory);
    size(b).cmp(&size(a)).then_with(|| a.key.cmp(&b.key))
}

/// The blocker of a pod without another place; room that is kept free is the node's own matter.
pub(super) fn no_place(pod: &Pod) -> Blocker {
    if is_headroom(pod) {
        Blocker::of_node(BlockerCode::NoPlaceToMove)
    } else {
        Blocker::of_pod(BlockerCode::NoPlaceToMove, pod.key.clone())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{fixtures, model::keys, placement::Known};

    proptest! {
        #[test]
        fn what_is_known_of_many_hosts_is_what_moving_the_pods_would_show(
            nodes in 1_u8..14,
            shapes in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 0..40),
        ) {
            let name = |node: u8| format!("n{}", node % nodes);
            let zone = |node: u8| if node.is_multiple_of(3) { "us-east-1a" } else { "us-east-1b" };
            let all = (0..nodes).map(|node| fixtures::node(&name(node)).zone(zone(node)).cpu("3"));
            let pods = shapes.iter().enumerate().map(|(index, (size, on, kind))| {
                let app = if kind & 1 == 0 { "a" } else { "b" };
                let pod = fixtures::pod(&format!("default/p{index}"))
                    .cpu(&format!("{}m", u32::from(size % 5) * 100 + 100))
                    .label("app", app)
                    .on(&name(*on));
                match kind % 9 {
                    0 => pod.spread(keys::ZONE, 1),
                    1 => pod.spread(keys::HOSTNAME, 1 + i32::from(size % 3)),
                    2 => pod.apart_from(app, keys::HOSTNAME),
                    3 => pod.apart_from("b", keys::ZONE),
                    4 => pod.host_port(8080),
                    5 => pod.node_selector(keys::ZONE, "us-east-1a"),
                    _ => pod,
                }
            });
            let snapshot = fixtures::snapshot(all, pods);
            let policy = fixtures::policy("");
            let mut world = World::new(&snapshot.cluster, &[], &policy, fixtures::now(), &mut Known::default());
            let mut refuges = Refuges::new(&world);
            for host in 0..world.hosts.len() {
                let movers = world.hosts[host].pods.clone();
                let (moves, mut expected) = move_all(&mut world, &[host], &movers);
                moves.into_iter().for_each(|(pod, to)| world.take(pod, to));
                world.set_gone(host, false);
                let classes: Vec<ClassId> = movers.iter().map(|pod| world.classes.class(pod)).collect();
                let mut stuck = without_place(&mut world, &mut refuges, host, &movers, &classes);
                expected.sort_by(|a, b| a.key.cmp(&b.key));
                stuck.sort_by(|a, b| a.key.cmp(&b.key));
                prop_assert_eq!(stuck, expected);
            }
        }
    }
}
