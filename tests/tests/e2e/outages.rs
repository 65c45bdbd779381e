//! A part that everything needs is away for longer than the deadlines that depend on it: nothing is done twice, nothing
//! without need, and with its return all goes on.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::Value;
use smartscale_tests::rig::ec2::Fault;
use smartscale_tests::rig::kubernetes::{deployment, pod};
use smartscale_tests::rig::machines::ENDS_AFTER;
use smartscale_tests::rig::skew::skewed;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, LEASE, Site, policy};

/// A machine that is not Ready by then is replaced, and a drain is given up.
const SHORT: Duration = Duration::from_secs(10);
/// A drain that outlasts what is away.
const LONG: Duration = Duration::from_secs(120);

fn quick(drain: Duration) -> String {
    policy(&format!(
        r#"
[limits]
min_nodes = 0
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "1s"
cooldown = "1s"
min_age = "1s"
[drain]
timeout = "{}s"
"#,
        drain.as_secs()
    ))
}

/// A workload that needs a node of its own.
async fn workload(site: &Site, name: &str) {
    let big = pod(name)
        .requests("1500m", "64Mi")
        .grace(30)
        .annotation(ENDS_AFTER, "3");
    site.create(&deployment(name, 1, big)).await.unwrap();
}

async fn delete_workload(site: &Site, name: &str) {
    let workloads: Api<Deployment> = Api::default_namespaced(site.stack.cluster.client());
    workloads.delete(name, &DeleteParams::background()).await.unwrap();
}

/// Has so many idle nodes, all their workloads running.
async fn nodes_with(site: &Site, names: &[&str]) -> Vec<String> {
    for name in names {
        site.running(name, 1).await.unwrap();
    }
    let nodes = site.books(names.len()).await.unwrap();
    for node in &nodes {
        site.stack.prometheus.figures().node(node, 0.10, 0.20);
    }
    nodes
}

async fn reached(site: &Site, kind: &str, phase: &str) -> Value {
    site.operation(&format!("a {kind} in phase {phase}"), |operation| {
        operation["kind"] == kind && operation["phase"] == phase
    })
    .await
    .unwrap()
}

/// Waits until so much time has passed.
async fn pass(time: Duration) {
    let began = Instant::now();
    wait::until_true("the time to pass", 2 * time, || async {
        Ok(began.elapsed() >= time)
    })
    .await
    .unwrap();
}

