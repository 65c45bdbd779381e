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

mod decide;
pub mod drainability;
pub mod duration;
pub mod explain;
#[doc(hidden)]
pub mod fixtures;
pub mod forecast;
pub mod model;
mod names;
mod outcome;
mod placement;
pub mod policy;
pub mod quantity;
mod resources;
pub mod snapshot;

pub use decide::{PATIENCE_FOR_EACH_POD, Planner, least_cost, plan};
pub use outcome::{
    Blocker, BlockerCode, Destination, Due, Hold, Launch, Move, NodeVerdict, PendingCode, PendingPod,
    Placement, Plan, Pods, Removal, RemovalReason, Rule, RuleName,
};
pub use policy::{Policy, PriceSource};
pub use snapshot::{Action, Snapshot};
