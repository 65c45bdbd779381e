//! A bare machine becomes a worker by its user-data, and keeps its pods when the agent is replaced; a name that another disk
//! had heals when the old Node goes.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::Api;
use kube::api::DeleteParams;
use smartscale_tests::rig::kubernetes::deployment;
use smartscale_tests::rig::wait;
use smartscale_tests::rig::worker::Worker;
use smartscale_tests::site::DEADLINE;

use crate::{BOOT, STEADY, site, worker};

const SECOND: Duration = Duration::from_secs(1);

fn label<'a>(node: &'a Node, key: &str) -> &'a str {
    node.metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(key))
        .map_or("", String::as_str)
}

/// What must stay as it is: the pods by uid, and that no container was started again.
fn lives(pods: &[Pod]) -> Vec<(String, i32)> {
    let mut lives: Vec<_> = pods
        .iter()
        .map(|pod| {
            let statuses = pod.status.clone().and_then(|status| status.container_statuses);
            let restarts = statuses
                .unwrap_or_default()
                .iter()
                .map(|status| status.restart_count)
                .sum();
            (pod.metadata.uid.clone().unwrap_or_default(), restarts)
        })
        .collect();
    lives.sort();
    lives
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_joins_from_user_data_alone_and_keeps_its_pods_through_an_upgrade_of_the_agent() {
    let (site, nodes) = site("worker-join", 1, "", STEADY).await;
    let id = &nodes[0];
    let node = site.nodes().get(id).await.unwrap();
    assert_eq!(label(&node, "smartscale.io/pool"), "workers");
    assert_eq!(label(&node, "node.kubernetes.io/instance-type"), "t3.small");
    let zone = label(&node, "topology.kubernetes.io/zone");
    let spec = node.spec.clone().unwrap();
    assert_eq!(
        spec.provider_id.as_deref(),
        Some(format!("aws:///{zone}/{id}").as_str())
    );
    let info = node.status.unwrap().node_info.unwrap();
    assert!(
        info.container_runtime_version.starts_with("containerd://"),
        "{info:?}"
    );

    site.create(&deployment("web", 3, worker("web", 1)))
        .await
        .unwrap();
    let before = lives(&site.running("web", 3).await.unwrap());

    // The package of the next version: it restarts the agent, whose session goes on without another enrolment.
    let machine = site.worker(id).await.unwrap();
    let identity = ["sha256sum", "/var/lib/smartscale/enrolment.json"];
    let before_upgrade = machine.ask(&identity).await.unwrap();
    let first = machine
        .ask(&[
            "systemctl",
            "show",
            "--property=MainPID",
            "--value",
            "smartscale-agent",
        ])
        .await
        .unwrap();
    machine
        .install(&site.workers().unwrap().image().next_package())
        .await
        .unwrap();
    let second = machine
        .ask(&[
            "systemctl",
            "show",
            "--property=MainPID",
            "--value",
            "smartscale-agent",
        ])
        .await
        .unwrap();
    assert_ne!(first, second);
    wait::until_true("the session of the new agent", DEADLINE, || async {
        let log = machine.log("smartscale-agent")?;
        Ok(log.matches("in session with the coordinator").count() == 2)
    })
    .await
    .unwrap();
    assert_eq!(machine.ask(&identity).await.unwrap(), before_upgrade);
    let installed = [
        "dpkg-query",
        "--show",
        "--showformat=${Version}",
        "smartscale-agent",
    ];
    assert_eq!(machine.ask(&installed).await.unwrap(), "9.0.0");
    drop(machine);
    assert_eq!(lives(&site.running("web", 3).await.unwrap()), before);

    // K3s itself restarted: it registers again under its name, and the pods go on.
    let machine = site.worker(id).await.unwrap();
    machine.ask(&["systemctl", "stop", "k3s-agent"]).await.unwrap();
    let shims = machine
        .ask(&["sh", "-c", "pgrep -c -f containerd-shim-runc-v2"])
        .await
        .unwrap();
    assert!(shims.trim().parse::<u32>().unwrap() >= 3, "{shims}");
    machine.ask(&["systemctl", "start", "k3s-agent"]).await.unwrap();
    drop(machine);
    site.ready_nodes(1).await.unwrap();
    assert_eq!(lives(&site.running("web", 3).await.unwrap()), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_and_an_expired_token_are_named_and_a_name_with_another_password_heals_with_its_nodes_end() {
    let (site, nodes) = site("worker-token", 1, "", STEADY).await;
    let id = &nodes[0];
    let server = site.workers().unwrap().server();
    let right = server.token().to_owned();
    let expired = server
        .bootstrap_token(jiff::Timestamp::now() - 60 * SECOND)
        .await
        .unwrap();
    let wrong_secret = format!("{right}x");
    let (_, rest) = right.split_once("::").unwrap();
    let wrong_ca = format!("K10{}::{rest}", "0".repeat(64));
    let machine = site.worker(id).await.unwrap();
    machine
        .ask(&["systemctl", "stop", "smartscale-agent", "k3s-agent"])
        .await
        .unwrap();
    site.nodes().delete(id, &DeleteParams::default()).await.unwrap();
    // The name's password goes with the Node, a moment later.
    let secrets: Api<Secret> = Api::namespaced(site.stack.cluster.client(), "kube-system");
    let password = format!("{id}.node-password.k3s");
    wait::until_true("the password's end", DEADLINE, || async {
        Ok(secrets.get_opt(&password).await?.is_none())
    })
    .await
    .unwrap();
    // What K3s keeps of its first join: a machine that comes to the cluster anew.
    machine
        .ask(&["rm", "-f", "/var/lib/rancher/k3s/agent/client-kubelet.crt"])
        .await
        .unwrap();
    let token_file = "/run/smartscale/k3s-token";
    for (token, said) in [
        (&wrong_secret, "not authorized"),
        (&wrong_ca, "token CA hash does not match"),
        (&expired, "http: ContentLength=189 with Body length 0"),
    ] {
        let write = format!("printf %s '{token}' >{token_file}");
        machine.ask(&["mkdir", "-p", "/run/smartscale"]).await.unwrap();
        machine.ask(&["sh", "-c", &write]).await.unwrap();
        restart(&machine).await;
        machine.logged("k3s-agent", &[said], BOOT).await.unwrap();
    }
    let write = format!("printf %s '{right}' >{token_file}");
    machine.ask(&["sh", "-c", &write]).await.unwrap();
    restart(&machine).await;
    drop(machine);
    // Ready: its unit has started, so that the next restart has nothing to wait for.
    wait::until_true("the node", BOOT, || async {
        let node = site.nodes().get_opt(id).await?;
        Ok(node.is_some_and(|node| smartscale_tests::rig::is_ready(&node)))
    })
    .await
    .unwrap();

    // The name on another disk: the password is gone, the Node with the old one's hash is there.
    let machine = site.worker(id).await.unwrap();
    machine.ask(&["rm", "/etc/rancher/node/password"]).await.unwrap();
    restart(&machine).await;
    machine
        .logged("k3s-agent", &["403", "Node password rejected"], BOOT)
        .await
        .unwrap();
    drop(machine);
    site.nodes().delete(id, &DeleteParams::default()).await.unwrap();
    let nodes = site.nodes();
    wait::until_true("the healed node", BOOT, || async {
        let node = nodes.get_opt(id).await?;
        Ok(node.is_some_and(|node| smartscale_tests::rig::is_ready(&node)))
    })
    .await
    .unwrap();
}

/// Starts K3s anew, however often that was done within the last seconds: systemd's limit (five in ten) is not what is tested.
async fn restart(machine: &Worker) {
    for words in [
        &["systemctl", "reset-failed", "k3s-agent"][..],
        &["systemctl", "--no-block", "restart", "k3s-agent"],
    ] {
        machine.ask(words).await.unwrap();
    }
}
