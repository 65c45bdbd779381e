//! How a machine gets its first certificate, and how nobody else does.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use smartscale_proto::{
    identity::Party,
    v1::{self, enrol_request::Proof},
};
use tonic::Code;

use crate::{
    serve::{
        attest,
        testing::{World, identity_in, key, machine},
    },
    state::{
        lease::Leadership,
        records::{NodeRecord, Record as _},
    },
};

/// A launched machine with an open secret.
async fn launched(world: &World, instance: &str) -> String {
    let secret = attest::mint_secret();
    let mut record = machine(instance);
    record.secret_hash = Some(secret.hash);
    record.secret_expires_at =
        Some(Timestamp::now() + SignedDuration::try_from(attest::SECRET_LIFE).unwrap());
    world.put(&record).await;
    secret.text.to_string()
}

async fn enrol(
    world: &World,
    instance: &str,
    csr: &[u8],
    secret: &str,
) -> Result<v1::EnrolResponse, tonic::Status> {
    let mut client = world.enrolment().await;
    let challenge = client
        .challenge(v1::ChallengeRequest {})
        .await
        .unwrap()
        .into_inner()
        .challenge;
    let request = v1::EnrolRequest {
        challenge,
        csr_der: csr.to_vec(),
        instance_id: instance.to_owned(),
        proof: Some(Proof::Token(v1::TokenProof {
            secret: secret.to_owned(),
        })),
        agent_version: "0.1.0".to_owned(),
    };
    client.enrol(request).await.map(tonic::Response::into_inner)
}

fn code<T>(outcome: Result<T, tonic::Status>) -> Code {
    outcome.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn record(world: &World, instance: &str) -> NodeRecord {
    NodeRecord::from_item(
        &world
            .store
            .get(&format!("node#{instance}"))
            .await
            .unwrap()
            .unwrap(),
    )
    .unwrap()
}

#[tokio::test]
async fn a_launched_machine_gets_a_certificate_for_its_own_name() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let response = enrol(&world, "i-1", &key().1, &secret).await.unwrap();
    assert_eq!(
        (
            response.node_name.as_str(),
            response.pool.as_str(),
            response.market.as_str()
        ),
        ("i-1", "workers", "spot")
    );
    let identity = identity_in(&response.certificate.unwrap());
    assert_eq!(
        identity.party,
        Party::Agent {
            instance: "i-1".parse().unwrap()
        }
    );
    let record = record(&world, "i-1").await;
    assert!(record.enrolled_key.is_some() && record.secret_hash.is_none());
    world.audited("Enrolment/Enrol", "ok").await;
}

#[tokio::test]
async fn an_enrolment_before_the_launch_is_recorded_comes_back() {
    let world = World::new().await;
    assert_eq!(
        code(enrol(&world, "i-1", &key().1, "x").await),
        Code::FailedPrecondition
    );
    let secret = launched(&world, "i-1").await;
    assert_eq!(code(enrol(&world, "i-1", &key().1, &secret).await), Code::Ok);
}

#[tokio::test]
async fn the_same_key_again_gets_a_certificate_again_and_another_key_never() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let (first, second) = (key().1, key().1);
    assert_eq!(code(enrol(&world, "i-1", &first, &secret).await), Code::Ok);
    assert_eq!(code(enrol(&world, "i-1", &first, &secret).await), Code::Ok);
    assert_eq!(
        code(enrol(&world, "i-1", &second, &secret).await),
        Code::AlreadyExists
    );
    world.audited("Enrolment/Enrol", "already_exists").await;
}

#[tokio::test]
async fn of_many_keys_that_race_with_one_secret_one_wins() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let keys: Vec<_> = (0..8).map(|_| key().1).collect();
    let attempts = keys.iter().map(|csr| enrol(&world, "i-1", csr, &secret));
    let codes: Vec<_> = futures_util::future::join_all(attempts)
        .await
        .into_iter()
        .map(code)
        .collect();
    assert_eq!(
        codes.iter().filter(|code| **code == Code::Ok).count(),
        1,
        "{codes:?}"
    );
    assert!(
        codes
            .iter()
            .all(|code| matches!(code, Code::Ok | Code::AlreadyExists)),
        "{codes:?}"
    );
}

#[tokio::test]
async fn a_wrong_a_lapsed_and_a_missing_secret_prove_nothing() {
    let world = World::new().await;
    launched(&world, "i-1").await;
    assert_eq!(
        code(enrol(&world, "i-1", &key().1, &attest::mint_secret().text).await),
        Code::PermissionDenied
    );
    let secret = attest::mint_secret();
    let mut lapsed = machine("i-2");
    lapsed.secret_hash = Some(secret.hash);
    lapsed.secret_expires_at = Some(Timestamp::now() - SignedDuration::from_secs(1));
    world.put(&lapsed).await;
    assert_eq!(
        code(enrol(&world, "i-2", &key().1, &secret.text).await),
        Code::PermissionDenied
    );
    world.put(&machine("i-3")).await;
    assert_eq!(
        code(enrol(&world, "i-3", &key().1, "").await),
        Code::PermissionDenied
    );
    assert!(record(&world, "i-1").await.enrolled_key.is_none());
    world.audited("Enrolment/Enrol", "permission_denied").await;
}

#[tokio::test]
async fn a_challenge_is_good_once() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let mut client = world.enrolment().await;
    let challenge = client
        .challenge(v1::ChallengeRequest {})
        .await
        .unwrap()
        .into_inner()
        .challenge;
    assert_eq!(challenge.len(), 32);
    let request = v1::EnrolRequest {
        challenge,
        csr_der: key().1,
        instance_id: "i-1".to_owned(),
        proof: Some(Proof::Token(v1::TokenProof { secret })),
        agent_version: String::new(),
    };
    assert!(client.enrol(request.clone()).await.is_ok());
    assert_eq!(code(client.enrol(request).await), Code::PermissionDenied);
}

#[tokio::test]
async fn nonsense_is_named_and_ends_nothing_else() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let refusal = enrol(&world, "i-1", b"nonsense", &secret).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().starts_with("csr_der: "));
    assert_eq!(
        code(enrol(&world, "../i-1", &key().1, &secret).await),
        Code::InvalidArgument
    );
    assert_eq!(code(enrol(&world, "i-1", &key().1, &secret).await), Code::Ok);
}

#[tokio::test]
async fn a_follower_enrols_nobody_and_says_who_leads() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    world.leadership.send_replace(Leadership::Follower {
        leader: Some("b".parse().unwrap()),
    });
    let refusal = enrol(&world, "i-1", &key().1, &secret).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unavailable);
    assert_eq!(
        refusal.metadata().get("smartscale-leader").unwrap(),
        "127.0.0.1:2"
    );
    // One that believes to lead but was overtaken is stopped by the store.
    let until = Duration::MAX;
    world.leadership.send_replace(Leadership::Leader {
        epoch: crate::ids::Epoch(6),
        until,
    });
    assert_eq!(
        code(enrol(&world, "i-1", &key().1, &secret).await),
        Code::Unavailable
    );
    assert!(record(&world, "i-1").await.enrolled_key.is_none());
}
