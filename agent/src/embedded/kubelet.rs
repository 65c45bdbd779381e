//! A node and its pods in memory, behind the answers of an API server: budgets, terminations that take their time, and faults
//! on order.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use smartscale_planner::model::{Deletion, PodKey};
use smartscale_proto::time::SharedClock;

use super::lock;
use crate::kubelet::{KubeletApi, OwnNode, OwnPod, Refusal};

/// A call that changed something, or tried to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// The node was cordoned.
    Cordon,
    /// The node was uncordoned.
    Uncordon,
    /// This nonce was written to the node with this UID.
    Prove(String, String),
    /// An eviction was asked for; with whether it was accepted.
    Evict(PodKey, bool),
    /// A pod was deleted with this grace.
    Delete(PodKey, Duration),
}

/// Calls that can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Reading the node.
    Node,
    /// Cordoning and uncordoning.
    Cordon,
    /// Proving whose node it is.
    Prove,
    /// Listing pods.
    List,
    /// Evicting.
    Evict,
    /// Deleting.
    Delete,
}

struct Resident {
    own: OwnPod,
    /// Time from being told to go to being gone; `None` goes at the end of its grace.
    ends_in: Option<Duration>,
    gone_at: Option<Timestamp>,
}

struct Budget {
    pods: Vec<PodKey>,
    left: u32,
}

#[derive(Default)]
struct World {
    node: Option<OwnNode>,
    residents: Vec<Resident>,
    budgets: BTreeMap<String, Budget>,
    faults: Vec<(Verb, Option<PodKey>, Refusal, u32)>,
    calls: Vec<Call>,
    reads: Vec<PodKey>,
}

/// A node in memory.
pub struct EmbeddedKubelet {
    clock: SharedClock,
    world: Mutex<World>,
}

impl EmbeddedKubelet {
    /// A node that is registered, Ready and empty.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let node = Some(OwnNode {
            ready: true,
            ..OwnNode::default()
        });
        Self {
            clock,
            world: Mutex::new(World {
                node,
                ..World::default()
            }),
        }
    }

    /// Changes the node; `None` is not registered.
    pub fn set_node(&self, node: Option<OwnNode>) {
        lock(&self.world).node = node;
    }

    /// The node.
    #[must_use]
    pub fn present_node(&self) -> Option<OwnNode> {
        lock(&self.world).node.clone()
    }

    /// Adds a pod that is gone `ends_in` after it was told to go, or, with `None`, only when its grace is over.
    pub fn add(&self, own: OwnPod, ends_in: Option<Duration>) {
        lock(&self.world).residents.push(Resident {
            own,
            ends_in,
            gone_at: None,
        });
    }

    /// Sets a budget over these pods that allows `left` evictions more.
    pub fn budget(&self, name: &str, pods: &[&str], left: u32) {
        let pods = pods.iter().filter_map(|key| key.parse().ok()).collect();
        lock(&self.world)
            .budgets
            .insert(name.to_owned(), Budget { pods, left });
    }

    /// Lets the next `times` calls fail like this; with a key, only those about that pod.
    pub fn fail(&self, verb: Verb, key: Option<&str>, refusal: Refusal, times: u32) {
        let key = key.and_then(|key| key.parse().ok());
        lock(&self.world).faults.push((verb, key, refusal, times));
    }

    /// Calls so far that changed something, or tried to.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.world).calls.clone()
    }

    /// Pods that were read on their own so far.
    #[must_use]
    pub fn reads(&self) -> Vec<PodKey> {
        lock(&self.world).reads.clone()
    }

    /// Pods that are there.
    #[must_use]
    pub fn present(&self) -> Vec<PodKey> {
        let mut world = lock(&self.world);
        world.bury(self.clock.now());
        world
            .residents
            .iter()
            .map(|resident| resident.own.pod.key.clone())
            .collect()
    }
}

impl World {
    fn bury(&mut self, now: Timestamp) {
        self.residents
            .retain(|resident| resident.gone_at.is_none_or(|at| at > now));
    }

    fn fault(&mut self, verb: Verb, key: Option<&PodKey>) -> Result<(), Refusal> {
        let matches = |fault: &&mut (Verb, Option<PodKey>, Refusal, u32)| {
            fault.0 == verb && fault.3 > 0 && (fault.1.is_none() || fault.1.as_ref() == key)
        };
        match self.faults.iter_mut().find(matches) {
            Some(fault) => {
                fault.3 -= 1;
                Err(fault.2.clone())
            }
            None => Ok(()),
        }
    }

