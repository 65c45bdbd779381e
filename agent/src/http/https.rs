//! Connections to `http://` and `https://` servers.

use std::{io, sync::Arc, time::Duration};

use http::Uri;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;

use super::{HttpError, Link};

/// A server and how it is believed.
#[derive(Clone)]
pub(crate) struct Server {
    /// As in the address: the port only where it is not the scheme's own.
    authority: String,
    /// To connect to.
    endpoint: String,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

impl Server {
    /// The server of `uri`. `tls` makes its settings for `https` alone; `name` is the one its certificate has to have, if
    /// that is not the address' host.
    pub(crate) fn new<E: From<HttpError>>(
        uri: &Uri,
        name: Option<&str>,
        tls: impl FnOnce() -> Result<Arc<ClientConfig>, E>,
    ) -> Result<Self, E> {
        let bad = || HttpError::Address(uri.to_string());
        let authority = uri.authority().ok_or_else(bad)?;
        let host = uri.host().ok_or_else(bad)?;
        let (port, tls) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => {
                let name = name.unwrap_or(host.trim_start_matches('[').trim_end_matches(']'));
                let name = ServerName::try_from(name.to_owned()).map_err(|_| bad())?;
                (443, Some((name, tls()?)))
            }
            _ => return Err(bad().into()),
        };
        Ok(Self {
            authority: authority.to_string(),
            endpoint: format!("{host}:{}", uri.port_u16().unwrap_or(port)),
            tls,
        })
    }

    /// Its name in messages.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Connects within `limit`.
    pub(crate) async fn connect(&self, limit: Duration) -> Result<Link, HttpError> {
        let failed = |source| HttpError::Connect {
            address: self.endpoint.clone(),
            source,
        };
        let connected = async {
            let socket = TcpStream::connect(&self.endpoint).await.map_err(failed)?;
            socket.set_nodelay(true).map_err(failed)?;
            let Some((name, config)) = &self.tls else {
                return Link::open(socket, &self.authority).await;
            };
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = connector.connect(name.clone(), socket).await.map_err(failed)?;
            Link::open(stream, &self.authority).await
        };
        timeout(limit, connected)
            .await
            .unwrap_or_else(|_| Err(failed(io::ErrorKind::TimedOut.into())))
    }
}
