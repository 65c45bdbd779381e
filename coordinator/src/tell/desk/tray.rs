//! What waits at a desk, and which of it goes next. It knows no clock: it is told the time.

use std::{collections::VecDeque, time::Duration};

use jiff::Timestamp;

use super::{Manners, until};
use crate::tell::{
    Happening, Message, Severity,
    message::{Held, Reason},
};

/// More than this does not wait one by one.
const MOST_WAITING: usize = 500;
/// What is counted for `most_per_minute`.
const MINUTE: Duration = Duration::from_secs(60);

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Next {
    Send(Box<Message>),
    /// To look again after so long.
    After(Duration),
    Nothing,
}

pub(super) struct Tray {
    manners: Manners,
    waiting: VecDeque<Message>,
    /// What did not even find room to wait.
    beyond: Held,
    /// Information of quiet hours, and their end.
    quiet: Held,
    quiet_until: Option<Timestamp>,
    /// When what was no failure was sent within the last minute.
    sent: VecDeque<Duration>,
    not_before: Duration,
    /// Something had to wait for want of room: what waits by now is told together.
    crowded: bool,
    closed: bool,
}

impl Tray {
    pub(super) fn new(manners: Manners) -> Self {
        Self {
            manners,
            waiting: VecDeque::new(),
            beyond: Held::default(),
            quiet: Held::default(),
            quiet_until: None,
            sent: VecDeque::new(),
            not_before: Duration::ZERO,
            crowded: false,
            closed: false,
        }
    }

    pub(super) fn take(&mut self, happening: &Happening, wall: Timestamp) {
        let message = Message::of(&self.manners.cluster, happening);
        let quiet_until = self.manners.quiet_until(wall);
        if quiet_until.is_some() && message.severity <= Severity::Info {
            self.quiet_until = quiet_until;
            self.quiet.add(&message);
            return;
        }
        self.waiting.push_back(message);
        if self.waiting.len() > MOST_WAITING {
            let first = self.waiting.iter().position(|message| !must_be_told(message));
            if let Some(folded) = self.waiting.remove(first.unwrap_or(0)) {
                self.beyond.add(&folded);
                self.crowded = true;
            }
        }
    }

    /// What goes next, at `now` since any fixed point and at `wall` by the wall clock.
    pub(super) fn next(&mut self, now: Duration, wall: Timestamp) -> Next {
        self.wake_up(wall);
        if self.waiting.is_empty() && self.beyond.is_empty() {
            let quiet = self.quiet_until.filter(|_| !self.quiet.is_empty());
            return quiet.map_or(Next::Nothing, |end| Next::After(until(wall, end)));
        }
        if now < self.not_before {
            return Next::After(self.not_before - now);
        }
        while self
            .sent
            .front()
            .is_some_and(|sent| now.saturating_sub(*sent) >= MINUTE)
        {
            self.sent.pop_front();
        }
        let most = self.manners.most_per_minute.filter(|_| !self.closed);
        if let Some(oldest) = self.sent.front()
            && most.is_some_and(|most| self.sent.len() >= most)
        {
            let again = *oldest + MINUTE;
            self.crowded = true;
            let failure = self.waiting.iter().position(must_be_told);
            return match failure.and_then(|index| self.waiting.remove(index)) {
                Some(failure) => self.send(failure, now),
                None => Next::After(again.saturating_sub(now)),
            };
        }
        if std::mem::take(&mut self.crowded) {
            self.fold(wall);
        }
        match self.waiting.pop_front() {
            Some(message) => self.send(message, now),
            None => Next::Nothing,
        }
    }

    fn send(&mut self, message: Message, now: Duration) -> Next {
        self.not_before = now + self.manners.every;
        if !must_be_told(&message) {
            self.sent.push_back(now);
        }
        Next::Send(Box::new(message))
    }

    /// Lets a message that did not arrive wait first, and nothing go before that time.
    pub(super) fn put_back(&mut self, message: Message, not_before: Duration) {
        if !must_be_told(&message) {
            self.sent.pop_back();
        }
        self.not_before = self.not_before.max(not_before);
        self.waiting.push_front(message);
    }

    /// What waits by now is told together.
    pub(super) fn crowd(&mut self) {
        self.crowded = true;
    }

    /// Nothing is taken any more, and what is left goes together. Gives how much of quiet hours is never told.
    pub(super) fn close(&mut self, wall: Timestamp) -> usize {
        self.wake_up(wall);
        self.closed = true;
        self.crowded = true;
        std::mem::take(&mut self.quiet).count()
    }

    /// At the end of quiet hours what was held is one message.
    fn wake_up(&mut self, wall: Timestamp) {
        if self.quiet_until.is_none_or(|end| wall < end) {
            return;
        }
        self.quiet_until = self.manners.quiet_until(wall);
        if self.quiet_until.is_none() && !self.quiet.is_empty() {
            let held = std::mem::take(&mut self.quiet);
            let message = held.message(&self.manners.cluster, Reason::Quiet, wall);
            self.waiting.push_back(message);
        }
    }

    /// Makes one message of all that wait, but of failures; a single one stays as it is.
    fn fold(&mut self, wall: Timestamp) {
        let several = self
            .waiting
            .iter()
            .filter(|message| !must_be_told(message))
            .count()
            > 1;
        if !several && self.beyond.is_empty() {
            return;
        }
        let mut held = std::mem::take(&mut self.beyond);
        let mut failures = VecDeque::new();
        for message in self.waiting.drain(..) {
            if must_be_told(&message) {
                failures.push_back(message);
            } else {
                held.add(&message);
            }
        }
        self.waiting = failures;
        let digest = held.message(&self.manners.cluster, Reason::Rate, wall);
        self.waiting.push_front(digest);
    }
}

/// A failure, and what was made of others: told as it is, whatever there is besides.
fn must_be_told(message: &Message) -> bool {
    message.severity == Severity::Failure
}
