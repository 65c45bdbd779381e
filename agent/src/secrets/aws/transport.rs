//! Carries the SDK's requests over the agent's own HTTP conversations, one connection a request: the SDK's client would bring
//! a pool and HTTP/2 along for the two secrets that a worker reads in its life.

use std::{sync::Arc, time::Duration};

use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use http::{Uri, request::Request, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use rustls::{ClientConfig, RootCertStore};
use smartscale_proto::tls;
use tokio::time::timeout;

use crate::http::{Answer, HttpError, https::Server};

/// Bytes of an answer; a secret has 64 KiB at most.
const LIMIT: usize = 1 << 20;
/// Time to connect and time for the answer where the SDK sets none.
const CONNECT: Duration = Duration::from_secs(5);
const READ: Duration = Duration::from_secs(30);

#[derive(Debug, Clone)]
struct Transport {
    connect: Duration,
    read: Duration,
    believed: Option<Arc<RootCertStore>>,
}

/// A client for the SDK that believes these certificate authorities, the system's unless given.
pub(super) fn client(believed: Option<Arc<RootCertStore>>) -> SharedHttpClient {
    http_client_fn(move |settings, _| {
        SharedHttpConnector::new(Transport {
            connect: settings.connect_timeout().unwrap_or(CONNECT),
            read: settings.read_timeout().unwrap_or(READ),
            believed: believed.clone(),
        })
    })
}

fn system_roots() -> Arc<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    if !found.errors.is_empty() {
        tracing::warn!(errors = ?found.errors, "not every certificate authority of this system can be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
}

impl HttpConnector for Transport {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let transport = self.clone();
        HttpConnectorFuture::new(async move { transport.carry(request).await })
    }
}

impl Transport {
    async fn carry(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let (server, request) = self.prepare(request).await?;
        let mut link = server
            .connect(self.connect)
            .await
            .map_err(|error| connector_error(error).never_connected())?;
        let answer = timeout(self.read, link.exchange(request, LIMIT))
            .await
            .unwrap_or_else(|_| {
                Err(HttpError::TooLate {
                    address: server.endpoint().to_owned(),
                })
            })
            .map_err(connector_error)?;
        response(answer)
    }

    async fn prepare(&self, request: HttpRequest) -> Result<(Server, Request<Full<Bytes>>), ConnectorError> {
        let request = request
            .try_into_http1x()
            .map_err(|error| ConnectorError::user(error.into()))?;
        let (mut head, body) = request.into_parts();
        let server = Server::new(&head.uri, None, || {
            ClientConfig::builder_with_provider(tls::provider())
                .with_safe_default_protocol_versions()
                .map(|builder| {
                    let roots = self.believed.clone().unwrap_or_else(system_roots);
                    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
                })
                .map_err(|_| HttpError::Address(head.uri.to_string()))
        })
        .map_err(connector_error)?;
        let path = head.uri.path_and_query().cloned();
        head.uri = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
        let body = body.collect().await.map_err(ConnectorError::user)?.to_bytes();
        Ok((server, Request::from_parts(head, Full::new(body))))
    }
}

fn response(answer: Answer) -> Result<HttpResponse, ConnectorError> {
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| ConnectorError::other(error, None);
    let status = StatusCode::try_from(answer.status.as_u16()).map_err(|error| unreadable(error.into()))?;
    let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
    for (name, value) in &answer.headers {
        let value = value
            .to_str()
            .map_err(|error| unreadable(error.into()))?
            .to_owned();
        response
            .headers_mut()
            .try_append(name.as_str().to_owned(), value)
            .map_err(|error| unreadable(error.into()))?;
    }
    Ok(response)
}

/// Sorted as the SDK needs it to know what may be tried again.
fn connector_error(error: HttpError) -> ConnectorError {
    match error {
        HttpError::Address(_) => ConnectorError::user(error.into()),
        HttpError::TooLate { .. } => ConnectorError::timeout(error.into()),
        _ => ConnectorError::io(error.into()),
    }
}
