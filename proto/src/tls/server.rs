//! The server's side: accepts connections and finishes their handshakes, many at a time and bounded.
//!
//! A client certificate is asked for but not demanded, since enrolment comes without one; a certificate that is
//! shown must be good, or the handshake ends. What the caller may do is decided per call
//! ([`permission`](crate::permission)).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Anchors, Credential, Rotating, TlsError,
    places::{Bounds, Full, Places},
    provider, root_store,
};

/// Handshakes that may be under way at once, in all and from one address. When all places are taken more wait in the
/// kernel's queue, until one is done or is older than a handshake needs to be: slow ones do not keep quick ones out.
const HANDSHAKES: Bounds = Bounds {
    most: 1024,
    each: 512,
    grace: Duration::from_secs(1),
    oldest_goes: true,
};
/// Time that a peer has for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// Between two looks for a place.
const LOOK: Duration = Duration::from_millis(20);

/// The server's configuration for the handshakes of this moment.
///
/// # Errors
/// [`TlsError`] when `credential` lacks a part or does not fit together.
pub fn config(credential: &Credential) -> Result<ServerConfig, TlsError> {
    let (Some(key), Anchors::Certificates(anchors)) = (&credential.key, &credential.anchors) else {
        return Err(TlsError::NotForServer);
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(root_store(anchors)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| TlsError::Anchors(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Material)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(credential.chain.clone(), key.clone_key())
        .map_err(TlsError::Material)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A handshake that did not end well, for the log of the accepting program.
#[derive(Debug)]
pub struct FailedHandshake {
    /// Who tried.
    pub peer: SocketAddr,
    /// Why it failed, for example `invalid peer certificate: Expired`.
    pub reason: String,
}

/// Accepts connections on `listener` until the returned stream is dropped. `on_failure` is told of every
/// handshake that fails, so that the program can audit it.
///
/// # Errors
/// [`TlsError`] when the present credential cannot serve; a later one that cannot is logged and passed over.
pub fn incoming(
    listener: TcpListener,
    material: Rotating,
    on_failure: impl Fn(FailedHandshake) + Send + Sync + 'static,
) -> Result<ReceiverStream<io::Result<TlsStream<TcpStream>>>, TlsError> {
    let first = Arc::new(config(&material.current())?);
    let (accepted, stream) = mpsc::channel(16);
    tokio::spawn(accept(listener, material, first, accepted, Arc::new(on_failure)));
    Ok(ReceiverStream::new(stream))
}

async fn accept(
    listener: TcpListener,
    material: Rotating,
    mut config: Arc<ServerConfig>,
    accepted: mpsc::Sender<io::Result<TlsStream<TcpStream>>>,
    on_failure: Arc<dyn Fn(FailedHandshake) + Send + Sync>,
) {
    let places = Places::<IpAddr>::new(HANDSHAKES);
    let mut changes = material.changes();
    'next: loop {
        let (socket, peer) = tokio::select! {
            () = accepted.closed() => return,
            connection = listener.accept() => match connection {
                Ok(connection) => connection,
                Err(error) => {
                    // Out of file descriptors, or a peer that is gone already: neither ends the server.
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        if changes.has_changed().unwrap_or(false) {
            match self::config(&changes.borrow_and_update()) {
                Ok(fresh) => config = Arc::new(fresh),
                Err(error) => {
                    tracing::error!(%error, "the new TLS material cannot serve; the old one goes on");
                }
            }
        }
        let mut place = loop {
            match places.take(&peer.ip()) {
                Ok(place) => break place,
                // Whoever else has called is not made to wait behind one address's crowd: it is turned away, and may come again.
                Err(Full::Own) => {
                    tracing::debug!(%peer, "turned away: its address has too many handshakes under way");
                    continue 'next;
                }
                Err(Full::All) => tokio::time::sleep(LOOK).await,
            }
            if accepted.is_closed() {
                return;
            }
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let accepted = accepted.clone();
        let on_failure = Arc::clone(&on_failure);
        tokio::spawn(async move {
            let _ = socket.set_nodelay(true);
            let handshake = tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket));
            let ended = tokio::select! {
                ended = handshake => Some(ended),
                () = place.gone() => None,
            };
            let reason = match ended {
                Some(Ok(Ok(stream))) => {
                    // It waits for whoever takes it, and not in a place of those that are under way.
                    drop(place);
                    let _ = accepted.send(Ok(stream)).await;
                    return;
                }
                Some(Ok(Err(error))) => error.to_string(),
                Some(Err(_)) => "the handshake took too long".to_owned(),
                None => "the handshake was slow, and others waited".to_owned(),
            };
            on_failure(FailedHandshake { peer, reason });
        });
    }
}
