//! The coordinator: observes a K3s cluster, decides how many workers it needs, and acts under a lease with a
//! journal. The folders are named for what flows through them, in this order:
//!
//! ```text
//!  observe/ ──snapshot──▶ decide ──plan──▶ act/ ──▶ EC2 or a program · agents · Kubernetes
//!     ▲                      │              │
//!  kubernetes/ aws/       state/ (lease, journal, decision records)
//!  serve/ (agents,           │
//!   admins)                tell/ (notifications, events, metrics)
//! ```
//!
//! Each outside system sits behind one narrow trait, declared by whoever uses it: [`act::fleet::Fleet`],
//! [`act::nodes::Nodes`], [`act::agents::Agents`], [`state::StateStore`], [`tell::Tell`]. Their real adapters
//! live in `aws/`, `command/`, `kubernetes/` and `serve/`; the embedded ones in `state/sqlite` and in the simulator.

pub mod act;
#[cfg(feature = "aws")]
pub mod aws;
pub mod check;
pub mod command;
pub mod config;
pub mod decide;
mod error;
pub mod ids;
#[cfg(feature = "kube")]
pub mod kubernetes;
pub mod observe;
pub mod policy;
pub mod program;
pub mod serve;
pub mod state;
pub mod tell;
