//! DynamoDB Local and Prometheus.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use smartscale_tests::rig::{DynamoDb, Folder, Prometheus, wait};

#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_refuses_a_conditional_write_whose_condition_is_false() {
    let folder = Folder::new("dynamodb").unwrap();
    let server = DynamoDb::start(&folder).await.unwrap();
    let client = server.client().await;
    server.create_table("smartscale").await.unwrap();
    server.create_table("smartscale").await.unwrap();
    let put = |epoch: &str| {
        client
            .put_item()
            .table_name("smartscale")
            .item("cluster_id", AttributeValue::S("c".into()))
            .item("item", AttributeValue::S("state".into()))
            .item("epoch", AttributeValue::N(epoch.into()))
            .condition_expression("attribute_not_exists(epoch) OR epoch < :epoch")
            .expression_attribute_values(":epoch", AttributeValue::N(epoch.into()))
            .send()
    };
    put("1").await.unwrap();
    let refused = put("1").await.unwrap_err().into_service_error();
    assert!(refused.is_conditional_check_failed_exception(), "{refused:?}");
    put("2").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_sees_the_figures_that_the_test_sets() {
    let folder = Folder::new("prometheus").unwrap();
    let mut server = Prometheus::start(&folder).await.unwrap();
    server.figures().node("a", 0.8, 0.25);
    server.figures().sample("queue_length{shop=\"x\"}", 7.0);
    let used = "1 - node_memory_MemAvailable_bytes{node=\"a\"} / node_memory_MemTotal_bytes{node=\"a\"}";
    let busy = "1 - rate(node_cpu_seconds_total{node=\"a\",mode=\"idle\"}[5s])";
    for (query, expected, within) in [
        (used, 0.25, 0.001),
        ("queue_length{shop=\"x\"}", 7.0, 0.0),
        (busy, 0.8, 0.02),
    ] {
        wait::until_true(query, Duration::from_secs(30), || async {
            let value = server.value(query).await?;
            Ok(value.is_some_and(|value| (value - expected).abs() <= within))
        })
        .await
        .unwrap();
    }
    // An outage, and the same address afterwards.
    server.process().kill();
    assert!(server.value("up").await.is_err());
    server.process().start().unwrap();
    wait::until_true("the scrapes to go on", Duration::from_secs(30), || async {
        Ok(server
            .value("node_memory_MemTotal_bytes{node=\"a\"}")
            .await?
            .is_some())
    })
    .await
    .unwrap();
}
