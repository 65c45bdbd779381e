//! The audit's chain: what a record says, what its hash covers, and how the end of a chain is sealed.
//!
//! ```text
//!   record 1 ◀─previous─ record 2 ◀─previous─ record 3 ◀─hash─ head ◀─signature─ certificate authority
//! ```
//! Each coordinator has a chain of its own. A record carries the hash of the one before it, so that none can be changed,
//! dropped, swapped or inserted without every later hash changing; the head says where the chain ends and is signed with
//! the authority's key, so that whoever can write to the store, but does not have that key, can neither make all hashes
//! anew nor make a head of their own. [`verify`] holds a chain against all this.

#[cfg(test)]
mod tests;
pub mod verify;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use x509_parser::{asn1_rs::BitString, certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    identity::{Identity, Party},
    time::{BadTime, from_wire, to_wire},
    v1,
};

/// What a record's hash begins with: no other text of ours is hashed to the same.
const RECORD: &[u8] = b"smartscale audit record v1\0";
/// What the signed text of a head begins with. No certificate begins so (DER of one begins with 0x30): the authority's
/// key signs both.
const HEAD: &[u8] = b"smartscale audit head v1\0";

/// SHA-256 of a record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = BadRecord;

    fn try_from(text: String) -> Result<Self, BadRecord> {
        let mut digest = [0; 32];
        hex::decode_to_slice(&text, &mut digest).map_err(|_| BadRecord::Digest)?;
        Ok(Self(digest))
    }
}

impl TryFrom<&[u8]> for Digest {
    type Error = BadRecord;

    fn try_from(bytes: &[u8]) -> Result<Self, BadRecord> {
        bytes.try_into().map(Self).map_err(|_| BadRecord::Digest)
    }
}

/// What is no record or head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// A hash of another length.
    #[error("a hash is 32 bytes")]
    Digest,
    /// A time that is none, or is missing.
    #[error("a time is missing or cannot be")]
    Time,
}

impl From<BadTime> for BadRecord {
    fn from(_: BadTime) -> Self {
        Self::Time
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// When.
    pub time: Timestamp,
    /// The caller's identity, or its address where it has none.
    pub who: String,
    /// The method, or what was done.
    pub call: String,
    /// Its arguments, as text.
    pub arguments: String,
    /// `ok`, or the gRPC code with which it was refused.
    pub outcome: String,
}

/// A record of the audit. Its JSON form is what the state store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The coordinator whose chain it is in.
    pub coordinator: String,
    /// Its number in the chain, from 1.
    pub sequence: u64,
    /// When it was done, never before the record before it.
    pub time: Timestamp,
    /// When the record before it was done. With it a chain whose beginning has lapsed is told from one whose beginning
    /// was cut off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_time: Option<Timestamp>,
    /// Hash of the record before it; zeros in the first.
    pub previous: Digest,
    /// The caller's identity, or its address where it has none.
    pub who: String,
    /// The caller's role, as its identity says; empty for a caller without one.
    pub role: String,
    /// The method, or what was done.
    pub call: String,
    /// Its arguments, as text.
    pub arguments: String,
    /// `ok`, or the gRPC code with which it was refused.
    pub outcome: String,
    /// Hash over all of the above.
    pub hash: Digest,
}

/// The end of a chain. Its JSON form is what the state store keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The coordinator whose chain it is.
    pub coordinator: String,
    /// Number of the newest record; 0 of a chain without any.
    pub sequence: u64,
    /// Its hash.
    pub hash: Digest,
    /// When it was made.
    pub time: Timestamp,
    /// Signature of the certificate authority over [`Head::signed`], DER, in hexadecimal.
    pub seal: String,
}

/// The role that an identity gives its bearer, as records name it.
fn role(who: &str) -> String {
    match who.parse::<Identity>().map(|identity| identity.party) {
        Ok(Party::Admin { role, .. }) => role.to_string(),
        Ok(Party::Agent { .. }) => "agent".to_owned(),
        Ok(Party::Coordinator) => "coordinator".to_owned(),
        Err(_) => String::new(),
    }
}

/// Adds a text with its length before it, so that no two lists of texts are hashed alike.
fn part(into: &mut impl FnMut(&[u8]), text: &[u8]) {
    into(&(text.len() as u64).to_be_bytes());
    into(text);
}

fn nanoseconds(time: Timestamp) -> [u8; 16] {
    time.as_nanosecond().to_be_bytes()
}

