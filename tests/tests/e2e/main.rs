//! End to end: SmartScale's programs as processes, against real servers.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its site has failed"
)]

mod agents;
mod bad_input;
mod certificates;
mod failover;
mod metrics;
mod papers;
mod refusals;
mod scale_down;
mod scale_up;
