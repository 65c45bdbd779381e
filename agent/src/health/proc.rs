//! Vital signs from `/proc`: a handful of small files, read by hand, because neither `sysinfo` (no pressure) nor `procfs`
//! (refuses a pressure file without its `full` line, as older kernels have it) earns its weight here.
//!
//! CPU: time outside idle and iowait. Memory: total less `MemAvailable`. Pressure: from the `total` microseconds of `some`, whose difference is exact over any interval, unlike the averages
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
use rustix::fs::StatVfs;
use smartscale_proto::time::{SharedClock, within};
use tokio::net::UnixStream;

use super::{
    Reading, Vitals,
    parse::{Ticks, cpu, load, memory, nic_errors, number, oom_kills, pressure, share},
};
use crate::http::{self, HttpError};

/// Time for an answer of the kubelet or the runtime.
const PROBE_TIME: Duration = Duration::from_secs(2);
/// How often the network interfaces are read.
const NICS_EVERY: Duration = Duration::from_secs(10);

/// Counters that only mean something beside earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Counters {
    /// Ticks of the CPUs.
    cpu: Option<Ticks>,
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
    /// Errors of network interfaces, and when they were read.
    nics: Mutex<Option<(Duration, Option<u64>)>>,
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
            nics: Mutex::new(None),
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

    /// How full the file systems are. Before K3s was there, its folders' are those of the folder above. One that is the
    /// same as another is told once.
    fn file_systems(&self) -> Disks {
        let of = |path: &Path| path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
        // As df does it: what ordinary users may use is the whole.
        let full = |stat: &StatVfs| {
            let used = stat.f_blocks.saturating_sub(stat.f_bfree);
            share(used, used + stat.f_bavail)
        };
        let (data, root) = (of(&self.data_dir), of(Path::new("/")));
        let images = of(&self.data_dir.join("agent/containerd"));
        let is = |one: &StatVfs, other: &Option<StatVfs>| {
            other.as_ref().is_some_and(|other| other.f_fsid == one.f_fsid)
        };
        Disks {
            inodes: data
                .as_ref()
                .and_then(|stat| share(stat.f_files.saturating_sub(stat.f_ffree), stat.f_files)),
            root: root.as_ref().filter(|stat| !is(stat, &data)).and_then(full),
            images: images
                .as_ref()
                .filter(|stat| !is(stat, &data) && !is(stat, &root))
                .and_then(full),
            data: data.as_ref().and_then(full),
        }
    }

    fn conntrack(&self) -> Option<f64> {
        let read = |name: &str| {
            self.file(&format!("sys/net/netfilter/{name}"))
                .as_deref()
                .and_then(number)
        };
        share(read("nf_conntrack_count")?, read("nf_conntrack_max")?)
    }

    /// Read more rarely: the file has a line for each pod.
    fn nic_errors(&self, now: Duration) -> Option<u64> {
        let mut last = self.nics.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, errors)) if now.saturating_sub(at) < NICS_EVERY => errors,
            _ => {
                let errors = self.file("net/dev").as_deref().and_then(nic_errors);
                *last = Some((now, errors));
                errors
            }
        }
    }
}

/// Percentages in use.
#[derive(Default)]
struct Disks {
    data: Option<f64>,
    inodes: Option<f64>,
    root: Option<f64>,
    images: Option<f64>,
}

/// What two sets of counters say about the time between them.
#[derive(Debug, PartialEq, Default)]
struct Between {
    cpu: Option<f64>,
    stolen: Option<f64>,
    waits: [Option<f64>; 3],
}

/// Counters that went back (a resumed machine) say nothing.
fn between(before: &Counters, now: &Counters) -> Between {
    let ticks = before.cpu.zip(now.cpu);
    let of = |part: fn(&Ticks) -> u64| {
        let (before, now) = ticks?;
        share(
            part(&now).checked_sub(part(&before))?,
            now.total.checked_sub(before.total)?,
        )
    };
    let micros = u64::try_from(now.at.saturating_sub(before.at).as_micros()).unwrap_or(0);
    let mut waits = [None; 3];
    for (wait, (before, now)) in waits.iter_mut().zip(before.pressure.iter().zip(now.pressure)) {
        *wait = before
            .zip(now)
            .and_then(|(before, now)| share(now.checked_sub(before)?, micros))
            // The two clocks are not read in the same instant.
            .map(|percent| percent.min(100.0));
    }
    Between {
        cpu: of(|ticks| ticks.busy),
        stolen: of(|ticks| ticks.stolen),
        waits,
    }
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
        let Between {
            cpu: cpu_percent,
            stolen,
            waits: [cpu_pressure, memory_pressure, io_pressure],
        } = before.map_or_else(Between::default, |before| between(&before, &now));
        let memory = self.file("meminfo").as_deref().and_then(memory);
        let disks = self.file_systems();
        Reading {
            cpu_percent,
            memory_percent: memory.and_then(|(total, free)| share(total.checked_sub(free)?, total)),
            memory_total_bytes: memory.map(|(total, _)| total),
            load1: self.file("loadavg").as_deref().and_then(load),
            cpu_pressure,
            memory_pressure,
            io_pressure,
            disk_percent: disks.data,
            inode_percent: disks.inodes,
            steal_percent: stolen,
            root_disk_percent: disks.root,
            image_disk_percent: disks.images,
            conntrack_percent: self.conntrack(),
            oom_kills: self.file("vmstat").as_deref().and_then(oom_kills),
            nic_errors: self.nic_errors(now.at),
        }
    }

    async fn kubelet_healthy(&self) -> Option<bool> {
        let request = Request::builder()
            .uri(self.healthz.1.as_str())
            .body(Full::<Bytes>::default())
            .ok()?;
        let answer = within(&*self.clock, PROBE_TIME, http::call(&self.healthz.0, request)).await;
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

    fn proc(&self) -> Option<&Path> {
        Some(&self.proc)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::sync::Arc;

    use smartscale_proto::time::SystemClock;

    use super::*;

    #[test]
    fn shares_are_of_the_time_between_two_readings() {
        let before = Counters {
            cpu: Some(Ticks {
                busy: 100,
                stolen: 10,
                total: 1000,
            }),
            pressure: [Some(0), Some(10), None],
            at: Duration::from_secs(1),
        };
        let now = Counters {
            cpu: Some(Ticks {
                busy: 125,
                stolen: 20,
                total: 1100,
            }),
            pressure: [Some(250_000), Some(5), Some(1)],
            at: Duration::from_secs(2),
        };
        let between = between(&before, &now);
        assert_eq!((between.cpu, between.stolen), (Some(25.0), Some(10.0)));
        assert_eq!(between.waits, [Some(25.0), None, None]);
    }

    #[test]
    fn a_clock_that_stands_still_makes_no_infinity() {
        let counters = Counters {
            cpu: Some(Ticks {
                busy: 1,
                stolen: 0,
                total: 1,
            }),
            pressure: [Some(1); 3],
            at: Duration::ZERO,
        };
        assert_eq!(between(&counters, &counters), Between::default());
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
}
