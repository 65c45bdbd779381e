//! Whether a person is still trusted: the certificate must not have ended, and neither it nor everything that its holder
//! has may have been revoked. Asked at every call and, while somebody has a stream open, once a second.
//!
//! ```text
//!   Issue ──▶ identity#SERIAL ◀── first call of a certificate that was signed with the authority's key itself
//!   Revoke ─▶ identity#SERIAL, revoked-person#NAME ──▶ check (every call) · refused (open streams)
//! ```
//! A certificate counts unless it was refused: whoever holds the authority's key can sign one when nothing else works, and
//! a store that lost its records locks nobody out. While the store does not answer, what it said last counts.

pub mod desk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use smartscale_proto::{
    identity::{Leaf, Party},
    time::age,
};
use tokio::sync::watch;
use tonic::Status;

use super::authority::BACKDATED;
use crate::state::{
    Condition, SharedStore, StoreError, Write,
    records::{IdentityRecord, Record as _, RevokedPerson},
};

/// The longest life of a certificate that is handed out over the wire.
pub const LONGEST: Duration = Duration::from_secs(8 * 3600);
/// How long a record is kept after its certificate's end, for whoever asks who had access.
const KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Identities and revocations that are read.
const MOST: usize = 20_000;
/// Who has signed what nobody handed out over the wire.
const CA_KEY: &str = "ca key";

/// Why a person is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum Mistrust {
    /// The certificate has ended; the connection it opened has not.
    #[error("this certificate has ended: log in again")]
    Ended,
    /// It was revoked.
    #[error("this identity was revoked")]
    Revoked,
    /// Nobody can say at this moment.
    #[error("whether this identity was revoked cannot be read")]
    Store(#[source] StoreError),
}

impl From<Mistrust> for Status {
    fn from(mistrust: Mistrust) -> Self {
        match mistrust {
            Mistrust::Ended => Self::unauthenticated(mistrust.to_string()),
            Mistrust::Revoked => Self::permission_denied(mistrust.to_string()),
            Mistrust::Store(_) => Self::unavailable(mistrust.to_string()),
        }
    }
}

/// What was revoked, as last read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refused {
    serials: BTreeSet<String>,
    /// Every certificate that was handed out until then.
    people: BTreeMap<String, Timestamp>,
}

impl Refused {
    /// Whether a certificate is refused.
    #[must_use]
    pub fn refuses(&self, leaf: &Leaf) -> bool {
        let until = name_of(leaf).and_then(|name| self.people.get(name));
        self.serials.contains(&leaf.serial) || until.is_some_and(|until| issued_at(leaf) <= *until)
    }
}

/// When a certificate of ours was handed out.
fn issued_at(leaf: &Leaf) -> Timestamp {
    let backdated = SignedDuration::try_from(BACKDATED).unwrap_or_default();
    leaf.not_before.checked_add(backdated).unwrap_or(Timestamp::MAX)
}

fn name_of(leaf: &Leaf) -> Option<&str> {
    match &leaf.identity.party {
        Party::Admin { name, .. } => Some(name.as_str()),
        _ => None,
    }
}

/// The trusted people.
pub struct People {
    store: SharedStore,
    /// `None`: not read yet.
    refused: watch::Sender<Option<Arc<Refused>>>,
}

impl People {
    /// Trust as the records in `store` say.
    #[must_use]
    pub fn new(store: SharedStore) -> Arc<Self> {
        Arc::new(Self {
            store,
            refused: watch::Sender::new(None),
        })
    }

    /// Whether the person may make a call.
    ///
    /// # Errors
    /// [`Mistrust`].
    pub async fn check(&self, leaf: &Leaf) -> Result<(), Mistrust> {
        // By the machine's clock, as the handshake does.
        if leaf.not_after <= Timestamp::now() {
            return Err(Mistrust::Ended);
        }
        let refused = match self.read(leaf).await {
            Ok(refused) => refused,
            Err(error) => {
                tracing::warn!(%error, "revocations cannot be read; what was read last counts");
                let known = self.refused.borrow().clone();
                known.ok_or(Mistrust::Store(error))?.refuses(leaf)
            }
        };
        if refused { Err(Mistrust::Revoked) } else { Ok(()) }
    }

