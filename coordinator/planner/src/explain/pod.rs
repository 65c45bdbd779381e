//! The answer about a pod: what it asks for, how it fared everywhere, which limits applied, and what comes of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Leaving, Limit, Offer, Seen, Tried, asks};
use crate::{
    Destination, PendingCode,
    model::{DEFAULT_SCHEDULER, PodKey},
    placement::World,
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
}
