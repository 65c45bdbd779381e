//! The policy in a ConfigMap, so that what versions the cluster's objects versions it too.
//!
//! It is listed and watched by its name alone, which is all that the coordinator may do of ConfigMaps: the API server
//! takes `metadata.name=NAME` in the field selector for the name that a rule of RBAC allows.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use http::Method;
use kube::core::WatchEvent;
use serde::Deserialize;
use serde_json::Value;
use smartscale_proto::{backoff::Backoff, time::within};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::api::{Api, ApiError, request, segment, text};
use crate::{
    observe::web::form,
    policy::{CONFIG_MAP_KEY, ConfigMapName, Offer, Policies},
};

/// A watch ends by itself after so long; then the ConfigMap is looked at anew. Shorter than the client's longest silence.
const WATCH: Duration = Duration::from_secs(45);
/// A watch that should have ended and still says nothing is dead.
const OVERDUE: Duration = Duration::from_secs(15);
/// Between the end of a watch and the next look.
const PAUSE: Duration = Duration::from_secs(1);

/// A ConfigMap with a policy.
pub struct PolicyMap {
    api: Api,
    name: ConfigMapName,
}

/// A list of one, or none.
#[derive(Deserialize)]
struct Page {
    metadata: PageMeta,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: String,
}

impl PolicyMap {
    /// The ConfigMap of this name.
    #[must_use]
    pub fn new(api: Api, name: ConfigMapName) -> Self {
        Self { api, name }
    }

    /// Offers what it has, and each change, until `stop`.
    pub async fn run(self, offers: watch::Sender<Option<Offer>>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.follow(&offers) => {}
        }
    }

    async fn follow(&self, offers: &watch::Sender<Option<Offer>>) {
        let mut attempt = 0;
        loop {
            let outcome = match self.find().await {
                Ok((offer, version)) => {
                    attempt = 0;
                    publish(offers, offer);
                    self.watch(&version, offers).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = outcome else {
                // However soon a server ends its watches, it is not asked in a tight loop.
                self.api.clock.sleep(PAUSE).await;
                continue;
            };
            attempt += 1;
            tracing::warn!(config_map = %self.name, %error, attempt, "watch of the policy failed");
            if error.code().is_some_and(|code| code == 401 || code == 403) {
                // Nobody would learn otherwise that changes are not seen. An outage is told by whoever watches the cluster.
                publish(
                    offers,
                    Offer {
                        text: Err(error.to_string()),
                        uid: None,
                    },
                );
            }
            let delay = Backoff::DEFAULT.delay(attempt, &mut rand::rng());
            self.api.clock.sleep(delay).await;
        }
    }

    /// What it has, and as of which version of the cluster.
    async fn find(&self) -> Result<(Offer, String), ApiError> {
        let page: Page = self.api.get(&self.path(&[])?).await?;
        let offer = page
            .items
            .unwrap_or_default()
            .first()
            .map_or_else(|| self.missing(), |object| self.offer(object));
        Ok((offer, page.metadata.resource_version))
    }

    /// Offers each change from a version on, until the watch ends.
    async fn watch(&self, version: &str, offers: &watch::Sender<Option<Offer>>) -> Result<(), ApiError> {
        let clock = &self.api.clock;
        let seconds = WATCH.as_secs().to_string();
        let path = self.path(&[
            ("watch", "1"),
            ("timeoutSeconds", &seconds),
            ("resourceVersion", version),
        ])?;
        let silent = || ApiError::Unavailable("the watch says nothing any more".to_owned());
        let ends = clock.elapsed() + WATCH + OVERDUE;
        let opened = self
            .api
            .client
            .request_events::<Value>(request(Method::GET, &path, None)?);
        let mut events = Box::pin(within(&**clock, WATCH, opened).await.ok_or_else(silent)??);
        loop {
            let patience = ends.saturating_sub(clock.elapsed());
            match within(&**clock, patience, events.next())
                .await
                .ok_or_else(silent)?
            {
                None => return Ok(()),
                Some(event) => match event? {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        publish(offers, self.offer(&object));
                    }
                    WatchEvent::Deleted(_) => publish(offers, self.missing()),
                    WatchEvent::Bookmark(_) => {}
                    // Too far behind: it is looked at anew.
                    WatchEvent::Error(status) if status.code == 410 => return Ok(()),
                    WatchEvent::Error(status) => return Err(ApiError::from(&*status)),
                },
            }
        }
    }

    fn path(&self, query: &[(&str, &str)]) -> Result<String, ApiError> {
        let (namespace, name) = (segment(&self.name.namespace)?, segment(&self.name.name)?);
        let field = format!("metadata.name={name}");
        let mut all = vec![("fieldSelector", field.as_str())];
        all.extend_from_slice(query);
        Ok(format!(
            "/api/v1/namespaces/{namespace}/configmaps?{}",
            form(&all)
        ))
    }

    fn offer(&self, object: &Value) -> Offer {
        // A JSON pointer has no escape to do here: the key has neither `/` nor `~`.
        let policy = text(object, &format!("/data/{CONFIG_MAP_KEY}"));
        Offer {
            text: policy
                .map(str::to_owned)
                .ok_or_else(|| format!("ConfigMap {} has no key {CONFIG_MAP_KEY}", self.name)),
            uid: text(object, "/metadata/uid").map(str::to_owned),
        }
    }

    fn missing(&self) -> Offer {
        Offer {
            text: Err(format!("there is no ConfigMap {}", self.name)),
            uid: None,
        }
    }
}

#[async_trait]
impl Policies for PolicyMap {
    async fn look(&self) -> Result<Offer, String> {
        let found = self.find().await;
        found.map(|(offer, _)| offer).map_err(|error| error.to_string())
    }
}

/// Offers what differs from what was offered last.
fn publish(offers: &watch::Sender<Option<Offer>>, offer: Offer) {
    offers.send_if_modified(|offered| {
        let differs = offered.as_ref() != Some(&offer);
        if differs {
            *offered = Some(offer);
        }
        differs
    });
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
