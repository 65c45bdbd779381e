//! Vital signs from `/proc`: a handful of small files, read by hand, because neither `sysinfo` (no pressure) nor `procfs`
//! (refuses a pressure file without its `full` line, as older kernels have it) earns its weight here.
//!
//! CPU: `/proc/stat`, time outside idle and iowait (proc_stat(5)). Memory: total less `MemAvailable` (proc_meminfo(5)).
//! Pressure: from the `total` microseconds of `some`, whose difference is exact over any interval, unlike the averages
//! (<https://docs.kernel.org/accounting/psi.html>).

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use http_body_util::Full;
use hyper::{Request, body::Bytes};
use smartscale_proto::time::{SharedClock, within};
use tokio::net::UnixStream;

use super::{Reading, Vitals};
use crate::http::{self, HttpError};

/// Time for an answer of the kubelet or the runtime.
const PROBE_TIME: Duration = Duration::from_secs(2);

/// Counters that only mean something beside earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Counters {
    /// Busy and total time in ticks.
    cpu: Option<(u64, u64)>,
    /// Microseconds of `some` for cpu, memory, io.
    pressure: [Option<u64>; 3],
    /// When, by the clock's elapsed time.
    at: Duration,
}

/// The machine's vital signs.
pub struct ProcVitals {
    proc: PathBuf,
    data_dir: PathBuf,
    healthz: (String, String),
    runtime_socket: PathBuf,
    clock: SharedClock,
    last: Mutex<Option<Counters>>,
}

impl ProcVitals {
    /// Reads the machine below `proc`, the file system of `data_dir`, the kubelet at `healthz` (`http://…`) and the
    /// runtime's socket.
    ///
    /// # Errors
    /// [`HttpError::Address`] when `healthz` is no such address.
    pub fn new(
        proc: &Path,
        data_dir: &Path,
        healthz: &str,
        runtime_socket: &Path,
        clock: SharedClock,
    ) -> Result<Self, HttpError> {
        let path = healthz
            .parse::<::http::Uri>()
            .ok()
            .map(|uri| uri.path().to_owned());
        Ok(Self {
            proc: proc.to_owned(),
            data_dir: data_dir.to_owned(),
            healthz: (http::authority(healthz)?, path.unwrap_or_default()),
            runtime_socket: runtime_socket.to_owned(),
            clock,
            last: Mutex::new(None),
        })
    }

    fn file(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.proc.join(name)).ok()
    }

    fn counters(&self) -> Counters {
        Counters {
            cpu: self.file("stat").as_deref().and_then(cpu),
            pressure: ["pressure/cpu", "pressure/memory", "pressure/io"]
                .map(|name| self.file(name).as_deref().and_then(pressure)),
            at: self.clock.elapsed(),
        }
    }

    /// Use of the file system with K3s' data: bytes and inodes. Before K3s was there, of the folder above.
    fn file_system(&self) -> (Option<f64>, Option<f64>) {
        let Some(stat) = self
            .data_dir
            .ancestors()
            .find_map(|path| rustix::fs::statvfs(path).ok())
        else {
            return (None, None);
        };
        // As df does it: what ordinary users may use is the whole.
        let used = stat.f_blocks.saturating_sub(stat.f_bfree);
        let inodes = stat.f_files.saturating_sub(stat.f_ffree);
        (share(used, used + stat.f_bavail), share(inodes, stat.f_files))
    }
}

/// Busy and total ticks of all CPUs.
fn cpu(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    // user nice system idle iowait irq softirq steal; guest times are within user and nice.
    let ticks: Vec<u64> = line
        .split_ascii_whitespace()
        .take(8)
        .map_while(|field| field.parse().ok())
        .collect();
    let total = ticks
        .iter()
        .try_fold(0_u64, |sum, ticks| sum.checked_add(*ticks))?;
    let idle = ticks.get(3)?.checked_add(ticks.get(4).copied().unwrap_or(0))?;
    Some((total.checked_sub(idle)?, total))
}

/// Total and available memory in bytes.
fn memory(meminfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim()
            .strip_suffix(" kB")?
            .trim()
            .parse::<u64>()
            .ok()?
            .checked_mul(1024)
    };
    Some((field("MemTotal:")?, field("MemAvailable:")?))
}

fn load(loadavg: &str) -> Option<f64> {
    loadavg.split_ascii_whitespace().next()?.parse().ok()
}

/// Microseconds in which some task waited.
fn pressure(text: &str) -> Option<u64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_ascii_whitespace()
        .find_map(|field| field.strip_prefix("total="))?
        .parse()
        .ok()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "a percentage needs no more than 52 bits"
)]
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| 100.0 * part as f64 / whole as f64)
}

