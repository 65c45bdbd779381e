#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{sync::mpsc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

use super::{
    client::{Dialer, Expected},
    server::FailedHandshake,
    *,
};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

fn authority() -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Authority {
        issuer: Issuer::new(params, key),
        certificate,
    }
}

impl Authority {
    fn credential(&self, uri: &str) -> Credential {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Credential {
            chain: vec![leaf, self.certificate.clone()],
            key: Some(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
                key.serialize_der(),
            ))),
            anchors: Anchors::Certificates(vec![self.certificate.clone()]),
        }
    }
}

fn expected() -> Expected {
    Expected {
        trust: "smartscale".parse().unwrap(),
        cluster: "demo".parse().unwrap(),
    }
}

const COORDINATOR: &str = "spiffe://smartscale/cluster/demo/coordinator";
const AGENT: &str = "spiffe://smartscale/cluster/demo/agent/i-1";

struct Server {
    address: String,
    failures: mpsc::Receiver<FailedHandshake>,
    peers: tokio::sync::mpsc::Receiver<Option<Identity>>,
    material: Rotating,
}

use crate::identity::Identity;

async fn serve(credential: Credential) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (failed, failures) = mpsc::channel();
    let (seen, peers) = tokio::sync::mpsc::channel(8);
    let material = Rotating::new(credential);
    let mut stream = server::incoming(listener, material.clone(), move |failure| {
        failed.send(failure).unwrap();
    })
    .unwrap();
    tokio::spawn(async move {
        while let Some(Ok(connection)) = stream.next().await {
            let leaf = connection
                .get_ref()
                .1
                .peer_certificates()
                .and_then(|chain| chain.first().cloned());
            seen.send(leaf.map(|der| Identity::from_certificate(&der).unwrap()))
                .await
                .unwrap();
        }
    });
    Server {
        address,
        failures,
        peers,
        material,
    }
}

#[tokio::test]
async fn a_caller_is_known_by_its_certificate() {
    let ca = authority();
    let mut server = serve(ca.credential(COORDINATOR)).await;
    let dialer = Dialer::new(Rotating::new(ca.credential(AGENT)), expected());
    let _ = dialer.connect(&server.address).await;
    assert_eq!(server.peers.recv().await.unwrap(), Some(AGENT.parse().unwrap()));
}

#[tokio::test]
async fn a_caller_without_a_certificate_pins_the_authority_by_its_fingerprint() {
    let ca = authority();
    let mut server = serve(ca.credential(COORDINATOR)).await;
    let pinned = |print| Credential {
        chain: vec![],
        key: None,
        anchors: Anchors::Fingerprints(vec![[9; 32], print]),
    };
    let good = Rotating::new(pinned(keys::fingerprint(&ca.certificate)));
    let _ = Dialer::new(good, expected()).connect(&server.address).await;
    assert_eq!(server.peers.recv().await.unwrap(), None);

    let other = Rotating::new(pinned([7; 32]));
    assert!(
        Dialer::new(other, expected())
            .connect(&server.address)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_server_with_another_identity_is_not_believed() {
    let ca = authority();
    for uri in [AGENT, "spiffe://smartscale/cluster/other/coordinator"] {
        let server = serve(ca.credential(uri)).await;
        let dialer = Dialer::new(Rotating::new(ca.credential(AGENT)), expected());
        assert!(dialer.connect(&server.address).await.is_err(), "{uri}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_in_the_handshake_and_is_reported() {
    let (ca, stranger) = (authority(), authority());
    let server = serve(ca.credential(COORDINATOR)).await;
    let mut credential = stranger.credential(AGENT);
    credential.anchors = Anchors::Certificates(vec![ca.certificate.clone()]);
    let _ = Dialer::new(Rotating::new(credential), expected())
        .connect(&server.address)
        .await;
    let failure =
        tokio::task::spawn_blocking(move || server.failures.recv_timeout(Duration::from_secs(10)).unwrap())
            .await
            .unwrap();
    assert!(failure.reason.contains("certificate"), "{}", failure.reason);
}

#[tokio::test]
async fn replaced_material_serves_the_next_handshake() {
    let (old, new) = (authority(), authority());
    let mut server = serve(old.credential(COORDINATOR)).await;
    let dialer = Dialer::new(Rotating::new(new.credential(AGENT)), expected());
    assert!(dialer.connect(&server.address).await.is_err());
    server.material.set(new.credential(COORDINATOR));
    let _ = dialer.connect(&server.address).await;
    assert_eq!(server.peers.recv().await.unwrap(), Some(AGENT.parse().unwrap()));
}

#[test]
fn a_fingerprint_is_read_in_the_forms_people_paste() {
    let print = [0xab; 32];
    let plain = "ab".repeat(32);
    let colons = vec!["AB"; 32].join(":");
    for text in [plain.clone(), colons, format!("sha256:{plain}\n")] {
        assert_eq!(keys::parse_fingerprint(&text).unwrap(), print);
    }
    assert!(keys::parse_fingerprint("abcd").is_err());
}

#[test]
fn a_key_and_a_certificate_survive_their_files() {
    let ca = authority();
    let pem = keys::to_pem("CERTIFICATE", &ca.certificate);
    assert_eq!(
        keys::certificates_from_pem(pem.as_bytes()).unwrap(),
        vec![ca.certificate.clone()]
    );
    let (key, request) = keys::key_and_request().unwrap();
    let pem = keys::to_pem("PRIVATE KEY", key.secret_der());
    assert_eq!(keys::key_from_pem(pem.as_bytes()).unwrap(), key);
    assert!(rcgen::CertificateSigningRequestParams::from_der(&request.into()).is_ok());
    assert!(keys::certificates_from_pem(b"nonsense").is_err());
}
