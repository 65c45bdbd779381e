//! Steering: scale-ins of workloads are led to the nodes that are to go next, so that these empty without an eviction
//! (`scale_down.steer`).
//!
//! ```text
//!   decision ─▶ nodes in order ─▶ ladder ─▶ a cost for each ─▶ ledger ─▶ patches of a round ─▶ API server, one by one
//!                                                                ▲
//!   watch ────▶ what pods bear ─▶ standing: ours, theirs, free ──┘
//! ```
//! A ReplicaSet's controller deletes the pods of the lowest `controller.kubernetes.io/pod-deletion-cost` first, of those that
//! run; only then does it ask which node has more of its pods (Kubernetes, *ReplicaSet*, "Scaling"; KEP-2255). All that there is
//! to remember of a mark is on the pod itself: whoever leads next takes it back when its node is no candidate any more, when
//! `steer` is switched off, and while somebody has paused.

mod ladder;
mod ledger;
pub mod standing;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use smartscale_manifests::{DeletionCost, Objects};
use smartscale_planner::model::{NodeName, PodKey};
use smartscale_proto::time::{SharedClock, age};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    ledger::{Ledger, Patch, Seen},
    standing::{Change, Standing},
};
use super::nodes::{Nodes, NodesError, Priced};
use crate::{
    config::Mode,
    ids::Epoch,
    observe::ClusterView,
    serve::view::Latest,
    state::lease::Leadership,
    tell::{ErrorType, Event, Happening, Severity, SharedTell},
};

/// The cluster must have been seen so lately, or nothing is said of its pods.
const FRESH: Duration = Duration::from_secs(60);
/// Between two patches: five a second at most.
const BETWEEN: Duration = Duration::from_millis(200);
/// After a patch that failed nothing is patched for so long.
const REST: Duration = Duration::from_secs(60);

/// What it works with.
pub struct Parts {
    /// Whether pods are patched at all.
    pub mode: Mode,
    /// The clock.
    pub clock: SharedClock,
    /// Who patches.
    pub nodes: Arc<dyn Nodes>,
    /// What pods bear.
    pub cluster: Arc<dyn ClusterView>,
    /// The last decision; each has the pods looked at.
    pub latest: watch::Receiver<Option<Arc<Latest>>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Who is told.
    pub tell: SharedTell,
}

/// The loop that marks pods.
pub struct Steering {
    parts: Parts,
    ledger: Ledger,
    /// The term that the ledger is of.
    term: Option<Epoch>,
    rests_until: Duration,
    /// It was said that patches fail.
    failed: bool,
}

