//! The queue that EventBridge feeds: what is received is hidden for a while, and comes again unless it is deleted.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use smartscale_coordinator::{
    ids::InstanceId,
    observe::notices::listen::{NoticeQueue, QueueError, Received, VISIBILITY, WAIT},
};
use smartscale_proto::time::Clock as _;

use crate::{doors::Fails, outside::Outside};

/// Between two looks of one read.
const LOOK: Duration = Duration::from_secs(2);
/// Messages of one read.
const BATCH: usize = 10;

/// What EventBridge tells of a machine.
pub(crate) enum Told {
    Interrupted(InstanceId),
    Terminated(InstanceId),
}

impl Told {
    pub(crate) fn event(&self, now: Timestamp) -> String {
        let (kind, instance) = match self {
            Self::Interrupted(instance) => ("EC2 Spot Instance Interruption Warning", instance),
            Self::Terminated(instance) => ("EC2 Instance State-change Notification", instance),
        };
        json!({
            "id": format!("of-{instance}"), "detail-type": kind, "source": "aws.ec2", "time": now.to_string(),
            "detail": { "instance-id": instance, "instance-action": "terminate", "state": "shutting-down" }
        })
        .to_string()
    }
}

struct Message {
    receipt: u64,
    body: String,
    visible_at: Duration,
}

/// The queue.
#[derive(Default)]
pub(crate) struct Queue {
    messages: Mutex<Vec<Message>>,
    receipts: AtomicU64,
}

impl Queue {
    /// A message that arrives at `visible_at`.
    pub(crate) fn send(&self, body: String, visible_at: Duration) {
        self.messages.lock().unwrap().push(Message {
            receipt: self.receipts.fetch_add(1, Ordering::Relaxed),
            body,
            visible_at,
        });
    }

    fn receive(&self, now: Duration) -> Vec<Received> {
        let mut messages = self.messages.lock().unwrap();
        let visible = messages.iter_mut().filter(|message| message.visible_at <= now);
        visible
            .take(BATCH)
            .map(|message| {
                message.visible_at = now + VISIBILITY;
                Received {
                    body: message.body.clone(),
                    receipt: message.receipt.to_string(),
                }
            })
            .collect()
    }

    fn delete(&self, receipts: &BTreeSet<String>) {
        let mut messages = self.messages.lock().unwrap();
        messages.retain(|message| !receipts.contains(&message.receipt.to_string()));
    }

    /// How many messages nobody has taken in.
    pub(crate) fn left(&self) -> usize {
        self.messages.lock().unwrap().len()
    }
}

impl Fails for QueueError {
    fn before() -> Self {
        Self("it was not reached".to_owned())
    }
    fn unknown() -> Self {
        Self("it did not answer".to_owned())
    }
}

#[async_trait]
impl NoticeQueue for Outside {
    async fn receive(&self) -> Result<Vec<Received>, QueueError> {
        let time = self.door.time.clone();
        let until = time.elapsed() + WAIT;
        loop {
            let (queue, clock) = (self.town.queue.clone(), time.clone());
            let received = self
                .door
                .call("read the queue".to_owned(), false, move || {
                    Ok::<_, QueueError>(queue.receive(clock.elapsed()))
                })
                .await?;
            if !received.is_empty() || time.elapsed() >= until {
                return Ok(received);
            }
            time.sleep(LOOK).await;
        }
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<(), QueueError> {
        let queue = self.town.queue.clone();
        let receipts: BTreeSet<String> = receipts.into_iter().collect();
        self.door
            .call(format!("delete {receipts:?}"), true, move || {
                queue.delete(&receipts);
                Ok(())
            })
            .await
    }
}
