#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! Drains against the node in memory, on a clock that runs as fast as nothing happens.

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use jiff::SignedDuration;
use smartscale_planner::fixtures;
use smartscale_proto::time::Clock;
use tokio::time::Instant;

use super::{
    state::{Cordon, PodStage},
    *,
};
use crate::{
    embedded::{Call, EmbeddedKubelet, MemoryFolder, Verb},
    kubelet::{OwnNode, OwnPod, Refusal},
};

/// Tokio's paused time as a clock.
struct Paused(Instant);

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(1000) + self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

struct World {
    clock: SharedClock,
    kubelet: Arc<EmbeddedKubelet>,
    folder: Arc<MemoryFolder>,
}

const NODE: &str = "i-1";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn own(builder: impl Into<smartscale_planner::model::Pod>, uid: &str) -> OwnPod {
    let mut pod = builder.into();
    pod.uid = uid.into();
    OwnPod {
        pod,
        grace: seconds(30),
    }
}

impl World {
    fn new() -> Self {
        let clock: SharedClock = Arc::new(Paused(Instant::now()));
        let kubelet = Arc::new(EmbeddedKubelet::new(Arc::clone(&clock)));
        Self {
            clock,
            kubelet,
            folder: Arc::default(),
        }
    }

    /// A pod of a ReplicaSet that ends two seconds after it was told to.
    fn pod(&self, key: &str, priority: i32) {
        self.pod_that_ends(key, priority, Some(seconds(2)));
    }

    fn pod_that_ends(&self, key: &str, priority: i32, ends_in: Option<Duration>) {
        let mut pod = own(
            fixtures::pod(key).on(NODE).owned_by("ReplicaSet", "web").build(),
            &format!("uid-{key}"),
        );
        pod.pod.priority = priority;
        self.kubelet.add(pod, ends_in);
    }

    fn tools(&self, folder: Arc<dyn StateFolder>) -> Tools {
        Tools {
            api: Arc::<EmbeddedKubelet>::clone(&self.kubelet),
            outbox: Outbox::new(Arc::<MemoryFolder>::clone(&self.folder), Arc::clone(&self.clock)),
            folder,
            clock: Arc::clone(&self.clock),
            boot_id: "boot-1".into(),
            settings: Settings::default(),
        }
    }

    fn order(&self, operation: &str, timeout: u64, on_timeout: OnTimeout) -> Order {
        Order {
            operation: operation.into(),
            node: NODE.into(),
            timeout: seconds(timeout),
            on_timeout,
            reason: "test".into(),
            taken_at: None,
            local_storage: LocalStorage::Evict,
        }
    }

    /// Drains to the end.
    async fn drain(&self, order: Order) -> DrainState {
        let (drainer, engine) = engine(self.tools(Arc::<MemoryFolder>::clone(&self.folder)));
        drainer.order(order).await;
        finish(&drainer, engine, "").await
    }

    fn evictions(&self, key: &str) -> (usize, usize) {
        let calls = self.kubelet.calls();
        let of = |accepted: bool| {
            calls
                .iter()
                .filter(|call| **call == Call::Evict(key.parse().unwrap(), accepted))
                .count()
        };
        (of(true), of(false))
    }
}

/// Runs the engine until a drain (of this operation, if one is named) is finished.
async fn finish(drainer: &Drainer, engine: Engine, operation: &str) -> DrainState {
    let mut state = drainer.state();
    let finished = |state: &Option<Arc<DrainState>>| {
        state.as_ref().is_some_and(|state| {
            state.stage.is_finished()
                && (operation.is_empty() || state.operations.iter().any(|own| own == operation))
        })
    };
    tokio::select! {
        () = engine.run() => panic!("the engine ended"),
        state = state.wait_for(finished) => DrainState::clone(state.unwrap().as_ref().unwrap()),
        () = tokio::time::sleep(seconds(36_000)) => panic!("the drain does not end"),
    }
}

fn stage(state: &DrainState, key: &str) -> PodStage {
    state
        .pods
        .iter()
        .find(|pod| pod.key.to_string() == key)
        .unwrap()
        .stage
}

