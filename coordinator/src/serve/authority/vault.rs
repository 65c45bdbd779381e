//! The authority's key file: the key as it is, or sealed by a key management service that has to be asked to open it.
//!
//! ```text
//!   ca.key   PRIVATE KEY ──────────────────────────────▶ the key
//!            SEALED PRIVATE KEY ──▶ Vault (AWS KMS) ───▶ the key, in memory alone
//! ```
//! Whoever copies a sealed file, from a disk or from a backup, has nothing without the right to use the service's key, and
//! each use of that is in the service's own log.

use std::path::Path;

use async_trait::async_trait;
use rcgen::KeyPair;
use smartscale_proto::{
    files::{read_private, write_private},
    tls::keys,
};
use x509_parser::pem::Pem;
use zeroize::Zeroizing;

use super::AuthorityError;

/// What a sealed key's block is labelled.
const LABEL: &str = "SEALED PRIVATE KEY";

/// Seals small secrets with keys that never leave it.
#[async_trait]
pub trait Vault: Send + Sync {
    /// Seals `secret`, of 4 KiB at most, with the service's key of this name.
    ///
    /// # Errors
    /// [`VaultError`].
    async fn seal(&self, with: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError>;

    /// Opens what was sealed.
    ///
    /// # Errors
    /// [`VaultError`].
    async fn open(&self, sealed: &[u8]) -> Result<Opened, VaultError>;
}

/// What was sealed, and with which of the service's keys.
pub struct Opened {
    /// The secret.
    pub secret: Zeroizing<Vec<u8>>,
    /// Seals what takes its place.
    pub with: String,
}

/// Nothing is sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It does not do it, and will not later.
    #[error("the key management service refuses: {0}")]
    Refused(String),
    /// It does not answer, or not at this moment.
    #[error("the key management service does not answer: {0}")]
    Unavailable(String),
    /// There is none.
    #[error("there is no key management service here")]
    Absent,
}

/// Where no service is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVault;

#[async_trait]
impl Vault for NoVault {
    async fn seal(&self, _: &str, _: &[u8]) -> Result<Vec<u8>, VaultError> {
        Err(VaultError::Absent)
    }

    async fn open(&self, _: &[u8]) -> Result<Opened, VaultError> {
        Err(VaultError::Absent)
    }
}

/// A key of an authority, with what seals it on disk.
pub struct KeptKey {
    pair: KeyPair,
    sealed_with: Option<String>,
}

impl KeptKey {
    /// `None`: it is written as it is.
    #[must_use]
    pub fn new(pair: KeyPair, sealed_with: Option<String>) -> Self {
        Self { pair, sealed_with }
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`AuthorityError`] for a file that others may read or that holds no key, and for one that `vault` does not open.
    pub async fn read(path: &Path, vault: &dyn Vault) -> Result<Self, AuthorityError> {
        let content = Zeroizing::new(read_private(path)?);
        let Some(sealed) = sealed(&content) else {
            return Ok(Self::new(pair(&content)?, None));
        };
        let unopened = |source| AuthorityError::Vault {
            path: path.to_owned(),
            source,
        };
        let opened = vault.open(&sealed).await.map_err(unopened)?;
        Ok(Self::new(pair(&opened.secret)?, Some(opened.with)))
    }

    /// Writes it in place of what is there, sealed if it is to be.
    ///
    /// # Errors
    /// [`AuthorityError`]; what is there is untouched then.
    pub async fn write(&self, path: &Path, vault: &dyn Vault) -> Result<(), AuthorityError> {
        let key = Zeroizing::new(self.pair.serialize_pem());
        let Some(with) = &self.sealed_with else {
            return Ok(write_private(path, key.as_bytes())?);
        };
        let sealed = vault.seal(with, key.as_bytes()).await;
        let sealed = sealed.map_err(|source| AuthorityError::Vault {
            path: path.to_owned(),
            source,
        })?;
        Ok(write_private(path, keys::to_pem(LABEL, &sealed).as_bytes())?)
    }

