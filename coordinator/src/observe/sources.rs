//! The loops that keep each source's latest value, and [`View`], through which everybody else reads them.
//!
//! ```text
//!  Prometheus ──period──▶ metrics ─┐               ┌─ readings (memory, and `sample#…` for the next leader)
//!  EC2 ──period, nudge──▶ fleet ───┼─▶ View ◀──────┤
//!  Kubernetes watch, agents ───────┘               └─ judge: which source is stale, which object or figure is bad
//! ```
//!
//! A source that fails keeps its last value with its age and its error; nothing here decides what that means but
//! [`Fresh`], which says for how long an answer is acted on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_manifests::Objects;
use smartscale_planner::snapshot::{Reading, Source};
use smartscale_proto::time::{SharedClock, age};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    ClusterView, MetricsReading, MetricsSource, Observed,
    agents::{AgentHealth, HealthReport},
    history::{self, Cadence, History},
    market::MarketView,
    utilisation,
};
use crate::{
    act::fleet::{Fleet, Instance},
    ids::InstanceId,
    state::{SharedStore, lease::Leadership},
    tell::{ErrorType, Event, Happening, Metrics, Severity, SharedTell},
};

/// More stored readings than any policy asks for.
const MOST_SAMPLES: usize = 500;
/// Bad objects and figures that are remembered as told; more are told again.
const MOST_TOLD: usize = 10_000;

/// What the loops work with.
pub struct Parts {
    /// The cluster's objects.
    pub cluster: Arc<dyn ClusterView>,
    /// Prometheus; `None`: utilisation comes from the agents alone.
    pub metrics: Option<Arc<dyn MetricsSource>>,
    /// What agents say.
    pub agents: Arc<dyn AgentHealth>,
    /// The machines.
    pub fleet: Arc<dyn Fleet>,
    /// Types and prices; `None`: those of the policy and the built-in catalogue.
    pub market: Option<MarketView>,
    /// Where readings are kept for the next leader.
    pub store: SharedStore,
    /// Who leads: only the leader stores readings, and a new one takes up the stored ones.
    pub leadership: watch::Receiver<Leadership>,
    /// Who is told.
    pub tell: SharedTell,
    /// Gauges of sources, agents and utilisation.
    pub gauges: Metrics,
    /// The clock.
    pub clock: SharedClock,
}

/// How often is looked, and what still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Prometheus is asked so often.
    pub metrics_period: Duration,
    /// The fleet is listed so often.
    pub fleet_period: Duration,
    /// Sources are judged so often.
    pub judge_period: Duration,
    /// Readings of the cluster averages, as the policy wants them.
    pub cadence: Cadence,
    /// Where Prometheus is configured and does not answer, the agents' average stands in. Off, since the loss of
    /// Prometheus shall hold scale-down and not change what the thresholds are compared with.
    pub agents_stand_in: bool,
    /// For how long an answer is acted on.
    pub fresh: Fresh,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            metrics_period: Duration::from_secs(15),
            fleet_period: Duration::from_secs(30),
            judge_period: Duration::from_secs(5),
            cadence: Cadence::default(),
            agents_stand_in: false,
            fresh: Fresh::default(),
        }
    }
}

/// For how long an answer of each source is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// The API server sends a bookmark a minute where nothing happens.
    pub kubernetes: Duration,
    /// Prometheus.
    pub prometheus: Duration,
    /// The newest report of any agent; they report at least every few seconds.
    pub agents: Duration,
    /// The fleet's list.
    pub fleet: Duration,
}

impl Default for Fresh {
    fn default() -> Self {
        Self {
            kubernetes: Duration::from_secs(90),
            prometheus: Duration::from_secs(60),
            agents: Duration::from_secs(60),
            fleet: Duration::from_secs(120),
        }
    }
}

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// `kubernetes`, `prometheus`, `agents`, `fleet` or `market`.
    pub source: &'static str,
    /// When it said its latest; `None`: it never answered.
    pub at: Option<Timestamp>,
    /// The age of that.
    pub age: Option<Duration>,
    /// Whether it is fresh enough to act on.
    pub fresh: bool,
    /// What went wrong since.
    pub error: Option<String>,
}

