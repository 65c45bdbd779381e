//! What was held back, told in one message.

use jiff::Timestamp;

use super::{Message, Severity};

/// Things that are listed; of more only the number is said.
const MOST_LINES: usize = 20;

/// Why something was held back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It came faster than it may be passed on.
    Rate,
    /// Information waits for the end of quiet hours.
    Quiet,
}

/// Messages that were held back: how many, how bad, and the last word on each operation among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    count: usize,
    worst: Option<Severity>,
    since: Option<Timestamp>,
    /// What each is about, and a line about it.
    lines: Vec<(String, String)>,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn add(&mut self, message: &Message) {
        self.count += 1;
        self.worst = self.worst.max(Some(message.severity));
        self.since.get_or_insert(message.time);
        let about = format!("{}/{}", message.kind, message.subject);
        let line = match message.severity {
            Severity::Warning | Severity::Failure => {
                format!("{}: {}", message.severity.as_str(), message.title)
            }
            Severity::Detail | Severity::Info => message.title.clone(),
        };
        let has_room = self.lines.len() < MOST_LINES;
        let same = |(subject, _): &&mut (String, String)| *subject == about && message.thread.is_some();
        // Where an operation stands by now says more than how it began.
        if let Some((_, told)) = self.lines.iter_mut().find(same) {
            *told = line;
        } else if has_room {
            self.lines.push((about, line));
        }
    }

    /// One message for all of them.
    pub(crate) fn message(self, cluster: &str, reason: Reason, now: Timestamp) -> Message {
        let count = self.count;
        let messages = if count == 1 { "message" } else { "messages" };
        let (title, text) = match reason {
            Reason::Rate => (
                format!("and {count} more…"),
                format!("{count} {messages} came faster than they may be passed on."),
            ),
            Reason::Quiet => (
                format!("{count} {messages} in quiet hours"),
                format!("Quiet hours are over; {count} {messages} waited for their end."),
            ),
        };
        let mut why: Vec<String> = self.lines.into_iter().map(|(_, line)| line).collect();
        if why.len() == MOST_LINES && count > MOST_LINES {
            why.push(
                "… all of them are in the log, and `smartscale operations` lists what was done".to_owned(),
            );
        }
        Message {
            cluster: cluster.to_owned(),
            severity: self.worst.unwrap_or(Severity::Info),
            time: now,
            kind: "digest",
            subject: String::new(),
            title,
            text,
            why,
            nodes: Vec::new(),
            cost_change_per_hour: None,
            explain: Some("smartscale operations".to_owned()),
            thread: None,
            event: None,
        }
    }
}
