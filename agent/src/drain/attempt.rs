//! The eviction of one pod: read, look, evict.
//!
//! The pod is read first, on its own or with all others of the node within the last second, because an eviction that is refused for its UID has used the disruption budget up for two minutes
//! all the same: the precondition guards against a race, it does not probe. A pod that was told to go already is never
//! evicted a second time.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use smartscale_planner::model::PodKey;
use smartscale_proto::time::{SharedClock, within};

use crate::kubelet::{KubeletApi, Refusal};

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Attempt {
    /// There is no such pod any more.
    Gone,
    /// It was told to go before.
    Leaving { ends_at: Timestamp },
    /// The eviction was accepted, with this grace in place of the pod's own.
    Accepted { grace: Option<Duration> },
    /// It was not; or the pod could not even be read.
    Refused { refusal: Refusal, called: bool },
}

/// The pod that is to go.
pub(super) struct Target {
    pub(super) key: PodKey,
    pub(super) uid: String,
    /// It was read a moment ago: it had this UID, and had not been told to go.
    pub(super) is_read: bool,
}

/// Evicts a pod if it is the one that is meant and has not been told to go. `grace` replaces the pod's own.
pub(super) async fn evict(
    api: Arc<dyn KubeletApi>,
    clock: SharedClock,
    limit: Duration,
    target: Target,
    grace: Option<Duration>,
) -> Attempt {
    let Target { key, uid, is_read } = target;
    let attempt = async {
        let read = if is_read { None } else { Some(api.pod(&key).await) };
        match read {
            None => {}
            Some(Ok(None)) => return Attempt::Gone,
            Some(Ok(Some(own))) if *own.pod.uid != *uid => return Attempt::Gone,
            Some(Ok(Some(own))) => {
                if let Some(deletion) = own.pod.deletion {
                    return Attempt::Leaving { ends_at: deletion.at };
                }
            }
            Some(Err(refusal)) => {
                return Attempt::Refused {
                    refusal,
                    called: false,
                };
            }
        }
        match api.evict(&key, &uid, grace).await {
            Ok(()) => Attempt::Accepted { grace },
            Err(Refusal::NotFound) => Attempt::Gone,
            // 409 may mean other races too: the next list says whether the pod is gone.
            Err(refusal) => Attempt::Refused {
                refusal,
                called: true,
            },
        }
    };
    within(&*clock, limit, attempt)
        .await
        .unwrap_or_else(|| Attempt::Refused {
            refusal: too_late(),
            called: true,
        })
}

/// No answer in time.
pub(super) fn too_late() -> Refusal {
    Refusal::Unavailable("it did not answer in time".to_owned())
}
