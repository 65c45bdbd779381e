#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use async_trait::async_trait;
use smartscale_proto::{identity::Role, time::Clock, tls::keys::key_and_request};

use super::{vault::NoVault, *};

pub(crate) fn names() -> Names {
    Names {
        trust: "smartscale".parse().unwrap(),
        cluster: "demo".parse().unwrap(),
    }
}

fn authority() -> Authority {
    Authority::create(names()).unwrap().0
}

fn key() -> RequestedKey {
    RequestedKey::from_request(&key_and_request().unwrap().1).unwrap()
}

struct At(Timestamp);

#[async_trait]
impl Clock for At {
    fn now(&self) -> Timestamp {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

#[test]
fn an_agents_name_is_ours_to_give() {
    let issued = authority().agent("i-1".parse().unwrap(), &key()).unwrap();
    let identity = Identity::from_certificate(&issued.chain[0]).unwrap();
    assert_eq!(identity.to_string(), "spiffe://smartscale/cluster/demo/agent/i-1");
    assert_eq!(issued.chain.len(), 2);
}

#[test]
fn a_certificate_lives_as_long_as_was_set_and_began_an_hour_ago() {
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let life = CertificateLife::new(Duration::from_secs(3600)).unwrap();
    let authority = authority().with_life(life).with_clock(Arc::new(At(now)));
    let issued = authority.agent("i-1".parse().unwrap(), &key()).unwrap();
    assert_eq!(issued.not_after.to_string(), "2026-01-02T04:04:05Z");
    let (_, parsed) = x509_parser::certificate::X509Certificate::from_der(&issued.chain[0]).unwrap();
    assert_eq!(parsed.validity().not_before.timestamp(), now.as_second() - 3600);
    assert!(CertificateLife::new(Duration::from_secs(3599)).is_err());
    assert!(CertificateLife::new(Duration::from_secs(24 * 3600 + 1)).is_err());
}

#[test]
fn no_certificate_outlives_its_authority() {
    let authority = authority();
    let ends = authority.held().ends();
    let late = authority.with_clock(Arc::new(At(ends - SignedDuration::from_secs(60))));
    assert_eq!(
        late.agent("i-1".parse().unwrap(), &key()).unwrap().not_after,
        ends
    );
    let too_late = late.with_clock(Arc::new(At(ends)));
    assert!(matches!(
        too_late.agent("i-1".parse().unwrap(), &key()),
        Err(AuthorityError::Unusable(_))
    ));
}

#[tokio::test]
async fn an_authority_survives_its_files_and_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (crt, key) = (folder.path().join("ca.crt"), folder.path().join("ca.key"));
    let created = Authority::create_files(names(), &crt, &key, (&NoVault, None))
        .await
        .unwrap();
    let loaded = Authority::load(names(), &crt, &key, &NoVault).await.unwrap();
    assert_eq!(created.fingerprint(), loaded.fingerprint());
    assert!(matches!(
        Authority::create_files(names(), &crt, &key, (&NoVault, None)).await,
        Err(AuthorityError::File(_))
    ));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(
        Authority::load(names(), &crt, &key, &NoVault).await,
        Err(AuthorityError::File(FileError::Exposed { .. }))
    ));
}

#[test]
fn during_a_rollover_both_authorities_are_trusted_and_ours_signs() {
    let old = authority();
    let (_, pair) = Authority::create(names()).unwrap();
    assert!(matches!(
        Authority::new(names(), pair, old.anchors()),
        Err(AuthorityError::Mismatch)
    ));
    let (new, pair) = Authority::create(names()).unwrap();
    let both = vec![old.anchors()[0].clone(), new.anchors()[0].clone()];
    let rolling = Authority::new(names(), pair, both).unwrap();
    assert_eq!(rolling.fingerprint(), new.fingerprint());
    let issued = rolling.agent("i-1".parse().unwrap(), &key()).unwrap();
    assert_eq!(issued.anchors.len(), 2);
    assert_eq!(issued.chain[1], new.anchors()[0]);
}

#[test]
fn a_persons_credential_names_role_and_person() {
    let party = Party::Admin {
        role: Role::Operator,
        name: "jo".parse().unwrap(),
    };
    let (credential, ends) = authority().client(party, Duration::from_secs(60)).unwrap();
    let identity = Identity::from_certificate(&credential.chain[0]).unwrap();
    assert_eq!(
        identity.to_string(),
        "spiffe://smartscale/cluster/demo/admin/operator/jo"
    );
    assert!(ends > Timestamp::now());
}
