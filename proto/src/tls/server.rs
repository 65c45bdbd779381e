//! The server's side: accepts connections and finishes their handshakes, many at a time and bounded.
//!
//! A client certificate is asked for but not demanded, since enrolment comes without one; a certificate that is
//! shown must be good, or the handshake ends. What the caller may do is decided per call
//! ([`permission`](crate::permission)).

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;

use super::{Anchors, Credential, Rotating, TlsError, provider, root_store};

/// Handshakes that may be under way at once; more wait in the kernel's queue.
const HANDSHAKES: usize = 256;
/// Time that a peer has for its handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

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
    let slots = Arc::new(Semaphore::new(HANDSHAKES));
    let mut changes = material.changes();
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
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
        let acceptor = TlsAcceptor::from(Arc::clone(&config));
        let accepted = accepted.clone();
        let on_failure = Arc::clone(&on_failure);
        tokio::spawn(async move {
            let _slot = slot;
            let _ = socket.set_nodelay(true);
            let reason = match tokio::time::timeout(HANDSHAKE_TIME, acceptor.accept(socket)).await {
                Ok(Ok(stream)) => {
                    let _ = accepted.send(Ok(stream)).await;
                    return;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the handshake took too long".to_owned(),
            };
            on_failure(FailedHandshake { peer, reason });
        });
    }
}
