//! Posting messages over HTTPS. An address or a token that is a secret lies in a file, is read for each message, so that
//! it can be changed under way, and is shown nowhere.

mod slack;
mod webhook;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use smartscale_proto::time::SharedClock;
use zeroize::Zeroizing;

pub use self::{
    slack::{Slack, SlackDoor},
    webhook::{Target, Webhook},
};
use super::NotifyError;
use crate::observe::web::{WebClient, secret_header};

/// An answer takes so long at most.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What is read of an answer.
const LONGEST_ANSWER: usize = 64 * 1024;
/// What is quoted of an answer.
const LONGEST_QUOTE: usize = 200;
/// A channel that says it is busy, but not for how long.
const BUSY: Duration = Duration::from_secs(30);

/// Why a channel cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct BadChannel {
    /// The key of the configuration.
    pub key: &'static str,
    /// What is wrong, and what would be right; without the secret.
    pub reason: String,
}

impl From<BadChannel> for NotifyError {
    /// What is wrong with a file may be mended while messages wait.
    fn from(error: BadChannel) -> Self {
        Self::Passing(error.to_string())
    }
}

/// A secret in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretFile {
    pub(crate) key: &'static str,
    pub(crate) path: PathBuf,
}

impl SecretFile {
    fn bad(&self, reason: impl std::fmt::Display) -> BadChannel {
        BadChannel {
            key: self.key,
            reason: format!("{}: {reason}", self.path.display()),
        }
    }

    /// What is in it, without the space around it.
    ///
    /// # Errors
    /// [`BadChannel`] when it cannot be read or is empty.
    pub(crate) fn read(&self) -> Result<Zeroizing<String>, BadChannel> {
        let text = std::fs::read_to_string(&self.path).map(Zeroizing::new);
        let text = text.map_err(|error| self.bad(error))?;
        match text.trim() {
            "" => Err(self.bad("is empty: it should hold the secret")),
            secret => Ok(Zeroizing::new(secret.to_owned())),
        }
    }

    /// The address in it.
    ///
    /// # Errors
    /// [`BadChannel`] when there is none.
    pub(crate) fn address(&self) -> Result<Uri, BadChannel> {
        let text = self.read()?;
        address(&text).map_err(|reason| self.bad(format!("holds no address: {reason}")))
    }

    /// The bearer token in it, as a header.
    fn bearer(&self) -> Result<HeaderValue, BadChannel> {
        let text = Zeroizing::new(format!("Bearer {}", *self.read()?));
        secret_header(&text).ok_or_else(|| self.bad("holds characters that no header may have"))
    }
}

/// An https address; also http where it does not leave the machine. What is wrong is said without it.
pub(crate) fn address(text: &str) -> Result<Uri, &'static str> {
    const RIGHT: &str = "https://HOST/PATH is expected (http:// only to this machine itself)";
    let uri: Uri = text.parse().map_err(|_| RIGHT)?;
    let host = uri.host().unwrap_or_default();
    let here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if here => Ok(uri),
        _ => Err(RIGHT),
    }
}

/// Posts JSON.
#[derive(Debug, Clone)]
struct Poster {
    web: WebClient,
}

impl Poster {
    /// One that trusts the authorities of `ca_file`, or the system's.
    fn new(key: &'static str, ca_file: Option<&Path>, clock: SharedClock) -> Result<Self, BadChannel> {
        let web = WebClient::new(ca_file, TIMEOUT, LONGEST_ANSWER, clock);
        let web = web.map_err(|error| BadChannel {
            key,
            reason: error.to_string(),
        })?;
        Ok(Self { web })
    }

    /// Posts, and gives a good answer. No redirect is followed: it would be told elsewhere what it was told in confidence.
    async fn post(
        &self,
        address: Uri,
        bearer: Option<HeaderValue>,
        body: String,
    ) -> Result<Response<Bytes>, NotifyError> {
        let mut request = Request::post(address)
            .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
            .header(
                header::USER_AGENT,
                concat!("smartscale/", env!("CARGO_PKG_VERSION")),
            );
        if let Some(bearer) = bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| NotifyError::Refused(error.to_string()))?;
        let answer = self.web.send(request).await;
        judge(answer.map_err(|error| NotifyError::Passing(error.to_string()))?)
    }
}

fn judge(answer: Response<Bytes>) -> Result<Response<Bytes>, NotifyError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(answer.body());
    let quote: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_QUOTE)
        .collect();
    let reason = format!("answered {status}: {quote}");
    Err(match status {
        StatusCode::TOO_MANY_REQUESTS => NotifyError::Busy(retry_after(&answer).unwrap_or(BUSY)),
        StatusCode::REQUEST_TIMEOUT => NotifyError::Passing(reason),
        status if status.is_server_error() => {
            retry_after(&answer).map_or(NotifyError::Passing(reason), NotifyError::Busy)
        }
        status if status.is_redirection() => {
            NotifyError::Refused(format!("answered {status}: redirects are not followed"))
        }
        _ => NotifyError::Refused(reason),
    })
}

/// Seconds; the form with a date (RFC 9110 §10.2.3) is used by nobody whom we tell.
fn retry_after(answer: &Response<Bytes>) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
