//! The configuration as people write it: TOML, every key optional that has a default, unknown keys refused.
//!
//! `docs/reference/agent.md` is made from this file: its doc comments, types and defaults.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use smartscale_planner::model::Market;

use crate::drain::{LocalStorage, OnTimeout};

/// `host:port`.
type Endpoint = String;

/// A duration as `90s`, `5m` or `1h30m`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

#[cfg(test)]
impl serde::Serialize for Span {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(span) = *self;
        let (whole, unit) = match span.as_millis() {
            0 => (0, "s"),
            hours if hours % 3_600_000 == 0 => (hours / 3_600_000, "h"),
            minutes if minutes % 60_000 == 0 => (minutes / 60_000, "m"),
            seconds if seconds % 1000 == 0 => (seconds / 1000, "s"),
            millis => (millis, "ms"),
        };
        serializer.collect_str(&format_args!("{whole}{unit}"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        smartscale_planner::duration::parse(&text)
            .map(Span)
            .map_err(D::Error::custom)
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Coordinators, in the order in which they are tried.
    pub(super) coordinators: Vec<Endpoint>,
    /// The trust domain of the coordinators' certificates.
    pub(super) trust_domain: String,
    /// The cluster's id.
    pub(super) cluster: String,
    /// The certificate authority's certificate, as PEM; two where another authority follows. Either this or
    /// `ca_fingerprint`.
    pub(super) ca_file: Option<PathBuf>,
    /// Its fingerprint, `sha256:…`, as `smartscale-coordinator init` prints it; two, separated by a comma, where
    /// another authority follows. Either this or `ca_file`.
    pub(super) ca_fingerprint: Option<String>,
    /// What survives a reboot: key, certificate, a drain that is under way.
    #[serde(default = "state_dir")]
    pub(super) state_dir: PathBuf,
    /// What does not: the join token.
    #[serde(default = "run_dir")]
    pub(super) run_dir: PathBuf,
    /// How this machine proves itself when it enrols.
    #[serde(default)]
    pub(super) attestor: Attestor,
    /// The instance metadata service.
    #[serde(default)]
    pub(super) imds: Imds,
    /// What IMDS would say, for a machine that has none.
    pub(super) machine: Option<Machine>,
    /// The secrets of the join.
    #[serde(default)]
    pub(super) secrets: Secrets,
    /// Where K3s is.
    #[serde(default)]
    pub(super) k3s: K3s,
    /// What is reported, and how often.
    #[serde(default)]
    pub(super) health: Health,
    /// EC2's notices by IMDS.
    #[serde(default)]
    pub(super) notices: Notices,
    /// Drains that nobody commands, until a coordinator has said its policy's terms. These are kept on disk and then
    /// count.
    #[serde(default)]
    pub(super) drain: Drain,
    /// Health for Prometheus.
    #[serde(default)]
    pub(super) metrics: Metrics,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Metrics {
    /// Where it is served, on loopback. Without it: nowhere.
    pub(super) listen: Option<SocketAddr>,
}

fn state_dir() -> PathBuf {
    "/var/lib/smartscale".into()
}

fn run_dir() -> PathBuf {
    "/run/smartscale".into()
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum AttestorKind {
    /// By a one-time secret of its launch.
    #[default]
    Token,
    /// By a request to AWS STS that it signs.
    Ec2,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "lowercase")]
pub(super) enum Credentials {
    /// Those of EC2's instance identity role.
    #[default]
    Identity,
    /// Those of the role of the instance profile.
    Profile,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Attestor {
    /// The way.
    pub(super) kind: AttestorKind,
    /// `token`: the file with the one-time secret.
    pub(super) token_file: PathBuf,
    /// `ec2`: whose credentials sign.
    pub(super) credentials: Credentials,
}

impl Default for Attestor {
    fn default() -> Self {
        Self {
            kind: AttestorKind::default(),
            token_file: "/etc/smartscale/enrolment-token".into(),
            credentials: Credentials::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Imds {
    /// Where it is.
    pub(super) endpoint: String,
    /// Routers that an answer may pass.
    pub(super) hops: u32,
}

impl Default for Imds {
    fn default() -> Self {
        Self {
            endpoint: "http://169.254.169.254".into(),
            hops: 1,
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    /// Its id, which is its node's name.
    pub(super) id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub(super) instance_type: String,
    /// Its zone.
    pub(super) zone: String,
    /// How it is paid for.
    #[serde(default = "on_demand")]
    pub(super) market: Market,
    /// The address of its node.
    pub(super) ip: IpAddr,
    /// The node's provider id. Without it: the one that K3s gives.
    pub(super) provider_id: Option<String>,
}

fn on_demand() -> Market {
    Market::OnDemand
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Secrets {
    /// Name of the secret with K3s' agent token.
    pub(super) join_token: String,
    /// Name of the secret with the K3s server's address.
    pub(super) server: String,
    /// Region of Secrets Manager. Without it: the machine's.
    pub(super) region: Option<String>,
    /// Another endpoint of Secrets Manager. Without it: AWS' own.
    pub(super) endpoint: Option<String>,
    /// A folder of files, named after the secrets, in place of Secrets Manager. Without it: that.
    pub(super) folder: Option<PathBuf>,
    /// Who gives them.
    pub(super) from: SecretsFrom,
}

/// Who gives the secrets of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(rename_all = "kebab-case")]
pub(super) enum SecretsFrom {
    /// AWS' Secrets Manager, or the folder.
    #[default]
    Store,
    /// The coordinator, with each enrolment and session.
    Coordinator,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            join_token: "k3s/join-token".into(),
            server: "k3s/master-ip".into(),
            region: None,
            endpoint: None,
            folder: None,
            from: SecretsFrom::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct K3s {
    /// Folder of its drop-ins.
    pub(super) config_dir: PathBuf,
    /// Its data, whose file system is measured.
    pub(super) data_dir: PathBuf,
    /// The kubelet's kubeconfig.
    pub(super) kubeconfig: PathBuf,
    /// Its unit.
    pub(super) unit: String,
    /// The program that starts and stops units.
    pub(super) systemctl: PathBuf,
    /// The program that shows what they wrote.
    pub(super) journalctl: PathBuf,
    /// The kubelet's health endpoint.
    pub(super) healthz: String,
    /// The container runtime's socket.
    pub(super) runtime_socket: PathBuf,
    /// Further labels of the node.
    pub(super) labels: BTreeMap<String, String>,
}

impl Default for K3s {
    fn default() -> Self {
        Self {
            config_dir: "/etc/rancher/k3s/config.yaml.d".into(),
            data_dir: "/var/lib/rancher/k3s".into(),
            kubeconfig: "/var/lib/rancher/k3s/agent/kubelet.kubeconfig".into(),
            unit: "k3s-agent.service".into(),
            systemctl: "systemctl".into(),
            journalctl: "journalctl".into(),
            healthz: "http://127.0.0.1:10248/healthz".into(),
            runtime_socket: "/run/k3s/containerd/containerd.sock".into(),
            labels: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    /// The kernel's `/proc`.
    pub(super) proc: PathBuf,
    /// Reports while figures change, until the coordinator says otherwise.
    pub(super) changing_interval: Span,
    /// Reports while they do not.
    pub(super) quiet_interval: Span,
    /// Asking systemd, the kubelet and the runtime.
    pub(super) services_interval: Span,
    /// Counting pods.
    pub(super) pods_interval: Span,
}

impl Default for Health {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            proc: "/proc".into(),
            changing_interval: seconds(1),
            quiet_interval: seconds(5),
            services_interval: seconds(10),
            pods_interval: seconds(10),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Notices {
    /// IMDS is asked so often; 200ms to 60s.
    pub(super) interval: Span,
}

impl Default for Notices {
    fn default() -> Self {
        Self {
            interval: Span(Duration::from_secs(1)),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    /// Time for the whole drain.
    pub(super) timeout: Span,
    /// What happens at its end.
    pub(super) on_timeout: OnTimeout,
    /// What is done about pods whose data lies on the node.
    pub(super) local_storage: LocalStorage,
    /// The longest grace of a pod that is deleted at the end.
    pub(super) force_grace: Span,
    /// Drains of a machine that EC2 takes back.
    pub(super) spot: Spot,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: Span(Duration::from_secs(300)),
            on_timeout: OnTimeout::Abort,
            local_storage: LocalStorage::default(),
            force_grace: Span(Duration::from_secs(30)),
            spot: Spot::default(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
pub(super) struct Spot {
    /// Time for the drain, of the two minutes that EC2 gives.
    pub(super) deadline: Span,
    /// What happens at its end.
    pub(super) on_timeout: OnTimeout,
    /// So much of EC2's two minutes is left for the end of the machine.
    pub(super) reserve: Span,
}

impl Default for Spot {
    fn default() -> Self {
        Self {
            deadline: Span(Duration::from_secs(90)),
            on_timeout: OnTimeout::Force,
            reserve: Span(Duration::from_secs(25)),
        }
    }
}

#[cfg(test)]
mod reference;
