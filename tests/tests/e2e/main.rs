//! End to end: SmartScale's programs as processes, against real servers.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its site has failed"
)]

mod agents;
mod attestation;
mod authorities;
mod bad_input;
mod certificates;
mod check;
mod clusters;
mod command_fleet;
mod failover;
mod hand_over;
mod interruptions;
mod load;
mod metrics;
mod notices;
mod outages;
mod papers;
mod policy_map;
mod refusals;
mod scale_down;
mod scale_up;
mod steering;
mod steps;
