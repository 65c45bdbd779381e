#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use smartscale_proto::time::{Clock, SystemClock};

use super::{
    testing::{Reply, Slackish},
    *,
};
use crate::tell::{
    Message, Messenger as _, Severity,
    message::{
        blocks, json,
        tests::{launch, lost, message},
    },
};

const SECRET: &str = "/services/T0/B0/XXSECRETXX";

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

/// A file with a secret in it.
fn file(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("secret");
    std::fs::write(&path, format!("{text}\n")).unwrap();
    path
}

fn webhook_of_slack(folder: &Path, server: &Slackish) -> Slack {
    let door = SlackDoor::Webhook(file(folder, &server.url(SECRET)));
    Slack::new(door, None, clock()).unwrap()
}

fn bot(folder: &Path, server: &Slackish) -> Slack {
    let door = SlackDoor::Bot {
        token_file: file(folder, "xoxb-1"),
        channel: "C012".into(),
        api: address(&server.url("/api/")).unwrap(),
    };
    Slack::new(door, None, clock()).unwrap()
}

fn of_operation(severity: Severity) -> Message {
    Message {
        severity,
        ..message("launched 2 machines", launch(&["i-0a"]))
    }
}

#[tokio::test]
async fn an_incoming_webhook_is_posted_the_blocks_over_https_and_believed_by_the_authority_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let server = Slackish::start_with_tls(&ca).await;
    let door = SlackDoor::Webhook(file(folder.path(), &server.url(SECRET)));
    let slack = Slack::new(door.clone(), Some(&ca), clock()).unwrap();
    let message = of_operation(Severity::Info);
    slack.send(&message).await.unwrap();
    let heard = server.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].line, format!("POST {SECRET}"));
    assert_eq!(
        heard[0].content_type.as_deref(),
        Some("application/json; charset=utf-8")
    );
    assert_eq!(heard[0].body, blocks::body(&message));
    insta::assert_json_snapshot!("posted_to_an_incoming_webhook", heard[0].body);

    let stranger = Slack::new(door, None, clock()).unwrap();
    let error = stranger.send(&message).await.unwrap_err();
    assert!(
        matches!(&error, NotifyError::Passing(text) if text.contains("certificate")),
        "{error}"
    );
    assert!(!format!("{error} {error:?} {stranger:?}").contains("SECRET"));
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn a_bot_writes_one_thread_for_each_operation_and_shows_its_failure_in_the_channel() {
    let folder = tempfile::tempdir().unwrap();
    let server = Slackish::start().await;
    let bot = bot(folder.path(), &server);
    server.answer([
        Reply::Status(200, None, r#"{"ok":true,"ts":"1.1"}"#),
        Reply::Status(200, None, r#"{"ok":true,"ts":"1.2"}"#),
        Reply::Status(200, None, r#"{"ok":true,"ts":"1.3"}"#),
        Reply::Status(200, None, r#"{"ok":true,"ts":"1.4"}"#),
    ]);
    bot.send(&of_operation(Severity::Info)).await.unwrap();
    bot.send(&of_operation(Severity::Info)).await.unwrap();
    bot.send(&of_operation(Severity::Failure)).await.unwrap();
    bot.send(&message("Prometheus does not answer", lost()))
        .await
        .unwrap();
    let heard = server.heard();
    let threads: Vec<_> = heard
        .iter()
        .map(|heard| {
            (
                heard.body["thread_ts"].clone(),
                heard.body["reply_broadcast"].clone(),
            )
        })
        .collect();
    assert_eq!(
        threads,
        [
            (json!(null), json!(null)),
            (json!("1.1"), json!(false)),
            (json!("1.1"), json!(true)),
            (json!(null), json!(null)),
        ]
    );
    assert_eq!(heard[0].line, "POST /api/chat.postMessage");
    assert_eq!(heard[0].authorization.as_deref(), Some("Bearer xoxb-1"));
    insta::assert_json_snapshot!("posted_by_a_bot", heard[2].body);
}

#[tokio::test]
async fn a_thread_that_was_deleted_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let server = Slackish::start().await;
    let bot = bot(folder.path(), &server);
    server.answer([
        Reply::Status(200, None, r#"{"ok":true,"ts":"1.1"}"#),
        Reply::Status(200, None, r#"{"ok":false,"error":"thread_not_found"}"#),
        Reply::Status(200, None, r#"{"ok":true,"ts":"2.1"}"#),
    ]);
    let message = of_operation(Severity::Info);
    bot.send(&message).await.unwrap();
    assert!(matches!(bot.send(&message).await, Err(NotifyError::Passing(_))));
    bot.send(&message).await.unwrap();
    assert_eq!(server.heard()[2].body["thread_ts"], json!(null));
}

#[tokio::test]
async fn each_answer_means_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = Slackish::start().await;
    let slack = webhook_of_slack(folder.path(), &server);
    let message = of_operation(Severity::Info);
    let elsewhere = Some(("location", "http://127.0.0.1:1/elsewhere"));
    for (reply, expected) in [
        (
            Reply::Status(429, Some(("retry-after", "17")), ""),
            NotifyError::Busy(Duration::from_secs(17)),
        ),
        (Reply::Status(429, None, "{}"), NotifyError::Busy(BUSY)),
        (
            Reply::Status(503, Some(("retry-after", "2")), ""),
            NotifyError::Busy(Duration::from_secs(2)),
        ),
        (
            Reply::Status(500, None, "rollup_error"),
            NotifyError::Passing("answered 500 Internal Server Error: rollup_error".into()),
        ),
        (
            Reply::Status(404, None, "no_service"),
            NotifyError::Refused("answered 404 Not Found: no_service".into()),
        ),
        (
            Reply::Status(302, elsewhere, ""),
            NotifyError::Refused("answered 302 Found: redirects are not followed".into()),
        ),
    ] {
        server.answer([reply]);
        assert_eq!(slack.send(&message).await.unwrap_err(), expected);
    }
    assert_eq!(server.heard().len(), 6);

    let bot = bot(folder.path(), &server);
    for (reply, expected) in [
        (r#"{"ok":false,"error":"ratelimited"}"#, NotifyError::Busy(BUSY)),
        (
            r#"{"ok":false,"error":"internal_error"}"#,
            NotifyError::Passing("internal_error".into()),
        ),
        (
            r#"{"ok":false,"error":"not_in_channel"}"#,
            NotifyError::Refused("Slack says not_in_channel".into()),
        ),
    ] {
        server.answer([Reply::Status(200, None, reply)]);
        assert_eq!(bot.send(&message).await.unwrap_err(), expected);
    }
}

/// A clock whose waits end when the server has heard something: whoever waits for its answer has waited long enough.
struct UntilHeard(Arc<Slackish>);

#[async_trait]
impl Clock for UntilHeard {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _: Duration) {
        self.0.came().await;
    }
}

#[tokio::test]
async fn a_server_that_never_answers_holds_up_no_longer_than_an_answer_may_take() {
    let folder = tempfile::tempdir().unwrap();
    let server = Arc::new(Slackish::start().await);
    server.answer([Reply::Never]);
    let door = SlackDoor::Webhook(file(folder.path(), &server.url(SECRET)));
    let slack = Slack::new(door, None, Arc::new(UntilHeard(Arc::clone(&server)))).unwrap();
    let error = slack.send(&of_operation(Severity::Info)).await.unwrap_err();
    assert_eq!(error, NotifyError::Passing("no answer within 10s".into()));
}

#[tokio::test]
async fn a_webhook_of_anybodys_is_posted_json_with_the_bearer_of_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let server = Slackish::start().await;
    let target = Target::Address(address(&server.url("/hook?a=b")).unwrap());
    let bearer = file(folder.path(), "t0ken");
    let webhook = Webhook::new(target, Some(bearer.clone()), None, clock()).unwrap();
    let message = of_operation(Severity::Info);
    webhook.send(&message).await.unwrap();
    // A token that was changed is the next one's.
    std::fs::write(&bearer, "other").unwrap();
    webhook.send(&message).await.unwrap();
    let heard = server.heard();
    assert_eq!(heard[0].line, "POST /hook?a=b");
    assert_eq!(heard[0].authorization.as_deref(), Some("Bearer t0ken"));
    assert_eq!(heard[1].authorization.as_deref(), Some("Bearer other"));
    let expected: serde_json::Value = serde_json::from_str(&json::body(&message, 65536).unwrap()).unwrap();
    assert_eq!(heard[0].body, expected);
    // A file that is away may come back.
    std::fs::remove_file(&bearer).unwrap();
    let error = webhook.send(&message).await.unwrap_err();
    assert!(
        matches!(&error, NotifyError::Passing(text) if text.contains("notify.webhook.bearer_token_file"))
    );
}

#[test]
fn a_file_that_holds_no_address_is_named_with_its_key_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "hunter2",
        "http://hooks.example/hunter2",
        "ftp://x/hunter2",
        "https:///hunter2",
        "",
    ] {
        let path = file(folder.path(), text);
        let error = Slack::new(SlackDoor::Webhook(path.clone()), None, clock()).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(said.contains("notify.slack.webhook_url_file") && said.contains(path.to_str().unwrap()));
        assert!(!said.contains("hunter2"), "{said}");
    }
    let missing = Slack::new(SlackDoor::Webhook("/nonexistent".into()), None, clock()).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent"), "{missing}");
    let spoilt = SlackDoor::Bot {
        token_file: file(folder.path(), "a\nb"),
        channel: "C1".into(),
        api: address("https://slack.com/api").unwrap(),
    };
    assert!(Slack::new(spoilt, None, clock()).is_err());
}
