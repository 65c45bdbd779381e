//! That the rig's servers are the real thing: each test shows the one behaviour that the suites rely on.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its servers has failed"
)]

mod ec2;
mod faults;
mod imds;
mod kubernetes;
mod machines;
mod ministack;
mod process;
mod servers;
mod sts;
