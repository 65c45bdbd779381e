//! Node passwords and what K3s does with Nodes: the first machine that comes with a name sets the name's password; the
//! Secret that keeps it belongs to the Node and goes with it, so that only then another machine may have the name.
//! <https://docs.k3s.io/architecture#how-agent-node-registration-works>

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Node, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _};
use serde_json::json;

use super::token::hash;

/// K3s' finalizer of Nodes.
const FINALIZER: &str = "wrangler.cattle.io/node";
/// How long the real one's controller takes.
const PERIOD: Duration = Duration::from_millis(200);

/// Secrets of the namespace where K3s keeps its own.
pub(super) fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "kube-system")
}

fn name_of(node: &str) -> String {
    format!("{node}.node-password.k3s")
}

/// Whether a machine that calls itself `node` has the name's password; the first one sets it.
///
/// # Errors
/// The API server does not answer as it should.
pub(super) async fn is_right(client: &Client, node: &str, password: &str) -> anyhow::Result<bool> {
    let (secrets, name, hashed) = (secrets(client), name_of(node), hash(password));
    if let Some(known) = secrets.get_opt(&name).await.context("read the node's password")? {
        let known = known.data.unwrap_or_default().remove("hash").unwrap_or_default();
        return Ok(known.0 == hashed.as_bytes());
    }
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": name}, "stringData": {"hash": hashed}, "immutable": true,
    }))
    .context("describe the secret")?;
    secrets
        .create(&PostParams::default(), &secret)
        .await
        .context("keep the node's password")?;
    Ok(true)
}

/// Gives Nodes K3s' finalizer and their Secrets the Node as owner, and lets deleted Nodes go; for ever.
pub(super) async fn control(client: Client) {
    loop {
        if let Err(error) = look(&client).await {
            // An API server that a test has stopped.
            tracing::debug!(error = format!("{error:#}"), "nodes cannot be looked after");
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn look(client: &Client) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    for node in nodes
        .list(&ListParams::default())
        .await
        .context("list nodes")?
        .items
    {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut finalizers = node.metadata.finalizers.clone().unwrap_or_default();
        let has = finalizers.iter().any(|own| own == FINALIZER);
        match (node.metadata.deletion_timestamp.is_some(), has) {
            (true, true) => finalizers.retain(|own| own != FINALIZER),
            (false, false) => {
                own_password(client, &node, &name).await?;
                finalizers.push(FINALIZER.to_owned());
            }
            _ => continue,
        }
        // With the version that was read, so that nobody else's finalizer is lost.
        let patch = json!({"metadata": {
            "finalizers": finalizers, "resourceVersion": node.metadata.resource_version,
        }});
        match nodes
            .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
        {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error).context("set a node's finalizers"),
        }
    }
    Ok(())
}

async fn own_password(client: &Client, node: &Node, name: &str) -> anyhow::Result<()> {
    let owner = node.owner_ref(&()).context("a node without a name")?;
    let patch = json!({"metadata": {"ownerReferences": [owner]}});
    let secret = name_of(name);
    match secrets(client)
        .patch_metadata(&secret, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        // The rig's light machines have no password.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("let a node own its password"),
    }
}
