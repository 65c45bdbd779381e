//! The queue of EventBridge's events, in SQS. It is the cluster's own: what is about other machines is deleted.

use std::time::Duration;

use async_trait::async_trait;
use aws_config::{SdkConfig, timeout::TimeoutConfig};
use aws_sdk_sqs::{
    Client,
    types::{DeleteMessageBatchRequestEntry, QueueAttributeName},
};

use super::{
    CONNECT_TIMEOUT,
    failure::{looked, words},
};
use crate::{
    check::channels::{Channel, Looked},
    observe::notices::listen::{NoticeQueue, QueueError, Received, VISIBILITY, WAIT},
};

/// Messages of one call, the most that SQS takes.
const BATCH: usize = 10;
/// A read is given up so long after it should have ended by itself.
const GRACE: Duration = Duration::from_secs(5);

/// A queue.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
    wait: Duration,
}

impl SqsQueue {
    /// The queue at `url`. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, url: String) -> Self {
        // A read that waits takes longer than any call elsewhere may.
        let longest = WAIT + GRACE;
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(longest)
            .operation_timeout(longest)
            .build();
        let config = aws_sdk_sqs::config::Builder::from(config)
            .timeout_config(timeouts)
            .build();
        Self {
            client: Client::from_conf(config),
            url,
            wait: WAIT,
        }
    }

    /// A read waits only so long; whole seconds.
    #[must_use]
    pub fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait.min(WAIT);
        self
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_secs()).unwrap_or(i32::MAX)
}

#[async_trait]
impl NoticeQueue for SqsQueue {
    async fn receive(&self) -> Result<Vec<Received>, QueueError> {
        let answer = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .wait_time_seconds(seconds(self.wait))
            .max_number_of_messages(i32::try_from(BATCH).unwrap_or(10))
            .visibility_timeout(seconds(VISIBILITY))
            .send()
            .await
            .map_err(|error| QueueError(words(&error)))?;
        let message = |message: aws_sdk_sqs::types::Message| {
            Some(Received {
                receipt: message.receipt_handle?,
                body: message.body.unwrap_or_default(),
            })
        };
        Ok(answer
            .messages
            .unwrap_or_default()
            .into_iter()
            .filter_map(message)
            .collect())
    }

    async fn delete(&self, receipts: Vec<String>) -> Result<(), QueueError> {
        for batch in receipts.chunks(BATCH) {
            let entries = batch.iter().enumerate().map(|(index, receipt)| {
                DeleteMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(receipt)
                    .build()
                    .map_err(|error| QueueError(error.to_string()))
            });
            let answer = self
                .client
                .delete_message_batch()
                .queue_url(&self.url)
                .set_entries(Some(entries.collect::<Result<_, _>>()?))
                .send()
                .await
                .map_err(|error| QueueError(words(&error)))?;
            if let Some(failed) = answer.failed().first() {
                return Err(QueueError(format!(
                    "{} of {} messages were not deleted, the first for {}: {}",
                    answer.failed().len(),
                    batch.len(),
                    failed.code(),
                    failed.message().unwrap_or_default()
                )));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Channel for SqsQueue {
    fn tried(&self) -> String {
        format!("looked at {}", self.url)
    }

    async fn look(&self) -> Looked {
        let waiting = QueueAttributeName::ApproximateNumberOfMessages;
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.url)
            .attribute_names(waiting.clone())
            .send()
            .await;
        let attributes = match &answer {
            Ok(answer) => answer.attributes(),
            Err(error) => return looked(error),
        };
        let count = attributes.and_then(|attributes| attributes.get(&waiting));
        let count = count.map_or("?", String::as_str);
        Looked::There(format!("it is there, with {count} messages; none was taken"))
    }
}
