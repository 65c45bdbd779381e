//! The client of the Kubernetes API.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::util::MapResponseLayer;

use super::clock::ClusterClock;

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Its kubeconfig; without one `KUBECONFIG`, `~/.kube/config`, or the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Longest silence of a connection. Longer than a watch lasts ([`super::watch`]).
    pub read_timeout: Duration,
    /// Time to write a request.
    pub write_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(90),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {} cannot be used", path.display())]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a service account was found.
    #[error("no way to the Kubernetes API was found")]
    Nowhere(#[source] Box<InferConfigError>),
    /// The credentials or certificates cannot be used.
    #[error("the Kubernetes API cannot be reached this way")]
    Client(#[source] Box<kube::Error>),
}

/// Makes a client, of whose answers `clock` takes notice. Nothing is sent yet.
///
/// # Errors
/// [`ConnectError`] when the kubeconfig, credentials or certificates cannot be used.
pub async fn connect(settings: &Settings, clock: &Arc<ClusterClock>) -> Result<Client, ConnectError> {
    let mut config = match &settings.kubeconfig {
        Some(path) => {
            let unusable = |source| ConnectError::Kubeconfig {
                path: path.clone(),
                source: Box::new(source),
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(unusable)?
        }
        None => Config::infer()
            .await
            .map_err(|source| ConnectError::Nowhere(Box::new(source)))?,
    };
    // A 429 of an eviction and a 503 of a watch are answers; who asked decides when to ask again.
    config.default_retry = false;
    config.connect_timeout = Some(settings.connect_timeout);
    config.read_timeout = Some(settings.read_timeout);
    config.write_timeout = Some(settings.write_timeout);
    let clock = Arc::clone(clock);
    let listening = MapResponseLayer::new(move |response: http::Response<_>| {
        clock.hear(response.headers());
        response
    });
    let builder = ClientBuilder::try_from(config).map_err(|source| ConnectError::Client(Box::new(source)))?;
    Ok(builder.with_layer(&listening).build())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use smartscale_proto::time::SystemClock;

    use super::*;

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let path = PathBuf::from("/nowhere/k3s.yaml");
        let settings = Settings {
            kubeconfig: Some(path),
            ..Settings::default()
        };
        let clock = Arc::new(ClusterClock::new(Arc::new(SystemClock)));
        let error = connect(&settings, &clock).await.err().unwrap();
        assert!(error.to_string().contains("/nowhere/k3s.yaml"), "{error}");
    }
}
