//! The API server's audit log of evictions: who asked for which pod's, and what the answer was.

use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;

use super::super::Folder;

/// Evictions alone, once each, without their bodies.
pub(super) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    verbs: [create]
    resources: [{ group: \"\", resources: [pods/eviction] }]
  - level: None
";

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

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    request_received_timestamp: Timestamp,
    user: User,
    object_ref: ObjectRef,
    response_status: Status,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    name: String,
}

#[derive(Deserialize)]
struct Status {
    code: u16,
}

pub(super) fn log(folder: &Folder) -> PathBuf {
    folder.path().join("logs/kube-apiserver-audit.log")
}

pub(super) fn evictions(folder: &Folder) -> anyhow::Result<Vec<Eviction>> {
    let path = log(folder);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    // The last line may still be being written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| {
            let line: Line = serde_json::from_str(line).with_context(|| format!("read {line}"))?;
            Ok(Eviction {
                at: line.request_received_timestamp,
                user: line.user.username,
                pod: line.object_ref.name,
                code: line.response_status.code,
            })
        })
        .collect()
}
