//! Which nodes go: empty ones first, then those whose pods fit elsewhere, the most money per moved pod first.
//!
//! Each accepted removal changes the world for those after it: its pods take up room where they go, it spends disruption
//! budgets, and what stays must still carry the measured load.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::{
    Context,
    guard::Serving,
    headroom::is_headroom,
    joint::Joint,
    verdicts::{BudgetsLeft, Verdict, give_places, move_all, no_place, set_aside},
};
use crate::{
    Blocker, BlockerCode, Destination, Due, Hold, Launch, Move, NodeVerdict, Placement, Removal,
    RemovalReason, drainability,
    model::{Market, Node, NodeName, Pod, PoolName},
    placement::World,
    policy::Pool,
};

/// What is removed, and what is said of every node.
pub(super) struct Removals {
    pub(super) remove: Vec<Removal>,
    /// The node that takes the place of a replaced one.
    pub(super) launch: Vec<Launch>,
    pub(super) nodes: Vec<NodeVerdict>,
    pub(super) unneeded_since: BTreeMap<NodeName, Timestamp>,
    /// The moves in the order in which their places were found.
    pub(super) placements: Vec<Placement>,
    /// Nodes that scale-ins are to empty.
    pub(super) steer: Vec<NodeName>,
}

/// Most nodes that scale-ins are steered to.
const STEERED: usize = 5;
/// So much longer than `sustained` a scale-in is waited for with each pod of a node …
pub const PATIENCE_FOR_EACH_POD: SignedDuration = SignedDuration::from_mins(20);
/// … and with all of them, a multiple of it. Jumps that come again within the hour then find the node, and no history was dearer for it by more
/// than a few percent.
const MOST_PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// What limits leave while removals are accepted one after another.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) drains: usize,
    empty: usize,
    pub(super) budgets: BudgetsLeft,
    pub(super) pools: BTreeMap<PoolName, PoolLeft>,
    /// Our nodes that are not being deleted.
    pub(super) nodes: usize,
    /// Our nodes that are.
    leaving: usize,
    /// Allocatable of the Ready nodes that stay: CPU and memory.
    pub(super) capacity: (f64, f64),
    /// What is used of it, from the averages.
    pub(super) used: Option<(f64, f64)>,
    /// What serves on nodes that stay, where the drain guard asks for it.
    pub(super) serving: Option<Serving>,
}

/// What may be removed in this decision.
#[derive(Clone, Copy, Debug, Default)]
struct Allowed {
    /// What is not needed.
    scale_down: bool,
    /// What is to go although it is needed: neither averages nor a cooldown is asked.
    due: bool,
    /// What EC2 takes away soon: no freeze is asked either.
    maintenance: bool,
}

impl Allowed {
    fn braked(self, frozen: bool) -> Self {
        Self {
            scale_down: self.scale_down && !frozen,
            due: self.due && !frozen,
            ..self
        }
    }

