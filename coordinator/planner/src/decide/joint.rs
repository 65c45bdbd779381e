//! Several nodes for one: their pods fit nowhere else and each alone is cheap enough for what is on it, but one node that
//! costs less than all of them holds what is on them together.
//!
//! Only asked where nothing can go without a new node and more than one node may be drained at once. Karpenter calls it
//! multi-node consolidation; as there, the nodes are those that cost most against the pods to be moved.

use super::{
    Context,
    removals::Left,
    replacements::{Leaver, Replacement, Terms},
    verdicts::{Verdict, try_all},
};
use crate::{
    BlockerCode,
    model::{Market, Pod},
    placement::World,
};

/// Nodes that one new node could replace.
#[derive(Clone, Debug)]
pub(super) struct Joint<'a> {
    /// By their index among the verdicts.
    pub(super) members: Vec<usize>,
    pub(super) replacement: Replacement<'a>,
    /// USD per hour.
    saves: f64,
    pods: usize,
}

impl Joint<'_> {
    /// USD per hour and moved pod.
    pub(super) fn saves_per_pod(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        let pods = self.pods.max(1) as f64;
        self.saves / pods
    }
}

/// How many nodes are tried together: a bound on work.
const SIZES: [usize; 5] = [16, 8, 4, 3, 2];

impl<'a> Context<'a> {
    /// The nodes whose joint replacement saves most. What kept them was that their pods have no place; that is lifted.
    pub(super) fn joint(
        &self,
        world: &mut World<'a>,
        verdicts: &mut [Verdict<'a>],
        left: &Left,
    ) -> Option<Joint<'a>> {
        let goes = |verdict: &Verdict<'_>| {
            verdict.unneeded && (verdict.replacement.is_none() || verdict.due.is_some())
        };
        if left.drains < 2 || verdicts.iter().any(goes) {
            return None;
        }
        let mut best: Option<Joint<'a>> = None;
        for (pool_index, pool) in self.policy.pools.iter().enumerate() {
            let Some(of_pool) = left.pools.get(&pool.name) else {
                continue;
            };
            let spare = |nodes: usize, min: usize| (nodes + 1).saturating_sub(min);
            let most = left
                .drains
                .min(of_pool.disruptions)
                .min(spare(left.nodes, self.floors.all.nodes))
                .min(spare(of_pool.nodes, self.floors.of_pool(pool_index)));
            let is_of_pool = |verdict: &Verdict<'a>| verdict.pool == Some(pool_index);
            let mut candidates: Vec<usize> = (0..verdicts.len())
                .filter(|index| is_of_pool(&verdicts[*index]) && lacks_only_a_place(&verdicts[*index]))
                .collect();
            candidates.sort_by(|a, b| {
                let (a, b) = (&verdicts[*a], &verdicts[*b]);
                let per_pod = |verdict| self.price_per_pod(verdict);
                per_pod(b)
                    .total_cmp(&per_pod(a))
                    .then_with(|| a.node.name.cmp(&b.node.name))
            });
            let sizes = SIZES
                .into_iter()
                .filter(|size| *size <= most.min(candidates.len()));
            for size in sizes {
                let found = self.jointly(world, verdicts, &candidates[..size]);
                if let Some(found) = found
                    && best.as_ref().is_none_or(|best| found.saves > best.saves + 1e-9)
                {
                    best = Some(found);
                }
            }
        }
        for index in best.iter().flat_map(|joint| &joint.members) {
            let verdict = &mut verdicts[*index];
            verdict
                .blockers
                .retain(|blocker| blocker.code != BlockerCode::NoPlaceToMove);
            verdict.unneeded = true;
            verdict.goes_jointly = true;
        }
        best
    }

    fn price_per_pod(&self, verdict: &Verdict<'_>) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
        let pods = verdict.movers.len().max(1) as f64;
        self.policy.price_of(verdict.node).unwrap_or(0.0) / pods
    }

    fn jointly(
        &self,
        world: &mut World<'a>,
        verdicts: &[Verdict<'a>],
        members: &[usize],
    ) -> Option<Joint<'a>> {
        let leavers: Vec<Leaver<'_, 'a>> = members
            .iter()
            .map(|index| &verdicts[*index])
            .map(|verdict| Leaver {
                host: verdict.host,
                node: verdict.node,
                movers: &verdict.movers,
            })
            .collect();
        let hosts: Vec<usize> = leavers.iter().map(|leaver| leaver.host).collect();
        let movers: Vec<&'a Pod> = leavers.iter().flat_map(|leaver| leaver.movers).copied().collect();
        let (_, stuck) = try_all(world, &hosts, &movers);
        let replacement = self.replacement(world, &leavers, &stuck, Terms::Saving)?;
        let price: f64 = leavers
            .iter()
            .filter_map(|leaver| self.policy.price_of(leaver.node))
            .sum();
        Some(Joint {
            members: members.to_vec(),
            saves: price - self.price_of(&replacement),
            pods: movers.len(),
            replacement,
        })
    }

    /// Limits on numbers that forbid the removal of all of them after those accepted so far. `left` is what they leave if
    /// none does.
    pub(super) fn joint_limits(
        &self,
        world: &World<'a>,
        verdicts: &[Verdict<'a>],
        joint: &Joint<'a>,
        left: &mut Left,
    ) -> Option<BlockerCode> {
        for verdict in joint.members.iter().map(|index| &verdicts[*index]) {
            if self.limits(verdict, left).contains(&BlockerCode::Budget) {
                return Some(BlockerCode::Budget);
            }
            if !self.spent_budgets(world, verdict, &left.budgets).is_empty() {
                return Some(BlockerCode::Budget);
            }
            if self.bares(world, verdict, left) {
                return Some(BlockerCode::Utilised);
            }
            self.accept(world, verdict, left);
        }
        let pool_index = verdicts[*joint.members.first()?].pool?;
        let pool = &self.policy.pools[pool_index];
        let of_pool = left.pools.get(&pool.name)?;
        let new_is_on_demand = self.market_of(&joint.replacement) == Market::OnDemand;
        let on_demand = of_pool.on_demand + usize::from(new_is_on_demand);
        let base = (pool.on_demand_base as usize).min(of_pool.nodes + 1);
        if left.nodes + 1 < self.floors.all.nodes
            || of_pool.nodes + 1 < self.floors.of_pool(pool_index)
            || (pool.markets.contains(&Market::OnDemand) && on_demand < base)
        {
            return Some(BlockerCode::AtMinNodes);
        }
        let (cpu, memory) = self.brings(&joint.replacement);
        let capacity = (left.capacity.0 + cpu, left.capacity.1 + memory);
        self.exceeds(left, capacity).then_some(BlockerCode::Utilised)
    }
}

/// Whether nothing but the lack of another place, or of time, keeps the node.
fn lacks_only_a_place(verdict: &Verdict<'_>) -> bool {
    let is_about_place = |code: BlockerCode| code == BlockerCode::NoPlaceToMove;
    let is_about_time = |code: BlockerCode| matches!(code, BlockerCode::TooYoung | BlockerCode::UnknownUsage);
    let mut codes = verdict.blockers.iter().map(|blocker| blocker.code);
    let stuck = verdict.replacement.is_some() || codes.clone().any(is_about_place);
    verdict.pool.is_some()
        && !verdict.node.being_deleted
        && !verdict.movers.is_empty()
        && stuck
        && codes.all(|code| is_about_place(code) || is_about_time(code))
}
