//! The API server's audit log: who asked for which pod's eviction, what kubelets' credentials changed of their Nodes beside
//! the status, and everything that the coordinator's service account asked for, with the answers.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::Folder;

/// The coordinator's service account, as `packaging/kubernetes/rbac.yaml` makes it.
pub(super) const COORDINATOR: (&str, &str) = ("kube-system", "smartscale-coordinator");

/// The annotation that has what the authorizer decided.
const DECISION: &str = "authorization.k8s.io/decision";

/// Evictions, changes of Nodes by Nodes, and the coordinator's calls, without their bodies.
pub(super) fn policy() -> String {
    format!(
        "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create]
    resources: [{{ group: \"\", resources: [pods/eviction] }}]
  - level: Metadata
    verbs: [patch, update]
    userGroups: [\"system:nodes\"]
    resources: [{{ group: \"\", resources: [nodes] }}]
  - level: Metadata
    users: [\"{}\"]
  - level: None
",
        user(COORDINATOR)
    )
}

/// A service account as a user.
pub(super) fn user((namespace, name): (&str, &str)) -> String {
    format!("system:serviceaccount:{namespace}:{name}")
}

/// An eviction that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Eviction {
    /// When the request arrived.
    pub at: Timestamp,
    /// Who asked, for example `system:node:i-1`.
    pub user: String,
    /// The pod's name.
    pub pod: String,
    /// The status of the answer: 201, 429, …
    pub code: u16,
}

/// A change of a Node (not of its status) by its own credential: a cordon, or what the agent annotates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeChange {
    /// When the request arrived.
    pub at: Timestamp,
    /// The Node's name.
    pub node: String,
    /// The status of the answer.
    pub code: u16,
}

/// A call, as a rule of RBAC sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// Empty for the core group.
    pub group: String,
    /// With its subresource: `pods/eviction`.
    pub resource: String,
    /// `get`, `list`, …
    pub verb: String,
    /// Whether its user has the right to it.
    pub allowed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    request_received_timestamp: Timestamp,
    verb: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    name: String,
}

#[derive(Deserialize)]
struct Status {
    code: u16,
}

pub(super) fn log(folder: &Folder) -> PathBuf {
    folder.path().join("logs/kube-apiserver-audit.log")
}

fn lines(folder: &Folder) -> anyhow::Result<Vec<Line>> {
    let path = log(folder);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // The last line may still be being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let read = |line: &str| serde_json::from_str(line).with_context(|| format!("read {line}"));
    whole.lines().map(read).collect()
}

fn code(status: Option<Status>) -> u16 {
    status.map_or(0, |status| status.code)
}

pub(super) fn evictions(folder: &Folder) -> anyhow::Result<Vec<Eviction>> {
    let evictions = lines(folder)?.into_iter().filter_map(|line| {
        let object = line
            .object_ref
            .filter(|object| object.subresource == "eviction")?;
        Some(Eviction {
            at: line.request_received_timestamp,
            user: line.user.username,
            pod: object.name,
            code: code(line.response_status),
        })
    });
    Ok(evictions.collect())
}

pub(super) fn node_changes(folder: &Folder) -> anyhow::Result<Vec<NodeChange>> {
    let changes = lines(folder)?.into_iter().filter_map(|line| {
        let is_change = |object: &ObjectRef| object.resource == "nodes" && object.subresource.is_empty();
        let object = line.object_ref.filter(is_change)?;
        let own = line.user.username.strip_prefix("system:node:")? == object.name;
        own.then_some(NodeChange {
            at: line.request_received_timestamp,
            node: object.name,
            code: code(line.response_status),
        })
    });
    Ok(changes.collect())
}

pub(super) fn coordinators_calls(folder: &Folder) -> anyhow::Result<Vec<Call>> {
    let coordinator = user(COORDINATOR);
    let calls = lines(folder)?.into_iter().filter_map(|line| {
        let object = line.object_ref.filter(|_| line.user.username == coordinator)?;
        Some(Call {
            group: object.api_group,
            resource: match &*object.subresource {
                "" => object.resource,
                part => format!("{}/{part}", object.resource),
            },
            verb: line.verb,
            allowed: line
                .annotations
                .get(DECISION)
                .is_some_and(|decision| decision == "allow"),
        })
    });
    Ok(calls.collect())
}
