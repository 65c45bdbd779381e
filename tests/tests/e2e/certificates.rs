//! Wrong certificates of eight kinds, and one that was revoked, at the door of a running coordinator: each is refused in its
//! way, and the audit's chain has each.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use smartscale_coordinator::serve::authority::Authority;
use smartscale_proto::identity::{Party, Role};
use smartscale_proto::time::{Clock, SystemClock};
use smartscale_proto::tls::{Anchors, Credential};
use smartscale_proto::v1::admin_client::AdminClient;
use smartscale_proto::v1::agent_client::AgentClient;
use smartscale_proto::v1::session_request::Report;
use smartscale_proto::v1::{Hello, Machine, PauseRequest, RenewRequest, SessionRequest, StatusRequest};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};
use tonic::{Code, Status};

use crate::papers::{HOUR, agent, authority, dial, names, person};

/// The machine's clock, two hours ago.
struct TwoHoursAgo;

#[async_trait]
impl Clock for TwoHoursAgo {
    fn now(&self) -> Timestamp {
        Timestamp::now() - SignedDuration::from_hours(2)
    }

    fn elapsed(&self) -> Duration {
        SystemClock.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}

async fn status(site: &Site, credential: Credential) -> Result<(), Status> {
    let channel = dial(site, credential).await.map_err(Status::unavailable)?;
    AdminClient::new(channel).status(StatusRequest {}).await.map(drop)
}

/// What a stream says first when its Hello means `machine`.
async fn session(site: &Site, credential: Credential, machine: &str) -> Result<(), Status> {
    let channel = dial(site, credential).await.map_err(Status::unavailable)?;
    let hello = Hello {
        machine: Some(Machine {
            instance_id: machine.to_owned(),
            ..Machine::default()
        }),
        ..Hello::default()
    };
    let first = SessionRequest {
        time: None,
        report: Some(Report::Hello(hello)),
    };
    let mut answers = AgentClient::new(channel)
        .session(tokio_stream::iter([first]))
        .await?
        .into_inner();
    answers.message().await.map(drop)
}

/// Waits for a record of the audit, which the state store has, and gives its arguments.
async fn audited(site: &Site, who: &str, call: &str, outcome: &str) -> String {
    let table = site.stack.dynamodb.client().await;
    let body =
        wait::until("the audit's record", DEADLINE, || async {
            let found = table
                .query()
                .table_name("smartscale")
                .key_condition_expression("cluster_id = :cluster AND begins_with(#item, :audit)")
                .expression_attribute_names("#item", "item")
                .expression_attribute_values(":cluster", AttributeValue::S("rig".into()))
                .expression_attribute_values(":audit", AttributeValue::S("audit#".into()))
                .send()
                .await?;
            let bodies = found.items.unwrap_or_default().into_iter();
            let mut bodies = bodies.filter_map(|item| item.get("body")?.as_m().ok().cloned());
            let is = |body: &HashMap<String, AttributeValue>, key: &str, wanted: &str| {
                body.get(key)
                    .and_then(|value| value.as_s().ok())
                    .is_some_and(|text| text.contains(wanted))
            };
            Ok(bodies
                .find(|body| is(body, "who", who) && is(body, "call", call) && is(body, "outcome", outcome)))
        })
        .await
        .unwrap_or_else(|error| panic!("{who} {call} {outcome}: {error:#}"));
    body["arguments"].as_s().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_certificates_of_eight_kinds_are_refused_and_the_audit_log_has_each() {
    smartscale_proto::tls::install_provider();
    let site = Site::start("certificates", &policy("[limits]\nmin_nodes = 2\n"))
        .await
        .unwrap();
    let nodes = site.ready_nodes(2).await.unwrap();
    let ours = authority(&site, "rig").await;
    let issue = |party: Party| ours.client(party, HOUR).unwrap().0;
    // With the right ones, first: what follows is refused for what is wrong with it, and nothing else.
    status(&site, issue(person(Role::Viewer))).await.unwrap();

    // 1. None.
    let nobody = Credential {
        chain: Vec::new(),
        key: None,
        anchors: Anchors::Certificates(ours.anchors()),
    };
    assert_eq!(
        status(&site, nobody).await.unwrap_err().code(),
        Code::Unauthenticated
    );
    audited(&site, "127.0.0.1", "Admin/Status", "unauthenticated").await;

    // 2. Of another authority: the handshake ends.
    let (other, _) = Authority::create(names("rig")).unwrap();
    let mut credential = other.client(person(Role::Admin), HOUR).unwrap().0;
    credential.anchors = Anchors::Certificates(ours.anchors());
    status(&site, credential).await.unwrap_err();
    let why = audited(&site, "127.0.0.1", "handshake", "unauthenticated").await;
    assert!(why.contains("certificate"), "{why}");

    // 3. Expired: the handshake ends.
    let former = authority(&site, "rig")
        .await
        .with_clock(std::sync::Arc::new(TwoHoursAgo));
    status(&site, former.client(person(Role::Admin), HOUR).unwrap().0)
        .await
        .unwrap_err();
    wait::until_true("the audit to name what expired", DEADLINE, || async {
        site.logged(0, &["audit", "handshake", "xpired"])
    })
    .await
    .unwrap();

    // 4. Of another cluster under the same authority.
    let credential = authority(&site, "other")
        .await
        .client(person(Role::Admin), HOUR)
        .unwrap()
        .0;
    assert_eq!(
        status(&site, credential).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    audited(
        &site,
        "cluster/other/admin/admin/mallory",
        "Admin/Status",
        "permission_denied",
    )
    .await;

    // 5. An agent that calls what people call.
    let refused = status(&site, issue(agent(&nodes[0]))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let who = format!("agent/{}", nodes[0]);
    audited(&site, &who, "Admin/Status", "permission_denied").await;

    // 6. A viewer who orders what an operator may.
    let channel = dial(&site, issue(person(Role::Viewer))).await.unwrap();
    let refused = AdminClient::new(channel).pause(PauseRequest::default()).await;
    assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    audited(&site, "admin/viewer/mallory", "Admin/Pause", "permission_denied").await;
    assert_eq!(site.ask(&["status"]).await.unwrap()["paused"], false);

    // 7. One node's agent on another node's stream.
    let refused = session(&site, issue(agent(&nodes[0])), &nodes[1])
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let what = audited(&site, &who, "Agent/Session", "permission_denied").await;
    assert!(what.contains(&nodes[1]), "{what}");

    // 8. Revoked: with the record of its node, every call and the open stream of the real agent end.
    revoke(&site, &nodes[1]).await;
    let who = format!("agent/{}", nodes[1]);
    let renewal = RenewRequest {
        csr_der: smartscale_proto::tls::keys::key_and_request().unwrap().1,
    };
    let channel = dial(&site, issue(agent(&nodes[1]))).await.unwrap();
    let refused = AgentClient::new(channel).renew(renewal).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    audited(&site, &who, "Agent/Renew", "permission_denied").await;
    wait::until_true("its stream's end", DEADLINE, || async {
        let nodes = site.ask(&["nodes"]).await?;
        let all = nodes["nodes"].as_array().cloned().unwrap_or_default();
        Ok(all.iter().any(|node| {
            node["name"] == *who.trim_start_matches("agent/") && node["agent_connected"] == false
        }))
    })
    .await
    .unwrap();

    // And a person who was revoked, by name: this certificate was handed out before.
    let credential = issue(person(Role::Viewer));
    status(&site, credential.clone()).await.unwrap();
    let said = site
        .order(&["identity", "revoke", "mallory", "--reason", "stolen"])
        .await
        .unwrap();
    assert!(said.contains("mallory is refused"), "{said}");
    let refused = status(&site, credential).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    audited(&site, "admin/viewer/mallory", "Admin/Status", "permission_denied").await;

    // All of that is in one chain, as it was written.
    let said = site.order(&["audit", "verify"]).await.unwrap();
    assert!(said.contains("whole, sealed"), "{said}");
}

/// Writes that this machine is trusted no more into its record.
async fn revoke(site: &Site, instance: &str) {
    let table = site.stack.dynamodb.client().await;
    table
        .update_item()
        .table_name("smartscale")
        .key("cluster_id", AttributeValue::S("rig".into()))
        .key("item", AttributeValue::S(format!("node#{instance}")))
        .update_expression("SET body.revoked_at = :now")
        .condition_expression("attribute_exists(body)")
        .expression_attribute_values(":now", AttributeValue::S(Timestamp::now().to_string()))
        .send()
        .await
        .unwrap();
}
