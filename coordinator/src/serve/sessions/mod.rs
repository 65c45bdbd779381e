//! What agents said, by machine: the memory behind the sessions ([`session`](super::session) carries the streams).
//!
//! ```text
//!   session ──begin/take──▶ Sessions ──▶ executor (Agents), observer (AgentHealth), explain
//!      ▲ commands ─────────────┘  │
//!                                 ├──▶ store: ends of drains, results (report#…), before the acknowledgement
//!                                 └──▶ NoticeBoard: notices, stored by it
//! ```
//! What the agent may forget once it is acknowledged is in the store first, so that the next leader knows it too.

pub(super) mod checking;
mod commands;
mod telling;
mod terms;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::SignedDuration;
use prost::Message as _;
use serde_json::json;
use smartscale_proto::{
    time::SharedClock,
    v1::{
        self, BootReport, DrainPhase, DrainReport, Hello, SessionRequest, SessionResponse,
        session_request::Report,
    },
};
use tokio::sync::{mpsc, watch};
use tonic::Status;

pub(super) use terms::Terms;

use crate::{
    decide::PolicyInForce,
    ids::InstanceId,
    observe::{
        agents::{self, HealthReport},
        notices::{Said, board::NoticeBoard},
    },
    state::{Condition, Item, SharedStore, StoreError, Write},
    tell::SharedTell,
};

/// Beginning of the keys of stored reports.
const PREFIX: &str = "report#";
/// How long they are kept: longer than any drain and any outage of both coordinators that people would sleep through.
const KEPT: SignedDuration = SignedDuration::from_hours(48);
/// Stored reports that are read at a take-over.
const MOST_STORED: usize = 20_000;
/// Drains and results that are remembered of one machine.
const MOST_OF_MACHINE: usize = 64;
/// Commands that may wait for one agent.
const COMMANDS: usize = 32;

/// How sessions are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// Interval of health reports while figures change.
    pub changing: Duration,
    /// Interval while they do not.
    pub quiet: Duration,
    /// A session in which nothing arrives for so long is ended.
    pub silence: Duration,
    /// Messages that one agent may send in a second, averaged over ten.
    pub messages_per_second: u32,
}

impl Default for SessionSettings {
    /// 1 s, 5 s, 15 s (three quiet intervals: one missed report may be late, three are none), 50 messages a second.
    fn default() -> Self {
        Self {
            changing: Duration::from_secs(1),
            quiet: Duration::from_secs(5),
            silence: Duration::from_secs(15),
            messages_per_second: 50,
        }
    }
}

/// Why a session is ended from our side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The same agent began another one.
    Superseded,
    /// Trust was withdrawn; the reason as a sentence.
    Distrusted(String),
}

/// An open session, as its handler holds it.
#[derive(Debug)]
pub struct Ticket {
    /// Number of the session.
    pub id: u64,
    /// Commands for the agent.
    pub commands: mpsc::Receiver<SessionResponse>,
    /// Set when the session has to end.
    pub end: watch::Receiver<Option<End>>,
}

struct Open {
    id: u64,
    commands: mpsc::Sender<SessionResponse>,
    end: watch::Sender<Option<End>>,
    /// A check that is waited for: it ends with the session.
    awaited: Option<checking::Awaited>,
}

#[derive(Default)]
struct Machine {
    open: Option<Open>,
    /// When the last session ended, by [`Clock::elapsed`](smartscale_proto::time::Clock::elapsed).
    silent_since: Option<Duration>,
    hello: Option<Hello>,
    boot: BTreeMap<i32, BootReport>,
    health: Option<HealthReport>,
    drains: Vec<DrainReport>,
    results: Vec<v1::CommandResult>,
}

/// What agents said, by machine.
pub struct Sessions {
    settings: SessionSettings,
    terms: OnceLock<watch::Receiver<PolicyInForce>>,
    board: Arc<NoticeBoard>,
    store: SharedStore,
    tell: SharedTell,
    clock: SharedClock,
    machines: Mutex<BTreeMap<InstanceId, Machine>>,
    nudges: watch::Sender<u64>,
    /// What the one waiter of [`changed`](crate::act::agents::Agents::changed) has seen of them.
    seen: tokio::sync::Mutex<watch::Receiver<u64>>,
}

impl Sessions {
    /// Nothing was said yet.
    #[must_use]
    pub fn new(
        settings: SessionSettings,
        board: Arc<NoticeBoard>,
        store: SharedStore,
        tell: SharedTell,
        clock: SharedClock,
    ) -> Arc<Self> {
        let (nudges, seen) = watch::channel(0);
        Arc::new(Self {
            settings,
            terms: OnceLock::new(),
            board,
            store,
            tell,
            clock,
            machines: Mutex::default(),
            nudges,
            seen: tokio::sync::Mutex::new(seen),
        })
    }

    /// Agents are told to drain on this policy's terms where nobody commands them. The first policy counts.
    pub fn follow(&self, policy: watch::Receiver<PolicyInForce>) {
        let _ = self.terms.set(policy);
    }

