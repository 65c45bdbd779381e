//! Drains where pods are processes: they get their signal, their grace and their time, and a budget its due.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use smartscale_tests::rig::kubernetes::{budget, deployment, pod};
use smartscale_tests::rig::wait;
use smartscale_tests::rig::worker::IMAGE;
use smartscale_tests::site::{DEADLINE, End, Ends, Site, node_of};

use crate::{HASTY, STEADY, site, worker};

/// Orders one node fewer, and gives the removal once it has ended.
async fn removal(site: &Site) -> serde_json::Value {
    site.ask(&["scale", "--to", "0"]).await.unwrap();
    site.operation("the removal's end", |operation| {
        operation["kind"] == "remove" && operation["ended"] == true
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_paces_a_drain_in_which_every_pod_finishes_its_work_and_the_machine_never_comes_back() {
    let (site, _) = site("worker-drain", 2, "", HASTY).await;
    // A pod that takes another's place is not Ready at once: until it is, the budget allows none to go.
    let web = worker("web", 3).ready_after(4, &["/work", "check"]);
    site.create(&deployment("web", 4, web)).await.unwrap();
    site.create(&budget("web", 3)).await.unwrap();
    site.running("web", 4).await.unwrap();
    let ends = Ends::watch(site.pods());
    let removal = removal(&site).await;
    assert_eq!(removal["phase"], "done", "{removal:#}");
    let node = removal["nodes"][0].as_str().unwrap();

    let ends = ends.all();
    assert!(!ends.is_empty(), "{removal:#}");
    for end in &ends {
        assert_eq!(
            (end.exit_code, end.message.as_str()),
            (0, "finished its work"),
            "{end:?}"
        );
        assert!((3..=20).contains(&end.took), "{end:?}");
    }
    let evictions = site.stack.cluster.evictions().unwrap();
    assert!(
        evictions.iter().any(|eviction| eviction.code == 429) || ends.len() == 1,
        "{evictions:?}"
    );

    // Nothing registers again, and the name's password goes with the Node.
    assert!(
        !site.workers().unwrap().ids().await.contains(&node.to_owned())
            || site.instances().await.unwrap().len() == 1
    );
    let secrets: Api<Secret> = Api::namespaced(site.stack.cluster.client(), "kube-system");
    wait::until_true("the node's and its password's end", DEADLINE, || async {
        let node_gone = site.nodes().get_opt(node).await?.is_none();
        let password = secrets.get_opt(&format!("{node}.node-password.k3s")).await?;
        Ok(node_gone && password.is_none())
    })
    .await
    .unwrap();
    site.decisions(3).await.unwrap();
    assert!(site.nodes().get_opt(node).await.unwrap().is_none());
    site.running("web", 4).await.unwrap();
}

/// A node with one deaf pod of so much grace, which a forced drain with a deadline of 4 s is to empty: what the drain said,
/// and how the pod ended.
async fn forced(site: &Site, node: &str, grace: i64) -> (String, End) {
    let deaf = pod("deaf")
        .requests("20m", "16Mi")
        .runs(IMAGE, &["deaf"])
        .grace(grace);
    site.create(&deployment("deaf", 1, deaf)).await.unwrap();
    site.running("deaf", 1).await.unwrap();
    let ends = Ends::watch(site.pods());
    let machine = site.worker(node).await.unwrap();
    let drain = ["smartscale-agent", "drain", "--force", "--timeout", "4s"];
    let said = machine.ask(&drain).await.unwrap();
    drop(machine);
    let killed = wait::until("the deaf pod's end", DEADLINE, || async {
        Ok(ends.all().into_iter().next())
    })
    .await
    .unwrap();
    (said, killed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_pod_with_a_long_grace_is_killed_at_the_deadline_of_a_forced_drain() {
    let (site, nodes) = site("worker-deaf", 1, "", STEADY).await;
    let (said, killed) = forced(&site, &nodes[0], 60).await;
    assert!(said.contains("is drained"), "{said}");
    assert_eq!(killed.exit_code, 137, "{killed:?}");
    // Told at its eviction how much of its grace is left: four seconds, and the thirty of a pod that is ended by force.
    assert!((30..=50).contains(&killed.took), "{killed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_drain_waits_for_a_deaf_pods_kill_and_a_drain_goes_on_after_a_reboot() {
    let (site, nodes) = site("worker-forced", 1, "", STEADY).await;
    let id = &nodes[0];
    let (said, killed) = forced(&site, id, 10).await;
    assert!(said.contains("is drained"), "{said}");
    assert_eq!(killed.exit_code, 137, "{killed:?}");

    // Ended in mid-drain by a power cut, on again on the same disk.
    site.order(&["uncordon", id]).await.unwrap();
    site.create(&deployment("web", 2, worker("web", 30)))
        .await
        .unwrap();
    site.running("web", 2).await.unwrap();
    site.order(&["drain", id, "--timeout", "150s"]).await.unwrap();
    wait::until_true("pods to be told", DEADLINE, || async {
        let pods = site.pods().list(&kube::api::ListParams::default()).await?;
        let mut of_node = pods.items.iter().filter(|pod| node_of(pod) == Some(id));
        Ok(of_node.any(|pod| pod.metadata.deletion_timestamp.is_some()))
    })
    .await
    .unwrap();
    let mut machine = site.worker(id).await.unwrap();
    machine.power_off();
    machine.power_on().unwrap();
    drop(machine);
    let ended = site
        .operation("the drain's end", |operation| {
            operation["kind"] == "drain" && operation["ended"] == true && operation["nodes"][0] == id.as_str()
        })
        .await
        .unwrap();
    assert_eq!(ended["phase"], "done", "{ended:#}");
    let pods = site.pods().list(&kube::api::ListParams::default()).await.unwrap();
    assert!(pods.items.iter().all(|pod| node_of(pod) != Some(id)), "{ended:#}");
}
