#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! IMDS against a small server that, like EC2 with IMDSv2 required, answers nobody without a token.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use http_body_util::Full;
use hyper::{Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use smartscale_proto::time::SystemClock;
use tokio::net::TcpListener;

use super::*;
use crate::notices::{NoticeKind, NoticeSource as _};

#[derive(Default)]
struct Service {
    values: BTreeMap<&'static str, &'static str>,
    /// Tokens handed out; the last one is good.
    tokens: AtomicU32,
    /// Connections taken.
    connections: AtomicU32,
    /// No version 2.
    only_v1: bool,
    /// One question a connection.
    closes: bool,
}

impl Service {
    fn answer(&self, request: &Request<Incoming>) -> (StatusCode, String) {
        let path = request.uri().path().trim_start_matches("/latest/");
        if path == "api/token" {
            if self.only_v1 || request.method() != Method::PUT {
                return (StatusCode::NOT_FOUND, String::new());
            }
            assert!(
                request
                    .headers()
                    .contains_key("x-aws-ec2-metadata-token-ttl-seconds")
            );
            return (
                StatusCode::OK,
                format!("token-{}", self.tokens.fetch_add(1, Ordering::SeqCst) + 1),
            );
        }
        let token = request
            .headers()
            .get("x-aws-ec2-metadata-token")
            .map(|token| token.to_str().unwrap().to_owned());
        if token.is_none() && self.only_v1 {
            panic!("asked without a token");
        }
        if token != Some(format!("token-{}", self.tokens.load(Ordering::SeqCst))) {
            return (StatusCode::UNAUTHORIZED, String::new());
        }
        match self.values.get(path) {
            Some(value) => (StatusCode::OK, (*value).to_owned()),
            None => (StatusCode::NOT_FOUND, String::new()),
        }
    }
}

/// An instance with a role.
#[cfg(feature = "aws")]
pub(crate) async fn with_role() -> Imds {
    let mut service = instance();
    service.values.extend([
        ("meta-data/iam/security-credentials/", "worker"),
        (
            "meta-data/iam/security-credentials/worker",
            r#"{"Code":"Success","AccessKeyId":"ASIA1","SecretAccessKey":"k","Token":"t","Expiration":"2036-01-01T00:00:00Z"}"#,
        ),
    ]);
    serve(service).await.0
}

async fn serve(service: Service) -> (Imds, Arc<Service>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let service = Arc::new(service);
    let served = Arc::clone(&service);
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let served = Arc::clone(&served);
            served.connections.fetch_add(1, Ordering::SeqCst);
            let keep_alive = !served.closes;
            let respond = service_fn(move |request: Request<Incoming>| {
                let (status, body) = served.answer(&request);
                let body = Full::new(Bytes::from(body));
                async move { Ok::<_, hyper::Error>(Response::builder().status(status).body(body).unwrap()) }
            });
            let mut http = http1::Builder::new();
            let conversation = http
                .keep_alive(keep_alive)
                .serve_connection(TokioIo::new(socket), respond);
            tokio::spawn(conversation);
        }
    });
    (Imds::new(&endpoint, 1, Arc::new(SystemClock)).unwrap(), service)
}

fn instance() -> Service {
    Service {
        values: BTreeMap::from([
            ("meta-data/instance-id", "i-0123456789abcdef0"),
            ("meta-data/instance-type", "t3.small"),
            ("meta-data/placement/availability-zone", "us-east-1a"),
            ("meta-data/instance-life-cycle", "spot"),
            ("meta-data/local-ipv4", "10.0.1.17"),
        ]),
        ..Service::default()
    }
}

#[tokio::test]
async fn an_instance_learns_who_it_is_with_one_token() {
    let (imds, service) = serve(instance()).await;
    let machine = imds.identity().await.unwrap();
    assert_eq!(machine.id.as_str(), "i-0123456789abcdef0");
    assert_eq!(machine.market, Market::Spot);
    assert_eq!(
        machine.provider_id.as_deref(),
        Some("aws:///us-east-1a/i-0123456789abcdef0")
    );
    assert_eq!(service.tokens.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_service_without_version_2_is_never_asked_without_a_token() {
    let (imds, _service) = serve(Service {
        only_v1: true,
        ..instance()
    })
    .await;
    let text = imds.identity().await.unwrap_err().to_string();
    assert!(text.contains("no IMDSv2 token"), "{text}");
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let (imds, service) = serve(instance()).await;
    imds.identity().await.unwrap();
    service.tokens.fetch_add(1, Ordering::SeqCst);
    imds.identity().await.unwrap();
    assert_eq!(service.tokens.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_missing_or_absurd_category_is_named() {
    let mut service = instance();
    service.values.remove("meta-data/local-ipv4");
    let (imds, _service) = serve(service).await;
    let text = imds.identity().await.unwrap_err().to_string();
    assert!(text.contains("meta-data/local-ipv4"), "{text}");
    let mut service = instance();
    service
        .values
        .insert("meta-data/placement/availability-zone", "a\nserver: evil");
    let (imds, _service) = serve(service).await;
    let text = imds.identity().await.unwrap_err().to_string();
    assert!(
        text.contains("availability-zone") && text.contains("us-east-1a"),
        "{text}"
    );
}

#[tokio::test]
async fn notices_stand_while_imds_says_them() {
    let (imds, _service) = serve(instance()).await;
    assert_eq!(imds.standing().await.unwrap(), []);
    let mut service = instance();
    service.values.extend([
        (
            "meta-data/spot/instance-action",
            r#"{"action":"terminate","time":"2026-01-01T00:02:00Z"}"#,
        ),
        (
            "meta-data/events/recommendations/rebalance",
            r#"{"noticeTime":"2026-01-01T00:00:00Z"}"#,
        ),
        ("meta-data/events/maintenance/scheduled", "nonsense"),
    ]);
    let (imds, _service) = serve(service).await;
    let kinds: Vec<_> = imds
        .standing()
        .await
        .unwrap()
        .into_iter()
        .map(|notice| notice.kind)
        .collect();
    assert_eq!(kinds, [NoticeKind::SpotInterruption, NoticeKind::Rebalance]);
}

#[tokio::test]
async fn a_connection_that_is_kept_open_is_used_again_and_one_that_is_not_is_replaced() {
    for (closes, connections) in [(false, 1), (true, 13)] {
        let (imds, service) = serve(Service { closes, ..instance() }).await;
        for _ in 0..4 {
            assert_eq!(imds.standing().await.unwrap(), []);
        }
        // Three questions each time, and one token.
        assert_eq!(service.connections.load(Ordering::SeqCst), connections);
    }
}

#[tokio::test]
async fn nobody_listening_is_an_error_with_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let imds = Imds::new(&format!("http://{address}"), 1, Arc::new(SystemClock)).unwrap();
    let text = imds.identity().await.unwrap_err().to_string();
    assert!(text.contains(&address), "{text}");
}
