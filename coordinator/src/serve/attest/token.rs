//! One-time secrets: minted for each launch, kept as a hash, spent by the first enrolment. Whoever shows it is the machine.

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use smartscale_proto::{time::SharedClock, v1::enrol_request::Proof};
use zeroize::Zeroizing;

use super::{Attestor, Claim, NotAttested};

/// How long a secret may be used after it was minted.
pub const SECRET_LIFE: Duration = Duration::from_secs(15 * 60);

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
    async fn attest(&self, claim: Claim<'_>, proof: &Proof) -> Result<(), NotAttested> {
        let Proof::Token(token) = proof else {
            return Err(NotAttested::other_kind("token"));
        };
        let Some(expected) = &claim.record.secret_hash else {
            return Err(NotAttested::not_proven("no secret is open for this machine"));
        };
        if !same(hash(&token.secret).as_bytes(), expected.as_bytes()) {
            return Err(NotAttested::not_proven("another secret"));
        }
        match claim.record.secret_expires_at {
            Some(end) if self.clock.now() < end => Ok(()),
            _ => Err(NotAttested::not_proven("the secret has lapsed")),
        }
    }
}

/// Compares without telling by its duration where the first difference is.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0_u8, |found, (a, b)| found | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}
