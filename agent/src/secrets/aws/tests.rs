#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! The SDK as it is set up here, against a small server that speaks Secrets Manager's protocol.

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::*;
use crate::{
    http::testing::{Authority, at_once},
    machine::imds,
};

/// Knows one secret, and only for the instance's role.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let signed = request
        .headers()
        .get("authorization")
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        signed.contains("ASIA1") && signed.contains("us-east-1/secretsmanager"),
        "{signed}"
    );
    let asked = request.into_body().collect().await?.to_bytes();
    let (status, body) = if String::from_utf8_lossy(&asked).contains("k3s/join-token") {
        (200, r#"{"Name":"k3s/join-token","SecretString":"s3cr3t"}"#)
    } else {
        (
            400,
            r#"{"__type":"ResourceNotFoundException","Message":"can't find the specified secret"}"#,
        )
    };
    let body = Full::new(Bytes::from_static(body.as_bytes()));
    Ok(Response::builder()
        .status(status)
        .header("content-type", "application/x-amz-json-1.1")
        .body(body)
        .unwrap())
}

#[tokio::test]
async fn a_secret_is_read_with_the_instances_role_and_a_missing_one_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(answer)));
        }
    });
    let imds = Arc::new(imds::tests::with_role().await);
    let mut secrets = SecretsManager::new(Some(imds), Some("us-east-1".into()), Some(endpoint));
    // Whoever runs this test may have credentials of their own.
    secrets.environment = None;
    let secret = secrets.secret("k3s/join-token", "us-east-1a").await.unwrap();
    assert_eq!(secret.reveal(), "s3cr3t");
    let text = secrets
        .secret("k3s/other", "us-east-1a")
        .await
        .unwrap_err()
        .to_string();
    assert!(text.contains("k3s/other") && text.contains("create it"), "{text}");
}

#[tokio::test]
async fn aws_own_endpoints_are_asked_over_tls_and_believed_by_their_authority_alone() {
    let authority = Authority::new();
    let endpoint = authority
        .serve(false, |seen| {
            // The signature covers the host, which is checked against what arrives.
            let host = seen.head.headers["host"].to_str().unwrap();
            assert!(
                host.starts_with("127.0.0.1:") && seen.head.uri.path() == "/",
                "{host}"
            );
            assert_eq!(seen.head.headers["x-amz-target"], "secretsmanager.GetSecretValue");
            at_once(200, r#"{"Name":"a","SecretString":"s3cr3t"}"#)
        })
        .await;
    let mut secrets = SecretsManager::new(None, Some("us-east-1".into()), Some(endpoint));
    secrets.environment = Some(Credentials::new("AKIA1", "key", None, None, "test"));
    secrets.believed = Some(Arc::new(authority.roots()));
    assert_eq!(
        secrets.secret("a", "us-east-1a").await.unwrap().reveal(),
        "s3cr3t"
    );
    secrets.believed = Some(Arc::new(Authority::new().roots()));
    let text = secrets.secret("a", "us-east-1a").await.unwrap_err().to_string();
    assert!(text.contains("certificate"), "{text}");
}
