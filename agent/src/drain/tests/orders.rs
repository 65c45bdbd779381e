//! Orders that come again, more urgently, or cannot be carried out.

use super::*;

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
