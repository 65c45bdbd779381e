//! The stand-in for `k3s-agent` on one machine: it does to the API server what a kubelet does, with a kubelet's own
//! certificate, and runs nothing.
//!
//! ```text
//!  systemctl start ─▶ wanted ─▶ read the drop-ins, check the token ─▶ kubeconfig ─▶ register ─▶ Ready
//!                                    └── wrong: again, for ever         heartbeat · pods run · pods end gracefully
//!  systemctl stop ──▶ not wanted: it ends at once, its pods stay as they are
//! ```
//!
//! As with the real one (see the issue's facts): labels and taints act at registration alone; a running one does not
//! register again when its Node is deleted, a restarted one does.

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent, WatchParams,
};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use super::super::kubernetes::{Access, Identity, client_of, node};
use super::dropin::Configuration;

/// How long a pod takes to end once it is told to, in seconds (fractions allowed): annotation of the pod.
pub const ENDS_AFTER: &str = "rig.smartscale.io/ends-after";

const LOOK: Duration = Duration::from_millis(150);
/// How often a kubelet renews its lease (Kubernetes' own period).
const HEARTBEAT: Duration = Duration::from_secs(10);

/// What the stand-in knows of its machine.
#[derive(Debug, Clone)]
pub(super) struct Kubelet {
    pub(super) access: Access,
    /// Holds `wanted` (a file that is there while the unit is started) and `state`.
    pub(super) unit: PathBuf,
    pub(super) config_dir: PathBuf,
    pub(super) kubeconfig: PathBuf,
    pub(super) log: PathBuf,
    /// The one token that the server takes.
    pub(super) join_token: String,
    pub(super) ip: String,
    /// CPUs and MiB of memory that the instance type has.
    pub(super) size: (i32, i64),
    /// How long a pod without the annotation takes to end.
    pub(super) pod_end: Duration,
    /// Whether `/healthz` says so.
    pub(super) healthy: Arc<AtomicBool>,
}

