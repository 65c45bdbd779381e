//! Observing: each source keeps its own latest value and its age; [`snapshot`] merges them into what the planner
//! sees. Unknown is never zero.

pub(crate) mod accounts;
pub mod agents;
pub mod export;
pub mod history;
pub mod market;
pub mod notices;
pub mod prometheus;
pub mod snapshot;
pub mod sources;
mod utilisation;
pub(crate) mod web;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use smartscale_manifests::Objects;
use smartscale_planner::model::NodeName;

/// The latest of a source.
#[derive(Debug, Clone)]
pub struct Observed<T> {
    /// What it said last; `None` before the first answer.
    pub value: Option<Arc<T>>,
    /// When it said so.
    pub at: Option<Timestamp>,
    /// What went wrong since; `None` when the last attempt went well.
    pub error: Option<String>,
}

impl<T> Default for Observed<T> {
    fn default() -> Self {
        Self {
            value: None,
            at: None,
            error: None,
        }
    }
}

/// The cluster's objects as the API server last told. The real one is a watch (`kubernetes/watch`).
#[async_trait]
pub trait ClusterView: Send + Sync {
    /// The objects and when the watch was last known to be in step with the server.
    fn latest(&self) -> Observed<Objects>;
    /// Ends when an object that bears on a decision has changed since the last call.
    async fn changed(&self);
}

/// A reading of utilisation. What a source does not know is absent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsReading {
    /// Cluster average of CPU, in percent.
    pub cpu_percent: Option<f64>,
    /// Cluster average of memory, in percent.
    pub memory_percent: Option<f64>,
    /// CPU and memory of nodes, in percent.
    pub nodes: BTreeMap<NodeName, (Option<f64>, Option<f64>)>,
    /// What went wrong with some of the figures, a sentence each; those figures are absent.
    pub problems: Vec<String>,
}

/// A metrics source that did not answer, or answered nonsense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MetricsError(pub String);

/// Where utilisation is read. The real one is Prometheus (`observe/prometheus`).
#[async_trait]
pub trait MetricsSource: Send + Sync {
    /// Reads now.
    async fn read(&self) -> Result<MetricsReading, MetricsError>;
}
