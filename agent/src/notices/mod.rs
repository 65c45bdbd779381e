//! What EC2 announces about this machine.
//!
//! A source is polled; each notice has a stable id, is told once, and is kept on disk until the coordinator has it. A
//! spot interruption does not wait for anybody: its drain begins here ([`watch`]).

pub mod imds;
pub mod watch;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use smartscale_proto::{time::to_wire, v1};

use crate::error::Failure;

/// Kinds of notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// EC2 takes the spot instance back.
    SpotInterruption,
    /// The spot instance has an elevated risk of interruption.
    Rebalance,
    /// EC2 scheduled a maintenance event.
    Maintenance,
}

/// A notice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What is announced.
    pub kind: NoticeKind,
    /// The same for the same notice read twice.
    pub id: String,
    /// When the machine is taken, or when the event begins.
    pub at: Option<Timestamp>,
    /// The notice's own word: `terminate`, `stop`, `hibernate`, an event code.
    pub detail: String,
}

impl Notice {
    /// The message for the coordinator.
    #[must_use]
    pub fn to_wire(&self, seen_at: Timestamp) -> v1::Notice {
        let kind = match self.kind {
            NoticeKind::SpotInterruption => v1::NoticeKind::SpotInterruption,
            NoticeKind::Rebalance => v1::NoticeKind::Rebalance,
            NoticeKind::Maintenance => v1::NoticeKind::Maintenance,
        };
        v1::Notice {
            kind: kind.into(),
            id: self.id.clone(),
            at: self.at.map(to_wire),
            detail: self.detail.clone(),
            seen_at: Some(to_wire(seen_at)),
        }
    }

    /// The operation of the drain that this notice begins.
    #[must_use]
    pub fn operation(&self) -> String {
        format!("notice/{}", self.id)
    }

    /// Whether the drain `operation` is of a notice after which there is no machine any more, unlike one that is stopped
    /// or hibernated and comes back.
    #[must_use]
    pub fn ends_machine(operation: &str) -> bool {
        operation.starts_with("notice/spot-terminate-")
    }
}

/// Where notices come from.
#[async_trait]
pub trait NoticeSource: Send + Sync {
    /// The notices that stand at this moment.
    ///
    /// # Errors
    /// [`Failure`]; asked again at the next poll.
    async fn standing(&self) -> Result<Vec<Notice>, Failure>;
}

/// A machine to which nobody announces anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoNotices;

#[async_trait]
impl NoticeSource for NoNotices {
    async fn standing(&self) -> Result<Vec<Notice>, Failure> {
        Ok(Vec::new())
    }
}
