//! A pod that has a node: what keeps it there, and where it would go.

use serde::Serialize;

use super::{
    PodAnswer, Seen, Standing, Tried,
    blockers::BlockerAnswer,
    words::{self, moment, span},
};
use crate::{
    Destination,
    decide::move_all,
    drainability::{self, Evictability, SkipReason},
    model::{NodeName, Pod},
    placement::{Place, World},
};

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
    pub(super) fn bound(&self, world: &World<'a>, pod: &'a Pod, node: &NodeName, answer: &mut PodAnswer) {
        answer.standing = Standing::Bound;
        answer.place = Some(Destination::Node(node.clone()));
        let started = pod.started.or(pod.created);
        let since = started.map_or_else(String::new, |at| {
            format!(", for {}", span(self.context.now.duration_since(at)))
        });
        answer.answer = format!("it is bound to {node}{since}");
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
        if verdict.pool.is_none() {
            let note = "its node is not ours, so it is never removed".to_owned();
            answer.notes.push(note);
            return;
        }
        let removal = self
            .plan
            .remove
            .iter()
            .find(|removal| removal.node == verdict.node.name);
        let planned = removal
            .into_iter()
            .flat_map(|removal| &removal.moves)
            .find(|planned| planned.pod == pod.key);
        let (moves, stuck) = move_all(&mut world, &[host], &verdict.movers);
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
