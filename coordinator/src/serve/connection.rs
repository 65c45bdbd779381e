//! One client's connection: who is at its other end, how many calls it may make, and how long it may take.
//!
//! A connection without a certificate is a stranger's: it has time to enrol, and few places are there for those. One with a
//! certificate may last as long as something arrives on it (our pings are answered every twenty seconds), and each identity
//! has a bounded number of them.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustls::pki_types::CertificateDer;
use smartscale_proto::{
    identity::Identity,
    tls::places::{Bounds, Full, Place, Places},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
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
    /// Calls that were too many.
    excess: Arc<AtomicU32>,
}

/// A connection of strangers lives so long: time for an enrolment and its repetitions.
const STRANGERS_LIFE: Duration = Duration::from_secs(60);
/// A connection on which nothing arrives for so long has no one at its other end: pings are sent every 20 s.
const SILENCE: Duration = Duration::from_secs(60);
/// A connection that goes on calling after so many refusals ends.
const MOST_EXCESS: u32 = 2_000;
/// Connections of strangers, in all and from one address. Whoever has just come has time for an enrolment.
const STRANGERS: Bounds = Bounds {
    most: 1024,
    each: 128,
    grace: Duration::from_secs(5),
    oldest_goes: true,
};
/// Connections of one identity: an agent has one or two, a person's scripts some more.
const EACH: usize = 64;

/// Whose a connection is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Stranger(IpAddr),
    /// An identity, as text.
    Known(String),
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger(address) => address.fmt(f),
            Self::Known(identity) => f.write_str(identity),
        }
    }
}

/// Room for connections.
#[derive(Clone)]
pub struct Room {
    strangers: Arc<Places<Holder>>,
    known: Arc<Places<Holder>>,
}

impl Room {
    /// Room for `most` connections of whoever is known, and some for strangers.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            strangers: Places::new(STRANGERS),
            known: Places::new(Bounds {
                most,
                each: EACH,
                grace: Duration::ZERO,
                oldest_goes: false,
            }),
        }
    }
}

impl Peer {
    /// Counts a call that was too many.
    fn exceed(&self) {
        self.excess.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes one call from what this connection may make; `false` when it makes too many.
    #[must_use]
    pub fn may_call(&self) -> bool {
        let may = self
            .bucket
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        if !may {
            self.exceed();
        }
        may
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
    place: Place<Holder>,
    /// When it ends at the latest; of a stranger.
    end: Option<Pin<Box<Sleep>>>,
    /// When it ends if nothing arrives.
    silence: Pin<Box<Sleep>>,
}

impl Connection {
    /// Wraps a finished handshake; the other end may make `per_second` calls.
    ///
    /// # Errors
    /// Who it is, and [`Full`], when there is no room for it.
    pub fn new(stream: TlsStream<TcpStream>, per_second: u32, room: &Room) -> Result<Self, (String, Full)> {
        let (socket, session) = stream.get_ref();
        let certificate = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .cloned();
        let address = socket.peer_addr().ok();
        let at = address.map_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |address| {
            address.ip()
        });
        // What is no identity of ours is a stranger's, whoever has signed it.
        let identity = certificate
            .as_ref()
            .and_then(|der| Identity::from_certificate(der).ok());
        let holder = identity.map_or(Holder::Stranger(at), |identity| {
            Holder::Known(identity.to_string())
        });
        let known = matches!(holder, Holder::Known(_));
        let places = if known { &room.known } else { &room.strangers };
        let place = places.take(&holder).map_err(|full| (holder.to_string(), full))?;
        let per_second = f64::from(per_second.max(1));
        let bucket = Arc::new(Mutex::new(Bucket {
            per_second,
            tokens: per_second,
            filled: Instant::now(),
        }));
        let peer = Peer {
            certificate,
            address,
            bucket,
            excess: Arc::default(),
        };
        Ok(Self {
            stream,
            peer,
            place,
            end: (!known).then(|| Box::pin(tokio::time::sleep(STRANGERS_LIFE))),
            silence: Box::pin(tokio::time::sleep(SILENCE)),
        })
    }

    /// Whether the connection has to end.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let over = self
            .end
            .as_mut()
            .is_some_and(|end| end.as_mut().poll(cx).is_ready());
        let reason = if over {
            "a connection without a certificate has ended its time"
        } else if self.silence.as_mut().poll(cx).is_ready() {
            "nothing arrived for too long"
        } else if self.place.poll_gone(cx).is_ready() {
            "others needed the place"
        } else if self.peer.excess.load(Ordering::Relaxed) > MOST_EXCESS {
            "too many calls, again and again"
        } else {
            return Ok(());
        };
        tracing::debug!(peer = ?self.peer.address, reason, "a connection is ended");
        Err(io::Error::new(io::ErrorKind::TimedOut, reason))
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
        self.check(cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            let next = tokio::time::Instant::now() + SILENCE;
            self.silence.as_mut().reset(next);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // One that reads nothing is not read from either.
        self.check(cx)?;
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
