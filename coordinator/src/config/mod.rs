//! Configuration: the file as written (`raw`) becomes a [`Config`] in which everything holds, before any I/O but
//! reading files. An error names the key's path and what would be right.

mod cloudwatch;
mod fleet;
mod notify;
mod raw;

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use smartscale_planner::duration;
use smartscale_proto::identity::Segment;

pub use self::fleet::{Fleet, FleetPool};
pub use self::notify::{Bounds, Notify, Slack, Sns, SnsFormat, Webhook};
use crate::{ids::CoordinatorName, observe::market, policy::Origin};

/// The commented configuration that `init` writes; `@…@` are filled in.
pub const TEMPLATE: &str = include_str!("coordinator.toml");

/// Whether the coordinator acts on what it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It records what it would do.
    Observe,
    /// It does it.
    Act,
}

impl Mode {
    /// The word in the configuration and in records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observe => "observe",
            Self::Act => "act",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A file on this machine.
    Sqlite(PathBuf),
    /// A DynamoDB table of this name.
    DynamoDb(String),
}

/// How machines prove themselves at their enrolment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attestor {
    /// By a one-time secret of their launch.
    Token,
    /// By a request to STS that they signed with their own credentials.
    Ec2 {
        /// The role of the workers' instance profile, whose sessions are accepted beside EC2's identity role.
        role: Option<String>,
        /// A machine that was launched longer ago enrols no first key.
        oldest: Duration,
    },
}

/// The lease's times. `renewal` is below `length` less `margin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long it lasts from a renewal.
    pub length: Duration,
    /// How often it is renewed.
    pub renewal: Duration,
    /// The holder stops acting so long before it lapses.
    pub margin: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self {
            length: Duration::from_secs(15),
            renewal: Duration::from_secs(5),
            margin: Duration::from_secs(3),
        }
    }
}

/// How Prometheus is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prometheus {
    /// Its base URL, http or https.
    pub url: String,
    /// How often it is asked.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// A file with a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// PromQL for the cluster's CPU in percent; `None` here and below: the default of the source.
    pub cpu: Option<String>,
    /// PromQL for the cluster's memory in percent.
    pub memory: Option<String>,
    /// PromQL for each node's CPU in percent.
    pub node_cpu: Option<String>,
    /// PromQL for each node's memory in percent.
    pub node_memory: Option<String>,
    /// The label that carries the node's name.
    pub node_label: Option<String>,
}

/// Where SQLite's file is unless the configuration in `folder` says: beside it, but state does not belong below `/etc`, which
/// the packaged unit cannot write (FHS 3.0, 3.7 and 5.8).
fn default_state(folder: &Path) -> PathBuf {
    if folder.starts_with("/etc") {
        "/var/lib/smartscale/state.db".into()
    } else {
        folder.join("state.db")
    }
}

/// Times that are nobody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A decision at least so often.
    pub period: Duration,
    /// A node that is not Ready by then is replaced.
    pub ready: Duration,
    /// A drain whose agent is silent for so long goes on through the API.
    pub agent_silent: Duration,
    /// An instance with our tag that nobody knows is terminated after this.
    pub orphan_grace: Duration,
    /// Volumes have so long to leave a drained node.
    pub detach: Duration,
    /// Before a drain pods are handed over for so long at most; `None`: not at all.
    pub hand_over: Option<Duration>,
    /// A machine that is silent and not Ready for so long is replaced.
    pub sick: Duration,
    /// A burst of pending pods is over when none came for so long,
    pub batch_idle: Duration,
    /// at the latest after this.
    pub batch_most: Duration,
    /// The instances are listed so often.
    pub fleet: Duration,
    /// Open streams have so long to end at shutdown.
    pub shutdown: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(10),
            ready: Duration::from_secs(300),
            agent_silent: Duration::from_secs(60),
            orphan_grace: Duration::from_secs(600),
            detach: Duration::from_secs(120),
            hand_over: None,
            sick: Duration::from_secs(300),
            batch_idle: Duration::from_millis(500),
            batch_most: Duration::from_secs(5),
            fleet: Duration::from_secs(30),
            shutdown: Duration::from_secs(20),
        }
    }
}

