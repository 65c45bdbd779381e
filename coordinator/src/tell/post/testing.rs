//! A server in the test that hears what is posted: over HTTP, or over HTTPS with an authority of its own.
#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What was heard.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) line: String,
    pub(crate) content_type: Option<String>,
    pub(crate) authorization: Option<String>,
    /// `null` without one.
    pub(crate) body: Value,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16, Option<(&'static str, &'static str)>, &'static str),
    Never,
}

#[derive(Default)]
struct Shared {
    heard: Mutex<Vec<Heard>>,
    /// What is not in here is answered `ok`.
    replies: Mutex<VecDeque<Reply>>,
    came: tokio::sync::Notify,
}

/// The server. It ends with the test's runtime.
pub(crate) struct Slackish {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
}

impl Slackish {
    pub(crate) async fn start() -> Self {
        Self::serve("http", None).await
    }

    /// Speaks HTTPS as `127.0.0.1`; its authority's certificate is written to `ca_file`.
    pub(crate) async fn start_with_tls(ca_file: &Path) -> Self {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(ca_file, signed.cert.pem()).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key)
            .unwrap();
        Self::serve("https", Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serve(scheme: &'static str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let accepting = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (shared, tls) = (Arc::clone(&accepting), tls.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| hear(Arc::clone(&shared), request));
                    // Whoever does not believe the certificate hangs up.
                    let _ = match tls {
                        None => {
                            http1::Builder::new()
                                .serve_connection(TokioIo::new(stream), service)
                                .await
                        }
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                http1::Builder::new()
                                    .serve_connection(TokioIo::new(stream), service)
                                    .await
                            }
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Self {
            address,
            scheme,
            shared,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(crate) fn answer(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.replies.lock().unwrap().extend(replies);
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// Methods and paths.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.heard().into_iter().map(|heard| heard.line).collect()
    }

    /// Waits until something more was heard.
    pub(crate) async fn came(&self) {
        self.shared.came.notified().await;
    }
}

async fn hear(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let text = |name: header::HeaderName| {
        let value = head.headers.get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    shared.heard.lock().unwrap().push(Heard {
        line: format!("{} {}", head.method, head.uri),
        content_type: text(header::CONTENT_TYPE),
        authorization: text(header::AUTHORIZATION),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    });
    shared.came.notify_one();
    let reply = shared.replies.lock().unwrap().pop_front();
    match reply.unwrap_or(Reply::Status(200, None, "ok")) {
        Reply::Never => std::future::pending().await,
        Reply::Status(status, header, body) => {
            let mut response = Response::builder().status(status);
            if let Some((name, value)) = header {
                response = response.header(name, value);
            }
            Ok(response.body(Full::new(Bytes::from(body))).unwrap())
        }
    }
}
