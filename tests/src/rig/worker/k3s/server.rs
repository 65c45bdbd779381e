//! The K3s server's half of the join, beside the rig's control plane.

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::PostParams;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::super::Kubernetes;
use super::super::super::kubernetes::{Access, Identity};
use super::super::network::{GATEWAY, Network};
use super::passwords;
use super::token::{Credential, hash};

/// K3s' port.
const PORT: u16 = 6443;
/// What K3s says about a name whose password another machine has set.
const REJECTED: &str = "Node password rejected, duplicate hostname or contents of '/etc/rancher/node/password' may not match server node-passwd entry, try enabling a unique node name with the --with-node-id flag";

/// The server's half. It ends when dropped.
pub struct Server {
    token: String,
    ca_hash: String,
    client: Client,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Clone)]
struct Shared {
    access: Access,
    client: Client,
    secret: Arc<str>,
    api_server: SocketAddrV4,
}

impl Server {
    /// Serves on the switch's address; the API server must be reachable there too, at `api_server`.
    ///
    /// # Errors
    /// No certificate can be made, or the port is taken.
    pub fn start(network: &Network, cluster: &Kubernetes, api_server: SocketAddrV4) -> anyhow::Result<Self> {
        let access = cluster.access();
        let pair = access.authority().server(&[&GATEWAY.to_string()])?;
        let certificate =
            CertificateDer::from_pem_slice(pair.certificate.as_bytes()).context("read a certificate")?;
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).context("read a key")?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .context("set TLS up")?;
        let listener = Tls {
            listener: network.listen(PORT)?,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
        };
        let secret = format!("node:{:032x}", rand::random::<u128>());
        let ca_hash = hash(access.authority().certificate());
        let client = cluster.client();
        let shared = Shared {
            access,
            client: client.clone(),
            secret: secret.as_str().into(),
            api_server,
        };
        let router = Router::new()
            .route("/cacerts", get(ca))
            .route("/v1-k3s/config", get(config))
            .route("/v1-k3s/apiservers", get(api_servers))
            .route("/v1-k3s/client-kubelet.crt", post(client_kubelet))
            .with_state(shared);
        let serving = tokio::spawn(async move {
            // Accepting ends with the task; there is nobody to tell.
            let _ = axum::serve(listener, router).await;
        });
        let controlling = tokio::spawn(passwords::control(client.clone()));
        Ok(Self {
            token: format!("K10{ca_hash}::{secret}"),
            ca_hash,
            client,
            tasks: [serving, controlling],
        })
    }

    /// Where machines reach it, for the secret with the server's address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{GATEWAY}:{PORT}")
    }

    /// The agent token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A bootstrap token that ends at `expires` (`k3s token create --ttl`).
    ///
    /// # Errors
    /// The API server refuses its Secret.
    pub async fn bootstrap_token(&self, expires: Timestamp) -> anyhow::Result<String> {
        let random = format!("{:032x}", rand::random::<u128>());
        let (id, secret) = (&random[..6], &random[6..22]);
        let object: Secret = serde_json::from_value(json!({
            "metadata": {"name": format!("bootstrap-token-{id}")},
            "type": "bootstrap.kubernetes.io/token",
            "stringData": {
                "token-id": id,
                "token-secret": secret,
                "expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "usage-bootstrap-authentication": "true",
                "auth-extra-groups": "system:bootstrappers:k3s:default-node-token",
            },
        }))
        .context("describe the token")?;
        passwords::secrets(&self.client)
            .create(&PostParams::default(), &object)
            .await
            .context("create the token")?;
        Ok(format!("K10{}::{id}.{secret}", self.ca_hash))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// What is refused: a status and K3s' words.
type Refused = (StatusCode, String);

impl Shared {
    /// Whether the caller may join.
    async fn admit(&self, headers: &HeaderMap) -> Result<(), Refused> {
        let header = headers.get("authorization").and_then(|value| value.to_str().ok());
        let right = match header.and_then(Credential::of_header) {
            Some(Credential::Secret(pair)) => pair == *self.secret,
            Some(Credential::Bootstrap(token)) => self.knows(&token).await.map_err(internal)?,
            None => false,
        };
        if right {
            return Ok(());
        }
        Err((StatusCode::UNAUTHORIZED, "Unauthorized".to_owned()))
    }

    async fn knows(&self, token: &str) -> anyhow::Result<bool> {
        let (id, secret) = token.split_once('.').unwrap_or_default();
        let object = passwords::secrets(&self.client)
            .get_opt(&format!("bootstrap-token-{id}"))
            .await
            .context("look a token up")?;
        let data = object.and_then(|object| object.data).unwrap_or_default();
        let field = |name: &str| {
            data.get(name)
                .and_then(|value| std::str::from_utf8(&value.0).ok())
        };
        let ends: Option<Timestamp> = field("expiration").and_then(|text| text.parse().ok());
        Ok(field("token-secret") == Some(secret) && ends.is_none_or(|ends| ends > Timestamp::now()))
    }
}

#[allow(clippy::needless_pass_by_value, reason = "made for `map_err`")]
fn internal(error: anyhow::Error) -> Refused {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

async fn ca(State(shared): State<Shared>) -> String {
    shared.access.authority().certificate().to_owned()
}

async fn config(State(shared): State<Shared>, headers: HeaderMap) -> Result<String, Refused> {
    shared.admit(&headers).await?;
    Ok(json!({"ClusterDomain": "cluster.local", "ClusterDNS": "10.43.0.10"}).to_string())
}

async fn api_servers(State(shared): State<Shared>, headers: HeaderMap) -> Result<String, Refused> {
    shared.admit(&headers).await?;
    Ok(json!([shared.api_server.to_string()]).to_string())
}

async fn client_kubelet(
    State(shared): State<Shared>,
    headers: HeaderMap,
    request: String,
) -> Result<String, Refused> {
    shared.admit(&headers).await?;
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.ok_or_else(|| (StatusCode::BAD_REQUEST, format!("{name} is missing")))
    };
    let (node, password) = (header("k3s-node-name")?, header("k3s-node-password")?);
    let right = passwords::is_right(&shared.client, node, password).await;
    if !right.map_err(internal)? {
        return Err((StatusCode::FORBIDDEN, REJECTED.to_owned()));
    }
    let authority = shared.access.authority();
    authority
        .client_of_request(&request, &Identity::kubelet(node))
        .map_err(internal)
}

/// A listener whose connections are TLS.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Who connects and says nothing, or nonsense, is not served; the next one is.
            if let Ok((stream, from)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
