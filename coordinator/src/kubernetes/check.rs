//! [`Access`] and [`TimeSource`] by the Kubernetes API: what `check` asks it.

use std::sync::Arc;

use async_trait::async_trait;
use http::Method;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;

use super::{
    api::{Api, ApiError, JSON},
    clock::ClusterClock,
};
use crate::check::{
    clock::TimeSource,
    rights::{Access, Right},
};

/// Where the API server judges what its caller may do.
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// The API server, asked about itself.
pub struct ApiServer {
    api: Api,
    clock: Arc<ClusterClock>,
}

#[derive(Deserialize)]
struct Review {
    status: Judged,
}

#[derive(Deserialize)]
struct Judged {
    allowed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

impl ApiServer {
    /// The one that this API speaks to; `clock` hears its answers.
    #[must_use]
    pub fn new(api: Api, clock: Arc<ClusterClock>) -> Self {
        Self { api, clock }
    }

    async fn review(&self, right: &Right) -> Result<bool, ApiError> {
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((&right.resource, ""));
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": {
                "verb": right.verb, "group": right.group, "resource": resource, "subresource": subresource,
                "namespace": right.namespace, "name": right.name,
            } },
        });
        let content = Some((JSON, body.to_string().into_bytes()));
        let review: Review = self.api.call(Method::POST, REVIEWS, content).await?;
        Ok(review.status.allowed)
    }
}

#[async_trait]
impl Access for ApiServer {
    async fn has(&self, right: &Right) -> Result<bool, String> {
        self.review(right).await.map_err(|error| error.to_string())
    }
}

#[async_trait]
impl TimeSource for ApiServer {
    async fn ahead(&self) -> Result<(String, SignedDuration), String> {
        let version: Version = self
            .api
            .get("/version")
            .await
            .map_err(|error| error.to_string())?;
        Ok((version.git_version, self.clock.ahead()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::{
        check::rights::Concern,
        kubernetes::testing::{Log, Seen, client, status},
    };

    fn server(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> (ApiServer, Log) {
        let (client, log) = client(answer);
        let clock = Arc::new(ClusterClock::new(Arc::new(SystemClock)));
        (
            ApiServer::new(Api::new(client, Arc::new(SystemClock)), clock),
            log,
        )
    }

    #[tokio::test]
    async fn a_right_is_asked_for_with_group_subresource_and_place() {
        let (server, log) = server(|_| (201, r#"{"status":{"allowed":true}}"#.into()));
        let rights = Concern::Base.rights();
        let eviction = rights
            .iter()
            .find(|right| right.resource == "pods/eviction")
            .unwrap();
        assert_eq!(server.has(eviction).await, Ok(true));
        let policy = Concern::Policy("kube-system/smartscale-policy".parse().unwrap()).rights();
        assert_eq!(server.has(&policy[0]).await, Ok(true));
        let log = log.lock().unwrap();
        let asked = |index: usize| log[index].body["spec"]["resourceAttributes"].clone();
        assert_eq!(
            asked(0),
            json!({ "verb": "create", "group": "", "resource": "pods", "subresource": "eviction", "namespace": null,
                    "name": null })
        );
        assert_eq!(
            asked(1),
            json!({ "verb": "list", "group": "", "resource": "configmaps", "subresource": "",
                    "namespace": "kube-system", "name": "smartscale-policy" })
        );
    }

    #[tokio::test]
    async fn a_right_that_is_not_there_and_a_question_that_is_refused_are_told_apart() {
        let right = &Concern::Steer.rights()[0];
        let (denies, _) = server(|_| (201, r#"{"status":{"allowed":false,"reason":""}}"#.into()));
        assert_eq!(denies.has(right).await, Ok(false));
        let (refuses, _) = server(|_| status(401, "Unauthorized", None));
        assert!(refuses.has(right).await.unwrap_err().contains("Unauthorized"));
    }

    #[tokio::test]
    async fn the_version_comes_with_the_time() {
        let (server, _) = server(|_| (200, r#"{"gitVersion":"v1.36.3"}"#.into()));
        let answer = server.ahead().await.unwrap();
        assert_eq!(answer, ("v1.36.3".to_owned(), SignedDuration::ZERO));
    }
}
