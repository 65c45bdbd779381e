//! The invariants. The doors tell the ledger what takes effect, at the moment at which it does; the first line that must
//! not be there ends the run.
//!
//! - At most one coordinator may act, and a term is one coordinator's.
//! - The journal only goes forward: no operation back to an earlier phase or term.
//! - A launch is in the journal, as it is made, before it is made; a token never brings more machines than were asked
//!   for, nor does an operation; never more machines than the policy allows.
//! - No machine is terminated while pods that have to leave run on its Ready node, unless it is lost anyway.
//! - No Node is deleted before its machine is on its way out.
//! - No pod is deleted past its budget unless a forced drain is over its time, or the machine is taken.
//! - A person's cordon stays.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
};

use jiff::Timestamp;
use smartscale_coordinator::{
    act::{
        fleet::{LaunchRequest, Launched},
        operation::{Operation, Phase},
    },
    ids::{Epoch, InstanceId, OperationId},
    state::{Item, Write, records::Record as _},
};
use smartscale_planner::model::{NodeName, PodKey};
use smartscale_proto::time::{Clock as _, age};

use crate::{
    doors::{Trace, at_once},
    scheduler::Time,
    town::{Bug, MOST_NODES, Town},
};

/// What has been counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) launches: u32,
    pub(crate) terminations: u32,
    pub(crate) evictions: u32,
    pub(crate) deletions: u32,
    pub(crate) commits: u32,
    pub(crate) refused: u32,
    pub(crate) terms: u32,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.launches += other.launches;
        self.terminations += other.terminations;
        self.evictions += other.evictions;
        self.deletions += other.deletions;
        self.commits += other.commits;
        self.refused += other.refused;
        self.terms += other.terms;
    }
}

#[derive(Default)]
struct Books {
    /// Since when drains last began or were forced, by no coordinator's clock.
    draining: BTreeMap<OperationId, Timestamp>,
    violation: Option<String>,
    tokens: BTreeMap<String, BTreeSet<InstanceId>>,
    operations: BTreeMap<OperationId, (u32, BTreeSet<InstanceId>)>,
    /// Nodes that a person has cordoned.
    cordoned: BTreeSet<NodeName>,
    /// Machines that were taken from outside.
    lost: BTreeSet<InstanceId>,
    terms: BTreeMap<Epoch, usize>,
    counts: Counts,
}

/// Keeps the books of a world.
pub(crate) struct Ledger {
    town: Town,
    time: Arc<Time>,
    trace: Arc<Trace>,
    books: Mutex<Books>,
}

impl Ledger {
    pub(crate) fn new(town: Town, time: Arc<Time>, trace: Arc<Trace>) -> Arc<Self> {
        Arc::new(Self {
            town,
            time,
            trace,
            books: Mutex::default(),
        })
    }

    pub(crate) fn note(&self, line: fmt::Arguments<'_>) {
        self.trace.note(line);
    }

    /// What must not be there, if there was something.
    pub(crate) fn violation(&self) -> Option<String> {
        self.books.lock().unwrap().violation.clone()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.books.lock().unwrap().counts
    }

    pub(crate) fn violated(&self, what: String) {
        self.trace.note(format_args!("VIOLATION: {what}"));
        self.books.lock().unwrap().violation.get_or_insert(what);
    }

    fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.books.lock().unwrap().counts);
    }

    /// Coordinators that may act at this moment.
    pub(crate) fn acting(&self, acting: &[(usize, Epoch)]) {
        if acting.len() > 1 {
            self.violated(format!("several coordinators may act at once: {acting:?}"));
        }
        for (coordinator, epoch) in acting {
            let mut books = self.books.lock().unwrap();
            let count = u32::try_from(books.terms.len()).unwrap();
            let holder = *books.terms.entry(*epoch).or_insert(*coordinator);
            books.counts.terms = count.max(u32::try_from(books.terms.len()).unwrap());
            drop(books);
            if holder != *coordinator {
                self.violated(format!(
                    "term {epoch} is of coordinators {holder} and {coordinator}"
                ));
            }
        }
    }

    pub(crate) fn committing(&self, epoch: Epoch, writes: &[Write]) {
        // What the store refuses changes nothing.
        if self.town.bug != Some(Bug::NoFence) && self.town.store.epoch() != Some(epoch) {
            return;
        }
        for write in writes {
            let Write::Put { key, body, .. } = write else {
                continue;
            };
            if !key.starts_with(Operation::PREFIX) {
                continue;
            }
            let item = Item {
                key: key.clone(),
                body: body.clone(),
                version: 0,
                expires_at: None,
            };
            let next = Operation::from_item(&item).unwrap();
            let Some(present) = self.town.store.peek(key) else {
                continue;
            };
            let present = Operation::from_item(&present).unwrap();
            if next.phase == Phase::Draining {
                let mut books = self.books.lock().unwrap();
                books.draining.entry(next.id.clone()).or_insert(self.time.now());
            }
            if next.epoch < present.epoch
                || standing(&next) < standing(&present)
                || (present.phase.is_end() && next.phase != present.phase)
            {
                self.violated(format!(
                    "operation {} goes back from {:?} (term {}) to {:?} (term {})",
                    next.id, present.phase, present.epoch, next.phase, next.epoch
                ));
            }
        }
    }

    pub(crate) fn committed(&self) {
        self.count(|counts| counts.commits += 1);
    }

    pub(crate) fn refused(&self) {
        self.count(|counts| counts.refused += 1);
    }

    fn operations(&self) -> Vec<Operation> {
        self.town.records()
    }

    /// A launch call arrives.
    pub(crate) fn launching(&self, request: &LaunchRequest) {
        let key = format!("{}{}", Operation::PREFIX, request.operation);
        let journaled = self.town.store.peek(&key);
        let Some(journaled) = journaled.map(|item| Operation::from_item(&item).unwrap()) else {
            self.violated(format!("launch {} is not in the journal", request.client_token()));
            return;
        };
        let known = journaled.launch().is_some_and(|launch| {
            let attempts_on = launch.request.attempt > request.attempt;
            let same = LaunchRequest {
                enrolment_secret: None,
                ..request.clone()
            };
            attempts_on || launch.request == same
        });
        if !known || journaled.phase == Phase::Planned {
            self.violated(format!(
                "launch {} is made before it is in the journal",
                request.client_token()
            ));
        }
    }

    /// A launch call has brought something.
    pub(crate) fn launched(&self, by: &str, request: &LaunchRequest, launched: &Launched) {
        let ids: Vec<&str> = launched
            .instances
            .iter()
            .map(|instance| instance.id.as_str())
            .collect();
        let token = request.client_token();
        self.note(format_args!("{by} launch {token} of {}: {ids:?}", request.count));
        let asked = usize::try_from(request.count).unwrap();
        let (of_token, of_operation, most, fresh) = {
            let mut books = self.books.lock().unwrap();
            let ids = || launched.instances.iter().map(|instance| instance.id.clone());
            let known = books.tokens.entry(token.clone()).or_default();
            let before = known.len();
            known.extend(ids());
            let (of_token, fresh) = (known.len(), known.len() > before);
            let (most, all) = books.operations.entry(request.operation.clone()).or_default();
            *most = (*most).max(request.count);
            all.extend(ids());
            (of_token, all.clone(), usize::try_from(*most).unwrap(), fresh)
        };
        // Those of an attempt that did not join are terminated before the next.
        let of_operation = of_operation.iter().filter(|id| self.is_alive(id)).count();
        if fresh {
            self.count(|counts| counts.launches += 1);
        }
        if of_token > asked || of_operation > most {
            self.violated(format!(
                "{token} has brought {of_token} machines for {asked}, its operation {of_operation} for {most}"
            ));
        }
        if fresh {
            self.count_machines(&token);
        }
    }

    /// Machines that are there and that nobody is rid of already.
    fn count_machines(&self, token: &str) {
        let leaving: BTreeSet<String> = self
            .operations()
            .iter()
            .filter(|operation| !operation.phase.is_end())
            .filter_map(|operation| operation.removes().map(ToString::to_string))
            .collect();
        let there = self
            .town
            .cloud
            .instances()
            .iter()
            .filter(|(instance, _)| instance.state.is_alive() && !leaving.contains(instance.id.as_str()))
            .count();
        if there > usize::try_from(MOST_NODES).unwrap() {
            self.violated(format!(
                "{there} machines after launch {token}: {MOST_NODES} are allowed"
            ));
        }
    }

    /// A machine is taken from outside.
    pub(crate) fn taken(&self, id: &InstanceId) {
        self.books.lock().unwrap().lost.insert(id.clone());
    }

    fn is_lost(&self, id: &InstanceId) -> bool {
        self.town.cloud.interruption(id).is_some() || self.books.lock().unwrap().lost.contains(id)
    }

    pub(crate) fn terminating(&self, by: &str, ids: &[InstanceId]) {
        self.note(format_args!("{by} terminate {ids:?}"));
        for id in ids {
            let alive = self.is_alive(id);
            if alive {
                self.count(|counts| counts.terminations += 1);
            }
            let node = NodeName::from(id.as_str());
            let ready = self
                .town
                .cluster
                .model()
                .nodes
                .iter()
                .any(|known| known.name == node && known.ready);
            if !alive || !ready || self.is_lost(id) {
                continue;
            }
            let running: BTreeSet<PodKey> = self
                .town
                .cluster
                .running_on(&node)
                .into_iter()
                .map(|pod| pod.key)
                .collect();
            let pods = at_once(smartscale_coordinator::act::nodes::Nodes::pods(
                &self.town.cluster,
                &node,
            ));
            let left: Vec<String> = pods
                .unwrap_or_default()
                .iter()
                .filter(|pod| pod.must_leave && !pod.terminating && running.contains(&pod.key))
                .map(|pod| pod.key.to_string())
                .collect();
            if !left.is_empty() {
                self.violated(format!(
                    "{id} is terminated, and on its Ready node run {}",
                    left.join(", ")
                ));
            }
        }
    }

    fn is_alive(&self, id: &InstanceId) -> bool {
        self.town
            .cloud
            .instances()
            .iter()
            .any(|(instance, _)| instance.id == *id && instance.state.is_alive())
    }

    pub(crate) fn deleting_node(&self, node: &NodeName) {
        if node.as_str().parse().is_ok_and(|id| self.is_alive(&id)) {
            self.violated(format!("Node {node} is deleted while its machine goes on"));
        }
    }

    pub(crate) fn evicting(&self, _: &PodKey) {
        self.count(|counts| counts.evictions += 1);
    }

    /// A pod is deleted, past whatever covers it.
    pub(crate) fn deleting_pod(&self, key: &PodKey) {
        self.count(|counts| counts.deletions += 1);
        let pods = self.town.cluster.model().pods;
        let Some(node) = pods
            .iter()
            .find(|pod| pod.key == *key)
            .and_then(|pod| pod.node.clone())
        else {
            return;
        };
        let now = self.time.now();
        let draining = self.books.lock().unwrap().draining.clone();
        let allowed = self.operations().iter().any(|operation| {
            operation.removal().is_some_and(|removal| {
                let over = draining.get(&operation.id).is_some_and(|since| {
                    age(*since, now) + std::time::Duration::from_secs(2) >= removal.timeout
                });
                removal.node == node && removal.force && over
            })
        });
        let lost = node.as_str().parse().is_ok_and(|id| self.is_lost(&id));
        if !allowed && !lost {
            self.violated(format!(
                "pod {key} on {node} is deleted, and no forced drain is over its time"
            ));
        }
    }

    /// A person cordons a node, or takes that back.
    pub(crate) fn person(&self, node: &NodeName, cordons: bool) {
        let mut books = self.books.lock().unwrap();
        if cordons {
            books.cordoned.insert(node.clone());
        } else {
            books.cordoned.remove(node);
        }
    }

    /// A node was uncordoned, as far as the API server let it be.
    pub(crate) fn uncordoned(&self, node: &NodeName) {
        let ours = !self.books.lock().unwrap().cordoned.contains(node);
        let schedulable = self
            .town
            .cluster
            .model()
            .nodes
            .iter()
            .any(|known| known.name == *node && !known.unschedulable);
        if !ours && schedulable {
            self.violated(format!("the cordon of a person on {node} was lifted"));
        }
    }
}

/// How far an operation is. A launch that was refused begins again with its next attempt.
fn standing(operation: &Operation) -> (u32, Phase) {
    let attempt = operation.launch().map_or(0, |launch| launch.request.attempt);
    (attempt, operation.phase)
}
