//! The configuration as people write it: TOML, every key optional that has a default, unknown keys refused.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de::Error as _};
use smartscale_planner::model::Market;

use crate::drain::{LocalStorage, OnTimeout};

/// A duration as `90s`, `5m` or `1h30m`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        smartscale_planner::duration::parse(&text)
            .map(Span)
            .map_err(D::Error::custom)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) coordinators: Vec<String>,
    pub(super) trust_domain: String,
    pub(super) cluster: String,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) ca_fingerprint: Option<String>,
    #[serde(default = "state_dir")]
    pub(super) state_dir: PathBuf,
    #[serde(default = "run_dir")]
    pub(super) run_dir: PathBuf,
    #[serde(default)]
    pub(super) attestor: Attestor,
    #[serde(default)]
    pub(super) imds: Imds,
    pub(super) machine: Option<Machine>,
    #[serde(default)]
    pub(super) secrets: Secrets,
    #[serde(default)]
    pub(super) k3s: K3s,
    #[serde(default)]
    pub(super) health: Health,
    #[serde(default)]
    pub(super) notices: Notices,
    #[serde(default)]
    pub(super) drain: Drain,
    #[serde(default)]
    pub(super) metrics: Metrics,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Metrics {
    pub(super) listen: Option<SocketAddr>,
}

fn state_dir() -> PathBuf {
    "/var/lib/smartscale".into()
}

fn run_dir() -> PathBuf {
    "/run/smartscale".into()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum AttestorKind {
    #[default]
    Token,
    Ec2,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Credentials {
    #[default]
    Identity,
    Profile,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Attestor {
    pub(super) kind: AttestorKind,
    pub(super) token_file: PathBuf,
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
#[serde(deny_unknown_fields, default)]
pub(super) struct Imds {
    pub(super) endpoint: String,
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
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) instance_type: String,
    pub(super) zone: String,
    #[serde(default = "on_demand")]
    pub(super) market: Market,
    pub(super) ip: IpAddr,
    pub(super) provider_id: Option<String>,
}

fn on_demand() -> Market {
    Market::OnDemand
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Secrets {
    pub(super) join_token: String,
    pub(super) server: String,
    pub(super) region: Option<String>,
    pub(super) endpoint: Option<String>,
    pub(super) folder: Option<PathBuf>,
    pub(super) from: SecretsFrom,
}

/// Who gives the secrets of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum SecretsFrom {
    /// Secrets Manager, or the folder.
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
#[serde(deny_unknown_fields, default)]
pub(super) struct K3s {
    pub(super) config_dir: PathBuf,
    pub(super) data_dir: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) unit: String,
    pub(super) systemctl: PathBuf,
    pub(super) journalctl: PathBuf,
    pub(super) healthz: String,
    pub(super) runtime_socket: PathBuf,
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
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    pub(super) proc: PathBuf,
    pub(super) changing_interval: Span,
    pub(super) quiet_interval: Span,
    pub(super) services_interval: Span,
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
#[serde(deny_unknown_fields, default)]
pub(super) struct Notices {
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
#[serde(deny_unknown_fields, default)]
pub(super) struct Drain {
    pub(super) timeout: Span,
    pub(super) on_timeout: OnTimeout,
    pub(super) local_storage: LocalStorage,
    pub(super) force_grace: Span,
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
#[serde(deny_unknown_fields, default)]
pub(super) struct Spot {
    pub(super) deadline: Span,
    pub(super) on_timeout: OnTimeout,
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
