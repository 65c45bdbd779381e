//! The certificate authority of one cluster: it decides about names, lifetimes and keys, and nothing else does.
//!
//! ```text
//!   ca.key ─┐
//!   ca.crt ─┴─▶ Authority ──▶ coordinator  (server, 24 h, rotated by us)
//!   (its own certificate first,  ├──▶ agent/ID   (client, 1–24 h, renewed at half-life)
//!    then further anchors)       └──▶ admin/…    (client)
//! ```
//! During a rollover `ca.crt` holds two certificates: ours signs, both are trusted, and everybody who gets a
//! certificate is told both. Key and certificates may be replaced while the coordinator serves
//! ([`replace`](Authority::replace)); whoever has to act on it hears it by [`changes`](Authority::changes).
//!
//! - `held`: the key and the certificates of one moment
//! - [`files`], [`vault`]: where they are kept, the key sealed by KMS if somebody wants it to be
//! - [`rollover`]: from one authority to the next, step by step
//!
//! Lifetimes are counted by the machine's own clock, since that is what every TLS handshake judges by, also where the
//! coordinator's loops run on another one (a simulation).

pub mod files;
mod held;
pub mod rollover;
pub mod vault;

use std::{path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SigningKey as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use smartscale_proto::{
    files::FileError,
    identity::{Identity, Party, Role, Segment},
    time::{SharedClock, SystemClock, to_wire},
    tls::{Anchors, Credential, TlsError, keys},
    v1,
};
use tokio::sync::watch;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

pub use self::held::Held;
use super::csr::RequestedKey;
use crate::state::records::Signed;

/// How far a certificate's life begins in the past: machines whose clocks are behind by less, or the coordinator's own
/// ahead by less, can use it at once. An hour costs nothing, since nobody had the key then.
pub const BACKDATED: Duration = Duration::from_secs(3600);
/// Life of the coordinator's own certificate.
const SERVER_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Life of a new authority: ten years.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Whose certificates an authority signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The trust domain.
    pub trust: Segment,
    /// The cluster.
    pub cluster: Segment,
}

impl Names {
    /// The identity of `party` in this cluster.
    #[must_use]
    pub fn identity(&self, party: Party) -> Identity {
        Identity {
            trust: self.trust.clone(),
            cluster: self.cluster.clone(),
            party,
        }
    }

    /// Whether `identity` belongs to this trust domain and cluster.
    #[must_use]
    pub fn own(&self, identity: &Identity) -> bool {
        identity.trust == self.trust && identity.cluster == self.cluster
    }
}

/// Life of agents' certificates: 1 to 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateLife(Duration);

impl CertificateLife {
    /// A validated life.
    ///
    /// # Errors
    /// [`AuthorityError::Life`] outside of 1 to 24 hours.
    pub fn new(life: Duration) -> Result<Self, AuthorityError> {
        if (3600..=24 * 3600).contains(&life.as_secs()) {
            Ok(Self(life))
        } else {
            Err(AuthorityError::Life(life))
        }
    }

    /// A life that no installation may have, so that a test sees its end.
    #[cfg(test)]
    pub(crate) fn of_a_test(life: Duration) -> Self {
        Self(life)
    }

    /// The life.
    #[must_use]
    pub fn get(self) -> Duration {
        self.0
    }
}

impl Default for CertificateLife {
    /// 12 hours.
    fn default() -> Self {
        Self(Duration::from_secs(12 * 3600))
    }
}

/// What is wrong with the authority or a certificate that it should sign.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A life out of bounds.
    #[error("a certificate's life of {0:?} is out of bounds: 1 to 24 hours are allowed")]
    Life(Duration),
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The files hold something else.
    #[error("the authority's files cannot be used")]
    Tls(#[from] TlsError),
    /// The key cannot be sealed or opened.
    #[error("{} cannot be used: {source}", .path.display())]
    Vault {
        /// The key's file.
        path: PathBuf,
        /// Why.
        source: vault::VaultError,
    },
    /// No certificate of `ca.crt` belongs to the key.
    #[error("none of the certificates belongs to the authority's key")]
    Mismatch,
    /// The authority's own certificate has ended or does not allow signing.
    #[error("the authority's certificate cannot sign: {0}")]
    Unusable(String),
    /// Signing failed.
    #[error("a certificate cannot be signed")]
    Signing(#[from] rcgen::Error),
}

/// A certificate with what its holder needs beside it.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then the authority's own.
    pub chain: Vec<CertificateDer<'static>>,
    /// Everybody to trust, the one that signed first.
    pub anchors: Vec<CertificateDer<'static>>,
    /// When it was signed.
    pub issued_at: Timestamp,
    /// When the leaf ends.
    pub not_after: Timestamp,
}

