//! The file that makes a person known to a cluster: where its coordinators are, whom to trust, and the person's own
//! certificate and key. `smartscale-coordinator init` writes the first one, `smartscale` reads it.
//!
//! ```toml
//! cluster = "k3s-demo"
//! trust = "smartscale"
//! endpoints = ["10.0.0.10:7443", "10.0.0.11:7443"]
//! ca = "-----BEGIN CERTIFICATE-----…"
//! certificate = "-----BEGIN CERTIFICATE-----…"
//! key = "-----BEGIN PRIVATE KEY-----…"
//! ```

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    files::{FileError, read_private, write_private},
    identity::{BadIdentity, Identity, Leaf, Segment},
    tls::{Anchors, Credential, TlsError, client::Expected, keys},
};

/// A person's credentials for one cluster.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// The cluster's name in certificates.
    pub cluster: Segment,
    /// The trust domain.
    pub trust: Segment,
    /// Coordinators, `host:port`.
    pub endpoints: Vec<String>,
    /// The certificate authorities to trust, PEM.
    pub ca: String,
    /// The person's certificate with its intermediates, PEM, leaf first.
    pub certificate: String,
    /// Its key, PEM.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("cluster", &self.cluster)
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

/// Credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file cannot be read, or written, or is exposed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file is not of this form.
    #[error("the credentials are not as they should be: {0}")]
    Form(String),
    /// A certificate or key in it cannot be used.
    #[error("a certificate or key of the credentials cannot be used")]
    Tls(#[from] TlsError),
    /// The certificate was handed out for another key.
    #[error("the certificate was not made for this key")]
    OtherKey,
    /// The certificate names no identity.
    #[error("the certificate of the credentials names nobody")]
    Identity(#[from] BadIdentity),
}

impl Credentials {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`CredentialsError`] saying what is wrong; also when others could read the file.
    pub fn read(path: &Path) -> Result<Self, CredentialsError> {
        let text = String::from_utf8(read_private(path)?)
            .map_err(|_| CredentialsError::Form("this is no text".to_owned()))?;
        let credentials: Self =
            toml::from_str(&text).map_err(|error| CredentialsError::Form(error.to_string()))?;
        credentials.credential()?;
        Ok(credentials)
    }

    /// Writes the file, readable by its owner alone.
    ///
    /// # Errors
    /// [`CredentialsError`] when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), CredentialsError> {
        let text = toml::to_string_pretty(self).map_err(|error| CredentialsError::Form(error.to_string()))?;
        Ok(write_private(path, text.as_bytes())?)
    }

    /// The credentials as TLS material.
    ///
    /// # Errors
    /// [`CredentialsError::Tls`] when a PEM text cannot be read.
    pub fn credential(&self) -> Result<Credential, CredentialsError> {
        Ok(Credential {
            chain: keys::certificates_from_pem(self.certificate.as_bytes())?,
            key: Some(keys::key_from_pem(self.key.as_bytes())?),
            anchors: Anchors::Certificates(keys::certificates_from_pem(self.ca.as_bytes())?),
        })
    }

    /// The coordinator to believe.
    #[must_use]
    pub fn expected(&self) -> Expected {
        Expected {
            trust: self.trust.clone(),
            cluster: self.cluster.clone(),
        }
    }

    /// Whose credentials these are.
    ///
    /// # Errors
    /// [`CredentialsError`] when the certificate names nobody.
    pub fn identity(&self) -> Result<Identity, CredentialsError> {
        Ok(Identity::from_certificate(&self.leaf()?)?)
    }

    /// When the certificate ends.
    ///
    /// # Errors
    /// [`CredentialsError`] when the certificate cannot be read.
    pub fn not_after(&self) -> Result<Timestamp, CredentialsError> {
        Ok(Leaf::from_certificate(&self.leaf()?)?.not_after)
    }

    fn leaf(&self) -> Result<rustls_pki_types::CertificateDer<'static>, CredentialsError> {
        keys::certificates_from_pem(self.certificate.as_bytes())?
            .into_iter()
            .next()
            .ok_or_else(|| CredentialsError::Form("there is no certificate".to_owned()))
    }
}

