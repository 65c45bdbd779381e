//! `[notify]`: who is told by which channel, from which severity on, how much, and when not.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::SignedDuration;
use smartscale_planner::policy::Window;

use super::{ConfigError, Reader, raw};
use crate::tell::{
    Severity,
    post::{self, SlackDoor, Target},
};

/// Slack's own limit is one message a second (<https://docs.slack.dev/apis/web-api/rate-limits>).
const SLACK_EVERY: Duration = Duration::from_secs(1);
/// What a person can follow in a channel.
const SLACK_MOST: u32 = 20;
/// What is longer is no quiet, but a channel that nobody wants.
const LONGEST_QUIET: Duration = Duration::from_secs(7 * 24 * 3600);

/// The form of what goes through SNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnsFormat {
    /// JSON for programs; mail gets text.
    Json,
    /// Text for everybody.
    Text,
    /// AWS Chatbot's custom schema; mail gets text.
    Chatbot,
}

/// What is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// From this severity on.
    pub least: Severity,
    /// The least time between two messages.
    pub every: Duration,
    /// Beyond so many in a minute they are told together; `None`: never.
    pub most_per_minute: Option<usize>,
}

/// A topic of SNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sns {
    /// Its ARN.
    pub topic: String,
    /// The form.
    pub format: SnsFormat,
    /// How much of what is passed on.
    pub bounds: Bounds,
}

/// A channel of Slack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slack {
    /// By which way.
    pub door: SlackDoor,
    /// Whom to trust; `None`: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// How much of what is passed on.
    pub bounds: Bounds,
}

/// A webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Where.
    pub target: Target,
    /// A file with a bearer token.
    pub bearer_token_file: Option<PathBuf>,
    /// Whom to trust; `None`: the system's authorities.
    pub ca_file: Option<PathBuf>,
    /// How much of what is passed on.
    pub bounds: Bounds,
}

/// Who is told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Notify {
    /// By SNS.
    pub sns: Option<Sns>,
    /// By Slack.
    pub slack: Option<Slack>,
    /// By a webhook.
    pub webhook: Option<Webhook>,
    /// When information waits.
    pub quiet: Vec<Window>,
}

