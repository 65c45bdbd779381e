//! End to end: SmartScale's programs as processes, against real servers.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its site has failed"
)]

mod metrics;
mod scale_down;
mod scale_up;
