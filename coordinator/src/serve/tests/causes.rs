//! What is named as the cause where nodes stay: schedules, the drain guard, the price of evictions; and whom scale-ins are led to.

use smartscale_planner::{
    Policy, Snapshot,
    fixtures::{self, NOW, node, pod, reading},
};
use smartscale_proto::{
    identity::Role,
    v1::{self, explain_request::Subject},
};

use crate::serve::testing::World;

/// By further keys of `[scale_down]`, and further tables.
fn policy(scale_down: &str, more: &str) -> Policy {
    fixtures::policy(&format!(
        "[scale_up]\ncpu_percent = 100.0\n[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"\n{scale_down}\n{more}"
    ))
}

/// Three nodes of two CPUs with so many pods of a quarter of one, each node as busy as all.
fn three(pods: [usize; 3], cpu_percent: f64) -> Snapshot {
    let names = ["a", "b", "c"];
    let of_node = |(name, pods): (&'static str, usize)| {
        let name_of = move |index| format!("default/{name}-{index}");
        (0..pods).map(move |index| pod(&name_of(index)).cpu("250m").on(name))
    };
    let mut snapshot = fixtures::snapshot(
        names.map(|name| node(name).cpu("2").instance_type("t3.medium")),
        names.into_iter().zip(pods).flat_map(of_node),
    );
    snapshot.metrics.cluster = vec![reading(NOW, cpu_percent, 5.0)];
    for name in names {
        let reading = reading(NOW, cpu_percent, 5.0);
        snapshot.metrics.nodes.insert(name.into(), reading);
    }
    snapshot
}

/// What is said to lift each blocker of that code, and what `explain node c` says.
async fn told(world: &World, code: &str) -> (Vec<String>, Vec<String>) {
    let mut client = world.people(Role::Viewer).await;
    let blockers = client.list_blockers(v1::ListBlockersRequest {}).await.unwrap();
    let of_code = blockers.into_inner().blockers.into_iter();
    let of_code = of_code.filter(|one| one.code == code).map(|one| one.remedy);
    let subject = Some(Subject::Node("c".to_owned()));
    let explained = client.explain(v1::ExplainRequest { subject }).await.unwrap();
    (of_code.collect(), explained.into_inner().lines)
}

fn assert_told(told: &(Vec<String>, Vec<String>), number: usize, words: &str) {
    assert_eq!(told.0.len(), number, "{told:?}");
    assert!(told.0.iter().all(|remedy| remedy.contains(words)), "{told:?}");
    assert!(told.1.iter().any(|line| line.contains(words)), "{told:?}");
}

#[tokio::test]
async fn a_schedule_that_keeps_nodes_is_named_and_shown_beside_the_minimum() {
    let world = World::new().await;
    let schedule = "[[schedule]]\nname = \"office hours\"\ncron = \"* * * * *\"\nduration = \"1h\"\nmin_nodes = 3\n\
                    [[schedule]]\nname = \"batch\"\ncron = \"* * * * *\"\nduration = \"2h\"\nmin_nodes = 1\npool = \"workers\"";
    world.decide_on(policy("", schedule), three([0, 0, 0], 5.0), |_| {});
    let told = told(&world, "AtMinNodes").await;
    assert_told(&told, 3, "by schedule office hours; lower that");
    let mut client = world.people(Role::Viewer).await;
    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.min_nodes, 3);
    let schedules: Vec<_> = status
        .schedules
        .iter()
        .map(|one| {
            let until = one.until.is_some();
            (one.name.as_str(), one.pool.as_str(), one.min_nodes, until)
        })
        .collect();
    assert_eq!(
        schedules,
        [("office hours", "", 3, true), ("batch", "workers", 1, true)]
    );
}

#[tokio::test]
async fn a_minimum_of_the_policy_is_not_laid_at_a_schedules_door() {
    let world = World::new().await;
    let mut policy = policy("", "");
    policy.limits.min_nodes = 3;
    world.decide_on(policy, three([0, 0, 0], 5.0), |_| {});
    assert_told(
        &told(&world, "AtMinNodes").await,
        3,
        "limits.min_nodes = 3; lower that",
    );
}

#[tokio::test]
async fn the_drain_guard_that_keeps_a_node_is_named_with_its_figures() {
    let world = World::new().await;
    world.decide_on(
        policy("guard_percent = 110", ""),
        three([4, 4, 2], 1830.0 / 60.0),
        |_| {},
    );
    let told = told(&world, "Utilised").await;
    assert_told(&told, 3, "(scale_down.guard_percent); wait for less load");
}

#[tokio::test]
async fn evictions_that_are_too_dear_are_named_with_their_price() {
    let world = World::new().await;
    let dear = policy("", "[cost]\neviction_usd = 1.0");
    world.decide_on(dear, three([4, 4, 2], 10.0), |_| {});
    let told = told(&world, "Budget").await;
    assert_told(&told, told.0.len(), "at $1 each (cost.eviction_usd)");
    assert!(!told.0.is_empty());
}

#[tokio::test]
async fn explain_says_where_scale_ins_are_led_to() {
    let world = World::new().await;
    let steering = policy("steer = true", "");
    world.decide_on(steering, three([4, 4, 2], 10.0), |latest| {
        assert_eq!(latest.plan.steer[0].as_str(), "c");
        latest.steered.insert("default/c-0".parse().unwrap(), -99);
    });
    let (_, lines) = told(&world, "").await;
    assert!(
        lines
            .iter()
            .any(|line| line.contains("as number 1 of 3: 1 of its pods bear a low deletion cost")),
        "{lines:?}"
    );
    let subject = Some(Subject::Pod("default/c-0".to_owned()));
    let mut client = world.people(Role::Viewer).await;
    let explained = client.explain(v1::ExplainRequest { subject }).await.unwrap();
    let lines = explained.into_inner().lines;
    assert!(
        lines.iter().any(|line| line.contains("its deletion cost is -99")),
        "{lines:?}"
    );
}
