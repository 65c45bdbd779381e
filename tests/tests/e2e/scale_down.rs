//! A node that is not needed is drained under its pods' budgets, terminated, and forgotten, in that order.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use smartscale_tests::rig::kubernetes::{budget, deployment, pod};
use smartscale_tests::rig::machines::ENDS_AFTER;
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, node_of, phase, policy};

/// Removals as soon as they are possible.
const QUICK: &str = r#"
[limits]
min_nodes = 1
[scale_up]
reading_interval = "1s"
[scale_down]
when = "fits"
sustained = "2s"
cooldown = "1s"
min_age = "1s"
"#;

fn with_drains_of(timeout: &str) -> String {
    format!("{QUICK}[drain]\ntimeout = \"{timeout}\"\n")
}

/// Two nodes with two pods of `web` each, and a budget that lets go of one at a time. Gives the nodes.
async fn two_nodes_with_pods(site: &mut Site) -> Vec<String> {
    site.ask(&["scale", "--to", "2", "--for", "1h"]).await.unwrap();
    let nodes = site.ready_nodes(2).await.unwrap();
    for node in &nodes {
        site.stack.prometheus.figures().node(node, 0.10, 0.20);
    }
    let web = pod("web")
        .requests("400m", "64Mi")
        .grace(10)
        .annotation(ENDS_AFTER, "1");
    site.create(&deployment("web", 4, web)).await.unwrap();
    site.create(&budget("web", 3)).await.unwrap();
    let pods = site.running("web", 4).await.unwrap();
    let homes: BTreeSet<_> = pods.iter().filter_map(node_of).collect();
    assert_eq!(homes.len(), 2, "the scheduler spread them");
    nodes
}

/// How one node's removal looked from outside, each change once.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    pods: bool,
    machine: bool,
    node: bool,
}

