//! Acting: operations are journaled before their first side effect, then advanced by idempotent steps.
//!
//! ```text
//!  Plan, orders, notices ──submit──▶ journal ──▶ executor ──▶ launch / removal (a step at a time)
//!                                      ▲                         │
//!                                      └───────── commit ────────┘   fleet · agents · nodes
//! ```

pub mod agents;
mod begin;
pub mod binding;
mod drift;
mod executor;
pub mod fleet;
mod interruption;
mod journal;
mod launch;
mod listing;
mod names;
pub mod nodes;
pub mod operation;
mod orders;
pub mod pace;
mod reconcile;
mod refusal;
mod removal;
mod settings;
mod shown;
mod sick;
pub mod steering;
mod submit;
mod tasks;
#[cfg(test)]
mod tests;

pub use executor::{Executor, Parts};
pub use settings::Settings;
