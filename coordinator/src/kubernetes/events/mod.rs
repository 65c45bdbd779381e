//! Kubernetes events that say why something was done, where `kubectl describe` shows them: at the node, and at the
//! pods that a machine was launched for, and at a policy's ConfigMap whether it is in force. What is said again counts one more in the event's series.

mod note;
mod object;

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use k8s_openapi::api::events::v1;
use kube::Client;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;
use smartscale_proto::time::SystemClock;

use self::note::{About, Note, note};
use super::api::{Api, ApiError, JSON, MERGE_PATCH};
use crate::tell::{Happening, Notifier, NotifyError};

/// Others who count the same event at the same moment are waited out so often.
const CONFLICTS: u32 = 5;

/// [`Notifier`] by Kubernetes events.
pub struct Events {
    api: Api,
    instance: String,
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
            instance: object::cut(instance.as_ref(), 128),
        }
    }

    async fn say(&self, happening: &Happening, note: &Note, about: &About) -> Result<(), ApiError> {
        let regarding = match about {
            About::Node(node) => object::of_node(node),
            About::ConfigMap(name, uid) => object::of_config_map(name, uid.clone()),
            About::Pod(pod) => {
                let path = format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name);
                match self.api.get::<Identity>(&path).await {
                    Ok(Identity { metadata }) => object::of_pod(pod, metadata.uid),
                    // Nobody can look at it any more.
                    Err(error) if error.code() == Some(404) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        let event = object::event(happening, note, regarding, &self.instance);
        let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        let body = serde_json::to_vec(&event).map_err(|error| ApiError::Unavailable(error.to_string()))?;
        let answer = self
            .api
            .call::<IgnoredAny>(Method::POST, &path, Some((JSON, body)))
            .await;
        match answer {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some(409) => {
                let name = event.metadata.name.as_deref().unwrap_or_default();
                self.count(&format!("{path}/{name}"), happening).await
            }
            // Nobody will look there.
            Err(error) if error.is_caused_by("NamespaceTerminating") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Counts an event that is there once more.
    async fn count(&self, path: &str, happening: &Happening) -> Result<(), ApiError> {
        let mut last = None;
        for _ in 0..CONFLICTS {
            // One that has lapsed in this moment (404) is made anew when this is tried again.
            let there: v1::Event = self.api.get(path).await?;
            let Some(series) = object::once_more(&there, happening.time) else {
                return Ok(());
            };
            let patch = json!({
                "metadata": { "resourceVersion": there.metadata.resource_version },
                "series": series,
            });
            let content = Some((MERGE_PATCH, patch.to_string().into_bytes()));
            match self.api.call::<IgnoredAny>(Method::PATCH, path, content).await {
                Ok(_) => return Ok(()),
                Err(error) if error.code() == Some(409) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last
            .unwrap_or_else(|| ApiError::Unavailable("an event is counted by others all the time".into())))
    }
}

/// Whether the same call may go well later. A credential that is refused may be in rotation (401), an event lapses
/// (404) or is counted by others (409).
pub(super) fn may_pass(error: &ApiError) -> bool {
    matches!(error.code(), Some(401 | 404 | 408 | 409 | 429 | 500..) | None)
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
            match self.say(happening, &note, about).await {
                Ok(()) => {}
                Err(error) if may_pass(&error) => answer = Err(NotifyError::Passing(error.to_string())),
                Err(error) => answer = answer.and(Err(NotifyError::Refused(error.to_string()))),
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests;
