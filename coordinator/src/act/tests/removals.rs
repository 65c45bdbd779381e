//! How machines go: drained, silent, lost, unknown, sick.

use super::*;
use crate::serve::admin::{DrainOrder, Orders as _};

#[tokio::test]
async fn a_drained_node_that_took_pods_again_loses_none_of_them() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.pods.lock().unwrap() = vec![pod("newcomer", Tier::Ordinary)];
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
    *stage.world.pods.lock().unwrap() = vec![pod("late", Tier::High), pod("early", Tier::Ordinary)];
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
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
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
    // Also the next leader knows that it was tried.
    let at = operation.updated_at;
    let next = stage.leader().await;
    assert!(next.begin_term(Epoch(stage.epoch)).await);
    for leader in [leader, next] {
        let given_up = stage.state(&leader).given_up;
        assert_eq!(
            (given_up.len(), given_up[0].node.as_str(), given_up[0].at),
            (1, "i-old", at)
        );
    }
}

#[tokio::test]
async fn a_pod_with_local_storage_that_came_after_the_decision_keeps_the_node() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    let newcomer = PodOnNode {
        local_storage: true,
        ..pod("newcomer", Tier::Ordinary)
    };
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary), newcomer];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    let operation = &stage.operations().await[0];
    assert_eq!(operation.phase, Phase::Aborted);
    let error = operation.error.as_deref().unwrap();
    assert!(error.contains("would lose data: default/newcomer"), "{error}");
    assert_eq!(stage.world.count("evict"), 0);
    assert_eq!(stage.world.count("uncordon"), 1);
}

/// A removal whose pods are handed over first, for so many looks.
async fn handing_over(looks: usize) -> (Stage, Arc<Executor>) {
    let mut stage = Stage::new();
    stage.settings.hand_over = Some(Duration::from_secs(120));
    stage.worker("i-old").await;
    *stage.world.handing.lock().unwrap() = looks;
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    (stage, leader)
}

