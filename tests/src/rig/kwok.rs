//! KWOK: plays the kubelets of any number of nodes. Its pods run at once and end at once.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, PostParams};

use super::kubernetes::{Identity, Kubernetes, NodeBuilder};
use super::process::{Process, Program};
use super::{Folder, cache, http, port, process, wait};

/// The annotation that hands a node to KWOK.
const MANAGED: (&str, &str) = ("kwok.x-k8s.io/node", "fake");

/// A KWOK of the test's own.
pub struct Kwok {
    process: Process,
    client: kube::Client,
}

impl Kwok {
    /// Starts one for the cluster.
    ///
    /// # Errors
    /// It is not installed, or does not come up within 60 s.
    pub async fn start(folder: &Folder, cluster: &Kubernetes) -> anyhow::Result<Self> {
        let program = cache::installed("bin/kwok")?;
        let kubeconfig = cluster.kubeconfig(&Identity::new("rig-kwok", Some("system:masters")))?;
        let mut stages = Vec::new();
        for stage in ["node/fast", "node/heartbeat-with-lease", "pod/fast"] {
            let stage = cache::installed(&format!("kwok/{stage}"))?;
            for entry in std::fs::read_dir(&stage).with_context(|| format!("list {}", stage.display()))? {
                stages.push(entry.context("list KWOK's stages")?.path());
            }
        }
        stages.sort();
        let attempt = || {
            let address = port::free()?;
            let mut program = Program::new("kwok", &program)
                .flag("kubeconfig", &kubeconfig)
                .flag(
                    "manage-nodes-with-annotation-selector",
                    format!("{}={}", MANAGED.0, MANAGED.1),
                )
                .flag("node-lease-duration-seconds", "40")
                .flag("server-address", address.to_string())
                .folder(folder.path());
            // Without stages it ends with "no stages found".
            for stage in &stages {
                program = program.flag("config", stage);
            }
            Ok((program, address))
        };
        let ready = async |address: SocketAddr| {
            Ok(http::get(&format!("http://{address}/healthz"))
                .await?
                .status
                .is_success())
        };
        let (process, _) = process::start(folder, Duration::from_secs(60), attempt, ready).await?;
        Ok(Self {
            process,
            client: cluster.client(),
        })
    }

    /// Creates nodes and waits until they are Ready and without the not-ready taint.
    ///
    /// # Errors
    /// The API server refused one, or they were not Ready within 60 s.
    pub async fn create_nodes(
        &self,
        nodes: impl IntoIterator<Item = NodeBuilder>,
    ) -> anyhow::Result<Vec<String>> {
        let api = Api::<Node>::all(self.client.clone());
        let mut names = Vec::new();
        for node in nodes {
            let node = node.annotation(MANAGED.0, MANAGED.1).build();
            let name = node.metadata.name.clone().context("a node without name")?;
            api.create(&PostParams::default(), &node)
                .await
                .with_context(|| format!("create node {name}"))?;
            names.push(name);
        }
        for name in &names {
            wait::until_true(
                &format!("node {name} to be Ready"),
                Duration::from_secs(60),
                || async { Ok(is_ready(&api.get(name).await?)) },
            )
            .await?;
        }
        Ok(names)
    }

    /// The process: paused or killed, all its nodes fall silent.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Whether the node is Ready and no taint of the node controller says otherwise.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| {
        all.iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    });
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let tainted = taints.is_some_and(|all| {
        all.iter()
            .any(|taint| taint.key == "node.kubernetes.io/not-ready")
    });
    ready && !tainted
}
