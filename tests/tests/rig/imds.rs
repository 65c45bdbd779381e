//! The rig's IMDS: version 2 alone, notices, and the same forms as AWS' own mock.

use std::time::Duration;

use serde_json::Value;
use smartscale_tests::rig::aws::Key;
use smartscale_tests::rig::http::{self, Answer};
use smartscale_tests::rig::imds::Instance;
use smartscale_tests::rig::process::{self, Program};
use smartscale_tests::rig::{Folder, Imds, cache};

async fn token(url: &str) -> String {
    let url = format!("{url}/latest/api/token");
    let answer = http::send("PUT", &url, &[("x-aws-ec2-metadata-token-ttl-seconds", "60")], "")
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    answer.body
}

async fn read(url: &str, token: &str, path: &str) -> Answer {
    http::send(
        "GET",
        &format!("{url}{path}"),
        &[("x-aws-ec2-metadata-token", token)],
        "",
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_token_is_refused_and_a_token_needs_a_life() {
    let imds = Imds::start(Instance::new("i-1")).await.unwrap();
    let url = imds.url();
    assert_eq!(
        http::get(&format!("{url}/latest/meta-data/instance-id"))
            .await
            .unwrap()
            .status,
        401
    );
    assert_eq!(
        read(&url, "forged", "/latest/meta-data/instance-id").await.status,
        401
    );
    assert_eq!(imds.refused(), 2);
    let put = async |headers: &[(&str, &str)]| {
        http::send("PUT", &format!("{url}/latest/api/token"), headers, "")
            .await
            .unwrap()
            .status
    };
    assert_eq!(put(&[]).await, 400);
    assert_eq!(
        put(&[("x-aws-ec2-metadata-token-ttl-seconds", "21601")]).await,
        400
    );
    let forwarded = [
        ("x-aws-ec2-metadata-token-ttl-seconds", "60"),
        ("x-forwarded-for", "10.0.0.1"),
    ];
    assert_eq!(put(&forwarded).await, 403);
    assert_eq!(
        read(&url, &token(&url).await, "/latest/meta-data/instance-id")
            .await
            .body,
        "i-1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_is_absent_until_the_test_gives_it() {
    let imds = Imds::start(Instance::new("i-1")).await.unwrap();
    let (url, token) = (imds.url(), token(&imds.url()).await);
    let spot = "/latest/meta-data/spot/instance-action";
    let rebalance = "/latest/meta-data/events/recommendations/rebalance";
    let maintenance = "/latest/meta-data/events/maintenance/scheduled";
    assert_eq!(read(&url, &token, spot).await.status, 404);
    assert_eq!(read(&url, &token, rebalance).await.status, 404);
    assert_eq!(read(&url, &token, maintenance).await.body, "[]");
    let at = "2026-05-01T10:00:00Z".parse().unwrap();
    imds.interrupt("terminate", at);
    imds.recommend_rebalance(at);
    imds.announce_maintenance("instance-retirement", at);
    let action = read(&url, &token, spot).await.json().unwrap();
    assert_eq!(
        action,
        serde_json::json!({"action": "terminate", "time": "2026-05-01T10:00:00Z"})
    );
    assert_eq!(
        read(&url, &token, rebalance).await.json().unwrap()["noticeTime"],
        "2026-05-01T10:00:00Z"
    );
    let events = read(&url, &token, maintenance).await.json().unwrap();
    assert_eq!(events[0]["Code"], "instance-retirement");
    assert_eq!(events[0]["NotBefore"], "1 May 2026 10:00:00 GMT");
    imds.clear_notices();
    assert_eq!(read(&url, &token, spot).await.status, 404);
}

/// The keys of an object, and of the first element of an array.
fn keys(value: &Value) -> Vec<String> {
    let mut keys: Vec<_> = match value {
        Value::Array(items) => items.first().map(keys).unwrap_or_default(),
        Value::Object(fields) => fields.keys().cloned().collect(),
        _ => Vec::new(),
    };
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_have_the_fields_of_aws_own_mock() {
    let folder = Folder::new("imds-reference").unwrap();
    let mut processes = Vec::new();
    // One mock offers one notice.
    for mode in ["spot", "events"] {
        let attempt = || {
            let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
            let address = listener.local_addr()?;
            let program = Program::new(format!("mock-{mode}"), cache::installed("bin/ec2-metadata-mock")?)
                .arg(mode)
                .arg("--hostname")
                .arg("127.0.0.1")
                .arg("--port")
                .arg(address.port().to_string());
            Ok((program, format!("http://{address}")))
        };
        let ready =
            async |url: String| Ok(http::get(&format!("{url}/latest/meta-data")).await?.status == 200);
        processes.push(
            process::start(&folder, Duration::from_secs(20), attempt, ready)
                .await
                .unwrap(),
        );
    }
    let mut instance = Instance::new("i-1");
    instance.role = Some(("baskinc-role".into(), Key::root()));
    let ours = Imds::start(instance).await.unwrap();
    let at = jiff::Timestamp::now();
    ours.interrupt("terminate", at);
    ours.announce_maintenance("system-reboot", at);
    let our_token = token(&ours.url()).await;
    for (index, path) in [
        (0, "/latest/meta-data/spot/instance-action"),
        (0, "/latest/meta-data/iam/info"),
        (0, "/latest/meta-data/iam/security-credentials/baskinc-role"),
        (0, "/latest/dynamic/instance-identity/document"),
        (1, "/latest/meta-data/events/maintenance/scheduled"),
    ] {
        let url = &processes[index].1;
        let reference = read(url, &token(url).await, path).await;
        assert_eq!(reference.status, 200, "{path}: {reference:?}");
        let mine = read(&ours.url(), &our_token, path).await;
        assert_eq!(
            keys(&mine.json().unwrap()),
            keys(&reference.json().unwrap()),
            "{path}"
        );
    }
}