    fn remove(self, verdict: &Verdict<'_>) -> bool {
        match verdict.due {
            None => self.scale_down,
            Some(Due::Maintenance) => self.maintenance,
            Some(_) => self.due,
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct PoolLeft {
    pub(super) nodes: usize,
    pub(super) on_demand: usize,
    pub(super) disruptions: usize,
}

impl<'a> Context<'a> {
    pub(super) fn removals(
        &self,
        world: &mut World<'a>,
        launches: &[Launch],
        somebody_could: bool,
        holds: &mut BTreeSet<Hold>,
    ) -> Removals {
        let mut destinations = self.reserve(world);
        let mut verdicts = self.verdicts(world);
        // A place that somebody is on the way to stays.
        for verdict in verdicts.iter_mut().filter(|v| destinations.contains(&v.host)) {
            verdict.blockers.push(Blocker::of_node(BlockerCode::Budget));
        }
        let mut left = self.left(world, &verdicts);
        self.provide_for_due(world, &mut verdicts, &left);
        let joint = self.joint(world, &mut verdicts, &left);
        let unneeded_since: BTreeMap<NodeName, Timestamp> = verdicts
            .iter()
            .filter_map(|verdict| Some((verdict.node.name.clone(), self.unneeded_since(verdict)?)))
            .collect();
        let sustained =
            SignedDuration::try_from(self.policy.scale_down.sustained).unwrap_or(SignedDuration::MAX);
        let must_wait = |verdict: &&mut Verdict<'_>| verdict.unneeded && verdict.due.is_none();
        for verdict in verdicts.iter_mut().filter(must_wait) {
            let since = unneeded_since
                .get(&verdict.node.name)
                .copied()
                .unwrap_or(self.now);
            if self.now.duration_since(since) < self.patience(verdict, sustained) {
                verdict
                    .blockers
                    .push(Blocker::of_node(BlockerCode::NotUnneededLongEnough));
            }
        }

        let may = self.may_remove(launches, somebody_could, holds);
        let may_remove = may.braked(self.brakes.removals);
        let order = self.order(world, &verdicts, &left);
        let mut remove = Vec::new();
        let mut placements = Vec::new();
        // Nodes that something of their own keeps still show what the minimum says to them.
        for verdict in verdicts.iter_mut().filter(|v| {
            v.pool.is_some() && !v.blockers.is_empty() && !v.node.being_deleted && v.replacement.is_none()
        }) {
            if self.limits(verdict, &left).contains(&BlockerCode::AtMinNodes) {
                verdict.blockers.push(Blocker::of_node(BlockerCode::AtMinNodes));
            }
        }
        for index in order {
            let verdict = &verdicts[index];
            let allowed = may_remove.remove(verdict);
            let mut blockers: Vec<Blocker> = self
                .limits(verdict, &left)
                .into_iter()
                .map(Blocker::of_node)
                .collect();
            // A place that somebody is moved to stays.
            if destinations.contains(&verdict.host) {
                blockers.push(Blocker::of_node(BlockerCode::Budget));
            }
            blockers.extend(self.spent_budgets(world, verdict, &left.budgets));
            if blockers.is_empty()
                && (self.overloads(verdict, &left, (0.0, 0.0)) || self.bares(world, verdict, &left))
            {
                blockers.push(Blocker::of_node(BlockerCode::Utilised));
            }
            let mut moves = Vec::new();
            // While nothing is removed every place is as it was when the node was judged.
            if blockers.is_empty() && allowed {
                // As the node was judged.
                let aside = match verdict.due {
                    Some(_) => set_aside(world),
                    None => Vec::new(),
                };
                let (found, stuck) = move_all(world, &[verdict.host], &verdict.movers);
                if stuck.is_empty() {
                    moves = found;
                } else {
                    for (pod, to) in found {
                        world.take(pod, to);
                    }
                    world.set_gone(verdict.host, false);
                }
                give_places(world, aside);
                blockers.extend(stuck.iter().map(|pod| no_place(pod)));
            }
            if !blockers.is_empty() {
                if blockers
                    .iter()
                    .any(|blocker| blocker.code == BlockerCode::AtMinNodes)
                {
                    holds.insert(Hold::AtMin);
                }
                verdicts[index].blockers.extend(blockers);
                continue;
            }
            if !allowed {
                continue;
            }
            destinations.extend(moves.iter().map(|(_, to)| *to));
            self.accept(world, verdict, &mut left);
            remove.push(self.removal(world, verdict, &moves));
            moves.retain(|(pod, _)| !is_headroom(pod));
            placements.extend(self.placements(world, &moves, world.hosts.len()));
        }
        let joint = joint.as_ref();
        let mut may_replace = may.braked(self.brakes.replacements);
        if self.brakes.nodes == 0 {
            let waits = |verdict: &Verdict<'_>| {
                verdict.replacement.is_some() && verdict.blockers.is_empty() && may_replace.remove(verdict)
            };
            if verdicts.iter().any(waits) {
                holds.insert(Hold::LaunchRate);
            }
            may_replace = Allowed::default();
        }
        let launch = self.replace(
            world,
            &mut verdicts,
            joint,
            &left,
            may_replace,
            &mut remove,
            &mut placements,
        );
        let steer = self.steer(&verdicts);
        let nodes = verdicts
            .into_iter()
            .map(|mut verdict| {
                verdict.blockers.sort();
                verdict.blockers.dedup();
                NodeVerdict {
                    node: verdict.node.name.clone(),
                    candidate: verdict.blockers.is_empty(),
                    blockers: verdict.blockers,
                }
            })
            .collect();
        Removals {
            remove,
            launch,
            nodes,
            unneeded_since,
            placements,
            steer,
        }
    }

    /// How long a node must be unneeded. Where scale-ins empty nodes, one with pods is given longer with each of them: an
    /// eviction that a scale-in makes needless costs more than the node does meanwhile.
    fn patience(&self, verdict: &Verdict<'a>, sustained: SignedDuration) -> SignedDuration {
        if !self.policy.scale_down.steer || sustained.is_zero() {
            return sustained;
        }
        let pods = i32::try_from(verdict.movers.len()).unwrap_or(i32::MAX);
        let for_pods = PATIENCE_FOR_EACH_POD.checked_mul(pods).unwrap_or(MOST_PATIENCE);
        sustained.saturating_add(for_pods.min(MOST_PATIENCE))
    }

    /// The nodes that scale-ins of workloads are to empty, the one that saves most per pod first: those that nothing keeps
    /// but their pods.
    fn steer(&self, verdicts: &[Verdict<'a>]) -> Vec<NodeName> {
        if !self.policy.scale_down.steer {
            return Vec::new();
        }
        let goes_away = |blocker: &Blocker| {
            matches!(
                blocker.code,
                BlockerCode::NoPlaceToMove
                    | BlockerCode::NotUnneededLongEnough
                    | BlockerCode::TooYoung
                    | BlockerCode::Utilised
                    | BlockerCode::Budget
            )
        };
        let may = |verdict: &&Verdict<'a>| {
            verdict.pool.is_some()
                && !verdict.node.being_deleted
                && !verdict.movers.is_empty()
                && verdict.blockers.iter().all(goes_away)
        };
        let mut nodes: Vec<(f64, &NodeName)> = verdicts
            .iter()
            .filter(may)
            .map(|verdict| {
                #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
                let pods = verdict.movers.len() as f64;
                let price = self.policy.price_of(verdict.node).unwrap_or(0.0);
                (price / pods, &verdict.node.name)
            })
            .collect();
        nodes.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| b.1.cmp(a.1)));
        nodes
            .into_iter()
            .take(STEERED)
            .map(|(_, name)| name.clone())
            .collect()
    }

