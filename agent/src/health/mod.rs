//! How the machine is, as it is told to the coordinator.
//!
//! ```text
//!   Vitals (every tick) ─┐
//!   units, kubelet, runtime (slower) ─┼─▶ Health ─▶ sane ─▶ changed, or quiet for long enough ─▶ watch
//!   pods, node (slower) ─┘
//! ```
//! - [`proc`]: what `/proc` and the file system say, read by `parse`
//! - [`conditions`]: what of it is wrong, with hysteresis
//! - [`sane`]: what may leave the machine
//! - [`change`]: what counts as a change
//! - [`observe`]: the loops
//! - [`exposition`]: the same for Prometheus

pub mod change;
pub mod conditions;
pub mod exposition;
pub mod observe;
mod parse;
pub mod proc;
pub mod sane;

use std::path::Path;

use async_trait::async_trait;

/// Vital signs. An absent figure is unknown, never zero. Percentages are of the whole, 0 to 100.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reading {
    /// CPU in use.
    pub cpu_percent: Option<f64>,
    /// Memory in use (total less available).
    pub memory_percent: Option<f64>,
    /// Memory in total.
    pub memory_total_bytes: Option<u64>,
    /// Load average over a minute.
    pub load1: Option<f64>,
    /// Share of the time since the last reading in which some task waited for a CPU.
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
    /// The same for input and output.
    pub io_pressure: Option<f64>,
    /// Bytes in use of the file system with K3s' data.
    pub disk_percent: Option<f64>,
    /// Inodes in use there.
    pub inode_percent: Option<f64>,
    /// CPU that the hypervisor gave to others while a task here was ready to run. It is part of the CPU in use.
    pub steal_percent: Option<f64>,
    /// Bytes in use of the root file system, where that is another one.
    pub root_disk_percent: Option<f64>,
    /// Bytes in use of the file system with the images, where that is yet another one.
    pub image_disk_percent: Option<f64>,
    /// Connections that are tracked, of the table's size.
    pub conntrack_percent: Option<f64>,
    /// Processes that were killed for want of memory since the machine started.
    pub oom_kills: Option<u64>,
    /// Errors of network interfaces since the machine started.
    pub nic_errors: Option<u64>,
}

/// Reads vital signs.
#[async_trait]
pub trait Vitals: Send + Sync {
    /// The vital signs since the last reading.
    async fn read(&self) -> Reading;
    /// Whether the kubelet's health endpoint answers well; `None` if it could not be asked.
    async fn kubelet_healthy(&self) -> Option<bool>;
    /// Whether the container runtime's socket takes a connection; `None` if it could not be asked.
    async fn runtime_healthy(&self) -> Option<bool>;
    /// Where the kernel tells about the machine (`/proc`); `None` where there is no kernel, as in a simulation.
    fn proc(&self) -> Option<&Path> {
        None
    }
}
