//! The client's side: dials a coordinator and believes it by its identity, not by its address.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{Anchors, Credential, Rotating, TlsError, keys, provider, root_store};
use crate::identity::{Identity, Party, Segment};

/// Which coordinator is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The trust domain.
    pub trust: Segment,
    /// The cluster.
    pub cluster: Segment,
}

#[derive(Debug)]
struct CoordinatorVerifier {
    anchors: Anchors,
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl CoordinatorVerifier {
    fn roots(&self, presented: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let refused = || Error::InvalidCertificate(CertificateError::UnknownIssuer);
        match &self.anchors {
            Anchors::Certificates(certificates) => root_store(certificates).map_err(|_| refused()),
            Anchors::Fingerprints(wanted) => {
                let pinned = presented
                    .iter()
                    .find(|certificate| wanted.contains(&keys::fingerprint(certificate)))
                    .ok_or_else(refused)?;
                root_store(&[pinned.clone().into_owned()]).map_err(|_| refused())
            }
        }
    }
}

impl ServerCertVerifier for CoordinatorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let roots = self.roots(intermediates)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &roots, intermediates, now, algorithms)?;
        let wrong = |reason: String| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(io::Error::other(
                reason,
            )))))
        };
        let identity = Identity::from_certificate(end_entity).map_err(|error| wrong(error.to_string()))?;
        let meant = Identity {
            trust: self.expected.trust.clone(),
            cluster: self.expected.cluster.clone(),
            party: Party::Coordinator,
        };
        if identity == meant {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(wrong(format!("the server is {identity}, expected {meant}")))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The client's configuration for a handshake of this moment.
///
/// # Errors
/// [`TlsError`] when the credential's certificate and key do not fit together.
pub fn config(credential: &Credential, expected: &Expected) -> Result<ClientConfig, TlsError> {
    let verifier = CoordinatorVerifier {
        anchors: credential.anchors.clone(),
        expected: expected.clone(),
        provider: provider(),
    };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Material)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &credential.key {
        Some(key) if !credential.chain.is_empty() => builder
            .with_client_auth_cert(credential.chain.clone(), key.clone_key())
            .map_err(TlsError::Material)?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// A coordinator that could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is no `host:port`.
    #[error("`{0}` is not an address: host:port is")]
    Address(String),
    /// Connecting or the handshake failed.
    #[error("{endpoint} cannot be reached")]
    Connect {
        /// The address that was tried.
        endpoint: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
}

/// Opens channels to coordinators, each connection with the credential of its moment.
#[derive(Debug, Clone)]
pub struct Dialer {
    material: Rotating,
    expected: Expected,
    connect_time: Duration,
}

impl Dialer {
    /// Dials as `material` says and believes only `expected`.
    #[must_use]
    pub fn new(material: Rotating, expected: Expected) -> Self {
        Self {
            material,
            expected,
            connect_time: Duration::from_secs(10),
        }
    }

    /// The credential it dials with.
    #[must_use]
    pub fn material(&self) -> &Rotating {
        &self.material
    }

    /// Connects to `endpoint` (`host:port`). Keep-alive pings notice a dead peer within 30 s.
    ///
    /// # Errors
    /// [`DialError`] with the handshake's reason as its source.
    pub async fn connect(&self, endpoint: &str) -> Result<Channel, DialError> {
        let address = || DialError::Address(endpoint.to_owned());
        // The scheme is http, since TLS is done below tonic by the connector.
        let uri = format!("http://{endpoint}")
            .parse::<http::Uri>()
            .map_err(|_| address())?;
        if uri.port_u16().is_none() || uri.host().is_none() {
            return Err(address());
        }
        let dialer = self.clone();
        let target = endpoint.to_owned();
        let connector = service_fn(move |_| {
            let dialer = dialer.clone();
            let target = target.clone();
            async move { dialer.handshake(&target).await.map(TokioIo::new) }
        });
        Endpoint::from(uri)
            .connect_timeout(self.connect_time)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .connect_with_connector(connector)
            .await
            .map_err(|source| DialError::Connect {
                endpoint: endpoint.to_owned(),
                source,
            })
    }

    async fn handshake(&self, endpoint: &str) -> io::Result<TlsStream<TcpStream>> {
        let config = config(&self.material.current(), &self.expected).map_err(io::Error::other)?;
        let socket = TcpStream::connect(endpoint).await?;
        socket.set_nodelay(true)?;
        // A name has to be sent; the verifier does not look at it.
        let name = ServerName::try_from("coordinator.smartscale").map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }
}
