//! Notifications through an SNS topic: one message for each, with attributes to filter subscriptions by.

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_sns::{Client, error::BuildError, types::MessageAttributeValue};
use sha2::{Digest as _, Sha256};

use super::failure::{looked, not_told};
use crate::{
    check::channels::{Channel, Looked},
    config::SnsFormat,
    tell::{
        Message, Messenger, NotifyError,
        message::{chatbot, json, text},
    },
};

/// The longest message that SNS takes, in bytes, whatever it is in.
const LONGEST_MESSAGE: usize = 256 * 1024;
/// What is left of that for JSON, beside which the same stands as text for mail.
const LONGEST_JSON: usize = 128 * 1024;

/// A topic.
#[derive(Debug, Clone)]
pub struct Sns {
    client: Client,
    topic_arn: String,
    format: SnsFormat,
}

impl Sns {
    /// Publishes to `topic_arn` in this form. Sends nothing yet.
    #[must_use]
    pub fn new(config: &SdkConfig, topic_arn: String, format: SnsFormat) -> Self {
        Self {
            client: Client::new(config),
            topic_arn,
            format,
        }
    }

    /// A topic in order, which knows neither mail nor chat.
    fn is_ordered(&self) -> bool {
        self.topic_arn.ends_with(".fifo")
    }

    /// What most subscriptions get.
    fn body(&self, message: &Message) -> Result<String, serde_json::Error> {
        match self.format {
            SnsFormat::Json => json::body(message, LONGEST_JSON),
            SnsFormat::Text => Ok(text::body(message)),
            SnsFormat::Chatbot => serde_json::to_string_pretty(&chatbot::body(message)),
        }
    }

    /// The same with text for mail, which nobody wants to read as JSON
    /// (<https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>, `MessageStructure`); `None` where all get the same,
    /// or where both are too long.
    fn by_protocol(&self, message: &Message, body: &str) -> Option<String> {
        if self.format == SnsFormat::Text || self.is_ordered() {
            return None;
        }
        let both = serde_json::json!({ "default": body, "email": text::body(message) }).to_string();
        (both.len() <= LONGEST_MESSAGE).then_some(both)
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
impl Messenger for Sns {
    fn name(&self) -> &'static str {
        "sns"
    }

    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        let body = self
            .body(message)
            .map_err(|error| NotifyError::Refused(error.to_string()))?;
        let mut publish = self
            .client
            .publish()
            .topic_arn(&self.topic_arn)
            .subject(text::subject(message))
            .message_attributes("cluster", attribute(&message.cluster)?)
            .message_attributes("severity", attribute(message.severity.as_str())?)
            .message_attributes("kind", attribute(message.kind)?);
        // A topic in order wants to know what to keep in order, and what is a repetition.
        if self.is_ordered() {
            publish = publish
                .message_group_id(&message.cluster)
                .message_deduplication_id(hex::encode(Sha256::digest(&body)));
        }
        let publish = match self.by_protocol(message, &body) {
            Some(both) => publish.message_structure("json").message(both),
            None => publish.message(body),
        };
        publish.send().await.map(|_| ()).map_err(|error| not_told(&error))
    }
}

#[async_trait]
impl Channel for Sns {
    fn tried(&self) -> String {
        format!("looked at {}", self.topic_arn)
    }

    async fn look(&self) -> Looked {
        let answer = self
            .client
            .get_topic_attributes()
            .topic_arn(&self.topic_arn)
            .send()
            .await;
        let attributes = match &answer {
            Ok(answer) => answer.attributes(),
            Err(error) => return looked(error),
        };
        let count = |name: &str| {
            let value = attributes.and_then(|attributes| attributes.get(name));
            value.map_or("?", String::as_str)
        };
        Looked::There(format!(
            "it is there; subscriptions: {} confirmed, {} not yet; nothing was published",
            count("SubscriptionsConfirmed"),
            count("SubscriptionsPending")
        ))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;
    use crate::tell::{
        Event,
        message::tests::{lost, message},
    };

    fn sns(format: SnsFormat, topic: &str) -> Sns {
        let config = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::v2026_01_12())
            .build();
        let arn = format!("arn:aws:sns:us-east-1:123456789012:{topic}");
        Sns::new(&config, arn, format)
    }

    #[test]
    fn mail_gets_text_where_programs_get_json_and_all_the_same_where_there_is_no_mail() {
        let message = message("Prometheus does not answer", lost());
        let topic = sns(SnsFormat::Json, "t");
        let body = topic.body(&message).unwrap();
        let both: serde_json::Value =
            serde_json::from_str(&topic.by_protocol(&message, &body).unwrap()).unwrap();
        assert_eq!(both["default"], body);
        assert_eq!(both["email"], text::body(&message));
        assert!(body.contains(r#""kind": "source""#), "{body}");
        for (format, topic) in [(SnsFormat::Text, "t"), (SnsFormat::Json, "t.fifo")] {
            assert_eq!(sns(format, topic).by_protocol(&message, &body), None);
        }
    }

    #[test]
    fn too_many_particulars_are_left_out() {
        let event = Event::Trouble {
            error_type: "x".repeat(LONGEST_MESSAGE),
        };
        let mut message = message("much", event);
        message.title = "Trouble".into();
        let body = sns(SnsFormat::Json, "t").body(&message).unwrap();
        assert!(body.len() < 1024 && !body.contains("\"event\""), "{}", body.len());
    }
}
