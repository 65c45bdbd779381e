//! The policy at the start: read from its file, or waited for at its ConfigMap.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use sd_notify::NotifyState;
use smartscale_coordinator::{
    config::Config,
    ids::CoordinatorName,
    kubernetes::{api::Api, client, clock::ClusterClock, events::Events, policy::PolicyMap},
    policy::{self, ConfigMapName, Judged, Origin, Policies, PolicyFile, Refusal},
    tell::Notifier as _,
};
use smartscale_proto::time::{Clock as _, SharedClock, SystemClock};

/// A ConfigMap without a policy is looked at so often.
const LOOK: Duration = Duration::from_secs(5);
/// systemd is told at each look that the start takes so much longer, in microseconds. A call takes 15 s at most.
const LONGER: u32 = 60_000_000;

/// The way to the Kubernetes API, and the clock that follows its server's.
pub(super) struct Cluster {
    pub(super) client: kube::Client,
    pub(super) clock: Arc<ClusterClock>,
}

impl Cluster {
    pub(super) async fn connect(config: &Config) -> anyhow::Result<Self> {
        let clock = Arc::new(ClusterClock::new(Arc::new(SystemClock)));
        let settings = client::Settings {
            kubeconfig: config.kubeconfig.clone(),
            ..Default::default()
        };
        let client = client::connect(&settings, &clock)
            .await
            .context("the Kubernetes API")?;
        Ok(Self { client, clock })
    }

    pub(super) fn api(&self) -> Api {
        let clock: SharedClock = Arc::clone(&self.clock) as _;
        Api::new(self.client.clone(), clock)
    }
}

/// Where the policy lies; `None`: in a cluster that there is no way to.
pub(super) fn place(config: &Config, cluster: Option<&Cluster>) -> Option<Arc<dyn Policies>> {
    match &config.policy {
        Origin::File(path) => Some(Arc::new(PolicyFile(path.clone()))),
        Origin::ConfigMap(name) => Some(Arc::new(PolicyMap::new(cluster?.api(), name.clone()))),
    }
}

/// The policy as it is now.
pub(super) async fn read(config: &Config) -> anyhow::Result<Judged> {
    let cluster = match &config.policy {
        Origin::File(_) => None,
        Origin::ConfigMap(_) => Some(Cluster::connect(config).await?),
    };
    let place = place(config, cluster.as_ref()).context("there is no way to the cluster")?;
    let offer = place.look().await.map_err(anyhow::Error::msg);
    let judged = offer.and_then(|offer| Ok(offer.judge(None)?));
    judged.with_context(|| config.policy.to_string())
}

/// Waits until the ConfigMap has a policy that holds: until then there is no cluster to serve. Why it has none is logged, shown
/// by `systemctl status`, and told at the ConfigMap.
pub(super) async fn awaited(
    name: &ConfigMapName,
    coordinator: &CoordinatorName,
    cluster: &Cluster,
) -> Judged {
    let origin = Origin::ConfigMap(name.clone());
    let map = PolicyMap::new(cluster.api(), name.clone());
    let events = Events::new(cluster.client.clone(), coordinator.to_string());
    let mut before = None;
    loop {
        let (offer, uid) = match map.look().await {
            Ok(offer) => (offer.judge(None), offer.uid),
            Err(why) => (Err(Refusal::Missing(why)), None),
        };
        let refusal = match offer {
            Ok(judged) => return judged,
            Err(refusal) => refusal,
        };
        let waits = Some((&refusal, "the coordinator waits for one"));
        let happening = policy::happening(&origin, uid, waits, cluster.clock.now());
        if before.as_ref() != Some(&refusal) {
            tracing::warn!("{}", happening.message);
            if let Err(error) = events.notify(&happening).await {
                tracing::warn!(%error, "no Kubernetes event could be written");
            }
        }
        let _ = sd_notify::notify(&[
            NotifyState::Status(&happening.message),
            NotifyState::ExtendTimeoutUsec(LONGER),
        ]);
        before = Some(refusal);
        cluster.clock.sleep(LOOK).await;
    }
}
