//! Slack, by an incoming webhook or by a bot's token.
//!
//! An incoming webhook answers `ok` and nothing else: what it wrote cannot be replied to, so that each message names its
//! operation instead. `chat.postMessage` gives the message's timestamp, under which the rest of the operation is written
//! as a thread; a warning or failure in it is shown in the channel as well.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use http::Uri;
use serde::Deserialize;
use smartscale_proto::time::SharedClock;

use super::{BadChannel, Poster, SecretFile};
use crate::tell::{Message, NotifyError, Severity, desk::Messenger, message::blocks};

/// Threads that are remembered; operations that are older have ended.
const MOST_THREADS: usize = 512;

/// By which way Slack is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlackDoor {
    /// An incoming webhook, whose address is in this file.
    Webhook(PathBuf),
    /// A bot, whose token is in this file, with the scope `chat:write`.
    Bot {
        /// The file.
        token_file: PathBuf,
        /// The channel's id, or `#name`.
        channel: String,
        /// Slack's API, without its last part.
        api: Uri,
    },
}

impl SlackDoor {
    /// The address of a webhook, or of the API.
    ///
    /// # Errors
    /// [`BadChannel`] when the file does not hold one.
    pub fn address(&self) -> Result<Uri, BadChannel> {
        match self {
            Self::Webhook(_) => self.secret().address(),
            Self::Bot { api, .. } => Ok(api.clone()),
        }
    }

    /// The file with its secret, and the key that names it.
    fn secret(&self) -> SecretFile {
        let (key, path) = match self {
            Self::Webhook(path) => ("notify.slack.webhook_url_file", path),
            Self::Bot { token_file, .. } => ("notify.slack.token_file", token_file),
        };
        SecretFile {
            key,
            path: path.clone(),
        }
    }
}

/// A channel of Slack.
#[derive(Debug)]
pub struct Slack {
    poster: Poster,
    door: SlackDoor,
    /// Operations and the timestamps of their first messages, oldest first.
    threads: Mutex<VecDeque<(String, String)>>,
}

/// The answer of `chat.postMessage`: <https://docs.slack.dev/reference/methods/chat.postMessage>.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    ts: Option<String>,
    error: Option<String>,
}

impl Slack {
    /// Writes by that way. Sends nothing yet.
    ///
    /// # Errors
    /// [`BadChannel`] for a file that cannot be used.
    pub fn new(door: SlackDoor, ca_file: Option<&Path>, clock: SharedClock) -> Result<Self, BadChannel> {
        match &door {
            SlackDoor::Webhook(_) => drop(door.secret().address()?),
            SlackDoor::Bot { .. } => drop(door.secret().bearer()?),
        }
        Ok(Self {
            poster: Poster::new("notify.slack.ca_file", ca_file, clock)?,
            door,
            threads: Mutex::default(),
        })
    }

    fn threads(&self) -> MutexGuard<'_, VecDeque<(String, String)>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thread(&self, message: &Message) -> Option<String> {
        let operation = message.thread.as_ref()?;
        let threads = self.threads();
        let found = threads.iter().find(|(known, _)| known == operation);
        found.map(|(_, ts)| ts.clone())
    }

    async fn post_as_bot(&self, message: &Message, channel: &str, api: &Uri) -> Result<(), NotifyError> {
        let thread = self.thread(message);
        let mut body = blocks::body(message);
        body["channel"] = channel.into();
        if let Some(thread) = &thread {
            body["thread_ts"] = thread.as_str().into();
            body["reply_broadcast"] = (message.severity >= Severity::Warning).into();
        }
        let token = self.door.secret().bearer()?;
        let address = format!("{}/chat.postMessage", api.to_string().trim_end_matches('/'));
        let address = address
            .parse()
            .map_err(|_| NotifyError::Refused("notify.slack.api_url is no address".to_owned()))?;
        let answer = self.poster.post(address, Some(token), body.to_string()).await?;
        let answer: Answer = serde_json::from_slice(answer.body())
            .map_err(|error| NotifyError::Passing(format!("the answer is not Slack's: {error}")))?;
        if answer.ok {
            if let (Some(operation), None, Some(ts)) = (&message.thread, thread, answer.ts) {
                let mut threads = self.threads();
                threads.push_back((operation.clone(), ts));
                if threads.len() > MOST_THREADS {
                    threads.pop_front();
                }
            }
            return Ok(());
        }
        let error = answer.error.unwrap_or_default();
        Err(match error.as_str() {
            // The first message was deleted: the next one begins another thread.
            "thread_not_found" | "cannot_reply_to_message" if thread.is_some() => {
                self.threads().retain(|(_, ts)| Some(ts) != thread.as_ref());
                NotifyError::Passing(error)
            }
            "ratelimited" | "rate_limited" => NotifyError::Busy(super::BUSY),
            "fatal_error" | "internal_error" | "request_timeout" | "service_unavailable" => {
                NotifyError::Passing(error)
            }
            _ => NotifyError::Refused(format!("Slack says {error}")),
        })
    }
}

#[async_trait]
impl Messenger for Slack {
    fn name(&self) -> &'static str {
        "slack"
    }

    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        match &self.door {
            SlackDoor::Webhook(_) => {
                let address = self.door.secret().address()?;
                let body = blocks::body(message).to_string();
                self.poster.post(address, None, body).await.map(|_| ())
            }
            SlackDoor::Bot { channel, api, .. } => self.post_as_bot(message, channel, api).await,
        }
    }
}
