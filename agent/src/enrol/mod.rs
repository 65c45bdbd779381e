//! From a machine that was launched to an agent with a certificate, and to the next certificate.
//!
//! - [`Attestor`]: proves which machine asks, by a one-time secret or as an EC2 instance (`ec2`)
//! - [`record`]: the certificate and its key on disk
//! - [`client`]: enrolment and renewal

pub mod client;
#[cfg(feature = "aws")]
pub mod ec2;
pub mod record;

use std::path::PathBuf;

use async_trait::async_trait;
use smartscale_proto::v1::{TokenProof, enrol_request::Proof};

pub use client::Enroller;
pub use record::{Enrolled, stored_node};
pub(crate) use record::{anchors as stored_anchors, stored};

use crate::{error::Failure, machine::Machine, secrets::Secret};

/// Proves which machine asks.
#[async_trait]
pub trait Attestor: Send + Sync {
    /// The proof that this is `machine`, for a coordinator's `challenge` and the signing `request` (PKCS#10, DER).
    ///
    /// # Errors
    /// [`Failure`]; asked again with another challenge.
    async fn prove(&self, machine: &Machine, challenge: &[u8], request: &[u8]) -> Result<Proof, Failure>;
}

/// Proves by the one-time secret in a file.
#[derive(Debug, Clone)]
pub struct TokenFile(pub PathBuf);

#[async_trait]
impl Attestor for TokenFile {
    async fn prove(&self, _machine: &Machine, _challenge: &[u8], _request: &[u8]) -> Result<Proof, Failure> {
        let path = self.0.display();
        let text = std::fs::read_to_string(&self.0).map_err(|error| {
            Failure::because(format!("the one-time secret cannot be read from {path}: {error}"))
        })?;
        let secret = Secret::new(text);
        if secret.reveal().trim().is_empty() {
            return Err(Failure::because(format!("there is no one-time secret in {path}")));
        }
        Ok(token_proof(&secret))
    }
}

/// The proof by a one-time secret.
pub(crate) fn token_proof(secret: &Secret) -> Proof {
    Proof::Token(TokenProof {
        secret: secret.reveal().trim().to_owned(),
    })
}
