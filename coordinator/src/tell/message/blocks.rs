//! Slack's Block Kit: <https://docs.slack.dev/reference/block-kit/blocks>. The limits are Slack's, which refuses a whole
//! message for one block that is too long.

use serde_json::{Value, json};

use super::{Message, Severity, entities, line};

/// The text of a header.
const HEADER: usize = 150;
/// The text of a section.
const SECTION: usize = 3000;
/// The text of a field of a section, of which there are two here.
const FIELD: usize = 2000;
/// What phones show of a message.
const FALLBACK: usize = 300;

/// The message as Slack takes it by a webhook, and, with a channel, by `chat.postMessage`.
#[must_use]
pub fn body(message: &Message) -> Value {
    let title = format!("{} {}", sign(message.severity), message.title);
    let mut blocks = vec![
        json!({
            "type": "header",
            "text": { "type": "plain_text", "text": entities(&line(&title, HEADER), HEADER), "emoji": true },
        }),
        section(&entities(&message.text, SECTION)),
    ];
    if !message.why.is_empty() {
        let reasons = message.why.iter().map(|why| format!("• {}", line(why, FIELD)));
        let reasons: Vec<String> = reasons.collect();
        blocks.push(section(&entities(
            &format!("*Why*\n{}", reasons.join("\n")),
            SECTION,
        )));
    }
    let mut fields = Vec::new();
    if !message.nodes.is_empty() {
        fields.push(mrkdwn(&entities(&nodes(message), FIELD)));
    }
    if let Some(cost) = message.cost() {
        fields.push(mrkdwn(&entities(&format!("*Cost*\n{cost}"), FIELD)));
    }
    if !fields.is_empty() {
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    if let Some(command) = &message.explain {
        blocks.push(section(&entities(
            &format!("*Explain*\n```{command}```"),
            SECTION,
        )));
    }
    let origin = entities(&message.origin().join(" · "), FIELD);
    blocks.push(json!({ "type": "context", "elements": [mrkdwn(&origin)] }));
    let fallback = format!("{}: {}", message.title, message.text);
    json!({
        "text": entities(&line(&fallback, FALLBACK), FALLBACK),
        "blocks": blocks,
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

/// How many there are stands first, where nothing is cut. A name within a span of code is ended by a backtick.
fn nodes(message: &Message) -> String {
    let (names, more) = message.named();
    let names = names.map(|name| format!("`{}`", line(name, 63).replace('`', "'")));
    let names: Vec<String> = names.collect();
    let count = match more {
        0 => String::new(),
        _ => format!(" ({} of {})", names.len(), message.nodes.len()),
    };
    format!("*Nodes*{count}\n{}", names.join(" "))
}

fn section(text: &str) -> Value {
    json!({ "type": "section", "text": mrkdwn(text) })
}

/// `verbatim`: what looks like a channel, a person or an address is none.
fn mrkdwn(text: &str) -> Value {
    json!({ "type": "mrkdwn", "text": text, "verbatim": true })
}

fn sign(severity: Severity) -> &'static str {
    match severity {
        Severity::Detail | Severity::Info => ":information_source:",
        Severity::Warning => ":warning:",
        Severity::Failure => ":rotating_light:",
    }
}
