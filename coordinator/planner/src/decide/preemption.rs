//! Preemption, which is the scheduler's and not ours: what it has begun is reckoned with, what it may do is said.
//!
//! A pod for which the scheduler makes room on a node (`status.nominatedNodeName`) has its place there and adds no node,
//! as in Cluster Autoscaler (`FilterOutExpendableAndSplit`). Others that may preempt are still planned for like any pod: a
//! node for them comes later than a preemption, but the preempted ones need it then.

use std::collections::BTreeMap;

use super::{Context, is_headroom};
use crate::{
    Destination, Placement,
    model::{Pod, PodKey},
    placement::{Place, World},
};

/// Of so many kinds of pods it is found out whether they may preempt.
const KINDS: usize = 20;
/// So many pods are named in a note.
const NAMED: usize = 3;

/// Puts pods for which the scheduler is making room onto their nodes, though there is no room yet; those that this is not
/// true of stay in `waiting`.
pub(super) fn place_nominated<'a>(
    world: &mut World<'a>,
    waiting: &mut Vec<&'a Pod>,
) -> Vec<(&'a Pod, usize)> {
    let mut placed = Vec::new();
    waiting.retain(|pod| {
        let Some(node) = &pod.nominated else {
            return true;
        };
        let host = world.hosts.iter().position(|host| {
            let is_node = matches!(host.place, Place::Existing(_)) && *host.name == *node.as_str();
            // A node that is leaving, or that it may not use any more, is no place to wait for.
            is_node && host.accepts && world.check_kind(world.classes.shape(pod), host).is_ok()
        });
        if let Some(host) = host {
            world.put(pod, host);
            placed.push((*pod, host));
        }
        host.is_none()
    });
    placed
}

impl<'a> Context<'a> {
    /// Where the scheduler does, or may do, otherwise than planned.
    pub(super) fn preemptions(
        &self,
        world: &mut World<'a>,
        waiting: &[&'a Pod],
        placements: &[Placement],
    ) -> Vec<String> {
        let Some(lowest) = world.classes.lowest_priority() else {
            return Vec::new();
        };
        let may_preempt = |pod: &&&Pod| pod.preempts && pod.priority > lowest;
        let concerned: Vec<&&Pod> = waiting
            .iter()
            .filter(|pod| pod.nominated.is_some() || may_preempt(pod))
            .collect();
        if concerned.is_empty() {
            return Vec::new();
        }
        let to: BTreeMap<&PodKey, &Destination> = placements.iter().map(|p| (&p.pod, &p.to)).collect();
        let mut known: BTreeMap<(usize, i32), Option<usize>> = BTreeMap::new();
        // By whether a node is launched for them.
        let mut may: BTreeMap<bool, Vec<(&PodKey, usize)>> = BTreeMap::new();
        let mut does = Vec::new();
        for pod in concerned {
            let destination = to.get(&pod.key);
            if let (Some(node), Some(Destination::Node(to))) = (&pod.nominated, destination) {
                if node == to {
                    does.push(format!("{} on {node}", pod.key));
                }
                continue;
            }
            let launched = matches!(destination, Some(Destination::Launch(_)));
            if !may_preempt(&pod) || !(launched || destination.is_none()) {
                continue;
            }
            let kind = (world.classes.class(pod), pod.priority);
            if known.len() >= KINDS && !known.contains_key(&kind) {
                continue;
            }
            let host = match known.get(&kind) {
                Some(host) => *host,
                None => {
                    let host = host_after_preemption(world, pod);
                    known.insert(kind, host);
                    host
                }
            };
            if let Some(host) = host {
                may.entry(launched).or_default().push((&pod.key, host));
            }
        }
        let mut notes = Vec::new();
        does.sort();
        if !does.is_empty() {
            let rest = does.len().saturating_sub(NAMED);
            does.truncate(NAMED);
            notes.push(format!(
                "the scheduler is making room by preemption for {}{}, so no node is launched for it",
                does.join(", "),
                more(rest)
            ));
        }
        for (launched, mut pods) in may.into_iter().rev() {
            pods.sort();
            let named = pods.iter().take(NAMED);
            let named: Vec<_> = named
                .map(|(pod, host)| format!("{pod} on {}", world.hosts[*host].name))
                .collect();
            notes.push(format!(
                "{}, though the scheduler may preempt pods of lower priority for {}{}",
                if launched {
                    "nodes are launched for pods of higher priority"
                } else {
                    "pods of higher priority stay without a place here"
                },
                named.join(", "),
                more(pods.len().saturating_sub(NAMED))
            ));
        }
        notes
    }
}

fn more(number: usize) -> String {
    match number {
        0 => String::new(),
        number => format!(" and {number} more"),
    }
}

/// The first existing node that would take the pod, were all pods of lower priority gone from it. The world is left as it
/// was.
fn host_after_preemption<'a>(world: &mut World<'a>, pod: &Pod) -> Option<usize> {
    for index in 0..world.hosts.len() {
        let host = &world.hosts[index];
        if host.gone || !host.accepts || !matches!(host.place, Place::Existing(_)) {
            continue;
        }
        let is_lower =
            |other: &&&Pod| other.priority < pod.priority && other.node.is_some() && !is_headroom(other);
        let lower: Vec<&'a Pod> = host.pods.iter().filter(is_lower).copied().collect();
        let mut used = host.used.clone();
        lower.iter().for_each(|other| used.subtract(&other.requests));
        if lower.is_empty() || host.allocatable.fits(&used, &pod.requests).is_err() {
            continue;
        }
        for other in &lower {
            world.take(other, index);
        }
        let fits = world.check(pod, &world.hosts[index]).is_ok();
        for other in lower {
            world.put(other, index);
        }
        if fits {
            return Some(index);
        }
    }
    None
}
