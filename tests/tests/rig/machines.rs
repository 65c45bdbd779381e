//! The boot watcher: an instance becomes a node, its end makes the node fall silent.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use aws_sdk_ec2::types::InstanceType;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, PostParams};
use serde_json::json;
use smartscale_tests::rig::aws::{ACCOUNT, REGION};
use smartscale_tests::rig::kubernetes::{Timings, pod};
use smartscale_tests::rig::machines::{self, BootWatcher, ENDS_AFTER, Settings};
use smartscale_tests::rig::{Ec2, Folder, Kubernetes, Ministack, Supervisor, is_ready, wait};

const DEADLINE: Duration = Duration::from_secs(60);

/// An agent that does nothing but what makes K3s start, from its configuration (`--config FILE run`).
const MINIMAL_AGENT: &str = r#"#!/bin/sh
home=$(dirname "$2")
id=$(basename "$home")
printf '%s' 'JOIN_TOKEN' >"$home/run/smartscale/k3s-token"
cat >"$home/etc/rancher/k3s/config.yaml.d/90-smartscale.yaml" <<END
server: "https://127.0.0.1:6443"
token-file: "$home/run/smartscale/k3s-token"
node-name: "$id"
kubelet-arg+:
  - "provider-id=aws:///us-east-1b/$id"
node-label+:
  - "smartscale.io/pool=general"
  - "node.kubernetes.io/instance-type=m5.xlarge"
node-taint+:
  - "smartscale.io/unverified=true:NoSchedule"
END
"$home/bin/systemctl" --no-block start k3s-agent.service
exec sleep 1000
"#;

