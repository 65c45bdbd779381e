//! A pending pod becomes a node, and everybody who should know of it does.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::AttributeValue;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::{aws, stack, wait};
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

/// The published attributes of DESIGN §4, but `last_cpu_avg` and `last_memory_avg`, which are absent while unknown.
const PUBLISHED: [&str; 9] = [
    "cluster_id",
    "node_count",
    "last_scale_time",
    "last_scale_action",
    "scaling_in_progress",
    "lock_holder",
    "lock_expiry",
    "last_pending_pods",
    "epoch",
];

#[tokio::test(flavor = "multi_thread")]
async fn pending_pods_become_nodes_that_the_scheduler_binds_them_to_and_everybody_is_told() {
    let site = Site::start("scale-up", &policy("[limits]\nmin_nodes = 0\n"))
        .await
        .unwrap();
    site.create(&deployment("web", 2, pod("web").requests("1500m", "256Mi")))
        .await
        .unwrap();
    let nodes = site.ready_nodes(2).await.unwrap();
    let pods = site.running("web", 2).await.unwrap();
    let mut homes: Vec<&str> = pods.iter().filter_map(node_of).collect();
    homes.sort_unstable();
    assert_eq!(homes, nodes, "the real scheduler bound one pod to each");
    assert_eq!(site.launched().await.unwrap(), nodes, "one machine for each node");

    let launch = site
        .operation("the launches' end", |operation| {
            operation["kind"] == "launch" && operation["phase"] == "done"
        })
        .await
        .unwrap();
    let decision = launch["decision"].as_str().unwrap();
    let decisions = site.ask(&["decisions", "--limit", "100"]).await.unwrap();
    let record = decisions["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|record| record["id"] == decision)
        .unwrap();
    assert_eq!(record["action"], "scale_up");
    let explained = site.ask(&["explain", decision]).await.unwrap();
    assert!(
        explained["lines"].to_string().contains("default/web-"),
        "{explained:#}"
    );

    published_attributes_are_in_the_table(&site).await;
    the_notification_has_arrived(&site, launch["id"].as_str().unwrap()).await;
    cloudwatch_has_the_metrics(&site).await;
    the_log_has_the_decision_as_it_was_recorded(&site, decision, &launch).await;
    an_event_says_why(&site, &pods[0].metadata.name.clone().unwrap()).await;
}

async fn published_attributes_are_in_the_table(site: &Site) {
    let table = site.stack.dynamodb.client().await;
    let item = wait::until("the books to be in order", DEADLINE, || async {
        let answer = table
            .get_item()
            .table_name("smartscale")
            .key("cluster_id", AttributeValue::S("rig".into()))
            .key("item", AttributeValue::S("state".into()))
            .send()
            .await?;
        let item = answer.item.unwrap_or_default();
        // Published with each decision: the pods run before the next one says so.
        let settled = item.get("node_count") == Some(&AttributeValue::N("2".into()))
            && item.get("last_pending_pods") == Some(&AttributeValue::N("0".into()))
            && item.get("scaling_in_progress") == Some(&AttributeValue::Bool(false));
        anyhow::ensure!(settled, "{item:#?}");
        Ok(Some(item))
    })
    .await
    .unwrap();
    for name in PUBLISHED {
        assert!(item.contains_key(name), "{name} is missing in {item:#?}");
    }
    assert_eq!(item["last_scale_action"], AttributeValue::S("scale_up".into()));
    assert_eq!(item["lock_holder"], AttributeValue::S("coordinator-a".into()));
}

async fn the_notification_has_arrived(site: &Site, operation: &str) {
    // The queue holds everything that was told since the start; the launch's end is among it.
    wait::until_true("the notification", DEADLINE, || async {
        let messages = site.stack.account.take_messages(&site.stack.topic).await?;
        let bodies = messages
            .iter()
            .filter_map(|text| serde_json::from_str::<Value>(text).ok());
        Ok(bodies
            .filter(|body| body["cluster"] == "rig" && body["kind"] == "operation")
            .any(|body| body["subject"] == operation && body["event"]["phase"] == "done"))
    })
    .await
    .unwrap();
}

async fn cloudwatch_has_the_metrics(site: &Site) {
    let config = site.stack.account.config(&aws::Key::root()).await;
    let client = aws_sdk_cloudwatch::Client::new(&config);
    let wanted = [
        "AutoscalerInvocations",
        "CurrentNodeCount",
        "ExecutionTime",
        "NodeJoinLatency",
        "ScaleUpEvents",
    ];
    wait::until_true("the metrics", DEADLINE, || async {
        let listed = client.list_metrics().namespace("SmartScale").send().await?;
        let names: Vec<&str> = listed
            .metrics()
            .iter()
            .filter_map(|metric| metric.metric_name())
            .collect();
        anyhow::ensure!(wanted.iter().all(|name| names.contains(name)), "only {names:?}");
        Ok(true)
    })
    .await
    .unwrap();
}

async fn the_log_has_the_decision_as_it_was_recorded(site: &Site, decision: &str, launch: &Value) {
    let group = stack::log_group(&site.stack.id);
    let line = wait::until("the decision's line", DEADLINE, || async {
        let lines = site.stack.account.logged(&group, "rig/coordinator-a").await?;
        let mut lines = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.find(|line| line["id"] == decision))
    })
    .await
    .unwrap();
    assert_eq!(
        (&line["cluster"], &line["plan"]["action"]),
        (&"rig".into(), &"scale_up".into())
    );
    let operations = line["operations"].as_array().unwrap();
    assert!(operations.contains(&launch["id"]), "{line:#}");
    // The same decision again has no line, unless something came of it.
    let lines = site
        .stack
        .account
        .logged(&group, "rig/coordinator-a")
        .await
        .unwrap();
    let said: BTreeSet<String> = lines
        .iter()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", line["id"], line["operations"])
        })
        .collect();
    assert_eq!(said.len(), lines.len(), "{lines:#?}");
}

