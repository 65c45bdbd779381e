//! The kubeconfig of a kubelet: one server, its certificate authority, a client certificate.
//!
//! The kubelet's certificate is renewed in place, so whoever holds an [`Access`] asks it whether it still is what the files say.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Uri;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use smartscale_proto::tls::{self, keys};

use crate::http::{HttpError, https::Server};

/// The API server as the kubeconfig's holder reaches it.
pub(super) struct Access {
    pub(super) server: Server,
    /// What the paths of requests begin with; empty or `/…`.
    pub(super) prefix: String,
    stamps: Vec<Stamp>,
}

/// A file with the time and size it had before it was read.
type Stamp = (PathBuf, Option<(SystemTime, u64)>);

/// What is wrong with a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub(super) enum KubeconfigError {
    #[error("{}", file.display())]
    Read {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("it is no kubeconfig: {0}")]
    Text(String),
    #[error("it names no {0}")]
    Missing(&'static str),
    #[error("its {what} cannot be used")]
    Unusable {
        what: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl From<HttpError> for KubeconfigError {
    fn from(source: HttpError) -> Self {
        unusable("server")(source)
    }
}

fn unusable<E: Into<Box<dyn Error + Send + Sync>>>(what: &'static str) -> impl Fn(E) -> KubeconfigError {
    move |source| KubeconfigError::Unusable {
        what,
        source: source.into(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    tls_server_name: Option<String>,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
}

impl Access {
    /// Reads the kubeconfig at `path` and the files it names.
    pub(super) fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let mut files = Files {
            folder: path.parent().unwrap_or(Path::new("")),
            stamps: Vec::new(),
        };
        let text = files.read(path)?;
        let (cluster, user) = choose(&text)?;
        let uri: Uri = cluster.server.parse().map_err(unusable("server"))?;
        let server = Server::new(&uri, cluster.tls_server_name.as_deref(), || {
            let authority = files.material(
                "certificate-authority",
                cluster.certificate_authority_data.as_deref(),
                cluster.certificate_authority.as_deref(),
            )?;
            let certificate = files.material(
                "client-certificate",
                user.client_certificate_data.as_deref(),
                user.client_certificate.as_deref(),
            )?;
            let key = files.material(
                "client-key",
                user.client_key_data.as_deref(),
                user.client_key.as_deref(),
            )?;
            client_config(&authority, &certificate, &key).map(Arc::new)
        })?;
        Ok(Self {
            server,
            prefix: uri.path().trim_end_matches('/').to_owned(),
            stamps: files.stamps,
        })
    }

    /// Whether no file has changed since.
    pub(super) fn is_current(&self) -> bool {
        self.stamps.iter().all(|(path, stamp)| stamp_of(path) == *stamp)
    }
}

/// Reads files, and remembers how they were before.
struct Files<'a> {
    folder: &'a Path,
    stamps: Vec<Stamp>,
}

impl Files<'_> {
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, KubeconfigError> {
        self.stamps.push((path.to_owned(), stamp_of(path)));
        fs::read(path).map_err(|source| KubeconfigError::Read {
            file: path.to_owned(),
            source,
        })
    }

    /// What is given as data or else as a file, relative to the kubeconfig's folder.
    fn material(
        &mut self,
        what: &'static str,
        data: Option<&str>,
        file: Option<&Path>,
    ) -> Result<Vec<u8>, KubeconfigError> {
        match (data.filter(|data| !data.is_empty()), file) {
            (Some(data), _) => STANDARD.decode(data).map_err(unusable(what)),
            (None, Some(file)) => self.read(&self.folder.join(file)),
            (None, None) => Err(KubeconfigError::Missing(what)),
        }
    }
}

fn stamp_of(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Cluster and user of the current context.
fn choose(text: &[u8]) -> Result<(Cluster, User), KubeconfigError> {
    let bad = |error: &dyn std::fmt::Display| KubeconfigError::Text(error.to_string());
    let text = std::str::from_utf8(text).map_err(|error| bad(&error))?;
    let options = serde_saphyr::options! { with_snippet: false };
    let all: Kubeconfig = serde_saphyr::from_str_with_options(text, options).map_err(|error| bad(&error))?;
    let context = all
        .contexts
        .into_iter()
        .find(|named| named.name == all.current_context)
        .ok_or(KubeconfigError::Missing("context that is its current-context"))?
        .context;
    let cluster = all
        .clusters
        .into_iter()
        .find(|named| named.name == context.cluster);
    let user = all.users.into_iter().find(|named| named.name == context.user);
    Ok((
        cluster
            .ok_or(KubeconfigError::Missing("cluster of its context"))?
            .cluster,
        user.ok_or(KubeconfigError::Missing("user of its context"))?.user,
    ))
}

fn client_config(authority: &[u8], certificate: &[u8], key: &[u8]) -> Result<ClientConfig, KubeconfigError> {
    let mut roots = RootCertStore::empty();
    for root in keys::certificates_from_pem(authority).map_err(unusable("certificate-authority"))? {
        roots.add(root).map_err(unusable("certificate-authority"))?;
    }
    let chain = keys::certificates_from_pem(certificate).map_err(unusable("client-certificate"))?;
    let key = keys::key_from_pem(key).map_err(unusable("client-key"))?;
    ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable("client-certificate"))?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(unusable("client-certificate"))
}
