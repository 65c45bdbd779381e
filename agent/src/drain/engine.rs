//! The loop that carries a drain out: look at the state, start what is due, store, wait for whatever happens first.
//!
//! Calls fly on their own and come back as events; the loop alone changes the state. A started call is not polled before
//! the state that announces it is on disk.

use std::{collections::HashMap, future::Future, pin::Pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt as _,
    stream::{FuturesUnordered, StreamExt as _},
};
use rand::{SeedableRng as _, rngs::SmallRng};
use smartscale_planner::drainability::Tier;
use smartscale_proto::{
    backoff::Backoff,
    v1::{Outcome, session_request::Report},
};
use tokio::sync::{mpsc, watch};

use super::{
    Command, OnTimeout, Tools,
    attempt::Attempt,
    state::{Cordon, DrainState, Moment, PodStage, Stage},
};
use crate::{
    kubelet::{OwnNode, OwnPod, Refusal},
    state::{read_json, write_json},
};

/// The file of the latest drain.
pub(super) const FILE: &str = "drain.json";
/// How long forcing goes on after the longest grace.
const FORCE_MARGIN: Duration = Duration::from_secs(15);
/// The least grace: with zero, the API server forgets the pod before the kubelet has ended it.
const LEAST_GRACE: Duration = Duration::from_secs(1);
/// Delay before the loop looks again when nothing happens.
const IDLE: Duration = Duration::from_secs(5);

/// What came back.
pub(super) enum Event {
    Node(Result<OwnNode, Refusal>),
    Cordoned(Result<(), Refusal>),
    /// When it was asked for, and the answer.
    Listed(Duration, Result<Vec<OwnPod>, Refusal>),
    Attempted(String, Attempt),
    Deleted(String, Result<(), Refusal>),
    Uncordoned(Result<(), Refusal>),
}

pub(super) type Flight = Pin<Box<dyn Future<Output = Event> + Send>>;

/// When something may be tried (again).
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) flying: bool,
    pub(super) next: Duration,
    pub(super) failures: u32,
}

/// What a run knows beside the state: nothing of it has to survive.
#[derive(Default)]
pub(super) struct Run {
    pub(super) node: Attempts,
    pub(super) list: Attempts,
    pub(super) pods: HashMap<String, Attempts>,
    /// When the list was asked for that was last read in this run.
    pub(super) listed: Option<Duration>,
    /// Tiers up to this one may leave, since when, and for how long it has the stage for itself.
    pub(super) tier: Option<(Tier, Duration, Duration)>,
    /// Whether the state's changes are on disk and told.
    pub(super) dirty: bool,
}

/// Carries out one drain at a time.
pub struct Engine {
    pub(super) tools: Tools,
    orders: mpsc::Receiver<Command>,
    published: watch::Sender<Option<Arc<DrainState>>>,
    pub(super) random: SmallRng,
}

impl Engine {
    pub(super) fn new(tools: Tools, orders: mpsc::Receiver<Command>) -> Self {
        let stored = read_json::<DrainState>(&*tools.folder, FILE)
            .map(|drain| Arc::new(drain.resumed(&tools.clock, &tools.boot_id)));
        let published = watch::Sender::new(stored);
        Self {
            tools,
            orders,
            published,
            random: SmallRng::seed_from_u64(rand::random()),
        }
    }

    /// Draws its delays from `seed`, so that a simulation repeats.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        self.random = SmallRng::seed_from_u64(seed);
        self
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Arc<DrainState>>> {
        self.published.subscribe()
    }

    /// Takes orders and carries them out until the last [`Drainer`](super::Drainer) is gone.
    pub async fn run(mut self) {
        let mut state = self.published.borrow().as_deref().cloned();
        if let Some(drain) = state.as_ref().filter(|drain| !drain.stage.is_finished()) {
            tracing::info!(op = ?drain.operations, stage = ?drain.stage, deadline = %drain.deadline.wall, "a drain is resumed");
        }
        loop {
            match state.as_mut().filter(|drain| !drain.stage.is_finished()) {
                Some(drain) => {
                    if !self.carry(drain).await {
                        return;
                    }
                    tracing::info!(op = ?drain.operations, stage = ?drain.stage, error = drain.error, "the drain is over");
                }
                None => match self.orders.recv().await {
                    Some(command) => self.begin(command, &mut state),
                    None => return,
                },
            }
        }
    }

