//! From one certificate authority to the next while agents and people stay connected.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::Signal;
use smartscale_coordinator::serve::authority::Authority;
use smartscale_proto::identity::Role;
use smartscale_proto::tls::{Anchors, Credential};
use smartscale_proto::v1::StatusRequest;
use smartscale_proto::v1::admin_client::AdminClient;
use smartscale_tests::rig::machines::Machine;
use smartscale_tests::rig::{programs, wait};
use smartscale_tests::site::{DEADLINE, Site, policy};

use crate::papers::{HOUR, authority, dial, person};

/// `smartscale-coordinator ca …`; its status and what it said.
async fn ca(site: &Site, arguments: &[&str]) -> (bool, String) {
    ca_at(site, &site.stack.home, arguments).await
}

/// The same with the configuration of another folder.
async fn ca_at(site: &Site, home: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = tokio::process::Command::new(programs::path("smartscale-coordinator").unwrap());
    let output = command
        .arg("--config")
        .arg(home.join("coordinator-a.toml"))
        .arg("ca")
        .args(arguments)
        .envs(site.stack.environment())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

/// Reloads the coordinators, as systemd does.
fn reload(site: &mut Site) {
    site.coordinator(0).unwrap().signal(Signal::HUP).unwrap();
}

/// How many sessions an agent has begun.
fn sessions(site: &Site, node: &str) -> usize {
    let read = |machine: &mut Machine| {
        let log = machine.agent().map(|agent| agent.log().to_owned());
        log.and_then(|log| std::fs::read_to_string(log).ok())
            .unwrap_or_default()
    };
    let text = site.stack.machines.with(node, read).unwrap();
    text.lines()
        .filter(|line| line.contains("in session with the coordinator"))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_authority_follows_on_the_first_while_sessions_live() {
    smartscale_proto::tls::install_provider();
    let mut site = Site::start("authorities", &policy("[limits]\nmin_nodes = 2\n"))
        .await
        .unwrap();
    let nodes = site.ready_nodes(2).await.unwrap();
    let old = authority(&site, "rig").await;
    let mut former = old.client(person(Role::Admin), HOUR).unwrap().0;
    assert!(ca(&site, &["switch"]).await.1.contains("`ca begin` comes first"));

    let (done, said) = ca(&site, &["begin"]).await;
    assert!(done, "{said}");
    assert_eq!(
        std::fs::metadata(site.stack.home.join("ca.key.next"))
            .unwrap()
            .mode()
            & 0o777,
        0o600
    );
    // Nobody was told yet.
    let (done, said) = ca(&site, &["switch"]).await;
    assert!(
        !done && said.contains("has not been told of the next authority"),
        "{said}"
    );
    reload(&mut site);
    ready_for(&site, "switch").await;
    let begun: Vec<usize> = nodes.iter().map(|node| sessions(&site, node)).collect();

    let (done, said) = ca(&site, &["switch"]).await;
    assert!(done, "{said}");
    let (done, said) = ca(&site, &["finish"]).await;
    assert!(
        !done && said.contains("has a certificate of the former authority"),
        "{said}"
    );
    reload(&mut site);
    ready_for(&site, "finish").await;
    // Both are trusted: who has papers of either is let in, and both anchors are what everybody is told.
    let new = authority(&site, "rig").await;
    assert_eq!(
        (new.anchors().len(), new.fingerprint() == old.fingerprint()),
        (2, false)
    );
    // People learn of the new authority with new credentials; until then theirs are good, if they believe the coordinator.
    former.anchors = Anchors::Certificates(new.anchors());
    status(&site, former.clone()).await.unwrap();
    status(&site, new.client(person(Role::Admin), HOUR).unwrap().0)
        .await
        .unwrap();
    assert_eq!(
        begun,
        nodes.iter().map(|node| sessions(&site, node)).collect::<Vec<_>>(),
        "the sessions live on"
    );

    let (done, said) = ca(&site, &["finish"]).await;
    assert!(done, "{said}");
    assert!(!site.stack.home.join("ca.key.former").exists());
    reload(&mut site);
    // Connections that began under the former authority end, and begin anew under the next.
    wait::until_true("new sessions", DEADLINE, || async {
        Ok(nodes
            .iter()
            .zip(&begun)
            .all(|(node, begun)| sessions(&site, node) > *begun))
    })
    .await
    .unwrap();
    let now = authority(&site, "rig").await;
    assert_eq!(now.anchors(), vec![new.anchors()[0].clone()]);
    former.anchors = Anchors::Certificates(now.anchors());
    status(&site, former).await.unwrap_err();
    status(&site, now.client(person(Role::Admin), HOUR).unwrap().0)
        .await
        .unwrap();
    connected(&site, &now, &nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_whose_key_kms_has_sealed_signs_and_is_followed_by_sealed_ones() {
    let mut site = Site::new("sealed", &policy("[limits]\nmin_nodes = 1\n"))
        .await
        .unwrap();
    let key_file = site.stack.home.join("ca.key");
    let plain = std::fs::read_to_string(&key_file).unwrap();
    let kms_key = site.stack.account.create_kms_key().await.unwrap();

    let (done, said) = ca(&site, &["seal", "--kms-key", "alias/nobody-made"]).await;
    assert!(
        !done && said.contains("the key management service refuses"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&key_file).unwrap(), plain);

    let (done, said) = ca(&site, &["seal", "--kms-key", &kms_key]).await;
    assert!(done, "{said}");
    assert!(ca(&site, &["status"]).await.1.contains(&kms_key));
    let (done, said) = ca(&site, &["begin"]).await;
    assert!(done, "{said}");
    for name in ["ca.key", "ca.key.next"] {
        let path = site.stack.home.join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-----BEGIN SEALED PRIVATE KEY-----"), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
    // It signs: for itself, and for the agent that enrols.
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    site.ready_nodes(1).await.unwrap();
    let (done, said) = ca(&site, &["switch", "--force"]).await;
    assert!(done, "{said}");
    reload(&mut site);
    ready_for(&site, "finish").await;

    // Sealed for this cluster, it opens for no other.
    let folder = site.stack.home.join("stolen");
    std::fs::create_dir(&folder).unwrap();
    for name in ["ca.key", "ca.crt", "coordinator-a.toml"] {
        std::fs::copy(site.stack.home.join(name), folder.join(name)).unwrap();
    }
    let theirs = policy("").replace("id = \"rig\"", "id = \"other\"");
    std::fs::write(folder.join("policy.toml"), theirs).unwrap();
    let (done, said) = ca_at(&site, &folder, &["status"]).await;
    assert!(!done && said.contains("another cluster"), "{said}");
}

async fn status(site: &Site, credential: Credential) -> Result<(), String> {
    let channel = dial(site, credential).await?;
    let answer = AdminClient::new(channel).status(StatusRequest {}).await;
    answer.map(drop).map_err(|status| status.to_string())
}

/// Waits until `ca status` knows of nobody whom the step would lose.
async fn ready_for(site: &Site, step: &str) {
    wait::until_true(
        &format!("everybody to be ready for `ca {step}`"),
        DEADLINE,
        || async {
            let (_, said) = ca(site, &["status"]).await;
            Ok(said.contains(", 0 not ready"))
        },
    )
    .await
    .unwrap();
}

/// Waits until all agents are in session, by papers of the new authority.
async fn connected(site: &Site, now: &Authority, nodes: &[String]) {
    let new = hex(&now.fingerprint());
    let table = site.stack.dynamodb.client().await;
    for node in nodes {
        let item = table
            .get_item()
            .table_name("smartscale")
            .key("cluster_id", AttributeValue::S("rig".into()))
            .key("item", AttributeValue::S(format!("node#{node}")))
            .send()
            .await
            .unwrap();
        let record = format!("{:?}", item.item().unwrap()["body"]);
        assert!(record.contains(&new), "{record}");
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
