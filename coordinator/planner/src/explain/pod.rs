//! The answer about a pod: what it asks for, how it fared everywhere, which limits applied, and what comes of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Offer, Seen, Tried, asks,
    blockers::BlockerAnswer,
    words::{self, count, dollars, moment, span},
};
use crate::{
    Destination, PendingCode,
    decide::move_all,
    drainability::{self, Evictability, SkipReason},
    model::{DEFAULT_SCHEDULER, NodeName, Pod, PodKey},
    placement::{Place, World},
};

/// How a pod stands with the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It waits and has a place in the plan.
    Placed,
    /// It waits and has none.
    Pending,
    /// It is on a node.
    Bound,
    /// It has been told to go.
    Terminating,
    /// It has ended.
    Finished,
    /// Its DaemonSet's controller sees to it.
    DaemonSet,
    /// Another scheduler sees to it.
    OtherScheduler,
}

/// The answer about a pod.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PodAnswer {
    /// The pod.
    pub pod: PodKey,
    /// How it stands.
    pub standing: Standing,
    /// The code of [`crate::PendingPod`], where it has no place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<PendingCode>,
    /// Where it is, or is planned to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Destination>,
    /// The answer in a sentence.
    pub answer: String,
    /// Why there, or what else is worth knowing; a sentence each.
    pub notes: Vec<String>,
    /// What it requests, by resource.
    pub requests: BTreeMap<String, String>,
    /// Its constraints, a sentence each.
    pub constraints: Vec<String>,
    /// Its priority.
    pub priority: i32,
    /// How it fares on nodes that are there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub existing: Option<Tried<String>>,
    /// On nodes that are launching.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launching: Option<Tried<String>>,
    /// On nodes that the plan launches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<Tried<String>>,
    /// On everything that could be launched, alone on a new node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offerings: Option<Tried<Offer>>,
    /// Limits on launches, as they stand after this plan's.
    pub limits: Vec<Limit>,
    /// What would become of it if its node went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
}

/// A limit on launches.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limit {
    /// Its key in the policy or state.
    pub limit: String,
    /// Whether it is what keeps the pod pending.
    pub stops: bool,
    /// Its figures.
    pub detail: String,
}

/// What would become of a bound pod if its node went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaving {
    /// What forbids its eviction.
    pub blockers: Vec<BlockerAnswer>,
    /// The place that it would move to, when all pods of its node must; `None` if it needs or has none.
    pub to: Option<Destination>,
    /// How it fares on the other nodes, where it has no place to move to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Tried<String>>,
}

