//! What it came to: nodes over time, what they cost beside a cluster of fixed size, and what each decision was for.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use smartscale_coordinator::state::StoreError;
use smartscale_planner::{Plan, model::Market};
use smartscale_proto::time::Clock as _;
use tokio::task::JoinHandle;

use super::workers;
use crate::{
    cloud::Bill,
    world::{
        World,
        records::{self, Essence},
    },
};

/// A sample is taken so often.
const SAMPLE: Duration = Duration::from_secs(10);
/// Columns of the chart.
const COLUMNS: usize = 72;

/// How many there were at a moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Sample {
    /// Virtual seconds since the beginning.
    pub at_seconds: f64,
    /// Machines that are billed.
    pub machines: usize,
    /// Nodes that are Ready.
    pub ready: usize,
    /// Pods that no node has taken.
    pub pending: usize,
}

/// A decision, with what it was for.
#[derive(Debug, Clone, Serialize)]
pub struct Decided {
    /// Virtual seconds since the beginning.
    pub at_seconds: f64,
    /// The planner's sentence.
    pub summary: String,
    /// What it was for: the rules that called for a launch, the reasons of removals.
    pub reasons: Vec<String>,
    /// What it came to.
    #[serde(flatten)]
    pub essence: Essence,
    /// USD per hour, negative saves.
    pub cost_change_per_hour: f64,
}

/// A cluster that always has as many nodes as this one had at its peak, on demand.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Fixed {
    /// Its nodes.
    pub nodes: usize,
    /// Hours of all of them.
    pub node_hours: f64,
    /// USD.
    pub cost_usd: f64,
}

/// The summary of a story.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How long it took, in virtual seconds.
    pub seconds: f64,
    /// The samples.
    pub samples: Vec<Sample>,
    /// What the machines cost.
    pub bill: Bill,
    /// What a cluster of fixed size would have cost.
    pub fixed: Fixed,
    /// Saving in percent of that.
    pub saving_percent: f64,
    /// The decisions, oldest first.
    pub decisions: Vec<Decided>,
}

fn reasons(plan: &Plan, essence: &Essence) -> Vec<String> {
    let mut reasons = essence.rules.clone();
    reasons.extend(plan.remove.iter().map(|removal| removal.reason.to_string()));
    reasons.dedup();
    reasons
}

/// Takes samples until it is stopped.
pub(super) struct Sampler {
    samples: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Sampler {
    pub(super) fn start(world: &Arc<World>) -> Self {
        let samples: Arc<Mutex<Vec<Sample>>> = Arc::default();
        let (kept, world) = (Arc::clone(&samples), Arc::downgrade(world));
        let task = tokio::spawn(async move {
            while let Some(world) = world.upgrade() {
                let sample = Sample {
                    at_seconds: world.clock.elapsed().as_secs_f64(),
                    machines: world.cloud.billed(),
                    ready: workers(&world).iter().filter(|node| node.ready).count(),
                    pending: world.cluster.pending(),
                };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                let clock = Arc::clone(&world.clock);
                drop(world);
                clock.sleep(SAMPLE).await;
            }
        });
        Self { samples, task }
    }

    pub(super) fn stop(self) -> Vec<Sample> {
        self.task.abort();
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Summary {
    pub(super) async fn of(world: &World, samples: Vec<Sample>) -> Result<Self, StoreError> {
        let start = world.clock.start();
        let decisions = records::decisions(&world.store)
            .await?
            .into_iter()
            .filter(|record| !record.operations.is_empty())
            .filter_map(|record| {
                let essence = Essence::of(&record.plan)?;
                Some(Decided {
                    at_seconds: record.time.duration_since(start).as_secs_f64(),
                    reasons: reasons(&record.plan, &essence),
                    summary: record.plan.summary,
                    essence,
                    cost_change_per_hour: record.cost_change_per_hour,
                })
            })
            .collect();
        let seconds = world.clock.elapsed().as_secs_f64();
        let bill = world.cloud.bill(start);
        let nodes = samples
            .iter()
            .map(|sample| sample.machines)
            .max()
            .unwrap_or_default();
        let price = world
            .policy
            .pools
            .iter()
            .flat_map(|pool| {
                pool.types.iter().flat_map(|spec| {
                    pool.zones
                        .iter()
                        .filter_map(|zone| pool.price(spec, zone, Market::OnDemand))
                })
            })
            .fold(f64::INFINITY, f64::min);
        let node_hours = f64::from(u32::try_from(nodes).unwrap_or(u32::MAX)) * seconds / 3600.0;
        let fixed = Fixed {
            nodes,
            node_hours,
            cost_usd: node_hours * if price.is_finite() { price } else { 0.0 },
        };
        let saving_percent = if fixed.cost_usd > 0.0 {
            100.0 * (1.0 - bill.cost_usd / fixed.cost_usd)
        } else {
            0.0
        };
        Ok(Self {
            seconds,
            samples,
            bill,
            fixed,
            saving_percent,
            decisions,
        })
    }

    /// What was decided, in order, without times.
    #[must_use]
    pub fn essence(&self) -> Vec<Essence> {
        self.decisions
            .iter()
            .map(|decided| decided.essence.clone())
            .collect()
    }

    /// The samples squeezed into at most `columns` columns; of each column the highest.
    #[must_use]
    pub fn columns(&self, columns: usize, figure: impl Fn(&Sample) -> usize) -> Vec<usize> {
        let per_column = self.samples.len().div_ceil(columns.max(1)).max(1);
        self.samples
            .chunks(per_column)
            .map(|chunk| chunk.iter().map(&figure).max().unwrap_or_default())
            .collect()
    }
}

/// Minutes and seconds, as virtual times are printed everywhere.
#[must_use]
pub fn stamp(seconds: f64) -> String {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "seconds of a story"
    )]
    let seconds = seconds.max(0.0) as u64;
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Nodes over {} minutes (█ Ready, ░ launched or ending):",
            (self.seconds / 60.0).round()
        )?;
        let machines = self.columns(COLUMNS, |sample| sample.machines);
        let ready = self.columns(COLUMNS, |sample| sample.ready.min(sample.machines));
        for level in (1..=self.fixed.nodes).rev() {
            let row: String = machines
                .iter()
                .zip(&ready)
                .map(|(machines, ready)| match level {
                    level if level <= *ready => '█',
                    level if level <= *machines => '░',
                    _ => ' ',
                })
                .collect();
            writeln!(f, "{level:>3} │{}", row.trim_end())?;
        }
        writeln!(f, "    └{}", "─".repeat(machines.len()))?;
        writeln!(f)?;
        writeln!(f, "{:<28}{:>12}{:>12}", "", "node-hours", "USD")?;
        writeln!(
            f,
            "{:<28}{:>12.2}{:>12.4}",
            "this cluster", self.bill.node_hours, self.bill.cost_usd
        )?;
        let fixed = format!("always {} nodes, on demand", self.fixed.nodes);
        writeln!(
            f,
            "{fixed:<28}{:>12.2}{:>12.4}",
            self.fixed.node_hours, self.fixed.cost_usd
        )?;
        writeln!(f, "{:<28}{:>12}{:>11.0}%", "saved", "", self.saving_percent)?;
        writeln!(f)?;
        writeln!(f, "Decisions that changed something:")?;
        for decided in &self.decisions {
            writeln!(
                f,
                "  {}  {:<10}  {} [{}]",
                stamp(decided.at_seconds),
                decided.essence.action,
                decided.summary,
                decided.reasons.join(", ")
            )?;
        }
        Ok(())
    }
}
