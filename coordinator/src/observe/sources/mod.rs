//! The sources of what is observed: each is asked in its own period, keeps its latest value with its age, and fails
//! alone. [`Sources`] asks, [`View`] is what everybody else sees.
//!
//! ```text
//!  ClusterView ────────────────┐ (a watch, asked when looked at)
//!  AgentHealth ────────────────┤
//!  MetricsSource ─ period ─────┼─▶ View ─▶ snapshot, status
//!  Fleet ───────── period ─────┤    ▲
//!                  interval ── readings (cluster averages; the leader keeps them in the store)
//! ```

mod readings;
mod states;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_manifests::Objects;
use smartscale_planner::snapshot::{Reading, Source};
use smartscale_proto::time::{SharedClock, within};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::states::SourceState;
use self::{readings::Readings, states::Telling};
use super::{
    ClusterView, MetricsReading, MetricsSource, Observed,
    agents::{AgentHealth, HealthReport},
};
use crate::{
    act::fleet::{Fleet, Instance},
    ids::InstanceId,
    state::SharedStore,
    tell::SharedTell,
};

/// A call that takes longer than this has failed, whatever the source's own limits are.
const LONGEST_CALL: Duration = Duration::from_secs(60);
/// The fleet is not asked more often than this, however often it is wanted.
const FLEET_PAUSE: Duration = Duration::from_secs(1);
/// A reading that could not be taken, or a history that could not be loaded, is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// How often the freshness of the sources is looked at.
const CHECK: Duration = Duration::from_secs(5);

/// Where everything is observed.
pub struct Parts {
    /// The cluster's objects.
    pub cluster: Arc<dyn ClusterView>,
    /// A metrics source, where there is one.
    pub metrics: Option<Arc<dyn MetricsSource>>,
    /// What agents report.
    pub agents: Arc<dyn AgentHealth>,
    /// The fleet.
    pub fleet: Arc<dyn Fleet>,
    /// Where the leader keeps readings.
    pub store: SharedStore,
    /// Who is told of sources that fail.
    pub tell: SharedTell,
    /// The clock.
    pub clock: SharedClock,
}

/// How old the latest of a source may be until it counts as not answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// The cluster's objects. Beyond this, decisions hold.
    pub cluster: Duration,
    /// The metrics source.
    pub metrics: Duration,
    /// Reports of agents, each for itself. The planner does not count older ones either.
    pub agents: Duration,
    /// The fleet.
    pub fleet: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            cluster: Duration::from_secs(120),
            metrics: Duration::from_secs(60),
            agents: Duration::from_secs(60),
            fleet: Duration::from_secs(180),
        }
    }
}

/// How often, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// The metrics source is asked so often.
    pub metrics_period: Duration,
    /// A reading of the cluster averages is taken so often (the policy's `reading_interval`).
    pub reading_interval: Duration,
    /// The fleet is listed so often; after launches and terminations also in between.
    pub fleet_period: Duration,
    /// Readings are kept for so long: the policy's longest `sustained` and a few minutes.
    pub history: Duration,
    /// When a source counts as not answering.
    pub fresh: Freshness,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metrics_period: Duration::from_secs(15),
            reading_interval: Duration::from_secs(60),
            fleet_period: Duration::from_secs(60),
            history: Duration::from_secs(1800),
            fresh: Freshness::default(),
        }
    }
}

/// What follows the policy while the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pace {
    reading_interval: Duration,
    history: Duration,
}

struct Inner {
    parts: Parts,
    settings: Settings,
    /// By the clock's `elapsed`.
    began: Duration,
    metrics: Mutex<Observed<MetricsReading>>,
    fleet: Mutex<Observed<Vec<Instance>>>,
    readings: Mutex<Readings>,
    /// Since when (by `elapsed`) this coordinator leads.
    leading: watch::Sender<Option<Duration>>,
    pace: watch::Sender<Pace>,
    fleet_wanted: Notify,
}

/// The loops that ask. Run as one task.
pub struct Sources(Arc<Inner>);