/// A configuration in which everything holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// This coordinator.
    pub name: CoordinatorName,
    /// Whether it acts.
    pub mode: Mode,
    /// Where the policy comes from.
    pub policy: Origin,
    /// Where agents, people and the other coordinators are served.
    pub listen: SocketAddr,
    /// How they reach this one, `host:port`.
    pub advertise: String,
    /// The other coordinators.
    pub peers: BTreeMap<CoordinatorName, String>,
    /// Where metrics and probes are served; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The trust domain.
    pub trust: Segment,
    /// The CA's certificate.
    pub ca_certificate: PathBuf,
    /// The CA's key.
    pub ca_key: PathBuf,
    /// Life of agents' certificates, 1 to 24 h.
    pub certificate_life: Duration,
    /// Where state is kept.
    pub store: Store,
    /// The lease.
    pub lease: LeaseTimes,
    /// The kubeconfig; `None`: the usual places.
    pub kubeconfig: Option<PathBuf>,
    /// Prometheus; `None`: utilisation comes from the agents alone.
    pub prometheus: Option<Prometheus>,
    /// AWS region; `None`: the SDK's usual chain.
    pub region: Option<String>,
    /// How often AWS is asked for types and prices; `None`: those of the policy and the built-in catalogue hold.
    pub market: Option<market::Settings>,
    /// Where machines come from.
    pub fleet: Fleet,
    /// How machines prove themselves.
    pub attestor: Attestor,
    /// Where launch secrets are put for the fleet to hand over.
    pub secret_dir: PathBuf,
    /// Life of a launch secret.
    pub secret_life: Duration,
    /// The K3s server that machines are told to join with tokens of their own; `None`: their image knows both.
    pub join_server: Option<String>,
    /// URL of the SQS queue of EC2's notices; `None`: they come from the agents alone.
    pub notices_queue: Option<String>,
    /// Who is told of what happens.
    pub notify: Notify,
    /// CloudWatch namespace and period; `None`: off.
    pub cloudwatch: Option<(String, Duration)>,
    /// The group of CloudWatch Logs that decisions go to; `None`: none.
    pub log_group: Option<String>,
    /// Times that are nobody else's.
    pub timing: Timing,
}

impl Config {
    /// Whether anything but the seal of the authority's key is AWS'.
    #[must_use]
    pub fn needs_aws(&self) -> bool {
        self.fleet.is_ec2()
            || matches!(self.store, Store::DynamoDb(_))
            || self.market.is_some()
            || self.notify.sns.is_some()
            || self.cloudwatch.is_some()
            || self.log_group.is_some()
    }
}

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {path}: {message}")]
pub struct ConfigError {
    /// The file.
    pub file: String,
    /// The key's path in it; `.` for the file as a whole.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

struct Reader<'a> {
    file: &'a Path,
}

impl Reader<'_> {
    fn error(&self, path: &str, message: impl Into<String>) -> ConfigError {
        ConfigError {
            file: self.file.display().to_string(),
            path: path.to_owned(),
            message: message.into(),
        }
    }

    fn duration(
        &self,
        path: &str,
        text: Option<&String>,
        default: Duration,
    ) -> Result<Duration, ConfigError> {
        let Some(text) = text else { return Ok(default) };
        let parsed = duration::parse(text).map_err(|error| self.error(path, error.to_string()))?;
        if parsed.is_zero() {
            return Err(self.error(path, "must be above zero"));
        }
        Ok(parsed)
    }

    fn socket(&self, path: &str, text: &str) -> Result<SocketAddr, ConfigError> {
        text.parse().map_err(|_| {
            self.error(
                path,
                format!("`{text}` is not an address to listen at: for example 0.0.0.0:7443 is"),
            )
        })
    }

    fn endpoint(&self, path: &str, text: &str) -> Result<String, ConfigError> {
        let sound = text
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        if sound {
            Ok(text.to_owned())
        } else {
            Err(self.error(
                path,
                format!("`{text}` is not host:port, for example 10.0.0.10:7443"),
            ))
        }
    }

    fn one_of<T: Copy>(&self, path: &str, text: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        choices
            .iter()
            .find(|(word, _)| *word == text)
            .map(|(_, value)| *value)
            .ok_or_else(|| {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.error(path, format!("`{text}` is not one of {}", words.join(", ")))
            })
    }
}

