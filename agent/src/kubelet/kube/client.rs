//! A thin client of the API server: HTTP/1.1 on a few connections that are kept, a bounded time and a bounded answer for each
//! call, no retries (a 429 of an eviction is an answer, not a hiccup).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::{Method, Request, StatusCode, header};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::kubeconfig::Access;
use crate::http::{Answer, HttpError, Link};

/// Connections at a time; a drain of hundreds of pods waits for its turn.
const CONNECTIONS: usize = 8;
/// After this time of silence a connection is given up; the API server closes it after 90 s.
const IDLE: Duration = Duration::from_secs(60);

/// What a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Time to connect.
    pub(super) connect: Duration,
    /// Time for the whole call.
    pub(super) call: Duration,
    /// Bytes of an answer.
    pub(super) answer: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            call: Duration::from_secs(30),
            // A node's pods, managed fields included: 250 of 64 KiB.
            answer: 16 << 20,
        }
    }
}

/// A request.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: &'a str,
    /// Its type and the content itself.
    pub(super) content: Option<(&'static str, Bytes)>,
}

/// Calls one API server with one credential.
pub(super) struct Client {
    pub(super) access: Access,
    limits: Limits,
    turns: Semaphore,
    idle: Mutex<Vec<(Link, Instant)>>,
}

impl Client {
    pub(super) fn new(access: Access, limits: Limits) -> Self {
        Self {
            access,
            limits,
            turns: Semaphore::new(CONNECTIONS),
            idle: Mutex::new(Vec::new()),
        }
    }

    /// Calls and reads the answer, whatever its status.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Answer, HttpError> {
        timeout(self.limits.call, self.exchange(call))
            .await
            .unwrap_or_else(|_| {
                Err(HttpError::TooLate {
                    address: self.access.server.endpoint().to_owned(),
                })
            })
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Answer, HttpError> {
        // Never closed, so that there always is a turn.
        let _turn = self.turns.acquire().await;
        while let Some(mut link) = self.kept() {
            match link.exchange(self.request(call)?, self.limits.answer).await {
                Err(HttpError::Closed { .. }) => {}
                answer => return self.keep(link, answer),
            }
        }
        let mut link = self.access.server.connect(self.limits.connect).await?;
        let answer = link.exchange(self.request(call)?, self.limits.answer).await;
        self.keep(link, answer)
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, HttpError> {
        let mut request = Request::builder()
            .method(&call.method)
            .uri(format!("{}{}", self.access.prefix, call.path))
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("smartscale-agent/", env!("CARGO_PKG_VERSION")),
            );
        let mut body = Full::default();
        if let Some((kind, content)) = &call.content {
            request = request.header(header::CONTENT_TYPE, *kind);
            body = Full::new(content.clone());
        }
        request
            .body(body)
            .map_err(|_| HttpError::Address(call.path.to_owned()))
    }

    fn kept(&self) -> Option<Link> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(link, since)| !link.is_closed() && since.elapsed() < IDLE);
        idle.pop().map(|(link, _)| link)
    }

    /// Keeps the connection after a sound answer to somebody the server knows.
    fn keep(&self, link: Link, answer: Result<Answer, HttpError>) -> Result<Answer, HttpError> {
        if answer
            .as_ref()
            .is_ok_and(|answer| answer.status != StatusCode::UNAUTHORIZED)
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((link, Instant::now()));
        }
        answer
    }
}
