//! Notifications through an SNS topic: one message for each happening, with attributes to filter subscriptions by.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sns::{Client, error::BuildError, types::MessageAttributeValue};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::failure::not_told;
use crate::tell::{Event, Happening, Notifier, NotifyError, Severity};

/// The longest message that SNS takes, in bytes.
const LONGEST_MESSAGE: usize = 256 * 1024;
/// The longest subject that SNS takes, in characters; ASCII without control characters only.
const LONGEST_SUBJECT: usize = 100;

/// A topic.
#[derive(Debug, Clone)]
pub struct Sns {
    client: Client,
    topic_arn: String,
    cluster_id: String,
}

/// The body of a message, as JSON.
#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
    cluster: &'a str,
    severity: Severity,
    time: Timestamp,
    /// What happened, and to what.
    kind: &'static str,
    subject: String,
    /// All its particulars; left out where they are more than a message takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a Event>,
}

impl Sns {
    /// Publishes to `topic_arn` what happens in the cluster. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, topic_arn: String, cluster_id: String) -> Self {
        Self {
            client: Client::new(config),
            topic_arn,
            cluster_id,
        }
    }

    fn body(&self, happening: &Happening) -> Result<String, serde_json::Error> {
        let mut body = Body {
            message: &happening.message,
            cluster: &self.cluster_id,
            severity: happening.severity,
            time: happening.time,
            kind: happening.event.kind(),
            subject: happening.event.subject(),
            event: Some(&happening.event),
        };
        let whole = serde_json::to_string_pretty(&body)?;
        if whole.len() <= LONGEST_MESSAGE {
            return Ok(whole);
        }
        body.event = None;
        serde_json::to_string_pretty(&body)
    }

    fn subject(&self, happening: &Happening) -> String {
        let subject = format!(
            "SmartScale {}: {}: {}",
            self.cluster_id,
            happening.severity.as_str(),
            happening.message
        );
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        subject
            .chars()
            .take(LONGEST_SUBJECT)
            .map(printable)
            .collect::<String>()
            .trim_end()
            .to_owned()
    }
}

fn attribute(value: &str) -> Result<MessageAttributeValue, NotifyError> {
    let built = MessageAttributeValue::builder()
        .data_type("String")
        .string_value(value)
        .build();
    built.map_err(|error: BuildError| NotifyError::Refused(error.to_string()))
}

#[async_trait]
impl Notifier for Sns {
    fn name(&self) -> &'static str {
        "sns"
    }

    async fn notify(&self, happening: &Happening) -> Result<(), NotifyError> {
        let body = self
            .body(happening)
            .map_err(|error| NotifyError::Refused(error.to_string()))?;
        let mut publish = self
            .client
            .publish()
            .topic_arn(&self.topic_arn)
            .subject(self.subject(happening))
            .message_attributes("cluster", attribute(&self.cluster_id)?)
            .message_attributes("severity", attribute(happening.severity.as_str())?)
            .message_attributes("kind", attribute(happening.event.kind())?);
        // A topic in order wants to know what to keep in order, and what is a repetition.
        if self.topic_arn.ends_with(".fifo") {
            publish = publish
                .message_group_id(&self.cluster_id)
                .message_deduplication_id(hex::encode(Sha256::digest(&body)));
        }
        publish
            .message(body)
            .send()
            .await
            .map(|_| ())
            .map_err(|error| not_told(&error))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    fn sns() -> Sns {
        let config = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .build();
        Sns::new(
            &config,
            "arn:aws:sns:us-east-1:123456789012:t".into(),
            "demo".into(),
        )
    }

    fn happening(message: &str, event: Event) -> Happening {
        Happening {
            time: Timestamp::UNIX_EPOCH,
            severity: Severity::Warning,
            message: message.into(),
            event,
        }
    }

    fn lost() -> Event {
        Event::Source {
            source: "prometheus".into(),
            fresh: false,
        }
    }

    #[test]
    fn a_message_says_what_happened_to_people_and_to_programs() {
        let body = sns()
            .body(&happening("Prometheus does not answer", lost()))
            .unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({
                "message": "Prometheus does not answer",
                "cluster": "demo",
                "severity": "warning",
                "time": "1970-01-01T00:00:00Z",
                "kind": "source",
                "subject": "prometheus",
                "event": {"kind": "source", "source": "prometheus", "fresh": false},
            })
        );
    }

    #[test]
    fn a_subject_keeps_to_what_sns_takes() {
        let subject = sns().subject(&happening(&format!("a\nb é {}", "x".repeat(200)), lost()));
        assert_eq!(subject.len(), LONGEST_SUBJECT);
        assert!(
            subject.starts_with("SmartScale demo: warning: a?b ? xxx"),
            "{subject}"
        );
    }

    #[test]
    fn too_many_particulars_are_left_out() {
        let event = Event::Trouble {
            error_type: "x".repeat(LONGEST_MESSAGE),
        };
        let body = sns().body(&happening("much", event)).unwrap();
        assert!(body.len() < 1024 && !body.contains("\"event\""), "{}", body.len());
    }
}
