//! The custom schema of AWS Chatbot (Amazon Q Developer in chat applications), which reads it from a topic and writes it
//! to Slack or Teams: <https://docs.aws.amazon.com/chatbot/latest/adminguide/custom-notifs.html>. Messages with the same
//! `threadId` stand in one thread where the channel's preferences allow it.

use serde_json::{Map, Value, json};

use super::{Message, entities, line};

/// What is longer is cut, well within what a channel shows.
const TITLE: usize = 250;
const DESCRIPTION: usize = 3000;
const WORD: usize = 253;
/// Words of a list.
const MOST_WORDS: usize = 20;

/// The message in that schema.
#[must_use]
pub fn body(message: &Message) -> Value {
    let why = message.why.iter().map(|why| format!("• {}", line(why, 1000)));
    let mut parts = vec![message.text.clone()];
    parts.extend((!message.why.is_empty()).then(|| why.collect::<Vec<_>>().join("\n")));
    parts.extend(message.cost().map(|cost| format!("Cost: {cost}")));
    let description = entities(&parts.join("\n\n"), DESCRIPTION);
    let nodes: Vec<String> = message
        .nodes
        .iter()
        .take(MOST_WORDS)
        .map(|node| entities(&line(node.as_ref(), WORD), WORD))
        .collect();
    let next = message.explain.iter().map(|command| format!("Run `{command}`"));
    let mut context = Map::new();
    context.insert("cluster".into(), message.cluster.clone().into());
    context.insert("severity".into(), message.severity.as_str().into());
    if let Some(cost) = message.cost_change_per_hour {
        context.insert("cost_change_per_hour".into(), format!("{cost:+.4}").into());
    }
    let mut metadata = json!({
        "summary": entities(&line(&message.text, TITLE), TITLE),
        "eventType": format!("smartscale.{}", message.kind),
        "relatedResources": nodes,
        "additionalContext": context,
    });
    if let Some(thread) = &message.thread {
        metadata["threadId"] = format!("{}/{thread}", message.cluster).into();
    }
    json!({
        "version": "1.0",
        "source": "custom",
        "content": {
            "textType": "client-markdown",
            "title": entities(&line(&format!("{}: {}", message.severity.as_str(), message.title), TITLE), TITLE),
            "description": description,
            "nextSteps": next.collect::<Vec<_>>(),
            "keywords": [message.cluster, message.severity.as_str(), message.kind],
        },
        "metadata": metadata,
    })
}
