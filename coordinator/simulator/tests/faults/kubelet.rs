//! The API server as an agent's drain reaches it, with the credential of its kubelet. Reads always arrive: what a drain does
//! is what goes wrong.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use smartscale_agent::kubelet::{KubeletApi, OwnNode, OwnPod, Refusal};
use smartscale_planner::model::PodKey;
use smartscale_simulator::cluster::{Cluster, node_api::NodeApi};

use crate::{
    doors::{Door, Fails, at_once},
    ledger::Ledger,
};

impl Fails for Refusal {
    fn before() -> Self {
        Self::Unavailable("cut".to_owned())
    }
    fn unknown() -> Self {
        Self::Unavailable("no answer".to_owned())
    }
}

/// The API server as the agent of a machine reaches it.
pub(crate) struct Kubelet {
    pub(crate) door: Door,
    pub(crate) cluster: Cluster,
    pub(crate) ledger: Arc<Ledger>,
}

impl Kubelet {
    /// The API with the credential of this machine's kubelet.
    fn api(&self) -> NodeApi {
        self.cluster.kubelet_api(&self.door.name)
    }
}

#[async_trait]
impl KubeletApi for Kubelet {
    async fn node(&self, node: &str) -> Result<OwnNode, Refusal> {
        self.api().node(node).await
    }

    async fn cordon(&self, node: &str, operation: &str) -> Result<(), Refusal> {
        let (api, ledger, name) = (self.api(), Arc::clone(&self.ledger), self.door.name.clone());
        let (node, operation) = (node.to_owned(), operation.to_owned());
        self.door
            .call("cordon".to_owned(), true, move || {
                ledger.note(format_args!("{name} cordon for {operation}"));
                at_once(api.cordon(&node, &operation))
            })
            .await
    }

    async fn uncordon(&self, node: &str) -> Result<(), Refusal> {
        let (api, ledger, node) = (self.api(), Arc::clone(&self.ledger), node.to_owned());
        self.door
            .call("uncordon".to_owned(), true, move || {
                ledger.note(format_args!("{node} uncordon"));
                let done = at_once(api.uncordon(&node));
                ledger.uncordoned(&node.as_str().into());
                done
            })
            .await
    }

    async fn prove(&self, node: &str, uid: &str, nonce: &str) -> Result<(), Refusal> {
        let (api, node) = (self.api(), node.to_owned());
        let (uid, nonce) = (uid.to_owned(), nonce.to_owned());
        self.door
            .call("prove".to_owned(), true, move || {
                at_once(api.prove(&node, &uid, &nonce))
            })
            .await
    }

    async fn pods(&self, node: &str) -> Result<Vec<OwnPod>, Refusal> {
        self.api().pods(node).await
    }

    async fn pod(&self, key: &PodKey) -> Result<Option<OwnPod>, Refusal> {
        self.api().pod(key).await
    }

    async fn evict(&self, key: &PodKey, uid: &str, grace: Option<Duration>) -> Result<(), Refusal> {
        let (api, ledger, name) = (self.api(), Arc::clone(&self.ledger), self.door.name.clone());
        let (key, uid) = (key.clone(), uid.to_owned());
        self.door
            .call("evict".to_owned(), true, move || {
                ledger.evicting(&key);
                let done = at_once(api.evict(&key, &uid, grace));
                ledger.note(format_args!("{name} evict {key}: {done:?}"));
                done
            })
            .await
    }

    async fn delete(&self, key: &PodKey, uid: &str, grace: Duration) -> Result<(), Refusal> {
        let (api, ledger, name) = (self.api(), Arc::clone(&self.ledger), self.door.name.clone());
        let (key, uid) = (key.clone(), uid.to_owned());
        self.door
            .call("delete pod".to_owned(), true, move || {
                ledger.note(format_args!("{name} delete pod {key}"));
                ledger.deleting_pod(&key);
                at_once(api.delete(&key, &uid, grace))
            })
            .await
    }
}
