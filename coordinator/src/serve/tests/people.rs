//! Identities of people, handed out and revoked over the wire.

use std::time::Duration;

use smartscale_proto::{
    identity::{Leaf, Role},
    time::duration_to_wire,
    tls::{Anchors, Credential, keys},
    v1::{
        self, admin_client::AdminClient, identities_client::IdentitiesClient,
        revoke_identity_request::Subject,
    },
};
use tonic::{Code, Status, transport::Channel};

use crate::serve::testing::{World, person, until};

async fn identities(world: &World, role: Role) -> IdentitiesClient<Channel> {
    IdentitiesClient::new(world.channel(world.credential(person(role))).await)
}

/// A person's credential that an administrator handed out.
async fn issue(world: &World, role: &str, name: &str, life: Option<u64>) -> Result<Credential, Status> {
    let (key, csr_der) = keys::key_and_request().unwrap();
    let request = v1::IssueIdentityRequest {
        csr_der,
        role: role.to_owned(),
        name: name.to_owned(),
        life: life.map(|seconds| duration_to_wire(Duration::from_secs(seconds))),
    };
    let answer = identities(world, Role::Admin)
        .await
        .issue_identity(request)
        .await?
        .into_inner();
    let certificate = answer.certificate.unwrap();
    let chain: Vec<rustls::pki_types::CertificateDer<'static>> =
        certificate.chain_der.into_iter().map(Into::into).collect();
    assert_eq!(Leaf::from_certificate(&chain[0]).unwrap().serial, answer.serial);
    assert_eq!(answer.endpoints[0], world.address);
    Ok(Credential {
        chain,
        key: Some(key),
        anchors: Anchors::Certificates(
            certificate
                .trust_anchors_der
                .into_iter()
                .map(Into::into)
                .collect(),
        ),
    })
}

async fn status(world: &World, credential: &Credential) -> Code {
    let channel = world.channel(credential.clone()).await;
    let answer = AdminClient::new(channel).status(v1::StatusRequest {}).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn revoke(world: &World, subject: Subject) -> Result<u32, Status> {
    let request = v1::RevokeIdentityRequest {
        subject: Some(subject),
        reason: "left".to_owned(),
    };
    let answer = identities(world, Role::Admin)
        .await
        .revoke_identity(request)
        .await?;
    Ok(answer.into_inner().ended)
}

#[tokio::test]
async fn a_person_with_a_handed_out_certificate_may_do_what_its_role_says_and_no_more() {
    let world = World::new().await;
    let viewer = issue(&world, "viewer", "ann", None).await.unwrap();
    assert_eq!(status(&world, &viewer).await, Code::Ok);
    let mut client = AdminClient::new(world.channel(viewer.clone()).await);
    let refusal = client.pause(v1::PauseRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    let leaf = Leaf::from_certificate(&viewer.chain[0]).unwrap();
    assert_eq!(
        leaf.identity.to_string(),
        "spiffe://smartscale/cluster/demo/admin/viewer/ann"
    );
    let life = leaf.not_after.duration_since(jiff::Timestamp::now());
    assert!(life.as_secs() <= 8 * 3600, "{life:?}");
    let record = world.audited("Identities/IssueIdentity", "ok").await;
    assert!(
        record.arguments.contains("role=\"viewer\" name=\"ann\""),
        "{}",
        record.arguments
    );
    assert_eq!(record.role, "admin");
}

#[tokio::test]
async fn nobody_gets_more_than_eight_hours_another_role_or_a_name_that_reads_otherwise() {
    let world = World::new().await;
    for (role, name, life) in [
        ("viewer", "ann", Some(8 * 3600 + 1)),
        ("viewer", "ann", Some(0)),
        ("root", "ann", None),
        ("viewer", "ann/../admin", None),
        ("viewer", "", None),
    ] {
        let refusal = issue(&world, role, name, life).await.unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument, "{role} {name} {life:?}");
    }
    let (_, mut csr_der) = keys::key_and_request().unwrap();
    let last = csr_der.len() - 1;
    csr_der[last] ^= 1;
    let request = v1::IssueIdentityRequest {
        csr_der,
        role: "viewer".to_owned(),
        name: "ann".to_owned(),
        life: None,
    };
    let refusal = identities(&world, Role::Admin)
        .await
        .issue_identity(request)
        .await;
    assert_eq!(refusal.unwrap_err().code(), Code::InvalidArgument);
    let operator = identities(&world, Role::Operator)
        .await
        .list_identities(v1::ListIdentitiesRequest::default())
        .await;
    assert_eq!(operator.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_at_every_call_and_its_streams_end() {
    let world = World::new().await;
    let (ann, other) = (
        issue(&world, "viewer", "ann", None).await.unwrap(),
        issue(&world, "viewer", "ann", None).await.unwrap(),
    );
    let mut open = AdminClient::new(world.channel(ann.clone()).await);
    let mut events = open.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    let mut kept = AdminClient::new(world.channel(other.clone()).await)
        .watch(v1::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let serial = Leaf::from_certificate(&ann.chain[0]).unwrap().serial;
    assert_eq!(
        revoke(&world, Subject::Serial(serial.to_uppercase()))
            .await
            .unwrap(),
        1
    );
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    });
    assert_eq!(ended.await.unwrap().code(), Code::PermissionDenied);
    // On the connection that is open, and on a new one.
    let refusal = open.status(v1::StatusRequest {}).await.unwrap_err();
    assert_eq!(refusal.code(), Code::PermissionDenied);
    assert_eq!(status(&world, &ann).await, Code::PermissionDenied);
    assert_eq!(status(&world, &other).await, Code::Ok);
    assert_eq!(
        revoke(&world, Subject::Serial("00".to_owned()))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );

    // The whole person: also what nobody here has handed out.
    let jo = world.credential(person(Role::Operator));
    assert_eq!(revoke(&world, Subject::Name("ann".to_owned())).await.unwrap(), 1);
    assert_eq!(status(&world, &other).await, Code::PermissionDenied);
    assert_eq!(status(&world, &jo).await, Code::Ok);
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Err(status) = kept.message().await {
                return status;
            }
        }
    });
    assert_eq!(ended.await.unwrap().code(), Code::PermissionDenied);
    world.audited("Admin/Status", "permission_denied").await;
}

