//! Agents that die in mid-drain, and machines that EC2 takes back while no coordinator is there.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::machines::ENDS_AFTER;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

const QUICK: &str = r#"
[limits]
min_nodes = 1
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "1s"
cooldown = "1s"
min_age = "1s"
[drain]
timeout = "60s"
"#;

/// Two nodes with two pods of `web` each, which take `end` to end.
async fn two_nodes_with_pods(site: &Site, end: &str) {
    site.ask(&["scale", "--to", "2"]).await.unwrap();
    for node in &site.ready_nodes(2).await.unwrap() {
        site.stack.prometheus.figures().node(node, 0.10, 0.20);
    }
    let web = pod("web")
        .requests("400m", "64Mi")
        .grace(30)
        .annotation(ENDS_AFTER, end);
    site.create(&deployment("web", 4, web)).await.unwrap();
    site.running("web", 4).await.unwrap();
}

/// Waits until pods on this node are being ended.
async fn pods_leave(site: &Site, node: &str) {
    wait::until_true("pods to leave", DEADLINE, || async {
        let all = site.pods().list(&ListParams::default()).await?;
        Ok(all
            .items
            .iter()
            .any(|pod| node_of(pod) == Some(node) && pod.metadata.deletion_timestamp.is_some()))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_in_mid_drain_goes_on_after_its_restart() {
    let site = Site::start("agent-killed", &policy(QUICK)).await.unwrap();
    two_nodes_with_pods(&site, "4").await;
    site.ask(&["scale", "--to", "0"]).await.unwrap();
    let removal = site
        .operation("a drain", |operation| operation["phase"] == "draining")
        .await
        .unwrap();
    let node = removal["nodes"][0].as_str().unwrap();
    pods_leave(&site, node).await;
    site.stack
        .machines
        .with(node, |machine| machine.kill_agent(false))
        .unwrap();
    let ended = site
        .operation("the removal's end", |operation| {
            operation["id"] == removal["id"] && operation["ended"] == true
        })
        .await
        .unwrap();
    assert_eq!(ended["phase"], "done", "{ended:#}");
    assert!(
        !ended["steps"].to_string().contains("through the API"),
        "{ended:#}"
    );
    let evictions = site.stack.cluster.evictions().unwrap();
    let accepted: Vec<_> = evictions.iter().filter(|eviction| eviction.code == 201).collect();
    let pods: BTreeSet<_> = accepted.iter().map(|eviction| &eviction.pod).collect();
    assert_eq!(pods.len(), accepted.len(), "no pod twice: {evictions:?}");
    site.running("web", 4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_agent_stays_dead_is_drained_through_the_api() {
    let site = Site::start("agent-dead", &policy(QUICK)).await.unwrap();
    two_nodes_with_pods(&site, "4").await;
    site.ask(&["scale", "--to", "0"]).await.unwrap();
    let removal = site
        .operation("a drain", |operation| operation["phase"] == "draining")
        .await
        .unwrap();
    let node = removal["nodes"][0].as_str().unwrap();
    site.stack
        .machines
        .with(node, |machine| machine.kill_agent(true))
        .unwrap();
    let ended = site
        .operation("the removal's end", |operation| {
            operation["id"] == removal["id"] && operation["ended"] == true
        })
        .await
        .unwrap();
    assert_eq!(ended["phase"], "done", "{ended:#}");
    assert!(
        ended["steps"].to_string().contains("through the API"),
        "{ended:#}"
    );
    let left = site.ready_nodes(1).await.unwrap();
    assert_eq!(site.instances().await.unwrap(), left);
    site.running("web", 4).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spot_notice_drains_the_node_although_no_coordinator_is_there_and_is_reported_when_one_is_back() {
    let mut site = Site::start("spot-alone", &policy(QUICK)).await.unwrap();
    two_nodes_with_pods(&site, "1").await;
    let taken = site.stack.machines.ids()[0].clone();
    site.coordinator(0).unwrap().kill();

    let in_two_minutes = Timestamp::now() + SignedDuration::from_secs(120);
    site.stack
        .machines
        .with(&taken, |machine| {
            machine.imds().unwrap().interrupt("terminate", in_two_minutes);
        })
        .unwrap();
    wait::until_true("the node to be empty and cordoned", DEADLINE, || async {
        let spec = site.nodes().get(&taken).await?.spec.unwrap_or_default();
        let pods = site.pods().list(&ListParams::default()).await?;
        let empty = pods.items.iter().all(|pod| node_of(pod) != Some(&taken));
        Ok(empty && spec.unschedulable == Some(true))
    })
    .await
    .unwrap();
    let evictions = site.stack.cluster.evictions().unwrap();
    assert!(!evictions.is_empty());
    assert!(
        evictions
            .iter()
            .all(|eviction| eviction.user == format!("system:node:{taken}")),
        "{evictions:?}"
    );

    site.start_coordinator(0).unwrap();
    let removal = site
        .operation("the removal of what EC2 takes", |operation| {
            operation["kind"] == "remove"
                && operation["nodes"][0] == taken.as_str()
                && operation["phase"] == "done"
        })
        .await
        .unwrap();
    assert!(
        removal["reason"].as_str().unwrap().contains("spot interruption"),
        "{removal:#}"
    );
    wait::until_true("the notification", DEADLINE, || async {
        let messages = site.stack.account.take_messages(&site.stack.topic).await?;
        Ok(messages
            .iter()
            .any(|text| text.contains("\"noticed\"") && text.contains(&taken)))
    })
    .await
    .unwrap();
    wait::until_true("its Node's end", Duration::from_secs(60), || async {
        Ok(site.nodes().get_opt(&taken).await?.is_none())
    })
    .await
    .unwrap();
    assert!(!site.instances().await.unwrap().contains(&taken));
    site.running("web", 4).await.unwrap();
}
