//! The scaling decision as a pure function: no clock, no I/O, no protocol.
//!
//! ```text
//! Snapshot (cluster model · metrics · state) ─┐
//! Policy ─────────────────────────────────────┼─▶ plan ─▶ Plan (launches · removals · verdicts · rules · holds)
//! now ────────────────────────────────────────┘
//! ```
//!
//! The same input gives the same plan, whatever order its vectors are in.

#![warn(missing_docs)]

pub mod drainability;
pub mod duration;
#[doc(hidden)]
pub mod fixtures;
pub mod model;
mod names;
mod outcome;
pub mod policy;
pub mod quantity;
mod resources;
pub mod snapshot;

pub use outcome::{
    Blocker, BlockerCode, Destination, Hold, Launch, Move, NodeVerdict, PendingCode, PendingPod, Plan, Pods,
    Removal, RemovalReason, Rule, RuleName,
};
pub use policy::Policy;
pub use snapshot::{Action, Snapshot};

/// Decides.
pub fn plan(snapshot: &Snapshot, policy: &Policy, now: jiff::Timestamp) -> Plan {
    let _ = (snapshot, policy, now);
    Plan {
        summary: "nothing to do".to_owned(),
        ..Plan::default()
    }
}