    /// Replaces one node, or several by one, if nothing goes without a replacement: what saves most per moved pod.
    #[allow(clippy::too_many_arguments, reason = "a step of one decision")]
    fn replace(
        &self,
        world: &World<'a>,
        verdicts: &mut [Verdict<'a>],
        joint: Option<&Joint<'a>>,
        left: &Left,
        may: Allowed,
        remove: &mut Vec<Removal>,
        placements: &mut Vec<Placement>,
    ) -> Vec<Launch> {
        let mut order: Vec<(bool, f64, usize)> = Vec::new();
        for (index, verdict) in verdicts
            .iter()
            .enumerate()
            .filter(|(_, verdict)| verdict.blockers.is_empty())
        {
            let Some(replacement) = &verdict.replacement else {
                continue;
            };
            #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
            let moved = verdict.movers.len().max(1) as f64;
            let price = self.policy.price_of(verdict.node).unwrap_or(0.0);
            order.push((
                verdict.due.is_some(),
                (price - self.replaced(verdict, replacement).0.price_per_hour) / moved,
                index,
            ));
        }
        order.sort_by(|a, b| {
            b.0.cmp(&a.0)
                .then_with(|| b.1.total_cmp(&a.1))
                .then_with(|| verdicts[a.2].node.name.cmp(&verdicts[b.2].node.name))
        });
        let mut launch = Vec::new();
        if let Some(joint) = joint.filter(|_| remove.is_empty()) {
            let alone = order.first().map_or(0.0, |(_, saves, _)| *saves);
            let ready = joint
                .members
                .iter()
                .all(|index| verdicts[*index].blockers.is_empty());
            let limit = self.joint_limits(world, verdicts, joint, &mut left.clone());
            let comes_first = joint.saves_per_pod() > alone;
            if may.scale_down && ready && limit.is_none() && comes_first {
                for index in &joint.members {
                    let (launched, removal) = self.replaced(&verdicts[*index], &joint.replacement);
                    remove.push(removal);
                    launch = vec![launched];
                }
                placements.extend(joint.replacement.placements());
            }
            // Those that go with others only do not go alone.
            let waits = limit.or((!comes_first && ready).then_some(BlockerCode::Budget));
            for index in joint.members.iter().filter(|_| launch.is_empty()) {
                let verdict = &mut verdicts[*index];
                let alone = verdict.replacement.is_none();
                verdict
                    .blockers
                    .extend(waits.filter(|_| alone).map(Blocker::of_node));
            }
        }
        let gone: BTreeSet<NodeName> = remove.iter().map(|removal| removal.node.clone()).collect();
        order.retain(|(.., index)| !gone.contains(&verdicts[*index].node.name));
        for (.., index) in order {
            let verdict = &verdicts[index];
            let allowed = may.remove(verdict);
            let Some(replacement) = &verdict.replacement else {
                continue;
            };
            // The number of nodes stays the same, so no minimum is asked.
            let mut codes = self.limits(verdict, left);
            codes.retain(|code| *code == BlockerCode::Budget);
            if allowed && !remove.is_empty() && codes.is_empty() {
                codes.push(BlockerCode::Budget);
            }
            let mut blockers: Vec<Blocker> = codes.into_iter().map(Blocker::of_node).collect();
            blockers.extend(self.spent_budgets(world, verdict, &left.budgets));
            let overloads = self.overloads(verdict, left, self.brings(replacement));
            if overloads || self.bares(world, verdict, left) {
                blockers.push(Blocker::of_node(BlockerCode::Utilised));
            }
            if blockers.is_empty() && allowed {
                let (launched, removal) = self.replaced(verdict, replacement);
                placements.extend(replacement.placements());
                launch.push(launched);
                remove.push(removal);
            }
            verdicts[index].blockers.extend(blockers);
        }
        launch
    }

    /// What may be removed now, freezes aside; what holds it is said.
    fn may_remove(&self, launches: &[Launch], somebody_could: bool, holds: &mut BTreeSet<Hold>) -> Allowed {
        let mut held = self.brakes.stopped || self.averages.newest.is_none() || !launches.is_empty();
        if somebody_could {
            holds.insert(Hold::PendingPods);
            held = true;
        }
        let averages_allow = !self.asks_averages_below() || self.averages.down();
        if averages_allow && self.cooldown_down {
            holds.insert(Hold::CooldownDown);
        }
        Allowed {
            scale_down: !held && averages_allow && !self.cooldown_down,
            due: !held,
            maintenance: !held,
        }
    }

    fn left(&self, world: &World<'a>, verdicts: &[Verdict<'a>]) -> Left {
        let (cluster, policy) = (&self.snapshot.cluster, self.policy);
        let mut pools: BTreeMap<PoolName, PoolLeft> = BTreeMap::new();
        let mut nodes = 0;
        for (index, pool) in policy.pools.iter().enumerate() {
            let of_pool = verdicts.iter().filter(|verdict| verdict.pool == Some(index));
            let members: Vec<&Node> = of_pool.map(|verdict| verdict.node).collect();
            let staying: Vec<_> = members.iter().filter(|node| !node.being_deleted).collect();
            let disrupted = members.len() - staying.len();
            nodes += staying.len();
            let left = PoolLeft {
                nodes: staying.len(),
                on_demand: staying
                    .iter()
                    .filter(|n| n.market() != Some(Market::Spot))
                    .count(),
                disruptions: policy
                    .scale_down
                    .budget
                    .of(members.len())
                    .saturating_sub(disrupted),
            };
            pools.insert(pool.name.clone(), left);
        }
        let ready = || cluster.nodes.iter().filter(|node| node.ready);
        let capacity: (f64, f64) = (
            ready().map(|node| node.allocatable.cpu.as_f64()).sum(),
            ready().map(|node| node.allocatable.memory.as_f64()).sum(),
        );
        let used = self
            .averages
            .newest
            .map(|u| (u.cpu / 100.0 * capacity.0, u.memory / 100.0 * capacity.1));
        Left {
            drains: policy.scale_down.max_parallel_drains as usize,
            empty: policy.scale_down.max_parallel_empty as usize,
            budgets: self.budgets_left(),
            leaving: verdicts
                .iter()
                .filter(|verdict| verdict.pool.is_some() && verdict.node.being_deleted)
                .count(),
            pools,
            nodes,
            capacity,
            used,
            serving: self.serving(world, verdicts),
        }
    }