async fn an_event_says_why(site: &Site, pod: &str) {
    let events: Api<Event> = Api::default_namespaced(site.stack.cluster.client());
    wait::until_true("an event that says why", DEADLINE, || async {
        let all = events.list(&ListParams::default()).await?;
        let ours = all.items.into_iter().filter(|event| {
            event.reporting_controller.as_deref() == Some("smartscale.io/coordinator")
                && event
                    .regarding
                    .as_ref()
                    .is_some_and(|regarding| regarding.name.as_deref() == Some(pod))
        });
        let notes: Vec<String> = ours.filter_map(|event| event.note).collect();
        Ok(notes.iter().any(|note| note.contains("2 pending pods")))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_observes_says_what_it_would_launch_and_launches_nothing() {
    let mut site = Site::new("observe", &policy("[limits]\nmin_nodes = 0\n"))
        .await
        .unwrap();
    site.configure(0, "mode = \"act\"", "mode = \"observe\"").unwrap();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    site.create(&deployment("web", 2, pod("web").requests("1500m", "256Mi")))
        .await
        .unwrap();
    let record = wait::until("a decision to launch", DEADLINE, || async {
        let decisions = site.ask(&["decisions", "--limit", "100"]).await?;
        let records = decisions["decisions"].as_array().cloned().unwrap_or_default();
        Ok(records.into_iter().find(|record| record["action"] == "scale_up"))
    })
    .await
    .unwrap();
    let explained = site
        .ask(&["explain", record["id"].as_str().unwrap()])
        .await
        .unwrap();
    assert!(
        explained["lines"]
            .to_string()
            .contains("nothing of it was done. It would cost 0.0416 USD"),
        "{explained:#}"
    );
    assert!(
        explained["lines"]
            .to_string()
            .contains("at 0.0208 USD/h (aws-pricing, "),
        "{explained:#}"
    );
    site.decisions(3).await.unwrap();
    assert_eq!(site.ask(&["status"]).await.unwrap()["mode"], "observe");
    assert_eq!(site.launched().await.unwrap(), Vec::<String>::new());
    assert_eq!(site.operations().await.unwrap(), Vec::<Value>::new());
}
