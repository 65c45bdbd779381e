//! The agent's configuration: read, checked as a whole before anything is done, then never doubted again.

mod check;
mod raw;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize as _;
use serde_json::Value;
use smartscale_proto::tls::{Anchors, client::Expected};

use crate::{drain, machine::Machine};
use raw::Raw;

/// Where the configuration lies unless one says otherwise.
pub const DEFAULT_PATH: &str = "/etc/smartscale/agent.toml";

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct ConfigError {
    /// The key's path, for example `drain.spot.deadline`; the file's for one that cannot be read.
    pub path: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl ConfigError {
    fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` of coordinators, in the order in which they are tried.
    pub coordinators: Vec<String>,
    /// Which coordinator is believed.
    pub expected: Expected,
    /// Whom to trust before enrolment.
    pub anchors: Anchors,
    /// What survives a reboot.
    pub state_dir: PathBuf,
    /// What does not.
    pub run_dir: PathBuf,
    /// How this machine proves itself.
    pub attestor: Attestor,
    /// Where IMDS is.
    pub imds: Imds,
    /// The machine, where there is no IMDS.
    pub machine: Option<Machine>,
    /// The secrets of a join.
    pub secrets: Secrets,
    /// K3s' seams.
    pub k3s: K3s,
    /// Where the kernel tells about the machine: `/proc`, or where a container has the machine's.
    pub proc: PathBuf,
    /// Intervals of health.
    pub health: Health,
    /// How often notices are polled.
    pub notice_interval: Duration,
    /// Drains.
    pub drain: Drain,
    /// Where Prometheus may ask for the health; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// How a machine proves itself to the coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attestor {
    /// By the one-time secret in this file.
    Token(PathBuf),
    /// By the credentials of the instance's identity role.
    Ec2Identity,
    /// By those of the role of its instance profile.
    Ec2Profile,
}

/// The instance metadata service.
#[derive(Debug, Clone)]
pub struct Imds {
    /// `http://host[:port]`.
    pub endpoint: String,
    /// Routers that a packet may pass.
    pub hops: u32,
}

/// The secrets of a join.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Name of the secret with K3s' agent token.
    pub join_token: String,
    /// Name of the secret with the server's address.
    pub server: String,
    /// AWS region; the zone's unless given.
    pub region: Option<String>,
    /// Secrets Manager's endpoint; AWS' own unless given.
    pub endpoint: Option<String>,
    /// A folder of files in place of Secrets Manager.
    pub folder: Option<PathBuf>,
    /// Whether the coordinator gives the token and the server's address, so that the machine needs no secret at all.
    pub from_coordinator: bool,
}

/// K3s' seams.
#[derive(Debug, Clone)]
pub struct K3s {
    /// Folder of drop-ins.
    pub config_dir: PathBuf,
    /// Folder of its data, whose file system is measured.
    pub data_dir: PathBuf,
    /// The kubelet's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Its unit.
    pub unit: String,
    /// The program that starts and stops units.
    pub systemctl: PathBuf,
    /// The program that shows what they wrote.
    pub journalctl: PathBuf,
    /// The kubelet's health endpoint.
    pub healthz: String,
    /// The container runtime's socket.
    pub runtime_socket: PathBuf,
    /// Further labels of the node, `key=value`.
    pub labels: Vec<String>,
}

/// Intervals of health.
#[derive(Debug, Clone, Copy)]
pub struct Health {
    /// Reports while figures change, until the coordinator says otherwise.
    pub changing: Duration,
    /// Reports while they do not.
    pub quiet: Duration,
    /// Asking systemd, the kubelet and the runtime.
    pub services: Duration,
    /// Counting pods.
    pub pods: Duration,
}

/// Drains.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// The terms of one that nobody commands, until a coordinator has said better.
    pub terms: drain::Terms,
    /// Delays and bounds.
    pub settings: drain::Settings,
}

impl Config {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] with the key's path and what would be right.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError::at(
                path.display().to_string(),
                format!("the configuration cannot be read: {error}"),
            )
        })?;
        Self::parse(&text)
    }

    /// Checks a configuration. Reads nothing but the file of trust anchors that it names.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let deserializer =
            toml::Deserializer::parse(text).map_err(|error| ConfigError::at("line", error.to_string()))?;
        // By way of a tree: serde's code for each table is then in the program for JSON alone, not for TOML too.
        let document =
            Value::deserialize(deserializer).map_err(|error| ConfigError::at("line", error.to_string()))?;
        let raw: Raw = serde_path_to_error::deserialize(document).map_err(|error| {
            let path = error.path().to_string();
            ConfigError::at(path, error.into_inner().to_string())
        })?;
        Self::check(raw)
    }

    fn check(raw: Raw) -> Result<Self, ConfigError> {
        if raw.coordinators.is_empty() {
            return Err(ConfigError::at(
                "coordinators",
                "at least one `host:port` is needed",
            ));
        }
        for (index, endpoint) in raw.coordinators.iter().enumerate() {
            check::check_endpoint(endpoint)
                .map_err(|message| ConfigError::at(format!("coordinators[{index}]"), message))?;
        }
        let machine = raw.machine.map(check::machine).transpose()?;
        let imds = check::imds(raw.imds)?;
        for (path, folder) in [("state_dir", &raw.state_dir), ("run_dir", &raw.run_dir)] {
            check::absolute(path, folder)?;
        }
        let attestor = check::attestor(raw.attestor, machine.is_none())?;
        Ok(Self {
            coordinators: raw.coordinators,
            expected: Expected {
                trust: check::segment("trust_domain", &raw.trust_domain)?,
                cluster: check::segment("cluster", &raw.cluster)?,
            },
            anchors: check::anchors(raw.ca_file.as_deref(), raw.ca_fingerprint.as_deref())?,
            state_dir: raw.state_dir,
            run_dir: raw.run_dir,
            attestor,
            imds,
            machine,
            secrets: check::secrets(raw.secrets)?,
            k3s: check::k3s(raw.k3s)?,
            health: check::health(&raw.health)?,
            proc: raw.health.proc,
            notice_interval: check::within(
                "notices.interval",
                raw.notices.interval,
                Duration::from_millis(200),
                Duration::from_secs(60),
            )?,
            drain: check::drain(&raw.drain)?,
            metrics: check::metrics(raw.metrics.listen)?,
        })
    }
}

#[cfg(test)]
mod tests;
