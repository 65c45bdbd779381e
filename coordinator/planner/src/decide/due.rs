//! Nodes that are due to go although they are needed: EC2 gave notice of them ([`State::announced`]), they have drifted
//! from what their pool launches now ([`State::drifted`]), they are older than it allows, or they are out of CPU credits
//! ([`State::throttled`]). What the pool says of each of
//! these is asked here and nowhere else.
//!
//! Thresholds, time unneeded, cooldown and saving are not asked of such a node. What protects the work on it is: blockers
//! of its pods, disruption budgets, minimums, the limits on drains at once. Where its pods, or the minimum, need it, another
//! node is launched in its place first, at any price.

use jiff::{SignedDuration, Timestamp};

use super::{
    Context,
    removals::Left,
    replacements::{Leaver, Terms},
    verdicts::{Verdict, set_aside},
};
use crate::{
    BlockerCode, Due, Policy,
    model::Node,
    placement::{Place, World},
    policy::{OnDrift, OnNotice, Pool},
    snapshot::{Announced, Forewarning, State},
};

/// Credits come back by themselves where the load was a peak: a node is due only once it has lacked them for so long.
const THROTTLED: SignedDuration = SignedDuration::from_mins(15);

/// Why a node of `pool` is to go at `now`: what presses most, if there is more than one reason.
fn due(state: &State, policy: &Policy, node: &Node, pool: &Pool, now: Timestamp) -> Option<Due> {
    let cooldown = SignedDuration::try_from(policy.scale_down.cooldown).unwrap_or(SignedDuration::MAX);
    let mut given_up = state.given_up.iter().filter(|one| one.node == node.name);
    if given_up.any(|one| now.duration_since(one.at) < cooldown) {
        return None;
    }
    let lead = SignedDuration::try_from(pool.maintenance_lead).unwrap_or(SignedDuration::MAX);
    let is_due = |announced: &&Announced| match announced.notice {
        Forewarning::Rebalance => pool.rebalance == OnNotice::Drain,
        Forewarning::Maintenance => {
            pool.maintenance == OnNotice::Drain
                && announced.at.is_none_or(|at| at.duration_since(now) <= lead)
        }
    };
    let of_node = state.announced.iter().filter(|one| one.node == node.name);
    let announced = of_node.filter(is_due).map(|announced| announced.notice.into());
    let has_drifted =
        || pool.drift == OnDrift::Replace && state.drifted.iter().any(|one| one.node == node.name);
    let is_old = || {
        let most = pool.max_age.and_then(|most| SignedDuration::try_from(most).ok());
        most.is_some_and(|most| !node.is_younger_than(most, now))
    };
    let is_throttled = || {
        let lasts = |since: Timestamp| now.duration_since(since) >= THROTTLED;
        let mut throttled = state.throttled.iter();
        pool.throttled == OnDrift::Replace && throttled.any(|one| one.node == node.name && lasts(one.since))
    };
    announced
        .min()
        .or_else(|| has_drifted().then_some(Due::Drift))
        .or_else(|| is_old().then_some(Due::Age))
        .or_else(|| is_throttled().then_some(Due::Throttled))
}

/// No pod is moved to a node that is to go itself.
pub(super) fn close(world: &mut World<'_>, policy: &Policy, state: &State, now: Timestamp) {
    let concerns = |pool: &Pool| pool.max_age.is_some();
    if state.announced.is_empty()
        && state.drifted.is_empty()
        && state.throttled.is_empty()
        && !policy.pools.iter().any(concerns)
    {
        return;
    }
    let nodes = &world.cluster.nodes;
    for index in 0..world.hosts.len() {
        let host = &world.hosts[index];
        if let (Place::Existing(node), Some(pool)) = (host.place, host.pool)
            && due(state, policy, &nodes[node], &policy.pools[pool], now).is_some()
        {
            world.close(index);
        }
    }
}

impl<'a> Context<'a> {
    /// Why this node is to go now, needed or not.
    pub(super) fn due(&self, node: &Node, pool: &Pool) -> Option<Due> {
        due(&self.snapshot.state, self.policy, node, pool, self.now)
    }

    /// Where a minimum or the measured load needs such a node, finds one in its stead that holds all that is on it and
    /// bears the load.
    pub(super) fn provide_for_due(&self, world: &mut World<'a>, verdicts: &mut [Verdict<'a>], left: &Left) {
        let goes = |verdict: &Verdict<'a>| verdict.due.is_some() && verdict.blockers.is_empty();
        if !verdicts.iter().any(goes) {
            return;
        }
        let aside = set_aside(world);
        for verdict in verdicts.iter_mut().filter(|verdict| goes(verdict)) {
            let bears = |comes| !self.overloads(verdict, left, comes);
            let is_enough = match &verdict.replacement {
                Some(replacement) => bears(self.brings(replacement)),
                None => bears((0.0, 0.0)) && !self.limits(verdict, left).contains(&BlockerCode::AtMinNodes),
            };
            if is_enough {
                continue;
            }
            let leaver = Leaver {
                host: verdict.host,
                node: verdict.node,
                movers: &verdict.movers,
            };
            let terms = Terms::AnyPrice { bears: &bears };
            let found = self.replacement(world, &[leaver], &verdict.movers, terms);
            if found.is_some() {
                verdict.replacement = found;
            }
        }
        aside.into_iter().for_each(|(pod, host)| world.put(pod, host));
    }
}
