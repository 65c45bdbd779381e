#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{sync::Arc, time::Duration};

use smartscale_agent::kubelet::{KubeletApi as _, Refusal};
use smartscale_coordinator::act::nodes::{Eviction, Nodes as _, Priced};
use smartscale_planner::{
    fixtures,
    model::{Bytes, MilliCpu, PodKey, Resources, TaintEffect},
};
use smartscale_proto::time::Clock as _;

use super::{Bound, Budget, Cluster, Deployment, Template, evicted};
use crate::{clock::ScaledClock, log::Log, seed::Seed};

struct World {
    clock: Arc<ScaledClock>,
    cluster: Cluster,
}

impl World {
    fn new(nodes: &[&str]) -> Self {
        let clock = ScaledClock::new("2026-01-05T09:00:00Z".parse().unwrap(), 1.0).unwrap();
        let log = Log::new(clock.clone());
        let cluster = Cluster::new(clock.clone(), log, Seed(1));
        for name in nodes {
            cluster.register(fixtures::node(name).build(), Duration::ZERO);
        }
        Self { clock, cluster }
    }

    /// Lets `seconds` pass, a step each second.
    async fn pass(&self, seconds: u64) {
        for _ in 0..seconds {
            self.cluster.step();
            self.clock.advance(Duration::from_secs(1)).await;
        }
        self.cluster.step();
    }

    fn deploy(&self, name: &str, replicas: u32, cpu: i64) {
        let requests = Resources {
            cpu: MilliCpu(cpu),
            memory: Bytes(64 << 20),
            ..Resources::default()
        };
        self.cluster.apply_deployment(Deployment::new(
            "default",
            name,
            replicas,
            Template::new(requests),
        ));
    }

    fn budget(&self, app: &str, bound: Bound) {
        self.cluster.apply_budget(Budget::new("default", app, app, bound));
    }

    fn on(&self, node: &str) -> usize {
        self.cluster
            .model()
            .pods
            .iter()
            .filter(|pod| pod.node.as_ref().is_some_and(|at| at.as_str() == node))
            .count()
    }

    fn ready(&self) -> usize {
        self.cluster
            .model()
            .pods
            .iter()
            .filter(|pod| pod.ready && !pod.is_terminating())
            .count()
    }

    fn evict(&self, name: &str) -> Result<(), super::EvictionRefused> {
        evicted(&self.cluster, &PodKey::new("default", name), None)
    }
}

#[tokio::test]
async fn pods_are_spread_over_the_least_allocated_nodes_and_the_rest_stays_pending() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 10, 450);
    world.pass(10).await;
    assert_eq!((world.on("a"), world.on("b"), world.cluster.pending()), (4, 4, 2));
    assert_eq!(world.ready(), 8);
}

#[tokio::test]
async fn a_cordoned_a_tainted_and_an_unready_node_take_no_pods() {
    let world = World::new(&[]);
    world
        .cluster
        .register(fixtures::node("cordoned").cordoned().build(), Duration::ZERO);
    world.cluster.register(
        fixtures::node("tainted")
            .taint("a", TaintEffect::NoSchedule)
            .build(),
        Duration::ZERO,
    );
    world
        .cluster
        .register(fixtures::node("young").build(), Duration::from_secs(30));
    world.deploy("web", 1, 100);
    world.pass(20).await;
    assert_eq!(world.cluster.pending(), 1);
    world.pass(20).await;
    assert_eq!(world.on("young"), 1);
}

#[tokio::test]
async fn a_budget_allows_what_the_disruption_controller_would() {
    for (bound, allowed) in [
        (Bound::MinAvailable(3), 1),
        (Bound::MaxUnavailable(2), 2),
        (Bound::MinAvailablePercent(60), 1),
        (Bound::MaxUnavailablePercent(30), 2),
        (Bound::MinAvailable(4), 0),
        (Bound::MaxUnavailable(0), 0),
    ] {
        let world = World::new(&["a"]);
        world.deploy("web", 4, 100);
        world.budget("web", bound);
        world.pass(10).await;
        assert_eq!(
            world.cluster.model().disruption_budgets[0].disruptions_allowed,
            allowed,
            "{bound:?}"
        );
    }
}

