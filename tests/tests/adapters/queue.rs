//! The queue of EC2's notices, against an SQS.

use std::time::{Duration, Instant};

use smartscale_coordinator::aws::queue::SqsQueue;
use smartscale_coordinator::observe::notices::listen::{NoticeQueue as _, Received};
use smartscale_tests::rig::{Folder, Ministack, aws};

async fn queue(server: &Ministack, url: &str) -> SqsQueue {
    let config = aws::config(&server.url(), &aws::Key::root()).await;
    SqsQueue::new(&config, url.to_owned())
}

fn receipts(messages: &[Received]) -> Vec<String> {
    messages.iter().map(|message| message.receipt.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_received_is_hidden_until_it_is_deleted() {
    let folder = Folder::new("queue").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let url = server.create_queue("notices").await.unwrap();
    // Two coordinators read the same queue.
    let one = queue(&server, &url).await.with_wait(Duration::from_secs(1));
    let other = queue(&server, &url).await.with_wait(Duration::from_secs(1));
    assert_eq!(one.receive().await.unwrap(), []);

    server.send_message(&url, "{ \"detail\": \"ä\" }").await.unwrap();
    let received = one.receive().await.unwrap();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, "{ \"detail\": \"ä\" }");
    assert_eq!(other.receive().await.unwrap(), []);
    assert_eq!(server.messages_in(&url).await.unwrap(), 1);

    one.delete(receipts(&received)).await.unwrap();
    assert_eq!(server.messages_in(&url).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_call_takes_are_received_and_deleted_call_by_call() {
    let folder = Folder::new("queue-many").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let url = server.create_queue("notices").await.unwrap();
    let queue = queue(&server, &url).await.with_wait(Duration::from_secs(1));
    for n in 0..12 {
        server.send_message(&url, &n.to_string()).await.unwrap();
    }
    let mut received = Vec::new();
    while received.len() < 12 {
        let more = queue.receive().await.unwrap();
        assert!((1..=10).contains(&more.len()), "{more:?}");
        received.extend(more);
    }
    queue.delete(receipts(&received)).await.unwrap();
    assert_eq!(server.messages_in(&url).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_a_message_and_ends_when_one_comes() {
    let folder = Folder::new("queue-wait").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let url = server.create_queue("notices").await.unwrap();
    let queue = queue(&server, &url).await;
    let began = Instant::now();
    let send = async {
        tokio::task::yield_now().await;
        server.send_message(&url, "late").await.unwrap();
    };
    let (received, ()) = tokio::join!(queue.receive(), send);
    assert_eq!(received.unwrap()[0].body, "late");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_not_there_or_not_answering_is_an_error_that_says_so() {
    let folder = Folder::new("queue-away").unwrap();
    let server = Ministack::start(&folder).await.unwrap();
    let url = server.create_queue("notices").await.unwrap();
    let missing = queue(&server, &url.replace("notices", "nothing")).await;
    let error = missing.receive().await.unwrap_err().to_string();
    assert!(
        error.contains("QueueDoesNotExist") || error.contains("NonExistentQueue"),
        "{error}"
    );
    let there = queue(&server, &url).await;
    drop(server);
    assert!(there.receive().await.is_err());
    assert!(there.delete(vec!["a".to_owned()]).await.is_err());
}