    /// Whether the certificate is refused, as the store says now. One that is not known is written down.
    async fn read(&self, leaf: &Leaf) -> Result<bool, StoreError> {
        let Party::Admin { role, name } = &leaf.identity.party else {
            return Ok(false);
        };
        let key = format!("{}{}", IdentityRecord::PREFIX, leaf.serial);
        let item = self.store.get(&key).await?;
        let person = self
            .store
            .get(&format!("{}{name}", RevokedPerson::PREFIX))
            .await?;
        let mut refused = Refused::default();
        if let Some(item) = person {
            let person = RevokedPerson::from_item(&item)?;
            refused.people.insert(person.name.to_string(), person.revoked.at);
        }
        match item {
            Some(item) if IdentityRecord::from_item(&item)?.revoked.is_some() => {
                refused.serials.insert(leaf.serial.clone());
            }
            Some(_) => {}
            None => {
                let record = IdentityRecord {
                    serial: leaf.serial.clone(),
                    name: name.clone(),
                    role: *role,
                    issued_at: issued_at(leaf),
                    not_after: leaf.not_after,
                    issued_by: CA_KEY.to_owned(),
                    revoked: None,
                };
                if let Err(error) = self.store.append(&put(&record, Condition::Absent)?).await {
                    tracing::debug!(%error, "a person's first call was not written down");
                }
            }
        }
        let unread = self.refused.borrow().is_none();
        if unread {
            self.refresh().await?;
        }
        Ok(refused.refuses(leaf))
    }

    /// Reads everything that was revoked; open streams are told.
    ///
    /// # Errors
    /// When the store does not answer: then nothing is known anew.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let mut refused = Refused::default();
        for record in self.identities().await? {
            if record.revoked.is_some() {
                refused.serials.insert(record.serial);
            }
        }
        for person in self.revoked_people().await? {
            refused.people.insert(person.name.to_string(), person.revoked.at);
        }
        self.refused.send_if_modified(|known| {
            let new = known.as_deref() != Some(&refused);
            if new {
                *known = Some(Arc::new(refused));
            }
            new
        });
        Ok(())
    }

    async fn identities(&self) -> Result<Vec<IdentityRecord>, StoreError> {
        let items = self.store.list(IdentityRecord::PREFIX, false, MOST).await?;
        Ok(items
            .iter()
            .filter_map(|item| {
                IdentityRecord::from_item(item)
                    .inspect_err(|error| tracing::error!(%error, "an identity's record cannot be read"))
                    .ok()
            })
            .collect())
    }

    async fn revoked_people(&self) -> Result<Vec<RevokedPerson>, StoreError> {
        let items = self.store.list(RevokedPerson::PREFIX, false, MOST).await?;
        items.iter().map(RevokedPerson::from_item).collect()
    }

    /// Whether somebody has a stream open that must end when its person is revoked.
    #[must_use]
    pub fn are_watching(&self) -> bool {
        self.refused.receiver_count() > 0
    }

    /// Ends when this person's streams have to, with what they are told.
    pub async fn ended(self: Arc<Self>, leaf: Option<Leaf>) -> Status {
        let Some(leaf) = leaf else {
            return std::future::pending().await;
        };
        let mut refused = self.refused.subscribe();
        let revoked = refused.wait_for(|refused| refused.as_ref().is_some_and(|it| it.refuses(&leaf)));
        let left = age(Timestamp::now(), leaf.not_after);
        tokio::select! {
            Ok(_) = revoked => Mistrust::Revoked.into(),
            () = tokio::time::sleep(left) => Mistrust::Ended.into(),
        }
    }
}

fn put(record: &IdentityRecord, condition: Condition) -> Result<Write, StoreError> {
    Ok(Write::Put {
        key: record.key(),
        body: record.body()?,
        expires_at: record.not_after.checked_add(KEPT).ok(),
        condition,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    fn leaf(serial: &str, issued: &str) -> Leaf {
        let backdated = SignedDuration::try_from(BACKDATED).unwrap();
        Leaf {
            identity: "spiffe://smartscale/cluster/demo/admin/viewer/ann"
                .parse()
                .unwrap(),
            serial: serial.to_owned(),
            not_before: issued.parse::<Timestamp>().unwrap() - backdated,
            not_after: Timestamp::MAX,
        }
    }

    #[test]
    fn a_person_who_was_revoked_may_come_back_with_what_is_handed_out_later() {
        let at: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let refused = Refused {
            serials: ["0b".to_owned()].into(),
            people: [("ann".to_owned(), at)].into(),
        };
        assert!(refused.refuses(&leaf("0a", "2026-01-02T11:59:59Z")));
        assert!(!refused.refuses(&leaf("0a", "2026-01-02T12:00:01Z")));
        assert!(refused.refuses(&leaf("0b", "2026-01-02T12:00:01Z")));
    }
}
