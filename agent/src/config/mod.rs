//! The agent's configuration: read, checked as a whole before anything is done, then never doubted again.

mod raw;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use smartscale_proto::{
    identity::Segment,
    tls::{Anchors, client::Expected, keys},
};

use crate::{
    drain::{self, OnTimeout},
    http,
    machine::Machine,
};
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
    /// The file with the one-time secret.
    pub token_file: PathBuf,
    /// Where IMDS is.
    pub imds: Imds,
    /// The machine, where there is no IMDS.
    pub machine: Option<Machine>,
    /// The secrets of a join.
    pub secrets: Secrets,
    /// K3s' seams.
    pub k3s: K3s,
    /// Intervals of health.
    pub health: Health,
    /// How often notices are polled.
    pub notice_interval: Duration,
    /// Drains.
    pub drain: Drain,
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
    /// Time for one that a person orders here.
    pub timeout: Duration,
    /// What happens then.
    pub on_timeout: OnTimeout,
    /// Time for one that a spot interruption begins.
    pub spot_deadline: Duration,
    /// What happens then.
    pub spot_on_timeout: OnTimeout,
    /// Time that is kept for forced ends before the machine is taken.
    pub spot_reserve: Duration,
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
        let raw: Raw = serde_path_to_error::deserialize(deserializer).map_err(|error| {
            let path = error.path().to_string();
            ConfigError::at(path, error.into_inner().message())
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
            check_endpoint(endpoint)
                .map_err(|message| ConfigError::at(format!("coordinators[{index}]"), message))?;
        }
        let machine = raw.machine.map(machine).transpose()?;
        let imds = imds(raw.imds)?;
        for (path, folder) in [("state_dir", &raw.state_dir), ("run_dir", &raw.run_dir)] {
            absolute(path, folder)?;
        }
        let raw::AttestorKind::Token = raw.attestor.kind;
        absolute("attestor.token_file", &raw.attestor.token_file)?;
        Ok(Self {
            coordinators: raw.coordinators,
            expected: Expected {
                trust: segment("trust_domain", &raw.trust_domain)?,
                cluster: segment("cluster", &raw.cluster)?,
            },
            anchors: anchors(raw.ca_file.as_deref(), raw.ca_fingerprint.as_deref())?,
            state_dir: raw.state_dir,
            run_dir: raw.run_dir,
            token_file: raw.attestor.token_file,
            imds,
            machine,
            secrets: secrets(raw.secrets)?,
            k3s: k3s(raw.k3s)?,
            health: health(&raw.health)?,
            notice_interval: within(
                "notices.interval",
                raw.notices.interval,
                Duration::from_millis(200),
                Duration::from_secs(60),
            )?,
            drain: drain(&raw.drain)?,
        })
    }
}

fn segment(path: &str, text: &str) -> Result<Segment, ConfigError> {
    text.parse()
        .map_err(|error: smartscale_proto::identity::BadIdentity| ConfigError::at(path, error.to_string()))
}

fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let uri: ::http::Uri = format!("http://{endpoint}/")
        .parse()
        .map_err(|_| not_endpoint(endpoint))?;
    if uri.host().is_none() || uri.port_u16().is_none() || uri.path() != "/" || endpoint.contains('@') {
        return Err(not_endpoint(endpoint));
    }
    Ok(())
}

fn not_endpoint(endpoint: &str) -> String {
    format!("`{endpoint}` is not an address: host:port is, for example 10.0.0.10:7443")
}

fn absolute(path: &str, folder: &Path) -> Result<(), ConfigError> {
    if folder.is_absolute() {
        return Ok(());
    }
    Err(ConfigError::at(
        path,
        format!("`{}` is not an absolute path", folder.display()),
    ))
}

fn within(path: &str, span: raw::Span, least: Duration, most: Duration) -> Result<Duration, ConfigError> {
    if (least..=most).contains(&span.0) {
        return Ok(span.0);
    }
    Err(ConfigError::at(
        path,
        format!("{:?} is out of bounds: {least:?} to {most:?} is right", span.0),
    ))
}

fn anchors(file: Option<&Path>, fingerprint: Option<&str>) -> Result<Anchors, ConfigError> {
    match (file, fingerprint) {
        (Some(file), None) => {
            let pem = fs::read(file)
                .map_err(|error| ConfigError::at("ca_file", format!("{}: {error}", file.display())))?;
            let certificates = keys::certificates_from_pem(&pem)
                .map_err(|error| ConfigError::at("ca_file", format!("{}: {error}", file.display())))?;
            Ok(Anchors::Certificates(certificates))
        }
        (None, Some(text)) => keys::parse_fingerprint(text)
            .map(Anchors::Fingerprint)
            .map_err(|error| ConfigError::at("ca_fingerprint", error.to_string())),
        (None, None) => Err(ConfigError::at(
            "ca_file",
            "the coordinator's certificate authority must be known: set ca_file or ca_fingerprint",
        )),
        (Some(_), Some(_)) => Err(ConfigError::at(
            "ca_fingerprint",
            "ca_file is set too: only one of them is right",
        )),
    }
}