#[tokio::test(start_paused = true)]
async fn a_node_is_cordoned_then_its_pods_leave_and_what_stays_by_nature_is_left_alone() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.add(
        own(fixtures::pod("default/bare").on(NODE).bare().build(), "u-bare"),
        Some(seconds(1)),
    );
    world.kubelet.add(
        own(
            fixtures::pod("kube-system/ds")
                .on(NODE)
                .owned_by("DaemonSet", "ds")
                .build(),
            "u-ds",
        ),
        None,
    );
    let mirror = fixtures::pod("kube-system/static")
        .on(NODE)
        .annotation("kubernetes.io/config.mirror", "x")
        .build();
    world.kubelet.add(own(mirror, "u-static"), None);
    let done = world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    assert_eq!(done.stage, Stage::Drained);
    assert_eq!(world.kubelet.calls()[0], Call::Cordon);
    let mut left: Vec<String> = world.kubelet.present().iter().map(ToString::to_string).collect();
    left.sort();
    assert_eq!(left, ["kube-system/ds", "kube-system/static"]);
    assert_eq!(done.pods.len(), 2);
    assert!(
        done.pods
            .iter()
            .all(|pod| pod.evictions == 1 && pod.evicted_at.is_some() && pod.gone_at.is_some())
    );
    let node = world.kubelet.present_node().unwrap();
    assert_eq!(
        (node.unschedulable, node.cordoned_by.as_deref()),
        (true, Some("op-1"))
    );
}

#[tokio::test(start_paused = true)]
async fn tiers_leave_one_after_the_other_and_all_pods_of_a_tier_at_once() {
    let world = World::new();
    for key in ["kube-system/dns", "default/a", "default/b"] {
        world.pod(
            key,
            if key.starts_with("kube-system") {
                2_000_000_000
            } else {
                0
            },
        );
    }
    let done = world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    let record = |key: &str| done.pods.iter().find(|pod| pod.key.to_string() == key).unwrap();
    assert_eq!(record("default/a").evicted_at, record("default/b").evicted_at);
    assert!(record("kube-system/dns").evicted_at >= record("default/a").gone_at);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_says_no_is_asked_every_five_seconds_and_holds_nobody_else_up() {
    let world = World::new();
    world.pod("default/a", 0);
    world.pod("default/b", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 300, OnTimeout::Abort)).await;
    let open = async {
        tokio::time::sleep(seconds(22)).await;
        assert_eq!(world.evictions("default/a"), (0, 5));
        assert_eq!(world.kubelet.present().len(), 1, "the other pod is gone");
        let state = drainer.state().borrow().clone().unwrap();
        assert_eq!(stage(&state, "default/a"), PodStage::Budget);
        world.kubelet.budget("web", &["default/a"], 1);
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), open);
    assert_eq!(done.stage, Stage::Drained);
    assert_eq!(world.evictions("default/a"), (1, 5));
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_read_before_its_eviction_unless_it_was_listed_a_moment_ago() {
    let world = World::new();
    world.pod("default/a", 0);
    world.pod("default/b", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 300, OnTimeout::Abort)).await;
    let slow = async {
        tokio::time::sleep(seconds(2)).await;
        assert_eq!(world.evictions("default/b"), (1, 0));
        assert_eq!(world.kubelet.reads(), [], "both were in the list");
        let refused = Refusal::Unavailable("refused".into());
        world.kubelet.fail(Verb::List, None, refused, 100);
        tokio::time::sleep(seconds(4)).await;
        assert_eq!(world.kubelet.reads(), ["default/a".parse().unwrap()]);
        world.kubelet.budget("web", &["default/a"], 1);
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), slow);
    assert_eq!(
        stage(&done, "default/a"),
        PodStage::Terminating,
        "nobody can list it any more"
    );
}

#[tokio::test(start_paused = true)]
async fn two_budgets_are_reported_at_once_and_the_drain_is_given_up_at_its_deadline() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("one", &["default/a"], 5);
    world.kubelet.budget("two", &["default/a"], 5);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 60, OnTimeout::Abort)).await;
    let soon = async {
        tokio::time::sleep(seconds(1)).await;
        let state = drainer.state().borrow().clone().unwrap();
        assert!(
            state.pods[0].reason.starts_with("MultiplePdbs"),
            "{:?}",
            state.pods
        );
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), soon);
    assert_eq!(done.stage, Stage::Aborted);
    assert_eq!(stage(&done, "default/a"), PodStage::Stayed);
    assert!(done.pods[0].reason.starts_with("MultiplePdbs"));
    assert_eq!(world.evictions("default/a"), (0, 2), "tried slowly");
    assert!(!world.kubelet.present_node().unwrap().unschedulable, "uncordoned");
    assert_eq!(world.clock.elapsed(), seconds(1060));
}

