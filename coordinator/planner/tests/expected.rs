//! Room for what the forecast expects.

use smartscale_planner::{
    Action, BlockerCode, fixtures,
    model::{Bytes, MilliCpu},
    plan,
    snapshot::{Announced, Expected, Forewarning},
};

/// So many pods of half a CPU.
fn expected(pods: u32) -> Option<Expected> {
    Some(Expected {
        pods,
        cpu_millis: MilliCpu(500),
        memory_bytes: Bytes(64 << 20),
        ..Expected::default()
    })
}

#[test]
fn a_node_is_launched_for_what_is_expected_and_nothing_is_said_to_wait() {
    let pod = fixtures::pod("default/web").cpu("1500m").on("a");
    let mut snapshot = fixtures::snapshot([fixtures::node("a").cpu("2")], [pod]);
    let policy = fixtures::policy("");
    let without = plan(&snapshot, &policy, fixtures::now());
    snapshot.state.expected = expected(1);
    let fits = plan(&snapshot, &policy, fixtures::now());
    assert_eq!(fits.launch, without.launch);
    snapshot.state.expected = expected(2);
    let plan = plan(&snapshot, &policy, fixtures::now());
    assert_eq!(plan.action, Action::ScaleUp);
    assert_eq!(plan.launch.len(), without.launch.len() + 1);
    assert!(plan.launch.iter().all(|launch| launch.pods.is_empty()));
    assert!(plan.pods.pending.is_empty());
    assert!(
        plan.assumptions
            .iter()
            .any(|note| note.contains("room for 2 more pods of 500m CPU")),
        "{:?}",
        plan.assumptions
    );
}

#[test]
fn a_node_that_only_the_forecast_keeps_is_unneeded_all_the_while() {
    let pod = fixtures::pod("default/web").cpu("500m").on("a");
    let nodes = ["a", "b"].map(|name| fixtures::node(name).cpu("2").instance_type("t3.small"));
    let mut snapshot = fixtures::snapshot(nodes, [pod]);
    let policy = fixtures::policy("");
    for name in ["a", "b"] {
        let reading = fixtures::reading(&fixtures::now().to_string(), 10.0, 10.0);
        snapshot.metrics.nodes.insert(name.into(), reading.clone());
        snapshot.metrics.cluster = vec![reading];
    }
    snapshot.state.expected = expected(5);
    let plan = plan(&snapshot, &policy, fixtures::now());
    let verdict = plan
        .nodes
        .iter()
        .find(|verdict| verdict.node.as_str() == "b")
        .expect("b is ours");
    assert!(
        verdict
            .blockers
            .iter()
            .any(|blocker| blocker.code == BlockerCode::NoPlaceToMove),
        "{verdict:?}"
    );
    assert!(plan.unneeded_since.contains_key("b"), "{:?}", plan.unneeded_since);
}

#[test]
fn room_that_is_there_is_kept_while_nothing_may_be_launched() {
    let pod = fixtures::pod("default/web").cpu("500m").on("a");
    let nodes = ["a", "b"].map(|name| fixtures::node(name).cpu("2").instance_type("t3.small"));
    let mut snapshot = fixtures::snapshot(nodes, [pod]);
    let policy = fixtures::policy(
        "[[freeze]]\ncron = \"* * * * *\"\nduration = \"1h\"\nstops = [\"scale_up\"]\n[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"",
    );
    for name in ["a", "b"] {
        let reading = fixtures::reading(&fixtures::now().to_string(), 10.0, 10.0);
        snapshot.metrics.nodes.insert(name.into(), reading.clone());
        snapshot.metrics.cluster = vec![reading];
    }
    let without = plan(&snapshot, &policy, fixtures::now());
    assert_eq!(without.remove.len(), 1, "{:?}", without.nodes);
    snapshot.state.expected = expected(5);
    assert!(plan(&snapshot, &policy, fixtures::now()).remove.is_empty());
}