#[tokio::test]
async fn a_budget_lets_one_pod_go_after_the_other() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 4, 100);
    world.budget("web", Bound::MaxUnavailable(1));
    world.pass(10).await;
    assert_eq!(world.evict("web-01"), Ok(()));
    // The controller has not looked yet: the API server's own count must refuse.
    assert!(matches!(
        world.evict("web-02"),
        Err(super::EvictionRefused::Budget(_))
    ));
    // The same pod again is terminating and spends nothing.
    assert_eq!(world.evict("web-01"), Ok(()));
    world.pass(3).await;
    assert!(matches!(
        world.evict("web-02"),
        Err(super::EvictionRefused::Budget(_))
    ));
    world.pass(6).await;
    assert_eq!(world.evict("web-02"), Ok(()), "the replacement is Ready");
}

#[tokio::test]
async fn a_pod_under_two_budgets_is_never_evicted() {
    let world = World::new(&["a"]);
    world.deploy("web", 2, 100);
    world.budget("web", Bound::MaxUnavailable(1));
    world
        .cluster
        .apply_budget(Budget::new("default", "also", "web", Bound::MaxUnavailable(1)));
    world.pass(10).await;
    assert_eq!(
        world.evict("web-01"),
        Err(super::EvictionRefused::MultipleBudgets)
    );
}

#[tokio::test]
async fn an_eviction_refused_for_its_uid_has_spent_the_budget_for_two_minutes() {
    let world = World::new(&["a"]);
    world.deploy("web", 2, 100);
    world.budget("web", Bound::MaxUnavailable(1));
    world.pass(10).await;
    let key = PodKey::new("default", "web-01");
    assert_eq!(
        evicted(&world.cluster, &key, Some("another")),
        Err(super::EvictionRefused::OtherUid)
    );
    world.pass(110).await;
    assert!(matches!(
        world.evict("web-02"),
        Err(super::EvictionRefused::Budget(_))
    ));
    world.pass(15).await;
    assert_eq!(world.evict("web-02"), Ok(()));
}

#[tokio::test]
async fn an_evicted_pod_ends_gracefully_and_its_replacement_comes_at_once() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 1, 100);
    world.pass(10).await;
    world.evict("web-01").unwrap();
    world.pass(2).await;
    let pods = world.cluster.model().pods;
    assert!(
        pods.iter()
            .any(|pod| &*pod.key.name == "web-01" && pod.is_terminating())
    );
    assert!(
        pods.iter()
            .any(|pod| &*pod.key.name == "web-02" && pod.node.is_some())
    );
    world.pass(8).await;
    assert_eq!(world.cluster.model().pods.len(), 1);
}

#[tokio::test]
async fn a_silent_kubelet_makes_its_node_not_ready_and_its_pods_stay_until_the_node_is_deleted() {
    let world = World::new(&["a"]);
    world.deploy("web", 1, 100);
    world.pass(10).await;
    world.cluster.stop_kubelet("a");
    world.pass(35).await;
    assert!(world.cluster.model().nodes[0].ready);
    world.pass(15).await;
    assert!(!world.cluster.model().nodes[0].ready);
    assert_eq!(world.on("a"), 1);
    world.cluster.delete(&"a".into()).await.unwrap();
    world.pass(60).await;
    assert_eq!((world.on("a"), world.cluster.pending()), (0, 1));
}

#[tokio::test]
async fn a_smaller_number_of_replicas_ends_pending_pods_first_and_crowded_ones_next() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 9, 450);
    world.pass(10).await;
    assert_eq!(world.cluster.pending(), 1);
    world.cluster.scale(&[("web", 6)]);
    world.pass(15).await;
    assert_eq!((world.on("a"), world.on("b"), world.cluster.pending()), (3, 3, 0));
}