#[tokio::test(start_paused = true)]
async fn throttling_server_errors_and_an_ending_namespace_are_ridden_out() {
    let world = World::new();
    for key in ["default/a", "default/b", "default/c", "default/d"] {
        world.pod(key, 0);
    }
    let fail = |verb, key, refusal, times| world.kubelet.fail(verb, key, refusal, times);
    fail(
        Verb::Evict,
        Some("default/a"),
        Refusal::Throttled {
            after: Some(seconds(3)),
        },
        3,
    );
    fail(
        Verb::Evict,
        Some("default/b"),
        Refusal::Unavailable("status 503".into()),
        4,
    );
    fail(Verb::Evict, Some("default/c"), Refusal::NamespaceTerminating, 2);
    fail(Verb::Evict, Some("default/d"), Refusal::NotFound, 1);
    fail(Verb::Node, None, Refusal::Unavailable("refused".into()), 2);
    fail(Verb::Cordon, None, Refusal::Unavailable("refused".into()), 2);
    fail(Verb::List, None, Refusal::Unavailable("refused".into()), 3);
    let done = world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    assert_eq!(done.stage, Stage::Drained, "{}", done.error);
    assert_eq!(world.evictions("default/a"), (1, 3));
    assert_eq!(world.evictions("default/b"), (1, 4));
    assert_eq!(world.evictions("default/c"), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_persons_cordon_is_never_lifted() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    world.kubelet.set_node(Some(OwnNode {
        unschedulable: true,
        cordoned_by: None,
        ready: true,
    }));
    let done = world.drain(world.order("op-1", 20, OnTimeout::Abort)).await;
    assert_eq!((done.stage, done.cordon), (Stage::Aborted, Cordon::Foreign));
    assert!(world.kubelet.present_node().unwrap().unschedulable);
    assert!(!world.kubelet.calls().contains(&Call::Uncordon));
}

#[tokio::test(start_paused = true)]
async fn an_uncordon_that_fails_is_tried_until_it_succeeds() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 20, OnTimeout::Abort)).await;
    let trouble = async {
        tokio::time::sleep(seconds(10)).await;
        world
            .kubelet
            .fail(Verb::Cordon, None, Refusal::Unavailable("refused".into()), 20);
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), trouble);
    assert_eq!(done.stage, Stage::Aborted);
    assert!(!world.kubelet.present_node().unwrap().unschedulable);
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_of_a_forced_drain_the_rest_is_deleted_with_the_grace_that_is_left() {
    let world = World::new();
    world.pod("default/blocked", 0);
    world.kubelet.budget("web", &["default/blocked"], 0);
    let mut stubborn = own(fixtures::pod("default/stubborn").on(NODE).build(), "u-stubborn");
    stubborn.grace = seconds(3600);
    world.kubelet.add(stubborn, None);
    // Somebody else told it to go, with all of its grace.
    world
        .kubelet
        .evict(&"default/stubborn".parse().unwrap(), "u-stubborn", None)
        .await
        .unwrap();
    let done = world.drain(world.order("op-1", 60, OnTimeout::Force)).await;
    assert_eq!(done.stage, Stage::Drained, "{}", done.error);
    assert_eq!(stage(&done, "default/blocked"), PodStage::Forced);
    assert_eq!(stage(&done, "default/stubborn"), PodStage::Forced);
    let calls = world.kubelet.calls();
    for key in ["default/blocked", "default/stubborn"] {
        assert!(
            calls.contains(&Call::Delete(key.parse().unwrap(), seconds(30))),
            "{calls:?}"
        );
    }
    assert!(world.kubelet.present_node().unwrap().unschedulable);
}

#[tokio::test(start_paused = true)]
async fn in_a_forced_drain_a_pod_is_told_at_once_how_long_it_has() {
    let world = World::new();
    let mut long = own(
        fixtures::pod("default/long")
            .on(NODE)
            .owned_by("ReplicaSet", "web")
            .build(),
        "u-long",
    );
    long.grace = seconds(3600);
    world.kubelet.add(long, None);
    let done = world.drain(world.order("op-1", 60, OnTimeout::Force)).await;
    assert_eq!(done.stage, Stage::Drained, "{}", done.error);
    assert_eq!(stage(&done, "default/long"), PodStage::Gone);
    assert_eq!(world.evictions("default/long"), (1, 0));
    assert!(
        !world
            .kubelet
            .calls()
            .iter()
            .any(|call| matches!(call, Call::Delete(..)))
    );
    assert!(world.clock.elapsed() <= seconds(1000 + 60 + 30 + 2));
}

