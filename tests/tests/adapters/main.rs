//! The coordinator's adapters against the real servers: what the embedded stand-ins promise is what these keep.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot arrange its servers has failed"
)]

mod channels;
mod contention;
mod fleet;
mod kubernetes;
mod large_items;
mod logs;
mod market;
mod queue;
mod range;
mod rights;
mod store;
