//! The thin client against a small API server over TLS with client certificates.

use std::{
    fs,
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
    time::SystemTime,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::future::join_all;
use hyper::body::Bytes;
use serde_json::{Value, json};
use smartscale_proto::tls::keys;
use tempfile::TempDir;

use super::*;
use crate::http::testing::{Answering, Authority, Issued, Seen, answer, at_once, fingerprint};

/// A folder with a kubeconfig as K3s writes it, and the API that reads it.
struct World {
    authority: Authority,
    folder: TempDir,
    api: KubeconfigApi,
}

impl World {
    async fn new(answer: impl Fn(Seen) -> Answering + Send + Sync + 'static) -> Self {
        let authority = Authority::new();
        let server = authority.serve(true, answer).await;
        let folder = tempfile::tempdir().unwrap();
        let api = KubeconfigApi::new(&folder.path().join("kubelet.kubeconfig"));
        let world = Self {
            authority,
            folder,
            api,
        };
        world.put("ca.crt", &world.authority.pem);
        world.enrol("system:node:n");
        world.kubeconfig(
            &server,
            "certificate-authority: ca.crt",
            "client-certificate: client.crt",
            "client-key: client.key",
        );
        world
    }

    fn put(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Puts a new client certificate in place and tells its fingerprint.
    fn enrol(&self, name: &str) -> String {
        let Issued { certificate, key } = self.authority.issue(name);
        self.put("client.crt", &certificate);
        self.put("client.key", &key);
        fingerprint(&keys::certificates_from_pem(certificate.as_bytes()).unwrap()[0])
    }

    fn kubeconfig(&self, server: &str, authority: &str, certificate: &str, key: &str) {
        let text = format!(
            "apiVersion: v1\nclusters:\n- cluster:\n    server: {server}\n    {authority}\n  name: local\n\
             contexts:\n- context:\n    cluster: local\n    namespace: default\n    user: user\n  name: Default\n\
             current-context: Default\nkind: Config\npreferences: {{}}\n\
             users:\n- name: user\n  user:\n    {certificate}\n    {key}\n"
        );
        self.put("kubelet.kubeconfig", &text);
    }

    /// Makes a file look as if it had been written long ago.
    fn age(&self, name: &str) {
        let file = fs::File::options()
            .write(true)
            .open(self.folder.path().join(name))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
}

/// A node that is marked with the certificate of whoever asks.
fn node_of(seen: &Seen) -> String {
    json!({"metadata": {"name": "n", "annotations": {DRAINING: seen.client}},
           "spec": {"unschedulable": true},
           "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    .to_string()
}

fn key() -> PodKey {
    PodKey {
        namespace: "default".into(),
        name: "a".into(),
    }
}

#[tokio::test]
async fn the_node_is_read_with_the_clients_certificate_on_one_kept_connection() {
    let world = World::new(|seen| {
        assert_eq!(seen.head.uri, "/api/v1/nodes/n");
        assert_eq!(seen.connection, 0, "a second connection");
        at_once(200, node_of(&seen))
    })
    .await;
    let first = world.api.node("n").await.unwrap();
    assert!(first.ready && first.unschedulable);
    let certificate = fs::read(world.folder.path().join("client.crt")).unwrap();
    let certificate = keys::certificates_from_pem(&certificate).unwrap();
    assert_eq!(first.cordoned_by, Some(fingerprint(&certificate[0])));
    assert_eq!(world.api.node("n").await.unwrap(), first);
}

#[tokio::test]
async fn a_rotated_certificate_is_used_for_the_next_call() {
    let world = World::new(|seen| at_once(200, node_of(&seen))).await;
    let old = world.enrol("system:node:n");
    world.age("client.crt");
    assert_eq!(world.api.node("n").await.unwrap().cordoned_by, Some(old.clone()));
    let new = world.enrol("system:node:n");
    assert_ne!(new, old);
    assert_eq!(world.api.node("n").await.unwrap().cordoned_by, Some(new));
}

#[tokio::test]
async fn a_certificate_whose_key_is_not_there_yet_is_asked_for_again() {
    let world = World::new(|seen| at_once(200, node_of(&seen))).await;
    let old = fs::read_to_string(world.folder.path().join("client.key")).unwrap();
    let new = world.enrol("system:node:n");
    let key = fs::read_to_string(world.folder.path().join("client.key")).unwrap();
    world.put("client.key", &old);
    let refusal = world.api.node("n").await.unwrap_err().to_string();
    assert!(refusal.contains("client-certificate"), "{refusal}");
    world.put("client.key", &key);
    assert_eq!(world.api.node("n").await.unwrap().cordoned_by, Some(new));
}

#[tokio::test]
async fn a_kubeconfig_may_hold_everything_itself_and_a_path_in_front() {
    let world = World::new(|_| at_once(500, "")).await;
    let authority = Authority::new();
    let server = authority
        .serve(true, |seen| {
            assert_eq!(seen.head.uri, "/cluster/one/api/v1/nodes/n");
            at_once(200, node_of(&seen))
        })
        .await;
    let Issued { certificate, key } = authority.issue("system:node:n");
    world.kubeconfig(
        &format!("{server}/cluster/one/"),
        &format!("certificate-authority-data: {}", STANDARD.encode(&authority.pem)),
        &format!("client-certificate-data: {}", STANDARD.encode(certificate)),
        &format!("client-key-data: {}", STANDARD.encode(key)),
    );
    assert!(world.api.node("n").await.unwrap().ready);
}

#[tokio::test]
async fn a_server_of_another_authority_and_a_kubeconfig_without_one_are_refused() {
    let world = World::new(|seen| at_once(200, node_of(&seen))).await;
    world.put("ca.crt", &Authority::new().pem);
    let refusal = world.api.node("n").await.unwrap_err().to_string();
    assert!(refusal.contains("invalid peer certificate"), "{refusal}");
    world.kubeconfig(
        "https://127.0.0.1:1",
        "",
        "client-certificate: client.crt",
        "client-key: client.key",
    );
    let refusal = world.api.node("n").await.unwrap_err().to_string();
    assert!(refusal.contains("it names no certificate-authority"), "{refusal}");
    world.put("kubelet.kubeconfig", "current-context: [");
    let refusal = world.api.node("n").await.unwrap_err().to_string();
    assert!(refusal.contains("it is no kubeconfig"), "{refusal}");
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_given_up_and_the_next_call_works() {
    let mut world = World::new(|seen| match seen.connection {
        0 => at_once(200, vec![b' '; 2000]),
        _ => at_once(200, node_of(&seen)),
    })
    .await;
    world.api.limits.answer = 1000;
    let refusal = world.api.node("n").await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Unavailable(text) if text.contains("length limit exceeded")),
        "{refusal}"
    );
    assert!(world.api.node("n").await.unwrap().ready);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_given_up_and_the_next_call_works() {
    let mut world = World::new(|seen| match seen.connection {
        0 => Box::pin(pending()),
        _ => at_once(200, node_of(&seen)),
    })
    .await;
    world.api.limits.call = Duration::from_millis(500);
    let refusal = world.api.node("n").await.unwrap_err();
    assert!(
        matches!(&refusal, Refusal::Unavailable(text) if text.contains("did not answer in time")),
        "{refusal}"
    );
    world.api.limits.call = Duration::from_secs(30);
    *world.api.client.lock().unwrap() = None;
    assert!(world.api.node("n").await.unwrap().ready);
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_replaced() {
    let world = World::new(|seen| {
        let mut response = answer(200, node_of(&seen));
        response
            .headers_mut()
            .insert("connection", "close".parse().unwrap());
        Box::pin(std::future::ready(response))
    })
    .await;
    for _ in 0..3 {
        assert!(world.api.node("n").await.unwrap().ready);
    }
}

#[tokio::test]
async fn many_calls_at_once_share_a_few_connections() {
    let most = Arc::new(AtomicUsize::new(0));
    let seen_most = Arc::clone(&most);
    let world = World::new(move |seen| {
        seen_most.fetch_max(seen.connection + 1, Ordering::Relaxed);
        at_once(200, node_of(&seen))
    })
    .await;
    for answer in join_all((0..100).map(|_| world.api.node("n"))).await {
        assert!(answer.unwrap().ready);
    }
    assert!(most.load(Ordering::Relaxed) <= 8, "{most:?}");
}

#[tokio::test]
async fn a_credential_that_is_not_known_is_read_anew() {
    let world = World::new(|seen| match seen.connection {
        0 => at_once(401, r#"{"message":"Unauthorized"}"#),
        _ => at_once(200, node_of(&seen)),
    })
    .await;
    let refusal = world.api.node("n").await.unwrap_err();
    assert_eq!(refusal, Refusal::Refused("Unauthorized".into()));
    assert!(world.api.node("n").await.unwrap().ready);
}

#[tokio::test]
async fn cordon_uncordon_eviction_and_deletion_say_what_the_api_expects() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&told);
    let world = World::new(move |seen| {
        let kind = seen.head.headers["content-type"].to_str().unwrap().to_owned();
        let body: Value = serde_json::from_slice(&seen.body).unwrap();
        let call = format!("{} {} {kind}", seen.head.method, seen.head.uri);
        log.lock().unwrap().push((call, body));
        at_once(200, r#"{"kind":"Status","status":"Success"}"#)
    })
    .await;
    world.api.cordon("n", "op-1").await.unwrap();
    world.api.uncordon("n").await.unwrap();
    world.api.prove("n", "u7", "ab").await.unwrap();
    world.api.evict(&key(), "u1", None).await.unwrap();
    let grace = Some(Duration::from_secs(7));
    world.api.evict(&key(), "u1", grace).await.unwrap();
    world
        .api
        .delete(&key(), "u1", Duration::from_secs(5))
        .await
        .unwrap();
    let expected = [
        (
            "PATCH /api/v1/nodes/n application/merge-patch+json",
            json!({"metadata": {"annotations": {DRAINING: "op-1"}}, "spec": {"unschedulable": true}}),
        ),
        (
            "PATCH /api/v1/nodes/n application/merge-patch+json",
            json!({"metadata": {"annotations": {DRAINING: null}}, "spec": {"unschedulable": false}}),
        ),
        (
            "PATCH /api/v1/nodes/n application/merge-patch+json",
            json!({"metadata": {"uid": "u7", "annotations": {"smartscale.io/nonce": "ab"}}}),
        ),
        (
            "POST /api/v1/namespaces/default/pods/a/eviction application/json",
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": "default"},
                   "deleteOptions": {"preconditions": {"uid": "u1"}}}),
        ),
        (
            "POST /api/v1/namespaces/default/pods/a/eviction application/json",
            json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a", "namespace": "default"},
                   "deleteOptions": {"gracePeriodSeconds": 7, "preconditions": {"uid": "u1"}}}),
        ),
        (
            "DELETE /api/v1/namespaces/default/pods/a application/json",
            json!({"gracePeriodSeconds": 5, "preconditions": {"uid": "u1"}}),
        ),
    ];
    let told = told.lock().unwrap();
    assert_eq!(told.len(), expected.len());
    for ((call, body), (expected_call, expected_body)) in told.iter().zip(expected) {
        assert_eq!((call.as_str(), body), (expected_call, &expected_body));
    }
}

#[tokio::test]
async fn pods_are_listed_by_node_and_a_missing_one_is_none() {
    let world = World::new(|seen| match seen.head.uri.to_string().as_str() {
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn&resourceVersion=0" => at_once(
            200,
            r#"{"items":[{"metadata":{"name":"a","namespace":"default","uid":"u1"},"spec":{"nodeName":"n"},"status":{"phase":"Running"}},{"metadata":{"name":"b","deletionTimestamp":"2026-01-02T03:04:05Z"},"status":{}}]}"#,
        ),
        "/api/v1/pods?fieldSelector=spec.nodeName%3Dn" => at_once(200, r#"{"items":[]}"#),
        other => at_once(404, format!("nothing at {other}")),
    })
    .await;
    let phases = world.api.phases("n").await.unwrap();
    assert_eq!(phases, [(Phase::Running, false), (Phase::Unknown, true)]);
    assert_eq!(world.api.pods("n").await.unwrap(), []);
    assert_eq!(world.api.pod(&key()).await.unwrap(), None);
}

#[tokio::test]
async fn patience_is_read_from_the_header_where_the_text_is_plain() {
    let world = World::new(|_| {
        let mut response = answer(
            429,
            Bytes::from_static(b"Too many requests, please try again later."),
        );
        response.headers_mut().insert("retry-after", "7".parse().unwrap());
        Box::pin(std::future::ready(response))
    })
    .await;
    let after = Some(Duration::from_secs(7));
    assert_eq!(
        world.api.evict(&key(), "u1", None).await,
        Err(Refusal::Throttled { after })
    );
}
