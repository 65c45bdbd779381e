//! What happens in a simulated world, in one stream: the cluster, the cloud, the agents, the coordinators and the story all
//! write to it, the demo prints it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::Value;
use smartscale_proto::time::SharedClock;
use tokio::sync::watch;

/// Entries that are kept; older ones are forgotten.
const KEPT: usize = 10_000;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The script.
    Story,
    /// The simulated Kubernetes.
    Cluster,
    /// The simulated cloud.
    Cloud,
    /// An agent.
    Agent,
    /// A coordinator.
    Coordinator,
}

impl Source {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Story => "story",
            Self::Cluster => "cluster",
            Self::Cloud => "cloud",
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// Its place in the stream, from 0.
    pub number: u64,
    /// Virtual time since the world began.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// Who says so.
    pub source: Source,
    /// What kind of thing it is, in one word.
    pub kind: &'static str,
    /// Whom it is about: a node, a pod, an operation; empty if nobody.
    pub subject: String,
    /// One sentence, or a part of one, for people.
    pub message: String,
    /// Details for machines; null if none.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

fn seconds<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((at.as_secs_f64() * 1000.0).round() / 1000.0)
}

struct Kept {
    entries: VecDeque<Entry>,
    next: u64,
}

/// The stream. Clones share it.
#[derive(Clone)]
pub struct Log {
    clock: SharedClock,
    kept: Arc<Mutex<Kept>>,
    changed: Arc<watch::Sender<u64>>,
}

impl Log {
    /// An empty stream, timed by `clock`.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        let kept = Kept {
            entries: VecDeque::new(),
            next: 0,
        };
        Self {
            clock,
            kept: Arc::new(Mutex::new(kept)),
            changed: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Adds an entry.
    pub fn write(
        &self,
        source: Source,
        kind: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.write_with(source, kind, subject, message, Value::Null);
    }

    /// Adds an entry with details for machines.
    pub fn write_with(
        &self,
        source: Source,
        kind: &'static str,
        subject: impl Into<String>,
        message: impl Into<String>,
        details: Value,
    ) {
        let next = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let number = kept.next;
            kept.next += 1;
            if kept.entries.len() == KEPT {
                kept.entries.pop_front();
            }
            kept.entries.push_back(Entry {
                number,
                at: self.clock.elapsed(),
                source,
                kind,
                subject: subject.into(),
                message: message.into(),
                details,
            });
            kept.next
        };
        self.changed.send_replace(next);
    }

    /// Entries from number `from` on.
    #[must_use]
    pub fn since(&self, from: u64) -> Vec<Entry> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entries
            .iter()
            .filter(|entry| entry.number >= from)
            .cloned()
            .collect()
    }

    /// A receiver that changes with each entry; its value is the number of the next one.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