#[tokio::test]
async fn a_scale_in_ends_the_pods_of_the_lowest_deletion_cost_though_another_node_is_more_crowded() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 9, 400);
    world.pass(10).await;
    let steered = world.cluster.pods(&"a".into()).await.unwrap();
    for pod in &steered {
        let price = async |uid: &str, cost| world.cluster.price(&pod.key, uid, cost).await;
        assert_eq!(price("another", Some(-90)).await, Ok(Priced::Gone));
        assert_eq!(price(&pod.uid, Some(-90)).await, Ok(Priced::Written));
        assert_eq!(price(&pod.uid, Some(-90)).await, Ok(Priced::Left));
    }
    assert_eq!(world.cluster.objects().deletion_costs().count(), steered.len());
    let (on_a, on_b) = (u32::try_from(world.on("a")).unwrap(), world.on("b"));
    world.cluster.scale(&[("web", 9 - on_a)]);
    world.pass(15).await;
    assert_eq!((world.on("a"), world.on("b")), (0, on_b));
}

#[tokio::test]
async fn a_coordinator_that_evicts_by_itself_is_told_what_an_api_server_would_tell() {
    let world = World::new(&["a"]);
    world.deploy("web", 2, 100);
    world.budget("web", Bound::MaxUnavailable(1));
    world.pass(10).await;
    let pods = world.cluster.pods(&"a".into()).await.unwrap();
    assert!(pods.iter().all(|pod| pod.must_leave && !pod.terminating));
    assert_eq!(world.cluster.evict(&pods[0]).await, Ok(Eviction::Accepted));
    assert_eq!(world.cluster.evict(&pods[1]).await, Ok(Eviction::Budget));
    world.pass(15).await;
    assert_eq!(world.cluster.evict(&pods[0]).await, Ok(Eviction::Gone));
}

#[tokio::test]
async fn what_a_coordinator_reads_is_what_the_cluster_holds() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 8, 300);
    world.budget("web", Bound::MaxUnavailable(1));
    world.pass(10).await;
    world.evict("web-01").unwrap();
    world.pass(1).await;
    let (mut read, bad) = world.cluster.objects().to_cluster(world.clock.now());
    read.sort();
    assert_eq!(bad, []);
    let held = world.cluster.model();
    assert_eq!(read.nodes, held.nodes);
    assert_eq!(read.pods, held.pods);
    assert_eq!(read.disruption_budgets, held.disruption_budgets);
}

#[tokio::test]
async fn a_kubelets_credential_reaches_its_own_node_and_pods_and_no_others() {
    let world = World::new(&["a", "b"]);
    world.deploy("web", 2, 450);
    world.pass(10).await;
    let api = world.cluster.kubelet_api("a");
    let own = api.pods("a").await.unwrap();
    assert_eq!(own.len(), 1);
    assert!(matches!(api.pods("b").await, Err(Refusal::Refused(_))));
    assert!(matches!(api.cordon("b", "op").await, Err(Refusal::Refused(_))));
    let other = world
        .cluster
        .kubelet_api("b")
        .pods("b")
        .await
        .unwrap()
        .remove(0)
        .pod;
    assert!(matches!(
        api.evict(&other.key, &other.uid, None).await,
        Err(Refusal::Refused(_))
    ));
    api.cordon("a", "op-1").await.unwrap();
    let node = api.node("a").await.unwrap();
    assert_eq!(
        (node.unschedulable, node.cordoned_by.as_deref()),
        (true, Some("op-1"))
    );
    assert_eq!(
        api.evict(&own[0].pod.key, "another", None).await,
        Err(Refusal::OtherUid)
    );
    assert_eq!(api.evict(&own[0].pod.key, &own[0].pod.uid, None).await, Ok(()));
}
