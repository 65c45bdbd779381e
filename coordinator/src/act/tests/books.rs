//! Journal and side effects in the order that whoever takes over relies on.

use super::*;
use crate::serve::admin::{Orders as _, RecycleOrder};

#[tokio::test]
async fn machines_that_do_not_join_are_terminated_after_that_is_journaled() {
    for crash in 1..20 {
        let mut stage = Stage::new();
        *stage.world.never_boots.lock().unwrap() = true;
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_up()).await.unwrap();
        *stage.world.crash_at.lock().unwrap() = Some(crash);
        assert!(!stage.play(&leader).await, "nothing was terminated");
        if stage.world.count("terminate") > 0 {
            assert!(stage.operations().await[0].launch().unwrap().given_up);
            return;
        }
    }
    panic!("nothing was terminated");
}

#[tokio::test]
async fn drift_is_looked_for_every_five_minutes_and_what_was_found_last_stands_while_the_cloud_is_silent() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    let found = Drift {
        machines: [("i-old".parse().unwrap(), "another image".to_owned())].into(),
        unused: vec!["old (lt-1)".to_owned()],
        unsound: Vec::new(),
    };
    *stage.world.drift.lock().unwrap() = Some(found);
    leader.turn().await;
    assert_eq!(
        leader.of_templates(),
        ["launch template old (lt-1): no pool and no node uses it"]
    );
    *stage.world.drift.lock().unwrap() = None;
    for seconds in [270, 300] {
        *stage.world.elapsed.lock().unwrap() = Duration::from_secs(seconds);
        leader.turn().await;
        let drifted = stage.state(&leader).drifted;
        assert_eq!(
            (drifted[0].node.as_str(), drifted[0].how.as_str()),
            ("i-old", "another image")
        );
    }
    assert_eq!(stage.world.count("drift"), 2);
}

#[tokio::test]
async fn nothing_is_begun_for_a_node_that_somebody_else_removes_meanwhile() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    let now = stage.clock.now();
    let what = crate::act::operation::Kind::Remove(crate::act::operation::Removal::of(
        "i-old".into(),
        Duration::ZERO,
    ));
    let late = crate::act::begin::planned(
        "op-late".parse().unwrap(),
        what,
        Vec::new(),
        None,
        String::new(),
        None,
        now,
    );
    let refused = leader.order(vec![late]).await;
    assert!(
        matches!(&refused, Err(StoreError::Conflict(key)) if key == "op#op-late"),
        "{refused:?}"
    );
    assert_eq!(stage.operations().await.len(), 1);
}

#[tokio::test]
async fn whoever_only_observes_ends_no_machine_and_begins_nothing() {
    for (mode, acts) in [(Mode::Act, true), (Mode::Observe, false)] {
        let mut stage = Stage::new();
        stage.mode = mode;
        // One that nobody knows, one that is taken back, and one that is gone.
        for name in ["i-stranger", "i-taken", "i-gone"] {
            stage.worker(name).await;
        }
        stage.world.fall_ill("i-stranger");
        let stranger = format!("{}i-stranger", NodeRecord::PREFIX);
        let leader = stage.leader().await;
        let forget = [Write::Delete { key: stranger }];
        let epoch = Epoch(stage.epoch);
        stage
            .store
            .commit(epoch, &forget, &Attributes::new())
            .await
            .unwrap();
        stage
            .world
            .instances
            .lock()
            .unwrap()
            .remove(&"i-gone".parse().unwrap());
        stage.announce("i-taken", NoticeSource::Queue).await;
        for _ in 0..20 {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(60);
        }
        assert_eq!(stage.world.count("terminate i-stranger") > 0, acts);
        assert_eq!(stage.operations().await.len(), if acts { 2 } else { 0 });
        assert_eq!(stage.world.count("terminate") > 0, acts);
    }
}

