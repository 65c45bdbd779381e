//! Bounded places that one caller alone cannot fill.
//!
//! ```text
//!   newcomer ─▶ its holder has too many? ─▶ the oldest of that holder's makes room
//!            └▶ all taken? ─▶ the oldest of whoever holds the most makes room, if that is a good deal more
//! ```
//! What waits longest in a place for strangers is the slowest, and a slow caller is what an attacker pretends to be: it is
//! the old that make room and not the new that are turned away, so that whoever is quick is served however many are slow.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

/// How places are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Places in all.
    pub most: usize,
    /// Places of one holder.
    pub each: usize,
    /// Whoever has a place keeps it for so long.
    pub grace: Duration,
    /// Whether a holder with no more than the newcomer's may have to make room: right where the oldest is the slowest, wrong
    /// where it is merely the most faithful.
    pub oldest_goes: bool,
}

/// Places of holders `K`.
#[derive(Debug)]
pub struct Places<K> {
    bounds: Bounds,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    next: u64,
    taken: usize,
    /// Each holder's, oldest first.
    holders: BTreeMap<K, BTreeMap<u64, Taken>>,
}

#[derive(Debug)]
struct Taken {
    since: Instant,
    /// Tells whoever has the place to go.
    _go: oneshot::Sender<()>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub struct Place<K: Ord + Clone> {
    places: Arc<Places<K>>,
    holder: K,
    number: u64,
    /// Ends when this place has to make room; nothing once it did.
    go: Option<oneshot::Receiver<()>>,
}

/// There is no place, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// Whoever asks has all that one may have, and has them since a moment ago.
    #[error("all places of one holder are taken")]
    Own,
    /// All are taken by whoever has a right to them.
    #[error("all places are taken")]
    All,
}

impl<K: Ord + Clone> Places<K> {
    /// Places within these bounds.
    #[must_use]
    pub fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            bounds,
            state: Mutex::new(State {
                next: 0,
                taken: 0,
                holders: BTreeMap::new(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that are taken.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.state().taken
    }

    /// Takes a place for `holder`, whose oldest, or somebody else's, may have to make room.
    ///
    /// # Errors
    /// [`Full`].
    pub fn take(self: &Arc<Self>, holder: &K) -> Result<Place<K>, Full> {
        let now = Instant::now();
        let mut state = self.state();
        let own = state.holders.get(holder).map_or(0, BTreeMap::len);
        if own >= self.bounds.each {
            self.make_room(&mut state, holder, now).ok_or(Full::Own)?;
        } else if state.taken >= self.bounds.most {
            let victim = self.victim(&state, own, now).ok_or(Full::All)?;
            self.make_room(&mut state, &victim, now).ok_or(Full::All)?;
        }
        let (sender, go) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.taken += 1;
        let taken = Taken {
            since: now,
            _go: sender,
        };
        state
            .holders
            .entry(holder.clone())
            .or_default()
            .insert(number, taken);
        drop(state);
        Ok(Place {
            places: Arc::clone(self),
            holder: holder.clone(),
            number,
            go: Some(go),
        })
    }

    /// Whose oldest makes room for somebody who has `own` places.
    fn victim(&self, state: &State<K>, own: usize, now: Instant) -> Option<K> {
        let old = |taken: &BTreeMap<u64, Taken>| {
            let oldest = taken.first_key_value()?.1.since;
            (now.duration_since(oldest) >= self.bounds.grace).then_some(oldest)
        };
        let candidates = state.holders.iter().filter_map(|(holder, taken)| {
            let fair = self.bounds.oldest_goes || taken.len() > own + 1;
            Some((holder, taken.len(), old(taken).filter(|_| fair)?))
        });
        candidates
            .max_by_key(|(_, count, oldest)| (*count, std::cmp::Reverse(*oldest)))
            .map(|(holder, ..)| holder.clone())
    }

    fn make_room(&self, state: &mut State<K>, holder: &K, now: Instant) -> Option<()> {
        let taken = state.holders.get_mut(holder)?;
        let oldest = taken.first_entry()?;
        if now.duration_since(oldest.get().since) < self.bounds.grace {
            return None;
        }
        oldest.remove();
        if taken.is_empty() {
            state.holders.remove(holder);
        }
        state.taken -= 1;
        Some(())
    }

    fn free(&self, holder: &K, number: u64) {
        let mut state = self.state();
        let Some(taken) = state.holders.get_mut(holder) else {
            return;
        };
        if taken.remove(&number).is_some() {
            if taken.is_empty() {
                state.holders.remove(holder);
            }
            state.taken -= 1;
        }
    }
}

impl<K: Ord + Clone> Place<K> {
    /// Ready once this place has to make room.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(go) = &mut self.go {
            std::task::ready!(std::pin::Pin::new(go).poll(cx)).ok();
            self.go = None;
        }
        Poll::Ready(())
    }

    /// Ends once this place has to make room.
    pub async fn gone(&mut self) {
        std::future::poll_fn(|cx| self.poll_gone(cx)).await;
    }
}

impl<K: Ord + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        self.places.free(&self.holder, self.number);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use super::*;

    fn places(most: usize, each: usize, oldest_goes: bool) -> Arc<Places<&'static str>> {
        Places::new(Bounds {
            most,
            each,
            grace: Duration::from_secs(1),
            oldest_goes,
        })
    }

    fn is_gone(place: &mut Place<&'static str>) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        place.poll_gone(&mut cx).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_takes_all_makes_room_for_the_others() {
        let places = places(4, 4, true);
        let mut greedy: Vec<_> = (0..4).map(|_| places.take(&"greedy").unwrap()).collect();
        assert_eq!(places.take(&"other").unwrap_err(), Full::All);
        tokio::time::advance(Duration::from_secs(1)).await;
        let mut other = places.take(&"other").unwrap();
        assert!(is_gone(&mut greedy[0]) && !is_gone(&mut greedy[1]));
        let _second = places.take(&"other").unwrap();
        assert!(is_gone(&mut greedy[1]) && !is_gone(&mut other));
        assert_eq!(places.taken(), 4);
        drop(greedy);
        assert_eq!(places.taken(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_too_many_makes_room_for_themselves() {
        let places = places(10, 2, false);
        let mut first = places.take(&"a").unwrap();
        let _second = places.take(&"a").unwrap();
        assert_eq!(places.take(&"a").unwrap_err(), Full::Own);
        tokio::time::advance(Duration::from_secs(2)).await;
        let _third = places.take(&"a").unwrap();
        assert!(is_gone(&mut first));
        assert_eq!(places.taken(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_faithful_are_not_driven_out_by_newcomers() {
        let places = places(2, 2, false);
        let mut a = places.take(&"a").unwrap();
        let mut b = places.take(&"b").unwrap();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(places.take(&"c").unwrap_err(), Full::All);
        assert!(!is_gone(&mut a) && !is_gone(&mut b));
        drop(b);
        assert!(places.take(&"c").is_ok());
    }
}