    /// A command while no drain is under way.
    fn begin(&self, command: Command, state: &mut Option<DrainState>) {
        match command {
            Command::Drain(order) => match state {
                Some(done) if done.operations.contains(&order.operation) => self.tell(done),
                _ => {
                    tracing::info!(op = order.operation, reason = order.reason, timeout = ?order.timeout, on_timeout = ?order.on_timeout, "a drain begins");
                    *state = Some(DrainState::new(order, &self.tools.clock, &self.tools.boot_id));
                }
            },
            Command::Abort(operation) => {
                let known = state.as_mut().filter(|done| done.operations.contains(&operation));
                let known = known.map(|done| {
                    let closed = done.stage == Stage::Failed && done.cordon == Cordon::Ours;
                    if done.stage == Stage::Drained || closed {
                        done.stage = Stage::Aborting;
                    }
                });
                let error = match known {
                    Some(()) => String::new(),
                    None => "no drain of this operation is known here".to_owned(),
                };
                self.tools
                    .outbox
                    .result(&operation, "abort_drain", Outcome::Done, error);
            }
        }
    }

    /// A command while a drain is under way.
    fn amend(&self, command: Command, drain: &mut DrainState, run: &mut Run) {
        run.dirty = true;
        match command {
            Command::Drain(order) if drain.operations.contains(&order.operation) => {
                if drain.harden(&order, &self.tools.clock) {
                    tracing::info!(op = order.operation, timeout = ?order.timeout, "the drain will be forced");
                    run.tier = None;
                }
            }
            Command::Drain(order) => {
                tracing::info!(op = order.operation, joins = ?drain.operations, "an order joins the drain under way");
                drain.join(order, &self.tools.clock);
                // The terms may have changed: nobody waits out a delay of the old ones.
                run.tier = None;
            }
            Command::Abort(operation) => {
                let mut error = "no drain of this operation is known here".to_owned();
                if let Some(position) = drain.operations.iter().position(|own| *own == operation) {
                    error.clear();
                    if drain.operations.len() > 1 {
                        let mut left = drain.clone();
                        left.stage = Stage::Aborted;
                        drain.operations.remove(position);
                        left.error =
                            format!("given up; the node drains on for {}", drain.operations.join(", "));
                        self.tools
                            .outbox
                            .put_some(left.to_wire(&operation).map(Report::Drain));
                    } else if drain.stage != Stage::Aborting {
                        "the drain was given up on command".clone_into(&mut drain.error);
                        drain.stage = Stage::Aborting;
                        run.node = Attempts::default();
                    }
                }
                self.tools
                    .outbox
                    .result(&operation, "abort_drain", Outcome::Done, error);
            }
        }
    }

    /// Carries `drain` to its end; `false` when nobody can give orders any more.
    async fn carry(&mut self, drain: &mut DrainState) -> bool {
        let mut run = Run {
            dirty: true,
            ..Run::default()
        };
        let mut flights = FuturesUnordered::<Flight>::new();
        loop {
            let wake = self.advance(drain, &mut run, &mut flights);
            if std::mem::take(&mut run.dirty) {
                self.store(drain);
            }
            if drain.stage.is_finished() {
                return true;
            }
            let clock = Arc::clone(&self.tools.clock);
            tokio::select! {
                biased;
                command = self.orders.recv() => match command {
                    Some(command) => self.amend(command, drain, &mut run),
                    None => return false,
                },
                Some(event) = flights.next(), if !flights.is_empty() => {
                    self.apply(event, drain, &mut run);
                    // What else has come back by now is stored with it: a hundred pods are not a hundred writes.
                    while let Some(Some(event)) = flights.next().now_or_never() {
                        self.apply(event, drain, &mut run);
                    }
                }
                () = clock.sleep(wake) => {}
            }
        }
    }

    /// Keeps the state on disk, publishes and reports it.
    fn store(&self, drain: &DrainState) {
        if let Err(error) = write_json(&*self.tools.folder, FILE, drain) {
            // A full disk must not keep the node from being emptied.
            tracing::error!(%error, "the drain's state cannot be kept");
        }
        self.published.send_replace(Some(Arc::new(drain.clone())));
        self.tell(drain);
    }

    fn tell(&self, drain: &DrainState) {
        for operation in &drain.operations {
            self.tools
                .outbox
                .put_some(drain.to_wire(operation).map(Report::Drain));
        }
    }

