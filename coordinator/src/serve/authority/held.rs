//! What an authority holds at one moment: its key, its own certificate, and everybody whom it has trusted.

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use super::AuthorityError;

/// A key with certificates.
pub struct Held {
    issuer: Issuer<'static, KeyPair>,
    /// Its own first.
    anchors: Vec<CertificateDer<'static>>,
    ends: Timestamp,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Held")
            .field("anchors", &self.anchors.len())
            .field("ends", &self.ends)
            .finish_non_exhaustive()
    }
}

impl Held {
    /// One of `certificates` must be the key's own; all are trusted.
    ///
    /// # Errors
    /// [`AuthorityError::Mismatch`] or [`AuthorityError::Unusable`].
    pub fn new(key: KeyPair, certificates: Vec<CertificateDer<'static>>) -> Result<Self, AuthorityError> {
        let own = key.subject_public_key_info();
        let mut found = None;
        for (index, certificate) in certificates.iter().enumerate() {
            let parsed = parsed(certificate)?;
            if parsed.public_key().raw == own {
                let ends = Timestamp::from_second(parsed.validity().not_after.timestamp())
                    .map_err(|error| AuthorityError::Unusable(error.to_string()))?;
                found = Some((index, ends));
            }
        }
        let (index, ends) = found.ok_or(AuthorityError::Mismatch)?;
        let mut anchors = certificates;
        let own = anchors.remove(index);
        let issuer = Issuer::from_ca_cert_der(&own, key)?;
        anchors.insert(0, own);
        Ok(Self {
            issuer,
            anchors,
            ends,
        })
    }

    /// Signs.
    #[must_use]
    pub fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// The certificate of the key.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        // There is one: `new` put it there.
        &self.anchors[0]
    }

    /// Everybody to trust, the key's own first.
    #[must_use]
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    /// When its own certificate ends.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        self.ends
    }

    /// Whether the same key signs and the same authorities are trusted.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.anchors == other.anchors
    }

    /// Whether one of the trusted authorities signed this certificate (DER). Its life is not looked at.
    #[must_use]
    pub fn signed(&self, certificate: &[u8]) -> bool {
        let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
            return false;
        };
        self.anchors.iter().any(|anchor| {
            parsed(anchor).is_ok_and(|anchor| {
                anchor.subject().as_raw() == certificate.issuer().as_raw()
                    && certificate.verify_signature(Some(anchor.public_key())).is_ok()
            })
        })
    }
}

fn parsed<'a>(certificate: &'a CertificateDer<'static>) -> Result<X509Certificate<'a>, AuthorityError> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| AuthorityError::Unusable(error.to_string()))?;
    if !parsed.is_ca() {
        return Err(AuthorityError::Unusable("it is no authority's".to_owned()));
    }
    Ok(parsed)
}
