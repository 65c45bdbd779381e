//! Holds a chain against its hashes and its head, and names what is wrong and where.
//!
//! ```text
//!   places in the order of the store's keys ─▶ Checker ─▶ head ─▶ Report: findings, or the chain is whole
//! ```
//! It judges by what a record carries itself, one record at a time, so that a chain of any length is checked in little
//! memory.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{Digest, Entry, Head};

/// Records that are younger may not be sealed yet: a head is written after the records of one moment.
const UNSEALED: SignedDuration = SignedDuration::from_mins(1);
/// Clocks of coordinators, and the moments of a store's deletions, differ by less than that.
const SLACK: SignedDuration = SignedDuration::from_hours(1);
/// Findings of one chain that are named; more are counted.
const MOST: usize = 100;

/// What is wrong with a chain, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A record is not what its hash was made of.
    Changed(u64),
    /// The record does not carry the hash of the one before it: that one was changed or replaced, and its hash with it.
    Unlinked(u64),
    /// Records are missing, from the first to the last of them.
    Missing(u64, u64),
    /// At this place is another record: swapped or moved.
    Elsewhere {
        /// The place.
        position: u64,
        /// The number of the record that is there.
        sequence: u64,
    },
    /// A record of another coordinator's chain.
    Foreign(u64),
    /// What is at this key is no record.
    Unreadable(String),
    /// A record claims to be older than the one before it.
    Older(u64),
    /// There are records but no head.
    NoHead,
    /// The head is not signed by the authority.
    Seal,
    /// The record that the head names is another by now.
    Head(u64),
    /// Records after the head, that no coordinator has sealed, from the first to the last of them.
    Unsealed(u64, u64),
    /// A record that was noted earlier has another hash by now.
    Noted(u64),
    /// More findings than are named.
    More(usize),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(at) => write!(f, "record {at} was changed: its hash is of something else"),
            Self::Unlinked(at) => write!(
                f,
                "record {at} does not follow record {}: that one was changed or replaced",
                at.saturating_sub(1)
            ),
            Self::Missing(from, to) if from == to => write!(f, "record {from} is missing"),
            Self::Missing(from, to) => write!(f, "records {from} to {to} are missing"),
            Self::Elsewhere { position, sequence } => {
                write!(
                    f,
                    "at the place of record {position} is record {sequence}: it was swapped or inserted"
                )
            }
            Self::Foreign(at) => write!(f, "record {at} belongs to another coordinator's chain"),
            Self::Unreadable(key) => write!(f, "what is at `{key}` is no record: it was changed or inserted"),
            Self::Older(at) => write!(f, "record {at} claims to be older than the one before it"),
            Self::NoHead => f.write_str("the head is missing: whether the chain was cut off cannot be said"),
            Self::Seal => f.write_str("the head is not signed by the certificate authority"),
            Self::Head(at) => write!(f, "record {at} is not the one that the head names"),
            Self::Unsealed(from, to) => {
                write!(
                    f,
                    "records {from} to {to} come after the head: no coordinator has sealed them"
                )
            }
            Self::Noted(at) => write!(
                f,
                "record {at} is not the one that was noted earlier: the chain was made anew"
            ),
            Self::More(count) => write!(f, "and {count} more"),
        }
    }
}

/// What was found out about a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose chain it is.
    pub coordinator: String,
    /// Its oldest record that is still kept; 0 if there is none.
    pub first: u64,
    /// Its newest record.
    pub last: u64,
    /// The hash of that one, to be noted.
    pub hash: Digest,
    /// What is wrong; nothing: the chain is whole.
    pub findings: Vec<Finding>,
}

/// Reads the records of one chain in the order of their places.
#[derive(Debug)]
pub struct Checker {
    coordinator: String,
    now: Timestamp,
    kept: SignedDuration,
    noted: Option<(u64, Digest)>,
    named_by_head: Option<Head>,
    seen_head: Option<Digest>,
    first: Option<u64>,
    last: Option<(u64, Digest, Timestamp)>,
    findings: Vec<Finding>,
    more: usize,
}

