//! The unit `k3s-agent`: joins as K3s does, then runs a real kubelet on a real containerd.
//!
//! ```text
//!  configuration, token ─▶ the server's CA ─▶ node password ─▶ certificate ─▶ containerd, images ─▶ kubelet ─▶ "READY=1"
//!         └───────────────────── wrong: said, and tried again for ever ──────────┘
//! ```
//! As with the real one the kubelet and containerd end with it, and the shims with the pods stay.

use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::Request;
use kube::{Client, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::super::super::machines::Configuration;
use super::super::network::forward;
use super::children;
use super::token::{Credential, Token, hash};

/// K3s' folder of agent data.
pub(super) const DATA: &str = "/var/lib/rancher/k3s/agent";
/// The load balancer of K3s' agent: where its kubelet finds the API server.
const BALANCER: &str = "127.0.0.1:6444";
/// Between two attempts at joining.
const AGAIN: Duration = Duration::from_secs(2);

/// What a machine's configuration says.
pub(super) struct Settings {
    pub(super) node: String,
    pub(super) labels: Vec<String>,
    pub(super) taints: Vec<String>,
    pub(super) kubelet_args: Vec<String>,
    server: String,
    token: Token,
}

impl Settings {
    /// The machine's address on the way to the server. K3s gives it to the kubelet, which would look its own name up in
    /// DNS otherwise.
    pub(super) fn address(&self) -> anyhow::Result<IpAddr> {
        let server: http::Uri = self.server.parse().context("read the server's URL")?;
        let host = server.host().context("the server's URL has no host")?;
        let socket = UdpSocket::bind("0.0.0.0:0").context("make a socket")?;
        // Sends nothing: the kernel only looks the way up.
        socket
            .connect((host, server.port_u16().unwrap_or(6443)))
            .with_context(|| format!("find the way to {host}"))?;
        Ok(socket.local_addr().context("read the own address")?.ip())
    }
}

/// Runs until it is told to end (SIGTERM, whereupon the process just dies) or something that it runs ends.
///
/// # Errors
/// The kubelet or containerd cannot be run, or one of them ended: systemd starts the unit again.
pub async fn run() -> anyhow::Result<()> {
    super::super::super::install_crypto();
    let (settings, api_server) = loop {
        match join().await {
            Ok(joined) => break joined,
            Err(error) => eprintln!("level=error msg=\"{error:#}\""),
        }
        tokio::time::sleep(AGAIN).await;
    };
    let listener = tokio::net::TcpListener::bind(BALANCER)
        .await
        .with_context(|| format!("listen on {BALANCER}"))?;
    let balancer = forward(listener, api_server);
    let ended = children::run(&settings).await;
    balancer.abort();
    ended
}

fn settings() -> anyhow::Result<Settings> {
    let folder = Path::new("/etc/rancher/k3s");
    let read = Configuration::read_all(&folder.join("config.yaml"), &folder.join("config.yaml.d"))?;
    let token_file = read.get("token-file")?;
    let token = std::fs::read_to_string(token_file).with_context(|| format!("read {token_file}"))?;
    let list = |key: &str| read.list(key).map(str::to_owned).collect();
    Ok(Settings {
        node: read.get("node-name")?.to_owned(),
        labels: list("node-label"),
        taints: list("node-taint"),
        kubelet_args: list("kubelet-arg"),
        server: read.get("server")?.trim_end_matches('/').to_owned(),
        token: Token::parse(&token)?,
    })
}

/// Everything up to the kubelet's kubeconfig; with it where the API server is.
async fn join() -> anyhow::Result<(Settings, std::net::SocketAddr)> {
    let settings = settings()?;
    let server = &settings.server;
    let ca = client(server, None)?
        .request_text(request("/cacerts", None, &[], String::new())?)
        .await
        .map_err(|error| refused(&error))
        .with_context(|| format!("failed to get CA certs: {server}/cacerts"))?;
    let found = hash(&ca);
    if found != settings.token.ca_hash {
        bail!(
            "token CA hash does not match the Cluster CA certificate hash: {} != {found}",
            settings.token.ca_hash
        );
    }
    write("server-ca.crt", &ca, 0o644)?;
    let client = client(server, Some(&ca))?;
    let credential = Some(&settings.token.credential);
    let ask = async |path: &str| {
        client
            .request_text(request(path, credential, &[], String::new())?)
            .await
            .map_err(|error| match (&error, &settings.token.credential) {
                // What the real one says of an expired bootstrap token, however little that helps.
                (kube::Error::Api(status), Credential::Bootstrap(_)) if status.code == 401 => {
                    anyhow::anyhow!("http: ContentLength=189 with Body length 0")
                }
                _ => refused(&error),
            })
            .with_context(|| format!("failed to retrieve configuration from server: {server}{path}"))
    };
    let known = file("kubelet.kubeconfig").exists() && file("client-kubelet.crt").exists();
    match ask("/v1-k3s/config").await {
        Ok(_) => {
            certificate(&client, &settings).await?;
            let servers: Vec<String> = serde_json::from_str(&ask("/v1-k3s/apiservers").await?)
                .context("read the list of API servers")?;
            let first = servers.first().context("the server knows no API server")?;
            write("api-server", first, 0o644)?;
        }
        // A token that expired since: the certificate of the first time is still good, as long as its Node is there.
        Err(error) if known && matches!(settings.token.credential, Credential::Bootstrap(_)) => {
            eprintln!("level=warning msg=\"{error:#}; going on with the certificate that is there\"");
        }
        Err(error) => return Err(error),
    }
    write("kubelet.kubeconfig", &kubeconfig(), 0o600)?;
    let api_server = std::fs::read_to_string(file("api-server")).context("read the API server's address")?;
    Ok((
        settings,
        api_server.parse().context("read the API server's address")?,
    ))
}

/// A key of this machine's own and the server's certificate for it.
async fn certificate(client: &Client, settings: &Settings) -> anyhow::Result<()> {
    let key = rcgen::KeyPair::generate().context("make a key")?;
    let asked = rcgen::CertificateParams::new(Vec::new())
        .and_then(|params| params.serialize_request(&key))
        .and_then(|request| request.pem())
        .context("make a certificate request")?;
    let headers = [
        ("k3s-node-name", settings.node.clone()),
        ("k3s-node-password", password()?),
    ];
    let path = "/v1-k3s/client-kubelet.crt";
    let certificate = client
        .request_text(request(path, Some(&settings.token.credential), &headers, asked)?)
        .await
        .map_err(|error| refused(&error))
        .with_context(|| format!("{}{path}", settings.server))?;
    write("client-kubelet.crt", &certificate, 0o644)?;
    write("client-kubelet.key", &key.serialize_pem(), 0o600)
}

/// The node's password: made once, kept outside K3s' own folder.
fn password() -> anyhow::Result<String> {
    let path = Path::new("/etc/rancher/node/password");
    if let Ok(known) = std::fs::read_to_string(path) {
        return Ok(known.trim().to_owned());
    }
    let made = format!("{:032x}", rand::random::<u128>());
    put(path, &format!("{made}\n"), 0o600)?;
    Ok(made)
}

fn client(server: &str, ca: Option<&str>) -> anyhow::Result<Client> {
    let mut config = Config::new(server.parse().context("read the server's URL")?);
    match ca {
        Some(ca) => {
            let ca = CertificateDer::from_pem_slice(ca.as_bytes()).context("read the server's CA")?;
            config.root_cert = Some(vec![ca.to_vec()]);
        }
        // Whoever answers is known by the hash of what it says.
        None => config.accept_invalid_certs = true,
    }
    config.default_retry = false;
    Client::try_from(config).context("make a client")
}

fn request(
    path: &str,
    credential: Option<&Credential>,
    headers: &[(&str, String)],
    body: String,
) -> anyhow::Result<Request<Vec<u8>>> {
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut request = Request::builder().method(method).uri(path);
    if let Some(credential) = credential {
        request = request.header("authorization", credential.header());
    }
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    request.body(body.into_bytes()).context("build a request")
}

/// K3s' words for a refusal: the status and what the server said.
fn refused(error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if status.code == 401 => anyhow::anyhow!("not authorized"),
        kube::Error::Api(status) => anyhow::anyhow!("{}: {}", status.code, status.message),
        other => anyhow::anyhow!("{other:?}"),
    }
}

fn kubeconfig() -> String {
    let path = |name: &str| file(name).display().to_string();
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": {
            "server": format!("https://{BALANCER}"),
            "certificate-authority": path("server-ca.crt"),
        }}],
        "contexts": [{"name": "Default", "context": {"cluster": "local", "namespace": "default", "user": "user"}}],
        "current-context": "Default",
        "users": [{"name": "user", "user": {
            "client-certificate": path("client-kubelet.crt"),
            "client-key": path("client-kubelet.key"),
        }}],
    });
    format!("{config:#}\n")
}

fn file(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

fn write(name: &str, text: &str, mode: u32) -> anyhow::Result<()> {
    put(&file(name), text, mode)
}

/// Writes a file in one step: nobody reads half of it.
pub(super) fn put(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    std::fs::write(&part, text)
        .and_then(|()| std::fs::set_permissions(&part, std::fs::Permissions::from_mode(mode)))
        .and_then(|()| std::fs::rename(&part, path))
        .with_context(|| format!("write {}", path.display()))
}
