//! Where a person on call sits: the `smartscale` program, and what `kubectl` shows.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;

use super::{DEADLINE, phase};
use crate::rig::process::{Process, Program};
use crate::rig::{Folder, is_ready, programs, wait};

/// A way to the coordinators and one to the cluster.
pub struct Desk {
    /// The first admin's.
    pub credentials: PathBuf,
    /// The coordinators' addresses, separated by commas.
    pub endpoint: String,
    /// The cluster, as its admin.
    pub cluster: Client,
    /// Where logs go.
    pub folder: Folder,
}

impl Desk {
    /// Asks with the `smartscale` program, as the first admin, and gives its JSON answer.
    ///
    /// # Errors
    /// It ended with another code than 0; the message has what it said.
    pub async fn ask(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let text = self.say(arguments, &["-o", "json"]).await?;
        serde_json::from_str(&text).with_context(|| format!("read the answer of {arguments:?}: {text}"))
    }

    /// Gives an order with the `smartscale` program whose answer is a sentence.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn order(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.say(arguments, &[]).await
    }

    async fn say(&self, arguments: &[&str], more: &[&str]) -> anyhow::Result<String> {
        let output = tokio::process::Command::new(programs::path("smartscale")?)
            .args(arguments)
            .args(more)
            .envs(self.of_a_person())
            .kill_on_drop(true)
            .output()
            .await
            .context("run smartscale")?;
        if !output.status.success() {
            bail!(
                "smartscale {arguments:?}: {} {}{}",
                output.status,
                String::from_utf8_lossy(&output.stderr),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn of_a_person(&self) -> [(&'static str, OsString); 2] {
        [
            (
                "SMARTSCALE_CREDENTIALS",
                self.credentials.clone().into_os_string(),
            ),
            ("SMARTSCALE_ENDPOINT", self.endpoint.clone().into()),
        ]
    }

    /// `smartscale watch`, as the first admin; what it says is in its log.
    ///
    /// # Errors
    /// It is not built, or cannot be started.
    pub fn watch(&self) -> anyhow::Result<Process> {
        let mut program = Program::new("watch", programs::path("smartscale")?).arg("watch");
        for (name, value) in self.of_a_person() {
            program = program.env(name, value);
        }
        Process::spawn(program, &self.folder)
    }

    /// The operations, newest first, as `smartscale operations` gives them.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub async fn operations(&self) -> anyhow::Result<Vec<Value>> {
        let answer = self.ask(&["operations", "--limit", "1000"]).await?;
        Ok(answer["operations"].as_array().cloned().unwrap_or_default())
    }

    /// Waits for an operation that meets `wanted`, and gives it.
    ///
    /// # Errors
    /// None does within [`DEADLINE`]; the message has those that there are.
    pub async fn operation(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let found = wait::until(what, DEADLINE, || async {
            let operations = self.operations().await?;
            Ok(operations.into_iter().find(&wanted))
        });
        match found.await {
            Ok(found) => Ok(found),
            Err(error) => bail!("{error:#}; operations: {:#?}", self.operations().await),
        }
    }

    /// Waits for `count` decisions from now on, so that whatever would be decided has been.
    ///
    /// # Errors
    /// They are not taken in time.
    pub async fn decisions(&self, count: usize) -> anyhow::Result<()> {
        let time = async || anyhow::Ok(self.ask(&["status"]).await?["last_decision_at"].to_string());
        for _ in 0..count {
            let before = time().await?;
            wait::until_true("a further decision", DEADLINE, || async {
                Ok(time().await? != before)
            })
            .await?;
        }
        Ok(())
    }

    /// Nodes of the Kubernetes API.
    #[must_use]
    pub fn nodes(&self) -> Api<Node> {
        Api::all(self.cluster.clone())
    }

    /// Pods of namespace `default`.
    #[must_use]
    pub fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.cluster.clone())
    }

    /// Creates an object in namespace `default`.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn create<K>(&self, object: &K) -> anyhow::Result<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::Serialize
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::default_namespaced(self.cluster.clone());
        api.create(&PostParams::default(), object)
            .await
            .context("create an object")
    }

    /// Waits for exactly so many Ready nodes without a startup taint, and gives their names.
    ///
    /// # Errors
    /// There are others after [`DEADLINE`].
    pub async fn ready_nodes(&self, count: usize) -> anyhow::Result<Vec<String>> {
        let nodes = self.nodes();
        let what = format!("{count} Ready nodes");
        let ready = wait::until(&what, DEADLINE, || async {
            let all = nodes.list(&ListParams::default()).await?;
            let ready: Vec<String> = all
                .items
                .iter()
                .filter(|node| is_ready(node) && !is_unverified(node))
                .filter_map(|node| node.metadata.name.clone())
                .collect();
            if ready.len() == count && all.items.len() == count {
                return Ok(Some(ready));
            }
            bail!(
                "{} of {} nodes are Ready: {ready:?}",
                ready.len(),
                all.items.len()
            )
        });
        match ready.await {
            Ok(ready) => Ok(ready),
            Err(error) => bail!("{error:#}; status: {:#?}", self.ask(&["status"]).await),
        }
    }

    /// Waits until exactly `count` pods labelled `app=NAME` run, none of them terminating, and gives them.
    ///
    /// # Errors
    /// There are others after [`DEADLINE`].
    pub async fn running(&self, app: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
        let pods = self.pods();
        let labelled = ListParams::default().labels(&format!("app={app}"));
        let what = format!("{count} running pods of {app}");
        wait::until(&what, DEADLINE, || async {
            let all = pods.list(&labelled).await?.items;
            let running = all
                .iter()
                .filter(|pod| phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none())
                .count();
            if running == count && all.len() == count {
                return Ok(Some(all));
            }
            bail!("{running} of {} run", all.len())
        })
        .await
    }
}

fn is_unverified(node: &Node) -> bool {
    node.spec
        .as_ref()
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| taints.iter().any(|taint| taint.key == "smartscale.io/unverified"))
}
