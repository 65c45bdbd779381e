//! The two plain HTTP/1.1 conversations of an agent, with IMDS and with the kubelet's health endpoint: one request a
//! connection, no proxy, no redirect, a bounded answer.

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, Response, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Bytes that an answer may have.
const LIMIT: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is no `http://host[:port]`.
    #[error("`{0}` is not an address: http://host[:port] is")]
    Address(String),
    /// Nobody listens.
    #[error("connecting to {address} failed")]
    Connect {
        /// Whom.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The conversation broke off.
    #[error("the conversation with {address} failed")]
    Conversation {
        /// With whom.
        address: String,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// The answer is too long or breaks off.
    #[error("the answer of {address} cannot be read: {reason}")]
    Body {
        /// Whose.
        address: String,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("{address} did not answer in time")]
    TooLate {
        /// Who.
        address: String,
    },
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Host and port of an `http://` address.
pub(crate) fn authority(address: &str) -> Result<String, HttpError> {
    let bad = || HttpError::Address(address.to_owned());
    let uri: http::Uri = address.parse().map_err(|_| bad())?;
    if uri.scheme_str() != Some("http") {
        return Err(bad());
    }
    let host = uri.host().ok_or_else(bad)?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

/// Sends `request` (its URI is a path) to `address` (`host:port`). With `hops`, no packet of the request travels
/// further than that many routers.
pub(crate) async fn call(
    address: &str,
    hops: Option<u32>,
    mut request: Request<Empty<Bytes>>,
) -> Result<Answer, HttpError> {
    let connect = |source| HttpError::Connect {
        address: address.to_owned(),
        source,
    };
    let broke = |source| HttpError::Conversation {
        address: address.to_owned(),
        source,
    };
    let socket = TcpStream::connect(address).await.map_err(connect)?;
    if let (Some(hops), Ok(peer)) = (hops, socket.peer_addr())
        && peer.is_ipv4()
    {
        socket.set_ttl(hops).map_err(connect)?;
    }
    let host = http::HeaderValue::try_from(address).map_err(|_| HttpError::Address(address.to_owned()))?;
    request.headers_mut().insert(http::header::HOST, host);
    let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broke)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(broke)?;
        let (head, body) = Response::into_parts(response);
        let body = Limited::new(body, LIMIT)
            .collect()
            .await
            .map_err(|error| HttpError::Body {
                address: address.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Answer {
            status: head.status,
            body: body.to_bytes(),
        })
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The peer may close at once after its answer, which then lies in the exchange already.
        end = &mut connection => match end {
            Ok(()) => exchange.await,
            Err(source) => Err(broke(source)),
        },
    }
}
