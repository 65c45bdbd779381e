//! Decisions to CloudWatch Logs: a stream for each coordinator, in a group that somebody else has made, with the time for
//! which it is kept.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_cloudwatchlogs::{
    Client,
    config::http::HttpResponse,
    error::{ProvideErrorMetadata as _, SdkError},
    operation::put_log_events::{PutLogEventsError, PutLogEventsOutput},
    types::{InputLogEvent, RejectedLogEventsInfo},
};
use smartscale_planner::model::ClusterId;

use super::failure::{looked, words};
use crate::{
    check::channels::{Channel, Looked},
    ids::CoordinatorName,
    tell::{
        NotifyError,
        decision_log::{Line, LogStream, batch::Batch},
    },
};

type PutError = SdkError<PutLogEventsError, HttpResponse>;

/// A stream of a group.
#[derive(Debug, Clone)]
pub struct CloudWatchLogs {
    client: Client,
    group: String,
    stream: String,
}

impl CloudWatchLogs {
    /// The stream of a coordinator in `group`: no two write the same one. Sends nothing yet.
    #[must_use]
    pub fn new(
        config: &SdkConfig,
        group: String,
        cluster: &ClusterId,
        coordinator: &CoordinatorName,
    ) -> Self {
        Self {
            client: Client::new(config),
            group,
            stream: format!("{cluster}/{coordinator}"),
        }
    }

    async fn put(&self, batch: &Batch) -> Result<PutLogEventsOutput, PutError> {
        let event = |line: &Line| {
            InputLogEvent::builder()
                .timestamp(line.time().as_millisecond())
                .message(line.text())
                .build()
        };
        let events: Result<Vec<_>, _> = batch.lines().iter().map(event).collect();
        self.client
            .put_log_events()
            .log_group_name(&self.group)
            .log_stream_name(&self.stream)
            .set_log_events(Some(events.map_err(SdkError::construction_failure)?))
            .send()
            .await
    }

    /// Makes the stream, unless somebody has in the meantime.
    async fn make(&self) -> Result<(), NotifyError> {
        let made = self
            .client
            .create_log_stream()
            .log_group_name(&self.group)
            .log_stream_name(&self.stream)
            .send()
            .await;
        match made {
            Ok(_) => Ok(()),
            Err(error) if error.code() == Some("ResourceAlreadyExistsException") => Ok(()),
            // Of a group that is not there, too: it may be made yet.
            Err(error) => Err(NotifyError::Passing(words(&error))),
        }
    }
}

#[async_trait]
impl LogStream for CloudWatchLogs {
    fn name(&self) -> &'static str {
        "cloudwatch-logs"
    }

    async fn append(&self, batch: &Batch) -> Result<usize, NotifyError> {
        let mut answer = self.put(batch).await;
        if answer.as_ref().is_err_and(is_missing) {
            self.make().await?;
            answer = self.put(batch).await;
        }
        match answer {
            Ok(answer) => Ok(answer
                .rejected_log_events_info()
                .map_or(0, |info| rejected(info, batch.lines().len()))),
            // What is wrong with a batch stays wrong. A right that is missing may be given.
            Err(error) if error.code() == Some("InvalidParameterException") => {
                Err(NotifyError::Refused(words(&error)))
            }
            Err(error) => Err(NotifyError::Passing(words(&error))),
        }
    }
}

fn is_missing(error: &PutError) -> bool {
    error.code() == Some("ResourceNotFoundException")
}

/// How many of `lines` were refused: the first ones are too old for CloudWatch (14 days) or the group's retention, the last
/// ones further ahead of its clock than two hours.
fn rejected(info: &RejectedLogEventsInfo, lines: usize) -> usize {
    let index = |index: Option<i32>, default| index.map_or(default, |i| usize::try_from(i).unwrap_or(0));
    let too_old = index(info.too_old_log_event_end_index(), 0);
    let expired = index(info.expired_log_event_end_index(), 0);
    let too_new = index(info.too_new_log_event_start_index(), lines);
    (too_old.max(expired) + lines.saturating_sub(too_new)).min(lines)
}

#[async_trait]
impl Channel for CloudWatchLogs {
    fn tried(&self) -> String {
        format!("looked for the stream {} of {}", self.stream, self.group)
    }

    async fn look(&self) -> Looked {
        let answer = self
            .client
            .describe_log_streams()
            .log_group_name(&self.group)
            .log_stream_name_prefix(&self.stream)
            .limit(1)
            .send()
            .await;
        let streams = match &answer {
            Ok(answer) => answer.log_streams(),
            Err(error) => return looked(error),
        };
        let is_mine = |stream: &aws_sdk_cloudwatchlogs::types::LogStream| {
            stream.log_stream_name() == Some(self.stream.as_str())
        };
        Looked::There(if streams.iter().any(is_mine) {
            "it is there; nothing was written".to_owned()
        } else {
            "the group is there, and the first decision makes the stream; nothing was written".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(old: Option<i32>, expired: Option<i32>, new: Option<i32>) -> RejectedLogEventsInfo {
        RejectedLogEventsInfo::builder()
            .set_too_old_log_event_end_index(old)
            .set_expired_log_event_end_index(expired)
            .set_too_new_log_event_start_index(new)
            .build()
    }

    #[test]
    fn lines_at_either_end_of_a_batch_may_be_refused() {
        for (info, refused) in [
            (info(None, None, None), 0),
            (info(Some(3), None, None), 3),
            (info(None, Some(2), None), 2),
            // What is too old has expired as well.
            (info(Some(3), Some(5), None), 5),
            (info(None, None, Some(8)), 2),
            (info(Some(3), None, Some(8)), 5),
            (info(Some(10), None, Some(0)), 10),
        ] {
            assert_eq!(rejected(&info, 10), refused, "{info:?}");
        }
    }
}