impl Reader<'_> {
    pub(super) fn notify(&self, raw: raw::RawNotify, folder: &Path) -> Result<Notify, ConfigError> {
        let general = self.severity("notify.least", raw.least.as_deref(), Severity::Info)?;
        let quiet = raw.quiet.iter().enumerate();
        Ok(Notify {
            sns: self.sns(raw.sns, raw.sns_topic, general)?,
            slack: raw
                .slack
                .map(|raw| self.slack(raw, folder, general))
                .transpose()?,
            webhook: raw
                .webhook
                .map(|raw| self.webhook(raw, folder, general))
                .transpose()?,
            quiet: quiet
                .map(|(index, raw)| self.quiet(&format!("notify.quiet[{index}]"), raw))
                .collect::<Result<_, _>>()?,
        })
    }

    fn severity(&self, path: &str, word: Option<&str>, default: Severity) -> Result<Severity, ConfigError> {
        let severities = [
            Severity::Detail,
            Severity::Info,
            Severity::Warning,
            Severity::Failure,
        ];
        let words = severities.map(|severity| (severity.as_str(), severity));
        word.map_or(Ok(default), |word| self.one_of(path, word, &words))
    }

    /// How many messages a minute: 0 is all of them.
    fn most(number: Option<u32>, default: u32) -> Option<usize> {
        let number = number.unwrap_or(default);
        (number > 0).then(|| usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn sns(
        &self,
        raw: raw::RawSns,
        topic: Option<String>,
        general: Severity,
    ) -> Result<Option<Sns>, ConfigError> {
        let set = raw.format.is_some() || raw.least.is_some() || raw.most_per_minute.is_some();
        let topic = match (raw.topic, topic) {
            (Some(_), Some(_)) => {
                return Err(self.error(
                    "notify.sns.topic",
                    "says what notify.sns_topic says: one of the two",
                ));
            }
            (None, None) if set => {
                return Err(self.error(
                    "notify.sns.topic",
                    "is missing: for example arn:aws:sns:us-east-1:123456789012:smartscale",
                ));
            }
            (topic, of_old) => topic.or(of_old),
        };
        let formats = [
            ("json", SnsFormat::Json),
            ("text", SnsFormat::Text),
            ("chatbot", SnsFormat::Chatbot),
        ];
        let format = raw.format.as_deref().unwrap_or("json");
        let format = self.one_of("notify.sns.format", format, &formats)?;
        // Chat is read by people, a topic's JSON by programs, and mails are few anyhow.
        let most = if format == SnsFormat::Chatbot {
            SLACK_MOST
        } else {
            0
        };
        let bounds = Bounds {
            least: self.severity("notify.sns.least", raw.least.as_deref(), general)?,
            every: Duration::ZERO,
            most_per_minute: Self::most(raw.most_per_minute, most),
        };
        Ok(topic.map(|topic| Sns {
            topic,
            format,
            bounds,
        }))
    }

    fn slack(&self, raw: raw::RawSlack, folder: &Path, general: Severity) -> Result<Slack, ConfigError> {
        let door = match (raw.webhook_url_file, raw.token_file) {
            (Some(file), None) => {
                for (path, set) in [
                    ("notify.slack.channel", raw.channel.is_some()),
                    ("notify.slack.api_url", raw.api_url.is_some()),
                ] {
                    if set {
                        return Err(
                            self.error(path, "is only for token_file: a webhook belongs to one channel")
                        );
                    }
                }
                SlackDoor::Webhook(folder.join(file))
            }
            (None, Some(file)) => SlackDoor::Bot {
                token_file: folder.join(file),
                channel: raw.channel.filter(|channel| !channel.is_empty()).ok_or_else(|| {
                    self.error(
                        "notify.slack.channel",
                        "is missing: with token_file, the channel's id, for example C0123456789",
                    )
                })?,
                api: post::address(raw.api_url.as_deref().unwrap_or("https://slack.com/api"))
                    .map_err(|error| self.error("notify.slack.api_url", error))?,
            },
            (Some(_), Some(_)) => {
                return Err(self.error(
                    "notify.slack.token_file",
                    "a bot or a webhook: one of webhook_url_file and token_file",
                ));
            }
            (None, None) => {
                return Err(self.error(
                    "notify.slack",
                    "needs webhook_url_file, the file with an incoming webhook's URL, or token_file and channel",
                ));
            }
        };
        Ok(Slack {
            door,
            ca_file: raw.ca_file.map(|path| folder.join(path)),
            bounds: Bounds {
                least: self.severity("notify.slack.least", raw.least.as_deref(), general)?,
                every: SLACK_EVERY,
                most_per_minute: Self::most(raw.most_per_minute, SLACK_MOST),
            },
        })
    }

    fn webhook(
        &self,
        raw: raw::RawWebhook,
        folder: &Path,
        general: Severity,
    ) -> Result<Webhook, ConfigError> {
        let target = match (raw.url, raw.url_file) {
            (Some(url), None) => {
                Target::Address(post::address(&url).map_err(|error| self.error("notify.webhook.url", error))?)
            }
            (None, Some(file)) => Target::File(folder.join(file)),
            _ => {
                return Err(self.error(
                    "notify.webhook",
                    "needs url, or url_file where the address is a secret: one of the two",
                ));
            }
        };
        Ok(Webhook {
            target,
            bearer_token_file: raw.bearer_token_file.map(|path| folder.join(path)),
            ca_file: raw.ca_file.map(|path| folder.join(path)),
            bounds: Bounds {
                least: self.severity("notify.webhook.least", raw.least.as_deref(), general)?,
                every: Duration::ZERO,
                most_per_minute: Self::most(raw.most_per_minute, 0),
            },
        })
    }

    fn quiet(&self, path: &str, raw: &raw::RawQuiet) -> Result<Window, ConfigError> {
        let at = |key: &str| format!("{path}.{key}");
        let length = self.duration(&at("duration"), Some(&raw.duration), Duration::ZERO)?;
        if length > LONGEST_QUIET {
            return Err(self.error(&at("duration"), "is longer than a week"));
        }
        let length = SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX);
        Window::new(&raw.cron, &raw.time_zone, length, SignedDuration::ZERO)
            .map_err(|error| self.error(&at(error.key()), error.to_string()))
    }
}
