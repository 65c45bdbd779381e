//! The agent's certificate and its key as they lie on the disk: one file, so that they always fit together.

use std::{io, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use smartscale_proto::{
    time::{age, from_wire},
    tls::{Anchors, Credential, keys},
    v1,
};
use zeroize::Zeroize as _;

use crate::{
    error::Failure,
    machine::Machine,
    secrets::Secret,
    state::{StateFolder, read_json, write_json},
};

const FILE: &str = "enrolment.json";
const PENDING: &str = "enrolment-key.json";
const RENEWAL: &str = "renewal-key.json";

/// What enrolment made of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The machine, as it knew itself then.
    pub machine: Machine,
    /// The boot in which that was.
    pub boot_id: String,
    /// Name of the Kubernetes node.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// How it was bought, by the launch record.
    pub market: String,
    /// When the certificate came, by this machine's clock.
    pub issued_at: Timestamp,
    /// When it ends.
    pub not_after: Timestamp,
}

impl Enrolled {
    /// Time until half of the certificate's life is over.
    #[must_use]
    pub fn until_renewal(&self, now: Timestamp) -> Duration {
        let half = age(self.issued_at, self.not_after) / 2;
        let at = self
            .issued_at
            .checked_add(SignedDuration::try_from(half).unwrap_or_default());
        at.map_or(Duration::ZERO, |at| age(now, at))
    }
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Record {
    enrolled: Enrolled,
    key: String,
    chain: String,
    anchors: String,
}

impl Drop for Record {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// A key that is to be signed, kept before it is: an agent that dies between the coordinator's yes and its own disk must
/// come back with the same key, since no other is signed without a proof.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    key: String,
    request: Vec<u8>,
    #[serde(skip)]
    signed: bool,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl Pending {
    /// The key to enrol with: the one of the present certificate, since a coordinator signs again what it signed before, also
    /// after its end; else the one that waits for its enrolment; else a fresh one.
    pub(super) fn take(folder: &dyn StateFolder, machine: &Machine) -> Result<Self, Failure> {
        // A disk that was copied from another machine brings that one's key.
        let own = |record: &Record| record.enrolled.machine.id == machine.id;
        if let Some(record) = read_json::<Record>(folder, FILE).filter(own) {
            match Self::of(&record.key) {
                Ok(pending) => return Ok(pending),
                Err(error) => tracing::error!(%error, "the stored key cannot be used"),
            }
        }
        Self::waiting(folder, PENDING)
    }

    /// The key of a renewal. One whose renewal was not answered is asked for again: the coordinator knows of two keys of a
    /// machine, the present one and the next.
    pub(super) fn renewal(folder: &dyn StateFolder) -> Result<Self, Failure> {
        Self::waiting(folder, RENEWAL)
    }

    fn waiting(folder: &dyn StateFolder, name: &str) -> Result<Self, Failure> {
        if let Some(pending) = read_json(folder, name) {
            return Ok(pending);
        }
        let (key, request) = keys::key_and_request()?;
        let pending = Self {
            key: keys::to_pem("PRIVATE KEY", key.secret_der()),
            request,
            signed: false,
        };
        write_json(folder, name, &pending)?;
        Ok(pending)
    }

    fn of(key: &str) -> Result<Self, Failure> {
        Ok(Self {
            key: key.to_owned(),
            request: keys::request_of(key.as_bytes())?,
            signed: true,
        })
    }

    /// Whether a coordinator signed this key before.
    pub(super) fn was_signed(&self) -> bool {
        self.signed
    }

    /// The signing request (PKCS#10, DER).
    pub(super) fn request(&self) -> &[u8] {
        &self.request
    }
}

/// The stored enrolment of a certificate that is still good at `now`, with its credential.
pub(super) fn load(folder: &dyn StateFolder, now: Timestamp) -> Option<(Enrolled, Credential)> {
    let record: Record = read_json(folder, FILE)?;
    if record.enrolled.not_after <= now {
        tracing::warn!(not_after = %record.enrolled.not_after, "the stored certificate has expired");
        return None;
    }
    match credential(&record) {
        Ok(credential) => Some((record.enrolled.clone(), credential)),
        Err(error) => {
            tracing::error!(%error, "the stored certificate cannot be used");
            None
        }
    }
}

/// The stored enrolment, also when its certificate has ended since.
pub(crate) fn stored(folder: &dyn StateFolder) -> Option<Enrolled> {
    let record: Record = read_json(folder, FILE)?;
    Some(record.enrolled.clone())
}

/// Whom the last certificate's coordinator said to trust, also when that certificate has ended since.
pub(crate) fn anchors(folder: &dyn StateFolder) -> Option<Anchors> {
    let record: Record = read_json(folder, FILE)?;
    let anchors = keys::certificates_from_pem(record.anchors.as_bytes()).ok()?;
    Some(Anchors::Certificates(anchors))
}

/// The node that this machine was enrolled as, also when its certificate has expired since.
#[must_use]
pub fn stored_node(folder: &dyn StateFolder) -> Option<String> {
    stored(folder).map(|enrolled| enrolled.node)
}

/// Stores what the coordinator signed for `pending`.
pub(super) fn save(
    folder: &dyn StateFolder,
    enrolled: Enrolled,
    pending: &Pending,
    certificate: &v1::Certificate,
) -> Result<Credential, Failure> {
    let pem = |ders: &[Vec<u8>]| {
        ders.iter()
            .map(|der| keys::to_pem("CERTIFICATE", der))
            .collect::<String>()
    };
    let record = Record {
        enrolled,
        key: pending.key.clone(),
        chain: pem(&certificate.chain_der),
        anchors: pem(&certificate.trust_anchors_der),
    };
    let credential = credential(&record)?;
    let written: io::Result<()> = write_json(folder, FILE, &record)
        .and_then(|()| folder.remove(PENDING))
        .and_then(|()| folder.remove(RENEWAL));
    if let Err(error) = written {
        // The certificate is good all the same; a restart would come back with the pending key, or renew later.
        tracing::error!(%error, "the certificate cannot be kept on disk");
    }
    Ok(credential)
}

fn credential(record: &Record) -> Result<Credential, Failure> {
    let key = Secret::new(record.key.clone());
    Ok(Credential {
        chain: keys::certificates_from_pem(record.chain.as_bytes())?,
        key: Some(keys::key_from_pem(key.reveal().as_bytes())?),
        anchors: Anchors::Certificates(keys::certificates_from_pem(record.anchors.as_bytes())?),
    })
}

/// When a received certificate ends.
pub(super) fn not_after(certificate: &v1::Certificate) -> Result<Timestamp, Failure> {
    let time = certificate
        .not_after
        .as_ref()
        .ok_or_else(|| Failure::because("the coordinator's certificate does not say when it ends"))?;
    Ok(from_wire(time)?)
}
