//! How pods ended: the last that a kubelet says of a container before its pod's object goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, WatchEvent, WatchParams};
use tokio::task::JoinHandle;

/// How one pod's container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The pod's name.
    pub pod: String,
    /// 0, or 137 for one that was killed.
    pub exit_code: i32,
    /// Its termination message.
    pub message: String,
    /// From the order to end until the container's end, in seconds as the kubelet writes times. The order's time is the
    /// deletion timestamp less the grace period, as they are seen first: the kubelet's own last delete sets them anew.
    pub took: i64,
}

/// What was seen of one pod.
#[derive(Debug, Default)]
struct Seen {
    ordered: Option<Timestamp>,
    end: Option<End>,
}

/// Watches the pods of namespace `default` from its making on.
#[derive(Debug)]
pub struct Ends {
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
    task: JoinHandle<()>,
}

impl Ends {
    /// Begins with the pods that there are.
    #[must_use]
    pub fn watch(pods: Api<Pod>) -> Self {
        let seen = Arc::new(Mutex::new(BTreeMap::new()));
        let task = tokio::spawn(follow(pods, Arc::clone(&seen)));
        Self { seen, task }
    }

    /// All that were seen so far.
    #[must_use]
    pub fn all(&self) -> Vec<End> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.values().filter_map(|seen| seen.end.clone()).collect()
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the pods for ever. A watch that ends goes on where it was, so that no pod's last state is missed.
async fn follow(pods: Api<Pod>, seen: Arc<Mutex<BTreeMap<String, Seen>>>) {
    let mut version = "0".to_owned();
    loop {
        let Ok(changes) = pods.watch(&WatchParams::default(), &version).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let mut changes = std::pin::pin!(changes);
        while let Some(change) = changes.next().await {
            match change {
                Ok(WatchEvent::Modified(pod) | WatchEvent::Added(pod) | WatchEvent::Deleted(pod)) => {
                    if let Some(uid) = pod.metadata.uid.clone() {
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.entry(uid).or_default().take(&pod);
                    }
                    version = pod.metadata.resource_version.unwrap_or(version);
                }
                Ok(WatchEvent::Bookmark(mark)) => version = mark.metadata.resource_version,
                // Too old a version: whoever was there is there no more.
                Ok(WatchEvent::Error(_)) => "0".clone_into(&mut version),
                Err(_) => break,
            }
        }
    }
}

impl Seen {
    fn take(&mut self, pod: &Pod) {
        let Some(deleted) = pod.metadata.deletion_timestamp.as_ref() else {
            return;
        };
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default();
        let ordered = *self
            .ordered
            .get_or_insert(deleted.0 - SignedDuration::from_secs(grace));
        if let Some(end) = end_of(pod, ordered) {
            self.end = Some(end);
        }
    }
}

fn end_of(pod: &Pod, ordered: Timestamp) -> Option<End> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let ended = statuses.first()?.state.as_ref()?.terminated.as_ref()?;
    let finished: Timestamp = ended.finished_at.as_ref()?.0;
    Some(End {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        exit_code: ended.exit_code,
        message: ended.message.clone().unwrap_or_default(),
        took: finished.as_second() - ordered.as_second(),
    })
}