/// Watches the nodes of a site until the task is aborted.
struct Watcher {
    sights: Arc<Mutex<Vec<(String, Sight)>>>,
    fewest_running: Arc<Mutex<usize>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    async fn start(site: &Site, nodes: &[String]) -> Self {
        let sights = Arc::new(Mutex::new(Vec::new()));
        let fewest_running = Arc::new(Mutex::new(usize::MAX));
        let (pods, kube_nodes, ec2) = (site.pods(), site.nodes(), site.stack.ec2.client().await);
        let names = nodes.to_vec();
        let (seen, fewest) = (Arc::clone(&sights), Arc::clone(&fewest_running));
        let task = tokio::spawn(async move {
            loop {
                // In the reverse of the order that is expected, so that a change between two looks is never
                // mistaken for a wrong order.
                let there = kube_nodes.list(&ListParams::default()).await.unwrap();
                let machines = running(&ec2).await;
                let all = pods.list(&ListParams::default().labels("app=web")).await.unwrap();
                for name in &names {
                    let sight = Sight {
                        pods: all.items.iter().any(|pod| node_of(pod) == Some(name)),
                        machine: machines.contains(name),
                        node: there
                            .items
                            .iter()
                            .any(|node| node.metadata.name.as_ref() == Some(name)),
                    };
                    let mut seen = seen.lock().unwrap();
                    let last = seen.iter().rev().find(|(other, _)| other == name);
                    if last.is_none_or(|(_, last)| *last != sight) {
                        seen.push((name.clone(), sight));
                    }
                }
                let running = all.items.iter().filter(|pod| is_available(pod)).count();
                {
                    let mut fewest = fewest.lock().unwrap();
                    *fewest = (*fewest).min(running);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self {
            sights,
            fewest_running,
            task,
        }
    }

    fn of(&self, node: &str) -> Vec<Sight> {
        let sights = self.sights.lock().unwrap();
        let of = sights.iter().filter(|(name, _)| name == node);
        of.map(|(_, sight)| sight.clone()).collect()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn running(ec2: &aws_sdk_ec2::Client) -> BTreeSet<String> {
    use aws_sdk_ec2::types::{InstanceStateName, Reservation};
    let described = ec2.describe_instances().send().await.unwrap();
    described
        .reservations()
        .iter()
        .flat_map(Reservation::instances)
        .filter(|instance| {
            instance.state().and_then(|state| state.name()) == Some(&InstanceStateName::Running)
        })
        .filter_map(|instance| instance.instance_id().map(str::to_owned))
        .collect()
}

fn is_available(pod: &Pod) -> bool {
    phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_node_is_drained_under_its_budget_then_terminated_then_forgotten() {
    let mut site = Site::start("scale-down", &policy(&with_drains_of("60s")))
        .await
        .unwrap();
    let nodes = two_nodes_with_pods(&mut site).await;
    let watcher = Watcher::start(&site, &nodes).await;

    // The floor goes; one node is enough for all four pods.
    site.ask(&["scale", "--to", "0"]).await.unwrap();
    let removal = site
        .operation("the removal's end", |operation| {
            operation["kind"] == "remove" && operation["phase"] == "done"
        })
        .await
        .unwrap();
    let gone = removal["nodes"][0].as_str().unwrap();
    let phases: Vec<&str> = removal["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["phase"].as_str())
        .collect();
    assert_eq!(
        phases,
        [
            "planned",
            "draining",
            "stopping",
            "terminating",
            "forgetting",
            "done"
        ]
    );
    let left = site.ready_nodes(1).await.unwrap();
    assert_ne!(left[0], gone);
    let pods = site.running("web", 4).await.unwrap();
    assert!(pods.iter().all(|pod| node_of(pod) == Some(&left[0])));
    assert_eq!(site.instances().await.unwrap(), left);

    // Seen from outside: pods, then the machine, then the Node; and never more pods away than the budget has.
    let sight = |pods, machine, node| Sight { pods, machine, node };
    let order = [
        sight(true, true, true),
        sight(false, true, true),
        sight(false, false, true),
        sight(false, false, false),
    ];
    let seen = watcher.of(gone);
    let places: Vec<_> = seen
        .iter()
        .map(|sight| order.iter().position(|step| step == sight))
        .collect();
    assert!(places.iter().all(Option::is_some), "{seen:?}");
    assert!(places.is_sorted(), "{seen:?}");
    assert!(
        *watcher.fewest_running.lock().unwrap() >= 3,
        "the budget was kept"
    );
    // The agent did it: had it been silent, the coordinator would have gone through the API.
    assert!(
        !removal["steps"].to_string().contains("through the API"),
        "{removal:#}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_whose_budget_stays_closed_is_given_up_at_its_deadline_reported_and_tried_again_later() {
    let mut site = Site::start("closed-budget", &policy(&with_drains_of("8s")))
        .await
        .unwrap();
    two_nodes_with_pods(&mut site).await;
    let budgets: Api<PodDisruptionBudget> = Api::default_namespaced(site.stack.cluster.client());
    let at_least = async |count: i32| {
        let patch = Patch::Merge(json!({"spec": {"minAvailable": count}}));
        budgets
            .patch("web", &PatchParams::default(), &patch)
            .await
            .unwrap();
    };

    // The budget closes as soon as the drain has begun.
    site.ask(&["scale", "--to", "0"]).await.unwrap();
    let removal = site
        .operation("a drain", |operation| {
            operation["kind"] == "remove" && operation["phase"] == "draining"
        })
        .await
        .unwrap();
    at_least(4).await;
    let node = removal["nodes"][0].as_str().unwrap();
    let given_up = site
        .operation("the drain to be given up", |operation| {
            operation["id"] == removal["id"] && operation["phase"] == "aborted"
        })
        .await
        .unwrap();
    let error = given_up["error"].as_str().unwrap();
    assert!(
        error.contains("default/web-"),
        "it names the pods that stayed: {error}"
    );
    wait::until_true("the node to take pods again", DEADLINE, || async {
        let spec = site.nodes().get(node).await?.spec.unwrap_or_default();
        Ok(!spec.unschedulable.unwrap_or_default())
    })
    .await
    .unwrap();
    wait::until_true("the report", DEADLINE, || async {
        let messages = site.stack.account.take_messages(&site.stack.topic).await?;
        Ok(messages
            .iter()
            .any(|text| text.contains("aborted") && text.contains("default/web-")))
    })
    .await
    .unwrap();
    let blockers = site.ask(&["blockers"]).await.unwrap();
    assert!(blockers.to_string().contains("default/web"), "{blockers:#}");
    assert_eq!(site.ready_nodes(2).await.unwrap().len(), 2);

    // It opens again: the removal is tried once more, and ends.
    at_least(3).await;
    site.operation("another removal's end", |operation| {
        operation["kind"] == "remove" && operation["phase"] == "done" && operation["id"] != removal["id"]
    })
    .await
    .unwrap();
    site.ready_nodes(1).await.unwrap();
    site.running("web", 4).await.unwrap();
}
