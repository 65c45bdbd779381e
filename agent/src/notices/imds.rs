//! Notices as IMDS gives them: `spot/instance-action`, `events/recommendations/rebalance` and `events/maintenance/scheduled`
//! (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>,
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/viewing_scheduled_events.html>).

use async_trait::async_trait;
use jiff::{Timestamp, fmt::rfc2822};
use serde::Deserialize;

use super::{Notice, NoticeKind, NoticeSource};
use crate::{error::Failure, machine::imds::Imds};

/// Events that are read at most; an instance has a handful.
const MOST_EVENTS: usize = 32;

#[derive(Deserialize)]
struct InstanceAction {
    action: String,
    time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rebalance {
    notice_time: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    code: String,
    event_id: String,
    not_before: String,
    #[serde(default)]
    state: String,
}

fn refused(path: &str, error: &serde_json::Error) -> Failure {
    Failure::because(format!(
        "the instance metadata service's {path} makes no sense: {error}"
    ))
}

/// RFC 3339, as for spot; or `21 Jan 2019 09:00:43 GMT`, as for maintenance.
fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| {
        let zoned = rfc2822::DateTimeParser::new().parse_zoned(text).ok()?;
        Some(zoned.timestamp())
    })
}

/// Only what may stand in an id.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        .take(80)
        .collect()
}

fn spot(text: &str) -> Result<Notice, serde_json::Error> {
    let notice: InstanceAction = serde_json::from_str(text)?;
    Ok(Notice {
        kind: NoticeKind::SpotInterruption,
        id: format!("spot-{}-{}", plain(&notice.action), plain(&notice.time)),
        at: time(&notice.time),
        detail: notice.action,
    })
}

fn rebalance(text: &str) -> Result<Notice, serde_json::Error> {
    let notice: Rebalance = serde_json::from_str(text)?;
    Ok(Notice {
        kind: NoticeKind::Rebalance,
        id: format!("rebalance-{}", plain(&notice.notice_time)),
        at: None,
        detail: "rebalance".to_owned(),
    })
}

fn maintenance(text: &str) -> Result<Vec<Notice>, serde_json::Error> {
    let events: Vec<Event> = serde_json::from_str(text)?;
    let standing = events
        .into_iter()
        .filter(|event| matches!(event.state.as_str(), "" | "active"));
    let notice = |event: Event| Notice {
        kind: NoticeKind::Maintenance,
        id: format!("maintenance-{}", plain(&event.event_id)),
        at: time(&event.not_before),
        detail: event.code,
    };
    Ok(standing.take(MOST_EVENTS).map(notice).collect())
}

#[async_trait]
impl NoticeSource for Imds {
    async fn standing(&self) -> Result<Vec<Notice>, Failure> {
        let mut notices = Vec::new();
        const SPOT: &str = "meta-data/spot/instance-action";
        if let Some(text) = self.get(SPOT).await? {
            notices.push(spot(&text).map_err(|error| refused(SPOT, &error))?);
        }
        // The others must not hide an interruption: what they say wrong is logged and passed over.
        const REBALANCE: &str = "meta-data/events/recommendations/rebalance";
        const MAINTENANCE: &str = "meta-data/events/maintenance/scheduled";
        match self
            .get(REBALANCE)
            .await
            .map(|text| text.map(|text| rebalance(&text)))
        {
            Ok(Some(Ok(notice))) => notices.push(notice),
            Ok(Some(Err(error))) => {
                tracing::warn!(error = %refused(REBALANCE, &error), "a notice was passed over");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %Failure::from(error), "a notice could not be read"),
        }
        match self
            .get(MAINTENANCE)
            .await
            .map(|text| text.map(|text| maintenance(&text)))
        {
            Ok(Some(Ok(events))) => notices.extend(events),
            Ok(Some(Err(error))) => {
                tracing::warn!(error = %refused(MAINTENANCE, &error), "a notice was passed over");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %Failure::from(error), "a notice could not be read"),
        }
        Ok(notices)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_interruption_is_read_with_its_time() {
        let notice = spot(r#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#).unwrap();
        assert_eq!(notice.kind, NoticeKind::SpotInterruption);
        assert_eq!(notice.id, "spot-terminate-2017-09-18T082200Z");
        assert_eq!(notice.operation(), "notice/spot-terminate-2017-09-18T082200Z");
        assert_eq!(notice.at.unwrap().to_string(), "2017-09-18T08:22:00Z");
    }

    #[test]
    fn an_interruption_whose_time_makes_no_sense_is_one_all_the_same() {
        let notice = spot(r#"{"action": "stop", "time": "soon"}"#).unwrap();
        assert_eq!((notice.at, notice.detail.as_str()), (None, "stop"));
    }

    #[test]
    fn a_maintenance_event_counts_while_it_is_active() {
        let text = r#"[
            {"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot",
             "EventId": "instance-event-0d59937288b749b32", "NotAfter": "21 Jan 2019 09:17:23 GMT", "State": "active"},
            {"NotBefore": "20 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "Description": "[Completed]",
             "EventId": "instance-event-1", "State": "completed"}]"#;
        let events = maintenance(text).unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].id, "maintenance-instance-event-0d59937288b749b32");
        assert_eq!(events[0].at.unwrap().to_string(), "2019-01-21T09:00:43Z");
        assert_eq!(events[0].detail, "system-reboot");
    }

    #[test]
    fn a_recommendation_is_known_by_its_time() {
        let notice = rebalance(r#"{"noticeTime": "2020-10-27T08:22:00Z"}"#).unwrap();
        assert_eq!(notice.id, "rebalance-2020-10-27T082200Z");
    }

    mod fuzz {
        use smartscale_fuzz::{Target, fuzz};

        use super::*;

        #[test]
        fn notices_of_the_metadata_service() {
            let target = Target {
                name: "agent/imds-notices",
                seeds: &[
                    br#"{"action": "terminate", "time": "2017-09-18T08:22:00Z"}"#,
                    br#"{"noticeTime": "2020-10-27T08:22:00Z"}"#,
                    br#"[{"NotBefore": "21 Jan 2019 09:00:43 GMT", "Code": "system-reboot", "EventId": "e-1", "State": "active"}]"#,
                ],
                words: &["\"action\"", "\"time\"", ":", ",", "{", "}", "[", "]", "GMT", "+99:99", "active"],
                kept: None,
            };
            fuzz(target, |input| {
                let text = String::from_utf8_lossy(input);
                let word = |read: Result<Notice, serde_json::Error>| match read {
                    Ok(notice) => {
                        assert!(notice.id.len() <= 200, "an id stays short");
                        format!("{}", notice.at.is_some())
                    }
                    Err(error) => error.to_string(),
                };
                let events = maintenance(&text).map_or_else(
                    |error| error.to_string(),
                    |events| {
                        assert!(events.len() <= MOST_EVENTS);
                        "taken".to_owned()
                    },
                );
                format!("{} {} {events}", word(spot(&text)), word(rebalance(&text)))
            });
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_readers_panic(text: String) {
            let _ = (spot(&text), rebalance(&text), maintenance(&text), time(&text));
        }
    }
}
