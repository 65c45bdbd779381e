//! JSON, for webhooks, and for programs behind a topic.

use jiff::Timestamp;
use serde::Serialize;
use smartscale_planner::model::NodeName;

use super::Message;
use crate::tell::{Event, Severity};

/// The body as it is written. Fields are added, never taken away.
#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    cluster: &'a str,
    severity: Severity,
    time: Timestamp,
    /// What happened, and to what.
    kind: &'static str,
    subject: &'a str,
    title: &'a str,
    why: &'a [String],
    nodes: &'a [NodeName],
    cost_change_per_hour: Option<f64>,
    explain: Option<&'a str>,
    thread: Option<&'a str>,
    /// All its particulars; left out where they are more than a message takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Event>,
}

/// The body, of at most `most` bytes unless the message itself has more.
///
/// # Errors
/// What cannot be written as JSON.
pub fn body(message: &Message, most: usize) -> Result<String, serde_json::Error> {
    let mut body = Body {
        message: &message.text,
        cluster: &message.cluster,
        severity: message.severity,
        time: message.time,
        kind: message.kind,
        subject: &message.subject,
        title: &message.title,
        why: &message.why,
        nodes: &message.nodes,
        cost_change_per_hour: message.cost_change_per_hour,
        explain: message.explain.as_deref(),
        thread: message.thread.as_deref(),
        event: message.event.as_ref(),
    };
    let whole = serde_json::to_string_pretty(&body)?;
    if whole.len() <= most {
        return Ok(whole);
    }
    body.event = None;
    serde_json::to_string_pretty(&body)
}