    /// The terms for one session.
    pub(super) fn terms(&self) -> Terms {
        Terms::new(self.terms.get().cloned())
    }

    fn machines(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of<T>(&self, instance: &InstanceId, read: impl FnOnce(&Machine) -> T) -> Option<T> {
        self.machines().get(instance).map(read)
    }

    /// How sessions are held.
    #[must_use]
    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// The boot steps of a machine as they were reported, in order.
    #[must_use]
    pub fn boot(&self, instance: &InstanceId) -> Vec<BootReport> {
        self.of(instance, |machine| machine.boot.values().cloned().collect())
            .unwrap_or_default()
    }

    /// What is wrong with a machine, as its agent said last.
    #[must_use]
    pub fn conditions(&self, instance: &InstanceId) -> Vec<agents::Condition> {
        self.of(instance, |machine| {
            machine
                .health
                .as_ref()
                .map(|report| report.health.conditions.clone())
        })
        .flatten()
        .unwrap_or_default()
    }

    /// What the agent said of itself.
    #[must_use]
    pub fn hello(&self, instance: &InstanceId) -> Option<Hello> {
        self.of(instance, |machine| machine.hello.clone()).flatten()
    }

    /// What EC2 announced about the machines.
    #[must_use]
    pub fn board(&self) -> &NoticeBoard {
        &self.board
    }

    /// The newest report of each drain of a machine, oldest drain first.
    #[must_use]
    pub fn drains(&self, instance: &InstanceId) -> Vec<DrainReport> {
        self.of(instance, |machine| machine.drains.clone())
            .unwrap_or_default()
    }

    /// Machines whose agent has a session.
    #[must_use]
    pub fn connected(&self) -> BTreeSet<InstanceId> {
        self.machines()
            .iter()
            .filter(|(_, machine)| machine.open.is_some())
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Grows with each report that could move an operation on.
    #[must_use]
    pub fn nudges(&self) -> watch::Receiver<u64> {
        self.nudges.subscribe()
    }

    /// Ends the session of an agent that is not trusted any more, and what it said of its health counts no more.
    pub fn distrust(&self, instance: &InstanceId, why: &str) {
        if let Some(machine) = self.machines().get_mut(instance) {
            machine.health = None;
            if let Some(open) = &machine.open {
                open.end.send_replace(Some(End::Distrusted(why.to_owned())));
            }
        }
    }

    /// Reads what former leaders stored.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer. A report that cannot be read is logged and passed over.
    pub async fn load(&self) -> Result<(), StoreError> {
        self.board.load().await?;
        for item in self.store.list(PREFIX, false, MOST_STORED).await? {
            match stored(&item) {
                Some((instance, report)) => {
                    self.remember(&instance, &report, false);
                }
                None => tracing::error!(key = item.key, "a stored report cannot be read"),
            }
        }
        self.nudge();
        Ok(())
    }

    /// Begins a session; the one that the agent had ends.
    pub fn begin(&self, instance: &InstanceId, hello: Hello) -> Ticket {
        let (sender, commands) = mpsc::channel(COMMANDS);
        let (end_sender, end) = watch::channel(None);
        let id = rand::random();
        let mut machines = self.machines();
        let machine = machines.entry(instance.clone()).or_default();
        if let Some(old) = machine.open.replace(Open {
            id,
            commands: sender,
            end: end_sender,
            awaited: None,
        }) {
            old.end.send_replace(Some(End::Superseded));
        }
        machine.silent_since = None;
        machine.hello = Some(hello);
        drop(machines);
        self.tell_agent(instance, "connected");
        self.nudge();
        Ticket { id, commands, end }
    }

    /// A session has ended.
    pub fn end(&self, instance: &InstanceId, id: u64) {
        let mut machines = self.machines();
        let Some(machine) = machines.get_mut(instance) else {
            return;
        };
        if machine.open.as_ref().is_some_and(|open| open.id == id) {
            machine.open = None;
            machine.silent_since = Some(self.clock.elapsed());
            drop(machines);
            self.tell_agent(instance, "disconnected");
            self.nudge();
        }
    }

    /// Takes a report in. Returns the id to acknowledge, for those that are acknowledged.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a report that says nothing or contradicts itself, `UNAVAILABLE` when it could not be
    /// stored: the agent sends it again in its next session.
    pub async fn take(
        &self,
        instance: &InstanceId,
        request: SessionRequest,
    ) -> Result<Option<String>, Status> {
        let id = match &request.report {
            None => return Err(Status::invalid_argument("report: one is needed")),
            Some(Report::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "hello: it begins a session and comes once",
                ));
            }
            Some(Report::Health(health)) => {
                let report = HealthReport::receive(health, self.clock.now()).sent_at(request.time.as_ref());
                for absurd in &report.absurd {
                    tracing::warn!(%instance, %absurd, "an agent said what cannot be; that figure does not count");
                }
                let happenings = match self.machines().get_mut(instance) {
                    Some(machine) => {
                        let old = machine.health.replace(report.clone());
                        self.condition_happenings(instance, old.as_ref(), &report)
                    }
                    None => Vec::new(),
                };
                for happening in happenings {
                    self.tell.tell(happening);
                }
                return Ok(None);
            }
            Some(Report::Check(answer)) => {
                self.checked(instance, answer.clone());
                return Ok(None);
            }
            Some(Report::Boot(boot)) => {
                if boot.step() == v1::BootStep::Unspecified {
                    return Err(Status::invalid_argument(
                        "boot.step: one of the five steps is needed",
                    ));
                }
                boot.step().as_str_name().to_owned()
            }
            Some(Report::Notice(notice)) => {
                let id = named("notice.id", &notice.id)?;
                match Said::by_agent(instance, notice, self.clock.now()) {
                    Some(said) => self.notice(said).await?,
                    None => {
                        tracing::warn!(%instance, kind = notice.kind, "a notice is of a kind that is not known here");
                    }
                }
                return Ok(Some(id));
            }
            Some(Report::Drain(drain)) => named("drain.operation_id", &drain.operation_id)?,
            Some(Report::Result(result)) => named("result.operation_id", &result.operation_id)?,
        };
        self.keep(instance, &request)
            .await
            .map_err(|error| not_stored(instance, &error))?;
        self.remember(instance, &request, true);
        self.nudge();
        Ok(Some(id))
    }