    /// Moves the stage on as far as nothing has to be waited for and starts what is due. Says when to look again.
    fn advance(
        &mut self,
        drain: &mut DrainState,
        run: &mut Run,
        flights: &mut FuturesUnordered<Flight>,
    ) -> Duration {
        let now = self.tools.clock.elapsed();
        let before = drain.stage;
        match drain.stage {
            Stage::Cordoning if now >= drain.deadline.elapsed => match (drain.on_timeout, drain.cordon) {
                (OnTimeout::Force, _) => self.begin_forcing(drain),
                (OnTimeout::Abort, Cordon::Ours) => drain.stage = Stage::Aborting,
                (OnTimeout::Abort, _) => drain.stage = Stage::Failed,
            },
            Stage::Evicting => {
                if run.listed.is_some() && !drain.pods.iter().any(super::state::PodRecord::is_open) {
                    drain.stage = Stage::Drained;
                    drain.error.clear();
                } else if now >= drain.deadline.elapsed {
                    match drain.on_timeout {
                        OnTimeout::Force => self.begin_forcing(drain),
                        OnTimeout::Abort => {
                            let left = drain.pods.iter().filter(|pod| pod.is_open()).count();
                            drain.error = if run.listed.is_some() {
                                format!("the deadline passed and {left} pods had not left")
                            } else {
                                format!("the deadline passed; {}", drain.error)
                            };
                            drain.stage = Stage::Aborting;
                        }
                    }
                }
            }
            Stage::Forcing => {
                let over = drain.forced_until.is_none_or(|until| now >= until.elapsed);
                let left = drain.pods.iter().filter(|pod| pod.is_open()).count();
                if run.listed.is_some() && left == 0 {
                    drain.stage = Stage::Drained;
                    drain.error.clear();
                } else if over {
                    drain.stage = Stage::Failed;
                    drain.error = format!(
                        "{left} pods were still there after they had been deleted; {}",
                        drain.error
                    );
                }
            }
            _ => {}
        }
        if drain.stage != before {
            run.node = Attempts::default();
            run.list = Attempts::default();
            run.pods.clear();
            run.dirty = true;
        }
        if drain.stage == Stage::Aborting && self.settle_aborting(drain) {
            run.dirty = true;
        }
        self.start(drain, run, flights);
        self.wake(drain, run)
    }

    fn begin_forcing(&self, drain: &mut DrainState) {
        let cap = self.force_grace(drain);
        drain.forced_until = Some(Moment::after(&self.tools.clock, cap + FORCE_MARGIN));
        drain.stage = Stage::Forcing;
    }

    /// The longest grace that is left for a pod.
    pub(super) fn force_grace(&self, drain: &DrainState) -> Duration {
        self.until_taken(drain)
            .unwrap_or(self.tools.settings.force_grace)
            .min(self.tools.settings.force_grace)
            .max(LEAST_GRACE)
    }

    /// The grace of an eviction; `None` leaves the pod its own. A drain that ends by force has an end, and a pod is told at
    /// once how long it has until then: what it does with its last seconds it decides itself, and it ends in time even if
    /// nobody can tell it so any more.
    pub(super) fn eviction_grace(&self, drain: &DrainState, own: Duration) -> Option<Duration> {
        if drain.on_timeout != OnTimeout::Force {
            return None;
        }
        let left = self.until_taken(drain).unwrap_or_else(|| {
            let deadline = drain.deadline.elapsed.saturating_sub(self.tools.clock.elapsed());
            deadline + self.tools.settings.force_grace
        });
        (own > left).then_some(left.max(LEAST_GRACE))
    }

    /// Time until every pod has to have ended, where EC2 takes the machine.
    fn until_taken(&self, drain: &DrainState) -> Option<Duration> {
        let left = smartscale_proto::time::age(self.tools.clock.now(), drain.taken_at?);
        Some(left.saturating_sub(self.tools.settings.stop_reserve))
    }

    /// Names the pods that stay; ends at once where there is no cordon to take away. Whether anything changed.
    fn settle_aborting(&self, drain: &mut DrainState) -> bool {
        let mut changed = false;
        for pod in drain.pods.iter_mut().filter(|pod| pod.is_open()) {
            if matches!(pod.stage, PodStage::Waiting | PodStage::Budget) {
                if pod.reason.is_empty() {
                    "its turn had not come when the drain ended".clone_into(&mut pod.reason);
                }
                pod.stage = PodStage::Stayed;
                changed = true;
            }
        }
        if drain.cordon != Cordon::Ours {
            drain.stage = Stage::Aborted;
            changed = true;
        }
        changed
    }

    /// Time until something is due.
    fn wake(&self, drain: &DrainState, run: &Run) -> Duration {
        let now = self.tools.clock.elapsed();
        let mut due = now + IDLE;
        let mut consider = |moment: Duration| due = due.min(moment);
        consider(drain.deadline.elapsed.max(now + Duration::from_millis(1)));
        if let Some(until) = drain.forced_until {
            consider(until.elapsed.max(now + Duration::from_millis(1)));
        }
        if let Some((_, since, share)) = run.tier.filter(|_| drain.on_timeout == OnTimeout::Force) {
            consider((since + share).max(now + Duration::from_millis(1)));
        }
        for attempts in [&run.node, &run.list].into_iter().chain(run.pods.values()) {
            if !attempts.flying && attempts.next > now {
                consider(attempts.next);
            }
        }
        due.saturating_sub(now)
    }

    pub(super) fn backoff(&mut self, failures: u32) -> Duration {
        const SCHEDULE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
        Backoff::new(SCHEDULE.0, SCHEDULE.1)
            .unwrap_or(Backoff::DEFAULT)
            .delay(failures, &mut self.random)
    }
}

impl Attempts {
    pub(super) fn is_due(&self, now: Duration) -> bool {
        !self.flying && self.next <= now
    }
}
