//! The cluster's objects, kept in step by list and watch.
//!
//! ```text
//!   each kind:  list (pages of 500) ─▶ watch from there ─▶ event, bookmark ─▶ …
//!                 ▲                        │ ends after its time: watch on
//!                 └── 410, too far behind ─┘ breaks: error kept, back-off, watch on
//! ```
//!
//! Objects are read field by field ([`smartscale_manifests`]) and kept as the planner's model, with the fields that
//! were read as compact JSON beside it for who asks for a snapshot: 20,000 pods take tens of megabytes and not
//! hundreds. Pods that have ended are left out by the server. An object that cannot be read stops nothing: it is held
//! still, and whoever assembles a snapshot says so. A watch is known to be in step when something arrives and when it
//! ends in its own time; watches are short, because an API server sends no bookmarks for a kind that never changed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt as _, future::join_all};
use http::Method;
use jiff::Timestamp;
use kube::core::WatchEvent;
use rand::RngExt as _;
use serde::Deserialize;
use serde_json::Value;
use smartscale_manifests::{Kind, Object, Objects};
use smartscale_proto::{backoff::Backoff, time::within};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    api::{Api, ApiError, request},
    gist::gist,
};
use crate::observe::{ClusterView, Observed, web::form};

/// What is watched, with its path and the selector of its fields.
const WATCHED: [(Kind, &str, Option<&str>); 10] = [
    (Kind::Node, "/api/v1/nodes", None),
    // As the scheduler does: a pod that ends is told as deleted.
    (
        Kind::Pod,
        "/api/v1/pods",
        Some("status.phase!=Succeeded,status.phase!=Failed"),
    ),
    (
        Kind::PodDisruptionBudget,
        "/apis/policy/v1/poddisruptionbudgets",
        None,
    ),
    (Kind::DaemonSet, "/apis/apps/v1/daemonsets", None),
    (Kind::Namespace, "/api/v1/namespaces", None),
    (
        Kind::PersistentVolumeClaim,
        "/api/v1/persistentvolumeclaims",
        None,
    ),
    (Kind::PersistentVolume, "/api/v1/persistentvolumes", None),
    (Kind::StorageClass, "/apis/storage.k8s.io/v1/storageclasses", None),
    (Kind::CsiNode, "/apis/storage.k8s.io/v1/csinodes", None),
    (
        Kind::PriorityClass,
        "/apis/scheduling.k8s.io/v1/priorityclasses",
        None,
    ),
];

/// Objects of one page of a list.
const PAGE: &str = "500";
/// A page must have come by then.
const LIST: Duration = Duration::from_secs(60);
/// A watch ends by itself after so many seconds, drawn so that not all end at once.
const WATCH_SECONDS: std::ops::Range<u64> = 30..50;
/// A watch that should have ended and still says nothing is dead.
const OVERDUE: Duration = Duration::from_secs(15);
/// A watch that ends sooner than this, having said nothing, is a failure and not an end.
const TOO_SHORT: Duration = Duration::from_secs(1);

/// Objects, watched.
pub struct Watch {
    api: Api,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    objects: Arc<Objects>,
    streams: BTreeMap<Kind, Stream>,
    /// What of each node bears on a decision, hashed.
    nodes: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Stream {
    /// Keys that the server has.
    keys: HashSet<(String, String)>,
    in_step: Option<Timestamp>,
    error: Option<String>,
}

/// Where a kind's watch stands.
#[derive(Default)]
struct Position {
    version: Option<String>,
    attempt: u32,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Option<Vec<Value>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: Option<String>,
}

impl Watch {
    /// A watch that begins with [`run`](Self::run).
    #[must_use]
    pub fn new(api: Api) -> Arc<Self> {
        Arc::new(Self {
            api,
            state: Mutex::new(State {
                objects: Arc::new(Objects::exportable()),
                ..State::default()
            }),
            changed: Notify::new(),
        })
    }

    /// Watches until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let all = join_all(WATCHED.map(|(kind, path, selector)| self.follow(kind, path, selector)));
        tokio::select! {
            () = stop.cancelled() => {}
            _ = all => {}
        }
    }

