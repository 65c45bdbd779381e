//! Machines that prove themselves by AWS: agents sign with the credentials of their instances, the coordinator asks an STS
//! that verifies each signature, and EC2. Then whoever tries to pass for one of them.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use jiff::{SignedDuration, Timestamp};
use smartscale_proto::attestation;
use smartscale_proto::tls::{Anchors, Credential, keys};
use smartscale_proto::v1::enrol_request::Proof;
use smartscale_proto::v1::enrolment_client::EnrolmentClient;
use smartscale_proto::v1::{ChallengeRequest, Ec2Proof, EnrolRequest, TokenProof};
use smartscale_tests::rig::aws::{Key, REGION};
use smartscale_tests::rig::machines;
use smartscale_tests::rig::sts::{Misbehaviour, Sts, sign};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, Site, policy};
use tonic::{Code, Status};

use crate::papers::{authority, dial};

/// A site whose machines prove themselves so.
async fn attested(name: &str, proof: machines::Proof) -> Site {
    smartscale_proto::tls::install_provider();
    let mut site = Site::new(name, &policy("[limits]\nmin_nodes = 2\n"))
        .await
        .unwrap();
    let token = format!(
        "attestor = \"token\"\nsecret_dir = \"{}\"",
        site.stack.home.join("secrets").display()
    );
    let ec2 = match proof {
        machines::Proof::Profile => "attestor = \"ec2\"\nrole = \"worker\"",
        _ => "attestor = \"ec2\"",
    };
    site.configure(0, &token, ec2).unwrap();
    site.stack.machines.prove_by(proof);
    site.start_coordinator(0).unwrap();
    site.leader().await.unwrap();
    site
}

/// An attempt to enrol as `instance`, with a proof made of the challenge and the request.
async fn enrol(site: &Site, instance: &str, prove: impl FnOnce(&[u8], &[u8]) -> Proof) -> Result<(), Status> {
    let nobody = Credential {
        chain: Vec::new(),
        key: None,
        anchors: Anchors::Certificates(authority(site, "rig").await.anchors()),
    };
    let channel = dial(site, nobody).await.map_err(Status::unavailable)?;
    let mut client = EnrolmentClient::new(channel);
    let challenge = client
        .challenge(ChallengeRequest {})
        .await?
        .into_inner()
        .challenge;
    let csr_der = keys::key_and_request().unwrap().1;
    let request = EnrolRequest {
        proof: Some(prove(&challenge, &csr_der)),
        challenge,
        csr_der,
        instance_id: instance.to_owned(),
        agent_version: "0.0.0".to_owned(),
    };
    client.enrol(request).await.map(drop)
}

/// What an agent of the rig's cluster would sign with `key`, at `at`.
fn proof(key: &Key, challenge: &[u8], csr: &[u8], at: Timestamp) -> Ec2Proof {
    let coordinator = smartscale_proto::tls::client::Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "rig".parse().unwrap(),
    };
    let host = attestation::sts_host(REGION).unwrap();
    let mut headers = Vec::from(attestation::bound_headers(&host, challenge, csr, &coordinator));
    let date = at.strftime("%Y%m%dT%H%M%SZ").to_string();
    let security_token = key.token.clone().unwrap();
    headers.push((attestation::DATE, date.clone()));
    headers.push((attestation::SECURITY_TOKEN, security_token.clone()));
    Ec2Proof {
        authorization: sign(key, &headers, attestation::BODY),
        host,
        date,
        security_token,
    }
}

/// Waits until the audit has an enrolment that was refused for this.
async fn refused(site: &Site, why: &str) {
    wait::until_true(&format!("the audit to have {why:?}"), DEADLINE, || async {
        site.logged(0, &["audit", "Enrolment/Enrol", why])
    })
    .await
    .unwrap();
}

/// Has the machine's agent away and its record as before its first enrolment.
async fn forget(site: &Site, instance: &str) {
    site.stack
        .machines
        .with(instance, |machine| machine.kill_agent(true))
        .unwrap();
    wait::until_true("the end of its session", DEADLINE, || async {
        let nodes = site.ask(&["nodes"]).await?;
        let all = nodes["nodes"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .any(|node| node["name"] == *instance && node["agent_connected"] == false))
    })
    .await
    .unwrap();
    let table = site.stack.dynamodb.client().await;
    table
        .update_item()
        .table_name("smartscale")
        .key("cluster_id", AttributeValue::S("rig".into()))
        .key("item", AttributeValue::S(format!("node#{instance}")))
        .update_expression("REMOVE body.enrolled_key, body.certified")
        .condition_expression("attribute_exists(body)")
        .send()
        .await
        .unwrap();
}

