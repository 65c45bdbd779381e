//! What EC2 announces through EventBridge's queue.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use smartscale_tests::rig::aws::NOTICES;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::machines::ENDS_AFTER;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};

const QUICK: &str = r#"
[limits]
min_nodes = 1
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "10m"
[drain]
timeout = "60s"
"#;

/// Two nodes, each full with one pod of `web`, and a coordinator that reads a queue, whose URL is given.
async fn full_site(name: &str, policy: &str) -> (Site, String) {
    let mut site = Site::new(name, policy).await.unwrap();
    let url = site.stack.account.create_queue(NOTICES).await.unwrap();
    let section = format!("[notices]\nqueue_url = \"{url}\"\n\n[notify]");
    site.configure(0, "[notify]", &section).unwrap();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    let web = pod("web")
        .requests("1200m", "64Mi")
        .grace(30)
        .annotation(ENDS_AFTER, "1");
    site.create(&deployment("web", 2, web)).await.unwrap();
    for node in &site.ready_nodes(2).await.unwrap() {
        site.stack.prometheus.figures().node(node, 0.30, 0.20);
    }
    site.running("web", 2).await.unwrap();
    (site, url)
}

/// An event of EC2 about a machine, of this moment.
fn event(detail_type: &str, instance: &str) -> String {
    json!({
        "version": "0", "id": "12345678-1234-1234-1234-123456789012", "detail-type": detail_type,
        "source": "aws.ec2", "account": "123456789012", "time": Timestamp::now().to_string(), "region": "us-east-1",
        "resources": [format!("arn:aws:ec2:us-east-1a:instance/{instance}")],
        "detail": { "instance-id": instance, "instance-action": "terminate" }
    })
    .to_string()
}

fn interruption(instance: &str) -> String {
    event("EC2 Spot Instance Interruption Warning", instance)
}

fn removes<'a>(operation: &'a Value, node: &'a str) -> bool {
    operation["kind"] == "remove" && operation["nodes"][0] == node
}

/// Waits for the node's end, and gives its removal.
async fn removed(site: &Site, node: &str) -> Value {
    let removal = site
        .operation("the removal of what EC2 takes", |operation| {
            removes(operation, node) && operation["ended"] == true
        })
        .await
        .unwrap();
    assert_eq!(removal["phase"], "done", "{removal:#}");
    removal
}

async fn launches(site: &Site) -> usize {
    let operations = site.operations().await.unwrap();
    operations
        .iter()
        .filter(|operation| operation["kind"] == "launch")
        .count()
}

/// The notifications so far of this machine's notices.
async fn noticed(site: &Site, node: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        let messages = site.stack.account.take_messages(&site.stack.topic).await.unwrap();
        if messages.is_empty() {
            return all;
        }
        let of_node = |text: &String| text.contains("\"noticed\"") && text.contains(node);
        all.extend(messages.into_iter().filter(of_node));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interruption_that_only_the_queue_brings_is_drained_by_the_agent_and_replaced() {
    let (site, url) = full_site("queue-alone", &policy(QUICK)).await;
    let taken = site.stack.machines.ids()[0].clone();
    let before = launches(&site).await;
    for body in [
        "poison".to_owned(),
        interruption("i-0123456789abcdef0"),
        interruption(&taken),
    ] {
        site.stack.account.send_message(&url, &body).await.unwrap();
    }

    let removal = removed(&site, &taken).await;
    let reason = removal["reason"].as_str().unwrap();
    assert!(reason.contains("EC2 takes the machine back"), "{removal:#}");
    let evictions = site.stack.cluster.evictions().unwrap();
    assert!(
        !evictions.is_empty()
            && evictions
                .iter()
                .all(|eviction| eviction.user == format!("system:node:{taken}")),
        "{evictions:?}"
    );
    site.running("web", 2).await.unwrap();
    let left = site.ready_nodes(2).await.unwrap();
    assert!(!left.contains(&taken), "{left:?}");
    assert_eq!(launches(&site).await, before + 1);
    wait::until_true("an empty queue", DEADLINE, || async {
        Ok(site.stack.account.messages_in(&url).await? == 0)
    })
    .await
    .unwrap();
    assert_eq!(noticed(&site, &taken).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_interruption_by_both_paths_is_one_removal_one_replacement_and_one_message() {
    let (site, url) = full_site("both-paths", &policy(QUICK)).await;
    let taken = site.stack.machines.ids()[0].clone();
    let before = launches(&site).await;
    let in_two_minutes = Timestamp::now() + SignedDuration::from_secs(120);
    site.stack
        .machines
        .with(&taken, |machine| {
            machine.imds().unwrap().interrupt("terminate", in_two_minutes);
        })
        .unwrap();
    // EventBridge delivers at least once.
    for _ in 0..2 {
        site.stack
            .account
            .send_message(&url, &interruption(&taken))
            .await
            .unwrap();
    }

    removed(&site, &taken).await;
    site.running("web", 2).await.unwrap();
    wait::until_true("an empty queue", DEADLINE, || async {
        Ok(site.stack.account.messages_in(&url).await? == 0)
    })
    .await
    .unwrap();
    site.decisions(2).await.unwrap();
    let operations = site.operations().await.unwrap();
    let removals = operations.iter().filter(|one| removes(one, &taken)).count();
    assert_eq!(
        (removals, launches(&site).await),
        (1, before + 1),
        "{operations:#?}"
    );
    assert_eq!(noticed(&site, &taken).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ec2_recommends_to_rebalance_goes_once_another_is_there() {
    let wanted = policy(QUICK) + "rebalance = \"drain\"\n";
    let (site, url) = full_site("rebalance", &wanted).await;
    let taken = site.stack.machines.ids()[0].clone();
    let recommendation = event("EC2 Instance Rebalance Recommendation", &taken);
    site.stack
        .account
        .send_message(&url, &recommendation)
        .await
        .unwrap();

    let nodes = wait::until("the notice at its node", DEADLINE, || async {
        let nodes = site.ask(&["nodes"]).await?;
        Ok(nodes.to_string().contains("rebalance").then_some(nodes))
    });
    nodes.await.unwrap();
    let removal = removed(&site, &taken).await;
    let operations = site.operations().await.unwrap();
    let replacement = operations
        .iter()
        .find(|operation| operation["kind"] == "launch" && operation["decision"] == removal["decision"])
        .unwrap();
    let step = |operation: &Value, phase: &str| {
        let steps = operation["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["phase"] == phase).unwrap();
        step["time"].as_str().unwrap().parse::<Timestamp>().unwrap()
    };
    assert!(
        step(replacement, "done") <= step(&removal, "draining"),
        "{replacement:#} {removal:#}"
    );
    site.running("web", 2).await.unwrap();
    wait::until_true("its Node's end", Duration::from_secs(60), || async {
        Ok(site.nodes().get_opt(&taken).await?.is_none())
    })
    .await
    .unwrap();
}
