#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::{convert::Infallible, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State as Shared},
    http::Uri,
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;
use kube::{Client, Config};
use serde_json::json;
use smartscale_proto::time::SystemClock;
use tokio::{net::TcpListener, sync::mpsc};

use super::*;

/// What a test says that the server has of pods.
#[derive(Default)]
struct Script {
    /// Answers to lists, in their order; then the last again.
    lists: Vec<(u16, Value)>,
    /// What the watch that is open is fed by.
    feed: Option<mpsc::UnboundedSender<Value>>,
    /// Answers to the next watches instead of a stream.
    refused: Vec<(u16, Value)>,
    asked: Vec<String>,
}

type Server = Arc<Mutex<Script>>;

fn script(server: &Server) -> MutexGuard<'_, Script> {
    server.lock().unwrap()
}

fn answer(status: u16, body: &Value) -> Response {
    Response::builder()
        .status(status)
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// An API server that has pods by the script, and nothing else.
async fn serve(Shared(server): Shared<Server>, uri: Uri, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let watches = query.contains("watch=1");
    if uri.path() != "/api/v1/pods" {
        if !watches {
            return answer(
                200,
                &json!({ "metadata": { "resourceVersion": "1" }, "items": null }),
            );
        }
        return Response::new(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()));
    }
    let mut script = script(&server);
    script.asked.push(query);
    if !watches {
        let next = if script.lists.len() > 1 {
            script.lists.remove(0)
        } else {
            script.lists[0].clone()
        };
        return answer(next.0, &next.1);
    }
    if !script.refused.is_empty() {
        let (status, body) = script.refused.remove(0);
        return answer(status, &body);
    }
    let (feed, events) = mpsc::unbounded_channel::<Value>();
    script.feed = Some(feed);
    let lines = stream::unfold(events, async |mut events| {
        let event = events.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(format!("{event}\n"))), events))
    });
    Response::new(Body::from_stream(lines))
}

