//! Plain text, for e-mail.

use std::fmt::Write as _;

use super::{Message, line};

/// The longest subject that SNS takes, in characters; ASCII without control characters only.
pub const LONGEST_SUBJECT: usize = 100;
/// A line is cut here.
const LONGEST_LINE: usize = 2000;
/// Reasons that are listed.
const MOST_REASONS: usize = 40;

/// The subject of a mail.
#[must_use]
pub fn subject(message: &Message) -> String {
    let Message {
        cluster,
        severity,
        text,
        ..
    } = message;
    let subject = format!("SmartScale {cluster}: {}: {text}", severity.as_str());
    let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    let subject: String = subject.chars().take(LONGEST_SUBJECT).map(printable).collect();
    subject.trim_end().to_owned()
}

/// The text of a mail.
#[must_use]
pub fn body(message: &Message) -> String {
    let cut = |text: &str| line(text, LONGEST_LINE);
    let mut text = format!("{}\n\n{}\n", cut(&message.title), cut(&message.text));
    // Writing to a String cannot fail.
    if !message.why.is_empty() {
        text.push_str("\nWhy:\n");
        for reason in message.why.iter().take(MOST_REASONS) {
            let _ = writeln!(text, "- {}", cut(reason));
        }
    }
    let (names, more) = message.named();
    let mut names: Vec<String> = names.map(|name| line(name, 253)).collect();
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    let mut facts = Vec::new();
    facts.extend((!names.is_empty()).then(|| format!("Nodes: {}", names.join(", "))));
    facts.extend(message.cost().map(|cost| format!("Cost: {cost}")));
    facts.extend(
        message
            .explain
            .as_ref()
            .map(|command| format!("Explain: {command}")),
    );
    if !facts.is_empty() {
        let _ = write!(text, "\n{}\n", facts.join("\n"));
    }
    let _ = writeln!(text, "\n{}", message.origin().join(", "));
    text
}
