//! How each source stands, and telling of it once: when it stops to answer and when it answers again, and of figures
//! that no machine can have.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_proto::time::age;

use super::{View, readings};
use crate::{
    ids::InstanceId,
    observe::Observed,
    tell::{Event, Happening, Severity},
};

/// The cluster's objects.
const KUBERNETES: &str = "kubernetes";
/// The metrics source.
const PROMETHEUS: &str = "prometheus";
/// All agents together.
const AGENTS: &str = "agents";
/// The fleet.
const FLEET: &str = "fleet";

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceState {
    /// `kubernetes`, `prometheus`, `agents`, `fleet`.
    pub source: &'static str,
    /// When it last answered.
    pub at: Option<Timestamp>,
    /// How long ago that was.
    pub age: Option<Duration>,
    /// Whether what it said then still counts.
    pub fresh: bool,
    /// What is wrong with it; a fresh source may have failed since.
    pub error: Option<String>,
}

/// All sources, in the order in which people read them.
pub(super) fn all(view: &View, now: Timestamp) -> Vec<SourceState> {
    let fresh = view.freshness();
    let cluster = view.cluster();
    let mut states = vec![of(KUBERNETES, &cluster, fresh.cluster, now)];
    if view.0.parts.metrics.is_some() {
        states.push(of(PROMETHEUS, &view.metrics(), fresh.metrics, now));
    }
    states.push(agents(view, &cluster, now));
    states.push(of(FLEET, &view.fleet(), fresh.fleet, now));
    states
}

fn of<T>(source: &'static str, observed: &Observed<T>, bound: Duration, now: Timestamp) -> SourceState {
    let age = observed.at.map(|at| age(at, now));
    SourceState {
        source,
        at: observed.at,
        age,
        fresh: observed.value.is_some() && age.is_some_and(|age| age <= bound),
        error: observed.error.clone(),
    }
}

/// Agents count as one source, which answers while at least half of the Ready workers' agents do.
fn agents(view: &View, cluster: &Observed<smartscale_manifests::Objects>, now: Timestamp) -> SourceState {
    let bound = view.freshness().agents;
    let agents = view.agents();
    let reports = readings::by_name(&agents, bound, now);
    let at = agents.values().map(|report| report.received_at).max();
    let (expected, heard) = match &cluster.value {
        Some(objects) => {
            let workers = readings::workers(objects.nodes(), &agents);
            let heard = workers.iter().filter(|node| reports.contains_key(node.name.as_str())).count();
            (workers.len(), heard)
        }
        None => (agents.len(), reports.len()),
    };
    let missing = format!("{heard} of {expected} agents have reported within {} s", bound.as_secs());
    SourceState {
        source: AGENTS,
        at,
        age: at.map(|at| age(at, now)),
        fresh: heard * 2 >= expected,
        error: (heard < expected).then_some(missing),
    }
}

/// What was told, so that it is told once.
#[derive(Default)]
pub(super) struct Telling {
    /// Sources of which was told that they do not answer.
    lost: BTreeSet<&'static str>,
    /// Figures of which was told that they cannot be.
    absurd: BTreeSet<(InstanceId, &'static str)>,
}

impl Telling {
    /// Looks, and tells what has changed.
    pub(super) fn turn(&mut self, view: &View) {
        let now = view.0.parts.clock.now();
        let waited: BTreeMap<&str, Duration> = self.waited(view);
        for state in view.states(now) {
            // Agents report to the leader alone: for others their silence means nothing.
            let Some((waited, bound)) = waited.get(state.source).copied().zip(bound(view, state.source)) else {
                self.lost.remove(state.source);
                continue;
            };
            if state.fresh {
                if self.lost.remove(state.source) {
                    tell(view, now, Severity::Info, format!("{} answers again", state.source), &state);
                }
            } else if waited >= bound && self.lost.insert(state.source) {
                let since = state.age.map_or_else(
                    || "has not answered yet".to_owned(),
                    |age| format!("has last answered {} s ago", age.as_secs()),
                );
                let why = state.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                tell(view, now, Severity::Warning, format!("{} {since}{why}", state.source), &state);
            }
        }
        self.tell_absurd(view, now);
    }

    /// For how long each source could have answered.
    fn waited(&self, view: &View) -> BTreeMap<&'static str, Duration> {
        let elapsed = view.0.parts.clock.elapsed();
        let running = elapsed.saturating_sub(view.0.began);
        let mut waited = BTreeMap::from([(KUBERNETES, running), (PROMETHEUS, running), (FLEET, running)]);
        if let Some(since) = *view.0.leading.borrow() {
            waited.insert(AGENTS, elapsed.saturating_sub(since));
        }
        waited
    }

    fn tell_absurd(&mut self, view: &View, now: Timestamp) {
        let agents = view.agents();
        self.absurd.retain(|(instance, _)| agents.contains_key(instance));
        for (instance, report) in &agents {
            for absurd in &report.absurd {
                if self.absurd.insert((instance.clone(), absurd.figure)) {
                    view.0.parts.tell.tell(Happening {
                        time: now,
                        severity: Severity::Warning,
                        message: format!("the agent of {instance} reports what cannot be: {absurd}; it is left out"),
                        event: Event::Trouble {
                            error_type: "absurd_figure".to_owned(),
                        },
                    });
                }
            }
        }
    }
}

fn bound(view: &View, source: &str) -> Option<Duration> {
    let fresh = view.freshness();
    match source {
        KUBERNETES => Some(fresh.cluster),
        PROMETHEUS => Some(fresh.metrics),
        AGENTS => Some(fresh.agents),
        FLEET => Some(fresh.fleet),
        _ => None,
    }
}

fn tell(view: &View, time: Timestamp, severity: Severity, message: String, state: &SourceState) {
    view.0.parts.tell.tell(Happening {
        time,
        severity,
        message,
        event: Event::Source {
            source: state.source.to_owned(),
            fresh: state.fresh,
        },
    });
}
