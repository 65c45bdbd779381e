//! Whose cordon it is, and when it is lifted.

use super::*;

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
