//! How a machine gets its first certificate, and how nobody else does.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use smartscale_proto::{
    identity::Party,
    tls::{Anchors, Credential, keys},
    v1::{self, agent_client::AgentClient, enrol_request::Proof},
};
use tonic::Code;

use crate::{
    serve::{
        attest,
        authority::{Authority, Held},
        testing::{World, identity_in, key, machine, names, until},
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
async fn a_machine_that_proves_itself_is_told_what_to_join_with_and_one_that_shows_a_known_key_is_not() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let (_, csr) = key();
    let told = |response: v1::EnrolResponse| (response.join_token, response.join_server);
    assert_eq!(
        told(enrol(&world, "i-1", &csr, &secret).await.unwrap()),
        ("token of i-1".to_owned(), "https://10.0.0.10:6443".to_owned())
    );
    assert_eq!(
        told(enrol(&world, "i-1", &csr, "").await.unwrap()),
        <(String, String)>::default()
    );

    let secret = launched(&world, "i-2").await;
    world.mint.0.store(true, Ordering::Relaxed);
    let response = enrol(&world, "i-2", &key().1, &secret).await.unwrap();
    assert!(response.certificate.is_some(), "it asks again in its session");
    assert_eq!(told(response), <(String, String)>::default());
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

/// Believes whoever says the word, again and again.
struct Word;

#[async_trait]
impl attest::Attestor for Word {
    async fn attest(&self, _: attest::Claim<'_>, proof: &Proof) -> Result<(), attest::NotAttested> {
        match proof {
            Proof::Token(token) if token.secret == "word" => Ok(()),
            _ => Err(attest::NotAttested::not_proven("another word")),
        }
    }

    fn attests_again(&self) -> bool {
        true
    }
}

async fn believing() -> World {
    World::with(
        Arc::new(Authority::create(names("demo")).unwrap().0),
        Arc::new(Word),
    )
    .await
}

async fn renewed(
    world: &World,
    credential: Credential,
    csr: &[u8],
) -> Result<v1::Certificate, tonic::Status> {
    let mut client = AgentClient::new(world.channel(credential).await);
    let request = v1::RenewRequest {
        csr_der: csr.to_vec(),
    };
    let answer = client.renew(request).await?.into_inner();
    Ok(answer.certificate.unwrap())
}

/// What an agent has after a certificate came for its key.
fn credential(key: &PrivateKeyDer<'static>, certificate: &v1::Certificate) -> Credential {
    let ders = |list: &[Vec<u8>]| list.iter().map(|der| der.clone().into()).collect::<Vec<_>>();
    Credential {
        chain: ders(&certificate.chain_der),
        key: Some(key.clone_key()),
        anchors: Anchors::Certificates(ders(&certificate.trust_anchors_der)),
    }
}

#[tokio::test]
async fn a_name_in_the_request_is_not_even_looked_at() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let other = "spiffe://smartscale/cluster/demo/admin/admin/mallory";
    params.subject_alt_names = vec![SanType::URI(other.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap();
    let response = enrol(&world, "i-1", csr.der(), &secret).await.unwrap();
    let certificate = response.certificate.unwrap();
    assert_eq!(
        identity_in(&certificate).to_string(),
        "spiffe://smartscale/cluster/demo/agent/i-1"
    );
    // The same at a renewal.
    let key = keys::key_from_pem(key.serialize_pem().as_bytes()).unwrap();
    let renewal = renewed(&world, credential(&key, &certificate), csr.der())
        .await
        .unwrap();
    assert_eq!(identity_in(&renewal), identity_in(&certificate));
}

#[tokio::test]
async fn a_machine_that_may_prove_itself_anew_takes_another_key_and_the_former_one_counts_no_more() {
    let world = believing().await;
    world.put(&machine("i-1")).await;
    let (first, csr) = key();
    let before = enrol(&world, "i-1", &csr, "word")
        .await
        .unwrap()
        .certificate
        .unwrap();
    let first = credential(&first, &before);
    // Certificates hold whole seconds: those of the same second cannot be told apart.
    let signed = Timestamp::now().as_second();
    until(async || (Timestamp::now().as_second() > signed).then_some(())).await;
    let (second, csr) = key();
    assert_eq!(
        code(enrol(&world, "i-1", &csr, "guess").await),
        Code::PermissionDenied
    );
    let after = enrol(&world, "i-1", &csr, "word")
        .await
        .unwrap()
        .certificate
        .unwrap();
    let audit = world.audited("Enrolment/Enrol", "ok").await;
    assert!(audit.arguments.contains("i-1"), "{audit:?}");
    until(async || {
        let told = world.told.0.lock().unwrap();
        told.iter()
            .any(|one| one.message.contains("enrolled anew"))
            .then_some(())
    })
    .await;
    assert_eq!(
        code(renewed(&world, first, &key().1).await),
        Code::PermissionDenied
    );
    assert_eq!(
        code(renewed(&world, credential(&second, &after), &key().1).await),
        Code::Ok
    );
}

#[tokio::test]
async fn nobody_takes_the_place_of_an_agent_that_is_in_session() {
    let world = believing().await;
    world.put(&machine("i-1")).await;
    let (first, csr) = key();
    let issued = enrol(&world, "i-1", &csr, "word")
        .await
        .unwrap()
        .certificate
        .unwrap();
    let mut client = AgentClient::new(world.channel(credential(&first, &issued)).await);
    let (reports, stream) = tokio::sync::mpsc::channel(4);
    let hello = v1::SessionRequest {
        time: None,
        report: Some(v1::session_request::Report::Hello(v1::Hello::default())),
    };
    reports.send(hello).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
    let mut commands = client.session(stream).await.unwrap().into_inner();
    assert!(commands.message().await.unwrap().is_some());
    assert_eq!(code(enrol(&world, "i-1", &key().1, "word").await), Code::Aborted);
    drop(reports);
    drop(commands);
    until(async || world.sessions.connected().is_empty().then_some(())).await;
    assert_eq!(code(enrol(&world, "i-1", &key().1, "word").await), Code::Ok);
}

#[tokio::test]
async fn a_key_is_signed_again_without_a_proof_until_a_renewal_after_the_next_has_replaced_it() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let keys: Vec<_> = (0..3).map(|_| key()).collect();
    let mut issued = enrol(&world, "i-1", &keys[0].1, &secret)
        .await
        .unwrap()
        .certificate
        .unwrap();
    let known = async |csr: &[u8]| code(enrol(&world, "i-1", csr, "").await);
    // After the first renewal its answer may have been lost, so that both count; after the second the first is history.
    for (next, expected) in [
        (1, [Code::Ok, Code::Ok, Code::AlreadyExists]),
        (2, [Code::AlreadyExists, Code::Ok, Code::Ok]),
    ] {
        let present = credential(&keys[next - 1].0, &issued);
        issued = renewed(&world, present, &keys[next].1).await.unwrap();
        for (key, expected) in keys.iter().zip(expected) {
            assert_eq!(known(&key.1).await, expected, "after renewal {next}");
        }
    }
    let certified = record(&world, "i-1").await.certified.unwrap();
    assert!(certified.anchors.len() == 1 && certified.not_after > certified.issued_at);
}

/// docs/operations.md, "Lost certificate authority".
#[tokio::test]
async fn a_machine_whose_authority_was_lost_is_certified_by_the_one_in_its_place_for_its_key() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let (_, csr) = key();
    enrol(&world, "i-1", &csr, &secret).await.unwrap();
    let (anew, anew_key) = Authority::create(names("demo")).unwrap();
    let anchors = anew.anchors();
    assert!(
        world
            .authority
            .replace(Held::new(anew_key, anchors.clone()).unwrap())
    );
    let again = enrol(&world, "i-1", &csr, "").await.unwrap().certificate.unwrap();
    assert_eq!(again.trust_anchors_der, [anchors[0].to_vec()]);
    assert_eq!(again.chain_der[1], anchors[0].to_vec());
}

#[tokio::test]
async fn a_renewal_that_was_not_answered_is_asked_for_again() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    let (first, csr) = key();
    let issued = enrol(&world, "i-1", &csr, &secret)
        .await
        .unwrap()
        .certificate
        .unwrap();
    let next = key().1;
    for _ in 0..3 {
        let present = credential(&first, &issued);
        assert_eq!(code(renewed(&world, present, &next).await), Code::Ok);
    }
    assert_eq!(code(enrol(&world, "i-1", &csr, "").await), Code::Ok);
}

#[tokio::test]
async fn a_stolen_secret_is_worth_nothing_after_its_use() {
    let world = World::new().await;
    let secret = launched(&world, "i-1").await;
    world.put(&machine("i-2")).await;
    assert_eq!(code(enrol(&world, "i-1", &key().1, &secret).await), Code::Ok);
    assert_eq!(
        code(enrol(&world, "i-1", &key().1, &secret).await),
        Code::AlreadyExists
    );
    assert_eq!(
        code(enrol(&world, "i-2", &key().1, &secret).await),
        Code::PermissionDenied
    );
}
