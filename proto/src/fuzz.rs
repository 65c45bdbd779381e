//! Readers of what comes from the network or from files of others, tried with what is almost right.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

use std::{fmt::Debug, path::Path, time::Duration};

use prost::Message as _;
use rcgen::{CertificateParams, KeyPair, SanType};
use smartscale_fuzz::{Target, fuzz};

use crate::{
    audit::{
        Deed, Entry, Head,
        verify::{Checker, Finding},
    },
    credentials::Credentials,
    identity::Identity,
    k3s::ca_hash,
    time::{duration_from_wire, from_wire},
    tls::keys,
    v1,
};

/// What a reader made of an input, in a few words.
fn word<T, E: Debug>(read: Result<T, E>) -> String {
    read.map_or_else(|error| format!("{error:?}"), |_| "taken".to_owned())
}

fn target<'a>(name: &'a str, seeds: &'a [&'a [u8]], words: &'a [&'a str]) -> Target<'a> {
    Target {
        name,
        seeds,
        words,
        kept: Some(Path::new("fuzz/kept")),
    }
}

fn certificate(uris: &[&str]) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .collect();
    params.self_signed(&key).unwrap().der().to_vec()
}

#[test]
fn identities_in_certificates() {
    let one = certificate(&["spiffe://smartscale/cluster/demo/admin/viewer/jo"]);
    let two = certificate(&["spiffe://smartscale/cluster/demo/coordinator", "https://b"]);
    let words = [
        "spiffe://",
        "/cluster/",
        "/agent/i-1",
        "/admin/admin/x",
        "\u{86}\u{1}",
    ];
    fuzz(
        target("proto/certificate", &[&one, &two], &words),
        |input| match Identity::from_certificate(input) {
            Ok(identity) => {
                assert_eq!(identity.to_string().parse(), Ok(identity), "it is read back");
                "taken".to_owned()
            }
            Err(error) => format!("{error:?}"),
        },
    );
}

#[test]
fn identities_as_text() {
    let seed = b"spiffe://smartscale/cluster/demo/admin/operator/jo.doe".as_slice();
    let words = [
        "spiffe://",
        "/",
        "cluster",
        "agent",
        "coordinator",
        "admin",
        "%2f",
        "..",
    ];
    fuzz(target("proto/identity", &[seed], &words), |input| {
        let text = String::from_utf8_lossy(input);
        match text.parse::<Identity>() {
            Ok(identity) => {
                assert_eq!(identity.to_string(), text, "one form alone is taken");
                "taken".to_owned()
            }
            Err(error) => format!("{error:?}"),
        }
    });
}

#[test]
fn pem_and_fingerprints() {
    let der = certificate(&["spiffe://smartscale/cluster/demo/coordinator"]);
    let pem = keys::to_pem("CERTIFICATE", &der);
    let (key, _) = keys::key_and_request().unwrap();
    let key = keys::to_pem("PRIVATE KEY", key.secret_der());
    let print = hex::encode(keys::fingerprint(&der));
    let words = [
        "-----BEGIN CERTIFICATE-----",
        "-----END PRIVATE KEY-----",
        "\n",
        "sha256:",
    ];
    fuzz(
        target(
            "proto/pem",
            &[pem.as_bytes(), key.as_bytes(), print.as_bytes()],
            &words,
        ),
        |input| {
            let certificates = word(keys::certificates_from_pem(input));
            let key = word(keys::key_from_pem(input));
            let print = word(keys::parse_fingerprint(&String::from_utf8_lossy(input)));
            format!("{certificates} {key} {print}")
        },
    );
}

#[test]
fn authorities_of_k3s() {
    let (one, two) = (certificate(&["a:b"]), certificate(&["c:d"]));
    let bundle = keys::to_pem("CERTIFICATE", &one);
    let both = format!("{bundle}{}", keys::to_pem("CERTIFICATE", &two));
    let words = [
        "-----BEGIN CERTIFICATE-----\n",
        "-----END CERTIFICATE-----\n",
        "\r\n",
    ];
    fuzz(
        target("proto/cacerts", &[bundle.as_bytes(), both.as_bytes()], &words),
        |input| match ca_hash(input) {
            Ok(hash) => {
                assert_eq!(hash.len(), 64);
                "taken".to_owned()
            }
            Err(error) => format!("{error:?}"),
        },
    );
}