fn machine(raw: raw::Machine) -> Result<Machine, ConfigError> {
    let label = |path: &str, text: &str| {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if text.len() <= 63 && text.bytes().all(sound) {
            return Ok(());
        }
        let message = format!("`{text}` is no label: at most 63 letters, digits, `.`, `-` or `_` are");
        Err(ConfigError::at(path, message))
    };
    label("machine.type", &raw.instance_type)?;
    label("machine.zone", &raw.zone)?;
    Ok(Machine {
        id: segment("machine.id", &raw.id)?,
        instance_type: raw.instance_type,
        zone: raw.zone,
        market: raw.market,
        private_ip: raw.ip,
        provider_id: raw.provider_id,
    })
}

fn imds(raw: raw::Imds) -> Result<Imds, ConfigError> {
    http::authority(&raw.endpoint).map_err(|error| ConfigError::at("imds.endpoint", error.to_string()))?;
    if !(1..=64).contains(&raw.hops) {
        return Err(ConfigError::at(
            "imds.hops",
            format!("{} is out of bounds: 1 to 64 is right", raw.hops),
        ));
    }
    Ok(Imds {
        endpoint: raw.endpoint,
        hops: raw.hops,
    })
}

fn secrets(raw: raw::Secrets) -> Result<Secrets, ConfigError> {
    for (path, name) in [
        ("secrets.join_token", &raw.join_token),
        ("secrets.server", &raw.server),
    ] {
        // Secrets Manager's characters; with a folder it is a path below it.
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-:".contains(&byte);
        if name.is_empty() || !name.bytes().all(sound) || name.split('/').any(|part| part == "..") {
            return Err(ConfigError::at(
                path,
                format!("`{name}` is not the name of a secret"),
            ));
        }
    }
    let empty = |text: &Option<String>| text.as_deref() == Some("");
    for (path, text) in [
        ("secrets.region", &raw.region),
        ("secrets.endpoint", &raw.endpoint),
    ] {
        if empty(text) {
            return Err(ConfigError::at(
                path,
                "it is empty: leave the key out for the default",
            ));
        }
    }
    if let Some(folder) = &raw.folder {
        absolute("secrets.folder", folder)?;
    }
    Ok(Secrets {
        join_token: raw.join_token,
        server: raw.server,
        region: raw.region,
        endpoint: raw.endpoint,
        folder: raw.folder,
    })
}

fn k3s(raw: raw::K3s) -> Result<K3s, ConfigError> {
    for (path, file) in [
        ("k3s.config_dir", &raw.config_dir),
        ("k3s.data_dir", &raw.data_dir),
        ("k3s.kubeconfig", &raw.kubeconfig),
        ("k3s.runtime_socket", &raw.runtime_socket),
    ] {
        absolute(path, file)?;
    }
    http::authority(&raw.healthz).map_err(|error| ConfigError::at("k3s.healthz", error.to_string()))?;
    if raw.unit.is_empty() || raw.unit.starts_with('-') {
        return Err(ConfigError::at(
            "k3s.unit",
            format!("`{}` is not a unit: k3s-agent.service is", raw.unit),
        ));
    }
    let mut labels = Vec::new();
    for (key, value) in &raw.labels {
        let bad = |message: &str| ConfigError::at(format!("k3s.labels.{key}"), message);
        if key.contains("node-role.kubernetes.io") || key.starts_with("smartscale.io/") {
            return Err(bad(
                "a kubelet may not set this label, or SmartScale sets it itself",
            ));
        }
        if key.contains(['=', '\n']) || value.contains(['=', '\n']) {
            return Err(bad("it is no label"));
        }
        labels.push(format!("{key}={value}"));
    }
    Ok(K3s {
        config_dir: raw.config_dir,
        data_dir: raw.data_dir,
        kubeconfig: raw.kubeconfig,
        unit: raw.unit,
        systemctl: raw.systemctl,
        healthz: raw.healthz,
        runtime_socket: raw.runtime_socket,
        labels,
    })
}

fn health(raw: &raw::Health) -> Result<Health, ConfigError> {
    const LEAST: Duration = Duration::from_millis(200);
    const MOST: Duration = Duration::from_secs(600);
    let changing = within("health.changing_interval", raw.changing_interval, LEAST, MOST)?;
    let quiet = within("health.quiet_interval", raw.quiet_interval, LEAST, MOST)?;
    if quiet < changing {
        let message = format!("{quiet:?} is shorter than health.changing_interval ({changing:?})");
        return Err(ConfigError::at("health.quiet_interval", message));
    }
    Ok(Health {
        changing,
        quiet,
        services: within("health.services_interval", raw.services_interval, LEAST, MOST)?,
        pods: within("health.pods_interval", raw.pods_interval, LEAST, MOST)?,
    })
}

fn drain(raw: &raw::Drain) -> Result<Drain, ConfigError> {
    const SECOND: Duration = Duration::from_secs(1);
    const DAY: Duration = Duration::from_secs(86_400);
    let two_minutes = Duration::from_secs(120);
    let force_grace = within(
        "drain.force_grace",
        raw.force_grace,
        SECOND,
        Duration::from_secs(3600),
    )?;
    Ok(Drain {
        timeout: within("drain.timeout", raw.timeout, SECOND, DAY)?,
        on_timeout: raw.on_timeout,
        spot_deadline: within("drain.spot.deadline", raw.spot.deadline, SECOND, two_minutes)?,
        spot_on_timeout: raw.spot.on_timeout,
        spot_reserve: within("drain.spot.reserve", raw.spot.reserve, SECOND, two_minutes)?,
        settings: drain::Settings {
            force_grace,
            ..drain::Settings::default()
        },
    })
}

#[cfg(test)]
mod tests;