/// Launches one `m5.xlarge` in zone b and gives its id.
async fn launch(ec2: &Ec2) -> String {
    let world = ec2.create_world("workers", "worker", "").await.unwrap();
    let launched = ec2
        .client()
        .await
        .run_instances()
        .image_id(&world.image)
        .instance_type(InstanceType::M5Xlarge)
        .subnet_id(&world.subnets[1].1)
        .min_count(1)
        .max_count(1)
        .send()
        .await
        .unwrap();
    launched.instances()[0].instance_id().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_becomes_a_node_whose_pods_run_and_end_gracefully_and_its_end_silences_it() {
    let folder = Folder::new("machines").unwrap();
    let timings = Timings {
        node_monitor_grace: Duration::from_secs(15),
    };
    let cluster = Kubernetes::start_with(&folder, &timings).await.unwrap();
    let ec2 = Ec2::start(&folder).await.unwrap();
    let account = Ministack::start(&folder).await.unwrap();
    let join_token = machines::join_token();
    let agent = folder
        .write("agent", MINIMAL_AGENT.replace("JOIN_TOKEN", &join_token))
        .unwrap();
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).unwrap();
    let settings = Settings {
        sts: None,
        agent,
        agent_config: String::new(),
        join_token,
        role: None,
        secrets: None,
        boot: Duration::ZERO,
        pod_end: Duration::from_millis(100),
        tag: None,
    };
    let watcher = BootWatcher::start(&folder, cluster.access(), &ec2, &account, settings)
        .await
        .unwrap();
    let id = launch(&ec2).await;
    let nodes = Api::<Node>::all(cluster.client());
    let node = wait::until("the node to be Ready", DEADLINE, || async {
        Ok(nodes.get_opt(&id).await?.filter(is_ready))
    })
    .await
    .unwrap();
    let spec = node.spec.unwrap();
    assert_eq!(spec.provider_id, Some(format!("aws:///us-east-1b/{id}")));
    assert!(
        spec.taints
            .unwrap()
            .iter()
            .any(|taint| taint.key == "smartscale.io/unverified")
    );
    assert_eq!(node.metadata.labels.unwrap()["smartscale.io/pool"], "general");
    assert_eq!(node.status.unwrap().allocatable.unwrap()["cpu"].0, "4");

    // A pod runs, and takes its second to end.
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let work = pod("work").tolerates_all().annotation(ENDS_AFTER, "1").build();
    pods.create(&PostParams::default(), &work).await.unwrap();
    wait::until_true("the pod to run", DEADLINE, || async {
        Ok(pods
            .get("work")
            .await?
            .status
            .and_then(|status| status.phase)
            .as_deref()
            == Some("Running"))
    })
    .await
    .unwrap();
    let started = std::time::Instant::now();
    pods.delete("work", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    assert!(
        pods.get("work")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    wait::until_true("the pod's end", DEADLINE, || async {
        Ok(pods.get_opt("work").await?.is_none())
    })
    .await
    .unwrap();
    assert!(started.elapsed() >= Duration::from_millis(900));

    // Power off: no agent, no heartbeat.
    ec2.client()
        .await
        .terminate_instances()
        .instance_ids(&id)
        .send()
        .await
        .unwrap();
    wait::until_true("the machine's end", DEADLINE, || async {
        Ok(watcher.ids().is_empty())
    })
    .await
    .unwrap();
    wait::until_true("the node to fall silent", DEADLINE, || async {
        Ok(!is_ready(&nodes.get(&id).await?))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_agent_reads_its_secrets_with_the_instances_role_and_knocks_at_the_coordinator() {
    let folder = Folder::new("machines-agent").unwrap();
    let cluster = Kubernetes::start(&folder).await.unwrap();
    let ec2 = Ec2::start(&folder).await.unwrap();
    let account = Ministack::start(&folder).await.unwrap();
    let supervisor = Supervisor::start(cluster.authority()).await.unwrap();
    let mut settings = Settings::new(&supervisor.join_token()).unwrap();
    account
        .create_secret("k3s/join-token", &settings.join_token)
        .await
        .unwrap();
    account
        .create_secret("k3s/master-ip", &supervisor.url())
        .await
        .unwrap();
    let policy = json!({"Version": "2012-10-17", "Statement": [{
        "Effect": "Allow",
        "Action": "secretsmanager:GetSecretValue",
        "Resource": format!("arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:k3s/*"),
    }]});
    account.create_instance_role("worker", &policy).await.unwrap();
    settings.role = Some("worker".into());
    // A coordinator that only takes note of who knocks.
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fingerprint = "sha256:".to_owned() + &"0".repeat(64);
    settings.agent_config = format!(
        "coordinators = [\"{}\"]\ntrust_domain = \"smartscale\"\ncluster = \"rig\"\nca_fingerprint = \"{fingerprint}\"\n",
        door.local_addr().unwrap()
    );
    settings.secrets = None;
    let watcher = BootWatcher::start(&folder, cluster.access(), &ec2, &account, settings)
        .await
        .unwrap();
    let id = launch(&ec2).await;
    let knock = wait::until_true("the machine", DEADLINE, || async {
        Ok(watcher.ids().contains(&id))
    });
    knock.await.unwrap();
    let home = watcher.with(&id, |machine| machine.home().to_owned()).unwrap();
    // The one-time secret, as the fleet's script would leave it.
    std::fs::write(home.join("etc/smartscale/enrolment-token"), "0123456789abcdef").unwrap();
    tokio::time::timeout(DEADLINE, door.accept())
        .await
        .expect("the agent knocks")
        .unwrap();
    assert_eq!(
        watcher
            .with(&id, |machine| machine.imds().unwrap().refused())
            .unwrap(),
        0,
        "IMDSv2 from the first request"
    );
    // Killed, it comes back by itself.
    let first = watcher
        .with(&id, |machine| machine.agent().and_then(|agent| agent.id()))
        .unwrap();
    watcher.with(&id, |machine| machine.kill_agent(false)).unwrap();
    wait::until_true("another agent process", DEADLINE, || async {
        let now = watcher.with(&id, |machine| machine.agent().and_then(|agent| agent.id()))?;
        Ok(now.is_some() && now != first)
    })
    .await
    .unwrap();
}