/// Reads and checks the file at `path`. Relative paths in it are relative to its folder.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = read(path)?;
    parse(path, &text)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        file: path.display().to_string(),
        path: ".".to_owned(),
        message: format!("cannot be read: {error}"),
    })
}

/// Checks the text of a configuration; `file` names it and gives the folder of relative paths.
///
/// # Errors
/// [`ConfigError`] for the first thing that is wrong.
pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
    let reader = Reader { file };
    let document = toml::Deserializer::parse(text).map_err(|error| reader.error(".", error.to_string()))?;
    let raw: raw::Raw = serde_path_to_error::deserialize(document)
        .map_err(|error| reader.error(&error.path().to_string(), error.inner().message().to_owned()))?;
    reader.validate(raw)
}

impl Reader<'_> {
    fn validate(&self, raw: raw::Raw) -> Result<Config, ConfigError> {
        let folder = self.file.parent().unwrap_or_else(|| Path::new("."));
        let at = |path: Option<PathBuf>, default: &str| folder.join(path.unwrap_or_else(|| default.into()));
        let lease = self.lease(&raw.lease)?;
        let timing = self.timing(&raw)?;
        let fleet = self.fleet(&raw)?;
        let name = raw.name.unwrap_or_else(host_name);
        let hour = Duration::from_secs(3600);
        let certificate_life = self.duration(
            "trust.certificate_life",
            raw.trust.certificate_life.as_ref(),
            12 * hour,
        )?;
        if !(hour..=24 * hour).contains(&certificate_life) {
            return Err(self.error("trust.certificate_life", "must lie between 1h and 24h"));
        }
        let attestor = self.attestor(&raw.enrolment, raw.aws.region.as_deref())?;
        let store = self.store(raw.store, folder)?;
        let peers = raw
            .serve
            .peers
            .iter()
            .map(|(peer, endpoint)| {
                let path = format!("serve.peers.{peer}");
                let name = peer
                    .parse()
                    .map_err(|error| self.error(&path, format!("{error}")))?;
                Ok((name, self.endpoint(&path, endpoint)?))
            })
            .collect::<Result<_, ConfigError>>()?;
        let http = match raw.http.listen.as_deref() {
            Some("") => None,
            Some(listen) => Some(self.socket("http.listen", listen)?),
            None => Some(self.socket("http.listen", "127.0.0.1:9810")?),
        };
        Ok(Config {
            name: name
                .parse()
                .map_err(|error| self.error("name", format!("{error}")))?,
            mode: self.one_of(
                "mode",
                &raw.mode,
                &[("observe", Mode::Observe), ("act", Mode::Act)],
            )?,
            policy: self.policy(raw.policy, folder)?,
            listen: self.socket("serve.listen", &raw.serve.listen)?,
            advertise: self.endpoint("serve.advertise", &raw.serve.advertise)?,
            peers,
            http,
            trust: raw
                .trust
                .domain
                .unwrap_or_else(|| "smartscale".to_owned())
                .parse()
                .map_err(|error| self.error("trust.domain", format!("{error}")))?,
            ca_certificate: at(raw.trust.ca_certificate, "ca.crt"),
            ca_key: at(raw.trust.ca_key, "ca.key"),
            certificate_life,
            store,
            lease,
            kubeconfig: raw.kubernetes.kubeconfig.map(|path| folder.join(path)),
            prometheus: raw
                .prometheus
                .map(|prometheus| self.prometheus(prometheus, folder))
                .transpose()?,
            region: raw.aws.region,
            market: self.market(&raw.market, if fleet.is_ec2() { "aws" } else { "none" })?,
            fleet,
            attestor,
            secret_dir: at(raw.enrolment.secret_dir, "/run/smartscale/secrets"),
            secret_life: self.duration(
                "enrolment.secret_life",
                raw.enrolment.secret_life.as_ref(),
                Duration::from_secs(900),
            )?,
            join_server: self.join_server(&raw.join)?,
            notices_queue: self.queue_url(raw.notices.queue_url)?,
            notify: self.notify(raw.notify, folder)?,
            cloudwatch: self.cloudwatch(&raw.cloudwatch)?,
            log_group: self.log_group(&raw.cloudwatch)?,
            timing,
        })
    }

    fn policy(&self, raw: raw::RawPolicy, folder: &Path) -> Result<Origin, ConfigError> {
        match raw {
            raw::RawPolicy::File(path) => Ok(Origin::File(folder.join(path))),
            raw::RawPolicy::Kubernetes(raw::RawPolicyMap { config_map }) => config_map
                .parse()
                .map(Origin::ConfigMap)
                .map_err(|error| self.error("policy.config_map", format!("{error}"))),
        }
    }

    fn attestor(&self, raw: &raw::RawEnrolment, region: Option<&str>) -> Result<Attestor, ConfigError> {
        const KINDS: [(&str, bool); 2] = [("token", false), ("ec2", true)];
        let kind = raw.attestor.as_deref().unwrap_or("token");
        if !self.one_of("enrolment.attestor", kind, &KINDS)? {
            for (path, set) in [
                ("enrolment.role", raw.role.is_some()),
                ("enrolment.oldest", raw.oldest.is_some()),
            ] {
                if set {
                    return Err(self.error(path, "is only for attestor = \"ec2\""));
                }
            }
            return Ok(Attestor::Token);
        }
        // STS is asked at our region's endpoint alone, so that the region has to be said here.
        let region = region.unwrap_or_default();
        if smartscale_proto::attestation::sts_host(region).is_none() {
            return Err(self.error(
                "aws.region",
                "attestor = \"ec2\" needs a region, for example us-east-1",
            ));
        }
        if let Some(role) = &raw.role {
            // IAM's characters for a role's name; a colon is in none but EC2's own.
            let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"+=,.@-_".contains(&byte);
            if role.is_empty() || role.len() > 64 || !role.bytes().all(sound) {
                return Err(self.error(
                    "enrolment.role",
                    format!("`{role}` is not the name of a role (without path and account)"),
                ));
            }
        }
        let hour = Duration::from_secs(3600);
        Ok(Attestor::Ec2 {
            role: raw.role.clone(),
            oldest: self.duration("enrolment.oldest", raw.oldest.as_ref(), hour)?,
        })
    }

    fn join_server(&self, raw: &raw::RawJoin) -> Result<Option<String>, ConfigError> {
        let kinds = [("shared", false), ("minted", true)];
        let minted = self.one_of("join.tokens", raw.tokens.as_deref().unwrap_or("shared"), &kinds)?;
        match &raw.server {
            Some(server) if !server.starts_with("https://") => Err(self.error(
                "join.server",
                format!("`{server}` is not the URL of a K3s server, for example https://10.0.0.10:6443"),
            )),
            None if minted => Err(self.error(
                "join.server",
                "machines that join with minted tokens are told the K3s server too: for example https://10.0.0.10:6443",
            )),
            Some(_) if !minted => Err(self.error(
                "join.server",
                "is only said to machines that join with tokens = \"minted\": the others find it beside the shared token",
            )),
            server => Ok(server.clone()),
        }
    }

    fn queue_url(&self, url: Option<String>) -> Result<Option<String>, ConfigError> {
        let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
        match url {
            Some(url) if !is_url(&url) => Err(self.error(
                "notices.queue_url",
                format!(
                    "`{url}` is not the URL of a queue, for example https://sqs.us-east-1.amazonaws.com/123456789012/smartscale-notices"
                ),
            )),
            url => Ok(url),
        }
    }

    fn market(
        &self,
        raw: &raw::RawMarket,
        default_kind: &str,
    ) -> Result<Option<market::Settings>, ConfigError> {
        let default = market::Settings::default();
        let settings = market::Settings {
            catalogue: self.duration("market.catalogue", raw.catalogue.as_ref(), default.catalogue)?,
            spot: self.duration("market.spot", raw.spot.as_ref(), default.spot)?,
            stale: self.duration("market.stale", raw.stale.as_ref(), default.stale)?,
            ..default
        };
        if settings.stale < settings.spot {
            return Err(self.error("market.stale", "must not be below market.spot"));
        }
        let kind = raw.kind.as_deref().unwrap_or(default_kind);
        self.one_of("market.kind", kind, &[("aws", Some(settings)), ("none", None)])
    }

    fn lease(&self, raw: &raw::RawLease) -> Result<LeaseTimes, ConfigError> {
        let default = LeaseTimes::default();
        let lease = LeaseTimes {
            length: self.duration("lease.length", raw.length.as_ref(), default.length)?,
            renewal: self.duration("lease.renewal", raw.renewal.as_ref(), default.renewal)?,
            margin: self.duration("lease.margin", raw.margin.as_ref(), default.margin)?,
        };
        if lease.renewal + lease.margin >= lease.length {
            return Err(self.error(
                "lease.renewal",
                "renewal and margin together must be below lease.length",
            ));
        }
        Ok(lease)
    }

    fn store(&self, raw: raw::RawStore, folder: &Path) -> Result<Store, ConfigError> {
        match (raw.kind.as_deref().unwrap_or("sqlite"), raw.path, raw.table) {
            ("sqlite", path, None) => Ok(Store::Sqlite(
                path.map_or_else(|| default_state(folder), |path| folder.join(path)),
            )),
            ("sqlite", _, Some(_)) => Err(self.error("store.table", "is only for kind = \"dynamodb\"")),
            ("dynamodb", None, table) => {
                Ok(Store::DynamoDb(table.unwrap_or_else(|| "smartscale".to_owned())))
            }
            ("dynamodb", Some(_), _) => Err(self.error("store.path", "is only for kind = \"sqlite\"")),
            (other, ..) => Err(self.error("store.kind", format!("`{other}` is not one of sqlite, dynamodb"))),
        }
    }

    fn prometheus(&self, raw: raw::RawPrometheus, folder: &Path) -> Result<Prometheus, ConfigError> {
        if !raw.url.starts_with("http://") && !raw.url.starts_with("https://") {
            return Err(self.error("prometheus.url", "must begin with http:// or https://"));
        }
        Ok(Prometheus {
            url: raw.url.trim_end_matches('/').to_owned(),
            period: self.duration("prometheus.period", raw.period.as_ref(), Duration::from_secs(15))?,
            timeout: self.duration("prometheus.timeout", raw.timeout.as_ref(), Duration::from_secs(5))?,
            bearer_token_file: raw.bearer_token_file.map(|path| folder.join(path)),
            cpu: raw.queries.cpu,
            memory: raw.queries.memory,
            node_cpu: raw.queries.node_cpu,
            node_memory: raw.queries.node_memory,
            node_label: raw.queries.node_label,
        })
    }

    fn timing(&self, whole: &raw::Raw) -> Result<Timing, ConfigError> {
        let raw = &whole.timing;
        let default = Timing::default();
        let timing = Timing {
            period: self.duration("period", whole.period.as_ref(), default.period)?,
            ready: self.duration("timing.ready", raw.ready.as_ref(), default.ready)?,
            agent_silent: self.duration(
                "timing.agent_silent",
                raw.agent_silent.as_ref(),
                default.agent_silent,
            )?,
            orphan_grace: self.duration(
                "timing.orphan_grace",
                raw.orphan_grace.as_ref(),
                default.orphan_grace,
            )?,
            detach: self.duration("timing.detach", raw.detach.as_ref(), default.detach)?,
            hand_over: raw
                .hand_over
                .as_ref()
                .map(|text| self.duration("timing.hand_over", Some(text), Duration::ZERO))
                .transpose()?,
            sick: self.duration("timing.sick", raw.sick.as_ref(), default.sick)?,
            batch_idle: self.duration("timing.batch_idle", raw.batch_idle.as_ref(), default.batch_idle)?,
            batch_most: self.duration("timing.batch_most", raw.batch_most.as_ref(), default.batch_most)?,
            fleet: self.duration("fleet.period", whole.fleet.period.as_ref(), default.fleet)?,
            shutdown: self.duration("serve.shutdown", whole.serve.shutdown.as_ref(), default.shutdown)?,
        };
        if timing.batch_idle > timing.batch_most {
            return Err(self.error("timing.batch_idle", "must not be above timing.batch_most"));
        }
        Ok(timing)
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
