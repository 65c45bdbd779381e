#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! Drains against the node in memory, on a clock that runs as fast as nothing happens.

mod cordon;
mod deadline;
mod deaths;
mod evictions;
mod orders;

use std::{
    io,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use jiff::SignedDuration;
use smartscale_planner::fixtures;
use smartscale_proto::time::Clock;
use tokio::time::Instant;

use super::{
    state::{Cordon, PodStage},
    *,
};
use crate::{
    embedded::{Call, EmbeddedKubelet, MemoryFolder, Verb},
    kubelet::{OwnNode, OwnPod, Refusal},
};

/// Tokio's paused time as a clock.
struct Paused(Instant);

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(1000) + self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

struct World {
    clock: SharedClock,
    kubelet: Arc<EmbeddedKubelet>,
    folder: Arc<MemoryFolder>,
}

const NODE: &str = "i-1";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn own(builder: impl Into<smartscale_planner::model::Pod>, uid: &str) -> OwnPod {
    let mut pod = builder.into();
    pod.uid = uid.into();
    OwnPod {
        pod,
        grace: seconds(30),
    }
}

impl World {
    fn new() -> Self {
        let clock: SharedClock = Arc::new(Paused(Instant::now()));
        let kubelet = Arc::new(EmbeddedKubelet::new(Arc::clone(&clock)));
        Self {
            clock,
            kubelet,
            folder: Arc::default(),
        }
    }

    /// A pod of a ReplicaSet that ends two seconds after it was told to.
    fn pod(&self, key: &str, priority: i32) {
        self.pod_that_ends(key, priority, Some(seconds(2)));
    }

    fn pod_that_ends(&self, key: &str, priority: i32, ends_in: Option<Duration>) {
        let mut pod = own(
            fixtures::pod(key).on(NODE).owned_by("ReplicaSet", "web").build(),
            &format!("uid-{key}"),
        );
        pod.pod.priority = priority;
        self.kubelet.add(pod, ends_in);
    }

    fn tools(&self, folder: Arc<dyn StateFolder>) -> Tools {
        Tools {
            api: Arc::<EmbeddedKubelet>::clone(&self.kubelet),
            outbox: Outbox::new(Arc::<MemoryFolder>::clone(&self.folder), Arc::clone(&self.clock)),
            folder,
            clock: Arc::clone(&self.clock),
            boot_id: "boot-1".into(),
            settings: Settings::default(),
        }
    }

    fn order(&self, operation: &str, timeout: u64, on_timeout: OnTimeout) -> Order {
        Order {
            operation: operation.into(),
            node: NODE.into(),
            timeout: seconds(timeout),
            on_timeout,
            reason: "test".into(),
            taken_at: None,
            local_storage: LocalStorage::Evict,
        }
    }

    /// Drains to the end.
    async fn drain(&self, order: Order) -> DrainState {
        let (drainer, engine) = engine(self.tools(Arc::<MemoryFolder>::clone(&self.folder)));
        drainer.order(order).await;
        finish(&drainer, engine, "").await
    }

    fn evictions(&self, key: &str) -> (usize, usize) {
        let calls = self.kubelet.calls();
        let of = |accepted: bool| {
            calls
                .iter()
                .filter(|call| **call == Call::Evict(key.parse().unwrap(), accepted))
                .count()
        };
        (of(true), of(false))
    }
}

/// Runs the engine until a drain (of this operation, if one is named) is finished.
async fn finish(drainer: &Drainer, engine: Engine, operation: &str) -> DrainState {
    let mut state = drainer.state();
    let finished = |state: &Option<Arc<DrainState>>| {
        state.as_ref().is_some_and(|state| {
            state.stage.is_finished()
                && (operation.is_empty() || state.operations.iter().any(|own| own == operation))
        })
    };
    tokio::select! {
        () = engine.run() => panic!("the engine ended"),
        state = state.wait_for(finished) => DrainState::clone(state.unwrap().as_ref().unwrap()),
        () = tokio::time::sleep(seconds(36_000)) => panic!("the drain does not end"),
    }
}

fn stage(state: &DrainState, key: &str) -> PodStage {
    state
        .pods
        .iter()
        .find(|pod| pod.key.to_string() == key)
        .unwrap()
        .stage
}
