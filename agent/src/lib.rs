//! The node side of SmartScale: identity, join, health, notices, drain.
//!
//! ```text
//!             ┌──────────── boot ────────────┐
//!   machine ──▶ secrets ─▶ enrol ─▶ k3s ─▶ Ready
//!             └──────────────┬───────────────┘
//!   notices ─▶ drain ─▶ outbox ─▶ session ⇄ coordinator
//!   health ──────────────────────▶┘   └─▶ drain, retire
//! ```
//! An [`Agent`] is put together from [`Parts`]: each outside system is a narrow trait with its real adapter and an
//! [`embedded`] one. The real adapters of Secrets Manager and of the Kubernetes API are behind the features `aws` and `kube`.

pub mod agent;
pub mod bind;
pub mod boot;
pub mod check;
pub mod config;
pub mod drain;
pub mod embedded;
pub mod enrol;
pub mod error;
pub mod health;
pub mod http;
pub mod k3s;
pub mod kubelet;
pub mod machine;
pub mod notices;
pub mod outbox;
pub mod retire;
pub mod secrets;
pub mod session;
pub mod shutdown;
pub mod state;
pub mod units;

pub use agent::{Agent, Ended, Parts};
pub use config::Config;

/// Version of the agent (semantic version).
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
