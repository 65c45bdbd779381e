//! Places for pods that are on their way from nodes that go already: nobody else's pods are promised them.
//!
//! Cluster Autoscaler does the same with the pods of the nodes that it drains, and with those that it has evicted of late (its
//! scale-down planner). Nothing is launched for such a pod before it waits: it may never, where a person drains by hand and takes
//! the workload away.

use std::collections::BTreeSet;

use jiff::SignedDuration;

use super::{Context, verdicts::move_all};
use crate::{
    drainability::{Evictability, classify},
    model::Pod,
    placement::{Place, World},
};

/// A controller has so long to make another pod for one that was told to go.
const SUCCESSION: SignedDuration = SignedDuration::from_secs(30);

impl<'a> Context<'a> {
    /// Thinks nodes that go away, and their pods where they would land; gives the hosts that have to stay for it.
    pub(super) fn reserve(&self, world: &mut World<'a>) -> BTreeSet<usize> {
        let cluster = &self.snapshot.cluster;
        let mut hosts = BTreeSet::new();
        for host in 0..world.hosts.len() {
            let Place::Existing(node) = world.hosts[host].place else {
                continue;
            };
            if !cluster.nodes[node].being_deleted {
                continue;
            }
            let bound = world.hosts[host].bound.iter();
            let movers: Vec<&'a Pod> = bound
                .map(|index| &*cluster.pods[*index])
                .filter(|pod| self.needs_a_place(pod))
                .collect();
            let (moves, _) = move_all(world, &[host], &movers);
            hosts.extend(moves.into_iter().map(|(_, to)| to));
        }
        hosts
    }

    fn needs_a_place(&self, pod: &Pod) -> bool {
        let fate = classify(pod, self.policy.scale_down.strictness, None, self.now);
        match fate {
            Evictability::Skip(_) => false,
            Evictability::Leaving { needs_place } => needs_place || self.has_no_successor_yet(pod),
            Evictability::Evict(_) | Evictability::Block(..) => true,
        }
    }

    /// Whether a pod was told to go only now, and its controller has made fewer others since than pods of its were told.
    fn has_no_successor_yet(&self, pod: &Pod) -> bool {
        let told = |pod: &Pod| pod.deletion.as_ref().and_then(|deletion| deletion.since);
        let Some(since) = told(pod).filter(|since| self.now.duration_since(*since) < SUCCESSION) else {
            return false;
        };
        let (mut told_to_go, mut made) = (0_usize, 0_usize);
        let alike = |other: &&Pod| {
            other.controller.is_some()
                && other.controller == pod.controller
                && other.key.namespace == pod.key.namespace
        };
        let pods = self.snapshot.cluster.pods.iter().map(|pod| &**pod);
        for other in pods.filter(alike) {
            if told(other).is_some_and(|other| other >= since) {
                told_to_go += 1;
            } else if !other.is_terminating() && other.created.is_some_and(|created| created >= since) {
                made += 1;
            }
        }
        made < told_to_go
    }
}
