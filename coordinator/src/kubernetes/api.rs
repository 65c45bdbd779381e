//! Calls to the Kubernetes API: bounds, and what an answer that is no success means.

use std::time::Duration;

use http::{Method, Request, header};
use kube::{Client, core::Status};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use smartscale_proto::time::{SharedClock, within};

use crate::error::chain;

/// Media type of JSON merge patches (RFC 7386).
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
/// Media type of JSON patches (RFC 6902).
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
/// Media type of JSON.
pub(super) const JSON: &str = "application/json";

/// Time for one call.
const CALL: Duration = Duration::from_secs(15);
/// Longest text of an answer that is passed on.
const LONGEST_REASON: usize = 500;

/// An answer that is no success, or none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    /// The server answered with an error.
    #[error("{code} {message}")]
    Status {
        /// The HTTP status.
        code: u16,
        /// What it said.
        message: String,
        /// Reasons of the causes it gave.
        causes: Vec<String>,
    },
    /// No answer that can be understood.
    #[error("{0}")]
    Unavailable(String),
}

impl ApiError {
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Unavailable(_) => None,
        }
    }

    pub(super) fn is_caused_by(&self, reason: &str) -> bool {
        matches!(self, Self::Status { causes, .. } if causes.iter().any(|cause| cause == reason))
    }

    pub(super) fn says(&self, words: &str) -> bool {
        matches!(self, Self::Status { message, .. } if message.contains(words))
    }
}

impl From<&Status> for ApiError {
    fn from(status: &Status) -> Self {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        let message = if status.message.is_empty() {
            &status.reason
        } else {
            &status.message
        };
        Self::Status {
            code: status.code,
            message: message.chars().take(LONGEST_REASON).collect(),
            causes: causes.map(|cause| cause.reason.clone()).collect(),
        }
    }
}

impl From<kube::Error> for ApiError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::from(&*status),
            other => Self::Unavailable(chain(&other)),
        }
    }
}

/// The Kubernetes API.
#[derive(Clone)]
pub struct Api {
    pub(super) client: Client,
    pub(super) clock: SharedClock,
}

impl Api {
    /// An API through a client that exists. The client must not retry by itself
    /// (`config.default_retry = false`), as those of [`super::client::connect`] do not.
    #[must_use]
    pub fn new(client: Client, clock: SharedClock) -> Self {
        Self { client, clock }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        self.call(Method::GET, path, None).await
    }

    /// An object; `None` where there is none.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ApiError> {
        match self.get(path).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All objects of a list.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, ApiError> {
        #[derive(Deserialize)]
        struct List {
            #[serde(default)]
            items: Vec<Value>,
        }
        self.get(path).await.map(|list: List| list.items)
    }

    /// What the server has at this path, whatever its form.
    pub(super) async fn text(&self, path: &str) -> Result<String, ApiError> {
        self.answer(request(Method::GET, path, None)?).await
    }

    async fn answer(&self, request: Request<Vec<u8>>) -> Result<String, ApiError> {
        within(&*self.clock, CALL, self.client.request_text(request))
            .await
            .unwrap_or_else(|| Err(kube::Error::Service(format!("no answer within {CALL:?}").into())))
            .map_err(ApiError::from)
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content: Option<(&'static str, Vec<u8>)>,
    ) -> Result<T, ApiError> {
        let text = self.answer(request(method, path, content)?).await?;
        // Read here and not by the client, which would log the whole of an answer it cannot read.
        serde_json::from_str(&text)
            .map_err(|error| ApiError::Unavailable(format!("the answer to {path} cannot be read: {error}")))
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").finish_non_exhaustive()
    }
}

pub(super) fn request(
    method: Method,
    path: &str,
    content: Option<(&'static str, Vec<u8>)>,
) -> Result<Request<Vec<u8>>, ApiError> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, JSON);
    let mut body = Vec::new();
    if let Some((kind, content)) = content {
        request = request.header(header::CONTENT_TYPE, kind);
        body = content;
    }
    request
        .body(body)
        .map_err(|error| ApiError::Unavailable(format!("{path}: {error}")))
}

/// The path of an object in a namespace. `group`: `/api/v1`, or `/apis/` with group and version.
pub(super) fn object_path(
    group: &str,
    namespace: &str,
    resource: &str,
    name: &str,
) -> Result<String, ApiError> {
    let (namespace, name) = (segment(namespace)?, segment(name)?);
    Ok(format!("{group}/namespaces/{namespace}/{resource}/{name}"))
}

/// A text of an object that is read without its type.
pub(super) fn text<'v>(object: &'v Value, pointer: &str) -> Option<&'v str> {
    object.pointer(pointer)?.as_str()
}

/// A name as one segment of a path. Names of Kubernetes objects need no escaping; another text would mean another
/// path.
pub(super) fn segment(name: &str) -> Result<&str, ApiError> {
    let sound = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'_'))
        && name.bytes().any(|byte| byte != b'.');
    sound.then_some(name).ok_or_else(|| ApiError::Status {
        code: 404,
        message: format!("`{name}` is no name of a Kubernetes object"),
        causes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_to_another_path() {
        assert_eq!(segment("i-0123.ec2"), Ok("i-0123.ec2"));
        for bad in ["", ".", "..", "a/b", "a?b", "a%2fb", "a b"] {
            assert!(segment(bad).is_err(), "{bad}");
            assert!(object_path("/api/v1", bad, "pods", "web").is_err(), "{bad}");
            assert!(object_path("/api/v1", "shop", "pods", bad).is_err(), "{bad}");
        }
    }
}
