//! The rig's STS: it takes what AWS' own SDK signs, and nothing that is signed otherwise.

use smartscale_tests::rig::aws::{self, Key};
use smartscale_tests::rig::http::{self, Answer};
use smartscale_tests::rig::{Sts, sts};

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

#[tokio::test(flavor = "multi_thread")]
async fn the_sdks_signature_is_verified_for_both_kinds_of_credentials() {
    let server = Sts::start().await.unwrap();
    let identity = server.keys().identity_key("i-0123456789abcdef0");
    let session = Key {
        id: "ASIARIGROLE000000000".into(),
        secret: "secret".into(),
        token: Some("session".into()),
    };
    server.keys().know(&session, "worker", "i-0123456789abcdef0");
    for (key, role) in [(&identity, "aws:ec2-instance"), (&session, "worker")] {
        let client = aws_sdk_sts::Client::new(&aws::config(&server.url(), key).await);
        let who = client.get_caller_identity().send().await.unwrap();
        let arn = format!("arn:aws:sts::123456789012:assumed-role/{role}/i-0123456789abcdef0");
        assert_eq!(who.arn(), Some(arn.as_str()));
        assert_eq!(who.account(), Some("123456789012"));
    }
    for wrong in [
        Key {
            secret: "guessed".into(),
            ..identity.clone()
        },
        Key {
            id: "ASIAUNKNOWN000000000".into(),
            ..identity.clone()
        },
        Key {
            token: Some("other".into()),
            ..identity.clone()
        },
        Key {
            token: None,
            ..identity.clone()
        },
    ] {
        let client = aws_sdk_sts::Client::new(&aws::config(&server.url(), &wrong).await);
        client.get_caller_identity().send().await.unwrap_err();
    }
}

async fn ask(server: &Sts, headers: &[(&str, String)], authorization: &str, body: &'static str) -> Answer {
    let mut all: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    all.push(("authorization", authorization));
    http::send("POST", &format!("{}/", server.url()), &all, body)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_was_signed_otherwise_than_it_arrives_is_refused() {
    let server = Sts::start().await.unwrap();
    let key = server.keys().identity_key("i-0123456789abcdef0");
    let headers = |at: jiff::Timestamp| -> Vec<(&'static str, String)> {
        vec![
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8".into(),
            ),
            ("host", "sts.us-east-1.amazonaws.com".into()),
            ("x-amz-date", at.strftime("%Y%m%dT%H%M%SZ").to_string()),
            ("x-amz-security-token", key.token.clone().unwrap()),
            ("x-smartscale-challenge", "07".repeat(32)),
        ]
    };
    let now = headers(jiff::Timestamp::now());
    let authorization = sts::sign(&key, &now, BODY);
    assert_eq!(ask(&server, &now, &authorization, BODY).await.status, 200);
    // Another value, another body, a header that is signed but missing.
    let mut changed = now.clone();
    changed[4].1 = "08".repeat(32);
    assert_eq!(ask(&server, &changed, &authorization, BODY).await.status, 403);
    assert_eq!(
        ask(&server, &now, &authorization, "Action=GetSessionToken")
            .await
            .status,
        403
    );
    assert_eq!(ask(&server, &now[..4], &authorization, BODY).await.status, 403);
    // Older than STS takes it.
    let old = headers(jiff::Timestamp::now() - jiff::SignedDuration::from_secs(901));
    let authorization = sts::sign(&key, &old, BODY);
    assert!(
        ask(&server, &old, &authorization, BODY)
            .await
            .body
            .contains("RequestExpired")
    );
    assert_eq!(server.asked().len(), 5);
}