impl SourceState {
    fn new<T>(source: &'static str, observed: &Observed<T>, limit: Duration, now: Timestamp) -> Self {
        let age = observed.at.map(|at| age(at, now));
        Self {
            source,
            at: observed.at,
            age,
            fresh: observed.value.is_some() && age.is_some_and(|age| age <= limit),
            error: observed.error.clone(),
        }
    }
}

/// The latest of every source; clones see the same.
#[derive(Clone)]
pub struct View {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Arc<dyn ClusterView>,
    agents: Arc<dyn AgentHealth>,
    has_prometheus: bool,
    market: Option<MarketView>,
    fresh: Fresh,
    metrics: Mutex<Observed<MetricsReading>>,
    fleet: Mutex<Observed<Vec<Instance>>>,
    history: Mutex<History>,
    cadence: watch::Sender<Cadence>,
    refresh_fleet: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // What these hold is replaced as a whole: a panic elsewhere cannot leave it half written.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl View {
    /// The cluster's objects.
    #[must_use]
    pub fn cluster(&self) -> Observed<Objects> {
        self.shared.cluster.latest()
    }

    /// What Prometheus said last.
    #[must_use]
    pub fn metrics(&self) -> Observed<MetricsReading> {
        locked(&self.shared.metrics).clone()
    }

    /// The instances that the fleet listed last.
    #[must_use]
    pub fn fleet(&self) -> Observed<Vec<Instance>> {
        locked(&self.shared.fleet).clone()
    }

    /// What agents said last.
    #[must_use]
    pub fn agents(&self) -> BTreeMap<InstanceId, HealthReport> {
        self.shared.agents.latest()
    }

    /// Readings of the cluster averages, in the order of their time.
    #[must_use]
    pub fn readings(&self) -> Vec<Reading> {
        locked(&self.shared.history).readings().to_vec()
    }

    /// Who speaks for the cluster averages.
    #[must_use]
    pub fn averages_come_from(&self) -> Source {
        if self.shared.has_prometheus {
            Source::Prometheus
        } else {
            Source::Agent
        }
    }

    /// Has the fleet listed at once, for example after a launch.
    pub fn refresh_fleet(&self) {
        self.shared.refresh_fleet.notify_one();
    }

    /// Takes readings at another pace from now on: the policy has changed.
    pub fn set_cadence(&self, cadence: Cadence) {
        self.shared
            .cadence
            .send_if_modified(|current| std::mem::replace(current, cadence) != cadence);
    }

    /// How every source stands. The store is not among them: who writes to it knows better.
    #[must_use]
    pub fn states(&self, now: Timestamp) -> Vec<SourceState> {
        let fresh = self.shared.fresh;
        let mut states = vec![SourceState::new(
            "kubernetes",
            &self.cluster(),
            fresh.kubernetes,
            now,
        )];
        if self.shared.has_prometheus {
            states.push(SourceState::new(
                "prometheus",
                &self.metrics(),
                fresh.prometheus,
                now,
            ));
        }
        let agents = self.agents();
        let newest = agents.values().map(|report| report.received_at).max();
        let of_agents = Observed {
            value: newest.map(|_| Arc::new(())),
            at: newest,
            error: None,
        };
        states.push(SourceState::new("agents", &of_agents, fresh.agents, now));
        states.push(SourceState::new("fleet", &self.fleet(), fresh.fleet, now));
        states.extend(self.shared.market.as_ref().and_then(|market| market.state(now)));
        states
    }
}

/// The loops. One per coordinator.
pub struct Sources {
    parts: Parts,
    settings: Settings,
    view: View,
}

