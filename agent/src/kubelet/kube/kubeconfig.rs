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
use serde_json::Value;
use smartscale_proto::tls::{self, keys};

use super::yaml;
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

impl Access {
    /// Reads the kubeconfig at `path` and the files it names.
    pub(super) fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let mut files = Files {
            folder: path.parent().unwrap_or(Path::new("")),
            stamps: Vec::new(),
        };
        let text = files.read(path)?;
        let (cluster, user) = choose(&text)?;
        let address = text_of(&cluster, "server").ok_or(KubeconfigError::Missing("server"))?;
        let uri: Uri = address.parse().map_err(unusable("server"))?;
        let server = Server::new(&uri, text_of(&cluster, "tls-server-name"), || {
            let authority = files.material(&cluster, "certificate-authority")?;
            let certificate = files.material(&user, "client-certificate")?;
            let key = files.material(&user, "client-key")?;
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

    /// What `holder` gives as data (`WHAT-data`) or else as a file (`WHAT`), relative to the kubeconfig's folder.
    fn material(&mut self, holder: &Value, what: &'static str) -> Result<Vec<u8>, KubeconfigError> {
        match (text_of(holder, &format!("{what}-data")), text_of(holder, what)) {
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

/// A text that is there and not empty.
fn text_of<'a>(holder: &'a Value, key: &str) -> Option<&'a str> {
    holder.get(key)?.as_str().filter(|text| !text.is_empty())
}

/// Cluster and user of the current context.
pub(super) fn choose(text: &[u8]) -> Result<(Value, Value), KubeconfigError> {
    let text = std::str::from_utf8(text).map_err(|error| KubeconfigError::Text(error.to_string()))?;
    let all = yaml::read(text).map_err(KubeconfigError::Text)?;
    // Contexts, clusters and users are lists of `{name: NAME, KIND: {…}}`.
    let named = |list: &str, name: Option<&str>, kind: &str, missing: &'static str| {
        let entries = all.get(list).and_then(Value::as_array);
        entries
            .and_then(|entries| {
                entries
                    .iter()
                    .find(|entry| name.is_some() && text_of(entry, "name") == name)
            })
            .and_then(|entry| entry.get(kind).cloned())
            .ok_or(KubeconfigError::Missing(missing))
    };
    let current = text_of(&all, "current-context");
    let context = named(
        "contexts",
        current,
        "context",
        "context that is its current-context",
    )?;
    let cluster = text_of(&context, "cluster");
    let user = text_of(&context, "user");
    Ok((
        named("clusters", cluster, "cluster", "cluster of its context")?,
        named("users", user, "user", "user of its context")?,
    ))
}

pub(super) fn client_config(
    authority: &[u8],
    certificate: &[u8],
    key: &[u8],
) -> Result<ClientConfig, KubeconfigError> {
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
