//! What people are told: one message for each happening, whoever carries it and in whatever form.
//!
//! ```text
//!                        ┌─▶ blocks    Slack's Block Kit
//!  happening ─▶ Message ─┼─▶ chatbot   AWS Chatbot's custom schema
//!                        ├─▶ text      e-mail
//!                        └─▶ json      webhooks and programs
//! ```
//! Names in it come from the cluster, where whoever may create an object chooses them: each form cuts and escapes them.

pub mod blocks;
pub mod chatbot;
mod digest;
pub mod json;
pub mod text;
mod words;

pub(crate) use digest::{Held, Reason};

use jiff::Timestamp;
use smartscale_planner::model::NodeName;

use super::{Event, Grounds, Happening, Severity};

/// Nodes that are named; of more only the number is said.
const MOST_NODES: usize = 20;

/// A message.
#[derive(Debug, Clone)]
pub struct Message {
    /// The cluster that it is about.
    pub cluster: String,
    /// How much attention it deserves.
    pub severity: Severity,
    /// When it happened.
    pub time: Timestamp,
    /// What kind of happening it is, in a word: an event's, or `digest`.
    pub kind: &'static str,
    /// What it is about, as [`Event::subject`] says.
    pub subject: String,
    /// What happened, in a few words.
    pub title: String,
    /// What happened, in a sentence.
    pub text: String,
    /// Why, one figure or reason each.
    pub why: Vec<String>,
    /// The nodes that it concerns.
    pub nodes: Vec<NodeName>,
    /// What it costs (positive) or saves (negative), in USD per hour; absent where nobody knows.
    pub cost_change_per_hour: Option<f64>,
    /// The command that explains it.
    pub explain: Option<String>,
    /// The operation that it belongs to: messages of one operation stand together.
    pub thread: Option<String>,
    /// All particulars, for programs; absent of what is summarised.
    pub event: Option<Event>,
}

impl Message {
    /// Of what happened in `cluster`.
    #[must_use]
    pub fn of(cluster: &str, happening: &Happening) -> Self {
        let event = &happening.event;
        let mut message = Self {
            cluster: cluster.to_owned(),
            severity: happening.severity,
            time: happening.time,
            kind: event.kind(),
            subject: event.subject(),
            title: words::title(event),
            text: happening.message.clone(),
            why: Vec::new(),
            nodes: Vec::new(),
            cost_change_per_hour: None,
            explain: words::explain(event),
            thread: None,
            event: Some(event.clone()),
        };
        match event {
            Event::Decided { grounds, nodes, .. } => message.add(grounds, nodes),
            Event::Operation {
                operation,
                reason,
                nodes,
                grounds,
                ..
            } => {
                if !message.text.contains(reason.as_str()) {
                    message.why.push(reason.clone());
                }
                message.add(grounds, nodes);
                message.thread = Some(operation.to_string());
            }
            Event::Joined { instance, .. }
            | Event::Noticed { instance, .. }
            | Event::Agent { instance, .. }
            | Event::BootStep { instance, .. } => message.nodes = vec![instance.as_str().into()],
            Event::Drain {
                instance, operation, ..
            } => {
                message.nodes = vec![instance.as_str().into()];
                message.thread = Some(operation.clone());
            }
            Event::LeaseAcquired { .. }
            | Event::LeaseLost { .. }
            | Event::Source { .. }
            | Event::Admin { .. }
            | Event::Brake { .. }
            | Event::Policy { .. }
            | Event::Trouble { .. } => {}
        }
        message
    }

    fn add(&mut self, grounds: &Grounds, nodes: &[NodeName]) {
        self.why.extend(grounds.rules.iter().map(words::figure));
        self.nodes = nodes.to_vec();
        self.cost_change_per_hour = grounds.cost_change_per_hour;
    }

    /// The names of the first nodes, and how many more there are.
    fn named(&self) -> (impl Iterator<Item = &str>, usize) {
        let more = self.nodes.len().saturating_sub(MOST_NODES);
        (self.nodes.iter().take(MOST_NODES).map(AsRef::as_ref), more)
    }

    /// What it costs, in words.
    fn cost(&self) -> Option<String> {
        self.cost_change_per_hour.map(words::cost)
    }

    /// Which cluster, how bad, and when: the last line of every form.
    fn origin(&self) -> Vec<String> {
        let mut parts = vec![self.cluster.clone(), self.severity.as_str().to_owned()];
        parts.extend(self.thread.as_ref().map(|thread| format!("operation {thread}")));
        parts.push(self.time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        parts
    }
}

/// The first `most` characters of `text` on one line, by the count of UTF-16 that is never below anybody else's, without
/// characters that control a terminal or turn the direction of writing around. What is cut ends with an ellipsis.
fn line(text: &str, most: usize) -> String {
    cut(text, most, false)
}

/// The same with Slack's three characters as entities, none of them cut apart; its lines stay lines.
fn entities(text: &str, most: usize) -> String {
    cut(text, most, true)
}

fn cut(text: &str, most: usize, for_slack: bool) -> String {
    let piece = |c: char| match c {
        '\n' if for_slack => "\n".to_owned(),
        '&' if for_slack => "&amp;".to_owned(),
        '<' if for_slack => "&lt;".to_owned(),
        '>' if for_slack => "&gt;".to_owned(),
        c if c.is_control() => " ".to_owned(),
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => String::new(),
        c => c.to_string(),
    };
    let units = |text: &str| text.encode_utf16().count();
    let mut whole = String::new();
    let mut used = 0;
    // Up to here there is still room for an ellipsis.
    let mut short = 0;
    for piece in text.chars().map(piece) {
        used += units(&piece);
        if used > most {
            whole.truncate(short);
            whole.push('…');
            break;
        }
        whole.push_str(&piece);
        if used < most {
            short = whole.len();
        }
    }
    whole
}

#[cfg(test)]
pub(crate) mod tests;