    async fn notice(&self, said: Said) -> Result<(), Status> {
        let instance = said.instance.clone();
        self.board
            .take(said)
            .await
            .map_err(|error| not_stored(&instance, &error))?;
        self.nudge();
        Ok(())
    }

    /// Stores what its agent forgets once it is acknowledged.
    async fn keep(&self, instance: &InstanceId, request: &SessionRequest) -> Result<(), StoreError> {
        let (kind, id) = match &request.report {
            Some(Report::Drain(drain)) if is_over(drain.phase()) => ("drain", &drain.operation_id),
            Some(Report::Result(result)) => ("result", &result.operation_id),
            _ => return Ok(()),
        };
        let body = json!({
            "instance": instance,
            "kind": kind,
            "id": id,
            "report": STANDARD.encode(request.encode_to_vec()),
        });
        let key = format!("{PREFIX}{instance}#{kind}#{id}");
        let expires_at = self.clock.now().checked_add(KEPT).ok();
        self.store
            .append(&Write::Put {
                key,
                body,
                expires_at,
                condition: Condition::Always,
            })
            .await
    }

    fn remember(&self, instance: &InstanceId, request: &SessionRequest, tell: bool) {
        let mut machines = self.machines();
        let machine = machines.entry(instance.clone()).or_default();
        let happenings = match &request.report {
            Some(Report::Boot(boot)) => {
                let before = machine.boot.insert(boot.step, boot.clone());
                // An answer to it was lost: it is the same report once more.
                if before.as_ref() == Some(boot) {
                    vec![]
                } else {
                    vec![self.boot_happening(instance, boot)]
                }
            }
            Some(Report::Drain(drain)) => {
                let old = machine
                    .drains
                    .iter()
                    .position(|known| known.operation_id == drain.operation_id);
                let old = old.map(|index| machine.drains.remove(index));
                push(&mut machine.drains, drain.clone());
                self.drain_happenings(instance, old.as_ref(), drain)
            }
            Some(Report::Result(result)) => {
                machine.results.retain(|known| {
                    (&known.operation_id, &known.command) != (&result.operation_id, &result.command)
                });
                push(&mut machine.results, result.clone());
                vec![]
            }
            _ => vec![],
        };
        drop(machines);
        if tell {
            for happening in happenings {
                self.tell.tell(happening);
            }
        }
    }

    fn nudge(&self) {
        self.nudges.send_modify(|count| *count = count.wrapping_add(1));
    }
}

fn not_stored(instance: &InstanceId, error: &StoreError) -> Status {
    tracing::warn!(%error, %instance, "an agent's report cannot be stored");
    Status::unavailable("the report cannot be stored at this moment: send it again")
}

/// Whether a drain has come to an end.
pub(super) fn is_over(phase: DrainPhase) -> bool {
    matches!(
        phase,
        DrainPhase::Drained | DrainPhase::Aborted | DrainPhase::Failed
    )
}

/// A word of the contract without its prefix, in small letters.
pub(super) fn words(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_lowercase()
}

fn named(field: &str, id: &str) -> Result<String, Status> {
    if id.is_empty() || id.len() > 200 || id.chars().any(char::is_control) {
        return Err(Status::invalid_argument(format!(
            "{field}: 1 to 200 characters are needed"
        )));
    }
    Ok(id.to_owned())
}

fn push<T>(list: &mut Vec<T>, one: T) {
    if list.len() >= MOST_OF_MACHINE {
        list.remove(0);
    }
    list.push(one);
}

fn stored(item: &Item) -> Option<(InstanceId, SessionRequest)> {
    let instance = item.body.get("instance")?.as_str()?.parse().ok()?;
    let bytes = STANDARD.decode(item.body.get("report")?.as_str()?).ok()?;
    Some((instance, SessionRequest::decode(bytes.as_slice()).ok()?))
}