/// What two sets of counters say about the time between them. Counters that went back (a resumed machine) say nothing.
fn between(before: &Counters, now: &Counters) -> (Option<f64>, [Option<f64>; 3]) {
    let cpu = before
        .cpu
        .zip(now.cpu)
        .and_then(|(before, now)| share(now.0.checked_sub(before.0)?, now.1.checked_sub(before.1)?));
    let micros = u64::try_from(now.at.saturating_sub(before.at).as_micros()).unwrap_or(0);
    let mut waits = [None; 3];
    for (wait, (before, now)) in waits.iter_mut().zip(before.pressure.iter().zip(now.pressure)) {
        *wait = before
            .zip(now)
            .and_then(|(before, now)| share(now.checked_sub(before)?, micros))
            // The two clocks are not read in the same instant.
            .map(|percent| percent.min(100.0));
    }
    (cpu, waits)
}

#[async_trait]
impl Vitals for ProcVitals {
    async fn read(&self) -> Reading {
        let now = self.counters();
        let before = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(now);
        let (cpu_percent, [cpu_pressure, memory_pressure, io_pressure]) =
            before.map_or((None, [None; 3]), |before| between(&before, &now));
        let memory = self.file("meminfo").as_deref().and_then(memory);
        let (disk_percent, inode_percent) = self.file_system();
        Reading {
            cpu_percent,
            memory_percent: memory.and_then(|(total, free)| share(total.checked_sub(free)?, total)),
            memory_total_bytes: memory.map(|(total, _)| total),
            load1: self.file("loadavg").as_deref().and_then(load),
            cpu_pressure,
            memory_pressure,
            io_pressure,
            disk_percent,
            inode_percent,
        }
    }

    async fn kubelet_healthy(&self) -> Option<bool> {
        let request = Request::builder()
            .uri(self.healthz.1.as_str())
            .body(Full::<Bytes>::default())
            .ok()?;
        let answer = within(
            &*self.clock,
            PROBE_TIME,
            http::call(&self.healthz.0, None, request),
        )
        .await;
        Some(matches!(answer, Some(Ok(answer)) if answer.status.is_success()))
    }

    async fn runtime_healthy(&self) -> Option<bool> {
        let connected = within(
            &*self.clock,
            PROBE_TIME,
            UnixStream::connect(&self.runtime_socket),
        )
        .await;
        Some(matches!(connected, Some(Ok(_))))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::sync::Arc;

    use proptest::prelude::*;
    use smartscale_proto::time::SystemClock;

    use super::*;

    #[test]
    fn proc_is_read_as_the_kernel_writes_it() {
        assert_eq!(
            cpu("cpu  100 20 30 800 50 0 10 5 7 0\ncpu0 1 2\n"),
            Some((165, 1015))
        );
        assert_eq!(
            memory("MemTotal:        2000 kB\nMemFree:  10 kB\nMemAvailable:     500 kB\n"),
            Some((2_048_000, 512_000))
        );
        assert_eq!(load("0.42 0.30 0.20 1/234 5678\n"), Some(0.42));
        // Kernels before 5.13 have no `full` line for the CPU.
        assert_eq!(
            pressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=12345\n"),
            Some(12345)
        );
    }

    #[test]
    fn shares_are_of_the_time_between_two_readings() {
        let before = Counters {
            cpu: Some((100, 1000)),
            pressure: [Some(0), Some(10), None],
            at: Duration::from_secs(1),
        };
        let now = Counters {
            cpu: Some((125, 1100)),
            pressure: [Some(250_000), Some(5), Some(1)],
            at: Duration::from_secs(2),
        };
        let (cpu, waits) = between(&before, &now);
        assert_eq!(cpu, Some(25.0));
        assert_eq!(waits, [Some(25.0), None, None]);
    }

    #[test]
    fn a_clock_that_stands_still_makes_no_infinity() {
        let counters = Counters {
            cpu: Some((1, 1)),
            pressure: [Some(1); 3],
            at: Duration::ZERO,
        };
        assert_eq!(between(&counters, &counters), (None, [None; 3]));
    }

    #[tokio::test]
    async fn this_machine_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let vitals = ProcVitals::new(
            Path::new("/proc"),
            &folder.path().join("not/there"),
            "http://127.0.0.1:1/healthz",
            &socket,
            Arc::new(SystemClock),
        )
        .unwrap();
        assert_eq!(vitals.read().await.cpu_percent, None);
        let reading = vitals.read().await;
        assert!(
            reading
                .memory_percent
                .is_some_and(|percent| (0.0..=100.0).contains(&percent))
        );
        assert!(reading.disk_percent.is_some());
        assert_eq!(vitals.kubelet_healthy().await, Some(false));
        assert_eq!(vitals.runtime_healthy().await, Some(false));
        let _listener = tokio::net::UnixListener::bind(&socket).unwrap();
        assert_eq!(vitals.runtime_healthy().await, Some(true));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text: String) {
            let _ = (cpu(&text), memory(&text), load(&text), pressure(&text));
        }
    }
}
