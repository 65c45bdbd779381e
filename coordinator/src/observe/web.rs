//! Outgoing HTTP calls, each bounded in time and size, so that no server can hold a loop up or fill the memory.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use smartscale_proto::time::{SharedClock, within};

use crate::error::chain;

/// A call that brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WebError {
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The answer is larger than anything useful.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Connection(String),
    /// A certificate file is unusable.
    #[error("certificates in {path}: {reason}")]
    Certificates {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An HTTP and HTTPS client.
#[derive(Clone)]
pub(crate) struct WebClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    clock: SharedClock,
    timeout: Duration,
    most_bytes: usize,
}

impl WebClient {
    /// A client that trusts the authorities of `ca_file`, or those of the system, and waits `timeout` for an
    /// answer of at most `most_bytes`.
    ///
    /// # Errors
    /// [`WebError::Certificates`] when the file has none that can be used.
    pub(crate) fn new(
        ca_file: Option<&Path>,
        timeout: Duration,
        most_bytes: usize,
        clock: SharedClock,
    ) -> Result<Self, WebError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = HttpsConnectorBuilder::new();
        let builder = match ca_file {
            Some(path) => builder.with_tls_config(trusting(path, provider)?),
            None => match builder.with_provider_and_native_roots(Arc::clone(&provider)) {
                Ok(builder) => builder,
                // A machine without any authority can still speak plain HTTP; HTTPS then says what is missing.
                Err(error) => {
                    tracing::warn!(%error, "no certificate authorities on this system");
                    let roots = rustls::RootCertStore::empty();
                    HttpsConnectorBuilder::new().with_tls_config(client_config(roots, provider)?)
                }
            },
        };
        let connector = builder.https_or_http().enable_http1().build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            client,
            clock,
            timeout,
            most_bytes,
        })
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// [`WebError`] when there is no answer to read.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, WebError> {
        let answer = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|error| connection(&error))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, self.most_bytes)
                .collect()
                .await
                .map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        WebError::TooLarge(self.most_bytes)
                    } else {
                        connection(&*error)
                    }
                })?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        within(&*self.clock, self.timeout, answer)
            .await
            .unwrap_or(Err(WebError::Timeout(self.timeout)))
    }
}

impl std::fmt::Debug for WebClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebClient")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn trusting(
    path: &Path,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<rustls::ClientConfig, WebError> {
    let bad = |reason: String| WebError::Certificates {
        path: path.display().to_string(),
        reason,
    };
    let mut roots = rustls::RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| bad(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots.add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("no certificate in it".into()));
    }
    client_config(roots, provider)
}

fn client_config(
    roots: rustls::RootCertStore,
    provider: Arc<rustls::crypto::CryptoProvider>,
) -> Result<rustls::ClientConfig, WebError> {
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| WebError::Certificates {
            path: "the TLS provider".into(),
            reason: error.to_string(),
        })?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The whole chain as one sentence: hyper's own message only says "client error (Connect)".
fn connection(error: &(dyn std::error::Error + 'static)) -> WebError {
    WebError::Connection(chain(error))
}

/// A form as `application/x-www-form-urlencoded`.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        encode(key, &mut text);
        text.push('=');
        encode(value, &mut text);
    }
    text
}

fn encode(part: &str, into: &mut String) {
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// An `http` or `https` address with a host.
///
/// # Errors
/// A sentence that says what would be right.
pub(crate) fn address(text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("`{text}` is no address: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none() {
        return Err(format!(
            "`{text}` is no address: http://HOST:PORT or https://HOST:PORT is"
        ));
    }
    Ok(uri)
}

/// A header that must not be shown in logs.
pub(crate) fn secret_header(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_encoded_byte_by_byte() {
        assert_eq!(
            form(&[("query", "a{b=\"ü\"} + 1"), ("x", "~")]),
            "query=a%7Bb%3D%22%C3%BC%22%7D%20%2B%201&x=~"
        );
    }

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        assert!(address("http://127.0.0.1:9090/prom").is_ok());
        for bad in ["prometheus:9090", "ftp://host", "/path", ""] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
