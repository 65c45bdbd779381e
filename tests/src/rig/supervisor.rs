//! What a K3s server shows to everybody who wants to join: its certificate authorities, at `/cacerts`, whose hash is in every
//! token. A real one serves that beside the API; here it is a server of the test's own.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use super::install_crypto;
use super::kubernetes::Authority;

/// A K3s server's word about itself. Dropped, it falls silent.
#[derive(Debug)]
pub struct Supervisor {
    address: SocketAddr,
    bundle: String,
    task: tokio::task::JoinHandle<()>,
}

impl Supervisor {
    /// Shows the certificate of `authority` on a free port of loopback.
    ///
    /// # Errors
    /// No certificate can be made, or no port is free.
    pub async fn start(authority: &Authority) -> anyhow::Result<Self> {
        install_crypto();
        let pair = authority.server(&["localhost", "127.0.0.1"])?;
        let chain = vec![
            CertificateDer::from_pem_slice(pair.certificate.as_bytes())
                .context("read the server's certificate")?,
        ];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("read the server's key")?;
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .context("serve TLS")?;
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("bind the supervisor")?;
        let address = listener.local_addr().context("read the supervisor's port")?;
        let bundle = authority.certificate().to_owned();
        let task = tokio::spawn(serve(
            listener,
            TlsAcceptor::from(Arc::new(config)),
            bundle.clone(),
        ));
        Ok(Self {
            address,
            bundle,
            task,
        })
    }

    /// `https://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// An agent token of this server.
    #[must_use]
    pub fn join_token(&self) -> String {
        let hash: String = Sha256::digest(&self.bundle)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        format!("K10{hash}::node:{:032x}", rand::random::<u128>())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: tokio::net::TcpListener, acceptor: TlsAcceptor, bundle: String) {
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            continue;
        };
        let (acceptor, bundle) = (acceptor.clone(), bundle.clone());
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(socket).await else {
                return;
            };
            let answer = service_fn(move |request: Request<Incoming>| {
                let known = request.uri().path() == "/cacerts";
                let mut answer = Response::new(Full::new(Bytes::from(if known {
                    bundle.clone()
                } else {
                    String::new()
                })));
                if !known {
                    *answer.status_mut() = StatusCode::NOT_FOUND;
                }
                std::future::ready(Ok::<_, Infallible>(answer))
            });
            // A client that breaks off is its own affair.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer)
                .await;
        });
    }
}
