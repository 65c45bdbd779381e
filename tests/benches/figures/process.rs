//! What the kernel says of a process.

use std::time::Duration;

use anyhow::Context as _;

/// `USER_HZ`: the unit of times in `/proc`, 100 a second on every Linux that people run.
const TICKS_PER_SECOND: u64 = 100;

/// Memory and processor time of a process so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Resident memory, in bytes.
    resident: u64,
    /// Of that, what is no file: heap, stacks, relocated data.
    anonymous: u64,
    /// The most resident memory it ever had, in bytes.
    peak: u64,
    /// User and system time of itself, not of the programs it started.
    cpu: Duration,
}

impl Usage {
    /// Of the process `id`.
    pub(crate) fn of(id: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{id}/{file}");
            std::fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let status = read("status")?;
        let bytes = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kilobytes = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
            Ok(kilobytes.with_context(|| format!("no {name}"))?.parse::<u64>()? * 1024)
        };
        // The name in brackets may hold spaces; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let stat = read("stat")?;
        let (_, fields) = stat.rsplit_once(')').context("an odd stat")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok())
            .sum();
        Ok(Self {
            resident: bytes("VmRSS")?,
            anonymous: bytes("RssAnon")?,
            peak: bytes("VmHWM")?,
            cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        })
    }

    /// Memory as text.
    pub(crate) fn memory(&self) -> String {
        format!(
            "{} ({} of it anonymous; peak {})",
            megabytes(self.resident),
            megabytes(self.anonymous),
            megabytes(self.peak)
        )
    }

    /// Processor seconds per hour since `before`, which was `window` ago.
    pub(crate) fn cpu_per_hour(&self, before: &Self, window: Duration) -> String {
        let used = self.cpu.saturating_sub(before.cpu).as_secs_f64();
        let share = used / window.as_secs_f64();
        format!(
            "{:.1} s ({:.2} % of one processor)",
            share * 3600.0,
            share * 100.0
        )
    }
}

/// Bytes as text.
pub(crate) fn megabytes(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let megabytes = bytes as f64 / 1e6;
    format!("{megabytes:.2} MB")
}
