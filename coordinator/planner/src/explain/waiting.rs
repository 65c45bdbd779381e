//! A pod that waits: how it fared everywhere, where it goes and why there, or why it goes nowhere.

use std::collections::BTreeMap;

use super::{
    Offer, PodAnswer, Seen, Standing, Tried, asks,
    words::{count, dollars},
};
use crate::{
    Destination, PendingCode,
    model::{Pod, PodKey},
    placement::{Place, World},
};

impl<'a> Seen<'_, 'a> {
    pub(super) fn waiting(&self, world: &World<'a>, pod: &'a Pod, answer: &mut PodAnswer) {
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
            self.preferences(&world, pod, &placement.to, answer);
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
        let by_key: BTreeMap<&PodKey, &'a Pod> = cluster.map(|pod| (&pod.key, &**pod)).collect();
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
            Destination::Node(node) if pod.nominated.as_ref() == Some(node) => {
                answer.answer = format!(
                    "it goes to {node}, where the scheduler makes room for it by preemption: nothing is launched for it"
                );
            }
            Destination::Node(node) => {
                answer.answer = format!("it goes to {node}, which has room: nothing is launched for it");
                let others = answer
                    .existing
                    .as_ref()
                    .map_or(0, |tried| tried.accept.len().saturating_sub(1));
                if others > 0 {
                    answer.notes.push(format!(
                        "{} would take it too; the fullest is tried first, and preferences choose among places that cost the same",
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
        // Where that is the very node that it gets, it has been said.
        let is_alone = matches!(to, Destination::Launch(index) if self.plan.launch.get(*index).is_some_and(|l| l.pods.len() == 1));
        if !is_alone {
            answer.notes.extend(alone);
        }
    }

    /// Which of its preferences about nodes its place has.
    fn preferences(&self, world: &World<'a>, pod: &Pod, to: &Destination, answer: &mut PodAnswer) {
        let name = to.to_string();
        let Some(host) = world.hosts.iter().find(|host| *host.name == *name) else {
            return;
        };
        for preferred in &pod.node_affinity.preferred {
            let has = preferred.item.matches(&host.name, &host.labels);
            answer.notes.push(format!(
                "it would rather be on {} (weight {}), and {}",
                asks::term(&preferred.item),
                preferred.weight,
                if has {
                    "is"
                } else {
                    "is not: a preference never makes a plan dearer"
                }
            ));
        }
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
}
