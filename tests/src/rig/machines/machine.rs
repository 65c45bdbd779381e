//! One machine: its folders, its metadata service, the agent's process, the unit that `systemctl` starts.

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

use super::super::imds::{Imds, Instance};
use super::super::kubernetes::Access;
use super::super::process::{Process, Program};
use super::super::{Folder, aws};
use super::kubelet::Kubelet;
use super::proc::Proc;
use super::{Proof, Settings};

/// The `systemctl` of one machine: one unit, whose wanted state is a file.
const SYSTEMCTL: &str = r#"#!/bin/sh
# A stand-in: the unit is started while the file `wanted` is there; the rig's kubelet keeps `state`.
cd "$(dirname "$0")/../unit" || exit 1
for argument in "$@"; do
    case $argument in
    start) : >wanted; exit 0 ;;
    restart) rm -f wanted; sleep 0.5; : >wanted; exit 0 ;;
    stop)
        rm -f wanted
        for _ in $(seq 100); do
            if [ "$(cat state)" = inactive ]; then exit 0; fi
            sleep 0.05
        done
        exit 1 ;;
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

/// A running machine. Dropped, it is switched off: nothing ends gracefully.
#[derive(Debug)]
pub struct Machine {
    imds: Imds,
    proc: Proc,
    agent: Option<Process>,
    program: Program,
    start_at: Instant,
    held: bool,
    home: PathBuf,
    folder: Folder,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    _runtime_socket: tokio::net::UnixListener,
}

impl Machine {
    pub(super) async fn boot(
        folder: &Folder,
        access: &Access,
        settings: &Settings,
        account_url: &str,
        instance: Instance,
        size: (i32, i64),
        (proof, secret): (Proof, Option<String>),
    ) -> anyhow::Result<Self> {
        let id = instance.id.clone();
        let home = folder.sub(&format!("machines/{id}"))?;
        for sub in [
            "proc",
            "bin",
            "unit",
            "config.yaml.d",
            "data",
            "state",
            "run",
            "etc",
        ] {
            folder.sub(&format!("machines/{id}/{sub}"))?;
        }
        std::fs::write(home.join("unit/state"), "inactive").context("write the unit's state")?;
        let systemctl = folder.write(&format!("machines/{id}/bin/systemctl"), SYSTEMCTL)?;
        std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755))
            .context("make it a program")?;
        let log = folder.sub("logs")?.join(format!("kubelet-{id}.log"));
        let journalctl = JOURNALCTL.replace("LOG", &format!("'{}'", log.display()));
        let journalctl = folder.write(&format!("machines/{id}/bin/journalctl"), journalctl)?;
        std::fs::set_permissions(&journalctl, std::fs::Permissions::from_mode(0o755))
            .context("make it a program")?;
        if let Some(secret) = secret {
            folder.write(&format!("machines/{id}/etc/enrolment-token"), secret)?;
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
            config_dir: home.join("config.yaml.d"),
            kubeconfig: home.join("data/agent/kubelet.kubeconfig"),
            log,
            join_token: settings.join_token.clone(),
            ip: instance.private_ip.to_string(),
            size,
            pod_end: settings.pod_end,
            healthy,
        };
        let kubeconfig = kubelet.kubeconfig.clone();
        let base = match instance.user_data.as_str() {
            "" => settings.agent_config.clone(),
            given => given.to_owned(),
        };
        let imds = Imds::start(instance).await?;
        let proc = Proc::start(home.join("proc"), size)?;
        let config = configure(
            &base,
            &home,
            proof,
            &imds.url(),
            account_url,
            &healthz,
            &kubeconfig,
        )?;
        let config = folder.write(&format!("machines/{id}/etc/agent.toml"), config)?;
        let mut program = Program::new(format!("agent-{id}"), &settings.agent)
            .arg("--config")
            .arg(&config)
            .arg("run")
            .env("AWS_ENDPOINT_URL", account_url)
            .env("AWS_REGION", aws::REGION)
            .env("SMARTSCALE_LOG", "info,smartscale_agent=debug")
            .folder(&home);
        // Its credentials come from its role alone.
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            program = program.without_env(name);
        }
        let tasks = vec![health_task, tokio::spawn(kubelet.run())];
        let start_at = Instant::now() + settings.boot;
        let folder = folder.clone();
        Ok(Self {
            imds,
            proc,
            agent: None,
            program,
            start_at,
            held: false,
            home,
            folder,
            tasks,
            _runtime_socket: runtime_socket,
        })
    }

    /// Its metadata service, to give notices.
    #[must_use]
    pub fn imds(&self) -> &Imds {
        &self.imds
    }

    /// From now on it uses these shares (0 to 1) of its CPU and memory. It starts nearly idle.
    pub fn busy(&self, cpu: f64, memory: f64) {
        self.proc.set(cpu, memory);
    }

    /// Its folder: `state/`, `run/`, `config.yaml.d/`, `etc/agent.toml`.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
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
        if !runs {
            self.agent = Some(Process::spawn(self.program.clone(), &self.folder)?);
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill_kubelet();
    }
}

/// The agent's configuration: `base` with what depends on the machine set.
fn configure(
    base: &str,
    home: &Path,
    proof: Proof,
    imds: &str,
    account_url: &str,
    healthz: &str,
    kubeconfig: &Path,
) -> anyhow::Result<String> {
    let mut config: toml::Table = base.parse().context("the user-data is no agent configuration")?;
    let text = |path: &Path| toml::Value::String(path.display().to_string());
    let mut set = |section: &str, key: &str, value: toml::Value| -> anyhow::Result<()> {
        let table = if section.is_empty() {
            &mut config
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
    };
    set("", "state_dir", text(&home.join("state")))?;
    set("", "run_dir", text(&home.join("run")))?;
    set("health", "proc", text(&home.join("proc")))?;
    set("imds", "endpoint", imds.into())?;
    set("secrets", "endpoint", account_url.into())?;
    set("secrets", "region", aws::REGION.into())?;
    set("k3s", "config_dir", text(&home.join("config.yaml.d")))?;
    set("k3s", "data_dir", text(&home.join("data")))?;
    set("k3s", "kubeconfig", text(kubeconfig))?;
    set("k3s", "systemctl", text(&home.join("bin/systemctl")))?;
    set("k3s", "journalctl", text(&home.join("bin/journalctl")))?;
    set("k3s", "healthz", healthz.into())?;
    set("k3s", "runtime_socket", text(&home.join("containerd.sock")))?;
    set("attestor", "token_file", text(&home.join("etc/enrolment-token")))?;
    let (kind, credentials) = match proof {
        Proof::Secret => ("token", None),
        Proof::Identity => ("ec2", None),
        Proof::Profile => ("ec2", Some("profile")),
    };
    set("attestor", "kind", kind.into())?;
    if let Some(credentials) = credentials {
        set("attestor", "credentials", credentials.into())?;
    }
    toml::to_string(&config).context("write the agent's configuration")
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
