//! The configuration file as it is written. Unknown keys fail; nothing is judged here but the form.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor, value::MapAccessDeserializer},
};

/// `coordinator.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: Option<String>,
    pub(super) mode: String,
    pub(super) policy: RawPolicy,
    pub(super) period: Option<String>,
    pub(super) serve: RawServe,
    #[serde(default)]
    pub(super) http: RawHttp,
    #[serde(default)]
    pub(super) trust: RawTrust,
    #[serde(default)]
    pub(super) store: RawStore,
    #[serde(default)]
    pub(super) lease: RawLease,
    #[serde(default)]
    pub(super) kubernetes: RawKubernetes,
    pub(super) prometheus: Option<RawPrometheus>,
    #[serde(default)]
    pub(super) aws: RawAws,
    pub(super) fleet: RawFleet,
    #[serde(default)]
    pub(super) market: RawMarket,
    #[serde(default)]
    pub(super) enrolment: RawEnrolment,
    #[serde(default)]
    pub(super) join: RawJoin,
    #[serde(default)]
    pub(super) notices: RawNotices,
    #[serde(default)]
    pub(super) notify: RawNotify,
    #[serde(default)]
    pub(super) cloudwatch: RawCloudwatch,
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
    pub(super) listen: String,
    pub(super) advertise: String,
    #[serde(default)]
    pub(super) peers: BTreeMap<String, String>,
    pub(super) shutdown: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrust {
    pub(super) domain: Option<String>,
    pub(super) ca_certificate: Option<PathBuf>,
    pub(super) ca_key: Option<PathBuf>,
    pub(super) certificate_life: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    pub(super) kind: Option<String>,
    pub(super) path: Option<PathBuf>,
    pub(super) table: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLease {
    pub(super) length: Option<String>,
    pub(super) renewal: Option<String>,
    pub(super) margin: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubernetes {
    pub(super) kubeconfig: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrometheus {
    pub(super) url: String,
    pub(super) period: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) bearer_token_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) queries: RawQueries,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQueries {
    pub(super) cpu: Option<String>,
    pub(super) memory: Option<String>,
    pub(super) node_cpu: Option<String>,
    pub(super) node_memory: Option<String>,
    pub(super) node_label: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAws {
    pub(super) region: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleet {
    pub(super) kind: Option<String>,
    pub(super) period: Option<String>,
    #[serde(default)]
    pub(super) pool: BTreeMap<String, RawFleetPool>,
    pub(super) command: Option<RawFleetCommand>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleetCommand {
    pub(super) program: Vec<String>,
    pub(super) timeout: Option<String>,
    #[serde(default)]
    pub(super) environment: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFleetPool {
    pub(super) launch_template: String,
    pub(super) version: Option<String>,
    #[serde(default)]
    pub(super) subnets: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMarket {
    pub(super) kind: Option<String>,
    pub(super) catalogue: Option<String>,
    pub(super) spot: Option<String>,
    pub(super) stale: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEnrolment {
    pub(super) attestor: Option<String>,
    pub(super) secret_dir: Option<PathBuf>,
    pub(super) secret_life: Option<String>,
    pub(super) role: Option<String>,
    pub(super) oldest: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawJoin {
    pub(super) tokens: Option<String>,
    pub(super) server: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNotices {
    pub(super) queue_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawNotify {
    pub(super) sns_topic: Option<String>,
    pub(super) least: Option<String>,
    #[serde(default)]
    pub(super) sns: RawSns,
    pub(super) slack: Option<RawSlack>,
    pub(super) webhook: Option<RawWebhook>,
    #[serde(default)]
    pub(super) quiet: Vec<RawQuiet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSns {
    pub(super) topic: Option<String>,
    pub(super) format: Option<String>,
    pub(super) least: Option<String>,
    pub(super) most_per_minute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSlack {
    pub(super) webhook_url_file: Option<PathBuf>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) channel: Option<String>,
    pub(super) api_url: Option<String>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) least: Option<String>,
    pub(super) most_per_minute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    pub(super) url: Option<String>,
    pub(super) url_file: Option<PathBuf>,
    pub(super) bearer_token_file: Option<PathBuf>,
    pub(super) ca_file: Option<PathBuf>,
    pub(super) least: Option<String>,
    pub(super) most_per_minute: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuiet {
    pub(super) cron: String,
    pub(super) duration: String,
    pub(super) time_zone: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCloudwatch {
    pub(super) enabled: Option<bool>,
    pub(super) namespace: Option<String>,
    pub(super) period: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTiming {
    pub(super) ready: Option<String>,
    pub(super) agent_silent: Option<String>,
    pub(super) orphan_grace: Option<String>,
    pub(super) detach: Option<String>,
    pub(super) hand_over: Option<String>,
    pub(super) sick: Option<String>,
    pub(super) batch_idle: Option<String>,
    pub(super) batch_most: Option<String>,
}
