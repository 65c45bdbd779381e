//! Two coordinators on one table: one acts; killed in the middle of something that lasts, the other goes on where it
//! stood. At which calls it may be killed besides is the list of [`steps`](super::steps).

use std::collections::BTreeSet;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::ListParams;
use serde_json::Value;
use smartscale_tests::rig::ec2::{Fault, When};
use smartscale_tests::rig::kubernetes::{budget, deployment, pod};
use smartscale_tests::rig::machines::ENDS_AFTER;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, policy};

const QUICK: &str = r#"
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

/// Both coordinators; the first leads.
async fn two_coordinators(name: &str, min_nodes: usize) -> Site {
    let limits = format!("[limits]\nmin_nodes = {min_nodes}\n{QUICK}");
    let mut site = Site::start(name, &policy(&limits)).await.unwrap();
    site.start_coordinator(1).unwrap();
    assert_eq!(site.leader().await.unwrap(), 0);
    site
}

/// Waits for an operation of this kind in this phase.
async fn reached(site: &Site, kind: &str, phase: &str) -> Value {
    site.operation(&format!("a {kind} in phase {phase}"), |operation| {
        operation["kind"] == kind && operation["phase"] == phase
    })
    .await
    .unwrap()
}

/// Waits for that operation's good end, under the other leader.
async fn taken_over(site: &Site, operation: &Value) {
    let id = &operation["id"];
    let ended = site
        .operation("the operation's end", |candidate| {
            candidate["id"] == *id && candidate["ended"] == true
        })
        .await
        .unwrap();
    assert_eq!(ended["phase"], "done", "{ended:#}");
    assert_eq!(ended["takeovers"], 1, "{ended:#}");
}

/// A workload that needs a node of its own.
async fn workload(site: &Site, name: &str) {
    let big = pod(name).requests("1500m", "64Mi");
    site.create(&deployment(name, 1, big)).await.unwrap();
}