/// What an administrator hands back to whoever sent a request: everything but the key, which the person has. Nothing in
/// it is secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The cluster's name in certificates.
    pub cluster: Segment,
    /// The trust domain.
    pub trust: Segment,
    /// Coordinators, `host:port`.
    pub endpoints: Vec<String>,
    /// The certificate authorities to trust, PEM.
    pub ca: String,
    /// The person's certificate with its intermediates, PEM, leaf first.
    pub certificate: String,
}

impl Grant {
    /// Reads one.
    ///
    /// # Errors
    /// [`CredentialsError::Form`] saying what is wrong.
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        toml::from_str(text).map_err(|error| CredentialsError::Form(error.to_string()))
    }

    /// The text to hand back.
    ///
    /// # Errors
    /// [`CredentialsError::Form`] when it has no such form, which none of ours lacks.
    pub fn to_text(&self) -> Result<String, CredentialsError> {
        toml::to_string_pretty(self).map_err(|error| CredentialsError::Form(error.to_string()))
    }

    /// The person's credentials, with the key (PEM) that the certificate was asked for.
    ///
    /// # Errors
    /// [`CredentialsError`] when the certificate is of another key or names nobody.
    pub fn with_key(self, key: String) -> Result<Credentials, CredentialsError> {
        let Self {
            cluster,
            trust,
            endpoints,
            ca,
            certificate,
        } = self;
        let credentials = Credentials {
            cluster,
            trust,
            endpoints,
            ca,
            certificate,
            key,
        };
        let read = credentials.credential()?;
        let own = read.chain.first().zip(read.key.as_ref());
        if !own.is_some_and(|(leaf, key)| keys::belong(leaf, key)) {
            return Err(CredentialsError::OtherKey);
        }
        credentials.identity()?;
        Ok(credentials)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn credentials() -> Credentials {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(
            "spiffe://smartscale/cluster/demo/admin/viewer/jo"
                .try_into()
                .unwrap(),
        )];
        let certificate = params.self_signed(&key).unwrap().pem();
        Credentials {
            cluster: "demo".parse().unwrap(),
            trust: "smartscale".parse().unwrap(),
            endpoints: vec!["127.0.0.1:7443".to_owned()],
            ca: certificate.clone(),
            certificate,
            key: key.serialize_pem(),
        }
    }

    #[test]
    fn credentials_are_read_back_as_they_were_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        credentials().write(&path).unwrap();
        let read = Credentials::read(&path).unwrap();
        assert_eq!(
            read.identity().unwrap().to_string(),
            "spiffe://smartscale/cluster/demo/admin/viewer/jo"
        );
        assert!(read.not_after().unwrap() > Timestamp::UNIX_EPOCH);
    }

    #[test]
    fn a_certificate_for_another_key_is_not_taken() {
        let Credentials {
            cluster,
            trust,
            endpoints,
            ca,
            certificate,
            key,
        } = credentials();
        let grant = Grant {
            cluster,
            trust,
            endpoints,
            ca,
            certificate,
        };
        let grant = Grant::parse(&grant.to_text().unwrap()).unwrap();
        assert!(grant.clone().with_key(key).is_ok());
        let other = KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(grant.with_key(other), Err(CredentialsError::OtherKey)));
    }

    #[test]
    fn an_unknown_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials.toml");
        let mut text = toml::to_string(&credentials()).unwrap();
        text.insert_str(0, "endpoint = \"x\"\n");
        write_private(&path, text.as_bytes()).unwrap();
        let error = Credentials::read(&path).unwrap_err().to_string();
        assert!(error.contains("endpoint"), "{error}");
    }
}