    /// Unblocked nodes: those that are due to go, then empty ones, then those within the disruption budgets, then by
    /// money per moved pod, then the fuller zone, then by name.
    fn order(&self, world: &World<'a>, verdicts: &[Verdict<'a>], left: &Left) -> Vec<usize> {
        let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
        let zone = |verdict: &Verdict<'a>| verdict.node.label(crate::model::keys::ZONE).unwrap_or_default();
        for verdict in verdicts.iter().filter(|verdict| verdict.pool.is_some()) {
            *zones.entry(zone(verdict)).or_default() += 1;
        }
        let mut order: Vec<usize> = (0..verdicts.len())
            .filter(|i| verdicts[*i].blockers.is_empty() && verdicts[*i].goes_without_a_new_node())
            .collect();
        let rank = |index: &usize| {
            let verdict = &verdicts[*index];
            #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
            let per_pod =
                self.policy.price_of(verdict.node).unwrap_or(0.0) / verdict.movers.len().max(1) as f64;
            let short = self
                .spending(world, verdict)
                .iter()
                .any(|(b, n)| left.budgets.get(b).is_some_and(|left| left < n));
            (
                (verdict.due.is_none(), !verdict.movers.is_empty()),
                short,
                per_pod,
                zones.get(zone(verdict)).copied().unwrap_or(0),
            )
        };
        let ranks: BTreeMap<usize, _> = order.iter().map(|index| (*index, rank(index))).collect();
        order.sort_by(|a, b| {
            let ((moves_a, short_a, saves_a, zone_a), (moves_b, short_b, saves_b, zone_b)) =
                (ranks[a], ranks[b]);
            moves_a
                .cmp(&moves_b)
                .then(short_a.cmp(&short_b))
                .then(saves_b.total_cmp(&saves_a))
                .then(zone_b.cmp(&zone_a))
                .then(verdicts[*a].node.name.cmp(&verdicts[*b].node.name))
        });
        order
    }

    /// How much each budget loses by the node's evictions.
    fn spending(&self, world: &World<'a>, verdict: &Verdict<'a>) -> BTreeMap<usize, i32> {
        let mut spending = BTreeMap::new();
        for pod in &verdict.evicted {
            for (index, budget) in self.covering(world, pod) {
                if !drainability::spares_unhealthy(budget, pod) {
                    *spending.entry(index).or_default() += 1;
                }
            }
        }
        spending
    }

    /// Budgets that earlier removals of this plan have used up.
    pub(super) fn spent_budgets(
        &self,
        world: &World<'a>,
        verdict: &Verdict<'a>,
        left: &BudgetsLeft,
    ) -> Vec<Blocker> {
        let spent = |pod: &&&'a Pod| {
            self.covering(world, pod).any(|(index, budget)| {
                !drainability::spares_unhealthy(budget, pod) && left.get(&index).is_some_and(|left| *left < 1)
            })
        };
        let blocked = verdict.evicted.iter().filter(spent);
        blocked
            .map(|pod| Blocker::of_pod(BlockerCode::NotEnoughPdb, pod.key.clone()))
            .collect()
    }

    fn pool(&self, verdict: &Verdict<'a>) -> Option<&'a Pool> {
        verdict.pool.map(|pool| &self.policy.pools[pool])
    }

    /// Limits on numbers that forbid this removal after those accepted so far.
    pub(super) fn limits(&self, verdict: &Verdict<'a>, left: &Left) -> Vec<BlockerCode> {
        let Some(pool) = self.pool(verdict) else {
            return Vec::new();
        };
        let Some(of_pool) = left.pools.get(&pool.name) else {
            return Vec::new();
        };
        let mut codes = Vec::new();
        let on_demand = verdict.node.market() != Some(Market::Spot);
        let staying = of_pool.nodes.saturating_sub(1);
        // Taking an on-demand node must leave the base, or all that is left.
        let base = (pool.on_demand_base as usize).min(staying);
        let breaks_base = pool.markets.contains(&Market::OnDemand) && on_demand && of_pool.on_demand <= base;
        if left.nodes <= self.floors.all.nodes
            || verdict
                .pool
                .is_some_and(|index| of_pool.nodes <= self.floors.of_pool(index))
            || breaks_base
        {
            codes.push(BlockerCode::AtMinNodes);
        }
        let parallel = match verdict.due {
            _ if verdict.movers.is_empty() => left.empty,
            None => left.drains,
            // No cooldown spaces these drains: those under way count.
            Some(_) => left.drains.saturating_sub(left.leaving),
        };
        if parallel == 0 || of_pool.disruptions == 0 || !self.pays_back(verdict) {
            codes.push(BlockerCode::Budget);
        }
        codes
    }

    /// Whether a node that is not needed saves within `cost.payback` what its evictions cost. Not asked where a new node is
    /// launched: what that saves was asked when it was chosen.
    pub(crate) fn pays_back(&self, verdict: &Verdict<'a>) -> bool {
        if verdict.due.is_some() || !verdict.goes_without_a_new_node() {
            return true;
        }
        let saves = self.policy.price_of(verdict.node).unwrap_or(0.0);
        saves >= self.policy.cost.per_hour(verdict.evicted.len()) - 1e-12
    }

    /// Whether what is used now would push those that stay above a scale-up threshold.
    pub(super) fn overloads(&self, verdict: &Verdict<'a>, left: &Left, comes: (f64, f64)) -> bool {
        let (have_cpu, have_memory) = staying_capacity(verdict, left);
        // The last node's own daemons end with it: there is no work that anybody would have to take over.
        if verdict.movers.is_empty() && (have_cpu + comes.0).abs() < 1e-9 {
            return false;
        }
        self.exceeds(left, (have_cpu + comes.0, have_memory + comes.1))
    }

    /// Whether what is used now would push these CPU and memory above a scale-up threshold.
    pub(super) fn exceeds(&self, left: &Left, have: (f64, f64)) -> bool {
        let Some((cpu, memory)) = left.used else {
            return false;
        };
        let up = &self.policy.scale_up;
        let above = |used: f64, have: f64, threshold: f64| used * 100.0 > threshold * have * (1.0 + 1e-9);
        above(cpu, have.0, up.cpu_percent.0) || above(memory, have.1, up.memory_percent.0)
    }

    pub(super) fn accept(&self, world: &World<'a>, verdict: &Verdict<'a>, left: &mut Left) {
        left.capacity = staying_capacity(verdict, left);
        if let Some(serving) = &mut left.serving {
            serving.cpu -= self.serving_on(world, verdict.host, verdict.node).cpu;
        }
        left.nodes -= 1;
        if verdict.movers.is_empty() {
            left.empty -= 1;
        } else {
            left.drains -= 1;
        };
        for (index, pods) in self.spending(world, verdict) {
            if let Some(left) = left.budgets.get_mut(&index) {
                *left = (*left - pods).max(0);
            }
        }
        if let Some(pool) = self.pool(verdict).and_then(|pool| left.pools.get_mut(&pool.name)) {
            pool.nodes -= 1;
            pool.disruptions -= 1;
            pool.on_demand -= usize::from(verdict.node.market() != Some(Market::Spot));
        }
    }

    fn removal(&self, world: &World<'a>, verdict: &Verdict<'a>, moves: &[(&'a Pod, usize)]) -> Removal {
        let mut moves: Vec<Move> = moves
            .iter()
            .filter(|(pod, _)| !is_headroom(pod))
            .map(|(pod, to)| Move {
                pod: pod.key.clone(),
                to: Destination::Node(world.hosts[*to].name.as_ref().into()),
            })
            .collect();
        moves.sort_by(|a, b| a.pod.cmp(&b.pod));
        let reason = if verdict.movers.is_empty() {
            RemovalReason::Empty
        } else {
            RemovalReason::Underutilised
        };
        self.leaves(verdict, reason, moves)
    }

    /// The node goes, and with it what it costs.
    pub(super) fn leaves(&self, verdict: &Verdict<'a>, reason: RemovalReason, moves: Vec<Move>) -> Removal {
        let node = verdict.node;
        let quote = self.policy.quote_of(node);
        Removal {
            node: node.name.clone(),
            reason,
            moves,
            saves_per_hour: quote.map_or(0.0, |price| price.per_hour),
            saves_source: quote.map(|price| price.source),
            saves_age_seconds: quote.and_then(|price| price.age_seconds(self.now)),
            due: verdict.due,
        }
    }
}

fn staying_capacity(verdict: &Verdict<'_>, left: &Left) -> (f64, f64) {
    if !verdict.node.ready {
        return left.capacity;
    }
    let room = &verdict.node.allocatable;
    (
        (left.capacity.0 - room.cpu.as_f64()).max(0.0),
        (left.capacity.1 - room.memory.as_f64()).max(0.0),
    )
}