impl Issued {
    /// What the node record keeps of it.
    #[must_use]
    pub fn signed(&self) -> Signed {
        let anchors = self.anchors.iter();
        Signed {
            issued_at: self.issued_at,
            not_after: self.not_after,
            anchors: anchors
                .map(|anchor| hex::encode(keys::fingerprint(anchor)))
                .collect(),
        }
    }
}

impl From<Issued> for v1::Certificate {
    fn from(issued: Issued) -> Self {
        let der = |list: Vec<CertificateDer<'static>>| list.iter().map(|one| one.to_vec()).collect();
        Self {
            chain_der: der(issued.chain),
            trust_anchors_der: der(issued.anchors),
            not_after: Some(to_wire(issued.not_after)),
        }
    }
}

/// A certificate authority with its key.
pub struct Authority {
    names: Names,
    held: watch::Sender<Arc<Held>>,
    life: CertificateLife,
    clock: SharedClock,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority")
            .field("names", &self.names)
            .field("held", &*self.held.borrow())
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority with a fresh P-256 key, valid for ten years, kept nowhere yet.
    ///
    /// # Errors
    /// [`AuthorityError::Signing`] when the system gives no randomness.
    pub fn create(names: Names) -> Result<(Self, KeyPair), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let now = Timestamp::now();
        live(&mut params, now, now + signed(AUTHORITY_LIFE));
        params.serial_number = Some(serial());
        params.distinguished_name = DistinguishedName::new();
        // Two authorities of the same cluster (rollover) must differ in name as well.
        let mark = hex::encode(rand::random::<[u8; 4]>());
        params.distinguished_name.push(
            DnType::CommonName,
            common_name(&format!("SmartScale {} {mark}", names.cluster)),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?.der().clone();
        let copy = KeyPair::try_from(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
            key.serialize_der(),
        )))?;
        Ok((Self::new(names, key, vec![certificate])?, copy))
    }

    /// An authority whose key is `key`. One of `certificates` must be its own; all are trusted.
    ///
    /// # Errors
    /// [`AuthorityError::Mismatch`] or [`AuthorityError::Unusable`].
    pub fn new(
        names: Names,
        key: KeyPair,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, AuthorityError> {
        Ok(Self::of(names, Held::new(key, certificates)?))
    }

    /// An authority that signs with what is `held`.
    #[must_use]
    pub fn of(names: Names, held: Held) -> Self {
        Self {
            names,
            held: watch::Sender::new(Arc::new(held)),
            life: CertificateLife::default(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Signs with another key, or trusts others, from now on. Whether anything is different.
    pub fn replace(&self, held: Held) -> bool {
        self.held.send_if_modified(|present| {
            let differs = !present.is_same(&held);
            if differs {
                *present = Arc::new(held);
            }
            differs
        })
    }

    /// Tells of each replacement.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Arc<Held>> {
        self.held.subscribe()
    }

    /// The key and the certificates of this moment.
    #[must_use]
    pub fn held(&self) -> Arc<Held> {
        Arc::clone(&self.held.borrow())
    }

    /// Agents' certificates live for `life`.
    #[must_use]
    pub fn with_life(mut self, life: CertificateLife) -> Self {
        self.life = life;
        self
    }

    /// Lives are counted by `clock`; for tests that need a certificate of another time.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.clock = clock;
        self
    }

    /// Whose certificates it signs.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Everybody to trust: its own certificate first and, during a rollover, the other's.
    #[must_use]
    pub fn anchors(&self) -> Vec<CertificateDer<'static>> {
        self.held().anchors().to_vec()
    }

    /// SHA-256 of its own certificate: what a machine pins before its first contact.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        keys::fingerprint(self.held().certificate())
    }

    /// Signs an agent's key for the machine `instance`.
    ///
    /// # Errors
    /// [`AuthorityError::Signing`] or [`AuthorityError::Unusable`].
    pub fn agent(&self, instance: Segment, key: &RequestedKey) -> Result<Issued, AuthorityError> {
        self.sign(
            Party::Agent { instance },
            ExtendedKeyUsagePurpose::ClientAuth,
            key,
            self.life.get(),
        )
    }

    /// Signs a person's key.
    ///
    /// # Errors
    /// As [`agent`](Self::agent).
    pub fn person(
        &self,
        role: Role,
        name: Segment,
        key: &RequestedKey,
        life: Duration,
    ) -> Result<Issued, AuthorityError> {
        let party = Party::Admin { role, name };
        self.sign(party, ExtendedKeyUsagePurpose::ClientAuth, key, life)
    }

    /// Signs what is no certificate: the end of the audit's chain. Such a text must begin so that no certificate begins
    /// like it.
    ///
    /// # Errors
    /// [`AuthorityError::Signing`].
    pub fn seal(&self, text: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        Ok(self.held().issuer().key().sign(text)?)
    }

    /// A fresh credential of the coordinator itself.
    ///
    /// # Errors
    /// As [`agent`](Self::agent).
    pub fn coordinator(&self) -> Result<Credential, AuthorityError> {
        self.fresh(
            Party::Coordinator,
            ExtendedKeyUsagePurpose::ServerAuth,
            SERVER_LIFE,
        )
        .map(|(it, _)| it)
    }

    /// A fresh client credential for `party` that lives for `life`, with the time of its end.
    ///
    /// # Errors
    /// As [`agent`](Self::agent).
    pub fn client(&self, party: Party, life: Duration) -> Result<(Credential, Timestamp), AuthorityError> {
        self.fresh(party, ExtendedKeyUsagePurpose::ClientAuth, life)
    }

    fn fresh(
        &self,
        party: Party,
        usage: ExtendedKeyUsagePurpose,
        life: Duration,
    ) -> Result<(Credential, Timestamp), AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let issued = self.sign(party, usage, &key, life)?;
        let credential = Credential {
            chain: issued.chain,
            key: Some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
                key.serialize_der(),
            ))),
            anchors: Anchors::Certificates(issued.anchors),
        };
        Ok((credential, issued.not_after))
    }

    fn sign(
        &self,
        party: Party,
        usage: ExtendedKeyUsagePurpose,
        key: &impl PublicKeyData,
        life: Duration,
    ) -> Result<Issued, AuthorityError> {
        let now = self.clock.now();
        let held = self.held();
        let ends = held.ends();
        if now >= ends {
            return Err(AuthorityError::Unusable(format!("it ended at {ends}")));
        }
        // Certificates hold whole seconds.
        let end = (now + signed(life)).min(ends).as_second();
        let not_after = Timestamp::from_second(end).unwrap_or(ends);
        let identity = self.names.identity(party);
        let mut params = CertificateParams::default();
        live(&mut params, now, not_after);
        params.serial_number = Some(serial());
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name(&subject(&identity.party)));
        params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        let leaf = params.signed_by(key, held.issuer())?.der().clone();
        Ok(Issued {
            chain: vec![leaf, held.certificate().clone()],
            anchors: held.anchors().to_vec(),
            issued_at: now,
            not_after,
        })
    }
}

