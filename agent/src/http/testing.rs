//! A small HTTPS server for tests: certificates of its own authority, answers of the test's choice.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{future::Future, pin::Pin, sync::Arc};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{RootCertStore, ServerConfig, server::WebPkiClientVerifier};
use smartscale_proto::tls::{self, keys};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

/// A certificate and its key.
pub(crate) struct Issued {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A request as the server saw it.
pub(crate) struct Seen {
    pub(crate) head: http::request::Parts,
    pub(crate) body: Bytes,
    /// SHA-256 of the client's certificate, hexadecimal; empty without.
    pub(crate) client: String,
    /// The connection's number, from 0.
    pub(crate) connection: usize,
}

pub(crate) type Answering = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's authority");
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// A certificate for `name`, which is valid as a server's on loopback too.
    pub(crate) fn issue(&self, name: &str) -> Issued {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        Issued {
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(keys::certificates_from_pem(self.pem.as_bytes()).unwrap());
        roots
    }

    /// Serves on loopback until the runtime ends; with `clients`, only to holders of this authority's certificates.
    pub(crate) async fn serve(
        &self,
        clients: bool,
        answer: impl Fn(Seen) -> Answering + Send + Sync + 'static,
    ) -> String {
        let own = self.issue("server");
        let builder = ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if clients {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()), tls::provider());
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain = keys::certificates_from_pem(own.certificate.as_bytes()).unwrap();
        let key = keys::key_from_pem(own.key.as_bytes()).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let (acceptor, answer) = (acceptor.clone(), Arc::clone(&answer));
                tokio::spawn(async move {
                    // Clients that are not believed are part of some tests.
                    let Ok(stream) = acceptor.accept(socket).await else {
                        return;
                    };
                    let client = stream.get_ref().1.peer_certificates();
                    let client = client.map(|chain| fingerprint(&chain[0])).unwrap_or_default();
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (answer, client) = (Arc::clone(&answer), client.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            let body = body.collect().await?.to_bytes();
                            let seen = Seen {
                                head,
                                body,
                                client,
                                connection,
                            };
                            Ok::<_, hyper::Error>(answer(seen).await)
                        }
                    });
                    drop(
                        http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        format!("https://{address}")
    }
}

pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    keys::fingerprint(certificate)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An answer.
pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::new(body.into()))
        .unwrap()
}

/// An answer at once.
pub(crate) fn at_once(status: u16, body: impl Into<Bytes>) -> Answering {
    Box::pin(std::future::ready(answer(status, body)))
}
