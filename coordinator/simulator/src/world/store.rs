//! A store whose calls take no virtual time: a slow disk must not make a simulated lease lapse.

use std::sync::Arc;

use async_trait::async_trait;
use smartscale_coordinator::{
    ids::Epoch,
    state::{Attributes, Item, LeaseRow, SharedStore, StateStore, StoreError, Write},
};

use crate::clock::ScaledClock;

/// Holds the clock while the store behind it works.
pub(super) struct Held {
    store: SharedStore,
    clock: Arc<ScaledClock>,
}

impl Held {
    /// Holds `clock` for calls to `store`.
    pub(super) fn new(store: SharedStore, clock: Arc<ScaledClock>) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl StateStore for Held {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        let _hold = self.clock.hold();
        self.store.lease().await
    }

    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        let _hold = self.clock.hold();
        self.store.replace_lease(expected, next).await
    }

    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        let _hold = self.clock.hold();
        self.store.commit(epoch, writes, attributes).await
    }

    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        let _hold = self.clock.hold();
        self.store.append(write).await
    }

    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        let _hold = self.clock.hold();
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        let _hold = self.clock.hold();
        self.store.list(prefix, newest_first, limit).await
    }

    async fn attributes(&self) -> Result<Attributes, StoreError> {
        let _hold = self.clock.hold();
        self.store.attributes().await
    }
}