    /// The key.
    #[must_use]
    pub fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The key, to sign with.
    #[must_use]
    pub fn into_pair(self) -> KeyPair {
        self.pair
    }

    /// What seals it.
    #[must_use]
    pub fn sealed_with(&self) -> Option<&str> {
        self.sealed_with.as_deref()
    }
}

/// What a file holds if that is sealed.
pub(super) fn sealed(content: &[u8]) -> Option<Vec<u8>> {
    Pem::iter_from_buffer(content)
        .flatten()
        .find(|block| block.label == LABEL)
        .map(|block| block.contents)
}

fn pair(pem: &[u8]) -> Result<KeyPair, AuthorityError> {
    Ok(KeyPair::try_from(&keys::key_from_pem(pem)?)?)
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A service that turns bits over, and can be away.
    #[derive(Default)]
    pub(crate) struct Mirror {
        pub(crate) away: AtomicBool,
    }

    #[async_trait]
    impl Vault for Mirror {
        async fn seal(&self, with: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
            self.answers()?;
            let name = [&[u8::try_from(with.len()).unwrap_or_default()], with.as_bytes()].concat();
            Ok(name.into_iter().chain(secret.iter().map(|byte| !byte)).collect())
        }

        async fn open(&self, sealed: &[u8]) -> Result<Opened, VaultError> {
            self.answers()?;
            let damaged = || VaultError::Refused("damaged".to_owned());
            let (length, rest) = sealed.split_first().ok_or_else(damaged)?;
            let (with, secret) = rest.split_at_checked(usize::from(*length)).ok_or_else(damaged)?;
            Ok(Opened {
                secret: Zeroizing::new(secret.iter().map(|byte| !byte).collect()),
                with: String::from_utf8_lossy(with).into_owned(),
            })
        }
    }

    impl Mirror {
        fn answers(&self) -> Result<(), VaultError> {
            if self.away.load(Ordering::Relaxed) {
                return Err(VaultError::Unavailable("away".to_owned()));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use std::sync::atomic::Ordering;

    use rcgen::PublicKeyData as _;

    use super::{testing::Mirror, *};

    fn key() -> KeyPair {
        KeyPair::generate().unwrap()
    }

    #[tokio::test]
    async fn a_sealed_key_is_not_on_disk_and_comes_back_with_its_seal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        let kept = KeptKey::new(key(), Some("alias/ca".to_owned()));
        kept.write(&path, &Mirror::default()).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN SEALED PRIVATE KEY-----\n"), "{text}");
        assert!(keys::key_from_pem(text.as_bytes()).is_err());
        let read = KeptKey::read(&path, &Mirror::default()).await.unwrap();
        assert_eq!(read.sealed_with(), Some("alias/ca"));
        assert_eq!(read.pair().der_bytes(), kept.pair().der_bytes());
    }

    #[tokio::test]
    async fn a_key_that_is_not_sealed_needs_no_service() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        KeptKey::new(key(), None).write(&path, &NoVault).await.unwrap();
        let read = KeptKey::read(&path, &NoVault).await.unwrap();
        assert_eq!(read.sealed_with(), None);
    }

    #[tokio::test]
    async fn a_service_that_is_away_costs_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.key");
        let (vault, plain) = (Mirror::default(), KeptKey::new(key(), None));
        plain.write(&path, &vault).await.unwrap();
        let before = std::fs::read(&path).unwrap();
        vault.away.store(true, Ordering::Relaxed);
        let sealed = KeptKey::new(plain.into_pair(), Some("alias/ca".to_owned()));
        let error = sealed.write(&path, &vault).await.unwrap_err();
        assert!(matches!(error, AuthorityError::Vault { .. }), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        vault.away.store(false, Ordering::Relaxed);
        sealed.write(&path, &vault).await.unwrap();
        vault.away.store(true, Ordering::Relaxed);
        let error = KeptKey::read(&path, &vault).await.err().unwrap();
        assert!(error.to_string().contains("ca.key"), "{error}");
    }
}