#[tokio::test(start_paused = true)]
async fn every_pod_has_ended_before_ec2_takes_the_machine_and_the_kubelet_has_its_time() {
    let world = World::new();
    let mut long = own(
        fixtures::pod("default/long")
            .on(NODE)
            .owned_by("ReplicaSet", "web")
            .build(),
        "u-long",
    );
    long.grace = seconds(600);
    world.kubelet.add(long, None);
    world.pod_that_ends("default/blocked", 0, None);
    world.kubelet.budget("web", &["default/blocked"], 0);
    let order = Order {
        taken_at: Some(world.clock.now() + SignedDuration::from_secs(120)),
        ..world.order("notice/spot-terminate-1", 90, OnTimeout::Force)
    };
    let done = world.drain(order).await;
    assert_eq!(done.stage, Stage::Drained, "{}", done.error);
    assert!(
        world.clock.elapsed() <= seconds(1000 + 120 - 4),
        "{:?}",
        world.clock.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn in_a_drain_that_may_be_given_up_every_pod_has_its_own_grace() {
    let world = World::new();
    let mut long = own(
        fixtures::pod("default/long")
            .on(NODE)
            .owned_by("ReplicaSet", "web")
            .build(),
        "u-long",
    );
    long.grace = seconds(600);
    world.kubelet.add(long, Some(seconds(200)));
    let done = world.drain(world.order("op-1", 60, OnTimeout::Abort)).await;
    assert_eq!(done.stage, Stage::Aborted);
    assert!(!world.kubelet.present().is_empty(), "it was cut off");
}

fn with_local_storage(key: &str) -> OwnPod {
    let mut pod = own(
        fixtures::pod(key).on(NODE).owned_by("ReplicaSet", "web").build(),
        &format!("uid-{key}"),
    );
    pod.pod.volumes = vec![smartscale_planner::model::PodVolume {
        name: "scratch".into(),
        source: smartscale_planner::model::VolumeSource::EmptyDir,
    }];
    pod
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_may_be_given_up_is_given_up_for_data_that_its_terms_keep() {
    let world = World::new();
    world.pod("default/a", 0);
    world
        .kubelet
        .add(with_local_storage("default/cache"), Some(seconds(1)));
    let order = Order {
        local_storage: LocalStorage::Keep,
        ..world.order("op-1", 60, OnTimeout::Abort)
    };
    let done = world.drain(order).await;
    assert_eq!(done.stage, Stage::Aborted);
    assert!(done.error.contains("default/cache"), "{}", done.error);
    assert_eq!(world.evictions("default/a"), (0, 0), "nothing was touched");
    assert!(!world.kubelet.present_node().unwrap().unschedulable);
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_ends_by_force_evicts_them_too_since_the_data_goes_anyway() {
    let world = World::new();
    world
        .kubelet
        .add(with_local_storage("default/cache"), Some(seconds(1)));
    let order = Order {
        local_storage: LocalStorage::Keep,
        ..world.order("op-1", 60, OnTimeout::Force)
    };
    assert_eq!(world.drain(order).await.stage, Stage::Drained);
    assert_eq!(world.evictions("default/cache"), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_leaves_does_not_cost_later_tiers_their_graceful_end_before_a_forced_one() {
    let world = World::new();
    world.pod("default/blocked", 0);
    world.kubelet.budget("web", &["default/blocked"], 0);
    world.pod("kube-system/dns", 2_000_000_000);
    let done = world.drain(world.order("op-1", 60, OnTimeout::Force)).await;
    assert_eq!(stage(&done, "kube-system/dns"), PodStage::Gone);
    assert_eq!(stage(&done, "default/blocked"), PodStage::Forced);
}

#[tokio::test(start_paused = true)]
async fn before_a_drain_is_given_up_later_tiers_are_not_touched_for_nothing() {
    let world = World::new();
    world.pod("default/blocked", 0);
    world.kubelet.budget("web", &["default/blocked"], 0);
    world.pod("kube-system/dns", 2_000_000_000);
    let done = world.drain(world.order("op-1", 60, OnTimeout::Abort)).await;
    assert_eq!(world.evictions("kube-system/dns"), (0, 0));
    assert_eq!(stage(&done, "kube-system/dns"), PodStage::Stayed);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_was_told_to_go_before_is_waited_for_and_not_evicted() {
    let world = World::new();
    world.pod("default/a", 0);
    world
        .kubelet
        .evict(&"default/a".parse().unwrap(), "uid-default/a", None)
        .await
        .unwrap();
    let done = world.drain(world.order("op-1", 60, OnTimeout::Abort)).await;
    assert_eq!(done.stage, Stage::Drained);
    assert_eq!(world.evictions("default/a"), (1, 0), "only the arrangement's own");
    assert_eq!(done.pods[0].evictions, 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_on_command_ends_uncordoned_when_it_is_given_up() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 300, OnTimeout::Force)).await;
    let abort = async {
        tokio::time::sleep(seconds(12)).await;
        drainer.abort("op-1".into()).await;
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), abort);
    assert_eq!(done.stage, Stage::Aborted);
    assert!(!world.kubelet.present_node().unwrap().unschedulable);
    assert!(world.clock.elapsed() < seconds(1015));
}

#[tokio::test(start_paused = true)]
async fn a_finished_drain_can_be_taken_back() {
    let world = World::new();
    world.pod("default/a", 0);
    world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.abort("op-1".into()).await;
    let mut state = drainer.state();
    tokio::select! {
        () = engine.run() => panic!("the engine ended"),
        aborted = state.wait_for(|state| state.as_ref().is_some_and(|state| state.stage == Stage::Aborted)) => {
            aborted.unwrap();
        }
    }
    assert!(!world.kubelet.present_node().unwrap().unschedulable);
}

#[tokio::test(start_paused = true)]
async fn an_interruption_tightens_the_drain_that_is_under_way() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 3000, OnTimeout::Abort)).await;
    let interrupt = async {
        tokio::time::sleep(seconds(10)).await;
        let taken_at = Some(world.clock.now() + SignedDuration::from_secs(120));
        let order = Order {
            taken_at,
            ..world.order("notice/spot", 90, OnTimeout::Force)
        };
        drainer.order(order).await;
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), interrupt);
    assert_eq!(done.stage, Stage::Drained);
    assert_eq!(done.operations, ["op-1", "notice/spot"]);
    assert_eq!(stage(&done, "default/a"), PodStage::Forced);
    assert!(world.clock.elapsed() < seconds(1010 + 120));
}

#[tokio::test(start_paused = true)]
async fn the_same_order_said_more_urgently_tightens_its_drain() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    drainer.order(world.order("op-1", 3000, OnTimeout::Abort)).await;
    let hasten = async {
        tokio::time::sleep(seconds(10)).await;
        drainer.order(world.order("op-1", 90, OnTimeout::Force)).await;
    };
    let (done, ()) = tokio::join!(finish(&drainer, engine, ""), hasten);
    assert_eq!(done.stage, Stage::Drained);
    assert_eq!(done.operations, ["op-1"]);
    assert_eq!(stage(&done, "default/a"), PodStage::Forced);
    assert!(world.clock.elapsed() < seconds(1010 + 120));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_cluster_does_not_know_fails_the_drain() {
    let world = World::new();
    world.kubelet.set_node(None);
    let done = world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    assert_eq!(done.stage, Stage::Failed);
    assert!(done.error.contains("no node i-1"), "{}", done.error);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_never_answers_fails_the_drain_at_its_deadline() {
    let world = World::new();
    world.kubelet.fail(
        Verb::Node,
        None,
        Refusal::Unavailable("connection refused".into()),
        10_000,
    );
    let done = world.drain(world.order("op-1", 60, OnTimeout::Abort)).await;
    assert_eq!(done.stage, Stage::Failed);
    assert!(done.error.contains("connection refused"), "{}", done.error);
}

#[tokio::test(start_paused = true)]
async fn the_same_order_again_is_the_same_drain() {
    let world = World::new();
    world.pod("default/a", 0);
    let first = world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    let calls = world.kubelet.calls();
    let second = world.drain(world.order("op-1", 300, OnTimeout::Abort)).await;
    assert_eq!(first, second);
    assert_eq!(world.kubelet.calls(), calls);
}

/// A folder that dies with the agent: at the write of this number, before or after it reaches the disk.
struct Deadly {
    inner: Arc<MemoryFolder>,
    writes: AtomicUsize,
    fatal: usize,
    after: bool,
    died: Arc<tokio::sync::Notify>,
}

impl StateFolder for Deadly {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.inner.read(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        if number < self.fatal || (number == self.fatal && self.after) {
            self.inner.write(name, content)?;
        }
        if number == self.fatal {
            self.died.notify_one();
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
}

/// Kills the agent at its `fatal`-th write and starts another one; whether the write was ever reached.
async fn killed_at(fatal: usize, after: bool, on_timeout: OnTimeout, blocked: bool) -> bool {
    let world = World::new();
    world.pod("default/a", 0);
    world.pod_that_ends("default/b", 0, None);
    world.pod("kube-system/dns", 2_000_000_000);
    if blocked {
        world.kubelet.budget("web", &["default/a"], 0);
    }
    let died = Arc::new(tokio::sync::Notify::new());
    let deadly = Deadly {
        inner: Arc::<MemoryFolder>::clone(&world.folder),
        writes: AtomicUsize::new(0),
        fatal,
        after,
        died: Arc::clone(&died),
    };
    let reached = {
        let (drainer, engine) = engine(world.tools(Arc::new(deadly)));
        drainer.order(world.order("op-1", 120, on_timeout)).await;
        tokio::select! {
            biased;
            () = died.notified() => true,
            _ = finish(&drainer, engine, "") => false,
        }
    };
    tokio::time::sleep(seconds(3)).await;
    let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
    // The coordinator asks again, as it does at each session.
    drainer.order(world.order("op-1", 120, on_timeout)).await;
    let done = finish(&drainer, engine, "op-1").await;
    let expected = if blocked && on_timeout == OnTimeout::Abort {
        Stage::Aborted
    } else {
        Stage::Drained
    };
    assert_eq!(done.stage, expected, "killed at write {fatal}: {}", done.error);
    for key in ["default/a", "default/b", "kube-system/dns"] {
        let (accepted, _) = world.evictions(key);
        assert!(
            accepted <= 1,
            "killed at write {fatal}: {key} was evicted {accepted} times"
        );
    }
    let began = done.started_at;
    let took = age(began, world.clock.now());
    assert!(
        took <= seconds(120 + 46),
        "killed at write {fatal}: the deadline moved, {took:?}"
    );
    let node = world.kubelet.present_node().unwrap();
    assert_eq!(
        node.unschedulable,
        expected == Stage::Drained,
        "killed at write {fatal}"
    );
    reached
}

use smartscale_proto::time::age;

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_killed_at_any_step_goes_on_where_it_was() {
    for (on_timeout, blocked) in [
        (OnTimeout::Abort, false),
        (OnTimeout::Abort, true),
        (OnTimeout::Force, true),
    ] {
        for after in [false, true] {
            let mut write = 0;
            while killed_at(write, after, on_timeout, blocked).await {
                write += 1;
            }
            assert!(write >= 5, "{write} writes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_the_deadline_is_the_one_of_the_wall_clock() {
    let world = World::new();
    world.pod("default/a", 0);
    world.kubelet.budget("web", &["default/a"], 0);
    {
        let (drainer, engine) = engine(world.tools(Arc::<MemoryFolder>::clone(&world.folder)));
        drainer.order(world.order("op-1", 100, OnTimeout::Abort)).await;
        tokio::select! {
            () = engine.run() => {}
            () = tokio::time::sleep(seconds(30)) => {}
        }
    }
    tokio::time::sleep(seconds(20)).await;
    // Another boot counts from zero.
    struct Rebooted(Arc<dyn Clock>, Duration);
    #[async_trait]
    impl Clock for Rebooted {
        fn now(&self) -> Timestamp {
            self.0.now()
        }
        fn elapsed(&self) -> Duration {
            self.0.elapsed() - self.1
        }
        async fn sleep(&self, duration: Duration) {
            self.0.sleep(duration).await;
        }
    }
    let clock: SharedClock = Arc::new(Rebooted(Arc::clone(&world.clock), world.clock.elapsed()));
    let mut tools = world.tools(Arc::<MemoryFolder>::clone(&world.folder));
    (tools.clock, tools.boot_id) = (clock, "boot-2".into());
    let (drainer, engine) = engine(tools);
    let done = finish(&drainer, engine, "").await;
    assert_eq!(done.stage, Stage::Aborted);
    assert_eq!(world.clock.elapsed(), seconds(1100));
}
