//! Who must not come in: every kind of wrong certificate, and every method for those who may not call it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use prost::Message as _;
use smartscale_proto::{
    identity::{Party, Role},
    permission::{self, Requirement},
    time::SystemClock,
    tls::{Anchors, Credential, keys},
    v1::{self, admin_client::AdminClient, agent_client::AgentClient},
};
use tonic::{Code, client::Grpc, codec::Codec as _};
use tonic_codec::codec;

use crate::serve::{
    authority::{Authority, vault::NoVault},
    testing::{World, names, person},
};

/// A codec whose messages are empty: enough to be refused.
mod tonic_codec {
    use tonic_prost::ProstCodec;

    pub(super) fn codec() -> ProstCodec<(), ()> {
        ProstCodec::default()
    }
}

/// Every method of the contract.
fn methods() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(smartscale_proto::FILE_DESCRIPTOR_SET).unwrap();
    let mut paths = BTreeSet::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                paths.insert(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    paths
}

/// The code with which a call without content is refused; `Ok` as soon as it is let in.
async fn call(world: &World, credential: Credential, path: &str) -> Code {
    let mut grpc = Grpc::new(world.channel(credential).await);
    grpc.ready().await.unwrap();
    let outcome = grpc
        .server_streaming(tonic::Request::new(()), path.parse().unwrap(), codec())
        .await;
    outcome.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn without_a_certificate_only_enrolment_answers() {
    let world = World::new().await;
    for path in methods() {
        let code = call(&world, world.nobody(), &path).await;
        if permission::requirement(&path) == Some(Requirement::Anybody) {
            assert_ne!(code, Code::Unauthenticated, "{path}");
        } else {
            assert_eq!(code, Code::Unauthenticated, "{path}");
        }
    }
    world.audited("Admin/Status", "unauthenticated").await;
}

#[tokio::test]
async fn over_the_wire_every_method_refuses_whoever_its_requirement_does_not_name() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let agent = Party::Agent {
        instance: "i-1".parse().unwrap(),
    };
    let parties = [
        agent,
        Party::Coordinator,
        person(Role::Viewer),
        person(Role::Operator),
        person(Role::Admin),
    ];
    for path in methods() {
        for party in &parties {
            let refused = permission::authorise(&path, Some(party)).is_err();
            let code = call(&world, world.credential(party.clone()), &path).await;
            if path.ends_with("Enrolment/Enrol") {
                // An empty request proves nothing, whoever sends it.
                continue;
            }
            assert_eq!(
                code == Code::PermissionDenied,
                refused,
                "{path} by {party:?}: {code:?}"
            );
        }
    }
    for party in &parties {
        let code = call(
            &world,
            world.credential(party.clone()),
            "/smartscale.v1.Admin/Unheard",
        )
        .await;
        assert_eq!(code, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn an_agent_that_calls_what_people_call_is_refused_and_audited() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let party = Party::Agent {
        instance: "i-1".parse().unwrap(),
    };
    let mut client = AdminClient::new(world.channel(world.credential(party)).await);
    let refusal = client.status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    let record = world.audited("Admin/Status", "permission_denied").await;
    assert_eq!(record.who, "spiffe://smartscale/cluster/demo/agent/i-1");
}

#[tokio::test]
async fn a_viewer_who_orders_is_refused_and_audited() {
    let world = World::new().await;
    let mut client = world.people(Role::Viewer).await;
    assert!(client.status(v1::StatusRequest {}).await.is_ok());
    let refusal = client.drain(v1::DrainRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(
        world.audited("Admin/Drain", "permission_denied").await.who,
        "spiffe://smartscale/cluster/demo/admin/viewer/jo"
    );
    assert!(world.book.0.lock().unwrap().is_empty());
}

/// A credential for another cluster that our own authority's key has signed, as if one authority served two.
async fn of_another_cluster(world: &World) -> Credential {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    Authority::create_files(names("demo"), &crt, &key, (&NoVault, None))
        .await
        .unwrap();
    let other = Authority::load(names("other"), &crt, &key, &NoVault)
        .await
        .unwrap();
    let party = Party::Admin {
        role: Role::Admin,
        name: "jo".parse().unwrap(),
    };
    let mut credential = other.client(party, Duration::from_secs(60)).unwrap().0;
    credential.anchors = Anchors::Certificates(world.authority.anchors());
    credential
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_in_the_handshake_and_is_audited() {
    let world = World::new().await;
    // Another authority, hence another key: whatever it names.
    let credential = of_another_cluster(&world).await;
    assert_eq!(refused_in_handshake(&world, credential).await, "unauthenticated");
}

#[tokio::test]
async fn an_expired_certificate_ends_in_the_handshake_and_is_audited() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    Authority::create_files(names("demo"), &crt, &key, (&NoVault, None))
        .await
        .unwrap();
    let world = World::of(Arc::new(
        Authority::load(names("demo"), &crt, &key, &NoVault)
            .await
            .unwrap(),
    ))
    .await;
    let clock = Arc::new(crate::serve::testing::Behind(Duration::from_secs(7200)));
    let former = Authority::load(names("demo"), &crt, &key, &NoVault)
        .await
        .unwrap()
        .with_clock(clock);
    let credential = former
        .client(person(Role::Admin), Duration::from_secs(3600))
        .unwrap()
        .0;
    assert_eq!(refused_in_handshake(&world, credential).await, "unauthenticated");
}

async fn refused_in_handshake(world: &World, credential: Credential) -> String {
    let expected = smartscale_proto::tls::client::Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "demo".parse().unwrap(),
    };
    let material = smartscale_proto::tls::Rotating::new(credential);
    // With TLS 1.3 the client may learn of the refusal only with its first call.
    if let Ok(channel) = smartscale_proto::tls::client::Dialer::new(material, expected)
        .connect(&world.address)
        .await
    {
        assert!(
            AdminClient::new(channel)
                .status(v1::StatusRequest {})
                .await
                .is_err()
        );
    }
    let record = world.audited("handshake", "unauthenticated").await;
    assert!(record.arguments.contains("certificate"), "{}", record.arguments);
    record.outcome
}

#[tokio::test]
async fn an_identity_of_another_cluster_is_refused_and_audited_even_under_our_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    Authority::create_files(names("demo"), &crt, &key, (&NoVault, None))
        .await
        .unwrap();
    let world = World::of(Arc::new(
        Authority::load(names("demo"), &crt, &key, &NoVault)
            .await
            .unwrap(),
    ))
    .await;
    let other = Authority::load(names("other"), &crt, &key, &NoVault)
        .await
        .unwrap();
    let credential = other
        .client(person(Role::Admin), Duration::from_secs(60))
        .unwrap()
        .0;
    let refusal = AdminClient::new(world.channel(credential).await)
        .status(v1::StatusRequest {})
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    let record = world.audited("Admin/Status", "permission_denied").await;
    assert_eq!(record.who, "spiffe://smartscale/cluster/other/admin/admin/jo");
}

#[tokio::test]
async fn a_machine_that_is_unknown_never_enrolled_or_revoked_is_refused() {
    let world = World::new().await;
    let renew = v1::RenewRequest {
        csr_der: keys::key_and_request().unwrap().1,
    };
    let code = async |world: &World| {
        let mut client: AgentClient<_> = world.agent("i-1").await;
        client
            .renew(renew.clone())
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok)
    };
    assert_eq!(code(&world).await, Code::PermissionDenied);
    world.put(&crate::serve::testing::machine("i-1")).await;
    assert_eq!(code(&world).await, Code::PermissionDenied);
    let mut record = world.enrolled("i-1").await;
    assert_eq!(code(&world).await, Code::Ok);
    record.revoked_at = Some(smartscale_proto::time::Clock::now(&SystemClock));
    world.put(&record).await;
    assert_eq!(code(&world).await, Code::PermissionDenied);
    let refused = world.audited("Agent/Renew", "permission_denied").await;
    assert_eq!(refused.who, "spiffe://smartscale/cluster/demo/agent/i-1");
}

#[tokio::test]
async fn a_message_that_cannot_be_decoded_is_its_senders_mistake() {
    use tonic_prost::ProstCodec;
    let world = World::new().await;
    // Field 1 of DrainRequest is a text; a Duration's first field is a number.
    let mut grpc = Grpc::new(world.channel(world.credential(person(Role::Operator))).await);
    grpc.ready().await.unwrap();
    let wrong = prost_types::Duration { seconds: 5, nanos: 0 };
    let mut codec = ProstCodec::<prost_types::Duration, v1::DrainResponse>::default();
    let _ = codec.encoder();
    let path = "/smartscale.v1.Admin/Drain".parse().unwrap();
    let refusal = grpc
        .unary(tonic::Request::new(wrong), path, codec)
        .await
        .unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument, "{refusal}");
    let mut same = AdminClient::new(world.channel(world.credential(person(Role::Viewer))).await);
    assert!(same.status(v1::StatusRequest {}).await.is_ok());
}
