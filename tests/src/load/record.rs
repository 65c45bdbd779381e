//! One loop that lets pods into the shop, scales them, tells how busy the nodes are, and keeps what it sees.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;

use super::scaler::Rule;
use super::shop::{Counts, POD_CPU, Shop};
use crate::site::{Site, node_of, phase};

/// Between two looks at the pods.
const LOOK: Duration = Duration::from_millis(500);
/// Between two looks at the use, after which replicas are reckoned.
const SCALE: Duration = Duration::from_secs(2);
/// CPUs of a node.
const NODE_CPU: f64 = 2.0;
/// What a node uses without pods, of its CPU, and of its memory however many there are.
const IDLE_CPU: f64 = 0.02;
const MEMORY: f64 = 0.3;

/// What was seen at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sight {
    /// Since the start.
    pub(super) at: Duration,
    /// Pods that serve.
    pub(super) serving: u32,
    /// Pods without a node.
    pub(super) pending: u32,
    /// Nodes that are Ready.
    pub(super) nodes: u32,
    /// What the machines cost.
    pub(super) usd_per_hour: f64,
    /// What has come up to now.
    pub(super) counts: Counts,
}

/// The loop's state.
pub(super) struct Record<'a> {
    site: &'a Site,
    shop: &'a Shop,
    app: &'a str,
    rule: Rule,
    began: Instant,
    scaled: Instant,
    sights: Vec<Sight>,
}

impl<'a> Record<'a> {
    pub(super) fn new(site: &'a Site, shop: &'a Shop, app: &'a str, fewest: u32) -> Self {
        let now = Instant::now();
        Self {
            site,
            shop,
            app,
            rule: Rule::new(fewest),
            began: now,
            scaled: now,
            sights: Vec::new(),
        }
    }

    /// Since it began.
    pub(super) fn length(&self) -> Duration {
        self.began.elapsed()
    }

    /// All sights, in their order.
    pub(super) fn into_sights(self) -> Vec<Sight> {
        self.sights
    }

    /// One turn, which takes [`LOOK`].
    ///
    /// # Errors
    /// A server does not answer.
    pub(super) async fn look(&mut self) -> anyhow::Result<()> {
        let next = tokio::time::Instant::now() + LOOK;
        let serving = self.let_in().await?;
        if self.scaled.elapsed() >= SCALE {
            self.scaled = Instant::now();
            let used = self.shop.used();
            self.tell_nodes(&used);
            self.scale(&used).await?;
        }
        let status = self.site.ask(&["status"]).await?;
        let figure = |name: &str| -> anyhow::Result<u32> {
            let figure = status[name]
                .as_u64()
                .and_then(|figure| u32::try_from(figure).ok());
            figure.with_context(|| format!("status has no {name}: {status}"))
        };
        let sight = Sight {
            at: self.length(),
            serving,
            pending: figure("pods_pending")?,
            nodes: figure("nodes_ready")?,
            usd_per_hour: status["cost_per_hour"].as_f64().unwrap_or_default(),
            counts: self.shop.counts(),
        };
        self.sights.push(sight);
        tokio::time::sleep_until(next).await;
        Ok(())
    }

    /// Lets the pods that run into the shop, and those that end no more; how many there are.
    async fn let_in(&self) -> anyhow::Result<u32> {
        let labelled = ListParams::default().labels(&format!("app={}", self.app));
        let all = self.site.pods().list(&labelled).await?.items;
        let serving: Vec<_> = all.iter().filter(|pod| serves(pod)).filter_map(place).collect();
        self.shop.pods(serving.iter().copied());
        u32::try_from(serving.len()).context("a number of pods")
    }

    /// Lets agents and Prometheus say how busy the nodes are.
    fn tell_nodes(&self, used: &[(String, f64)]) {
        let machines = &self.site.stack.machines;
        let mut busy: BTreeMap<String, f64> = machines.ids().into_iter().map(|id| (id, 0.0)).collect();
        for (node, cpu) in used {
            if let Some(busy) = busy.get_mut(node) {
                *busy += cpu;
            }
        }
        for (node, cpu) in busy {
            let cpu = (cpu / NODE_CPU + IDLE_CPU).min(1.0);
            self.site.stack.prometheus.figures().node(&node, cpu, MEMORY);
            // One that has ended since has nobody to tell.
            let _ = machines.with(&node, |machine| machine.busy(cpu, MEMORY));
        }
    }

    async fn scale(&mut self, used: &[(String, f64)]) -> anyhow::Result<()> {
        let deployments: Api<Deployment> = Api::default_namespaced(self.site.stack.cluster.client());
        let there = deployments.get(self.app).await?;
        let replicas = there.spec.and_then(|spec| spec.replicas).context("no replicas")?;
        let replicas = u32::try_from(replicas).context("replicas")?;
        let used: Vec<f64> = used.iter().map(|(_, cpu)| cpu / POD_CPU).collect();
        let wanted = self.rule.wanted(replicas, &used, Instant::now());
        if wanted != replicas {
            let patch = Patch::Merge(json!({"spec": {"replicas": wanted}}));
            deployments
                .patch(self.app, &PatchParams::default(), &patch)
                .await?;
        }
        Ok(())
    }
}

fn serves(pod: &Pod) -> bool {
    phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none()
}

fn place(pod: &Pod) -> Option<(&str, &str)> {
    Some((pod.metadata.name.as_deref()?, node_of(pod)?))
}