/// When a certificate (DER) of ours was signed, by the clock of its authority; `None` for what is no certificate.
#[must_use]
pub fn signed_at(certificate: &[u8]) -> Option<Timestamp> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let begins = Timestamp::from_second(parsed.validity().not_before.timestamp()).ok()?;
    begins.checked_add(signed(BACKDATED)).ok()
}

/// The common name: for people who look at a certificate; nothing reads it.
fn subject(party: &Party) -> String {
    match party {
        Party::Coordinator => "coordinator".to_owned(),
        Party::Agent { instance } => instance.to_string(),
        Party::Admin { role, name } => format!("{name} ({role})"),
    }
}

/// A common name has at most 64 characters (RFC 5280, ub-common-name).
fn common_name(text: &str) -> String {
    text.chars().take(64).collect()
}

/// 20 bytes at most and positive (RFC 5280, section 4.1.2.2); random, so that none can be foreseen.
fn serial() -> SerialNumber {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// Sets a life that began [`BACKDATED`] before `now`. Certificates hold whole seconds.
fn live(params: &mut CertificateParams, now: Timestamp, not_after: Timestamp) {
    let since_epoch = |time: Timestamp| Duration::from_secs(u64::try_from(time.as_second()).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now - signed(BACKDATED));
    params.not_after = epoch + since_epoch(not_after);
}

#[cfg(test)]
pub(super) mod tests;
