//! One worker machine: its disk, its network card, its metadata service, and the process whose death is a power cut.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tokio::process::Child;
use tokio::task::JoinHandle;

use super::super::imds::{Imds, Instance};
use super::super::process::{Process, Program};
use super::super::{Folder, cache, wait};
use super::group::Group;
use super::image::{Disk, Image};
use super::network::{self, Card, Network};

/// A worker machine. Dropped, it is switched off and its disk goes with the test's folder.
#[derive(Debug)]
pub struct Worker {
    id: String,
    // Dropped in this order: what runs before what it runs on.
    power: Process,
    imds_task: JoinHandle<()>,
    imds: Imds,
    card: Card,
    group: Group,
    disk: Disk,
}

impl Worker {
    /// Plugs a machine in that is `instance`, with a fresh disk, and switches it on.
    ///
    /// # Errors
    /// The sandbox does not allow it, or something is not installed or built; the message says which.
    pub async fn new(
        folder: &Folder,
        network: &Network,
        image: &Image,
        instance: Instance,
        memory: i64,
        secret: Option<String>,
    ) -> anyhow::Result<Self> {
        let id = instance.id.clone();
        let disk = Disk::new(folder.sub(&format!("machines/{id}"))?, &id, image, memory)?;
        if let Some(secret) = secret {
            disk.write("etc/smartscale/enrolment-token", &secret, 0o600)?;
        }
        let card = network.plug(folder, &id, instance.private_ip).await?;
        let imds = Imds::start(instance).await?;
        let served: SocketAddr = imds
            .url()
            .trim_start_matches("http://")
            .parse()
            .context("read IMDS' address")?;
        let imds_task = network::forward(card.namespace().listen(network::IMDS)?, served);
        let group = Group::new(&id)?;
        let console = folder.sub("logs")?.join(format!("console-{id}.log"));
        std::fs::write(&console, "").context("make the console")?;
        let program = Program::new(format!("power-{id}"), cache::source("worker/power-on"))
            .arg(group.name())
            .arg(card.namespace().path())
            .arg(disk.path())
            .arg(console);
        let power = Process::spawn(program, folder)?;
        Ok(Self {
            id,
            power,
            imds_task,
            imds,
            card,
            group,
            disk,
        })
    }

    /// Its instance id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its metadata service, to give notices.
    #[must_use]
    pub fn imds(&self) -> &Imds {
        &self.imds
    }

    /// Its network card.
    #[must_use]
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Its disk.
    #[must_use]
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Cuts the power: everything on it ends at once, nothing is told.
    pub fn power_off(&mut self) {
        self.power.kill();
    }

    /// Switches it on again, on the disk that it had.
    ///
    /// # Errors
    /// It is on, or something of the last time does not end.
    pub fn power_on(&mut self) -> anyhow::Result<()> {
        self.group.clear()?;
        self.power.start()
    }

    /// Whether it is on.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn is_on(&mut self) -> anyhow::Result<bool> {
        Ok(self.power.id().is_some() && self.power.exited()?.is_none())
    }

    /// What a machine's firmware does: one that has rebooted itself is started again.
    pub(super) fn supervise(&mut self) -> anyhow::Result<()> {
        use std::os::unix::process::ExitStatusExt as _;
        let Some(status) = self.power.exited()? else {
            return Ok(());
        };
        // How the kernel ends the pid 1 of a namespace that calls reboot(2): SIGHUP to start again, SIGINT to stay off.
        if status.signal() == Some(Signal::HUP.as_raw()) || status.code() == Some(128 + Signal::HUP.as_raw())
        {
            self.power.kill();
            self.power_on()?;
        }
        Ok(())
    }

    /// Runs a program on the machine, as root.
    ///
    /// # Errors
    /// The machine is off, or the program cannot be run; its own failure is in what is given.
    pub async fn run(&self, words: &[&str]) -> anyhow::Result<Output> {
        let output = self.start(words)?.wait_with_output().await;
        output.with_context(|| format!("run {words:?} on {}", self.id))
    }

    /// Starts a program on the machine, as root.
    ///
    /// # Errors
    /// The machine is off, or the program cannot be run.
    pub fn start(&self, words: &[&str]) -> anyhow::Result<Child> {
        let mut command = self.enter()?;
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
        command
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("run {words:?} on {}", self.id))
    }

    /// Installs a package, as an administrator does on a running machine.
    ///
    /// # Errors
    /// It is not there, or dpkg refuses it: with what it said.
    pub async fn install(&self, package: &Path) -> anyhow::Result<()> {
        // Not through the overlay's upper folder: what changes there behind its back may not be seen.
        let file = std::fs::File::open(package).with_context(|| format!("open {}", package.display()))?;
        let install = "cat >/tmp/package.deb && dpkg --install /tmp/package.deb && rm /tmp/package.deb";
        let mut command = self.enter()?;
        let output = command.args(["sh", "-c", install]).stdin(file).output().await;
        let output = output.context("run dpkg")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("install {} on {}: {said}", package.display(), self.id);
        }
        Ok(())
    }

    /// A command line that goes into the machine.
    fn enter(&self) -> anyhow::Result<tokio::process::Command> {
        let mut command = tokio::process::Command::new("nsenter");
        command
            .args([
                "--target",
                &self.first_process()?,
                "--all",
                "--root",
                "--wd=/",
                "--",
            ])
            .args([
                "env",
                "-i",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ]);
        Ok(command)
    }

    /// [`run`](Self::run) of a program that must succeed; what it printed.
    ///
    /// # Errors
    /// As `run`, or the program failed: with what it said.
    pub async fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let output = self.run(words).await?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{words:?} on {}: {} {said}", self.id, output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a service has said since the disk was made: `smartscale-agent`, `k3s-agent` or `user-data`.
    ///
    /// # Errors
    /// It has not begun.
    pub fn log(&self, service: &str) -> anyhow::Result<String> {
        let path = self.log_file(service);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits until a service has said all of `words` in one line.
    ///
    /// # Errors
    /// It does not within `deadline`.
    pub async fn logged(&self, service: &str, words: &[&str], deadline: Duration) -> anyhow::Result<String> {
        wait::until(&format!("{words:?} in {service}'s log"), deadline, || async {
            let text = self.log(service)?;
            let line = text
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            Ok(line.map(str::to_owned))
        })
        .await
    }

    fn log_file(&self, service: &str) -> PathBuf {
        self.disk.file(&format!("var/log/rig/{service}.log"))
    }

    /// The machine's pid 1, seen from outside: the only child of the process that made its namespaces.
    fn first_process(&self) -> anyhow::Result<String> {
        let outer = self.power.id().with_context(|| format!("{} is off", self.id))?;
        let children = std::fs::read_to_string(format!("/proc/{outer}/task/{outer}/children"))
            .with_context(|| format!("{} is off", self.id))?;
        let first = children.split_whitespace().next();
        Ok(first
            .with_context(|| format!("{} is just starting", self.id))?
            .to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.power_off();
        self.imds_task.abort();
    }
}
