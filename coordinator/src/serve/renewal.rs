//! A fresh key for a machine that has a certificate, and the record of what was signed for it.
//!
//! What was signed is in the node record before the certificate leaves: so it is known which key may come back after its
//! certificate has ended ([`enrolment`](super::enrolment)), who was told of which authority, and that nobody renews
//! who lost the machine's name to a later enrolment ([`Trust`](super::trust::Trust)).

use std::sync::Arc;

use smartscale_proto::tls::keys;
use tonic::{Code, Status};

use super::{
    authority::{Authority, Issued},
    csr::RequestedKey,
    leading::Leader,
};
use crate::{
    ids::{Epoch, InstanceId},
    state::{
        Attributes, Condition, Item, SharedStore, StateStore, StoreError, Write,
        records::{NodeRecord, Record as _},
    },
};

/// Attempts to commit when the record changes meanwhile.
const ATTEMPTS: usize = 4;

/// Signs fresh keys.
#[derive(Clone)]
pub struct Renewals {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Holds the node records.
    pub store: SharedStore,
    /// Who leads.
    pub leader: Leader,
}

impl Renewals {
    /// Signs `key` for a machine whose caller is trusted.
    ///
    /// # Errors
    /// `UNAVAILABLE` when it cannot be recorded, `PERMISSION_DENIED` when the machine is not trusted any more.
    pub async fn renew(&self, instance: &InstanceId, key: &RequestedKey) -> Result<Issued, Status> {
        let segment: smartscale_proto::identity::Segment = instance
            .as_str()
            .parse()
            .map_err(|_| Status::permission_denied("this is no machine's name"))?;
        for _ in 0..ATTEMPTS {
            let epoch = self.leader.epoch(Code::Unavailable)?;
            let trusted = record(&*self.store, instance)
                .await?
                .filter(|(record, _)| record.revoked_at.is_none() && record.enrolled_key.is_some());
            let Some((mut record, item)) = trusted else {
                return Err(Status::permission_denied("this machine is not trusted any more"));
            };
            let issued = self.authority.agent(segment.clone(), key).map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, %instance, "a certificate cannot be signed");
                Status::unavailable("the authority cannot sign at this moment")
            })?;
            record.certify(&key.fingerprint(), issued.signed());
            match write(&*self.store, epoch, &record, &item).await {
                Ok(()) => return Ok(issued),
                Err(StoreError::Conflict(_) | StoreError::Unknown(_)) => {}
                Err(StoreError::Fenced) => return Err(self.leader.fenced(Code::Unavailable)),
                Err(error) => return Err(unavailable(&error)),
            }
        }
        Err(Status::unavailable(
            "the record of this machine keeps changing: come back",
        ))
    }

    /// Whether the machine has not been told of the authorities of this moment. Nobody knows while the store does not answer:
    /// it renews at half of its certificate's life all the same.
    pub async fn is_due(&self, instance: &InstanceId) -> bool {
        let Ok(Some((record, _))) = record(&*self.store, instance).await else {
            return false;
        };
        let held = self.authority.held();
        let anchors = held
            .anchors()
            .iter()
            .map(|anchor| hex::encode(keys::fingerprint(anchor)));
        record
            .certified
            .is_some_and(|certified| !anchors.eq(certified.anchors.iter().cloned()))
    }
}

/// The record of a machine, with the item that holds it.
pub(super) async fn record(
    store: &dyn StateStore,
    instance: &InstanceId,
) -> Result<Option<(NodeRecord, Item)>, Status> {
    let item = store
        .get(&format!("{}{instance}", NodeRecord::PREFIX))
        .await
        .map_err(|error| unavailable(&error))?;
    item.map(|item| {
        let record = NodeRecord::from_item(&item).map_err(|error| unavailable(&error))?;
        Ok((record, item))
    })
    .transpose()
}

/// Replaces the record if it is still as `item` has it.
pub(super) async fn write(
    store: &dyn StateStore,
    epoch: Epoch,
    record: &NodeRecord,
    item: &Item,
) -> Result<(), StoreError> {
    let write = Write::Put {
        key: record.key(),
        body: record.body()?,
        expires_at: item.expires_at,
        condition: Condition::Version(item.version),
    };
    store.commit(epoch, &[write], &Attributes::new()).await
}

pub(super) fn unavailable(error: &StoreError) -> Status {
    tracing::warn!(%error, "the state store failed an enrolment or a renewal");
    Status::unavailable("the state store is not available: come back")
}
