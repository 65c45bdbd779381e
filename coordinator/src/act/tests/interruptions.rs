//! Machines that EC2 takes back: what is done at the notice, whoever brought it.

use super::*;
use crate::serve::admin::{DrainOrder, Orders as _};

/// An interruption in two minutes from now.
fn interruption(stage: &Stage, instance: &str, source: NoticeSource) -> Said {
    Said {
        instance: instance.parse().unwrap(),
        kind: NoticeKind::SpotInterruption,
        at: Some(stage.clock.now() + SignedDuration::from_secs(120)),
        detail: "terminate".into(),
        source,
        id: format!("of-{}", source.as_str()),
    }
}

impl Stage {
    pub(super) async fn announce(&self, instance: &str, source: NoticeSource) {
        let said = interruption(self, instance, source);
        self.notices.take(said).await.unwrap();
    }
}

#[tokio::test]
async fn an_interruption_that_only_the_queue_brought_is_ordered_to_the_agent_and_planned_for_at_once() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    stage.announce("i-old", NoticeSource::Queue).await;
    leader.turn().await;
    assert_eq!(leader.doomed(), ["i-old".into()].into());
    tokio::time::timeout(Duration::from_secs(5), leader.wants_a_plan())
        .await
        .unwrap();
    assert!(stage.play(&leader).await);
    let order = ["drain i-old", "stop i-old", "terminate i-old", "forget i-old"];
    let order = order.map(|what| stage.world.place(what));
    assert!(order.is_sorted(), "{order:?}");
    let operations = stage.operations().await;
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].phase, Phase::Done);
    assert!(
        operations[0]
            .reason
            .contains("EC2 takes the machine back (terminate)")
    );
}

#[tokio::test]
async fn a_silent_agent_is_not_waited_for_while_the_machine_is_taken() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
    let leader = stage.leader().await;
    stage.announce("i-old", NoticeSource::Queue).await;
    for _ in 0..6 {
        leader.turn().await;
        *stage.world.elapsed.lock().unwrap() += Duration::from_secs(3);
    }
    assert_eq!(stage.world.count("evict default/web"), 1);
    assert!(stage.play(&leader).await);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn the_same_interruption_by_both_paths_is_one_removal_and_the_agents_drain_stays_its_own() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    stage.announce("i-old", NoticeSource::Agent).await;
    leader.turn().await;
    stage.announce("i-old", NoticeSource::Queue).await;
    for _ in 0..10 {
        leader.turn().await;
        *stage.world.elapsed.lock().unwrap() += Duration::from_secs(1);
    }
    assert_eq!(stage.operations().await.len(), 1);
    assert_eq!(stage.world.count("drain"), 0);
}

#[tokio::test]
async fn a_removal_under_way_is_hastened_and_not_given_up_any_more() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.closed_budget.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    leader.turn().await;
    assert!(leader.doomed().is_empty());
    stage.announce("i-old", NoticeSource::Queue).await;
    leader.turn().await;
    assert_eq!(leader.doomed(), ["i-old".into()].into());
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
    assert_eq!(stage.world.count("force default/web"), 1);
    assert_eq!(stage.world.count("uncordon"), 0);
}

#[tokio::test]
async fn a_drain_that_a_person_ordered_ends_with_the_machine() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.closed_budget.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", Tier::Ordinary)];
    let leader = stage.leader().await;
    leader.turn().await;
    let order = DrainOrder {
        node: "i-old".into(),
        timeout: None,
        on_timeout: OnTimeout::Abort,
        reason: "a look at the disk".into(),
        by: "jo".into(),
    };
    leader.drain(order).await.unwrap();
    leader.turn().await;
    stage.announce("i-old", NoticeSource::Queue).await;
    leader.turn().await;
    assert_eq!(leader.doomed(), ["i-old".into()].into());
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
    assert_eq!(stage.world.count("terminate i-old"), 1);
}

#[tokio::test]
async fn a_replacement_that_is_still_booting_does_not_hold_up_an_interruption() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.never_boots.lock().unwrap() = true;
    let leader = stage.leader().await;
    let mut plan = scale_down("i-old");
    plan.action = Action::Replace;
    plan.launch = vec![launch("us-east-1a")];
    plan.remove[0].reason = RemovalReason::Replaced;
    stage.submit(&leader, &plan).await.unwrap();
    for _ in 0..5 {
        leader.turn().await;
    }
    assert_eq!(stage.world.count("drain i-old"), 0);
    stage.announce("i-old", NoticeSource::Queue).await;
    for _ in 0..5 {
        leader.turn().await;
    }
    assert_eq!(stage.world.count("drain i-old"), 1);
}

#[tokio::test]
async fn the_next_leader_goes_on_with_an_interruption_that_the_last_one_heard_of() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    stage.announce("i-old", NoticeSource::Queue).await;
    stage.notices = NoticeBoard::new(
        Arc::clone(&stage.store),
        Arc::new(Quiet),
        Arc::clone(&stage.clock),
    );
    stage.notices.load().await.unwrap();
    let leader = stage.leader().await;
    leader.turn().await;
    assert!(stage.play(&leader).await);
    assert_eq!(stage.world.count("terminate i-old"), 1);
    assert!(stage.store.list("notice#", false, 10).await.unwrap().is_empty());
    assert!(stage.notices.all().is_empty());
}

#[tokio::test]
async fn a_notice_of_a_machine_that_is_forgotten_begins_nothing() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    stage.announce("i-gone", NoticeSource::Agent).await;
    leader.turn().await;
    assert!(leader.open().is_empty());
    assert!(stage.notices.all().is_empty());
}
