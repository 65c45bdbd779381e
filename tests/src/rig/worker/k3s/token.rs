//! K3s' tokens in their secure form (<https://docs.k3s.io/cli/token>).

use anyhow::{Context as _, bail};
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

/// What a token says: whose CA it expects, and who it lets in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the CA's certificate as it is served, in hex.
    pub ca_hash: String,
    /// What it lets in.
    pub credential: Credential,
}

/// The part after `::`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// `USER:SECRET`, for basic authentication.
    Secret(String),
    /// A bootstrap token, `ID.SECRET`, for bearer authentication.
    Bootstrap(String),
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// It is not in the secure form.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (hash, credential) = text
            .trim()
            .strip_prefix("K10")
            .and_then(|rest| rest.split_once("::"))
            .context("the token is not in the form K10<hash>::<credential>")?;
        let credential = if credential.contains(':') {
            Credential::Secret(credential.to_owned())
        } else if credential.contains('.') {
            Credential::Bootstrap(credential.to_owned())
        } else {
            bail!("the token's credential is neither USER:SECRET nor ID.SECRET");
        };
        Ok(Self {
            ca_hash: hash.to_owned(),
            credential,
        })
    }
}

impl Credential {
    /// The header `Authorization`.
    #[must_use]
    pub fn header(&self) -> String {
        match self {
            Self::Secret(pair) => {
                format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
            }
            Self::Bootstrap(token) => format!("Bearer {token}"),
        }
    }

    /// The credential of such a header.
    #[must_use]
    pub fn of_header(header: &str) -> Option<Self> {
        if let Some(token) = header.strip_prefix("Bearer ") {
            return Some(Self::Bootstrap(token.to_owned()));
        }
        let encoded = header.strip_prefix("Basic ")?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
        Some(Self::Secret(String::from_utf8(decoded).ok()?))
    }
}

/// The hash of a CA as it stands in tokens.
#[must_use]
pub fn hash(ca: &str) -> String {
    Sha256::digest(ca.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        reason = "a test that cannot read its own text has failed"
    )]

    use super::*;

    #[test]
    fn both_kinds_of_token_survive_the_header() {
        for credential in [
            Credential::Secret("node:s3cr3t".into()),
            Credential::Bootstrap("abcdef.0123456789abcdef".into()),
        ] {
            assert_eq!(Credential::of_header(&credential.header()), Some(credential));
        }
        let token = Token::parse("K10ff::abcdef.0123456789abcdef\n").unwrap();
        assert_eq!(
            token.credential,
            Credential::Bootstrap("abcdef.0123456789abcdef".into())
        );
        assert!(Token::parse("s3cr3t").is_err());
    }
}
