//! Kubernetes events that say why something was done, where `kubectl describe` shows them: at the node, and at the
//! pods that a machine was launched for.
//!
//! An event's name is drawn from what it says, so that telling the same again (after an answer that got lost) is
//! refused as a duplicate and counts as told.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::Client;
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};
use smartscale_planner::model::{NodeName, PodKey};
use smartscale_proto::time::SystemClock;

use super::api::{Api, ApiError, JSON};
use crate::tell::{Event, Happening, Notifier, NotifyError, Severity};

/// Who reports, as `kubectl describe` shows it.
const CONTROLLER: &str = "smartscale.io/coordinator";
/// Longest note that the API server takes, in bytes.
const NOTE: usize = 1024;
/// A launch for hundreds of pods is said at so many of them: events are small change, not a flood.
const PODS: usize = 20;

/// [`Notifier`] by Kubernetes events.
pub struct Events {
    api: Api,
    instance: String,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq)]
enum About {
    Node(NodeName),
    Pod(PodKey),
}

/// What is said of a happening, and of what.
#[derive(Debug, Clone, PartialEq)]
struct Note {
    reason: &'static str,
    action: String,
    about: Vec<About>,
}

#[derive(Deserialize)]
struct Identity {
    metadata: smartscale_manifests::ObjectMeta,
}

impl Events {
    /// Reports as `instance` (the coordinator's name; at most 128 bytes of it are used).
    #[must_use]
    pub fn new(client: Client, instance: impl AsRef<str>) -> Self {
        // Nothing here waits but for the network, which knows no clock but the machine's.
        Self {
            api: Api::new(client, Arc::new(SystemClock)),
            instance: cut(instance.as_ref(), 128),
        }
    }

    async fn post(&self, happening: &Happening, note: &Note, about: &About) -> Result<(), ApiError> {
        let regarding = match about {
            About::Node(node) => of_node(node),
            About::Pod(pod) => {
                let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
                match self.api.get::<Identity>(&path).await {
                    Ok(Identity { metadata }) => of_pod(pod, metadata.uid),
                    // Nobody can look at it any more.
                    Err(error) if error.code() == Some(404) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        let event = event(happening, note, regarding, &self.instance);
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let body = serde_json::to_vec(&event).map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let answer = self
            .api
            .call::<IgnoredAny>(Method::POST, &path, Some((JSON, body)))
            .await;
        match answer {
            // 409: it was told before; NamespaceTerminating: nobody will look there.
            Err(error) if error.code() != Some(409) && !error.is_caused_by("NamespaceTerminating") => {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

/// What is said where; `None` of what concerns no object of the cluster.
fn note(happening: &Happening) -> Option<Note> {
    let node = |name: &str| vec![About::Node(NodeName::new(name))];
    Some(match &happening.event {
        Event::Operation {
            operation_kind,
            phase,
            ended,
            succeeded,
            nodes,
            pods,
            ..
        } => {
            let about = nodes.iter().cloned().map(About::Node);
            let about = about.chain(pods.iter().take(PODS).cloned().map(About::Pod));
            Note {
                reason: reason(operation_kind, *ended, *succeeded),
                action: phase.clone(),
                about: about.collect(),
            }
        }
        Event::Joined { instance, .. } => Note {
            reason: "SmartScaleJoined",
            action: "join".into(),
            about: node(instance.as_str()),
        },
        Event::Noticed { instance, notice } => Note {
            reason: match notice.as_str() {
                "spot_interruption" => "SpotInterruption",
                "rebalance" => "SpotRebalance",
                "maintenance" => "InstanceMaintenance",
                _ => "InstanceNotice",
            },
            action: notice.clone(),
            about: node(instance.as_str()),
        },
        Event::Drain {
            instance, pod, state, ..
        } => {
            let mut about = node(instance.as_str());
            about.extend(pod.clone().map(About::Pod));
            Note {
                reason: "SmartScaleDrain",
                action: state.clone(),
                about,
            }
        }
        Event::LeaseAcquired { .. }
        | Event::LeaseLost { .. }
        | Event::Decided { .. }
        | Event::Source { .. }
        | Event::Agent { .. }
        | Event::Admin { .. }
        | Event::Trouble { .. } => return None,
    })
    .filter(|note| !note.about.is_empty())
}

/// The reason of an operation's event: the kind, and how it stands.
fn reason(kind: &str, ended: bool, succeeded: bool) -> &'static str {
    match (kind, ended, succeeded) {
        ("launch", false, _) => "TriggeredScaleUp",
        ("launch", true, true) => "ScaledUp",
        ("launch", true, false) => "ScaleUpFailed",
        ("remove", false, _) => "TriggeredScaleDown",
        ("remove", true, true) => "ScaledDown",
        ("remove", true, false) => "ScaleDownFailed",
        (_, false, _) => "OperationRunning",
        (_, true, true) => "OperationSucceeded",
        (_, true, false) => "OperationFailed",
    }
}

fn of_node(node: &NodeName) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Node".into()),
        name: Some(node.to_string()),
        // As the kubelet does it: `kubectl describe node` looks for the name in this place.
        uid: Some(node.to_string()),
        ..ObjectReference::default()
    }
}

fn of_pod(pod: &PodKey, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: Some(pod.namespace.to_string()),
        name: Some(pod.name.to_string()),
        uid,
        ..ObjectReference::default()
    }
}

fn event(happening: &Happening, note: &Note, regarding: ObjectReference, instance: &str) -> v1::Event {
    let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".into());
    let subject = regarding.name.clone().unwrap_or_default();
    let mut digest = Sha256::new();
    for part in [
        happening.time.to_string().as_str(),
        note.reason,
        &note.action,
        &happening.message,
        &namespace,
        &subject,
    ] {
        digest.update(part);
        digest.update([0]);
    }
    let digest = hex::encode(digest.finalize());
    v1::Event {
        metadata: ObjectMeta {
            // A name has 253 characters at most, those of pods included.
            name: Some(format!(
                "{}.{}",
                cut(&subject, 200).trim_end_matches(['.', '-']),
                &digest[..16]
            )),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        action: Some(cut(
            if note.action.is_empty() {
                "none"
            } else {
                &note.action
            },
            128,
        )),
        event_time: Some(MicroTime(to_micros(happening.time))),
        note: Some(cut(&happening.message, NOTE)),
        reason: Some(note.reason.into()),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.into()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(
            if happening.severity >= Severity::Warning {
                "Warning"
            } else {
                "Normal"
            }
            .into(),
        ),
        ..v1::Event::default()
    }
}

/// The API server reads six digits of a second and no more.
fn to_micros(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

/// Whether the same call may go well later. A credential that is refused may be in rotation (401).
fn may_pass(error: &ApiError) -> bool {
    matches!(error.code(), Some(401 | 408 | 429 | 500..) | None)
}

/// At most so many bytes of a text.
fn cut(text: &str, bytes: usize) -> String {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[async_trait]
impl Notifier for Events {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn notify(&self, happening: &Happening) -> Result<(), NotifyError> {
        let Some(note) = note(happening) else {
            return Ok(());
        };
        // All are tried; the worst that can be mended is returned, so that those are tried again.
        let mut answer = Ok(());
        for about in &note.about {
            match self.post(happening, &note, about).await {
                Ok(()) => {}
                Err(error) if may_pass(&error) => answer = Err(NotifyError::Passing(error.to_string())),
                Err(error) => answer = answer.and(Err(NotifyError::Refused(error.to_string()))),
            }
        }
        answer
    }
}

#[cfg(test)]
#[path = "events_tests.rs"]
mod tests;