async fn logged(site: &Site, index: usize, words: &[&str]) {
    wait::until_true(&format!("{words:?} in the log"), DEADLINE, || async {
        site.logged(index, words)
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_of_ec2_failing_for_longer_than_a_deadline_costs_no_machine_and_no_operation() {
    let mut site = Site::new("ec2-away", &quick(SHORT)).await.unwrap();
    let short = format!("[timing]\nready = \"{}s\"", SHORT.as_secs());
    site.configure(0, "[timing]", &short).unwrap();
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    let all = Fault {
        action: "*".into(),
        code: Some("InternalError".into()),
        status: Some(500),
        ..Fault::default()
    };

    // Longer than a machine may take to be Ready.
    site.stack
        .ec2
        .set_faults(std::slice::from_ref(&all))
        .await
        .unwrap();
    workload(&site, "one").await;
    let launch = reached(&site, "launch", "requesting").await;
    pass(SHORT + Duration::from_secs(2)).await;
    let status = site.ask(&["status"]).await.unwrap();
    let sources = status["sources"].as_array().unwrap();
    let fleet = sources.iter().find(|source| source["source"] == "fleet").unwrap();
    assert!(
        fleet["error"].as_str().is_some_and(|error| !error.is_empty()),
        "{status:#}"
    );
    site.stack.ec2.set_faults(&[]).await.unwrap();
    nodes_with(&site, &["one"]).await;
    let launches = site.operations().await.unwrap();
    assert_eq!(launches.len(), 1, "{launches:#?}");
    assert_eq!(
        (&launches[0]["id"], &launches[0]["phase"]),
        (&launch["id"], &"done".into())
    );
    assert_eq!(site.launched().await.unwrap().len(), 1);

    // Longer than a drain may take.
    site.stack.ec2.set_faults(&[all]).await.unwrap();
    delete_workload(&site, "one").await;
    let removal = reached(&site, "remove", "terminating").await;
    pass(SHORT + Duration::from_secs(2)).await;
    site.stack.ec2.set_faults(&[]).await.unwrap();
    site.books(0).await.unwrap();
    let operations = site.operations().await.unwrap();
    assert_eq!(operations.len(), 2, "{operations:#?}");
    assert_eq!(
        (&operations[0]["id"], &operations[0]["phase"]),
        (&removal["id"], &"done".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_in_mid_drain_delays_it_and_no_pod_is_evicted_twice() {
    // The room that is launched for the replaced node's pod is given to nobody else's.
    let mut site = Site::start("api-away", &quick(LONG)).await.unwrap();
    workload(&site, "one").await;
    workload(&site, "two").await;
    nodes_with(&site, &["one", "two"]).await;
    let before = site.running("one", 1).await.unwrap();
    let node = smartscale_tests::site::node_of(&before[0]).unwrap().to_owned();

    site.ask(&["recycle", &node]).await.unwrap();
    site.operation("the drain", |operation| {
        operation["phase"] == "draining" && operation["nodes"][0] == node.as_str()
    })
    .await
    .unwrap();
    wait::until_true("the pod to be on its way out", DEADLINE, || async {
        let all = site.pods().list(&ListParams::default().labels("app=one")).await?;
        Ok(all
            .items
            .iter()
            .any(|pod| pod.metadata.deletion_timestamp.is_some()))
    })
    .await
    .unwrap();
    site.stack.cluster.api_server().kill();
    wait::until_true("the status to say so", DEADLINE, || async {
        let status = site.ask(&["status"]).await?;
        Ok(status["warnings"]
            .to_string()
            .contains("kubernetes last answered"))
    })
    .await
    .unwrap();
    let there = site.instances().await.unwrap();
    assert!(there.contains(&node), "nothing is terminated unseen: {there:?}");
    site.stack.cluster.api_server().start().unwrap();
    site.stack.cluster.serving().await.unwrap();

    site.operation("the removal's end", |operation| {
        operation["phase"] == "done"
            && operation["nodes"][0] == node.as_str()
            && operation["kind"] != "launch"
    })
    .await
    .unwrap();
    site.running("one", 1).await.unwrap();
    site.running("two", 1).await.unwrap();
    let nodes = site.books(2).await.unwrap();
    assert!(!nodes.contains(&node));
    assert_eq!(site.launched().await.unwrap().len(), 3);
    let evictions = site.stack.cluster.evictions().unwrap();
    let accepted: Vec<_> = evictions.iter().filter(|eviction| eviction.code == 201).collect();
    let pods: BTreeSet<_> = accepted.iter().map(|eviction| &eviction.pod).collect();
    assert_eq!((pods.len(), accepted.len()), (1, 1), "{evictions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_away_for_longer_than_two_leases_leaves_nobody_in_charge_and_then_one() {
    let mut site = Site::start("table-away", &quick(LONG)).await.unwrap();
    site.start_coordinator(1).unwrap();
    workload(&site, "one").await;
    nodes_with(&site, &["one"]).await;
    // The machine boots; its agent waits for the secrets of the join.
    site.stack.account.process().pause().unwrap();
    workload(&site, "two").await;
    let launch = reached(&site, "launch", "joining").await;

    site.stack.dynamodb.process().pause().unwrap();
    logged(&site, 0, &["no longer the leader"]).await;
    workload(&site, "three").await;
    site.stack.account.process().resume().unwrap();
    pass(2 * LEASE + Duration::from_secs(2)).await;
    for index in [0, 1] {
        assert!(site.coordinator(index).unwrap().exited().unwrap().is_none());
    }
    let status = site.ask(&["status"]).await.unwrap();
    assert_eq!(status["leading"], false, "{status:#}");
    assert_eq!(
        site.launched().await.unwrap().len(),
        2,
        "nothing is begun meanwhile"
    );
    site.stack.dynamodb.process().resume().unwrap();

    nodes_with(&site, &["one", "two", "three"]).await;
    assert_eq!(site.launched().await.unwrap().len(), 3);
    let operations = site.operations().await.unwrap();
    let ended = operations
        .iter()
        .find(|operation| operation["id"] == launch["id"]);
    assert_eq!(ended.unwrap()["phase"], "done", "{operations:#?}");
    let epochs = (0..2).map(|index| terms(&site, index)).collect::<Vec<_>>();
    assert!(
        epochs[0].is_disjoint(&epochs[1]),
        "a term has one leader: {epochs:?}"
    );
}

/// The terms that a coordinator led.
fn terms(site: &Site, index: usize) -> BTreeSet<String> {
    let name = ["coordinator-a", "coordinator-b"][index];
    let log = site.stack.folder().path().join(format!("logs/{name}.log"));
    let text = std::fs::read_to_string(log).unwrap();
    let said = text
        .lines()
        .filter_map(|line| line.split_once("leader, term ").map(|(_, term)| term));
    said.map(|term| term.chars().take_while(char::is_ascii_digit).collect())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_clock_is_ten_minutes_ahead_leads_like_another_and_its_successor_goes_on() {
    const AHEAD: i64 = 600;
    let mut site = Site::start("clock-off", &quick(LONG)).await.unwrap();
    let program = site.coordinator_program(1).unwrap();
    let program = skewed(program, site.stack.folder(), AHEAD).unwrap();
    site.run_coordinator(1, program).unwrap();
    workload(&site, "one").await;
    nodes_with(&site, &["one"]).await;
    assert_eq!(site.leader().await.unwrap(), 0, "its clock makes no lease old");

    // A launch of the one that is right, ended by the one that is ahead.
    site.stack.account.process().pause().unwrap();
    workload(&site, "two").await;
    reached(&site, "launch", "joining").await;
    site.fail_over(0).await.unwrap();
    site.stack.account.process().resume().unwrap();
    nodes_with(&site, &["one", "two"]).await;
    // One of its own.
    workload(&site, "three").await;
    nodes_with(&site, &["one", "two", "three"]).await;
    // A removal of it, ended by the one that is right.
    site.start_coordinator(0).unwrap();
    let late = Fault {
        action: "TerminateInstances".into(),
        delay_ms: 12_000,
        times: Some(1),
        ..Fault::default()
    };
    site.stack.ec2.set_faults(&[late]).await.unwrap();
    delete_workload(&site, "one").await;
    reached(&site, "remove", "terminating").await;
    site.fail_over(1).await.unwrap();
    nodes_with(&site, &["two", "three"]).await;
    // One of its own, although the last one's time lies ahead.
    delete_workload(&site, "two").await;
    nodes_with(&site, &["three"]).await;
    assert_eq!(site.launched().await.unwrap().len(), 3);
    // The one that is ahead wrote the API server's time.
    let soon = Timestamp::now() + SignedDuration::from_secs(AHEAD / 2);
    for operation in site.operations().await.unwrap() {
        let began: Timestamp = operation["started_at"].as_str().unwrap().parse().unwrap();
        assert!(began < soon, "{operation:#}");
    }
}