impl Steering {
    /// A loop that begins with [`run`](Self::run).
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            ledger: Ledger::default(),
            term: None,
            rests_until: Duration::ZERO,
            failed: false,
        }
    }

    /// Marks pods, and takes marks back, after each decision until `shutdown`. Marks outlive it: the next leader goes on.
    pub async fn run(mut self, shutdown: CancellationToken) {
        while self.parts.mode == Mode::Act {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                // Whoever decides ends with the program.
                changed = self.parts.latest.changed() => if changed.is_err() { break },
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = self.turn() => {}
            }
        }
        shutdown.cancelled().await;
    }

    /// One round, if this coordinator leads, knows what it decided and sees the cluster.
    pub(super) async fn turn(&mut self) {
        let Some(term) = self.term() else {
            self.term = None;
            return;
        };
        if self.term != Some(term) {
            self.term = Some(term);
            self.ledger = Ledger::default();
        }
        let Some(patches) = self.round() else { return };
        let (mut written, mut fails) = (0, false);
        for Patch { pod, uid, change } in patches {
            if self.term() != Some(term) {
                return;
            }
            self.ledger.note(&pod, self.parts.clock.elapsed());
            let cost = match change {
                Change::Say(cost) => Some(cost),
                Change::TakeBack | Change::Forget => None,
            };
            match self.parts.nodes.price(&pod, &uid, cost).await {
                Ok(Priced::Written) => {
                    tracing::debug!(%pod, ?change, "deletion cost written");
                    written += 1;
                }
                Ok(outcome) => tracing::debug!(%pod, ?outcome, "deletion cost left as it is"),
                Err(error) => {
                    self.rest(&error);
                    fails = true;
                    break;
                }
            }
            self.parts.clock.sleep(BETWEEN).await;
        }
        if written > 0 {
            self.failed &= fails;
            tracing::info!(pods = written, "deletion costs written or taken back");
        }
    }

    /// What is to be patched by the last decision; `None` when nothing may be.
    fn round(&mut self) -> Option<Vec<Patch>> {
        let now = self.parts.clock.elapsed();
        let latest = self.parts.latest.borrow_and_update().clone()?;
        // Without a record it was made without the store or without the lease: nobody knows what is wanted.
        latest.decision.as_ref()?;
        let observed = self.parts.cluster.latest();
        let objects = observed.value?;
        if now < self.rests_until || age(observed.at?, self.parts.clock.now()) > FRESH {
            return None;
        }
        let pods = seen(&latest, &objects);
        // Who pauses wants nothing to be led anywhere.
        let order: &[NodeName] = if latest.snapshot.state.paused {
            &[]
        } else {
            &latest.plan.steer
        };
        let nodes = latest.snapshot.cluster.nodes.iter();
        let leaving: BTreeSet<NodeName> = nodes
            .filter(|node| node.being_deleted)
            .map(|node| node.name.clone())
            .chain(latest.plan.remove.iter().map(|removal| removal.node.clone()))
            .collect();
        Some(self.ledger.round(&pods, order, &leaving, now))
    }

    fn term(&self) -> Option<Epoch> {
        self.parts.leadership.borrow().may_act(&*self.parts.clock)
    }

    /// Leaves the API server alone for a while, and says why when that is news.
    fn rest(&mut self, error: &NodesError) {
        self.rests_until = self.parts.clock.elapsed().saturating_add(REST);
        tracing::warn!(%error, "a pod's deletion cost was not written");
        if std::mem::replace(&mut self.failed, true) {
            return;
        }
        let hint = match error {
            NodesError::Refused(_) => " (scale_down.steer needs packaging/kubernetes/steer)",
            NodesError::NoNode(_) | NodesError::Unavailable(_) => "",
        };
        self.parts.tell.tell(Happening {
            time: self.parts.clock.now(),
            severity: Severity::Warning,
            message: format!("scale-ins are not steered: {error}{hint}"),
            event: Event::Trouble {
                error_type: ErrorType::Steering.into(),
            },
        });
    }
}

/// The pods that bear a cost of ours, with it.
pub(crate) fn marked(objects: &Objects) -> BTreeMap<PodKey, i32> {
    let costs = objects.deletion_costs();
    let marked = costs.filter_map(|((namespace, name), said)| {
        match Standing::of(said.cost.as_deref(), said.mark.as_deref()) {
            Standing::Ours(cost) => Some((PodKey::new(namespace, name), cost)),
            Standing::Free | Standing::Theirs { .. } => None,
        }
    });
    marked.collect()
}

/// The pods of a decision with what each bears now.
fn seen(latest: &Latest, objects: &Objects) -> Vec<Seen> {
    let costs: BTreeMap<(&str, &str), &DeletionCost> = objects.deletion_costs().collect();
    let bears = |namespace: &str, name: &str| {
        let said = costs.get(&(namespace, name));
        said.map_or(Standing::Free, |said| {
            Standing::of(said.cost.as_deref(), said.mark.as_deref())
        })
    };
    let pods = latest.snapshot.cluster.pods.iter();
    pods.map(|pod| Seen {
        pod: Arc::clone(pod),
        standing: bears(pod.key.namespace.as_str(), &pod.key.name),
    })
    .collect()
}
