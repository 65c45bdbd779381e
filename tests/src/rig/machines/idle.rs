//! Machines that are there and lie idle, as in a rack: whoever reaches one writes files on it and starts its agent by
//! `systemctl`, as over SSH.
//!
//! ```text
//!  reach ADDRESS ──▶ sh, DESTDIR = the machine's root ──▶ etc/smartscale/… ──▶ systemctl ──▶ agent/wanted
//!                                                            watcher ──▶ smartscale-agent ──▶ … as on an instance
//! ```

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::Settings;
use super::machine::{Body, Machine};
use crate::rig::Folder;
use crate::rig::kubernetes::Access;

const LOOK: Duration = Duration::from_millis(100);
/// CPUs and MiB of memory of each.
const SIZE: (i32, i64) = (2, 4096);

/// What stands in for `ssh root@ADDRESS`. It leaves its traces beside the machine's root.
const REACH: &str = r#"#!/bin/sh
machine=$(dirname "$0")/machines/$1
: >"$machine/reached"
while [ -e "$machine/held" ]; do sleep 0.05; done
shift
DESTDIR=$machine PATH=$machine/bin:/usr/bin:/bin exec "$@"
"#;

/// The rack. Dropped, it is switched off.
#[derive(Debug)]
pub struct IdleMachines {
    addresses: Vec<Ipv4Addr>,
    folder: Folder,
    reach: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl IdleMachines {
    /// Switches on so many, none of which has an agent that runs.
    ///
    /// # Errors
    /// A folder or a socket cannot be made.
    pub async fn start(
        folder: &Folder,
        access: &Access,
        settings: &Settings,
        count: u8,
    ) -> anyhow::Result<Self> {
        let addresses: Vec<_> = (1..=count).map(|last| Ipv4Addr::new(10, 7, 1, last)).collect();
        let mut machines = Vec::new();
        for ip in &addresses {
            let body = Body {
                name: ip.to_string(),
                ip: *ip,
                size: SIZE,
            };
            machines.push(Machine::switch_on(folder, access, settings, body).await?);
        }
        let reach = folder.write("reach", REACH)?;
        let task = tokio::spawn(async move {
            loop {
                for machine in &mut machines {
                    if let Err(error) = follow(machine).await {
                        eprintln!("rig: {}: {error:#}", machine.home().display());
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Ok(Self {
            addresses,
            folder: folder.clone(),
            reach,
            task,
        })
    }

    /// Their addresses.
    #[must_use]
    pub fn addresses(&self) -> &[Ipv4Addr] {
        &self.addresses
    }

    /// The command that runs another one, which follows its first argument, an address, on the machine there.
    #[must_use]
    pub fn reach(&self) -> String {
        format!("sh {}", self.reach.display())
    }

    /// Whoever reaches the machine from now on gets no answer until it is [released](Self::release).
    ///
    /// # Errors
    /// The machine's folder cannot be written.
    pub fn hold(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        let held = self.folder.write(&format!("machines/{address}/held"), "")?;
        // Whoever reached it before was answered.
        let _ = std::fs::remove_file(held.with_file_name("reached"));
        Ok(())
    }

    /// Whether somebody has reached for it since it was held.
    #[must_use]
    pub fn is_reached_for(&self, address: Ipv4Addr) -> bool {
        self.home(address).join("reached").exists()
    }

    /// Lets a machine that was held answer.
    ///
    /// # Errors
    /// It was not held.
    pub fn release(&self, address: Ipv4Addr) -> anyhow::Result<()> {
        std::fs::remove_file(self.home(address).join("held")).context("release the machine")
    }

    /// Whether neither its agent nor its K3s runs, nor is to run.
    #[must_use]
    pub fn is_idle(&self, address: Ipv4Addr) -> bool {
        let home = self.home(address);
        ["unit", "agent"].iter().all(|unit| {
            let state = std::fs::read_to_string(home.join(unit).join("state"));
            !home.join(unit).join("wanted").exists() && state.is_ok_and(|state| state == "inactive")
        })
    }

    /// The machine's root.
    #[must_use]
    pub fn home(&self, address: Ipv4Addr) -> PathBuf {
        self.folder.path().join(format!("machines/{address}"))
    }
}

impl Drop for IdleMachines {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts and ends the agent as its unit is wanted, and again after an end of its own.
async fn follow(machine: &mut Machine) -> anyhow::Result<()> {
    let unit = machine.home().join("agent");
    let is_wanted = unit.join("wanted").exists();
    match (is_wanted, machine.is_installed()) {
        (true, false) => {
            let path = machine.home().join("etc/smartscale/agent.toml");
            let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            machine.install(text.parse().context("agent.toml")?, &[])?;
            say(&unit, "active")?;
        }
        (false, true) => {
            machine.stop_agent().await?;
            say(&unit, "inactive")?;
        }
        (true, true) | (false, false) => {}
    }
    machine.supervise()
}

fn say(unit: &Path, state: &str) -> anyhow::Result<()> {
    let part = unit.join("state.part");
    std::fs::write(&part, state).context("write the unit's state")?;
    std::fs::rename(&part, unit.join("state")).context("write the unit's state")
}