impl Kubelet {
    /// Follows the unit's state until dropped.
    pub(super) async fn run(self) {
        loop {
            self.set_state("inactive");
            self.healthy.store(false, Ordering::Relaxed);
            while !self.is_wanted() {
                tokio::time::sleep(LOOK).await;
            }
            self.set_state("activating");
            tokio::select! {
                () = self.serve() => {}
                () = self.unwanted() => {}
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.unit.join("wanted").exists()
    }

    async fn unwanted(&self) {
        while self.is_wanted() {
            tokio::time::sleep(LOOK).await;
        }
    }

    fn set_state(&self, state: &str) {
        let part = self.unit.join("state.part");
        if let Err(error) =
            std::fs::write(&part, state).and_then(|()| std::fs::rename(&part, self.unit.join("state")))
        {
            self.say(&format!("cannot write the unit's state: {error}"));
        }
    }

    fn say(&self, text: &str) {
        use std::io::Write as _;
        let file = std::fs::File::options().create(true).append(true).open(&self.log);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{} {text}", jiff::Timestamp::now());
        }
    }

    async fn serve(&self) {
        let (client, name) = loop {
            match self.register().await {
                Ok(registered) => break registered,
                Err(error) => self.say(&format!("{error:#}")),
            }
            tokio::time::sleep(LOOK * 4).await;
        };
        self.set_state("active");
        self.healthy.store(true, Ordering::Relaxed);
        self.say(&format!("node {name} runs"));
        tokio::join!(self.heartbeat(&client, &name), self.pods(&client, &name));
    }

    async fn register(&self) -> anyhow::Result<(Client, String)> {
        let configuration = Configuration::read(&self.config_dir)?;
        let token_file = configuration.get("token-file")?;
        let token = std::fs::read_to_string(token_file).with_context(|| format!("read {token_file}"))?;
        configuration.get("server")?;
        if token.trim() != self.join_token {
            bail!("the server says: not authorized");
        }
        let name = configuration.get("node-name")?.to_owned();
        let issued = self.access.kubeconfig(&Identity::kubelet(&name))?;
        if let Some(parent) = self.kubeconfig.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        let part = self.kubeconfig.with_extension("part");
        std::fs::copy(&issued, &part).context("copy the kubeconfig")?;
        std::fs::rename(&part, &self.kubeconfig).context("put the kubeconfig in place")?;
        let client = client_of(&self.kubeconfig).await?;

        let (cpus, memory) = self.size;
        // What the system keeps: 7.5 % of the memory.
        let mut node = node(&name).allocatable(&cpus.to_string(), &format!("{}Mi", memory * 925 / 1000));
        for (key, value) in configuration.pairs("node-label") {
            node = node.label(key, value);
        }
        for (key, rest) in configuration.pairs("node-taint") {
            let (value, effect) = rest.split_once(':').unwrap_or(("", rest));
            node = node.taint(key, Some(value), effect);
        }
        let provider = configuration
            .pairs("kubelet-arg")
            .find(|(key, _)| *key == "provider-id");
        node = node.provider_id(provider.map_or(&format!("k3s://{name}"), |(_, value)| value));
        match Api::<Node>::all(client.clone())
            .create(&PostParams::default(), &node.build())
            .await
        {
            Ok(_) => self.say("registered"),
            Err(kube::Error::Api(status)) if status.code == 409 => self.say("is registered already"),
            Err(error) => return Err(error).context("register the node"),
        }
        self.ready(&client, &name).await?;
        Ok((client, name))
    }

    async fn ready(&self, client: &Client, name: &str) -> anyhow::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "message": "", "lastHeartbeatTime": now, "lastTransitionTime": now});
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": self.ip}, {"type": "Hostname", "address": name}],
            "conditions": [
                condition("Ready", "True", "KubeletReady"),
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            ],
        }});
        let nodes = Api::<Node>::all(client.clone());
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(status))
            .await
            .context("say Ready")?;
        Ok(())
    }

    async fn heartbeat(&self, client: &Client, name: &str) {
        let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
        loop {
            let renewed = json!({"spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": 40,
                "renewTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            }});
            let merged = leases
                .patch(name, &PatchParams::default(), &Patch::Merge(&renewed))
                .await;
            if let Err(kube::Error::Api(status)) = &merged
                && status.code == 404
            {
                let mut lease = renewed;
                lease["metadata"] = json!({"name": name});
                if let Ok(lease) = serde_json::from_value::<Lease>(lease) {
                    // The next heartbeat tries again.
                    let _ = leases.create(&PostParams::default(), &lease).await;
                }
            }
            if let Err(error) = self.ready(client, name).await {
                // A deleted Node is not registered again by a running kubelet.
                self.say(&format!("heartbeat: {error:#}"));
            }
            tokio::time::sleep(HEARTBEAT).await;
        }
    }

    async fn pods(&self, client: &Client, name: &str) {
        loop {
            if let Err(error) = self.follow_pods(client, name).await {
                self.say(&format!("pods: {error:#}"));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Lists its pods and watches them from there on, as the real one does: what a rig of many machines can afford.
    async fn follow_pods(&self, client: &Client, name: &str) -> anyhow::Result<()> {
        let all = Api::<Pod>::all(client.clone());
        let own = format!("spec.nodeName={name}");
        let listed = all
            .list(&ListParams::default().fields(&own))
            .await
            .context("list them")?;
        let from = listed.metadata.resource_version.unwrap_or_default();
        let changes = all
            .watch(&WatchParams::default().fields(&own), &from)
            .await
            .context("watch them")?;
        let mut changes = pin!(changes);
        let mut ending = HashMap::<String, (Pod, Instant)>::new();
        for pod in listed.items {
            self.take(client, pod, &mut ending).await;
        }
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                change = changes.next() => match change.context("the watch ended")?? {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => self.take(client, pod, &mut ending).await,
                    WatchEvent::Deleted(pod) => {
                        ending.remove(&pod.metadata.uid.unwrap_or_default());
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => bail!("the watch says {}", status.message),
                },
                _ = look.tick(), if !ending.is_empty() => {
                    for (pod, since) in ending.values() {
                        self.tell(pod, self.end_when_due(client, pod, *since).await);
                    }
                }
            }
        }
    }

    /// Takes a pod as it is now: one that was not run yet runs, one that is to end will.
    async fn take(&self, client: &Client, pod: Pod, ending: &mut HashMap<String, (Pod, Instant)>) {
        if pod.metadata.deletion_timestamp.is_some() {
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let since = ending.get(&uid).map_or_else(Instant::now, |(_, since)| *since);
            ending.insert(uid, (pod, since));
        } else {
            self.tell(&pod, self.run_pod(client, &pod).await);
        }
    }

    fn tell(&self, pod: &Pod, outcome: anyhow::Result<()>) {
        if let Err(error) = outcome {
            self.say(&format!("pod {:?}: {error:#}", pod.metadata.name));
        }
    }

    async fn run_pod(&self, client: &Client, pod: &Pod) -> anyhow::Result<()> {
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or("Pending");
        if phase == "Pending" {
            let (pods, name) = place(client, pod)?;
            let patch = Patch::Merge(running(pod, &self.ip));
            pods.patch_status(name, &PatchParams::default(), &patch)
                .await
                .context("run it")?;
        }
        Ok(())
    }

    async fn end_when_due(&self, client: &Client, pod: &Pod, since: Instant) -> anyhow::Result<()> {
        let metadata = &pod.metadata;
        let asked = metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(ENDS_AFTER)?.parse().ok());
        let asked = asked
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .unwrap_or(self.pod_end);
        let grace = u64::try_from(metadata.deletion_grace_period_seconds.unwrap_or(0)).unwrap_or(0);
        if since.elapsed() < asked.min(Duration::from_secs(grace)) {
            return Ok(());
        }
        let (pods, name) = place(client, pod)?;
        let mut now = DeleteParams::default().grace_period(0);
        now.preconditions = Some(Preconditions {
            uid: metadata.uid.clone(),
            resource_version: None,
        });
        match pods.delete(name, &now).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error).context("end it"),
        }
    }
}

/// Where a pod is changed, and its name there.
fn place<'a>(client: &Client, pod: &'a Pod) -> anyhow::Result<(Api<Pod>, &'a str)> {
    let name = pod.metadata.name.as_deref().context("a pod without name")?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    Ok((Api::namespaced(client.clone(), namespace), name))
}

/// The status of a pod whose containers all run.
fn running(pod: &Pod, ip: &str) -> Value {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let containers: Vec<_> = pod.spec.iter().flat_map(|spec| &spec.containers).collect();
    let statuses: Vec<_> = containers
        .iter()
        .map(|container| {
            json!({
                "name": container.name,
                "image": container.image.as_deref().unwrap_or(""),
                "imageID": "",
                "ready": true,
                "restartCount": 0,
                "started": true,
                "state": {"running": {"startedAt": now}},
            })
        })
        .collect();
    let conditions: Vec<_> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .iter()
        .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now}))
        .collect();
    json!({"status": {
        "phase": "Running",
        "hostIP": ip,
        "podIP": ip,
        "startTime": now,
        "conditions": conditions,
        "containerStatuses": statuses,
    }})
}
