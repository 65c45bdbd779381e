//! The contract between the programs of SmartScale, and what all of them share to speak it.
//!
//! - [`v1`]: the messages and services, generated from `proto/smartscale/v1/*.proto`
//! - [`identity`]: who may speak: SPIFFE-style names in certificates, roles
//! - [`permission`]: the one table of which identity may call which method
//! - [`tls`]: mutual TLS whose material may change while connections are open
//! - [`time`]: the clock that every loop asks, and conversions of the wire's times
//! - [`backoff`]: validated retry delays
//! - [`check`]: what `check` finds, of whichever program
//! - [`audit`]: the chain of what was done by whom, how it is sealed and how it is checked
//! - [`credentials`]: the file that makes a person known to a cluster
//! - [`files`]: files that only their owner may read
//! - [`k3s`]: how K3s' tokens name a cluster's authority

pub mod attestation;
pub mod audit;
pub mod backoff;
pub mod check;
pub mod credentials;
pub mod files;
#[cfg(test)]
mod fuzz;
pub mod identity;
pub mod k3s;
pub mod permission;
pub mod time;
pub mod tls;

/// Messages and services of package `smartscale.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated code"
)]
#[allow(clippy::uninlined_format_args, clippy::unwrap_used, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("smartscale.v1");
}

/// The compiled contract: an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/smartscale.v1.bin"));
