//! How machines go: drained, silent, lost, unknown, sick.

use super::*;

#[tokio::test]
async fn a_drained_node_that_took_pods_again_loses_none_of_them() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.pods.lock().unwrap() = vec![pod("newcomer", 0)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    let order = [
        "drain i-old",
        "cordon i-old",
        "evict default/newcomer",
        "terminate i-old",
    ];
    let order = order.map(|what| stage.world.place(what));
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_node_whose_agent_is_silent_is_drained_through_the_api_tier_by_tier_and_no_pod_twice() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("late", 1), pod("early", 0)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    assert!(stage.world.place("evict default/early") < stage.world.place("evict default/late"));
    assert_eq!(stage.world.count("evict"), 2);
    assert_eq!(stage.world.count("drain"), 0);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_budget_that_stays_closed_ends_in_an_uncordoned_node_that_is_still_there() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.closed_budget.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", 0)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    let operation = &stage.operations().await[0];
    assert_eq!(
        (operation.phase, operation.error_type.as_deref()),
        (Phase::Aborted, Some("drain_timeout"))
    );
    assert!(operation.error.as_deref().unwrap().contains("default/web"));
    assert_eq!(stage.world.count("uncordon"), 1);
    assert_eq!(stage.world.count("rejoin i-old"), 1);
    assert_eq!(stage.world.count("terminate"), 0);
}

#[tokio::test]
async fn a_record_without_a_machine_is_forgotten_with_its_node() {
    let mut stage = Stage::new();
    stage.worker("i-lost").await;
    stage.world.instances.lock().unwrap().clear();
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(600);
    let leader = stage.leader().await;
    leader.turn().await;
    assert!(stage.play(&leader).await);
    assert!(stage.world.place("taint i-lost") < stage.world.place("forget i-lost"));
    assert_eq!(stage.world.count("drain"), 0);
    assert_eq!(stage.world.count("leave"), 0);
    let steps = &stage.operations().await[0].steps;
    assert_eq!(steps.last().unwrap().note, "i-lost is terminated and forgotten");
    assert!(stage.store.get("node#i-lost").await.unwrap().is_none());
}

#[tokio::test]
async fn a_machine_with_our_tag_that_nobody_knows_is_terminated_after_a_grace() {
    let mut stage = Stage::new();
    stage.worker("i-stranger").await;
    stage
        .store
        .commit(
            Epoch(1),
            &[Write::Delete {
                key: "node#i-stranger".to_owned(),
            }],
            &Attributes::new(),
        )
        .await
        .unwrap();
    let leader = stage.leader().await;
    leader.turn().await;
    assert_eq!(stage.world.count("terminate"), 0);
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(601);
    leader.turn().await;
    assert_eq!(stage.world.count("terminate i-stranger"), 1);
}

#[tokio::test]
async fn a_machine_is_terminated_once_its_volumes_are_detached_and_not_waited_for_for_ever() {
    for (attached, terminated) in [(40, 40), (10_000, 120)] {
        let mut stage = Stage::new();
        stage.worker("i-old").await;
        *stage.world.attached_until.lock().unwrap() = Duration::from_secs(attached);
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_down("i-old")).await.unwrap();
        while stage.world.count("terminate") == 0 {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(5);
        }
        let elapsed = stage.world.elapsed.lock().unwrap().as_secs();
        assert!((terminated..terminated + 40).contains(&elapsed), "{elapsed} s");
        assert!(stage.play(&leader).await);
        assert_eq!(stage.operations().await[0].phase, Phase::Done);
        assert!(stage.world.place("leave i-old") < stage.world.place("drain i-old"));
    }
}

#[tokio::test]
async fn a_machine_that_is_silent_and_not_ready_is_replaced_and_many_are_left_alone() {
    for (sick, replaced) in [(1, 1), (2, 0)] {
        let mut stage = Stage::new();
        for n in 0..5 {
            stage.worker(&format!("i-{n}")).await;
        }
        *stage.world.silent.lock().unwrap() = true;
        for n in 0..sick {
            stage.world.fall_ill(&format!("i-{n}"));
        }
        let leader = stage.leader().await;
        for _ in 0..30 {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(20);
        }
        assert_eq!(stage.world.count("terminate"), replaced);
        assert_eq!(stage.world.count("drain"), 0);
        let operations = stage.operations().await;
        assert!(operations.iter().all(|operation| operation.phase == Phase::Done));
        assert_eq!(operations.len(), replaced);
    }
}
