//! What EC2 announces about machines, whoever says it first.
//!
//! ```text
//!  agent (IMDS) ──session──▶┐
//!                           ├─▶ board ──▶ executor (interruptions), planner (the others), people
//!  EventBridge ──SQS──▶ listen ┘   └──▶ store (notice#…), before anybody hears that it was taken in
//! ```
//! - [`envelope`]: the events of EventBridge, as EC2 and AWS Health send them
//! - [`board`]: where both paths meet; the same notice is one notice
//! - [`listen`]: the loop that reads the queue

pub mod board;
pub mod envelope;
pub mod listen;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smartscale_planner::snapshot::Forewarning;
use smartscale_proto::{time::from_wire, v1};

use crate::{ids::InstanceId, state::records::Record};

/// An interruption and a recommendation stand for so long. EC2 gives the former two minutes, and never takes the latter back.
const STANDS: SignedDuration = SignedDuration::from_hours(48);
/// Maintenance that began so long ago is over: the machine has survived it.
const MAINTAINED: SignedDuration = SignedDuration::from_hours(2);
/// A time further away than this is no time of EC2's (scheduled events are announced weeks ahead).
const FAR: SignedDuration = SignedDuration::from_hours(24 * 400);
/// Sightings that are remembered of one notice.
const MOST_SIGHTINGS: usize = 8;
/// Longest detail that is kept, in characters.
const LONGEST_DETAIL: usize = 80;

/// Kinds of notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// EC2 takes the spot machine back, in two minutes as a rule.
    SpotInterruption,
    /// The spot machine has an elevated risk of interruption.
    Rebalance,
    /// Maintenance of the machine is scheduled.
    Maintenance,
}

impl NoticeKind {
    /// The word in records, metrics and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SpotInterruption => "spot_interruption",
            Self::Rebalance => "rebalance",
            Self::Maintenance => "maintenance",
        }
    }

    /// What the planner is told; `None` for an interruption, which is no matter of planning.
    #[must_use]
    pub fn forewarning(self) -> Option<Forewarning> {
        match self {
            Self::SpotInterruption => None,
            Self::Rebalance => Some(Forewarning::Rebalance),
            Self::Maintenance => Some(Forewarning::Maintenance),
        }
    }
}

/// Who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeSource {
    /// The machine's agent, which reads its metadata service.
    Agent,
    /// The queue of EventBridge's events.
    Queue,
}

impl NoticeSource {
    /// The word in records, metrics and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Queue => "queue",
        }
    }
}

/// A notice as one source said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The machine.
    pub instance: InstanceId,
    /// What is announced.
    pub kind: NoticeKind,
    /// When the machine is taken, or when the event begins.
    pub at: Option<Timestamp>,
    /// The notice's own word: `terminate`, `stop`, `hibernate`, an event code.
    pub detail: String,
    /// Who says so.
    pub source: NoticeSource,
    /// The same where the same source says the same again.
    pub id: String,
}

impl Said {
    /// What an agent says of its own machine. `None` for a kind that this version does not know. A time that cannot be one
    /// of EC2's is passed over.
    #[must_use]
    pub fn by_agent(instance: &InstanceId, wire: &v1::Notice, now: Timestamp) -> Option<Self> {
        let kind = match wire.kind() {
            v1::NoticeKind::SpotInterruption => NoticeKind::SpotInterruption,
            v1::NoticeKind::Rebalance => NoticeKind::Rebalance,
            v1::NoticeKind::Maintenance => NoticeKind::Maintenance,
            v1::NoticeKind::Unspecified => return None,
        };
        Some(Self {
            instance: instance.clone(),
            kind,
            at: wire
                .at
                .as_ref()
                .and_then(|at| from_wire(at).ok())
                .filter(|at| is_near(*at, now)),
            detail: bounded(&wire.detail),
            source: NoticeSource::Agent,
            id: wire.id.clone(),
        })
    }
}

/// When a source said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Who.
    pub source: NoticeSource,
    /// Its id for it.
    pub id: String,
    /// When it came here, by the coordinator's clock.
    pub at: Timestamp,
}

