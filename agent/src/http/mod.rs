//! The agent's HTTP/1.1 conversations, with IMDS, the kubelet's health endpoint, the Kubernetes API and Secrets Manager: no
//! proxy, no redirect, a bounded answer.
//!
//! All of them are of one type over a boxed stream, so that hyper's client is in the program once.

#[cfg(feature = "https")]
pub(crate) mod https;
#[cfg(all(test, feature = "https"))]
pub(crate) mod testing;

use http::{HeaderMap, HeaderValue, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_util::task::AbortOnDropHandle;

/// Bytes that a short answer may have.
pub(crate) const LIMIT: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is no `http://host[:port]`.
    #[error("`{0}` is not an address: http://host[:port] is")]
    Address(String),
    /// Nobody listens, or the handshake of TLS failed.
    #[error("connecting to {address} failed")]
    Connect {
        /// Whom.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection was closed before the request went out.
    #[error("{address} closed the connection")]
    Closed {
        /// Who.
        address: String,
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
    #[cfg_attr(not(feature = "https"), expect(dead_code, reason = "IMDS says nothing there"))]
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Bytes there and back.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection. Dropping it ends the conversation.
#[derive(Debug)]
pub(crate) struct Link {
    address: String,
    host: HeaderValue,
    sender: http1::SendRequest<Full<Bytes>>,
    /// Moves the bytes.
    _driver: AbortOnDropHandle<()>,
}

impl Link {
    /// Speaks HTTP on `stream` with the server called `address` (`host[:port]`).
    pub(crate) async fn open(stream: impl Stream + 'static, address: &str) -> Result<Self, HttpError> {
        let host = HeaderValue::try_from(address).map_err(|_| HttpError::Address(address.to_owned()))?;
        let stream: Box<dyn Stream> = Box::new(stream);
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|source| HttpError::Conversation {
                    address: address.to_owned(),
                    source,
                })?;
        // What goes wrong on the connection goes wrong with its exchange, which tells it.
        let driver = tokio::spawn(async { drop(connection.await) });
        Ok(Self {
            address: address.to_owned(),
            host,
            sender,
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    /// Sends a request (its URI is a path) and reads the answer, of `limit` bytes at most.
    ///
    /// # Errors
    /// [`HttpError::Closed`] when the request did not go out, so that it may be sent again elsewhere.
    pub(crate) async fn exchange(
        &mut self,
        mut request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Answer, HttpError> {
        let closed = || HttpError::Closed {
            address: self.address.clone(),
        };
        request
            .headers_mut()
            .entry(header::HOST)
            .or_insert_with(|| self.host.clone());
        self.sender.ready().await.map_err(|_| closed())?;
        let response =
            self.sender
                .try_send_request(request)
                .await
                .map_err(|mut error| match error.take_message() {
                    Some(_) => closed(),
                    None => HttpError::Conversation {
                        address: self.address.clone(),
                        source: error.into_error(),
                    },
                })?;
        let (head, body) = Response::into_parts(response);
        let unreadable = |reason: String| HttpError::Body {
            address: self.address.clone(),
            reason,
        };
        // Frame by frame into one piece: collected frames would be held a second time while they are joined.
        let mut body = Limited::new(body, limit);
        let mut whole = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| unreadable(error.to_string()))?;
            if let Ok(data) = frame.into_data() {
                whole.extend_from_slice(&data);
            }
        }
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: whole.into(),
        })
    }

    /// Whether the other side has closed it.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
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

/// Sends `request` (its URI is a path) to `address` (`host:port`) over a connection of its own.
pub(crate) async fn call(address: &str, request: Request<Full<Bytes>>) -> Result<Answer, HttpError> {
    connect(address, None).await?.exchange(request, LIMIT).await
}

/// Connects to `address` (`host:port`). With `hops`, no packet travels further than that many routers.
pub(crate) async fn connect(address: &str, hops: Option<u32>) -> Result<Link, HttpError> {
    let connect = |source| HttpError::Connect {
        address: address.to_owned(),
        source,
    };
    let socket = TcpStream::connect(address).await.map_err(connect)?;
    if let (Some(hops), Ok(peer)) = (hops, socket.peer_addr())
        && peer.is_ipv4()
    {
        socket.set_ttl(hops).map_err(connect)?;
    }
    socket.set_nodelay(true).map_err(connect)?;
    Link::open(socket, address).await
}
