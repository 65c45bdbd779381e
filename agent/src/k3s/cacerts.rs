//! The authorities that a K3s server shows to everybody, held against the hash in a token.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::Bytes;
use jiff::fmt::rfc2822;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use smartscale_proto::{
    k3s,
    time::{SharedClock, within},
    tls,
};

use super::server::{JoinServer, Seen};
use crate::{
    error::{Failure, Known},
    http::{HttpError, https::Server},
    secrets::join::JoinToken,
};

/// Bytes of a bundle of authorities.
const LIMIT: usize = 256 * 1024;
/// Time to connect, and for the answer.
const TIME: Duration = Duration::from_secs(10);

/// The server's own word, at `/cacerts`.
pub struct Cacerts {
    clock: SharedClock,
}

impl Cacerts {
    /// Asks servers, and compares their clocks with `clock`.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock }
    }
}

#[async_trait]
impl JoinServer for Cacerts {
    async fn look(&self, url: &str, token: &JoinToken) -> Result<Seen, Failure> {
        let uri: Uri = format!("{url}/cacerts")
            .parse()
            .map_err(|_| HttpError::Address(url.to_owned()))?;
        let server = Server::new::<Failure>(&uri, None, || Ok(anybody()?))?;
        let request = Request::get("/cacerts")
            .body(Full::<Bytes>::default())
            .map_err(|_| HttpError::Address(url.to_owned()))?;
        let answer = async { server.connect(TIME).await?.exchange(request, LIMIT).await };
        let answer = within(&*self.clock, TIME * 2, answer)
            .await
            .ok_or_else(|| HttpError::TooLate {
                address: url.to_owned(),
            })
            .and_then(|answer| answer)
            .map_err(|error| {
                let failure = Failure::from(error);
                let known = failure.known().unwrap_or(Known::ServerUnreachable);
                failure.known_as(known)
            })?;
        if answer.status != StatusCode::OK {
            let text = format!(
                "{url} is no K3s server: it answers {} for /cacerts",
                answer.status
            );
            return Err(Failure::because(text).known_as(Known::ServerUnreachable));
        }
        let hash = k3s::ca_hash(&answer.body).unwrap_or_default();
        if !token.ca_hash().eq_ignore_ascii_case(&hash) {
            let text =
                format!("the K3s server {url} shows another certificate authority than the join token pins");
            return Err(Failure::because(text).known_as(Known::CaMismatch));
        }
        let date = answer.headers.get(header::DATE).and_then(|date| {
            let zoned = rfc2822::DateTimeParser::new().parse_zoned(date.to_str().ok()?);
            Some(zoned.ok()?.timestamp())
        });
        Ok(Seen {
            skew: date.map(|date| self.clock.now().duration_since(date)),
        })
    }
}

/// TLS with whoever answers: what is asked is no secret, and the answer is checked by its hash.
fn anybody() -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = tls::provider();
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use jiff::SignedDuration;
    use smartscale_proto::time::SystemClock;

    use super::*;
    use crate::{
        http::testing::{Authority, answer, at_once},
        secrets::Secret,
    };

    /// What a server of an authority of its own shows.
    fn bundle() -> &'static str {
        let authority = rcgen::generate_simple_self_signed(vec!["k3s".to_owned()]).unwrap();
        String::leak(authority.cert.pem())
    }

    fn token(bundle: &str) -> JoinToken {
        let hash = k3s::ca_hash(bundle.as_bytes()).unwrap();
        JoinToken::try_from(Secret::new(format!("K10{hash}::node:secret"))).unwrap()
    }

    async fn look(
        status: u16,
        bundle: &'static str,
        token: &JoinToken,
        minutes: i64,
    ) -> Result<Seen, Failure> {
        tls::install_provider();
        let url = Authority::new()
            .serve(false, move |seen| {
                if seen.head.uri.path() != "/cacerts"
                    || !seen.body.is_empty()
                    || seen.head.headers.contains_key(header::AUTHORIZATION)
                {
                    return at_once(400, "");
                }
                let date = jiff::Timestamp::now() - SignedDuration::from_mins(minutes);
                let date = date.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
                let mut answer = answer(status, bundle);
                answer.headers_mut().insert(header::DATE, date.parse().unwrap());
                Box::pin(std::future::ready(answer))
            })
            .await;
        let cacerts = Cacerts::new(Arc::new(SystemClock));
        cacerts.look(&url, token).await
    }

    #[tokio::test]
    async fn the_server_of_the_token_is_found_and_its_clock_is_compared() {
        let bundle = bundle();
        let seen = look(200, bundle, &token(bundle), 10).await.unwrap();
        let skew = seen.skew.unwrap().as_secs();
        assert!((598..=605).contains(&skew), "{skew}");
    }

    #[tokio::test]
    async fn another_authority_is_refused_by_name() {
        let failure = look(200, bundle(), &token(bundle()), 0).await.unwrap_err();
        assert_eq!(failure.known(), Some(Known::CaMismatch));
    }

    #[tokio::test]
    async fn what_is_no_k3s_server_is_refused() {
        let failure = look(404, bundle(), &token(bundle()), 0).await.unwrap_err();
        assert_eq!(failure.known(), Some(Known::ServerUnreachable));
        assert!(failure.to_string().contains("/cacerts"), "{failure}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let cacerts = Cacerts::new(Arc::new(SystemClock));
        let failure = cacerts
            .look(&format!("https://{address}"), &token(bundle()))
            .await
            .unwrap_err();
        assert_eq!(failure.known(), Some(Known::ServerUnreachable));
    }
}