#[tokio::test]
async fn the_list_shows_who_has_access_also_by_the_authoritys_own_key() {
    let world = World::new().await;
    issue(&world, "operator", "ann", Some(3600)).await.unwrap();
    let ben = issue(&world, "viewer", "ben", None).await.unwrap();
    revoke(&world, Subject::Name("ben".to_owned())).await.unwrap();
    assert_eq!(status(&world, &ben).await, Code::PermissionDenied);
    let list = async |include_ended| {
        let request = v1::ListIdentitiesRequest { include_ended };
        let mut client = identities(&world, Role::Admin).await;
        client
            .list_identities(request)
            .await
            .unwrap()
            .into_inner()
            .identities
    };
    let good = list(false).await;
    let ann = good.iter().find(|one| one.name == "ann").unwrap();
    assert_eq!(ann.role, "operator");
    assert_eq!(ann.issued_by, "spiffe://smartscale/cluster/demo/admin/admin/jo");
    assert!(good.iter().all(|one| one.name != "ben"));
    assert!(
        good.iter()
            .any(|one| one.name == "jo" && one.issued_by == "ca key")
    );
    let all = list(true).await;
    let ben = all.iter().find(|one| one.name == "ben").unwrap();
    assert_eq!(
        (ben.revoked_for.as_str(), ben.revoked_at.is_some()),
        ("left", true)
    );
}

#[tokio::test]
async fn a_connection_does_not_outlive_its_persons_certificate() {
    let world = World::new().await;
    let short = world
        .authority
        .client(person(Role::Viewer), Duration::from_secs(8))
        .unwrap()
        .0;
    let mut client = AdminClient::new(world.channel(short).await);
    client.status(v1::StatusRequest {}).await.unwrap();
    let mut events = client.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    let ended = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let Err(status) = events.message().await {
                return status;
            }
        }
    });
    assert_eq!(ended.await.unwrap().code(), Code::Unauthenticated);
    until(async || {
        let code = client
            .status(v1::StatusRequest {})
            .await
            .map_err(|status| status.code());
        matches!(code, Err(Code::Unauthenticated)).then_some(())
    })
    .await;
}
