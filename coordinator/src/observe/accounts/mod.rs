//! What the machines cost, accounted by the leader as it looks at them, hour by hour in the store.
//!
//! ```text
//!  look (fleet, nodes, prices) ─▶ meter ─▶ hours in memory ─a minute─▶ `cost#…` in the store, under the lease
//!                                              ▲                            │
//!                                              └──── a new leader goes on ◀─┘
//! ```
//! Time is accounted from one look at the fleet to the next. A new leader goes on where its predecessor's last write ended.
//! Between looks that are further apart than [`LONGEST`] nobody knows what was there: that time is not accounted, and the
//! hour says how much of it is.

mod meter;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use smartscale_planner::{Policy, model::Cluster};
use smartscale_proto::time::age;

use self::meter::{Look, spanned};
use super::Observed;
use crate::{
    act::fleet::Instance,
    ids::Epoch,
    state::{
        Attributes, Condition, SharedStore, StoreError, Write,
        cost::{CostHour, HOUR, KEPT, hour_of},
        records::Record as _,
    },
};

/// Longer than a take-over takes: a lease, the next leader's first decision, and its look at the fleet.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// A clock that is set back by more than this has begun another time; less is the difference of two coordinators' clocks.
const SET_BACK: Duration = Duration::from_secs(60);
/// Between two writes of an hour that runs.
const WRITE: Duration = Duration::from_secs(60);

/// What is seen at a decision.
pub(crate) struct Seen<'a> {
    /// The fleet's list.
    pub(crate) fleet: &'a Observed<Vec<Instance>>,
    /// The cluster; `None`: it is not seen well enough.
    pub(crate) cluster: Option<&'a Cluster>,
    /// Pools and prices.
    pub(crate) policy: &'a Policy,
}

/// The leader's account.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// The term for which the hours are in memory.
    term: Option<Epoch>,
    /// The last look that was accounted.
    until: Option<Timestamp>,
    /// The hours that may still change.
    hours: BTreeMap<Timestamp, CostHour>,
    /// Those that are not in the store as they are here.
    unwritten: BTreeSet<Timestamp>,
    /// When they were written last.
    written: Option<Timestamp>,
}

impl Accounts {
    /// Accounts the time since the last look, if there is a new one, and stores it when a minute is over. For the leader of
    /// `term`.
    ///
    /// # Errors
    /// The store's. What is not accounted is accounted at the next look, what is not stored is stored with it.
    pub(crate) async fn keep(
        &mut self,
        seen: &Seen<'_>,
        store: &SharedStore,
        term: Epoch,
    ) -> Result<(), StoreError> {
        let (Some(instances), Some(at)) = (&seen.fleet.value, seen.fleet.at) else {
            return Ok(());
        };
        if self.term != Some(term) {
            self.begin(store, term, at).await?;
        }
        let from = match self.until {
            Some(until) if until < at && age(until, at) <= LONGEST => until,
            Some(until) if until >= at && age(at, until) <= SET_BACK => return Ok(()),
            // The first look ever, the first for long, or one by a clock that was set back: time begins here.
            _ => {
                self.until = Some(at);
                self.written = self.written.filter(|written| *written <= at);
                return Ok(());
            }
        };
        for hour in spanned(from, at) {
            self.load(store, hour).await?;
        }
        let look = Look {
            instances,
            cluster: seen.cluster,
            policy: seen.policy,
            at,
        };
        look.account(from, &mut self.hours);
        self.unwritten.extend(spanned(from, at));
        self.until = Some(at);
        if self.written.is_none_or(|written| age(written, at) >= WRITE) {
            self.write_down(store, term, at).await?;
        }
        Ok(())
    }

    /// Goes on where the last leader ended.
    async fn begin(&mut self, store: &SharedStore, term: Epoch, at: Timestamp) -> Result<(), StoreError> {
        *self = Self::default();
        let present = hour_of(at);
        for hour in [present.checked_sub(HOUR).unwrap_or(present), present] {
            self.load(store, hour).await?;
        }
        // An hour that was never accounted ends where it begins.
        let accounted = self.hours.values().filter(|hour| hour.until > hour.begins);
        self.until = accounted.map(|hour| hour.until).max();
        self.written = self.until;
        self.term = Some(term);
        Ok(())
    }

    /// Has an hour in memory as the store has it.
    async fn load(&mut self, store: &SharedStore, begins: Timestamp) -> Result<(), StoreError> {
        if self.hours.contains_key(&begins) {
            return Ok(());
        }
        let empty = CostHour::new(begins);
        let hour = match store.get(&empty.key()).await? {
            Some(item) => CostHour::from_item(&item).unwrap_or_else(|error| {
                tracing::warn!(%error, "an hour of the account is begun anew");
                empty
            }),
            None => empty,
        };
        self.hours.insert(begins, hour);
        Ok(())
    }

    async fn write_down(
        &mut self,
        store: &SharedStore,
        term: Epoch,
        at: Timestamp,
    ) -> Result<(), StoreError> {
        let unwritten = self.unwritten.iter().filter_map(|begins| self.hours.get(begins));
        let writes = unwritten.map(stored).collect::<Result<Vec<_>, _>>()?;
        store.commit(term, &writes, &Attributes::new()).await?;
        self.unwritten.clear();
        self.written = Some(at);
        let present = hour_of(at);
        self.hours.retain(|begins, _| *begins >= present);
        Ok(())
    }
}

fn stored(hour: &CostHour) -> Result<Write, StoreError> {
    Ok(Write::Put {
        key: hour.key(),
        body: hour.body()?,
        expires_at: hour.begins.checked_add(KEPT).ok(),
        condition: Condition::Always,
    })
}