/// Forgets the record of a machine, as a store does that was lost or is older.
async fn lose_record(stage: &Stage, name: &str) {
    let lost = [Write::Delete {
        key: format!("{}{name}", NodeRecord::PREFIX),
    }];
    let epoch = Epoch(stage.epoch);
    stage
        .store
        .commit(epoch, &lost, &Attributes::new())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_ready_node_that_a_lost_store_does_not_know_is_left_alone_and_one_that_fails_has_all_of_the_grace()
{
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    lose_record(&stage, "i-old").await;
    let grace = leader.parts.settings.orphan_grace;
    let mut at = Duration::ZERO;
    let mut turn = async |after: Duration| {
        at += after;
        *stage.world.elapsed.lock().unwrap() = at;
        leader.turn().await;
        stage.world.count("terminate i-old")
    };
    assert_eq!(turn(Duration::ZERO).await, 0);
    assert_eq!(turn(grace * 3).await, 0, "it works");
    *stage.world.blind.lock().unwrap() = true;
    assert_eq!(turn(grace * 3).await, 0, "nobody knows whether it works");
    *stage.world.blind.lock().unwrap() = false;
    assert_eq!(turn(grace).await, 0, "it works still");
    stage.world.fall_ill("i-old");
    assert_eq!(turn(grace / 2).await, 0);
    assert_eq!(turn(grace).await, 1, "it has not worked for as long as the grace");
    assert!(stage.operations().await.is_empty());
}

#[tokio::test]
async fn a_machine_whose_agent_speaks_is_not_given_up_because_a_list_leaves_it_out() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    let id: InstanceId = "i-old".parse().unwrap();
    let machine = stage.world.instances.lock().unwrap().remove(&id);
    assert!(machine.is_some());
    stage.world.speaks.lock().unwrap().insert(id.clone());
    leader.turn().await;
    assert!(stage.operations().await.is_empty());
    stage.world.speaks.lock().unwrap().remove(&id);
    *stage.world.elapsed.lock().unwrap() += Duration::from_secs(60);
    leader.turn().await;
    assert_eq!(stage.operations().await.len(), 1, "it is lost");
}

#[tokio::test]
async fn the_node_that_holds_a_machines_name_is_freed_of_what_was_there_before_it_first_complained() {
    let mut stage = Stage::new();
    stage.worker("i-back").await;
    stage.worker("i-content").await;
    let leader = stage.leader().await;
    let back: InstanceId = "i-back".parse().unwrap();
    let ids = ["i-back", "i-stranger"].map(|id| id.parse().unwrap());
    *stage.world.taken.lock().unwrap() = ids.into();
    let mut frees = Vec::new();
    for seconds in [0, 60, 120] {
        *stage.world.elapsed.lock().unwrap() = Duration::from_secs(seconds);
        frees.push(format!("free i-back of before {}", stage.clock.now()));
        leader.turn().await;
    }
    let first = frees[0].clone();
    assert_eq!(
        freed(&stage),
        vec![first; 3],
        "a Node that came after the first complaint stays"
    );

    // Content in between, it may complain of another Node.
    stage.world.taken.lock().unwrap().remove(&back);
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(180);
    leader.turn().await;
    assert_eq!(freed(&stage).len(), 3);
    stage.world.taken.lock().unwrap().insert(back);
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(240);
    let last = format!("free i-back of before {}", stage.clock.now());
    leader.turn().await;
    assert_eq!(freed(&stage).last(), Some(&last));
}

fn freed(stage: &Stage) -> Vec<String> {
    let log = stage.world.log.lock().unwrap();
    log.iter()
        .filter(|call| call.starts_with("free "))
        .cloned()
        .collect()
}

#[tokio::test]
async fn what_an_agent_renewed_while_its_node_became_ready_is_not_written_over() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_up()).await.unwrap();
    *stage.world.renews.lock().unwrap() = true;
    assert!(stage.play(&leader).await);
    let items = stage.store.list(NodeRecord::PREFIX, false, 100).await.unwrap();
    let records: Vec<NodeRecord> = items
        .iter()
        .map(|item| NodeRecord::from_item(item).unwrap())
        .collect();
    assert!(records.iter().all(|record| record.ready_at.is_some()));
    assert!(
        records
            .iter()
            .any(|record| record.enrolled_key.as_deref() == Some("renewed"))
    );
}

/// docs/operations.md, "Restore, and a lost table".
#[tokio::test]
async fn machines_that_a_lost_store_does_not_know_are_replaced_by_a_person_while_the_coordinator_only_observes()
 {
    let mut stage = Stage::new();
    stage.mode = Mode::Observe;
    stage.worker("i-old").await;
    stage.world.register_with(
        "i-old",
        &[
            ("topology.kubernetes.io/zone", "us-east-1a"),
            ("node.kubernetes.io/instance-type", "t3.small"),
            ("smartscale.io/market", "on-demand"),
        ],
    );
    let leader = stage.leader().await;
    lose_record(&stage, "i-old").await;
    assert!(leader.begin_term(Epoch(stage.epoch)).await);
    let order = RecycleOrder {
        node: "i-old".into(),
        reason: "the store was lost".into(),
        by: "jo".into(),
    };
    leader.recycle(order).await.unwrap();
    assert!(stage.play(&leader).await);
    let phases: Vec<Phase> = stage
        .operations()
        .await
        .iter()
        .map(|operation| operation.phase)
        .collect();
    assert_eq!(phases, [Phase::Done, Phase::Done]);
    assert!(stage.world.place("launch") < stage.world.place("terminate i-old"));
    let records = stage.store.list(NodeRecord::PREFIX, false, 100).await.unwrap();
    assert_eq!(records.len(), 1, "the machine in its place is known");
}