/// A notice that stands: one for each machine and kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// The machine.
    pub instance: InstanceId,
    /// What is announced.
    pub kind: NoticeKind,
    /// The earliest time that was said for it.
    pub at: Option<Timestamp>,
    /// The notice's own word, as it was said first.
    pub detail: String,
    /// Who said it, and when; never empty.
    pub sightings: Vec<Sighting>,
}

/// What a notice that is said once more changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// Its time, or another id of a source that had said it before.
    Particulars,
    /// Another source says so too.
    Source,
}

impl Notice {
    /// The notice of the first who said so.
    #[must_use]
    pub fn first(said: Said, now: Timestamp) -> Self {
        Self {
            instance: said.instance,
            kind: said.kind,
            at: said.at,
            detail: said.detail,
            sightings: vec![Sighting {
                source: said.source,
                id: said.id,
                at: now,
            }],
        }
    }

    /// Takes in what is said of the same machine and kind.
    pub fn add(&mut self, said: &Said, now: Timestamp) -> Change {
        let is_of_source = |sighting: &Sighting| sighting.source == said.source;
        let known = self
            .sightings
            .iter()
            .any(|one| is_of_source(one) && one.id == said.id);
        let earliest = self.at.into_iter().chain(said.at).min();
        if known && earliest == self.at {
            return Change::Nothing;
        }
        let news = !self.sightings.iter().any(is_of_source);
        self.at = earliest;
        if !known && (news || self.sightings.len() < MOST_SIGHTINGS) {
            self.sightings.push(Sighting {
                source: said.source,
                id: said.id.clone(),
                at: now,
            });
        }
        if news { Change::Source } else { Change::Particulars }
    }

    /// When it came here first.
    #[must_use]
    pub fn since(&self) -> Option<Timestamp> {
        self.sightings.iter().map(|sighting| sighting.at).min()
    }

    /// Until when it stands.
    #[must_use]
    pub fn until(&self) -> Timestamp {
        let since = self.since().unwrap_or(Timestamp::UNIX_EPOCH);
        let (from, stands) = match (self.kind, self.at) {
            (NoticeKind::Maintenance, Some(at)) => (at, MAINTAINED),
            (NoticeKind::SpotInterruption, Some(at)) => (at.max(since), STANDS),
            _ => (since, STANDS),
        };
        from.checked_add(stands).unwrap_or(Timestamp::MAX)
    }

    /// The drain that the machine's agent began by itself at this notice; `None` where it has not seen it.
    #[must_use]
    pub fn own_drain(&self) -> Option<String> {
        let by_agent = |sighting: &&Sighting| sighting.source == NoticeSource::Agent;
        let sighting = self.sightings.iter().find(by_agent)?;
        (self.kind == NoticeKind::SpotInterruption).then(|| format!("notice/{}", sighting.id))
    }

    /// Who said it, for people: `agent, queue`.
    #[must_use]
    pub fn sources(&self) -> String {
        let mut sources: Vec<&str> = Vec::new();
        for sighting in &self.sightings {
            if !sources.contains(&sighting.source.as_str()) {
                sources.push(sighting.source.as_str());
            }
        }
        sources.join(", ")
    }

    /// It in a sentence without its subject, for example `EC2 takes the machine back (terminate) at 2026-01-02T03:06:05Z`.
    #[must_use]
    pub fn words(&self) -> String {
        let what = match self.kind {
            NoticeKind::SpotInterruption => "EC2 takes the machine back",
            NoticeKind::Rebalance => "EC2 recommends to rebalance the machine",
            NoticeKind::Maintenance => "EC2 has scheduled maintenance of the machine",
        };
        let detail = match self.detail.as_str() {
            "" | "rebalance" => String::new(),
            detail => format!(" ({detail})"),
        };
        let at = self.at.map_or_else(String::new, |at| format!(" at {at:.0}"));
        format!("{what}{detail}{at}")
    }
}

impl Record for Notice {
    const PREFIX: &'static str = "notice#";

    fn id(&self) -> String {
        format!("{}#{}", self.instance, self.kind.as_str())
    }
}

/// Whether a time can be one that EC2 announces.
fn is_near(at: Timestamp, now: Timestamp) -> bool {
    at.duration_since(now).abs() <= FAR
}

/// A word of somebody else's, for display: bounded, and without what would break a line.
fn bounded(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_DETAIL)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