/// The nodes are the machines, and nothing was ever launched beside them.
async fn books_are_right(site: &Site, nodes: usize, launched: usize) {
    let ready = site.ready_nodes(nodes).await.unwrap();
    for node in &ready {
        site.stack.prometheus.figures().node(node, 0.10, 0.20);
    }
    let mut machines = site.instances().await.unwrap();
    machines.sort();
    assert_eq!(machines, ready);
    assert_eq!(site.launched().await.unwrap().len(), launched);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_launch_call_that_takes_effect_only_after_its_sender_is_dead_launches_once() {
    let mut site = two_coordinators("failover-late", 0).await;
    // It arrives, and takes effect after a while.
    let late = Fault {
        action: "CreateFleet".into(),
        when: When::Before,
        delay_ms: 12_000,
        times: Some(1),
        ..Fault::default()
    };
    site.stack.ec2.set_faults(&[late]).await.unwrap();
    workload(&site, "one").await;
    let launch = reached(&site, "launch", "requesting").await;
    site.fail_over(0).await.unwrap();
    taken_over(&site, &launch).await;
    site.running("one", 1).await.unwrap();
    wait::until_true("the late call's effect", DEADLINE, || async {
        let calls = site.stack.ec2.calls().await?;
        let launches: Vec<_> = calls.iter().filter(|call| call.action == "CreateFleet").collect();
        Ok(launches.len() == 2 && launches.iter().all(|call| call.answer.is_some()))
    })
    .await
    .unwrap();
    books_are_right(&site, 1, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_while_a_removal_waits_for_its_replacement_is_followed_by_one_that_ends_both() {
    let mut site = two_coordinators("failover-recycle", 1).await;
    books_are_right(&site, 1, 1).await;
    reached(&site, "launch", "done").await;
    let former = site.ready_nodes(1).await.unwrap().remove(0);
    // The new machine boots; its agent waits for the secrets of the join.
    site.stack.account.process().pause().unwrap();
    // People may order what the last decision has seen.
    wait::until_true("the order to be taken", DEADLINE, || async {
        site.ask(&["recycle", &former]).await.map(|_| true)
    })
    .await
    .unwrap();
    let launch = reached(&site, "launch", "joining").await;
    let removal = site
        .operation("a removal that waits", |operation| {
            operation["phase"] == "planned" && operation["nodes"][0] == former.as_str()
        })
        .await
        .unwrap();
    site.fail_over(0).await.unwrap();
    site.stack.account.process().resume().unwrap();
    taken_over(&site, &launch).await;
    taken_over(&site, &removal).await;
    books_are_right(&site, 1, 2).await;
    assert_ne!(site.ready_nodes(1).await.unwrap(), [former]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_killed_in_mid_drain_is_followed_by_one_that_evicts_no_terminating_pod_again() {
    let mut site = two_coordinators("failover-drain", 1).await;
    site.ask(&["scale", "--to", "2"]).await.unwrap();
    books_are_right(&site, 2, 2).await;
    // Each takes longer to end than a take-over lasts.
    let web = pod("web")
        .requests("400m", "64Mi")
        .grace(30)
        .annotation(ENDS_AFTER, "10");
    site.create(&deployment("web", 4, web)).await.unwrap();
    site.create(&budget("web", 2)).await.unwrap();
    let before = site.running("web", 4).await.unwrap();
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(site.stack.cluster.client());
    wait::until_true("the budget to be counted", DEADLINE, || async {
        let status = budgets.get("web").await?.status.unwrap_or_default();
        Ok(status.disruptions_allowed == Some(2))
    })
    .await
    .unwrap();

    site.ask(&["scale", "--to", "0"]).await.unwrap();
    let removal = reached(&site, "remove", "draining").await;
    let node = removal["nodes"][0].as_str().unwrap();
    let leaving: BTreeSet<String> = before
        .iter()
        .filter(|pod| node_of(pod) == Some(node))
        .filter_map(|pod| pod.metadata.name.clone())
        .collect();
    wait::until_true("pods to be on their way out", DEADLINE, || async {
        let all = site.pods().list(&ListParams::default().labels("app=web")).await?;
        let terminating = all
            .items
            .iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_some());
        Ok(terminating.count() == leaving.len())
    })
    .await
    .unwrap();
    site.fail_over(0).await.unwrap();
    taken_over(&site, &removal).await;
    site.running("web", 4).await.unwrap();
    books_are_right(&site, 1, 2).await;

    let evictions = site.stack.cluster.evictions().unwrap();
    let accepted: Vec<&str> = evictions
        .iter()
        .filter(|eviction| eviction.code == 201)
        .map(|eviction| eviction.pod.as_str())
        .collect();
    let evicted: BTreeSet<String> = accepted.iter().map(|pod| (*pod).to_owned()).collect();
    assert_eq!(evicted, leaving);
    assert_eq!(accepted.len(), leaving.len(), "each once: {evictions:?}");
    assert!(
        evictions
            .iter()
            .all(|eviction| eviction.user == format!("system:node:{node}")),
        "by the node's own agent: {evictions:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_end_hands_its_lease_over_and_leaves_nothing_undone() {
    let mut site = two_coordinators("handover", 0).await;
    let watching = site.watch().unwrap();
    // The machine boots; its agent waits for the secrets of the join.
    site.stack.account.process().pause().unwrap();
    workload(&site, "one").await;
    let launch = reached(&site, "launch", "joining").await;
    let ended = site.coordinator(0).unwrap().stop().await.unwrap();
    assert!(ended.success(), "{ended}");
    assert!(site.logged(0, &["handing the lease over"]).unwrap());
    site.stack.account.process().resume().unwrap();
    taken_over(&site, &launch).await;
    site.running("one", 1).await.unwrap();
    books_are_right(&site, 1, 1).await;
    // Who watches goes on with the successor.
    wait::until_true("the watch to tell the launch's end", DEADLINE, || async {
        Ok(std::fs::read_to_string(watching.log())?.contains("is a Ready node"))
    })
    .await
    .unwrap();
}
