//! `smartscale check` where agents are in session with the leader.

use smartscale_coordinator::state::records::{NodeRecord, Record as _};
use smartscale_planner::model::Market;
use smartscale_proto::{
    check::{Finding, Report as Checked},
    identity::Party,
    tls::{
        Rotating,
        client::{Dialer, Expected},
    },
    v1::{
        self, SessionRequest, SessionResponse, agent_client::AgentClient, session_request::Report,
        session_response::Command as Order,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::*;

/// A machine that has enrolled.
async fn machine(cluster: &Cluster, instance: &str) {
    let record = NodeRecord {
        instance: instance.parse().unwrap(),
        pool: "workers".into(),
        instance_type: "t3.small".into(),
        zone: "us-east-1a".into(),
        market: Market::Spot,
        operation: "op-1".parse().unwrap(),
        launched_at: Timestamp::now(),
        secret_hash: None,
        secret_expires_at: None,
        enrolled_key: Some("ab".repeat(32)),
        enrolled_at: None,
        ready_at: None,
        binding_secret: None,
        certified: None,
        revoked_at: None,
        boot: Vec::new(),
    };
    let write = Write::Put {
        key: record.key(),
        body: record.body().unwrap(),
        expires_at: None,
        condition: Condition::Always,
    };
    cluster.store.append(&write).await.unwrap();
}

/// Its agent, in session with the leader: answers each check with these lines. Dropping the answer ends the session.
async fn agent(cluster: &Cluster, instance: &str, findings: Vec<Finding>) -> mpsc::Sender<SessionRequest> {
    machine(cluster, instance).await;
    let party = Party::Agent {
        instance: instance.parse().unwrap(),
    };
    let life = Duration::from_secs(3600);
    let (credential, _) = cluster.authority.client(party, life).unwrap();
    let expected = Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "demo".parse().unwrap(),
    };
    let dialer = Dialer::new(Rotating::new(credential), expected);
    let mut client = AgentClient::new(dialer.connect(&cluster.leader).await.unwrap());
    let (up, stream) = mpsc::channel(16);
    say(
        &up,
        Report::Hello(v1::Hello {
            can_check: true,
            ..v1::Hello::default()
        }),
    )
    .await;
    let answer = client.session(ReceiverStream::new(stream)).await;
    let mut down: Streaming<SessionResponse> = answer.unwrap().into_inner();
    assert!(matches!(
        down.message().await.unwrap().unwrap().command,
        Some(Order::Welcome(_))
    ));
    let sender = up.clone();
    tokio::spawn(async move {
        while let Ok(Some(response)) = down.message().await {
            let Some(Order::Check(order)) = response.command else {
                continue;
            };
            let report = Checked {
                program: "agent of mine".to_owned(),
                version: "0.1.0".to_owned(),
                findings: findings.clone(),
            };
            let answer = v1::CheckAnswer {
                id: order.id,
                report: Some(report.into()),
            };
            say(&sender, Report::Check(answer)).await;
        }
    });
    up
}

async fn say(up: &mpsc::Sender<SessionRequest>, report: Report) {
    let request = SessionRequest {
        time: None,
        report: Some(report),
    };
    let _ = up.send(request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_asks_the_agents_of_the_leader_and_shows_what_is_to_be_looked_at() {
    let cluster = Cluster::new().await;
    let passed = Finding::passed("kernel", "read /proc/mounts", "control groups are of version 2");
    let failed = Finding::failed("k3s", "asked the server", "nobody answers", "open 6443");
    let _well = agent(&cluster, "i-1", vec![passed.clone()]).await;
    let _ill = agent(&cluster, "i-2", vec![passed, failed]).await;
    machine(&cluster, "i-3").await;
    // The follower answers for itself and sends to the leader for the agents.
    let asked = [
        "check",
        "--endpoint",
        &cluster.follower,
        "--endpoint",
        &cluster.leader,
    ];
    let checked = cluster.run(Role::Viewer, &asked).await;
    assert_eq!(checked.status.code(), Some(1), "{}", said(&checked));
    assert!(
        text(&checked.stderr).contains("3 checks failed"),
        "{}",
        said(&checked)
    );
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        text(&checked.stdout),
        format!(
            "\
coordinator a {version}
  failed   store  read the lease: no such table
                  -> make it
  1 failed

coordinator b {version}
  skipped  sns  publish: people would be told
  1 skipped

agent i-2 0.1.0
  failed   k3s  asked the server: nobody answers
                -> open 6443
  1 passed, 1 failed

agent i-3
  failed   agent  asked the agent for a check: its agent has no session
                  -> on the machine, `smartscale-agent check` says what it lacks, and journalctl -u smartscale-agent what it does
  1 failed

one agent found nothing to look at; --all shows its lines
"
        )
    );

    let one = cluster
        .run(Role::Viewer, &["check", "--node", "i-1", "--all"])
        .await;
    assert_eq!(one.status.code(), Some(0), "{}", said(&one));
    assert_eq!(
        text(&one.stdout),
        "agent i-1 0.1.0\n  passed   kernel  read /proc/mounts: control groups are of version 2\n  1 passed\n"
    );
    let json = ["check", "-o", "json", "--node", "i-2"];
    let json = cluster.run(Role::Viewer, &json).await;
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(value["reports"][0]["program"], "agent i-2");
    assert_eq!(value["reports"][0]["findings"].as_array().unwrap().len(), 2);
    let unknown = cluster.run(Role::Viewer, &["check", "--node", "i-9"]).await;
    assert_eq!(unknown.status.code(), Some(1), "{}", said(&unknown));
    assert!(
        text(&unknown.stderr).contains("did you mean"),
        "{}",
        said(&unknown)
    );
    let alone = ["check", "--no-agents", "--endpoint", &cluster.leader];
    let alone = cluster.run(Role::Viewer, &alone).await;
    assert_eq!(alone.status.code(), Some(0), "{}", said(&alone));
    assert!(!text(&alone.stdout).contains("agent"), "{}", said(&alone));
}
