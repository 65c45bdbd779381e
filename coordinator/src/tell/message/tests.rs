#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use smartscale_planner::{Rule, RuleName, snapshot::Source};

use super::*;

/// What a coordinator of `demo` tells of an event.
pub(crate) fn message(text: &str, event: Event) -> Message {
    happened(text, Severity::Warning, event)
}

fn happened(text: &str, severity: Severity, event: Event) -> Message {
    let happening = Happening {
        time: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        severity,
        message: text.into(),
        event,
    };
    Message::of("demo", &happening)
}

pub(crate) fn lost() -> Event {
    Event::Source {
        source: "prometheus".into(),
        fresh: false,
    }
}

/// A launch as its operation tells of it.
pub(crate) fn launch(nodes: &[&str]) -> Event {
    let rule = |rule, value, threshold| Rule {
        rule,
        value,
        threshold,
        fired: true,
        source: Source::Prometheus,
        age_seconds: Some(12),
    };
    Event::Operation {
        operation: "op-1".parse().unwrap(),
        operation_kind: "launch".into(),
        phase: "joining".into(),
        ended: false,
        succeeded: false,
        reason: "launch 2 nodes (2 t3.medium) for 5 pods".into(),
        nodes: nodes.iter().map(|node| NodeName::new(*node)).collect(),
        pods: Vec::new(),
        error_type: None,
        decision: Some("d-1".parse().unwrap()),
        grounds: Grounds {
            rules: vec![
                rule(RuleName::PendingPods, Some(5.0), 0.0),
                rule(RuleName::CpuAbove, Some(82.345), 70.0),
            ],
            cost_change_per_hour: Some(0.0416),
        },
    }
}

/// A removal whose names are somebody's who means harm.
fn hostile() -> Message {
    let mut event = launch(&["i-1`*_~<!channel>&\u{202e}gpj.\n\u{1b}[31m"]);
    if let Event::Operation { reason, .. } = &mut event {
        *reason = "<!everyone> <https://evil.example|click> a & b".into();
    }
    happened("pod <@U123>/x is in the way\r\u{7}", Severity::Failure, event)
}

fn launched() -> Message {
    happened("launched 2 machines", Severity::Info, launch(&["i-0a", "i-0b"]))
}

#[test]
fn a_launch_in_slacks_blocks() {
    insta::assert_json_snapshot!(blocks::body(&launched()));
}

#[test]
fn a_launch_in_chatbots_schema() {
    insta::assert_json_snapshot!(chatbot::body(&launched()));
}

#[test]
fn a_launch_as_json() {
    let body: serde_json::Value = serde_json::from_str(&json::body(&launched(), 65536).unwrap()).unwrap();
    insta::assert_json_snapshot!(body);
}

#[test]
fn a_launch_as_text() {
    insta::assert_snapshot!(text::body(&launched()));
}

#[test]
fn names_that_mean_harm_are_shown_and_do_nothing() {
    let message = hostile();
    insta::assert_json_snapshot!("hostile_blocks", blocks::body(&message));
    insta::assert_snapshot!("hostile_text", text::body(&message));
    for body in [blocks::body(&message), chatbot::body(&message)] {
        let text = body.to_string();
        for harm in ["<!", "<@", "<https", "\u{202e}", "\\u001b"] {
            assert!(!text.contains(harm), "{harm} in {text}");
        }
    }
}

#[test]
fn what_programs_have_read_so_far_is_still_there() {
    let text = json::body(&message("Prometheus does not answer", lost()), 65536).unwrap();
    let body: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (field, value) in [
        ("message", serde_json::json!("Prometheus does not answer")),
        ("cluster", "demo".into()),
        ("severity", "warning".into()),
        ("time", "2026-01-02T03:04:05.678Z".into()),
        ("kind", "source".into()),
        ("subject", "prometheus".into()),
        (
            "event",
            serde_json::json!({"kind": "source", "source": "prometheus", "fresh": false}),
        ),
    ] {
        assert_eq!(body[field], value, "{field}");
    }
}

#[test]
fn a_subject_keeps_to_what_sns_takes() {
    let subject = text::subject(&message(&format!("a\nb é {}", "x".repeat(200)), lost()));
    assert_eq!(subject.len(), text::LONGEST_SUBJECT);
    assert!(
        subject.starts_with("SmartScale demo: warning: a?b ? xxx"),
        "{subject}"
    );
}

/// The longest text of each kind of object in a message to Slack.
fn longest(value: &serde_json::Value, of: &str, found: &mut usize) {
    if let Some(text) = value["text"].as_str().filter(|_| value["type"] == of) {
        *found = text.encode_utf16().count().max(*found);
    }
    let children = value.as_object().into_iter().flat_map(|object| object.values());
    for child in children.chain(value.as_array().into_iter().flatten()) {
        longest(child, of, found);
    }
}

#[test]
fn a_message_of_any_size_keeps_to_slacks_limits() {
    let names: Vec<String> = (0..2000).map(|n| format!("<{n}>{}", "&".repeat(300))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut message = happened(&"& 𝄞".repeat(5000), Severity::Info, launch(&names));
    message.title = "<&>".repeat(200);
    message.why = vec!["&".repeat(5000); 100];
    let body = blocks::body(&message);
    assert!(body["blocks"].as_array().unwrap().len() <= 50);
    let most = |of: &str| {
        let mut found = 0;
        longest(&body, of, &mut found);
        found
    };
    assert!((1..=150).contains(&most("plain_text")), "{}", most("plain_text"));
    assert!((1..=3000).contains(&most("mrkdwn")), "{}", most("mrkdwn"));
    let fields = body["blocks"].as_array().unwrap().iter();
    for field in fields.filter_map(|block| block["fields"].as_array()).flatten() {
        assert!(field["text"].as_str().unwrap().encode_utf16().count() <= 2000);
    }
    // No entity is cut apart.
    let text = body.to_string();
    let rests = text.split('&').skip(1);
    for rest in rests {
        let whole = ["amp;", "lt;", "gt;"]
            .iter()
            .any(|entity| rest.starts_with(entity));
        assert!(whole, "{}", rest.chars().take(10).collect::<String>());
    }
    assert!(
        text.contains("(20 of 2000)"),
        "the nodes that are not named are counted"
    );
}

#[test]
fn text_that_fits_is_not_cut_and_text_that_does_not_ends_with_an_ellipsis() {
    assert_eq!(line("abc", 3), "abc");
    assert_eq!(line("abcd", 3), "ab…");
    assert_eq!(entities("a&b", 7), "a&amp;b");
    assert_eq!(entities("a&&", 7), "a&amp;…");
    assert_eq!(entities("a&b", 5), "a…");
    assert_eq!(line("𝄞𝄞", 3), "𝄞…");
}
