//! Proofs that a caller is the machine that it says it is. Where the coordinator mints a one-time secret for each
//! launch, whoever shows it is the machine.

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use smartscale_proto::{time::SharedClock, v1::enrol_request::Proof};
use zeroize::Zeroizing;

use crate::state::records::NodeRecord;

/// How long a secret may be used after it was minted.
pub const SECRET_LIFE: Duration = Duration::from_secs(15 * 60);

/// A proof that does not hold. The caller is not told which part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the proof does not hold")]
pub struct NotProven {
    /// What is wrong, for the log and the audit.
    pub why: &'static str,
}

/// What a proof is bound to.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The record of the machine that the caller claims to be.
    pub record: &'a NodeRecord,
    /// The single-use challenge of this attempt.
    pub challenge: &'a [u8; 32],
    /// The request (DER) whose key is to be signed.
    pub request: &'a [u8],
}

/// Judges proofs.
#[async_trait]
pub trait Attestor: Send + Sync {
    /// Whether `proof` shows that the caller is the machine of the claim.
    async fn attest(&self, claim: Claim<'_>, proof: &Proof) -> Result<(), NotProven>;
}

/// A minted secret.
pub struct Secret {
    /// What the machine is handed: URL-safe base64 of 32 random bytes, without padding.
    pub text: Zeroizing<String>,
    /// What the node record keeps: SHA-256 of that text, in hexadecimal.
    pub hash: String,
}

/// Mints a secret.
#[must_use]
pub fn mint_secret() -> Secret {
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()));
    let hash = hash(&text);
    Secret { text, hash }
}

/// SHA-256 of a secret's text, in hexadecimal. The secret has 256 random bits, so no salt and no slow hash is needed.
#[must_use]
pub fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The attestor of one-time secrets.
pub struct TokenAttestor {
    clock: SharedClock,
}

impl TokenAttestor {
    /// Expiry is judged by `clock`.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl Attestor for TokenAttestor {
    async fn attest(&self, claim: Claim<'_>, proof: &Proof) -> Result<(), NotProven> {
        let Proof::Token(token) = proof;
        let Some(expected) = &claim.record.secret_hash else {
            return Err(NotProven {
                why: "no secret is open for this machine",
            });
        };
        if !same(hash(&token.secret).as_bytes(), expected.as_bytes()) {
            return Err(NotProven {
                why: "another secret",
            });
        }
        match claim.record.secret_expires_at {
            Some(end) if self.clock.now() < end => Ok(()),
            _ => Err(NotProven {
                why: "the secret has lapsed",
            }),
        }
    }
}

/// Compares without telling by its duration where the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0_u8, |found, (a, b)| found | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}
