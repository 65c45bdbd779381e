//! A machine's own `/proc`: how busy it is, is what the test says, not how busy the test's machine is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;

/// Between two writes.
const PERIOD: Duration = Duration::from_millis(200);
/// Ticks of a CPU within one period, as the kernel counts them (100 a second).
const TICKS: f64 = 20.0;

/// CPU and memory in use, each 0 to 1.
#[derive(Debug, Clone, Copy)]
struct Use {
    cpu: f64,
    memory: f64,
}

/// Keeps the folder that stands for `/proc` up to date.
#[derive(Debug)]
pub(super) struct Proc {
    used: Arc<Mutex<Use>>,
    task: tokio::task::JoinHandle<()>,
}

impl Proc {
    /// In the folder `path`: an idle machine with so many CPUs and so much memory in MiB.
    pub(super) fn start(path: PathBuf, (cpus, memory): (i32, i64)) -> anyhow::Result<Self> {
        let used = Arc::new(Mutex::new(Use {
            cpu: 0.05,
            memory: 0.2,
        }));
        let mut writer = Writer {
            path,
            used: Arc::clone(&used),
            cpus: f64::from(cpus),
            memory_kb: memory * 1024,
            busy: 0.0,
            idle: 0.0,
        };
        writer.write().context("write the machine's proc")?;
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                if let Err(error) = writer.write() {
                    eprintln!("rig: {}: {error}", writer.path.display());
                    return;
                }
            }
        });
        Ok(Self { used, task })
    }

    /// From now on the machine uses these shares of its CPU and memory.
    pub(super) fn set(&self, cpu: f64, memory: f64) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = Use { cpu, memory };
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Writer {
    path: PathBuf,
    used: Arc<Mutex<Use>>,
    cpus: f64,
    memory_kb: i64,
    busy: f64,
    idle: f64,
}

impl Writer {
    fn write(&mut self) -> std::io::Result<()> {
        let used = *self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let ticks = TICKS * self.cpus;
        self.busy += ticks * used.cpu;
        self.idle += ticks * (1.0 - used.cpu);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "kilobytes of one machine"
        )]
        let available = (self.memory_kb as f64 * (1.0 - used.memory)) as i64;
        let stat = format!("cpu  {:.0} 0 0 {:.0} 0 0 0 0 0 0\n", self.busy, self.idle);
        let meminfo = format!(
            "MemTotal: {} kB\nMemFree: {available} kB\nMemAvailable: {available} kB\n",
            self.memory_kb
        );
        let load = format!("{:.2} 0.00 0.00 1/100 1000\n", used.cpu * self.cpus);
        // Control groups of version 2.
        let mounts = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime 0 0\n".to_owned();
        let files = [
            ("stat", stat),
            ("meminfo", meminfo),
            ("loadavg", load),
            ("mounts", mounts),
        ];
        for (name, text) in files {
            // The agent must never read half a file.
            let new = self.path.join(format!("{name}.new"));
            std::fs::write(&new, text)?;
            std::fs::rename(new, self.path.join(name))?;
        }
        Ok(())
    }
}
