//! An API server of the tests: a function from request to answer, in place of the network.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use kube::{Client, client::Body};
use serde_json::{Value, json};

/// A request as the tests see it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// `GET /path?query`.
    pub(super) line: String,
    pub(super) content_type: String,
    /// `null` without a body.
    pub(super) body: Value,
}

/// All requests so far.
pub(super) type Log = Arc<Mutex<Vec<Seen>>>;

/// The requests so far, method and path only.
pub(super) fn lines(log: &Log) -> Vec<String> {
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().map(|seen| seen.line.clone()).collect()
}

/// A client whose requests are answered by `answer`: a status and lines of JSON.
pub(super) fn client(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> (Client, Log) {
    let log = Log::default();
    let (answer, seen_by) = (Arc::new(answer), log.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, log) = (answer.clone(), seen_by.clone());
        async move {
            let (head, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            let path = head.uri.path_and_query().map_or("", |path| path.as_str());
            let kind = head.headers.get("content-type");
            let seen = Seen {
                line: format!("{} {path}", head.method),
                content_type: kind.and_then(|kind| kind.to_str().ok()).unwrap_or("").to_owned(),
                body: serde_json::from_slice(&body).unwrap_or(Value::Null),
            };
            let (status, text) = answer(&seen);
            log.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            let mut response = Response::new(Full::new(Bytes::from(text)));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            Ok::<_, Infallible>(response)
        }
    });
    (Client::new(service, "default"), log)
}

/// A status as the API server sends it.
pub(super) fn status(code: u16, message: &str, cause: Option<&str>) -> (u16, String) {
    let causes: Vec<Value> = cause.iter().map(|cause| json!({ "reason": cause })).collect();
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message,
        "details": { "causes": causes },
    });
    (code, body.to_string())
}