/// What the sources said last. Clones see the same.
#[derive(Clone)]
pub struct View(Arc<Inner>);

impl Sources {
    /// Sources of which nothing is known yet, and the view of them.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> (Self, View) {
        let pace = Pace {
            reading_interval: settings.reading_interval,
            history: settings.history,
        };
        let inner = Arc::new(Inner {
            began: parts.clock.elapsed(),
            parts,
            settings,
            metrics: Mutex::default(),
            fleet: Mutex::default(),
            readings: Mutex::default(),
            leading: watch::Sender::new(None),
            pace: watch::Sender::new(pace),
            fleet_wanted: Notify::new(),
        });
        (Self(Arc::clone(&inner)), View(inner))
    }

    /// Asks until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let asking = async {
            tokio::join!(
                self.poll_metrics(),
                self.poll_fleet(),
                self.take_readings(),
                self.watch_states()
            )
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = asking => {}
        }
    }

    async fn poll_metrics(&self) {
        let Some(source) = &self.0.parts.metrics else {
            return;
        };
        let clock = &self.0.parts.clock;
        loop {
            let (began, now) = (clock.elapsed(), clock.now());
            let answer = match within(&**clock, LONGEST_CALL, source.read()).await {
                Some(answer) => answer.map_err(|error| error.to_string()),
                None => Err(no_answer()),
            };
            let problems = answer.as_ref().map(|reading| reading.problems.join("; "));
            let problems = problems.ok().filter(|problems| !problems.is_empty());
            settle(&self.0.metrics, answer, now);
            if problems.is_some() {
                lock(&self.0.metrics).error = problems;
            }
            let next = began + self.0.settings.metrics_period;
            clock.sleep(next.saturating_sub(clock.elapsed())).await;
        }
    }

    async fn poll_fleet(&self) {
        let Inner { parts, settings, fleet_wanted, .. } = &*self.0;
        let clock = &parts.clock;
        loop {
            let (began, now) = (clock.elapsed(), clock.now());
            let answer = match within(&**clock, LONGEST_CALL, parts.fleet.list()).await {
                Some(answer) => answer.map_err(|error| error.to_string()),
                None => Err(no_answer()),
            };
            settle(&self.0.fleet, answer, now);
            clock.sleep(FLEET_PAUSE.min(settings.fleet_period)).await;
            let next = began + settings.fleet_period;
            tokio::select! {
                () = clock.sleep(next.saturating_sub(clock.elapsed())) => {}
                () = fleet_wanted.notified() => {}
            }
        }
    }

    async fn take_readings(&self) {
        let clock = &self.0.parts.clock;
        let (mut leading, mut pace) = (self.0.leading.subscribe(), self.0.pace.subscribe());
        let (mut due, mut loaded) = (clock.elapsed(), false);
        loop {
            let leads = leading.borrow_and_update().is_some();
            let Pace { reading_interval, history } = *pace.borrow_and_update();
            if !leads {
                loaded = false;
            } else if !loaded {
                loaded = self.load(reading_interval, history).await;
            }
            let elapsed = clock.elapsed();
            if elapsed >= due {
                let taken = self.take_reading(leads, history).await;
                due = elapsed + if taken { reading_interval } else { RETRY.min(reading_interval) };
            }
            due = due.min(elapsed + reading_interval);
            let rest = due.saturating_sub(clock.elapsed());
            let rest = if leads && !loaded { rest.min(RETRY) } else { rest };
            tokio::select! {
                () = clock.sleep(rest) => {}
                _ = leading.changed() => {}
                _ = pace.changed() => {}
            }
        }
    }

    /// Takes a reading if anybody knows the averages; the leader also stores it.
    async fn take_reading(&self, leads: bool, history: Duration) -> bool {
        let view = View(Arc::clone(&self.0));
        let now = self.0.parts.clock.now();
        let Some(reading) = readings::take(&view, &self.0.settings.fresh, now) else {
            return false;
        };
        if !lock(&self.0.readings).add(reading.clone(), now, history) {
            return false;
        }
        if leads && let Err(error) = readings::store(&self.0.parts.store, &reading, history).await {
            tracing::warn!(%error, "a reading was not stored");
        }
        true
    }

    /// Takes over what the leader before has stored.
    async fn load(&self, reading_interval: Duration, history: Duration) -> bool {
        let now = self.0.parts.clock.now();
        match readings::load(&self.0.parts.store, reading_interval, history).await {
            Ok(stored) => {
                lock(&self.0.readings).fill(stored, reading_interval / 2, now, history);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the history of readings was not loaded");
                false
            }
        }
    }

    async fn watch_states(&self) {
        let view = View(Arc::clone(&self.0));
        let mut telling = Telling::default();
        loop {
            telling.turn(&view);
            self.0.parts.clock.sleep(CHECK).await;
        }
    }
}