impl<'a> Seen<'_, 'a> {
    pub(super) fn pod(&self, world: &World<'a>, key: &PodKey) -> Option<PodAnswer> {
        let pod = self
            .context
            .snapshot
            .cluster
            .pods
            .iter()
            .find(|pod| pod.key == *key)?;
        let mut answer = PodAnswer {
            pod: key.clone(),
            standing: Standing::Pending,
            code: None,
            place: None,
            answer: String::new(),
            notes: Vec::new(),
            requests: asks::requests(pod),
            constraints: asks::constraints(pod),
            priority: pod.priority,
            existing: None,
            launching: None,
            planned: None,
            offerings: None,
            limits: Vec::new(),
            leaving: None,
        };
        match &pod.node {
            _ if pod.is_finished() => {
                answer.standing = Standing::Finished;
                answer.answer = format!("it has ended ({:?}); it takes no room and needs none", pod.phase);
            }
            Some(node) => self.bound(world, pod, node, &mut answer),
            None if pod.is_terminating() => {
                answer.standing = Standing::Terminating;
                answer.answer =
                    "it has been told to go before it had a place; nothing is planned for it".to_owned();
            }
            None if pod.is_owned_by("DaemonSet") => {
                answer.standing = Standing::DaemonSet;
                let owner = pod.controller.as_ref().map_or("", |owner| &*owner.name);
                answer.answer = format!(
                    "it belongs to DaemonSet {owner}, which puts one on each node that it accepts; new nodes keep room for it, and none is launched for it"
                );
            }
            None if &*pod.scheduler != DEFAULT_SCHEDULER => {
                answer.standing = Standing::OtherScheduler;
                answer.answer = format!("it waits for scheduler {}, so it is left alone", pod.scheduler);
            }
            None => self.waiting(world, pod, &mut answer),
        }
        Some(answer)
    }

    fn waiting(&self, world: &World<'a>, pod: &'a Pod, answer: &mut PodAnswer) {
        let placement = self
            .plan
            .placements
            .iter()
            .position(|placement| placement.pod == pod.key);
        let mut world = world.clone();
        if let Some(turn) = placement {
            self.go_back(&mut world, turn);
        }
        let placement = placement.and_then(|turn| self.plan.placements.get(turn));
        let pending = self
            .plan
            .pods
            .pending
            .iter()
            .find(|pending| pending.pod == pod.key);
        answer.existing = Some(self.hosts(&world, pod, false, |place| matches!(place, Place::Existing(_))));
        answer.launching = Some(self.hosts(&world, pod, false, |place| matches!(place, Place::Launching(_))));
        answer.planned = Some(self.hosts(&world, pod, false, |place| place == Place::Planned));
        let offerings = self.offerings(&mut world, pod, placement.is_some());
        if let Some(placement) = placement {
            answer.standing = Standing::Placed;
            answer.place = Some(placement.to.clone());
            self.placed(pod, &placement.to, &offerings, answer);
        } else if let Some(pending) = pending {
            answer.code = Some(pending.code);
            answer.answer = pending.reason.clone();
            if pending.code == PendingCode::ResourceClaim {
                // What is said of other filters would be half an answer.
                (answer.existing, answer.launching, answer.planned) = (None, None, None);
                return;
            }
            self.pending_notes(pending.code, answer);
        }
        answer.limits = self.limits(pod, answer.code);
        answer.offerings = Some(offerings);
    }

    /// Thinks those away who found their places in this turn or later: so it was when the turn came.
    fn go_back(&self, world: &mut World<'a>, turn: usize) {
        let cluster = self.context.snapshot.cluster.pods.iter();
        let by_key: BTreeMap<&PodKey, &'a Pod> = cluster.map(|pod| (&pod.key, pod)).collect();
        let later = self.plan.placements.get(turn..self.plan.pods.placed);
        for placement in later.unwrap_or_default().iter().rev() {
            let Some(pod) = by_key.get(&placement.pod) else {
                continue;
            };
            let name = placement.to.to_string();
            if let Some(host) = world.hosts.iter().position(|host| *host.name == *name) {
                world.take(pod, host);
            }
        }
    }

    /// Where it goes, why there, and what else would have cost.
    fn placed(&self, pod: &Pod, to: &Destination, offerings: &Tried<Offer>, answer: &mut PodAnswer) {
        let cheapest = offerings.accept.first();
        let alone = cheapest.map(|offer| {
            format!(
                "alone on a new node it would cost {} at least ({} {} in {}, pool {})",
                dollars(offer.price_per_hour),
                offer.instance_type,
                offer.market,
                offer.zone,
                offer.pool
            )
        });
        match to {
            Destination::Node(node) => {
                answer.answer = format!("it goes to {node}, which has room: nothing is launched for it");
                let others = answer
                    .existing
                    .as_ref()
                    .map_or(0, |tried| tried.accept.len().saturating_sub(1));
                if others > 0 {
                    answer.notes.push(format!(
                        "{} would take it too; the one liked best is taken, among equals the fullest",
                        count(others, "other node")
                    ));
                }
            }
            Destination::Launching(_) => {
                answer.answer =
                    format!("it goes to {to}, a node that is on its way: nothing is launched for it");
            }
            Destination::Launch(index) => {
                let Some(launch) = self.plan.launch.get(*index) else {
                    return;
                };
                let first = launch.instance_types.first().map_or("-", |name| name.as_str());
                let others = launch.pods.len().saturating_sub(1);
                answer.answer = format!(
                    "it goes to {to}, a new {first} ({}) in {}, pool {}, {}{}",
                    launch.market,
                    launch.zone,
                    launch.pool,
                    dollars(launch.price_per_hour),
                    if others > 0 {
                        format!(", with {}", count(others, "other pod"))
                    } else {
                        String::new()
                    }
                );
                if pod.requests.pods > 0 && launch.pods.len() > 1 {
                    #[allow(clippy::cast_precision_loss, reason = "a number of pods")]
                    let each = launch.price_per_hour / launch.pods.len() as f64;
                    answer.notes.push(format!(
                        "shared by {} that is {} each",
                        count(launch.pods.len(), "pod"),
                        dollars(each)
                    ));
                }
            }
        }
        answer.notes.extend(alone);
    }

    /// What the chain would not say by itself.
    fn pending_notes(&self, code: PendingCode, answer: &mut PodAnswer) {
        match code {
            PendingCode::SchedulingGated => answer
                .notes
                .push("what follows is how it would fare without its gates".to_owned()),
            PendingCode::PriorityCutoff => answer
                .notes
                .push("it takes room that is there or that comes for others".to_owned()),
            PendingCode::Held => {
                if self.context.snapshot.state.paused {
                    answer.notes.push("scaling is paused".to_owned());
                }
                if self.context.snapshot.state.scaling_in_progress {
                    answer.notes.push("an operation is in progress".to_owned());
                }
            }
            _ => {}
        }
    }

    fn limits(&self, pod: &Pod, code: Option<PendingCode>) -> Vec<Limit> {
        let (context, policy) = (self.context, self.context.policy);
        let mut limits = Vec::new();
        let mut limit = |limit: &str, stops: bool, detail: String| {
            limits.push(Limit {
                limit: limit.to_owned(),
                stops,
                detail,
            });
        };
        let is = |wanted: PendingCode| code == Some(wanted);
        let backed_off = context
            .offerings
            .iter()
            .filter(|offering| offering.backed_off)
            .count();
        if backed_off > 0 {
            let until = context
                .snapshot
                .state
                .backoff
                .iter()
                .map(|entry| entry.until)
                .filter(|until| *until > context.now)
                .min();
            let until = until.map_or_else(String::new, |until| {
                format!(", the first until {}", moment(until))
            });
            let all = context.offerings.len();
            limit(
                "back-off",
                is(PendingCode::BackedOff),
                format!("{backed_off} of {} failed lately{until}", count(all, "offering")),
            );
        }
        let room = &self.outcome.room;
        let nodes: usize = room.pools.values().map(|count| count.nodes).sum();
        let max = policy.limits.max_nodes;
        let at_max = is(PendingCode::AtMaxNodes);
        limit(
            "limits.max_nodes",
            at_max && nodes >= max as usize,
            format!("{nodes} of {max} nodes, this plan's launches included"),
        );
        for pool in &policy.pools {
            let nodes = room.pools.get(&pool.name).map_or(0, |count| count.nodes);
            if pool.max_nodes < max {
                limit(
                    &format!("pool {}: max_nodes", pool.name),
                    at_max && nodes >= pool.max_nodes as usize,
                    format!("{nodes} of {} nodes", pool.max_nodes),
                );
            }
        }
        if policy.scale_up.max_step > 0 {
            limit(
                "scale_up.max_step",
                is(PendingCode::MaxStep),
                format!(
                    "{} of {} launches in one decision",
                    self.outcome.launches.len(),
                    policy.scale_up.max_step
                ),
            );
        }
        if context.cooldown_up {
            let since = context.snapshot.state.last_scale_time;
            let ago = since.map_or_else(String::new, |at| {
                format!(
                    "the last scale-up was {} ago; ",
                    span(context.now.duration_since(at))
                )
            });
            limit(
                "scale_up.cooldown",
                false,
                format!("{ago}it does not apply to pods that no node under way can take"),
            );
        }
        if context.frozen {
            limit(
                if context.snapshot.state.paused {
                    "paused"
                } else {
                    "scaling_in_progress"
                },
                is(PendingCode::Held),
                "nothing is launched now".to_owned(),
            );
        }
        if policy.scale_up.priority_cutoff > i32::MIN {
            limit(
                "scale_up.priority_cutoff",
                is(PendingCode::PriorityCutoff),
                format!(
                    "priority {} against {}",
                    pod.priority, policy.scale_up.priority_cutoff
                ),
            );
        }
        limits
    }

    fn bound(&self, world: &World<'a>, pod: &'a Pod, node: &NodeName, answer: &mut PodAnswer) {
        answer.standing = Standing::Bound;
        answer.place = Some(Destination::Node(node.clone()));
        let started = pod.started.or(pod.created);
        let since = started.map_or_else(String::new, |at| {
            format!(" for {}", span(self.context.now.duration_since(at)))
        });
        answer.answer = format!("it has been on {node}{since}");
        let Some(host) = world.hosts.iter().position(|host| *host.name == *node.as_str()) else {
            answer.answer = format!("it is bound to {node}, which the cluster does not have");
            return;
        };
        let strictness = self.context.policy.scale_down.strictness;
        let covered = self.context.covering(world, pod).next().is_some();
        match drainability::classify(pod, strictness, Some(covered), self.context.now) {
            Evictability::Skip(why) => {
                let why = match why {
                    SkipReason::DaemonSet => "a DaemonSet's pod",
                    SkipReason::Mirror => "a static pod",
                    SkipReason::Finished => "ended",
                    SkipReason::Gone => "past its grace, hence gone",
                };
                answer
                    .notes
                    .push(format!("it is {why}: it ends with its node and moves nowhere"));
                return;
            }
            Evictability::Leaving { needs_place } => {
                answer.standing = Standing::Terminating;
                let until = pod.deletion.as_ref().map_or_else(String::new, |deletion| {
                    format!(", its grace ends {}", moment(deletion.at))
                });
                answer.answer = format!("it is leaving {node}{until}");
                if !needs_place {
                    answer
                        .notes
                        .push("it holds its room until it is gone, and needs no other".to_owned());
                    return;
                }
                answer.notes.push(
                    "its StatefulSet creates it anew once it is gone, so it needs another place".to_owned(),
                );
            }
            Evictability::Evict(_) | Evictability::Block(..) => {}
        }
        self.leaving(world, pod, host, answer);
    }

    /// What would become of it if its node went, and whether the node does go.
    fn leaving(&self, world: &World<'a>, pod: &'a Pod, host: usize, answer: &mut PodAnswer) {
        let mut world = world.clone();
        let Place::Existing(node) = world.hosts[host].place else {
            return;
        };
        let verdict = self.context.verdict(&mut world, host, node);
        let removal = self
            .plan
            .remove
            .iter()
            .find(|removal| removal.node == verdict.node.name);
        let planned = removal
            .into_iter()
            .flat_map(|removal| &removal.moves)
            .find(|planned| planned.pod == pod.key);
        let (moves, stuck) = move_all(&mut world, host, &verdict.movers);
        let found = moves.iter().find(|(other, _)| other.key == pod.key);
        let replaced = verdict.replacement.as_ref().and_then(|replacement| {
            let (_, removal) = self.context.replaced(&verdict, replacement);
            removal.moves.into_iter().find(|planned| planned.pod == pod.key)
        });
        let to = planned
            .map(|planned| planned.to.clone())
            .or_else(|| found.map(|(_, to)| Destination::Node(world.hosts[*to].name.as_ref().into())))
            .or_else(|| replaced.as_ref().map(|planned| planned.to.clone()));
        let without = to.is_none() && stuck.iter().any(|other| other.key == pod.key);
        let others =
            without.then(|| self.hosts(&world, pod, true, |place| matches!(place, Place::Existing(_))));
        let blockers: Vec<BlockerAnswer> = self
            .blockers(&world, &verdict, &[])
            .into_iter()
            .filter(|blocker| blocker.pod.as_ref() == Some(&pod.key))
            .collect();
        let mut note = |text: String| answer.notes.push(text);
        match (&to, removal) {
            (Some(to), Some(_)) => note(format!("its node goes in this plan, and it moves to {to}")),
            (Some(Destination::Launch(_)), None) => {
                note("if its node went, it would move to a new, cheaper one".to_owned());
            }
            (Some(to), None) => note(format!("if its node went, it would move to {to}")),
            (None, _) if without => note(format!("if its node went, it would have no place: {}", {
                let nearest = others.as_ref().and_then(Tried::nearest);
                nearest.map_or_else(
                    || "there is no other node".to_owned(),
                    |(code, attempt)| words::attempt(&attempt.by, code, &attempt.detail),
                )
            })),
            (None, _) => {}
        }
        answer.leaving = Some(Leaving { blockers, to, others });
    }
}
