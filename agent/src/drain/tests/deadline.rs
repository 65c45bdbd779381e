//! What a drain does as its deadline nears: force, the grace that is left, data that would be lost.

use super::*;

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
