//! The configuration file as it is written. Unknown keys fail; nothing is judged here but the form.
//!
//! `docs/reference/coordinator.md` is made from this file's types and doc comments; the defaults are those of the template
//! (`coordinator.toml`) that change nothing.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// A duration, as text: `90s`, `5m`, `1h30m`.
type Span = String;
/// An address and a port to listen at, as text.
type Address = String;
/// `host:port`.
type Endpoint = String;

/// `coordinator.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    /// Its name: unique among the coordinators of a cluster. Without it: the host's name.
    pub(super) name: Option<String>,
    /// `observe`: it records what it would do. `act`: it does it.
    pub(super) mode: String,
    /// The policy: a path, relative to this file, or `{ config_map = "NAMESPACE/NAME" }`, whose key `policy.toml` is
    /// watched.
    pub(super) policy: RawPolicy,
    /// A decision is taken at least so often; for a pod that waits one is taken at once.
    pub(super) period: Option<Span>,
    /// Where agents, people and other coordinators are served.
    pub(super) serve: RawServe,
    /// Metrics and probes: `/metrics`, `/healthz`, `/readyz`.
    #[serde(default)]
    pub(super) http: RawHttp,
    /// The certificate authority. Paths are relative to this file.
    #[serde(default)]
    pub(super) trust: RawTrust,
    /// Where state is kept.
    #[serde(default)]
    pub(super) store: RawStore,
    /// The lease by which one coordinator leads. `renewal` and `margin` together are below `length`.
    #[serde(default)]
    pub(super) lease: RawLease,
    /// The way into the cluster.
    #[serde(default)]
    pub(super) kubernetes: RawKubernetes,
    /// Prometheus. Without this table utilisation comes from the agents alone.
    pub(super) prometheus: Option<RawPrometheus>,
    /// AWS.
    #[serde(default)]
    pub(super) aws: RawAws,
    /// How machines are launched.
    pub(super) fleet: RawFleet,
    /// Types and prices of what the policy does not describe.
    #[serde(default)]
    pub(super) market: RawMarket,
    /// How machines prove themselves.
    #[serde(default)]
    pub(super) enrolment: RawEnrolment,
    /// How machines join K3s.
    #[serde(default)]
    pub(super) join: RawJoin,
    /// What EC2 announces.
    #[serde(default)]
    pub(super) notices: RawNotices,
    /// Who is told.
    #[serde(default)]
    pub(super) notify: RawNotify,
    /// Metrics and decisions to CloudWatch.
    #[serde(default)]
    pub(super) cloudwatch: RawCloudwatch,
    /// Times that are nobody else's.
    #[serde(default)]
    pub(super) timing: RawTiming,
}

