//! Bootstrap tokens, one for each machine
//! (<https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>), as `k3s token create` makes them.
//!
//! A token is a Secret that the API server's authenticator reads and that the controller `tokencleaner` deletes when it has
//! expired. So the coordinator needs the right to create Secrets in `kube-system` and none to read or delete them.

use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smartscale_planner::model::NodeName;
use smartscale_proto::k3s;
use zeroize::Zeroizing;

use super::api::{Api, ApiError, JSON};
use crate::serve::join_tokens::{JoinTokens, NotMinted};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
/// Where K3s serves the bundle of its authority.
const CA_BUNDLE: &str = "/cacerts";
/// Whom K3s takes for a node that joins.
const GROUP: &str = "system:bootstrappers:k3s:default-node-token";
/// Letters of a token, by its specification.
const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// Ids are short: one may be there already.
const ATTEMPTS: u32 = 4;

/// Tokens behind the Kubernetes API.
#[derive(Debug, Clone)]
pub struct BootstrapTokens {
    api: Api,
}

impl BootstrapTokens {
    /// Tokens of the cluster behind this API.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self { api }
    }
}

#[async_trait]
impl JoinTokens for BootstrapTokens {
    async fn mint(&self, node: &NodeName, life: Duration) -> Result<Zeroizing<String>, NotMinted> {
        let failed = |what: &str, error: &dyn std::fmt::Display| NotMinted(format!("{what}: {error}"));
        let bundle = self
            .api
            .text(CA_BUNDLE)
            .await
            .map_err(|error| failed("the cluster's CA bundle", &error))?;
        let hash = k3s::ca_hash(bundle.as_bytes()).map_err(|error| failed(CA_BUNDLE, &error))?;
        let life = SignedDuration::try_from(life).unwrap_or_default();
        let ends = self.api.clock.now() + life;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            let (id, secret) = (letters(ID_LENGTH), letters(SECRET_LENGTH));
            let body = Zeroizing::new(object(&id, &secret, node, ends).to_string().into_bytes());
            let made = self
                .api
                .call::<IgnoredAny>(Method::POST, SECRETS, Some((JSON, body.to_vec())))
                .await;
            match made {
                Ok(_) => return Ok(Zeroizing::new(format!("K10{hash}::{}.{}", *id, *secret))),
                Err(error) if error.code() == Some(409) => last = Some(error),
                Err(error) => return Err(failed("the API server", &error)),
            }
        }
        let last: Option<ApiError> = last;
        Err(NotMinted(
            last.map_or_else(String::new, |error| error.to_string()),
        ))
    }
}

fn letters(count: usize) -> Zeroizing<String> {
    let letter = |_| char::from(LETTERS[rand::random_range(0..LETTERS.len())]);
    Zeroizing::new((0..count).map(letter).collect())
}

fn object(id: &str, secret: &str, node: &NodeName, ends: Timestamp) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "bootstrap.kubernetes.io/token",
        "metadata": { "name": format!("bootstrap-token-{id}"), "namespace": "kube-system" },
        "stringData": {
            "description": format!("SmartScale: {node} joins with it"),
            "token-id": id,
            "token-secret": secret,
            "expiration": format!("{ends:.0}"),
            "usage-bootstrap-authentication": "true",
            "auth-extra-groups": GROUP,
        },
    })
}