#[test]
fn records_of_the_audit() {
    let deed = Deed {
        time: jiff::Timestamp::UNIX_EPOCH,
        who: "a".to_owned(),
        call: "b".to_owned(),
        arguments: "c".to_owned(),
        outcome: "ok".to_owned(),
    };
    let first = Entry::after(&Head::empty("a"), deed.clone());
    let second = Entry::after(&Head::at(&first), deed);
    let seeds = [&first, &second].map(|entry| v1::AuditEntry::from(entry).encode_to_vec());
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    fuzz(target("proto/audit", &seeds, &["a"]), |input| {
        let Ok(wire) = v1::AuditEntry::decode(input) else {
            return "no message".to_owned();
        };
        let Ok(entry) = Entry::try_from(wire) else {
            return "no record".to_owned();
        };
        // Whatever is not one of the two is found out.
        let mut checker = Checker::new("a", jiff::Timestamp::MAX, Duration::MAX, None, None);
        checker.entry(entry.sequence, &entry);
        let whole = checker.finish(true).findings == [Finding::NoHead];
        assert!(!whole || entry == first, "{entry:?}");
        format!("{whole}")
    });
}

#[test]
fn credentials() {
    let der = certificate(&["spiffe://smartscale/cluster/demo/admin/viewer/jo"]);
    let pem = keys::to_pem("CERTIFICATE", &der);
    let seed = format!(
        "cluster = \"demo\"\ntrust = \"t\"\nendpoints = [\"h:1\"]\nca = '''{pem}'''\ncertificate = '''{pem}'''\n\
         key = \"\"\n"
    );
    let words = ["'''", "\"", "[", "]", "\n", "key = ", "certificate = "];
    fuzz(target("proto/credentials", &[seed.as_bytes()], &words), |input| {
        let Ok(read) = toml::from_str::<Credentials>(&String::from_utf8_lossy(input)) else {
            return "refused".to_owned();
        };
        let (identity, end) = (word(read.identity()), word(read.not_after()));
        format!("{} {identity} {end}", word(read.credential()))
    });
}

#[test]
fn times_of_the_wire() {
    let seed = prost_types::Timestamp {
        seconds: 1_767_323_045,
        nanos: 5,
    }
    .encode_to_vec();
    fuzz(target("proto/times", &[&seed], &[]), |input| {
        let time = prost_types::Timestamp::decode(input).map(|wire| word(from_wire(&wire)));
        let span = prost_types::Duration::decode(input).map(|wire| word(duration_from_wire(&wire)));
        format!("{} {}", time.unwrap_or_default(), span.unwrap_or_default())
    });
}

#[test]
fn messages_of_the_contract() {
    let certificate = v1::Certificate {
        chain_der: vec![vec![1, 2, 3]],
        trust_anchors_der: vec![vec![4]],
        not_after: None,
    };
    let hello = v1::SessionRequest {
        time: None,
        report: Some(v1::session_request::Report::Hello(v1::Hello::default())),
    };
    let drain = v1::SessionResponse {
        command: Some(v1::session_response::Command::Drain(v1::DrainCommand {
            operation_id: "op-1".to_owned(),
            ..v1::DrainCommand::default()
        })),
    };
    let seeds = [
        certificate.encode_to_vec(),
        hello.encode_to_vec(),
        drain.encode_to_vec(),
    ];
    let seeds: Vec<&[u8]> = seeds.iter().map(Vec::as_slice).collect();
    fuzz(target("proto/messages", &seeds, &["op-1"]), |input| {
        // What is decoded is encoded to something that is decoded to the same.
        fn again<M: prost::Message + Default + PartialEq>(input: &[u8]) -> String {
            match M::decode(input) {
                Ok(message) => {
                    let bytes = message.encode_to_vec();
                    let read = M::decode(bytes.as_slice()).unwrap();
                    assert_eq!(read.encode_to_vec(), bytes);
                    "taken".to_owned()
                }
                Err(error) => error.to_string(),
            }
        }
        [
            again::<v1::SessionRequest>(input),
            again::<v1::SessionResponse>(input),
            again::<v1::EnrolRequest>(input),
            again::<v1::Certificate>(input),
        ]
        .join(" ")
    });
}
