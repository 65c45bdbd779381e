//! A gate in front of a server that speaks plain HTTP: everything passes, but for the one request that a test waits
//! for. That one is kept there, before the server gets it or with the answer that the client does not get, so that the
//! test can kill the client at exactly this point.
//!
//! ```text
//!  coordinator ──▶ Gate ──▶ DynamoDB, EC2
//!                   └─ held: reached ──▶ test
//! ```

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, anyhow};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::sync::oneshot;

pub use super::ec2::When;

/// More than DynamoDB and EC2 take.
const LARGEST: usize = 16 << 20;

/// A gate; dropped, it closes.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    client: Client<HttpConnector, Full<Bytes>>,
    awaited: Mutex<Option<Awaited>>,
}

#[derive(Debug)]
struct Awaited {
    text: String,
    when: When,
    reached: oneshot::Sender<()>,
}

impl Gate {
    /// A gate in front of `upstream` (`http://HOST:PORT`).
    ///
    /// # Errors
    /// No port is left.
    pub async fn start(upstream: &str) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            awaited: Mutex::default(),
        });
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("bind the gate")?;
        let address = listener.local_addr().context("read the gate's port")?;
        let router = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            // Accepting ends with the task; there is nobody to tell.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Holds the next request whose body contains `text`, for ever: before the server gets it, or with its answer. What
    /// comes back resolves at that moment. One request is awaited at a time.
    #[must_use]
    pub fn hold(&self, text: &str, when: When) -> oneshot::Receiver<()> {
        let (reached, told) = oneshot::channel();
        *self.shared.awaited() = Some(Awaited {
            text: text.to_owned(),
            when,
            reached,
        });
        told
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn awaited(&self) -> std::sync::MutexGuard<'_, Option<Awaited>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever waits for this request, once.
    fn waits_for(&self, body: &[u8]) -> Option<Awaited> {
        let text = String::from_utf8_lossy(body);
        self.awaited().take_if(|awaited| text.contains(&awaited.text))
    }

    async fn forward(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        let (mut parts, body) = request.into_parts();
        let body = to_bytes(body, LARGEST).await.context("read the request")?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        parts.uri = Uri::try_from(format!("{}{path}", self.upstream)).context("where to")?;
        let awaited = self.waits_for(&body);
        let (before, after) = match awaited {
            Some(awaited) if matches!(awaited.when, When::Before) => (Some(awaited), None),
            awaited => (None, awaited),
        };
        keep(before).await;
        let answer = self
            .client
            .request(Request::from_parts(parts, Full::new(body)))
            .await
            .context("ask the server")?;
        let (parts, body) = answer.into_parts();
        let body = to_bytes(Body::new(body), LARGEST)
            .await
            .map_err(|error| anyhow!("read the answer: {error}"))?;
        keep(after).await;
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

/// Tells whoever waits, and never comes back; nothing where nobody does.
async fn keep(awaited: Option<Awaited>) {
    if let Some(awaited) = awaited {
        // A test that waits no longer has ended.
        let _ = awaited.reached.send(());
        std::future::pending::<()>().await;
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    shared.forward(request).await.unwrap_or_else(|error| {
        let mut answer = Response::new(Body::from(format!("{error:#}")));
        *answer.status_mut() = StatusCode::BAD_GATEWAY;
        answer
    })
}