#[test]
fn a_node_that_is_due_does_not_stay_for_what_is_only_expected() {
    let pods = ["a", "b"].map(|node| fixtures::pod(&format!("default/on-{node}")).cpu("500m").on(node));
    let nodes = ["a", "b"].map(|name| fixtures::node(name).cpu("2").instance_type("t3.small"));
    let mut snapshot = fixtures::snapshot(nodes, pods);
    snapshot.metrics.cluster = vec![fixtures::reading(&fixtures::now().to_string(), 10.0, 10.0)];
    snapshot.state.expected = expected(5);
    let mut policy = fixtures::policy("[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"");
    assert!(plan(&snapshot, &policy, fixtures::now()).remove.is_empty());
    snapshot.state.announced = vec![Announced {
        node: "a".into(),
        notice: Forewarning::Maintenance,
        at: Some(fixtures::now()),
    }];
    // With and without room for a node in its stead, which its pod does not need.
    for max_nodes in [2, 10] {
        policy.limits.max_nodes = max_nodes;
        let plan = plan(&snapshot, &policy, fixtures::now());
        let removed: Vec<&str> = plan.remove.iter().map(|removal| removal.node.as_str()).collect();
        assert_eq!(removed, ["a"], "{max_nodes}: {:?}", plan.nodes);
        assert_eq!(plan.remove[0].moves.len(), 1, "{max_nodes}: {:?}", plan.remove);
        assert!(plan.launch.is_empty(), "{max_nodes}: {:?}", plan.launch);
    }
    // What needs a node, not only room for it, gets one before the other goes.
    policy.limits.min_nodes = 2;
    let plan = plan(&snapshot, &policy, fixtures::now());
    assert_eq!((plan.action, plan.launch.len()), (Action::Replace, 1));
}

#[test]
fn room_that_is_only_worth_keeping_is_kept_and_not_launched() {
    let pod = fixtures::pod("default/web").cpu("500m").on("a");
    let nodes = ["a", "b"].map(|name| fixtures::node(name).cpu("2").instance_type("t3.small"));
    let mut snapshot = fixtures::snapshot(nodes, [pod]);
    let policy = fixtures::policy("[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"");
    for name in ["a", "b"] {
        let reading = fixtures::reading(&fixtures::now().to_string(), 10.0, 10.0);
        snapshot.metrics.nodes.insert(name.into(), reading.clone());
        snapshot.metrics.cluster = vec![reading];
    }
    let of = |pods, only_kept| {
        Some(Expected {
            only_kept,
            ..expected(pods).unwrap_or_default()
        })
    };
    // The two nodes have room for seven more.
    snapshot.state.expected = of(9, 2);
    assert_eq!(plan(&snapshot, &policy, fixtures::now()).action, Action::None);
    snapshot.state.expected = of(9, 1);
    let one_more = plan(&snapshot, &policy, fixtures::now());
    assert_eq!(
        (one_more.action, one_more.launch.len()),
        (Action::ScaleUp, 1),
        "{one_more:?}"
    );
    snapshot.state.expected = of(7, 7);
    assert_eq!(plan(&snapshot, &policy, fixtures::now()).action, Action::None);
    snapshot.state.expected = None;
    assert_eq!(
        plan(&snapshot, &policy, fixtures::now()).action,
        Action::ScaleDown
    );
}

#[test]
fn a_node_whose_pods_are_about_to_be_ended_is_unneeded_since_their_demand_went() {
    let pods = (0..5).map(|number| {
        let node = if number < 4 { "a" } else { "b" };
        fixtures::pod(&format!("default/web-{number}"))
            .cpu("500m")
            .on(node)
    });
    let nodes = ["a", "b"].map(|name| fixtures::node(name).cpu("2").instance_type("t3.small"));
    let mut snapshot = fixtures::snapshot(nodes, pods);
    for name in ["a", "b"] {
        let reading = fixtures::reading(&fixtures::now().to_string(), 10.0, 10.0);
        snapshot.metrics.nodes.insert(name.into(), reading.clone());
        snapshot.metrics.cluster = vec![reading];
    }
    let policy = |steer: bool| {
        fixtures::policy(&format!(
            "[scale_down]\nwhen = \"fits\"\nsustained = \"0s\"\nsteer = {steer}"
        ))
    };
    // Four fill `a`: the fifth has no other place.
    assert!(
        plan(&snapshot, &policy(true), fixtures::now())
            .unneeded_since
            .is_empty()
    );
    snapshot.state.expected = Some(Expected {
        surplus: 1,
        ..expected(0).unwrap_or_default()
    });
    let steered = plan(&snapshot, &policy(true), fixtures::now());
    assert!(steered.unneeded_since.contains_key("b"), "{steered:?}");
    assert!(steered.remove.is_empty(), "not before it is empty: {steered:?}");
    // Without steering nobody knows which node's pods will go.
    assert!(
        plan(&snapshot, &policy(false), fixtures::now())
            .unneeded_since
            .is_empty()
    );
}
