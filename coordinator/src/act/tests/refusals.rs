//! Launches that the cloud refuses, or whose machines never join.

use super::*;

#[tokio::test]
async fn a_refused_launch_is_planned_anew_in_another_zone_by_the_same_operation() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Capacity];
    let first = stage.submit(&leader, &scale_up()).await.unwrap();
    assert_eq!(stage.state(&leader).launching.len(), 2);
    leader.turn().await;
    let refused = stage.operations().await;
    assert_eq!(refused[0].phase, Phase::Refused);
    leader.wants_a_plan().await;
    assert_eq!(stage.state(&leader).launching, [], "its pods wait again");
    let backoffs = stage.store.list("offering#", false, 10).await.unwrap();
    assert_eq!(backoffs[0].key, "offering#t3.small#us-east-1a#on-demand");
    let elsewhere = Plan {
        launch: vec![launch("us-east-1b"), launch("us-east-1b")],
        ..scale_up()
    };
    assert_eq!(stage.submit(&leader, &elsewhere).await.unwrap(), first);
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].phase, Phase::Done);
    let names: Vec<String> = operations[0].nodes().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["i-op-1-2-0", "i-op-1-2-1"], "under a token of its own");
}

#[tokio::test]
async fn what_was_launched_lately_is_known_also_to_the_next_leader_and_a_refused_attempt_is_none_of_it() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Capacity];
    stage.submit(&leader, &scale_up()).await.unwrap();
    leader.turn().await;
    leader.wants_a_plan().await;
    assert_eq!(stage.state(&leader).launched, []);
    stage.submit(&leader, &scale_up()).await.unwrap();
    assert!(stage.play(&leader).await);
    let launched = stage.state(&leader).launched;
    assert_eq!(launched.iter().map(|launch| launch.nodes).sum::<u32>(), 2);
    let next = stage.leader().await;
    assert!(next.begin_term(Epoch(stage.epoch)).await);
    assert!(next.open().is_empty());
    assert_eq!(stage.state(&next).launched, launched);
}

#[tokio::test]
async fn a_refused_launch_that_the_next_plan_does_without_ends() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Quota];
    stage.submit(&leader, &scale_up()).await.unwrap();
    // A plan that was begun before the refusal says nothing of it.
    stage.state(&leader);
    leader.turn().await;
    leader.turn().await;
    assert!(!leader.awaits_a_plan());
    stage.submit(&leader, &Plan::default()).await.unwrap();
    assert_eq!(stage.operations().await[0].phase, Phase::Refused);
    stage.state(&leader);
    assert!(leader.awaits_a_plan());
    stage.submit(&leader, &Plan::default()).await.unwrap();
    let operations = stage.operations().await;
    assert_eq!(operations[0].phase, Phase::Failed);
    assert_eq!(operations[0].error_type.as_deref(), Some("quota"));
}

#[tokio::test]
async fn a_refused_launch_without_a_plan_ends_by_itself_also_under_another_leader() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Capacity];
    stage.submit(&leader, &scale_up()).await.unwrap();
    leader.turn().await;
    leader.turn().await;
    assert_eq!(stage.operations().await[0].phase, Phase::Refused);
    let other = stage.leader().await;
    assert!(stage.play(&other).await);
    assert_eq!(stage.operations().await[0].phase, Phase::Failed);
    assert_eq!(stage.world.instances.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_throttled_launch_is_made_again_under_the_same_token() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Throttled; 3];
    stage.submit(&leader, &scale_up()).await.unwrap();
    assert!(stage.play(&leader).await);
    assert_eq!(stage.world.count("refuse op-1-1"), 3);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
    assert_eq!(stage.store.list("offering#", false, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_launch_whose_calls_fail_for_longer_than_a_machine_takes_is_neither_given_up_nor_planned_twice() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    let deadline = Settings::default().ready;
    *stage.world.fails.lock().unwrap() = 200;
    stage.submit(&leader, &scale_up()).await.unwrap();
    let began = stage.clock.now();
    while stage.clock.now() < began + 3 * deadline {
        leader.turn().await;
        *stage.world.elapsed.lock().unwrap() += Duration::from_secs(5);
        // The planner expects what was launched less than five minutes ago, and plans anew for what was not.
        let expected = stage.state(&leader).launching;
        assert_eq!(expected.len(), 2);
        assert!(
            expected.iter().all(|entry| entry.since >= stage.clock.now()),
            "{expected:?}"
        );
    }
    *stage.world.fails.lock().unwrap() = 0;
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
    assert_eq!(
        (stage.world.count("launch"), stage.world.count("terminate")),
        (1, 0)
    );
}

#[tokio::test]
async fn a_launch_that_is_wrong_in_itself_stops_its_pool() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Configuration];
    stage.submit(&leader, &scale_up()).await.unwrap();
    leader.turn().await;
    leader.turn().await;
    let item = stage.store.get("pool#workers").await.unwrap().unwrap();
    let stopped = PoolRecord::from_item(&item).unwrap().stopped.unwrap();
    assert_eq!(stopped.reason, "NoMore: of these");
    assert!(stopped.until > stage.clock.now());
}

#[tokio::test]
async fn machines_that_never_join_are_terminated_and_three_launches_of_them_stop_the_pool() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.never_boots.lock().unwrap() = true;
    stage.submit(&leader, &scale_up()).await.unwrap();
    for attempt in 1..=3 {
        while stage.operations().await[0].phase != Phase::Refused {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(30);
        }
        let item = stage.store.get("pool#workers").await.unwrap().unwrap();
        let stopped = PoolRecord::from_item(&item).unwrap().stopped.is_some();
        assert_eq!(stopped, attempt == 3, "attempt {attempt}");
        stage.state(&leader);
        stage.submit(&leader, &scale_up()).await.unwrap();
    }
    assert_eq!(stage.world.count("terminate"), 6);
    *stage.world.never_boots.lock().unwrap() = false;
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
}

#[tokio::test]
async fn many_machines_are_launched_by_calls_of_fifty() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    let plan = Plan {
        launch: vec![launch("us-east-1a"); 120],
        ..scale_up()
    };
    assert_eq!(stage.submit(&leader, &plan).await.unwrap().len(), 3);
    assert!(stage.play(&leader).await);
    assert_eq!(stage.world.instances.lock().unwrap().len(), 120);
    assert_eq!(stage.world.count("launch"), 3);
}

#[tokio::test]
async fn machines_that_no_leader_was_there_for_have_their_time_with_the_next() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.never_boots.lock().unwrap() = true;
    stage.submit(&leader, &scale_up()).await.unwrap();
    leader.turn().await;
    *stage.world.elapsed.lock().unwrap() += Duration::from_secs(600);
    let next = stage.leader().await;
    next.turn().await;
    assert_eq!(stage.world.count("terminate"), 0);
    *stage.world.never_boots.lock().unwrap() = false;
    assert!(stage.play(&next).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
}
