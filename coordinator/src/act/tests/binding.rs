//! A node's startup taint goes once it carries the nonce that its machine's agent was given, whoever leads by then.

use super::*;

/// The node registers again, with the taint.
fn register_tainted(stage: &Stage, name: &str) {
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "labels": { "smartscale.io/pool": "workers" } },
        "spec": { "taints": [{ "key": "smartscale.io/unverified", "effect": "NoSchedule" }] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                    "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" },
                    "capacity": { "cpu": "2", "memory": "4Gi", "pods": "110" } }
    }))
    .unwrap();
    stage.world.objects.lock().unwrap().apply(node);
}

async fn look(stage: &Stage, leader: &Arc<Executor>) {
    *stage.world.elapsed.lock().unwrap() += Duration::from_secs(60);
    leader.turn().await;
}

#[tokio::test]
async fn a_node_is_bound_to_its_machine_before_its_taint_goes_also_over_a_take_over() {
    let mut stage = Stage::new();
    stage.worker("i-w").await;
    let first = stage.leader().await;
    register_tainted(&stage, "i-w");
    look(&stage, &first).await;
    let done = stage.world.log.lock().unwrap().clone();
    assert_eq!(stage.world.count("bind i-w uid of i-w"), 1, "{done:?}");
    assert_eq!(stage.world.count("verify i-w"), 0);
    // What the first leader asked for is what the second one expects.
    let second = stage.leader().await;
    look(&stage, &second).await;
    assert_eq!(stage.world.count("verify i-w"), 1);
    assert_eq!(stage.world.count("bind"), 1);
}

#[tokio::test]
async fn a_nonce_that_the_coordinator_did_not_give_lifts_nothing() {
    let mut stage = Stage::new();
    stage.worker("i-w").await;
    let leader = stage.leader().await;
    register_tainted(&stage, "i-w");
    for _ in 0..3 {
        stage
            .world
            .nonces
            .lock()
            .unwrap()
            .insert("uid of i-w".to_owned(), "0".repeat(64));
        look(&stage, &leader).await;
    }
    assert_eq!(stage.world.count("verify"), 0);
    assert!(stage.world.count("bind") >= 2, "it is asked for again");
}

#[tokio::test]
async fn a_machine_that_is_revoked_is_not_asked() {
    let mut stage = Stage::new();
    stage.worker("i-w").await;
    let leader = stage.leader().await;
    let key = format!("{}i-w", NodeRecord::PREFIX);
    let item = stage.store.get(&key).await.unwrap().unwrap();
    let record = NodeRecord {
        revoked_at: Some(stage.clock.now()),
        ..NodeRecord::from_item(&item).unwrap()
    };
    let write = super::super::journal::put(&record, None).unwrap();
    stage
        .store
        .commit(Epoch(stage.epoch), &[write], &Attributes::new())
        .await
        .unwrap();
    register_tainted(&stage, "i-w");
    look(&stage, &leader).await;
    assert_eq!(stage.world.count("bind") + stage.world.count("verify"), 0);
}