    fn resident(&mut self, key: &PodKey, uid: &str) -> Result<&mut Resident, Refusal> {
        let resident = self
            .residents
            .iter_mut()
            .find(|resident| resident.own.pod.key == *key);
        let resident = resident.ok_or(Refusal::NotFound)?;
        if *resident.own.pod.uid == *uid {
            Ok(resident)
        } else {
            Err(Refusal::OtherUid)
        }
    }

    fn evict(
        &mut self,
        key: &PodKey,
        uid: &str,
        grace: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.fault(Verb::Evict, Some(key))?;
        self.resident(key, uid)?;
        let mut covering = self
            .budgets
            .values_mut()
            .filter(|budget| budget.pods.contains(key));
        match (covering.next(), covering.next()) {
            (Some(_), Some(_)) => return Err(Refusal::MultipleBudgets),
            (Some(budget), None) if budget.left == 0 => {
                return Err(Refusal::Budget(
                    "Cannot evict pod as it would violate the pod's disruption budget.".into(),
                ));
            }
            (Some(budget), None) => budget.left -= 1,
            _ => {}
        }
        let resident = self.resident(key, uid)?;
        let grace = grace.unwrap_or(resident.own.grace);
        resident.end(now, grace);
        Ok(())
    }
}

impl Resident {
    fn end(&mut self, now: Timestamp, grace: Duration) {
        let after = |time: Duration| now + SignedDuration::try_from(time).unwrap_or_default();
        let grace_end = after(grace);
        if self
            .own
            .pod
            .deletion
            .as_ref()
            .is_none_or(|deletion| deletion.at > grace_end)
        {
            self.own.pod.deletion = Some(Deletion {
                at: grace_end,
                since: Some(now),
            });
        }
        let gone_at = self.ends_in.map_or(grace_end, |time| after(time).min(grace_end));
        self.gone_at = Some(self.gone_at.map_or(gone_at, |before| before.min(gone_at)));
    }
}

#[async_trait]
impl KubeletApi for EmbeddedKubelet {
    async fn node(&self, _node: &str) -> Result<OwnNode, Refusal> {
        let mut world = lock(&self.world);
        world.fault(Verb::Node, None)?;
        world.node.clone().ok_or(Refusal::NotFound)
    }

    async fn cordon(&self, _node: &str, operation: &str) -> Result<(), Refusal> {
        let mut world = lock(&self.world);
        world.fault(Verb::Cordon, None)?;
        world.calls.push(Call::Cordon);
        let node = world.node.as_mut().ok_or(Refusal::NotFound)?;
        node.unschedulable = true;
        node.cordoned_by = Some(operation.to_owned());
        Ok(())
    }

    async fn uncordon(&self, _node: &str) -> Result<(), Refusal> {
        let mut world = lock(&self.world);
        world.fault(Verb::Cordon, None)?;
        world.calls.push(Call::Uncordon);
        let node = world.node.as_mut().ok_or(Refusal::NotFound)?;
        node.unschedulable = false;
        node.cordoned_by = None;
        Ok(())
    }

    async fn prove(&self, _node: &str, uid: &str, nonce: &str) -> Result<(), Refusal> {
        let mut world = lock(&self.world);
        world.fault(Verb::Prove, None)?;
        world.node.as_ref().ok_or(Refusal::NotFound)?;
        world.calls.push(Call::Prove(uid.to_owned(), nonce.to_owned()));
        Ok(())
    }

    async fn pods(&self, _node: &str) -> Result<Vec<OwnPod>, Refusal> {
        let mut world = lock(&self.world);
        world.fault(Verb::List, None)?;
        world.bury(self.clock.now());
        Ok(world
            .residents
            .iter()
            .map(|resident| resident.own.clone())
            .collect())
    }

    async fn pod(&self, key: &PodKey) -> Result<Option<OwnPod>, Refusal> {
        let mut world = lock(&self.world);
        world.bury(self.clock.now());
        world.reads.push(key.clone());
        Ok(world
            .residents
            .iter()
            .find(|resident| resident.own.pod.key == *key)
            .map(|resident| resident.own.clone()))
    }

    async fn evict(&self, key: &PodKey, uid: &str, grace: Option<Duration>) -> Result<(), Refusal> {
        let mut world = lock(&self.world);
        world.bury(self.clock.now());
        let now = self.clock.now();
        let outcome = world.evict(key, uid, grace, now);
        world.calls.push(Call::Evict(key.clone(), outcome.is_ok()));
        outcome
    }

    async fn delete(&self, key: &PodKey, uid: &str, grace: Duration) -> Result<(), Refusal> {
        let mut world = lock(&self.world);
        world.bury(self.clock.now());
        world.fault(Verb::Delete, Some(key))?;
        world.calls.push(Call::Delete(key.clone(), grace));
        let now = self.clock.now();
        world.resident(key, uid)?.end(now, grace);
        Ok(())
    }
}
