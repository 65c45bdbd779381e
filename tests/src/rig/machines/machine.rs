//! One machine: its folder laid out as a machine's root, the agent's process, the units that `systemctl` starts.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context as _;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

use super::super::Folder;
use super::super::imds::Imds;
use super::super::kubernetes::Access;
use super::super::process::{Process, Program};
use super::Settings;
use super::kubelet::Kubelet;
use super::proc::Proc;

/// The `systemctl` of one machine. A unit's wanted state is a file: K3s' in `unit/`, the agent's in `agent/`.
const SYSTEMCTL: &str = r#"#!/bin/sh
# A stand-in: a unit is started while the file `wanted` is there; who follows it keeps `state`.
for unit in "$@"; do :; done
case $unit in
smartscale-agent*) folder=agent ;;
*) folder=unit ;;
esac
cd "$(dirname "$0")/../$folder" || exit 1
stop() {
    rm -f wanted
    for _ in $(seq 200); do
        if [ "$(cat state)" = inactive ]; then return; fi
        sleep 0.05
    done
    exit 1
}
for argument in "$@"; do
    case $argument in
    enable) exit 0 ;;
    start) : >wanted; exit 0 ;;
    restart) stop; : >wanted; exit 0 ;;
    stop | disable) stop; exit 0 ;;
    show | is-active) cat state; echo; exit 0 ;;
    esac
done
echo "systemctl stand-in: not understood: $*" >&2
exit 1
"#;

/// The `journalctl` of one machine: what the stand-in for the kubelet wrote.
const JOURNALCTL: &str = r#"#!/bin/sh
# A stand-in: the lines of the one unit.
tail -n 40 LOG
"#;

/// What the agent's unit says (systemd's `StateDirectory`), below the machine's root.
const STATE: &str = "var/lib/smartscale";
const RUN: &str = "run/smartscale";
/// Where K3s' configuration and data lie.
const K3S_CONFIG: &str = "etc/rancher/k3s/config.yaml.d";
const K3S_DATA: &str = "var/lib/rancher/k3s";
/// Where the agent finds the secret of its launch.
const SECRET: &str = "etc/smartscale/enrolment-token";

/// What makes one machine differ from the next.
pub(super) struct Body {
    /// Its name: an instance's id, or the address at which it is reached.
    pub(super) name: String,
    /// The address of its node.
    pub(super) ip: Ipv4Addr,
    /// CPUs and MiB of memory.
    pub(super) size: (i32, i64),
}

/// A running machine. Dropped, it is switched off: nothing ends gracefully.
#[derive(Debug)]
pub struct Machine {
    name: String,
    imds: Option<Imds>,
    proc: Proc,
    agent: Option<Process>,
    program: Option<Program>,
    healthz: String,
    path: PathBuf,
    start_at: Instant,
    held: bool,
    home: PathBuf,
    folder: Folder,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _runtime_socket: tokio::net::UnixListener,
}