impl Sources {
    /// The loops, and the view that they keep.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings) -> (Self, View) {
        let view = View {
            shared: Arc::new(Shared {
                cluster: Arc::clone(&parts.cluster),
                agents: Arc::clone(&parts.agents),
                has_prometheus: parts.metrics.is_some(),
                market: parts.market.clone(),
                fresh: settings.fresh,
                metrics: Mutex::default(),
                fleet: Mutex::default(),
                history: Mutex::default(),
                cadence: watch::channel(settings.cadence).0,
                refresh_fleet: Notify::new(),
            }),
        };
        (
            Self {
                parts,
                settings,
                view: view.clone(),
            },
            view,
        )
    }

    /// Looks until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let loops = async { tokio::join!(self.metrics(), self.fleet(), self.readings(), self.judge()) };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = loops => {}
        }
    }

    async fn metrics(&self) {
        let Some(source) = &self.parts.metrics else { return };
        loop {
            let read = source.read().await;
            let at = self.parts.clock.now();
            {
                let mut metrics = locked(&self.view.shared.metrics);
                match read {
                    Ok(reading) => {
                        let error = (!reading.problems.is_empty()).then(|| reading.problems.join("; "));
                        *metrics = Observed {
                            value: Some(Arc::new(reading)),
                            at: Some(at),
                            error,
                        };
                    }
                    Err(error) => metrics.error = Some(error.to_string()),
                }
            }
            self.parts.clock.sleep(self.settings.metrics_period).await;
        }
    }

    async fn fleet(&self) {
        loop {
            // The time before the call: what happened while it ran may be missing from the answer.
            let at = self.parts.clock.now();
            let listed = self.parts.fleet.list().await;
            {
                let mut fleet = locked(&self.view.shared.fleet);
                match listed {
                    Ok(instances) => {
                        *fleet = Observed {
                            value: Some(Arc::new(instances)),
                            at: Some(at),
                            error: None,
                        };
                    }
                    Err(error) => fleet.error = Some(error.to_string()),
                }
            }
            tokio::select! {
                biased;
                () = self.parts.clock.sleep(self.settings.fleet_period) => {}
                () = self.view.shared.refresh_fleet.notified() => {}
            }
        }
    }

    async fn readings(&self) {
        let clock = &self.parts.clock;
        let mut leadership = self.parts.leadership.clone();
        let mut cadence = self.view.shared.cadence.subscribe();
        let mut led = None;
        loop {
            let leads = leadership.borrow_and_update().may_act(&**clock);
            let pace = *cadence.borrow_and_update();
            // A term whose readings could not be loaded is tried again: until then its history is only our own.
            if leads.is_some() && leads != led && self.load(pace).await {
                led = leads;
            }
            let due = locked(&self.view.shared.history).due_in(pace, clock.now());
            let wait = if due.is_zero() {
                self.take(pace, leads.is_some()).await;
                let due = locked(&self.view.shared.history).due_in(pace, clock.now());
                // Nothing to read yet: look again soon rather than in a whole interval.
                if due.is_zero() {
                    self.settings.metrics_period.min(pace.interval)
                } else {
                    due
                }
            } else {
                due
            };
            tokio::select! {
                biased;
                () = clock.sleep(wait) => {}
                changed = leadership.changed() => if changed.is_err() { clock.sleep(wait).await },
                _ = cadence.changed() => {}
            }
        }
    }

    /// Takes up the readings that a predecessor stored.
    async fn load(&self, pace: Cadence) -> bool {
        match self.parts.store.list(history::PREFIX, true, MOST_SAMPLES).await {
            Ok(items) => {
                let stored = history::read(&items);
                let now = self.parts.clock.now();
                locked(&self.view.shared.history).merge(stored, pace, now);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "stored readings cannot be loaded");
                false
            }
        }
    }

    /// Takes a reading, if there is one to take.
    async fn take(&self, pace: Cadence, leads: bool) {
        let now = self.parts.clock.now();
        let Some(reading) = self.reading(now) else { return };
        self.parts
            .gauges
            .set_utilisation(reading.cpu_percent, reading.memory_percent);
        if !locked(&self.view.shared.history).push(reading.clone(), pace, now) || !leads {
            return;
        }
        if let Some(write) = history::stored(&reading, pace)
            && let Err(error) = self.parts.store.append(&write).await
        {
            tracing::warn!(%error, "a reading was not stored");
        }
    }

    fn reading(&self, now: Timestamp) -> Option<Reading> {
        let of_prometheus = utilisation::of_prometheus(
            &self.view.metrics(),
            self.settings.metrics_period.saturating_mul(2),
            now,
        );
        if of_prometheus.is_some() || (self.parts.metrics.is_some() && !self.settings.agents_stand_in) {
            return of_prometheus;
        }
        let (cluster, _) = self.view.cluster().value?.to_cluster(now);
        utilisation::of_agents(&cluster, &self.view.agents(), now)
    }

    /// Says which source is stale or back, and which object or figure is bad: each once.
    async fn judge(&self) {
        let began = self.parts.clock.elapsed();
        let mut was_fresh: BTreeMap<&'static str, bool> = BTreeMap::new();
        let mut told = BTreeSet::new();
        loop {
            self.parts.clock.sleep(self.settings.judge_period).await;
            let now = self.parts.clock.now();
            let settling = self.parts.clock.elapsed().saturating_sub(began) < self.settings.judge_period * 4;
            for state in self.view.states(now) {
                let age = state.age.map(|age| age.as_secs_f64());
                self.parts.gauges.set_source(state.source, state.fresh, age);
                // A program that just started has nothing to report about a source that has not answered yet; and
                // a cluster without any agent yet has lost none.
                let never = state.at.is_none() && (settling || state.source == "agents");
                if was_fresh.get(state.source) == Some(&state.fresh) || never {
                    continue;
                }
                let first = was_fresh.insert(state.source, state.fresh).is_none();
                if !(first && state.fresh) {
                    self.say_source(&state, now);
                }
            }
            let agents = self.view.agents();
            self.parts.gauges.set_agents(
                agents
                    .values()
                    .filter(|report| age(report.received_at, now) <= self.settings.fresh.agents)
                    .count(),
            );
            self.judge_objects(&mut told, now);
            self.judge_figures(&agents, &mut told, now);
        }
    }

    fn say_source(&self, state: &SourceState, now: Timestamp) {
        let (severity, message) = if state.fresh {
            (Severity::Info, format!("{} answers again", state.source))
        } else {
            let age = state
                .age
                .map_or("ever".to_owned(), |age| format!("for {} s", age.as_secs()));
            let error = state
                .error
                .as_deref()
                .map(|error| format!(": {error}"))
                .unwrap_or_default();
            (
                Severity::Warning,
                format!("{} has not answered {age}{error}", state.source),
            )
        };
        let event = Event::Source {
            source: state.source.to_owned(),
            fresh: state.fresh,
        };
        self.parts.tell.tell(Happening {
            time: now,
            severity,
            message,
            event,
        });
    }

    fn judge_objects(&self, told: &mut BTreeSet<String>, now: Timestamp) {
        let Some(objects) = self.view.cluster().value else {
            return;
        };
        for bad in objects.bad() {
            self.say_once(
                told,
                format!("an object cannot be read and is left as it is: {bad}"),
                ErrorType::BadObject,
                now,
            );
        }
    }

    fn judge_figures(
        &self,
        agents: &BTreeMap<InstanceId, HealthReport>,
        told: &mut BTreeSet<String>,
        now: Timestamp,
    ) {
        for (instance, report) in agents {
            for absurd in &report.absurd {
                // The key leaves the value out, or a figure that changes at each report would be told each time.
                if told.len() < MOST_TOLD && told.insert(format!("{instance}/{}", absurd.figure)) {
                    self.say(
                        format!("agent {instance}: {absurd}; the figure is ignored"),
                        ErrorType::BadFigure,
                        now,
                    );
                }
            }
        }
    }

    fn say_once(&self, told: &mut BTreeSet<String>, message: String, error_type: ErrorType, now: Timestamp) {
        if told.len() >= MOST_TOLD {
            told.clear();
        }
        if told.insert(message.clone()) {
            self.say(message, error_type, now);
        }
    }

    fn say(&self, message: String, error_type: ErrorType, now: Timestamp) {
        let event = Event::Trouble {
            error_type: error_type.into(),
        };
        self.parts.tell.tell(Happening {
            time: now,
            severity: Severity::Warning,
            message,
            event,
        });
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