impl Checker {
    /// Checks the chain of `coordinator` at `now`, whose records lapse after `kept`. `head` is its head as it stands;
    /// `noted` are number and hash of a record that somebody wrote down earlier, outside the store.
    #[must_use]
    pub fn new(
        coordinator: &str,
        now: Timestamp,
        kept: Duration,
        head: Option<Head>,
        noted: Option<(u64, Digest)>,
    ) -> Self {
        Self {
            coordinator: coordinator.to_owned(),
            now,
            kept: SignedDuration::try_from(kept).unwrap_or(SignedDuration::MAX),
            noted,
            named_by_head: head,
            seen_head: None,
            first: None,
            last: None,
            findings: Vec::new(),
            more: 0,
        }
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MOST {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }

    /// What stands at a key that names no place, or cannot be read.
    pub fn unreadable(&mut self, key: &str) {
        self.find(Finding::Unreadable(key.chars().take(120).collect()));
    }

    /// The record at `position`.
    pub fn entry(&mut self, position: u64, entry: &Entry) {
        let at = entry.sequence;
        if entry.coordinator != self.coordinator {
            self.find(Finding::Foreign(position));
        }
        if at != position {
            self.find(Finding::Elsewhere {
                position,
                sequence: at,
            });
        }
        if entry.digest() != entry.hash {
            self.find(Finding::Changed(position));
        }
        match self.last {
            None => self.begins(position, entry),
            Some((last, hash, time)) => {
                if position > last.saturating_add(1) {
                    self.find(Finding::Missing(last + 1, position - 1));
                } else {
                    if entry.previous != hash {
                        self.find(Finding::Unlinked(position));
                    }
                    if entry.time < time || entry.previous_time != Some(time) {
                        self.find(Finding::Older(position));
                    }
                }
            }
        }
        if let Some((noted, hash)) = self.noted
            && noted == position
            && hash != entry.hash
        {
            self.find(Finding::Noted(position));
        }
        if self
            .named_by_head
            .as_ref()
            .is_some_and(|head| head.sequence == position)
        {
            self.seen_head = Some(entry.hash);
        }
        self.first.get_or_insert(position);
        self.last = Some((position, entry.hash, entry.time));
    }

    /// Whether what was before the first record may be gone: its time is over.
    fn begins(&mut self, position: u64, entry: &Entry) {
        if position <= 1 {
            if entry.previous != Digest::default() || entry.previous_time.is_some() {
                self.find(Finding::Unlinked(position));
            }
            return;
        }
        match entry.previous_time {
            Some(time) if self.lapsed(time) => {}
            _ => self.find(Finding::Missing(1, position - 1)),
        }
    }

    fn lapsed(&self, time: Timestamp) -> bool {
        time.checked_add(self.kept)
            .is_ok_and(|end| end <= self.now.saturating_add(SLACK).unwrap_or(self.now))
    }

    /// The end of the chain. `sealed`: whether the head's signature is the authority's.
    #[must_use]
    pub fn finish(mut self, sealed: bool) -> Report {
        match self.named_by_head.take() {
            None => self.find(Finding::NoHead),
            Some(head) => {
                if !sealed || head.coordinator != self.coordinator {
                    self.find(Finding::Seal);
                }
                self.ends(&head);
            }
        }
        if let Some((noted, _)) = self.noted
            && self.last.is_none_or(|(last, ..)| noted > last)
        {
            self.find(Finding::Missing(
                self.last.map_or(1, |(last, ..)| last + 1),
                noted,
            ));
        }
        if self.more > 0 {
            self.findings.push(Finding::More(self.more));
        }
        Report {
            coordinator: self.coordinator,
            first: self.first.unwrap_or(0),
            last: self.last.map_or(0, |(last, ..)| last),
            hash: self.last.map(|(_, hash, _)| hash).unwrap_or_default(),
            findings: self.findings,
        }
    }

    fn ends(&mut self, head: &Head) {
        let last = self.last;
        match last {
            // All of them have lapsed.
            None if head.sequence == 0 || self.lapsed(head.time) => {}
            None => self.find(Finding::Missing(1, head.sequence)),
            Some((last, ..)) if last < head.sequence => {
                self.find(Finding::Missing(last + 1, head.sequence));
            }
            Some((last, _, time)) => {
                let before_all = self.first.is_some_and(|first| first > head.sequence);
                if self.seen_head.is_some_and(|hash| hash != head.hash) {
                    self.find(Finding::Head(head.sequence));
                }
                let young = time.checked_add(UNSEALED).is_ok_and(|end| end > self.now);
                if last > head.sequence && (before_all || !young) {
                    self.find(Finding::Unsealed(head.sequence + 1, last));
                }
            }
        }
    }
}
