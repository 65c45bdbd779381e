//! A cluster, a cloud and a clock on one machine: what `smartscale demo` runs real coordinators and real agents in.
//!
//! ```text
//!            ┌────────── coordinators (real, over a real SQLite store) ──────────┐
//!   cluster ◀┤ ClusterView · Nodes                                      Fleet ├▶ cloud
//!      ▲     └──────────────────────────▲─────────────────────────────────────┘    │
//!      │ KubeletApi · Units             │ mutual TLS, gRPC                         │ boots, interrupts, ends
//!      └───────────────────── agents (real, one per machine) ◀─────────────────────┘
//! ```
//!
//! - [`clock`]: virtual time
//! - [`seed`]: chance, derived from one number
//! - [`cloud`]: machines with prices, boot times and interruptions
//! - [`cluster`]: Kubernetes in memory
//! - [`load`]: demand, and what it does to pods and machines
//! - [`world`]: all of that together with coordinators and agents, running
//! - [`log`]: what happens, in one stream

pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod load;
pub mod log;
pub mod seed;
pub mod story;
pub mod world;