/// A path, or a table that names a ConfigMap.
#[derive(Debug)]
pub(super) enum RawPolicy {
    File(PathBuf),
    Kubernetes(RawPolicyMap),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPolicyMap {
    /// The ConfigMap, `NAMESPACE/NAME`.
    pub(super) config_map: String,
}

impl<'de> Deserialize<'de> for RawPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = RawPolicy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the path of a policy, or { config_map = \"NAMESPACE/NAME\" }")
            }

            fn visit_str<E: de::Error>(self, path: &str) -> Result<RawPolicy, E> {
                Ok(RawPolicy::File(path.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<RawPolicy, A::Error> {
                let table = MapAccessDeserializer::new(table);
                RawPolicyMap::deserialize(table).map(RawPolicy::Kubernetes)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServe {
    /// Where it listens.
    pub(super) listen: Address,
    /// Where agents, people and the other coordinators reach it.
    pub(super) advertise: Endpoint,
    /// The other coordinators: their names, and where they are reached. Without it: there are none.
    #[serde(default)]
    pub(super) peers: BTreeMap<String, Endpoint>,
    /// Open streams have so long to end when it ends.
    pub(super) shutdown: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    /// Where it listens; `""` turns it off.
    pub(super) listen: Option<Address>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrust {
    /// The trust domain: the first part of all identities.
    pub(super) domain: Option<String>,
    /// The authority's certificate. All coordinators have the same.
    pub(super) ca_certificate: Option<PathBuf>,
    /// Its key, readable by its owner alone (0600), or sealed by KMS.
    pub(super) ca_key: Option<PathBuf>,
    /// Life of agents' certificates, 1h to 24h; they renew at half of it.
    pub(super) certificate_life: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    /// `sqlite`: a file, for one machine. `dynamodb`: a table, for coordinators on several.
    pub(super) kind: Option<String>,
    /// `sqlite`: the file, relative to this one. Without it: `/var/lib/smartscale/state.db` where this file lies below
    /// `/etc`, elsewhere `state.db` beside it.
    pub(super) path: Option<PathBuf>,
    /// `dynamodb`: the table.
    pub(super) table: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLease {
    /// A lease lasts so long from its renewal.
    pub(super) length: Option<Span>,
    /// It is renewed so often.
    pub(super) renewal: Option<Span>,
    /// The holder stops acting so long before it lapses.
    pub(super) margin: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubernetes {
    /// The kubeconfig. Without it: that of `KUBECONFIG`, then the pod's service account.
    pub(super) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrometheus {
    /// Its base URL, http or https.
    pub(super) url: String,
    /// It is asked so often.
    pub(super) period: Option<Span>,
    /// An answer may take so long.
    pub(super) timeout: Option<Span>,
    /// A file with a bearer token. Without it: none is sent.
    pub(super) bearer_token_file: Option<PathBuf>,
    /// PromQL. The answers are percentages; a query that answers nothing is unknown, not zero.
    #[serde(default)]
    pub(super) queries: RawQueries,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQueries {
    /// Cluster average of CPU, one series.
    pub(super) cpu: Option<String>,
    /// Cluster average of memory, one series.
    pub(super) memory: Option<String>,
    /// CPU of each node, one series a node.
    pub(super) node_cpu: Option<String>,
    /// Memory of each node, one series a node.
    pub(super) node_memory: Option<String>,
    /// The label of these series that carries the node's name.
    pub(super) node_label: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    /// The region. Without it: the SDK's usual chain.
    pub(super) region: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleet {
    /// `ec2`. `command`: a program of yours adds and removes machines.
    pub(super) kind: Option<String>,
    /// Instances are listed so often.
    pub(super) period: Option<Span>,
    /// How a pool of the policy is launched: one table for each.
    #[serde(default)]
    pub(super) pool: BTreeMap<String, RawFleetPool>,
    /// The program, with `kind = "command"`.
    pub(super) command: Option<RawFleetCommand>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleetCommand {
    /// Its absolute path, and its arguments.
    pub(super) program: Vec<String>,
    /// The longest that a call may take. Without it: 20 seconds.
    pub(super) timeout: Option<Span>,
    /// What it finds in its environment beside `PATH` and `LANG`. Without it: nothing.
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleetPool {
    /// The launch template, by id or name.
    pub(super) launch_template: String,
    /// Its version: a number, `$Default` or `$Latest`.
    pub(super) version: Option<String>,
    /// The subnet of each zone of the pool, `us-east-1a = "subnet-…"`. Without it: nothing is launched there.
    #[serde(default)]
    pub(super) subnets: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMarket {
    /// `aws`: types and prices of today. `none`: those of the built-in catalogue.
    pub(super) kind: Option<String>,
    /// Types, the zones that have them and prices on demand are asked for so often.
    pub(super) catalogue: Option<Span>,
    /// Spot prices are asked for so often.
    pub(super) spot: Option<Span>,
    /// Prices that are older are said to be stale.
    pub(super) stale: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEnrolment {
    /// `token`: a one-time secret for each launch. `ec2`: a request to AWS STS that the machine signs; it needs
    /// `aws.region`.
    pub(super) attestor: Option<String>,
    /// The secret of operation O, attempt A lies in `O-A` until it is spent.
    pub(super) secret_dir: Option<PathBuf>,
    /// A secret is good for so long.
    pub(super) secret_life: Option<Span>,
    /// `ec2`: the role of the workers' instance profile, whose sessions are accepted as well. Without it: EC2's
    /// instance identity role alone.
    pub(super) role: Option<String>,
    /// `ec2`: a machine that was launched longer ago enrols no first key.
    pub(super) oldest: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJoin {
    /// `shared`: workers read one token from Secrets Manager. `minted`: each is given one of its own when it enrols; it
    /// needs `packaging/kubernetes/join-tokens`.
    pub(super) tokens: Option<String>,
    /// `minted`: the K3s server that is said along with the token. Without it: `shared` alone is possible.
    pub(super) server: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNotices {
    /// The SQS queue that EventBridge feeds. Without it: notices come from the agents alone.
    pub(super) queue_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNotify {
    /// The same as `notify.sns.topic`, as it was written first. Without either: nobody is told by SNS.
    pub(super) sns_topic: Option<String>,
    /// The least severity that is told: `detail`, `info`, `warning`, `failure`.
    pub(super) least: Option<String>,
    /// The SNS topic, and in which form it is told.
    #[serde(default)]
    pub(super) sns: RawSns,
    /// Slack, by an incoming webhook or as a bot.
    pub(super) slack: Option<RawSlack>,
    /// A webhook of your own, which is posted JSON.
    pub(super) webhook: Option<RawWebhook>,
    /// Hours in which information waits: when they begin, as a crontab, how long they last, and by which time zone of the IANA
    /// database. Warnings and failures never wait. Without it: there are none.
    #[serde(default)]
    pub(super) quiet: Vec<RawQuiet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSns {
    /// Its ARN. Without it, and without `notify.sns_topic`: nobody is told by SNS.
    pub(super) topic: Option<String>,
    /// `json`: for programs, while mail gets text. `text`: for all. `chatbot`: AWS Chatbot's schema. Without it: `json`.
    pub(super) format: Option<String>,
    /// The least severity that is told here. Without it: that of `notify`.
    pub(super) least: Option<String>,
    /// What is no failure and more than this is told in one message; 0: all one by one. Without it: 20 for `chatbot`, and no bound for others.
    pub(super) most_per_minute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlack {
    /// A file that holds the URL of an incoming webhook. Either this or `token_file`.
    pub(super) webhook_url_file: Option<PathBuf>,
    /// A file that holds a bot's token (scope `chat:write`), which has a thread for each operation. Either this or
    /// `webhook_url_file`.
    pub(super) token_file: Option<PathBuf>,
    /// The channel, by its id, of the bot. Without it a bot says nothing: it is an error.
    pub(super) channel: Option<String>,
    /// Slack's API for the bot. Without it: `https://slack.com/api`.
    pub(super) api_url: Option<String>,
    /// Authorities that are trusted for it. Without it: the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// The least severity that is told here. Without it: that of `notify`.
    pub(super) least: Option<String>,
    /// What is no failure and more than this is told in one message; 0: all one by one. Without it: 20.
    pub(super) most_per_minute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    /// Where to. Either this or `url_file`.
    pub(super) url: Option<String>,
    /// A file that holds the address, where that is a secret. Either this or `url`.
    pub(super) url_file: Option<PathBuf>,
    /// A file that holds a bearer token. Without it: none is sent.
    pub(super) bearer_token_file: Option<PathBuf>,
    /// Authorities that are trusted for it. Without it: the system's.
    pub(super) ca_file: Option<PathBuf>,
    /// The least severity that is told here. Without it: that of `notify`.
    pub(super) least: Option<String>,
    /// What is no failure and more than this is told in one message; 0: all one by one. Without it: no bound.
    pub(super) most_per_minute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuiet {
    /// When they begin: minute, hour, day of month, month, day of week.
    pub(super) cron: String,
    /// How long they last.
    pub(super) duration: Span,
    /// A name of the IANA database.
    pub(super) time_zone: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCloudwatch {
    /// Whether metrics are sent.
    pub(super) enabled: Option<bool>,
    /// Their namespace.
    pub(super) namespace: Option<String>,
    /// They are sent so often.
    pub(super) period: Option<Span>,
    /// The group of CloudWatch Logs that every decision that differs from the one before is sent to, as JSON, whether
    /// metrics are sent or not. It must be there; its streams are made. Without it: decisions are in the state store
    /// alone.
    pub(super) log_group: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTiming {
    /// A node that is not Ready by then is terminated and replaced.
    pub(super) ready: Option<Span>,
    /// A drain whose agent is silent for so long goes on through the API.
    pub(super) agent_silent: Option<Span>,
    /// An instance with our tag that nobody knows is terminated after this.
    pub(super) orphan_grace: Option<Span>,
    /// Volumes have so long to leave a drained node before its machine is terminated.
    pub(super) detach: Option<Span>,
    /// Before a drain, pods of Deployments that allow surge are replaced elsewhere, for so long at most; it needs
    /// `packaging/kubernetes/hand-over`. Without it: they are evicted.
    pub(super) hand_over: Option<Span>,
    /// A machine whose agent is silent and whose kubelet is not Ready for so long is replaced.
    pub(super) sick: Option<Span>,
    /// A burst of pods that wait is over, and planned as one, when none came for so long.
    pub(super) batch_idle: Option<Span>,
    /// It is planned at the latest after this.
    pub(super) batch_most: Option<Span>,
}
