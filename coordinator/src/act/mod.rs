//! Acting: operations are journaled before their first side effect, then advanced by idempotent steps.
//!
//! ```text
//!  Plan, orders, notices ──submit──▶ journal ──▶ executor ──▶ launch / removal (a step at a time)
//!                                      ▲                         │
//!                                      └───────── commit ────────┘   fleet · agents · nodes
//! ```

pub mod agents;
mod executor;
pub mod fleet;
mod journal;
mod launch;
pub mod nodes;
pub mod operation;
mod orders;
pub mod pace;
mod reconcile;
mod refusal;
mod removal;
mod sick;
mod submit;
#[cfg(test)]
mod tests;

pub use executor::{Executor, Parts, Settings};