struct Running {
    server: Server,
    watch: Arc<Watch>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(lists: Vec<(u16, Value)>) -> Running {
    let server = Server::new(Mutex::new(Script {
        lists,
        ..Script::default()
    }));
    let app = Router::new().fallback(serve).with_state(Arc::clone(&server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    // The provider is asked for even where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::new(url.parse().unwrap());
    config.default_retry = false;
    let api = Api::new(Client::try_from(config).unwrap(), Arc::new(SystemClock));
    let watch = Watch::new(api);
    let stop = CancellationToken::new();
    tokio::spawn(Arc::clone(&watch).run(stop.clone()));
    Running { server, watch, stop }
}

impl Running {
    /// Waits until something holds.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !holds(self) {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{what}: {:?}",
                self.watch.latest().error
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn pods(&self) -> Option<Vec<String>> {
        let (cluster, _) = self.watch.latest().value?.to_cluster(Timestamp::now());
        Some(cluster.pods.iter().map(|pod| pod.key.name.to_string()).collect())
    }

    async fn until_pods(&self, names: &[&str]) {
        self.until(&format!("{names:?}"), |running| {
            running.pods().is_some_and(|pods| pods == names)
        })
        .await;
    }

    async fn feed(&self, event: Value) {
        self.until("a watch", |running| script(&running.server).feed.is_some())
            .await;
        let feed = script(&self.server).feed.clone().unwrap();
        feed.send(event).unwrap();
    }

    fn last_asked(&self) -> String {
        script(&self.server).asked.last().cloned().unwrap_or_default()
    }
}

fn pod(name: &str, version: &str, node: Option<&str>) -> Value {
    json!({
        "metadata": { "name": name, "namespace": "shop", "uid": name, "resourceVersion": version },
        "spec": { "nodeName": node, "containers": [ { "name": "c" } ] },
        "status": { "phase": "Pending" },
    })
}

fn list(version: &str, next: &str, pods: &[Value]) -> (u16, Value) {
    (
        200,
        json!({ "metadata": { "resourceVersion": version, "continue": next }, "items": pods }),
    )
}

fn expired() -> Value {
    json!({ "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" })
}

#[tokio::test]
async fn a_list_of_several_pages_is_read_whole_and_watched_from_its_version() {
    let running = run(vec![
        list("5", "more", &[pod("a", "1", None)]),
        list("5", "", &[pod("b", "2", None)]),
    ])
    .await;
    running.until_pods(&["a", "b"]).await;
    running
        .until("a watch", |running| script(&running.server).feed.is_some())
        .await;
    let asked = script(&running.server).asked.clone();
    assert!(
        asked[0].contains("limit=500") && asked[0].contains("status.phase%21%3DSucceeded"),
        "{asked:?}"
    );
    assert!(asked[1].contains("continue=more"), "{asked:?}");
    assert!(
        asked[2].contains("resourceVersion=5") && asked[2].contains("allowWatchBookmarks=true"),
        "{asked:?}"
    );
    let latest = running.watch.latest();
    assert!(latest.at.is_some() && latest.error.is_none());
}

#[tokio::test]
async fn events_are_followed_and_a_pending_pod_nudges() {
    let running = run(vec![list("5", "", &[])]).await;
    running.until_pods(&[]).await;
    running
        .until("a watch", |running| script(&running.server).feed.is_some())
        .await;
    // The lists nudge as well; what is left of that is taken.
    while within(&SystemClock, Duration::from_millis(200), running.watch.changed())
        .await
        .is_some()
    {}
    running
        .feed(json!({ "type": "ADDED", "object": pod("a", "6", Some("i-1")) }))
        .await;
    running.until_pods(&["a"]).await;
    assert!(
        within(&SystemClock, Duration::from_millis(50), running.watch.changed())
            .await
            .is_none()
    );
    running
        .feed(json!({ "type": "ADDED", "object": pod("b", "7", None) }))
        .await;
    assert!(
        within(&SystemClock, Duration::from_secs(10), running.watch.changed())
            .await
            .is_some()
    );
    running
        .feed(json!({ "type": "DELETED", "object": pod("a", "8", Some("i-1")) }))
        .await;
    running.until_pods(&["b"]).await;
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_from_its_bookmark() {
    let running = run(vec![list("5", "", &[])]).await;
    let bookmark = json!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "resourceVersion": "42" } });
    running
        .feed(json!({ "type": "BOOKMARK", "object": bookmark }))
        .await;
    tokio::task::yield_now().await;
    script(&running.server).feed = None;
    running
        .until("the next watch", |running| {
            running.last_asked().contains("resourceVersion=42")
        })
        .await;
}

#[tokio::test]
async fn a_watch_too_far_behind_lists_anew_and_forgets_what_is_gone() {
    let running = run(vec![
        list("5", "", &[pod("a", "1", None), pod("b", "2", None)]),
        list("90", "", &[pod("b", "2", None), pod("c", "80", None)]),
    ])
    .await;
    running.until_pods(&["a", "b"]).await;
    running
        .feed(json!({ "type": "ERROR", "object": expired() }))
        .await;
    running.until_pods(&["b", "c"]).await;
    running
        .until("a watch", |running| {
            running.last_asked().contains("resourceVersion=90")
        })
        .await;
    assert_eq!(running.watch.latest().error, None);
}

#[tokio::test]
async fn an_error_is_kept_with_what_was_known_and_goes_away_by_itself() {
    let running = run(vec![list("5", "", &[pod("a", "1", None)])]).await;
    running.until_pods(&["a"]).await;
    running
        .until("a watch", |running| script(&running.server).feed.is_some())
        .await;
    {
        let mut script = script(&running.server);
        let away = json!({ "kind": "Status", "status": "Failure", "code": 503, "message": "shutting down" });
        script.refused = vec![(503, away)];
        script.feed = None;
    }
    running
        .until("the server's error", |running| {
            let error = running.watch.latest().error;
            error.is_some_and(|error| error.contains("shutting down"))
        })
        .await;
    assert!(running.watch.latest().value.is_some());
    running
        .until("recovery", |running| running.watch.latest().error.is_none())
        .await;
}

#[tokio::test]
async fn nothing_is_shown_before_everything_was_listed() {
    let forbidden =
        json!({ "kind": "Status", "status": "Failure", "code": 403, "message": "pods is forbidden" });
    let running = run(vec![(403, forbidden), list("5", "", &[pod("a", "1", None)])]).await;
    running
        .until("an error", |running| running.watch.latest().error.is_some())
        .await;
    let latest = running.watch.latest();
    assert!(latest.value.is_none() && latest.at.is_none());
    running.until_pods(&["a"]).await;
}

/// What cannot be read, as it is named.
fn bad(running: &Running) -> Vec<String> {
    let objects = running.watch.latest().value;
    objects.map_or_else(Vec::new, |objects| {
        objects.bad().map(ToString::to_string).collect()
    })
}

#[tokio::test]
async fn an_object_of_another_shape_is_named_and_held_still_and_the_others_count() {
    let broken = |name: &str, version: &str| {
        let mut pod = pod(name, version, Some("i-1"));
        pod["spec"]["containers"] = json!("none");
        pod
    };
    let running = run(vec![list("5", "", &[broken("a", "1"), pod("b", "2", None)])]).await;
    // What it asks for is unknown, so it fills its node.
    running.until_pods(&["a", "b"]).await;
    let named = bad(&running);
    assert!(
        named.len() == 1 && named[0].starts_with("Pod shop/a: spec.containers: "),
        "{named:?}"
    );
    // New ones are neither lost, and a version that can be read heals the object.
    running
        .feed(json!({ "type": "ADDED", "object": broken("c", "6") }))
        .await;
    running.until_pods(&["a", "b", "c"]).await;
    running
        .feed(json!({ "type": "MODIFIED", "object": pod("a", "7", Some("i-1")) }))
        .await;
    running
        .until("the second alone", |running| {
            let named = bad(running);
            named.len() == 1 && named[0].starts_with("Pod shop/c: ")
        })
        .await;
    running
        .feed(json!({ "type": "DELETED", "object": broken("c", "8") }))
        .await;
    running.until_pods(&["a", "b"]).await;
    assert!(bad(&running).is_empty());
}

#[tokio::test]
async fn what_was_seen_can_be_exported() {
    let running = run(vec![list("5", "", &[pod("a", "1", Some("i-1"))])]).await;
    running.until_pods(&["a"]).await;
    let objects = running.watch.latest().value.unwrap();
    let text = crate::observe::export::objects_json(&objects).unwrap();
    let exported: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(exported["items"][0]["metadata"]["name"], "a", "{text}");
}
