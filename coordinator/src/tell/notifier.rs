//! Those who are told in their own time, and when the same thing counts as told.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;

use super::{Event, Happening};

/// Why somebody could not be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotifyError {
    /// May work later: no answer, throttled, out of order.
    #[error("not delivered for now: {0}")]
    Passing(String),
    /// Not before so long: whoever is told asks for it.
    #[error("not delivered: to be told no more for {0:?}")]
    Busy(Duration),
    /// Will not work later either.
    #[error("not delivered: {0}")]
    Refused(String),
}

/// Somebody who is told. Called by its own courier, one happening at a time, and may take its time.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Its name, in logs and metrics.
    fn name(&self) -> &'static str;
    /// Delivers, or takes in for the next [`flush`](Self::flush).
    async fn notify(&self, happening: &Happening) -> Result<(), NotifyError>;
    /// Delivers what was taken in. Called at the sink's interval and at the end.
    async fn flush(&self) -> Result<(), NotifyError> {
        Ok(())
    }
}

/// Remembers what was told last about each thing, so that a fault that persists is told once and not at each turn
/// of a loop, while each *change* is told: a source that is lost, comes back and is lost again is told three times.
#[derive(Debug)]
pub(crate) struct Dedupe {
    window: Duration,
    told: HashMap<String, (String, Duration)>,
}

/// More things than this are not remembered; the oldest are forgotten first.
const MOST_REMEMBERED: usize = 4096;

impl Dedupe {
    pub(crate) fn new(window: Duration) -> Self {
        Self {
            window,
            told: HashMap::new(),
        }
    }

    /// Whether this is to be told at `now` (time since any fixed point); takes note that it was.
    pub(crate) fn is_news(&mut self, happening: &Happening, now: Duration) -> bool {
        let Some((thing, state)) = sameness(happening) else {
            return true;
        };
        self.is_new(thing, state, now)
    }

    /// Whether `state` of `thing` is to be told at `now`; takes note that it was.
    pub(crate) fn is_new(&mut self, thing: String, state: String, now: Duration) -> bool {
        if let Some((told, at)) = self.told.get(&thing)
            && *told == state
            && now.saturating_sub(*at) < self.window
        {
            return false;
        }
        if self.told.len() >= MOST_REMEMBERED {
            self.told
                .retain(|_, (_, at)| now.saturating_sub(*at) < self.window);
            if self.told.len() >= MOST_REMEMBERED
                && let Some(oldest) = self
                    .told
                    .iter()
                    .min_by_key(|(_, (_, at))| *at)
                    .map(|(key, _)| key.clone())
            {
                self.told.remove(&oldest);
            }
        }
        self.told.insert(thing, (state, now));
        true
    }
}

/// What a happening is about, and how that stands by it; `None` where each one is news.
fn sameness(happening: &Happening) -> Option<(String, String)> {
    Some(match &happening.event {
        Event::Source { source, fresh } => (format!("source/{source}"), fresh.to_string()),
        Event::Brake { brake, holds } => (format!("brake/{brake}"), holds.to_string()),
        // Another mistake is news.
        Event::Policy { origin, .. } => (format!("policy/{origin}"), happening.message.clone()),
        Event::Operation { operation, phase, .. } => (format!("operation/{operation}"), phase.clone()),
        Event::Noticed { instance, notice, .. } => (format!("notice/{instance}/{notice}"), String::new()),
        Event::Drain {
            instance,
            operation,
            pod,
            state,
        } => {
            let pod = pod.as_ref().map(ToString::to_string).unwrap_or_default();
            (format!("drain/{instance}/{operation}/{pod}"), state.clone())
        }
        Event::Agent { instance, state } => (format!("agent/{instance}"), state.clone()),
        Event::BootStep {
            instance,
            step,
            outcome,
            ..
        } => (format!("boot/{instance}/{step}"), outcome.clone()),
        Event::Trouble { error_type } => (
            format!("trouble/{error_type}/{}", happening.message),
            String::new(),
        ),
        Event::Joined { instance, .. } => (format!("joined/{instance}"), String::new()),
        Event::LeaseAcquired { .. }
        | Event::LeaseLost { .. }
        | Event::Decided { .. }
        | Event::Admin { .. } => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::tell::Severity;

    fn source(fresh: bool) -> Happening {
        Happening {
            time: Timestamp::UNIX_EPOCH,
            severity: Severity::Warning,
            message: String::new(),
            event: Event::Source {
                source: "prometheus".into(),
                fresh,
            },
        }
    }

    #[test]
    fn what_persists_is_told_once_and_again_after_the_window() {
        let mut dedupe = Dedupe::new(Duration::from_secs(600));
        let at = Duration::from_secs;
        assert!(dedupe.is_news(&source(false), at(0)));
        assert!(!dedupe.is_news(&source(false), at(599)));
        assert!(dedupe.is_news(&source(false), at(600)));
    }

    #[test]
    fn each_change_is_told_even_when_it_comes_back_to_what_was_told_before() {
        let mut dedupe = Dedupe::new(Duration::from_secs(600));
        for (fresh, second) in [(false, 0), (true, 1), (false, 2)] {
            assert!(dedupe.is_news(&source(fresh), Duration::from_secs(second)));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut dedupe = Dedupe::new(Duration::from_secs(600));
        for n in 0..3 * MOST_REMEMBERED {
            assert!(dedupe.is_new(n.to_string(), String::new(), Duration::from_millis(n as u64)));
        }
        assert!(dedupe.told.len() <= MOST_REMEMBERED);
    }
}