impl Entry {
    /// The record of `deed` that follows `last` in the chain of `coordinator`.
    #[must_use]
    pub fn after(last: &Head, deed: Deed) -> Self {
        let first = last.sequence == 0;
        let mut entry = Self {
            coordinator: last.coordinator.clone(),
            sequence: last.sequence + 1,
            // A clock that was set back must not make a chain look cut.
            time: if first {
                deed.time
            } else {
                deed.time.max(last.time)
            },
            previous_time: (!first).then_some(last.time),
            previous: last.hash,
            role: role(&deed.who),
            who: deed.who,
            call: deed.call,
            arguments: deed.arguments,
            outcome: deed.outcome,
            hash: Digest::default(),
        };
        entry.hash = entry.digest();
        entry
    }

    /// The hash that this record should have.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(RECORD);
        let mut into = |bytes: &[u8]| hash.update(bytes);
        part(&mut into, self.coordinator.as_bytes());
        into(&self.sequence.to_be_bytes());
        into(&nanoseconds(self.time));
        match self.previous_time {
            None => into(&[0]),
            Some(time) => {
                into(&[1]);
                into(&nanoseconds(time));
            }
        }
        into(&self.previous.0);
        for text in [&self.who, &self.role, &self.call, &self.arguments, &self.outcome] {
            part(&mut into, text.as_bytes());
        }
        Digest(hash.finalize().into())
    }
}

impl Head {
    /// The head of a chain that has no record yet.
    #[must_use]
    pub fn empty(coordinator: &str) -> Self {
        Self {
            coordinator: coordinator.to_owned(),
            sequence: 0,
            hash: Digest::default(),
            time: Timestamp::UNIX_EPOCH,
            seal: String::new(),
        }
    }

    /// The head, not sealed yet, of a chain that ends with `entry`.
    #[must_use]
    pub fn at(entry: &Entry) -> Self {
        Self {
            coordinator: entry.coordinator.clone(),
            sequence: entry.sequence,
            hash: entry.hash,
            time: entry.time,
            seal: String::new(),
        }
    }

    /// What the authority signs.
    #[must_use]
    pub fn signed(&self) -> Vec<u8> {
        let mut text = HEAD.to_vec();
        let mut into = |bytes: &[u8]| text.extend_from_slice(bytes);
        part(&mut into, self.coordinator.as_bytes());
        into(&self.sequence.to_be_bytes());
        into(&self.hash.0);
        into(&nanoseconds(self.time));
        text
    }

    /// Whether one of `anchors` (certificates in DER) has signed this head. An authority signs with the algorithm of its
    /// own certificate.
    #[must_use]
    pub fn is_sealed_by<'a>(&self, anchors: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let Ok(seal) = hex::decode(&self.seal) else {
            return false;
        };
        let text = self.signed();
        anchors.into_iter().any(|der| {
            X509Certificate::from_der(der).is_ok_and(|(_, anchor)| {
                x509_parser::verify::verify_signature(
                    anchor.public_key(),
                    &anchor.signature_algorithm,
                    &BitString::new(0, &seal),
                    &text,
                )
                .is_ok()
            })
        })
    }
}

impl From<&Entry> for v1::AuditEntry {
    fn from(entry: &Entry) -> Self {
        Self {
            coordinator: entry.coordinator.clone(),
            sequence: entry.sequence,
            time: Some(to_wire(entry.time)),
            previous_time: entry.previous_time.map(to_wire),
            previous: entry.previous.0.to_vec(),
            who: entry.who.clone(),
            role: entry.role.clone(),
            call: entry.call.clone(),
            arguments: entry.arguments.clone(),
            outcome: entry.outcome.clone(),
            hash: entry.hash.0.to_vec(),
        }
    }
}

impl TryFrom<v1::AuditEntry> for Entry {
    type Error = BadRecord;

    fn try_from(wire: v1::AuditEntry) -> Result<Self, BadRecord> {
        Ok(Self {
            time: from_wire(&wire.time.ok_or(BadRecord::Time)?)?,
            previous_time: wire.previous_time.as_ref().map(from_wire).transpose()?,
            previous: wire.previous.as_slice().try_into()?,
            hash: wire.hash.as_slice().try_into()?,
            coordinator: wire.coordinator,
            sequence: wire.sequence,
            who: wire.who,
            role: wire.role,
            call: wire.call,
            arguments: wire.arguments,
            outcome: wire.outcome,
        })
    }
}

impl From<&Head> for v1::AuditHead {
    fn from(head: &Head) -> Self {
        Self {
            coordinator: head.coordinator.clone(),
            sequence: head.sequence,
            hash: head.hash.0.to_vec(),
            time: Some(to_wire(head.time)),
            seal: hex::decode(&head.seal).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::AuditHead> for Head {
    type Error = BadRecord;

    fn try_from(wire: v1::AuditHead) -> Result<Self, BadRecord> {
        Ok(Self {
            time: from_wire(&wire.time.ok_or(BadRecord::Time)?)?,
            hash: wire.hash.as_slice().try_into()?,
            seal: hex::encode(&wire.seal),
            coordinator: wire.coordinator,
            sequence: wire.sequence,
        })
    }
}
