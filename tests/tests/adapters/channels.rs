//! What SNS and SQS take of a coordinator, and what a look at them comes to.

use serde_json::Value;
use smartscale_coordinator::aws::queue::SqsQueue;
use smartscale_coordinator::aws::sns::Sns;
use smartscale_coordinator::check::channels::{Channel as _, Looked};
use smartscale_coordinator::config::SnsFormat;
use smartscale_coordinator::tell::message::{chatbot, json, text};
use smartscale_coordinator::tell::{Event, Grounds, Happening, Message, Messenger as _, Severity};
use smartscale_tests::rig::{Folder, Ministack, aws};

fn launch() -> Message {
    let happening = Happening {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        severity: Severity::Info,
        message: "launched 1 machine".to_owned(),
        event: Event::Operation {
            operation: "op-1".parse().unwrap(),
            operation_kind: "launch".to_owned(),
            phase: "joining".to_owned(),
            ended: false,
            succeeded: false,
            reason: "launch 1 node for 3 pods".to_owned(),
            nodes: vec!["i-0a".into()],
            pods: Vec::new(),
            error_type: None,
            decision: Some("d-1".parse().unwrap()),
            grounds: Grounds {
                rules: Vec::new(),
                cost_change_per_hour: Some(0.0208),
            },
        },
    };
    Message::of("demo", &happening)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_passes_each_form_on_to_its_queue() {
    let folder = Folder::new("channels-sns").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let topic = server.create_topic("smartscale").await.unwrap();
    let config = aws::config(&server.url(), &aws::Key::root()).await;
    let message = launch();
    for (format, expected) in [
        (SnsFormat::Json, json::body(&message, 65536).unwrap()),
        (SnsFormat::Text, text::body(&message)),
        (
            SnsFormat::Chatbot,
            serde_json::to_string_pretty(&chatbot::body(&message)).unwrap(),
        ),
    ] {
        let sns = Sns::new(&config, topic.arn.clone(), format);
        sns.send(&message).await.unwrap();
        assert_eq!(
            server.take_messages(&topic).await.unwrap(),
            [expected],
            "{format:?}"
        );
    }
    let body: Value = serde_json::from_str(&json::body(&message, 65536).unwrap()).unwrap();
    assert_eq!(body["explain"], "smartscale explain op-1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_tells_a_topic_and_a_queue_that_are_there_from_those_that_are_not_and_tells_nobody() {
    let folder = Folder::new("channels-look").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let topic = server.create_topic("smartscale").await.unwrap();
    let url = server.create_queue("notices").await.unwrap();
    server.send_message(&url, "{}").await.unwrap();
    let config = aws::config(&server.url(), &aws::Key::root()).await;
    let sns = |arn: String| Sns::new(&config, arn, SnsFormat::Json);
    let found = sns(topic.arn.clone()).look().await;
    assert!(
        matches!(&found, Looked::There(text) if text.contains("1 confirmed")),
        "{found:?}"
    );
    assert!(matches!(
        sns(format!("{}-gone", topic.arn)).look().await,
        Looked::Failed(_)
    ));
    assert!(server.take_messages(&topic).await.unwrap().is_empty());

    let queue = SqsQueue::new(&config, url.clone());
    let found = queue.look().await;
    assert!(
        matches!(&found, Looked::There(text) if text.contains("1 messages")),
        "{found:?}"
    );
    assert_eq!(server.messages_in(&url).await.unwrap(), 1);
    let gone = SqsQueue::new(&config, format!("{url}-gone")).look().await;
    assert!(matches!(gone, Looked::Failed(_)), "{gone:?}");
}
