//! What is evicted, in which order, and who may say no.

use super::*;

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