fn answers(sts: &Sts) -> Vec<u16> {
    sts.asked().iter().map(|asked| asked.answer.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_enrol_by_their_instances_identity_role_and_nobody_else_does() {
    let site = attested("attested-identity", machines::Proof::Identity).await;
    let nodes = site.ready_nodes(2).await.unwrap();
    let sts = &site.stack.sts;
    let asked = sts.asked();
    assert!(
        asked.len() >= 2 && asked.iter().all(|asked| asked.answer.0 == 200),
        "{asked:?}"
    );
    assert!(
        asked
            .iter()
            .all(|asked| asked.host == "sts.us-east-1.amazonaws.com"),
        "{asked:?}"
    );
    // No secret was minted for anybody.
    assert_eq!(
        std::fs::read_dir(site.stack.home.join("secrets"))
            .unwrap()
            .count(),
        0
    );

    let (victim, other) = (&nodes[0], &nodes[1]);
    let now = Timestamp::now();
    let keys = sts.keys();
    // While its agent is in session nobody takes its place, not even with its own credentials.
    let own = keys.identity_key(victim);
    let taken = enrol(&site, victim, |challenge, csr| {
        Proof::Ec2(proof(&own, challenge, csr, now))
    });
    assert_eq!(taken.await.unwrap_err().code(), Code::Aborted);

    forget(&site, victim).await;
    let theirs = keys.identity_key(other);
    let session = keys.identity_key(victim);
    let role = Key {
        id: "ASIARIGROLE000000000".into(),
        ..keys.identity_key("x")
    };
    keys.know(&role, "worker", victim);
    let unknown = Key {
        id: "ASIAUNKNOWN000000000".into(),
        ..session.clone()
    };
    let wrong = Key {
        secret: "guessed".into(),
        ..session.clone()
    };

    type Prove<'a> = Box<dyn FnOnce(&[u8], &[u8]) -> Proof + 'a>;
    let by = |key: &Key, at: Timestamp| {
        let key = key.clone();
        Box::new(move |challenge: &[u8], csr: &[u8]| Proof::Ec2(proof(&key, challenge, csr, at))) as Prove<'_>
    };
    let changed = |change: fn(&mut Ec2Proof)| {
        let key = session.clone();
        Box::new(move |challenge: &[u8], csr: &[u8]| {
            let mut proof = proof(&key, challenge, csr, Timestamp::now());
            change(&mut proof);
            Proof::Ec2(proof)
        }) as Prove<'_>
    };
    let six_minutes_ago = now - SignedDuration::from_secs(361);
    let hostile: Vec<(Prove<'_>, &str)> = vec![
        (by(&theirs, Timestamp::now()), "is claimed"),
        (by(&role, Timestamp::now()), "a session of role worker"),
        (by(&unknown, Timestamp::now()), "InvalidClientTokenId"),
        (by(&wrong, Timestamp::now()), "SignatureDoesNotMatch"),
        (by(&session, six_minutes_ago), "it was signed at"),
        (
            changed(|proof| proof.host = "sts.evil.example".into()),
            "which is not sts.us-east-1.amazonaws.com",
        ),
        (
            changed(|proof| proof.authorization = proof.authorization.replace("x-smartscale-challenge;", "")),
            "it signs",
        ),
        // Signed for another challenge, for another request: a proof that was seen on the wire.
        (
            Box::new(|_: &[u8], csr: &[u8]| Proof::Ec2(proof(&session, &[7; 32], csr, Timestamp::now()))),
            "SignatureDoesNotMatch",
        ),
        (
            Box::new(|challenge: &[u8], _: &[u8]| {
                Proof::Ec2(proof(&session, challenge, b"other", Timestamp::now()))
            }),
            "SignatureDoesNotMatch",
        ),
        (
            Box::new(|_: &[u8], _: &[u8]| Proof::Token(TokenProof { secret: "x".into() })),
            "prove themselves by `ec2`",
        ),
    ];
    for (prove, why) in hostile {
        let error = enrol(&site, victim, prove).await.unwrap_err();
        assert_eq!(error.code(), Code::PermissionDenied, "{why}: {error}");
        assert_eq!(error.message(), "the proof does not hold");
        refused(&site, why).await;
    }

    // An STS that sends us elsewhere, says something else or fails: nobody enrols, and nobody else is asked.
    let elsewhere = Sts::start().await.unwrap();
    for (how, code, why) in [
        (
            Misbehaviour::Redirect(elsewhere.url()),
            Code::PermissionDenied,
            "307",
        ),
        (
            Misbehaviour::Text("<Arn>me</Arn>".into()),
            Code::PermissionDenied,
            "GetCallerIdentity",
        ),
        (
            Misbehaviour::Text("x".repeat(100_000)),
            Code::Unavailable,
            "larger than",
        ),
        (Misbehaviour::Error(503), Code::Unavailable, "503"),
    ] {
        sts.misbehave(Some(how));
        let error = enrol(&site, victim, by(&session, Timestamp::now()))
            .await
            .unwrap_err();
        assert_eq!(error.code(), code, "{why}: {error}");
        refused(&site, why).await;
    }
    sts.misbehave(None);
    assert!(elsewhere.asked().is_empty());

    // The machine itself comes back, by its own credentials.
    assert!(answers(sts).contains(&403));
    site.stack
        .machines
        .with(victim, |machine| {
            std::fs::remove_dir_all(machine.state()).unwrap();
            machine.release_agent();
        })
        .unwrap();
    wait::until_true("the agent to be back", DEADLINE, || async {
        let nodes = site.ask(&["nodes"]).await?;
        let all = nodes["nodes"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .any(|node| node["name"] == **victim && node["agent_connected"] == true))
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_enrol_by_their_profiles_role_where_that_is_configured_and_come_back_with_another_key() {
    let site = attested("attested-profile", machines::Proof::Profile).await;
    let nodes = site.ready_nodes(2).await.unwrap();
    let node = &nodes[0];
    // Its disk is lost.
    site.stack
        .machines
        .with(node, |machine| {
            machine.kill_agent(true);
            std::fs::remove_dir_all(machine.state()).unwrap();
            machine.release_agent();
        })
        .unwrap();
    wait::until_true("a warning about another key", DEADLINE, || async {
        site.logged(0, &["audit", node, "the machine has proven itself anew"])
    })
    .await
    .unwrap();
    wait::until_true("the agent to be back", Duration::from_secs(60), || async {
        let nodes = site.ask(&["nodes"]).await?;
        let all = nodes["nodes"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .any(|one| one["name"] == **node && one["agent_connected"] == true))
    })
    .await
    .unwrap();
}
