//! One client's connection: who is at its other end, and how many calls it may make.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The certificate that the handshake has verified; `None` when none was shown.
    pub certificate: Option<CertificateDer<'static>>,
    /// The address.
    pub address: Option<SocketAddr>,
    bucket: Arc<Mutex<Bucket>>,
}

impl Peer {
    /// Takes one call from what this connection may make; `false` when it makes too many.
    #[must_use]
    pub fn may_call(&self) -> bool {
        self.bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now())
    }
}

/// A token bucket: one second's worth of calls may come at once.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second);
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// A connection after its handshake.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    /// Its place among the connections; free again when it ends.
    _place: OwnedSemaphorePermit,
}

impl Connection {
    /// Wraps a finished handshake; the other end may make `per_second` calls.
    #[must_use]
    pub fn new(stream: TlsStream<TcpStream>, per_second: u32, place: OwnedSemaphorePermit) -> Self {
        let (socket, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .cloned();
        let per_second = f64::from(per_second.max(1));
        let bucket = Arc::new(Mutex::new(Bucket {
            per_second,
            tokens: per_second,
            filled: Instant::now(),
        }));
        let peer = Peer {
            certificate,
            address: socket.peer_addr().ok(),
            bucket,
        };
        Self {
            stream,
            peer,
            _place: place,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_that_calls_too_often_waits_for_its_bucket() {
        let start = Instant::now();
        let mut bucket = Bucket {
            per_second: 10.0,
            tokens: 10.0,
            filled: start,
        };
        assert_eq!((0..20).filter(|_| bucket.take(start)).count(), 10);
        assert_eq!(
            (0..20)
                .filter(|_| bucket.take(start + Duration::from_millis(500)))
                .count(),
            5
        );
    }
}
