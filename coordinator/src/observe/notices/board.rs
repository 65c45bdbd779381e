//! Where notices of agents and of the queue meet.
//!
//! One notice stands for each machine and kind. Whoever says it first makes it: it is stored, told, and acted on; whoever
//! says it later is added to it. What was taken in is in the store first, so that neither an agent that was acknowledged nor
//! a message that was deleted need say it again to the next leader.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use smartscale_planner::{model::NodeName, snapshot::Announced};
use smartscale_proto::time::SharedClock;

use super::{Change, Notice, NoticeKind, Said};
use crate::{
    ids::InstanceId,
    state::{Condition, SharedStore, StoreError, Write, records::Record as _},
    tell::{Event, Happening, Severity, SharedTell},
};

/// Stored notices that are read at a take-over.
const MOST_STORED: usize = 20_000;

type Key = (InstanceId, NoticeKind);

/// The notices that stand.
pub struct NoticeBoard {
    store: SharedStore,
    tell: SharedTell,
    clock: SharedClock,
    standing: Mutex<BTreeMap<Key, Notice>>,
    /// Machines whose removal was given up, and until when nothing is tried again for a notice's sake.
    /// What is wrong with the queue, if anything is.
    queue_error: Mutex<Option<String>>,
    /// Held while one is taken in: two that say the same must not both be the first.
    taking: tokio::sync::Mutex<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NoticeBoard {
    /// Nothing was announced yet.
    #[must_use]
    pub fn new(store: SharedStore, tell: SharedTell, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self {
            store,
            tell,
            clock,
            standing: Mutex::default(),
            queue_error: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
        })
    }

    fn standing(&self) -> MutexGuard<'_, BTreeMap<Key, Notice>> {
        locked(&self.standing)
    }

    /// Takes in what somebody says. Once this has ended well it is stored. Gives whether it was new.
    ///
    /// # Errors
    /// [`StoreError`] when it could not be stored; it must be said again.
    pub async fn take(&self, said: Said) -> Result<bool, StoreError> {
        let _taking = self.taking.lock().await;
        let now = self.clock.now();
        let key = (said.instance.clone(), said.kind);
        let known = self.standing().get(&key).cloned();
        let (notice, change) = match known.filter(|notice| notice.until() > now) {
            Some(mut notice) => match notice.add(&said, now) {
                Change::Nothing => return Ok(false),
                change => (notice, Some(change)),
            },
            None => (Notice::first(said.clone(), now), None),
        };
        self.store
            .append(&Write::Put {
                key: notice.key(),
                body: notice.body()?,
                expires_at: Some(notice.until()),
                condition: Condition::Always,
            })
            .await?;
        self.standing().insert(key, notice.clone());
        match change {
            None => self.say(Severity::Warning, &notice, &said),
            Some(Change::Source) => self.say(Severity::Detail, &notice, &said),
            Some(_) => {}
        }
        Ok(change.is_none())
    }

    fn say(&self, severity: Severity, notice: &Notice, said: &Said) {
        self.tell.tell(Happening {
            time: self.clock.now(),
            severity,
            message: format!("{}: {}, by {}", notice.instance, notice.words(), notice.sources()),
            event: Event::Noticed {
                instance: notice.instance.clone(),
                notice: notice.kind.as_str().to_owned(),
                source: said.source.as_str().to_owned(),
            },
        });
    }

    /// Reads what former leaders stored.
    ///
    /// # Errors
    /// [`StoreError`] when the store does not answer. A notice that cannot be read is logged and passed over.
    pub async fn load(&self) -> Result<(), StoreError> {
        let _taking = self.taking.lock().await;
        let items = self.store.list(Notice::PREFIX, false, MOST_STORED).await?;
        let mut standing = self.standing();
        for item in &items {
            match Notice::from_item(item) {
                Ok(notice) => {
                    standing.insert((notice.instance.clone(), notice.kind), notice);
                }
                Err(error) => tracing::error!(%error, "a stored notice cannot be read"),
            }
        }
        Ok(())
    }

    /// Every notice that stands, by machine and kind.
    #[must_use]
    pub fn all(&self) -> Vec<Notice> {
        let now = self.clock.now();
        let mut standing = self.standing();
        standing.retain(|_, notice| notice.until() > now);
        standing.values().cloned().collect()
    }

    /// What stands for a machine.
    #[must_use]
    pub fn of(&self, instance: &InstanceId) -> Vec<Notice> {
        let mut all = self.all();
        all.retain(|notice| notice.instance == *instance);
        all
    }

    /// The machines that EC2 takes back.
    #[must_use]
    pub fn interruptions(&self) -> Vec<Notice> {
        let mut all = self.all();
        all.retain(|notice| notice.kind == NoticeKind::SpotInterruption);
        all
    }

    /// The drain that an agent began by itself at an interruption; `None` where it has not seen one.
    #[must_use]
    pub fn own_drain(&self, instance: &InstanceId) -> Option<String> {
        let key = (instance.clone(), NoticeKind::SpotInterruption);
        self.standing().get(&key)?.own_drain()
    }

    /// The queue answers, or does not.
    pub fn set_queue_error(&self, error: Option<String>) {
        *locked(&self.queue_error) = error;
    }

    /// What is wrong with the queue, as a sentence.
    #[must_use]
    pub fn queue_error(&self) -> Option<String> {
        locked(&self.queue_error).clone()
    }

    /// What the planner is to know.
    #[must_use]
    pub fn announced(&self) -> Vec<Announced> {
        let announced = |notice: &Notice| {
            Some(Announced {
                node: NodeName::from(notice.instance.as_str()),
                notice: notice.kind.forewarning()?,
                at: notice.at,
            })
        };
        self.all().iter().filter_map(announced).collect()
    }

    /// The writes that forget a machine's notices, for the commit that forgets the machine.
    #[must_use]
    pub fn forgetting(&self, instance: &InstanceId) -> Vec<Write> {
        let of_machine = self.of(instance);
        of_machine
            .iter()
            .map(|notice| Write::Delete { key: notice.key() })
            .collect()
    }

    /// Forgets a machine that is gone for good.
    pub fn forget(&self, instance: &InstanceId) {
        self.standing().retain(|(known, _), _| known != instance);
    }
}

#[cfg(test)]
mod tests;
