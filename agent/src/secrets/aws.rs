//! AWS Secrets Manager, with the credentials of the environment or of the instance's role.
//!
//! The SDK's own chain of credentials would bring profiles, SSO and web identity along, none of which a worker has, and a
//! second client of IMDS; so the role is read through ours, which speaks version 2 alone.

mod transport;

use std::{env, sync::Arc};

use async_trait::async_trait;
use aws_sdk_secretsmanager::{
    Client,
    config::{BehaviorVersion, Config, Credentials, Region},
    error::ProvideErrorMetadata as _,
};
use rustls::RootCertStore;
use smartscale_planner::model::Zone;

use super::{Secret, Secrets};
use crate::{
    error::{Failure, Known, chain},
    machine::{
        credentials::{Role, SessionKey},
        imds::Imds,
    },
};

/// Secrets Manager.
pub struct SecretsManager {
    imds: Option<Arc<Imds>>,
    region: Option<String>,
    endpoint: Option<String>,
    environment: Option<Credentials>,
    /// The system's certificate authorities unless given.
    believed: Option<Arc<RootCertStore>>,
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

impl SecretsManager {
    /// Secrets Manager of `region` (the zone's unless given) at `endpoint` (AWS' own unless given), with the credentials of
    /// the environment or, through `imds`, of the instance's role.
    #[must_use]
    pub fn new(imds: Option<Arc<Imds>>, region: Option<String>, endpoint: Option<String>) -> Self {
        let endpoint = endpoint
            .or_else(|| variable("AWS_ENDPOINT_URL_SECRETS_MANAGER"))
            .or_else(|| variable("AWS_ENDPOINT_URL"));
        let pair = variable("AWS_ACCESS_KEY_ID").zip(variable("AWS_SECRET_ACCESS_KEY"));
        let session = || variable("AWS_SESSION_TOKEN");
        Self {
            environment: pair
                .map(|(id, secret)| Credentials::new(id, secret, session(), None, "environment")),
            imds,
            region: region.or_else(|| variable("AWS_REGION")),
            endpoint,
            believed: None,
        }
    }

    async fn credentials(&self) -> Result<Credentials, Failure> {
        if let Some(credentials) = &self.environment {
            return Ok(credentials.clone());
        }
        let Some(imds) = &self.imds else {
            return Err(Failure::because(
                "there are no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
            .known_as(Known::RoleRefused));
        };
        let key = SessionKey::of(imds, Role::Profile).await?;
        Ok(Credentials::new(
            key.id,
            key.secret.reveal(),
            Some(key.token.reveal().to_owned()),
            None,
            "imds",
        ))
    }
}

#[async_trait]
impl Secrets for SecretsManager {
    async fn secret(&self, name: &str, zone: &str) -> Result<Secret, Failure> {
        let region = self
            .region
            .clone()
            .unwrap_or_else(|| Zone::from(zone).region().to_owned());
        // Made for each secret: they are read once in a machine's life, and nothing of it should stay in memory.
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(region.clone()))
            .credentials_provider(self.credentials().await?)
            .http_client(transport::client(self.believed.clone()));
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        let client = Client::from_conf(config.build());
        let answer = client
            .get_secret_value()
            .secret_id(name)
            .send()
            .await
            .map_err(|error| {
                let (known, what) = match error.code() {
                    Some("ResourceNotFoundException") => {
                        (Some(Known::SecretMissing), "there is no such secret: create it")
                    }
                    Some(
                        "AccessDeniedException" | "UnrecognizedClientException" | "InvalidClientTokenId",
                    ) => (
                        Some(Known::RoleRefused),
                        "the role may not read it: allow secretsmanager:GetSecretValue",
                    ),
                    // Signed by a clock that is more than five minutes off.
                    Some("SignatureDoesNotMatch" | "RequestExpired" | "InvalidSignatureException") => (
                        Some(Known::ClockSkew),
                        "the request's signature is refused, as of a clock that is wrong",
                    ),
                    Some(_) => (None, "Secrets Manager did not give it"),
                    None => (Some(Known::ServerUnreachable), "Secrets Manager does not answer"),
                };
                let detail = match (error.code(), error.message()) {
                    (Some(code), Some(message)) => format!("{code}: {message}"),
                    _ => chain(&error),
                };
                let failure = Failure::because(format!("secret {name} in {region}: {what} ({detail})"));
                match known {
                    Some(known) => failure.known_as(known),
                    None => failure,
                }
            })?;
        match answer.secret_string {
            Some(text) => Ok(Secret::new(text)),
            None => Err(
                Failure::because(format!("secret {name} in {region} is binary, a text is needed"))
                    .known_as(Known::SecretUnusable),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
