//! What CloudWatch Logs takes of a coordinator's decisions, and what a look at a log group comes to.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use smartscale_coordinator::aws::logs::CloudWatchLogs;
use smartscale_coordinator::check::channels::{Channel as _, Looked};
use smartscale_coordinator::tell::NotifyError;
use smartscale_coordinator::tell::decision_log::batch::{Batch, LONGEST_LINE};
use smartscale_coordinator::tell::decision_log::{Line, LogStream as _};
use smartscale_tests::rig::{Ec2, Folder, Ministack, aws};

const GROUP: &str = "/smartscale/demo/decisions";

async fn stream(url: &str, coordinator: &str) -> CloudWatchLogs {
    let config = aws::config(url, &aws::Key::root()).await;
    let cluster = "demo".into();
    CloudWatchLogs::new(&config, GROUP.to_owned(), &cluster, &coordinator.parse().unwrap())
}

fn line(hours_ago: i64, text: &str) -> Line {
    Line::new(
        Timestamp::now() - SignedDuration::from_hours(hours_ago),
        text.to_owned(),
    )
}

fn batch(lines: impl IntoIterator<Item = Line>) -> Batch {
    let mut waiting: VecDeque<Line> = lines.into_iter().collect();
    let batch = Batch::take(&mut waiting).unwrap();
    assert!(waiting.is_empty());
    batch
}

#[tokio::test(flavor = "multi_thread")]
async fn each_coordinator_writes_a_stream_of_its_own_which_its_first_batch_makes_and_never_the_group() {
    let folder = Folder::new("logs").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let a = stream(&server.url(), "coordinator-a").await;
    let b = stream(&server.url(), "coordinator-b").await;
    let first = batch([line(1, r#"{"id":"d-1"}"#), line(0, "ä")]);
    let without_group = a.append(&first).await;
    assert!(
        matches!(&without_group, Err(NotifyError::Passing(words)) if words.contains("log group does not exist")),
        "{without_group:?}"
    );

    server.create_log_group(GROUP).await.unwrap();
    assert_eq!(a.append(&first).await, Ok(0));
    assert_eq!(a.append(&batch([line(0, "second")])).await, Ok(0));
    assert_eq!(b.append(&batch([line(0, "other")])).await, Ok(0));
    let logged = server.logged(GROUP, "demo/coordinator-a").await.unwrap();
    assert_eq!(logged, [r#"{"id":"d-1"}"#, "ä", "second"]);
    assert_eq!(
        server.logged(GROUP, "demo/coordinator-b").await.unwrap(),
        ["other"]
    );

    // The longest line that there is goes through, and arrives whole.
    let longest = "x".repeat(LONGEST_LINE);
    assert_eq!(b.append(&batch([line(0, &longest)])).await, Ok(0));
    let logged = server.logged(GROUP, "demo/coordinator-b").await.unwrap();
    assert_eq!(logged.last(), Some(&longest));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_tells_a_group_that_is_there_from_one_that_is_not_and_writes_nothing() {
    let folder = Folder::new("logs-look").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let stream = stream(&server.url(), "coordinator-a").await;
    assert!(matches!(stream.look().await, Looked::Failed(_)));
    server.create_log_group(GROUP).await.unwrap();
    let found = stream.look().await;
    assert!(
        matches!(&found, Looked::There(text) if text.contains("the first decision makes the stream")),
        "{found:?}"
    );
    server.logged(GROUP, "demo/coordinator-a").await.unwrap_err();
    stream.append(&batch([line(0, "first")])).await.unwrap();
    assert_eq!(
        stream.look().await,
        Looked::There("it is there; nothing was written".to_owned())
    );
    assert_eq!(
        server.logged(GROUP, "demo/coordinator-a").await.unwrap(),
        ["first"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_missing_may_be_given_later_and_lets_nobody_look() {
    let folder = Folder::new("logs-rights").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    server.create_log_group(GROUP).await.unwrap();
    let other = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "sns:Publish", "Resource": "*"}],
    });
    server.create_instance_role("coordinator", &other).await.unwrap();
    let key = server.instance_key("coordinator", "i-0abc").await.unwrap();
    let config = aws::config(&server.url(), &key).await;
    let name = "coordinator-a".parse().unwrap();
    let stream = CloudWatchLogs::new(&config, GROUP.to_owned(), &"demo".into(), &name);
    let refused = stream.append(&batch([line(0, "first")])).await;
    assert!(
        matches!(&refused, Err(NotifyError::Passing(words)) if words.contains("AccessDenied")),
        "{refused:?}"
    );
    assert!(matches!(stream.look().await, Looked::Forbidden(_)));
}

/// moto's Logs looks at times, as CloudWatch does and ministack does not. (It counts one line too few of those that are too old,
/// as if the index that it names were not exclusive.)
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_are_refused_for_their_time_are_noticed_and_the_others_are_there() {
    let folder = Folder::new("logs-times").unwrap();
    let server = Ec2::start(&folder).await.unwrap();
    let config = aws::config(&server.url(), &aws::Key::root()).await;
    let client = aws_sdk_cloudwatchlogs::Client::new(&config);
    client
        .create_log_group()
        .log_group_name(GROUP)
        .send()
        .await
        .unwrap();
    let stream = stream(&server.url(), "coordinator-a").await;
    let month = 30 * 24;
    let old = batch([line(month, "old"), line(month - 1, "old too")]);
    assert_eq!(stream.append(&old).await, Ok(1));
    // By time, whatever the order in which they came.
    let new = batch([line(-3, "new"), line(1, "good"), line(0, "good too")]);
    assert_eq!(stream.append(&new).await, Ok(1));
    let logged = client
        .get_log_events()
        .log_group_name(GROUP)
        .log_stream_name("demo/coordinator-a")
        .start_from_head(true)
        .send()
        .await
        .unwrap();
    let logged: Vec<_> = logged
        .events()
        .iter()
        .filter_map(|event| event.message())
        .collect();
    assert_eq!(logged, ["good", "good too"]);
}