impl View {
    /// The cluster's objects, and when they were last known to be as the server has them.
    #[must_use]
    pub fn cluster(&self) -> Observed<Objects> {
        self.0.parts.cluster.latest()
    }

    /// The metrics source's latest; nothing where there is none.
    #[must_use]
    pub fn metrics(&self) -> Observed<MetricsReading> {
        lock(&self.0.metrics).clone()
    }

    /// The fleet's latest.
    #[must_use]
    pub fn fleet(&self) -> Observed<Vec<Instance>> {
        lock(&self.0.fleet).clone()
    }

    /// The latest report of each agent.
    #[must_use]
    pub fn agents(&self) -> BTreeMap<InstanceId, HealthReport> {
        self.0.parts.agents.latest()
    }

    /// Readings of the cluster averages, oldest first.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        lock(&self.0.readings).all()
    }

    /// How each source stands: `kubernetes`, `prometheus` (where there is one), `agents`, `fleet`.
    #[must_use]
    pub fn states(&self, now: Timestamp) -> Vec<SourceState> {
        states::all(self, now)
    }

    /// Who is named as the source of averages while there are none.
    #[must_use]
    pub fn metrics_source(&self) -> Source {
        if self.0.parts.metrics.is_some() {
            Source::Prometheus
        } else {
            Source::Agent
        }
    }

    /// When a source counts as not answering.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        self.0.settings.fresh
    }

    /// Has the fleet listed soon: something was launched or terminated.
    pub fn refresh_fleet(&self) {
        self.0.fleet_wanted.notify_one();
    }

    /// Says whether this coordinator leads. A leader takes over the stored readings and stores its own, and agents
    /// report to it alone.
    pub fn set_leading(&self, leads: bool) {
        let now = self.0.parts.clock.elapsed();
        self.0.leading.send_if_modified(|since| {
            let changes = since.is_some() != leads;
            if changes {
                *since = leads.then_some(now);
            }
            changes
        });
    }

    /// How often readings are taken from now on.
    pub fn set_reading_interval(&self, interval: Duration) {
        self.change_pace(|pace| pace.reading_interval = interval);
    }

    /// How long readings are kept from now on.
    pub fn set_history(&self, history: Duration) {
        self.change_pace(|pace| pace.history = history);
    }

    fn change_pace(&self, change: impl FnOnce(&mut Pace)) {
        self.0.pace.send_if_modified(|pace| {
            let before = *pace;
            change(pace);
            *pace != before
        });
    }
}

/// Puts an answer in the place of the last one. A failure leaves that and its age as they are.
fn settle<T>(kept: &Mutex<Observed<T>>, answer: Result<T, String>, at: Timestamp) {
    let mut kept = lock(kept);
    match answer {
        Ok(value) => {
            *kept = Observed {
                value: Some(Arc::new(value)),
                at: Some(at),
                error: None,
            };
        }
        Err(error) => kept.error = Some(error),
    }
}

fn no_answer() -> String {
    format!("no answer within {} s", LONGEST_CALL.as_secs())
}

/// Nothing panics while it holds one of these locks, and each value is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
