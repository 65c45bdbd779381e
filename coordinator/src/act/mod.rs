//! Acting: operations are journaled before their first side effect, then advanced by idempotent steps.

pub mod agents;
pub mod fleet;
pub mod nodes;
