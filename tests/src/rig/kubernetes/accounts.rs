//! Manifests applied as `kubectl apply --server-side` does it, and kubeconfigs of service accounts.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use http::Request;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use serde_json::{Value, json};

use super::{Kubernetes, audit};

/// What a cluster is given before a coordinator comes: its rights, and what nodes have to register with.
const GIVEN: [&str; 2] = ["rbac.yaml", "admission.yaml"];

impl Kubernetes {
    /// Applies every object of a YAML file.
    ///
    /// # Errors
    /// The file cannot be read, or the API server refuses an object.
    pub async fn apply(&self, file: &Path) -> anyhow::Result<()> {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let objects: Vec<DynamicObject> =
            serde_saphyr::from_multiple(&text).with_context(|| format!("read {}", file.display()))?;
        for object in objects {
            let types = object.types.clone().context("an object without kind")?;
            let name = object.metadata.name.clone().context("an object without name")?;
            let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(&types)?);
            let api: Api<DynamicObject> = match &object.metadata.namespace {
                Some(namespace) => Api::namespaced_with(self.client(), namespace, &resource),
                None => Api::all_with(self.client(), &resource),
            };
            api.patch(&name, &PatchParams::apply("rig").force(), &Patch::Apply(&object))
                .await
                .with_context(|| format!("apply {} {name}", types.kind))?;
        }
        Ok(())
    }

    /// Applies a file of `packaging/kubernetes` beside those that every cluster is given.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    pub async fn apply_packaged(&self, name: &str) -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/kubernetes");
        self.apply(&folder.join(name)).await
    }

    /// A kubeconfig of the coordinator's service account, with the rights of `packaging/kubernetes/rbac.yaml` and no
    /// others, once the cluster has everything of that folder. Its token is good for a day.
    ///
    /// # Errors
    /// The rights cannot be applied, or the API server gives no token.
    pub async fn coordinator_kubeconfig(&self) -> anyhow::Result<PathBuf> {
        for file in GIVEN {
            self.apply_packaged(file).await?;
        }
        let (namespace, name) = audit::COORDINATOR;
        self.account_kubeconfig(namespace, name).await
    }

    /// A kubeconfig of a service account, whose token is good for a day.
    ///
    /// # Errors
    /// The API server gives no token.
    pub async fn account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": { "expirationSeconds": 86_400 },
        });
        let request = Request::post(path)
            .header("content-type", "application/json")
            .body(body.to_string().into_bytes())
            .context("build a request")?;
        let answer: Value = self.client().request(request).await.context("ask for a token")?;
        let token = answer
            .pointer("/status/token")
            .and_then(Value::as_str)
            .context("an answer without a token")?;
        self.access.token_kubeconfig(name, token)
    }
}
