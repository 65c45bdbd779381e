//! A webhook of anybody's: the message as JSON.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use http::Uri;
use smartscale_proto::time::SharedClock;

use super::{BadChannel, Poster, SecretFile};
use crate::tell::{Message, NotifyError, desk::Messenger, message::json};

/// The longest body.
const LONGEST_BODY: usize = 256 * 1024;

/// Where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// At an address that is no secret.
    Address(Uri),
    /// At the address in this file.
    File(PathBuf),
}

/// A webhook.
#[derive(Debug)]
pub struct Webhook {
    poster: Poster,
    target: Target,
    bearer: Option<SecretFile>,
}

impl Target {
    /// The address.
    ///
    /// # Errors
    /// [`BadChannel`] when the file does not hold one.
    pub fn address(&self) -> Result<Uri, BadChannel> {
        match self {
            Self::Address(uri) => Ok(uri.clone()),
            Self::File(path) => SecretFile {
                key: "notify.webhook.url_file",
                path: path.clone(),
            }
            .address(),
        }
    }
}

impl Webhook {
    /// Posts to `target`, with the bearer token of a file if there is one. Sends nothing yet.
    ///
    /// # Errors
    /// [`BadChannel`] for a file that cannot be used.
    pub fn new(
        target: Target,
        bearer_token_file: Option<PathBuf>,
        ca_file: Option<&Path>,
        clock: SharedClock,
    ) -> Result<Self, BadChannel> {
        let bearer = bearer_token_file.map(|path| SecretFile {
            key: "notify.webhook.bearer_token_file",
            path,
        });
        let webhook = Self {
            poster: Poster::new("notify.webhook.ca_file", ca_file, clock)?,
            target,
            bearer,
        };
        webhook.target.address()?;
        webhook.bearer.as_ref().map(SecretFile::bearer).transpose()?;
        Ok(webhook)
    }
}

#[async_trait]
impl Messenger for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        let body =
            json::body(message, LONGEST_BODY).map_err(|error| NotifyError::Refused(error.to_string()))?;
        let bearer = self.bearer.as_ref().map(SecretFile::bearer).transpose()?;
        let address = self.target.address()?;
        self.poster.post(address, bearer, body).await.map(|_| ())
    }
}