impl Machine {
    /// Switches a machine on. Its agent runs once it was [installed](Self::install).
    pub(super) async fn switch_on(
        folder: &Folder,
        access: &Access,
        settings: &Settings,
        body: Body,
    ) -> anyhow::Result<Self> {
        let Body { name, ip, size } = body;
        let home = folder.sub(&format!("machines/{name}"))?;
        let folders = [
            "proc",
            "bin",
            "unit",
            "agent",
            RUN,
            "etc/smartscale",
            K3S_CONFIG,
            K3S_DATA,
        ];
        for sub in folders {
            folder.sub(&format!("machines/{name}/{sub}"))?;
        }
        for unit in ["unit", "agent"] {
            folder.write(&format!("machines/{name}/{unit}/state"), "inactive")?;
        }
        let log = folder.sub("logs")?.join(format!("kubelet-{name}.log"));
        let journalctl = JOURNALCTL.replace("LOG", &format!("'{}'", log.display()));
        for (program, text) in [("systemctl", SYSTEMCTL), ("journalctl", &journalctl)] {
            let program = folder.write(&format!("machines/{name}/bin/{program}"), text)?;
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))
                .context("make it a program")?;
        }
        let socket = home.join("containerd.sock");
        // A machine that boots again on the same disk.
        let _ = std::fs::remove_file(&socket);
        let runtime_socket = tokio::net::UnixListener::bind(&socket).context("bind the runtime's socket")?;

        let healthy = Arc::new(AtomicBool::new(false));
        let (healthz, health_task) = serve_health(Arc::clone(&healthy)).await?;
        let kubelet = Kubelet {
            access: access.clone(),
            unit: home.join("unit"),
            config_dir: home.join(K3S_CONFIG),
            kubeconfig: kubeconfig(&home),
            log,
            join_token: settings.join_token.clone(),
            ip: ip.to_string(),
            size,
            pod_end: settings.pod_end,
            healthy,
        };
        let proc = Proc::start(home.join("proc"), size)?;
        let tasks = vec![health_task, tokio::spawn(kubelet.run())];
        Ok(Self {
            name,
            imds: None,
            proc,
            agent: None,
            program: None,
            healthz,
            path: settings.agent.clone(),
            start_at: Instant::now() + settings.boot,
            held: false,
            home,
            folder: folder.clone(),
            tasks,
            _runtime_socket: runtime_socket,
        })
    }

    /// Gives it a metadata service.
    pub(super) fn attach(&mut self, imds: Imds) {
        self.imds = Some(imds);
    }

    /// Puts the secret of its launch in its place.
    pub(super) fn entrust(&self, secret: &str) -> anyhow::Result<()> {
        self.folder
            .write(&format!("machines/{}/{SECRET}", self.name), secret)?;
        Ok(())
    }

    /// Gives the agent this configuration, in which places that lie below the machine's root are set. It runs from now on.
    pub(super) fn install(
        &mut self,
        mut config: toml::Table,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<()> {
        let home = &self.home;
        let place = |below: &str| toml::Value::String(home.join(below).display().to_string());
        let kubeconfig = kubeconfig(home).display().to_string();
        let settings = [
            ("", "state_dir", place(STATE)),
            ("", "run_dir", place(RUN)),
            ("health", "proc", place("proc")),
            ("k3s", "config_dir", place(K3S_CONFIG)),
            ("k3s", "data_dir", place(K3S_DATA)),
            ("k3s", "kubeconfig", kubeconfig.into()),
            ("k3s", "systemctl", place("bin/systemctl")),
            ("k3s", "journalctl", place("bin/journalctl")),
            ("k3s", "healthz", self.healthz.clone().into()),
            ("k3s", "runtime_socket", place("containerd.sock")),
            ("attestor", "token_file", place(SECRET)),
        ];
        for (section, key, value) in settings {
            set(&mut config, section, key, value)?;
        }
        let text = toml::to_string(&config).context("write the agent's configuration")?;
        let path = self
            .folder
            .write(&format!("machines/{}/agent.toml", self.name), text)?;
        let mut program = Program::new(format!("agent-{}", self.name), &self.path)
            .arg("--config")
            .arg(&path)
            .arg("run")
            .env("SMARTSCALE_LOG", "info,smartscale_agent=debug")
            .folder(&self.home);
        for (name, value) in environment {
            program = program.env(name, value);
        }
        // Its credentials, if it needs any, come from its role alone.
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            program = program.without_env(name);
        }
        self.program = Some(program);
        Ok(())
    }

    /// Its metadata service, to give notices.
    ///
    /// # Errors
    /// It is no instance of EC2.
    pub fn imds(&self) -> anyhow::Result<&Imds> {
        self.imds
            .as_ref()
            .with_context(|| format!("{} has no metadata service", self.name))
    }

    /// From now on it uses these shares (0 to 1) of its CPU and memory. It starts nearly idle.
    pub fn busy(&self, cpu: f64, memory: f64) {
        self.proc.set(cpu, memory);
    }

    /// Its root, and beside what a machine has below it: `agent.toml` as the agent is run with, `unit/`, `agent/`, `proc/`.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What the agent keeps over a restart.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.join(STATE)
    }

    /// The agent's process, once it has been started.
    pub fn agent(&mut self) -> Option<&mut Process> {
        self.agent.as_mut()
    }

    /// Kills the agent (`SIGKILL`). It starts again by itself, as systemd would have it, unless it is `held` down.
    pub fn kill_agent(&mut self, held: bool) {
        self.held = held;
        if let Some(agent) = &mut self.agent {
            agent.kill();
        }
        self.agent = None;
    }

    /// Lets an agent that was held down start again.
    pub fn release_agent(&mut self) {
        self.held = false;
    }

    /// Ends the stand-in kubelet for good: the node falls silent.
    pub fn kill_kubelet(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    /// Starts the agent when it is due and does not run.
    pub(super) fn supervise(&mut self) -> anyhow::Result<()> {
        if self.held || Instant::now() < self.start_at {
            return Ok(());
        }
        let runs = match &mut self.agent {
            Some(agent) => agent.exited()?.is_none(),
            None => false,
        };
        if let Some(program) = &self.program
            && !runs
        {
            // As systemd makes it before each start.
            std::fs::create_dir_all(self.home.join(STATE)).context("make the agent's folder")?;
            self.agent = Some(Process::spawn(program.clone(), &self.folder)?);
        }
        Ok(())
    }

    /// Ends the agent as systemd does; it does not run until it is installed again.
    pub(super) async fn stop_agent(&mut self) -> anyhow::Result<()> {
        self.program = None;
        if let Some(mut agent) = self.agent.take()
            && agent.exited()?.is_none()
        {
            agent.stop().await?;
        }
        Ok(())
    }

    /// Whether the agent is to run.
    pub(super) fn is_installed(&self) -> bool {
        self.program.is_some()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_kubelet();
    }
}

fn kubeconfig(home: &Path) -> PathBuf {
    home.join(K3S_DATA).join("agent/kubelet.kubeconfig")
}

/// Sets a key of a table, or of none (`""`).
pub(super) fn set(
    config: &mut toml::Table,
    section: &str,
    key: &str,
    value: toml::Value,
) -> anyhow::Result<()> {
    let table = if section.is_empty() {
        config
    } else {
        let entry = config
            .entry(section)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        entry
            .as_table_mut()
            .with_context(|| format!("{section} is no table"))?
    };
    table.insert(key.to_owned(), value);
    Ok(())
}

/// The kubelet's `/healthz`.
async fn serve_health(healthy: Arc<AtomicBool>) -> anyhow::Result<(String, tokio::task::JoinHandle<()>)> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("bind healthz")?;
    let address = listener.local_addr().context("read healthz' port")?;
    let answer = move || {
        let healthy = healthy.load(Ordering::Relaxed);
        std::future::ready(if healthy {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "")
        })
    };
    let router = Router::new().route("/healthz", get(answer));
    let task = tokio::spawn(async move {
        // Accepting ends with the task; there is nobody to tell.
        let _ = axum::serve(listener, router).await;
    });
    Ok((format!("http://{address}/healthz"), task))
}
