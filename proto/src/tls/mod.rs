//! Mutual TLS whose material may change while connections are open.
//!
//! ```text
//!   Credential ──set──▶ Rotating ──current──▶ server::Acceptor   (per handshake)
//!   (chain, key,                    └───────▶ client::Dialer     (per connection)
//!    trust anchors)
//! ```
//! Each handshake takes the credential of that moment; open connections keep theirs. TLS 1.3 alone is spoken:
//! both ends are ours.

pub mod client;
pub mod keys;
pub mod places;
pub mod server;

use std::sync::Arc;

use rustls::{
    RootCertStore,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::sync::watch;

/// A certificate, its key, and whom its holder trusts.
#[derive(Debug)]
pub struct Credential {
    /// The holder's certificate and its intermediates, leaf first. Empty for a caller that has none yet.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first certificate.
    pub key: Option<PrivateKeyDer<'static>>,
    /// Whom to trust on the other side.
    pub anchors: Anchors,
}

impl Clone for Credential {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.as_ref().map(PrivateKeyDer::clone_key),
            anchors: self.anchors.clone(),
        }
    }
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchors {
    /// These certificate authorities.
    Certificates(Vec<CertificateDer<'static>>),
    /// The certificate authority whose certificate (DER) has one of these SHA-256 and which the server presents itself:
    /// all that a machine needs to be told before its first contact. Two are known while authorities change.
    Fingerprints(Vec<[u8; 32]>),
}

/// What is wrong with TLS material.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate or the key cannot be used.
    #[error("the certificate or its key cannot be used")]
    Material(#[source] rustls::Error),
    /// The trust anchors cannot be used.
    #[error("the trust anchors cannot be used: {0}")]
    Anchors(String),
    /// A server needs a certificate of its own and named trust anchors.
    #[error("a server needs a certificate, a key and trust anchors")]
    NotForServer,
    /// A key could not be made or read.
    #[error("the key cannot be made or read")]
    Key(#[source] rcgen::Error),
    /// A PEM text holds something else.
    #[error("{0}")]
    Pem(String),
}

/// A credential that may be replaced at any time.
#[derive(Debug, Clone)]
pub struct Rotating(Arc<watch::Sender<Arc<Credential>>>);

impl Rotating {
    /// Starts with `credential`.
    #[must_use]
    pub fn new(credential: Credential) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(credential))))
    }

    /// The credential of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Credential> {
        Arc::clone(&self.0.borrow())
    }

    /// Replaces the credential for every handshake from now on.
    pub fn set(&self, credential: Credential) {
        self.0.send_replace(Arc::new(credential));
    }

    /// Tells of each replacement.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Credential>> {
        self.0.subscribe()
    }
}

/// The one provider of cryptography of all programs.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes [`provider`] the process's default; a program's first act. Harmless when repeated.
pub fn install_provider() {
    // An error says that a default is there already, which is what is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

fn root_store(certificates: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store
            .add(certificate.clone())
            .map_err(|error| TlsError::Anchors(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(TlsError::Anchors("there are none".to_owned()));
    }
    Ok(store)
}

#[cfg(test)]
mod tests;