#[tokio::test]
async fn a_drain_begins_once_pods_are_handed_over_on_a_node_that_is_closed_whoever_leads_by_then() {
    let (mut stage, leader) = handing_over(3).await;
    leader.turn().await;
    leader.turn().await;
    assert_eq!(
        (stage.world.count("hand over"), stage.world.count("drain")),
        (1, 0)
    );
    let next = stage.leader().await;
    assert!(stage.play(&next).await);
    let order = [
        "cordon i-old",
        "hand over i-old",
        "drain i-old",
        "terminate i-old",
    ];
    let order = order.map(|what| stage.world.place(what));
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(
        (stage.world.count("hand over"), stage.world.count("hand back")),
        (4, 0)
    );
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_hand_over_that_takes_too_long_is_given_back_and_the_drain_has_all_of_its_time() {
    let (stage, leader) = handing_over(usize::MAX).await;
    leader.turn().await;
    leader.turn().await;
    *stage.world.elapsed.lock().unwrap() += Duration::from_secs(120);
    leader.turn().await;
    assert_eq!(stage.world.count("hand back"), 1);
    let open = leader.open();
    let removal = open[0].removal().unwrap();
    assert_eq!(removal.draining_since, Some(stage.clock.now()));
    assert!(stage.play(&leader).await);
    assert!(stage.world.place("hand back i-old") < stage.world.place("drain i-old"));
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn pods_that_nobody_may_hand_over_are_drained_and_nothing_is_left_behind() {
    let (stage, leader) = handing_over(1).await;
    *stage.world.keeps_pods.lock().unwrap() = true;
    assert!(stage.play(&leader).await);
    assert!(stage.world.place("hand back i-old") < stage.world.place("drain i-old"));
    let operation = &stage.operations().await[0];
    assert_eq!(operation.phase, Phase::Done);
    let said = |step: &crate::act::operation::Step| step.note.contains("403 forbidden");
    assert!(operation.steps.iter().any(said), "{:#?}", operation.steps);
}

#[tokio::test]
async fn a_hand_over_that_a_person_gives_up_is_given_back() {
    let (stage, leader) = handing_over(usize::MAX).await;
    leader.turn().await;
    leader.turn().await;
    leader
        .cancel_drain(&"i-old".into(), "jo (operator)")
        .await
        .unwrap();
    assert!(stage.play(&leader).await);
    assert_eq!(
        (stage.world.count("hand back"), stage.world.count("evict")),
        (1, 0)
    );
    assert_eq!(stage.operations().await[0].phase, Phase::Aborted);
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
    stage.world.fall_ill("i-stranger");
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

#[tokio::test]
async fn machines_that_go_at_once_cost_one_look_at_the_fleet_and_not_one_each() {
    let mut stage = Stage::new();
    let nodes: Vec<String> = (0..50).map(|number| format!("i-{number}")).collect();
    for node in &nodes {
        stage.worker(node).await;
    }
    let leader = stage.leader().await;
    let plan = Plan {
        remove: nodes.iter().flat_map(|node| scale_down(node).remove).collect(),
        ..scale_down("i-0")
    };
    stage.submit(&leader, &plan).await.unwrap();
    let mut turns = 0;
    while !leader.open().is_empty() {
        leader.turn().await;
        *stage.world.elapsed.lock().unwrap() += Duration::from_secs(1);
        turns += 1;
    }
    assert_eq!(stage.world.count("terminate"), 50);
    let looks = *stage.world.lists.lock().unwrap();
    // One for the books every 30 s, too.
    assert!(looks <= 1 + turns + turns / 30, "{looks} looks in {turns} turns");
}

#[tokio::test]
async fn a_machine_that_the_list_lacks_is_looked_at_before_it_counts_as_gone() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
    *stage.world.unlisted.lock().unwrap() = Some("i-old".parse().unwrap());
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    let order = ["look i-old", "evict default/web", "terminate i-old"].map(|what| stage.world.place(what));
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_drain_has_its_time_anew_with_the_next_leader_whose_clock_may_be_ahead() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.closed_budget.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
    let leader = stage.leader().await;
    let forced = DrainOrder {
        node: "i-old".into(),
        timeout: None,
        on_timeout: OnTimeout::Force,
        reason: String::new(),
        by: "jo".to_owned(),
    };
    assert!(leader.begin_term(Epoch(stage.epoch)).await);
    leader.drain(forced).await.unwrap();
    for _ in 0..5 {
        leader.turn().await;
        *stage.world.elapsed.lock().unwrap() += Duration::from_secs(20);
    }
    assert_eq!(leader.open()[0].phase, Phase::Draining);
    // Nobody can tell time that went by from a clock that is ahead.
    *stage.world.elapsed.lock().unwrap() += Duration::from_secs(600);
    let next = stage.leader().await;
    for _ in 0..5 {
        next.turn().await;
        *stage.world.elapsed.lock().unwrap() += Duration::from_secs(20);
    }
    assert_eq!((stage.world.count("force"), next.open().len()), (0, 1));
    assert!(stage.play(&next).await);
    assert_eq!(stage.world.count("force default/web"), 1);
}

#[tokio::test]
async fn a_drain_that_a_person_gives_up_leaves_the_node_open_whoever_leads_by_then() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.closed_budget.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
    let leader = stage.leader().await;
    let ids = stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    leader.turn().await;
    let refused = leader.cancel_drain(&"i-other".into(), "jo (operator)").await;
    assert!(matches!(
        refused,
        Err(crate::serve::admin::OrderError::NotFound(_))
    ));
    let cancelled = leader
        .cancel_drain(&"i-old".into(), "jo (operator)")
        .await
        .unwrap();
    assert_eq!(vec![cancelled], ids);
    let next = stage.leader().await;
    assert!(next.begin_term(Epoch(stage.epoch)).await);
    assert!(stage.play(&next).await);
    let operation = &stage.operations().await[0];
    assert_eq!(
        (operation.phase, operation.error_type.as_deref()),
        (Phase::Aborted, Some("cancelled"))
    );
    assert!(operation.error.as_deref().unwrap().contains("jo (operator)"));
    assert_eq!(stage.world.count("terminate"), 0);
    assert!(stage.world.count("uncordon i-old") >= 1);
    // The planner does not take the node again at once.
    assert_eq!(stage.state(&next).given_up.len(), 1);
}