    /// Keeps one kind in step, for ever.
    async fn follow(&self, kind: Kind, path: &str, selector: Option<&str>) {
        let mut position = Position::default();
        loop {
            let outcome = match position.version.clone() {
                None => self.list(kind, path, selector, &mut position).await,
                Some(version) => self.watch(kind, path, selector, version, &mut position).await,
            };
            let Err(error) = outcome else {
                position.attempt = 0;
                continue;
            };
            if error.code() == Some(410) && position.version.take().is_some() {
                // Too far behind; that is no fault of anybody's.
                tracing::debug!(%kind, "listing anew");
                continue;
            }
            position.attempt = position.attempt.saturating_add(1);
            tracing::warn!(%kind, %error, attempt = position.attempt, "watch of the Kubernetes API failed");
            self.locked().streams.entry(kind).or_default().error = Some(error.to_string());
            let delay = Backoff::DEFAULT.delay(position.attempt, &mut rand::rng());
            self.api.clock.sleep(delay).await;
        }
    }

    /// Lists a kind page by page, then drops what the server has no more.
    async fn list(
        &self,
        kind: Kind,
        path: &str,
        selector: Option<&str>,
        position: &mut Position,
    ) -> Result<(), ApiError> {
        let mut seen = HashSet::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = vec![("limit", PAGE)];
            query.extend(selector.map(|selector| ("fieldSelector", selector)));
            query.extend(next.as_deref().map(|token| ("continue", token)));
            let page = request(Method::GET, &format!("{path}?{}", form(&query)), None)?;
            // The moment before the question: what changes while it is answered may be missing.
            let at = self.api.clock.now();
            let text = within(&*self.api.clock, LIST, self.api.client.request_text(page))
                .await
                .ok_or_else(|| ApiError::Unavailable(format!("no list of {kind} within {LIST:?}")))??;
            let page: Page = serde_json::from_str(&text).map_err(|error| {
                ApiError::Unavailable(format!("the list of {kind} cannot be read: {error}"))
            })?;
            for item in page.items.unwrap_or_default() {
                if let Some((key, _)) = self.apply(kind, &item) {
                    seen.insert(key);
                }
            }
            next = page.metadata.next.filter(|token| !token.is_empty());
            if next.is_none() {
                self.listed(kind, seen, at);
                position.version = Some(page.metadata.resource_version);
                return Ok(());
            }
        }
    }

    fn listed(&self, kind: Kind, seen: HashSet<(String, String)>, at: Timestamp) {
        let mut state = self.locked();
        let stream = state.streams.entry(kind).or_default();
        let gone: Vec<_> = stream.keys.difference(&seen).cloned().collect();
        stream.keys = seen;
        stream.in_step = Some(at);
        stream.error = None;
        for (namespace, name) in gone {
            Arc::make_mut(&mut state.objects).remove(kind, &namespace, &name);
            if kind == Kind::Node {
                state.nodes.remove(&name);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Follows a kind from a version on until the watch ends.
    async fn watch(
        &self,
        kind: Kind,
        path: &str,
        selector: Option<&str>,
        version: String,
        position: &mut Position,
    ) -> Result<(), ApiError> {
        let clock = &self.api.clock;
        let seconds = rand::rng().random_range(WATCH_SECONDS);
        let timeout = seconds.to_string();
        let mut query = vec![
            ("watch", "1"),
            ("allowWatchBookmarks", "true"),
            ("timeoutSeconds", timeout.as_str()),
            ("resourceVersion", version.as_str()),
        ];
        query.extend(selector.map(|selector| ("fieldSelector", selector)));
        let request = request(Method::GET, &format!("{path}?{}", form(&query)), None)?;
        let began = clock.elapsed();
        let ends = began + Duration::from_secs(seconds);
        let silent = || ApiError::Unavailable(format!("the watch of {kind} says nothing any more"));
        let opened = within(&**clock, LIST, self.api.client.request_events::<Value>(request));
        let mut events = Box::pin(opened.await.ok_or_else(silent)??);
        self.locked().streams.entry(kind).or_default().error = None;
        let mut heard = false;
        loop {
            let patience = (ends + OVERDUE).saturating_sub(clock.elapsed());
            let event = within(&**clock, patience, events.next())
                .await
                .ok_or_else(silent)?;
            let Some(event) = event else { break };
            let (object, deleted) = match event? {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    position.version = Some(bookmark.metadata.resource_version);
                    self.in_step(kind);
                    heard = true;
                    continue;
                }
                WatchEvent::Error(status) => return Err(ApiError::from(&*status)),
            };
            heard = true;
            position.attempt = 0;
            if let Some(version) = object
                .pointer("/metadata/resourceVersion")
                .and_then(Value::as_str)
            {
                position.version = Some(version.to_owned());
            }
            let matters = if deleted {
                self.delete(kind, &object)
            } else {
                self.change(kind, &object)
            };
            self.in_step(kind);
            if matters {
                self.changed.notify_one();
            }
        }
        let lasted = clock.elapsed().saturating_sub(began);
        if lasted + Duration::from_secs(1) >= Duration::from_secs(seconds) {
            // It ended in its own time: everything up to now has been said.
            self.in_step(kind);
        } else if !heard && lasted < TOO_SHORT {
            return Err(ApiError::Unavailable(format!(
                "the watch of {kind} ended at once"
            )));
        }
        Ok(())
    }

    fn in_step(&self, kind: Kind) {
        let now = self.api.clock.now();
        self.locked().streams.entry(kind).or_default().in_step = Some(now);
    }

    /// Takes an object of an event up. Whether it bears on a decision.
    fn change(&self, kind: Kind, object: &Value) -> bool {
        let Some((key, matters)) = self.apply(kind, object) else {
            return false;
        };
        self.locked().streams.entry(kind).or_default().keys.insert(key);
        matters
    }

    /// Takes an object up; its key, and whether it bears on a decision. One whose fields are of other types than
    /// Kubernetes' is held still.
    fn apply(&self, kind: Kind, object: &Value) -> Option<((String, String), bool)> {
        let key = key(object)?;
        let matters = match kind {
            Kind::Pod => {
                object
                    .pointer("/spec/nodeName")
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .is_empty()
                    && object.pointer("/metadata/deletionTimestamp").is_none()
            }
            Kind::Node => {
                let gist = gist(object);
                self.locked().nodes.insert(key.1.clone(), gist) != Some(gist)
            }
            _ => false,
        };
        let read = Object::from_value(kind, object);
        let mut state = self.locked();
        let objects = Arc::make_mut(&mut state.objects);
        match read {
            Ok(object) => objects.apply(object),
            Err(error) => objects.hold(kind, object, error.path().to_string(), error.inner().to_string()),
        }
        Some((key, matters))
    }

    fn delete(&self, kind: Kind, object: &Value) -> bool {
        let Some(key) = key(object) else { return false };
        let mut state = self.locked();
        Arc::make_mut(&mut state.objects).remove(kind, &key.0, &key.1);
        state.streams.entry(kind).or_default().keys.remove(&key);
        if kind == Kind::Node {
            state.nodes.remove(&key.1);
        }
        kind == Kind::Node
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Each change is of one object: a panic elsewhere leaves the others whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(object: &Value) -> Option<(String, String)> {
    let text = |path| object.pointer(path).and_then(Value::as_str);
    let name = text("/metadata/name")?.to_owned();
    Some((text("/metadata/namespace").unwrap_or_default().to_owned(), name))
}

#[async_trait]
impl ClusterView for Watch {
    fn latest(&self) -> Observed<Objects> {
        let state = self.locked();
        let streams: Vec<_> = WATCHED
            .iter()
            .map(|(kind, ..)| (kind, state.streams.get(kind)))
            .collect();
        let in_step: Option<Vec<Timestamp>> = streams.iter().map(|(_, stream)| (*stream)?.in_step).collect();
        let at = in_step.and_then(|times| times.into_iter().min());
        let error = streams
            .iter()
            .find_map(|(kind, stream)| Some(format!("{kind}: {}", (*stream)?.error.as_ref()?)));
        Observed {
            value: at.map(|_| Arc::clone(&state.objects)),
            at,
            error,
        }
    }

    async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
