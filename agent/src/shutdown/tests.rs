#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
//! Shutdowns of a machine in memory, on a clock that runs as fast as nothing happens.

use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};
use smartscale_planner::fixtures;
use smartscale_proto::time::Clock;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::*;
use crate::{
    drain::{self, Engine, Settings, Terms, Tools},
    embedded::{Call, EmbeddedKubelet, MemoryFolder, Verb},
    kubelet::{OwnPod, Refusal},
    outbox::Outbox,
    state::write_json,
};

struct Paused(Instant);

#[async_trait]
impl Clock for Paused {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.0.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Announces what it is handed.
struct Announced(tokio::sync::Mutex<mpsc::Receiver<Delay>>);

#[async_trait]
impl Shutdowns for Announced {
    async fn announced(&self) -> Result<Delay, Failure> {
        match self.0.lock().await.recv().await {
            Some(delay) => Ok(delay),
            None => std::future::pending().await,
        }
    }
}

/// Tells when it is dropped.
struct Lock(Arc<Mutex<Option<Duration>>>, SharedClock);

impl Drop for Lock {
    fn drop(&mut self) {
        *self.0.lock().unwrap() = Some(self.1.elapsed());
    }
}

struct World {
    clock: SharedClock,
    kubelet: Arc<EmbeddedKubelet>,
    folder: Arc<MemoryFolder>,
    released: Arc<Mutex<Option<Duration>>>,
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl World {
    fn new() -> Self {
        let clock: SharedClock = Arc::new(Paused(Instant::now()));
        Self {
            kubelet: Arc::new(EmbeddedKubelet::new(Arc::clone(&clock))),
            clock,
            folder: Arc::default(),
            released: Arc::default(),
        }
    }

    fn pod(&self, ends_in: Option<Duration>) {
        let pod = fixtures::pod("default/a")
            .on("i-1")
            .owned_by("ReplicaSet", "web")
            .build();
        let grace = seconds(3600);
        self.kubelet.add(OwnPod { pod, grace }, ends_in);
    }

    fn agent(&self, boot: &str) -> (mpsc::Sender<Delay>, Farewell, Engine) {
        let folder: Arc<MemoryFolder> = Arc::clone(&self.folder);
        let (drainer, engine) = drain::engine(Tools {
            api: Arc::<EmbeddedKubelet>::clone(&self.kubelet),
            folder: Arc::<MemoryFolder>::clone(&folder),
            clock: Arc::clone(&self.clock),
            outbox: Outbox::new(Arc::<MemoryFolder>::clone(&folder), Arc::clone(&self.clock)),
            boot_id: boot.into(),
            settings: Settings::default(),
        });
        let (announce, announced) = mpsc::channel(1);
        let terms = Terms {
            timeout: seconds(300),
            on_timeout: OnTimeout::Abort,
            spot_deadline: seconds(90),
            spot_on_timeout: OnTimeout::Force,
            spot_reserve: seconds(25),
            local_storage: crate::drain::LocalStorage::Evict,
        };
        let node = watch::Sender::new(Some("i-1".to_owned()));
        let farewell = Farewell {
            source: Arc::new(Announced(tokio::sync::Mutex::new(announced))),
            drainer,
            terms: TermsKeeper::new(Arc::<MemoryFolder>::clone(&folder), terms),
            force_grace: seconds(30),
            folder,
            clock: Arc::clone(&self.clock),
            boot_id: boot.into(),
            node: node.subscribe(),
        };
        (announce, farewell, engine)
    }

    fn delay(&self, most: u64) -> (oneshot::Sender<()>, Delay) {
        let (call_off, called_off) = oneshot::channel();
        let lock = Lock(Arc::clone(&self.released), Arc::clone(&self.clock));
        (
            call_off,
            Delay {
                most: seconds(most),
                called_off,
                lock: Box::new(lock),
            },
        )
    }

    /// Runs an agent until the lock is given back; says when that was.
    async fn until_released(&self, farewell: Farewell, engine: Engine) -> Duration {
        let released = async {
            loop {
                if let Some(at) = *self.released.lock().unwrap() {
                    return at;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = farewell.run() => panic!("the watch ended"),
            () = engine.run() => panic!("the engine ended"),
            at = released => at,
        }
    }

    fn is_cordoned(&self) -> bool {
        self.kubelet.present_node().unwrap().unschedulable
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_the_drain_and_no_longer() {
    let world = World::new();
    world.pod(Some(seconds(7)));
    let (announce, farewell, engine) = world.agent("boot-1");
    let (_call_off, delay) = world.delay(330);
    announce.send(delay).await.unwrap();
    let released = world.until_released(farewell, engine).await;
    assert!((seconds(7)..seconds(10)).contains(&released), "{released:?}");
    assert!(world.kubelet.present().is_empty() && world.is_cordoned());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stays_is_told_how_long_it_has_and_the_lock_is_given_back_in_time() {
    let world = World::new();
    world.pod(None);
    let (announce, farewell, engine) = world.agent("boot-1");
    let (_call_off, delay) = world.delay(60);
    announce.send(delay).await.unwrap();
    let released = world.until_released(farewell, engine).await;
    assert!(released <= seconds(60), "{released:?}");
    assert!(world.kubelet.present().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_gone_already_does_not_hold_a_shutdown_up() {
    let world = World::new();
    world.pod(None);
    world
        .kubelet
        .fail(Verb::Node, None, Refusal::Unavailable("refused".into()), 10_000);
    let (announce, farewell, engine) = world.agent("boot-1");
    let (_call_off, delay) = world.delay(330);
    announce.send(delay).await.unwrap();
    let released = world.until_released(farewell, engine).await;
    assert!(released <= UNANSWERED + seconds(1), "{released:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_retired_is_not_drained_again() {
    let world = World::new();
    write_json(
        &*world.folder,
        "retired.json",
        &serde_json::json!({ "operation": "op-1" }),
    )
    .unwrap();
    let (announce, farewell, engine) = world.agent("boot-1");
    let (_call_off, delay) = world.delay(330);
    announce.send(delay).await.unwrap();
    assert!(world.until_released(farewell, engine).await < seconds(1));
    assert_eq!(world.kubelet.calls(), []);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_called_off_lets_pods_onto_the_node_again() {
    let world = World::new();
    world.pod(None);
    let (announce, farewell, engine) = world.agent("boot-1");
    let (call_off, delay) = world.delay(330);
    announce.send(delay).await.unwrap();
    let off = async {
        tokio::time::sleep(seconds(5)).await;
        assert!(world.is_cordoned());
        call_off.send(()).unwrap();
        tokio::time::sleep(seconds(5)).await;
    };
    tokio::select! {
        () = farewell.run() => panic!("the watch ended"),
        () = engine.run() => panic!("the engine ended"),
        () = off => {}
    }
    assert!(!world.is_cordoned());
    assert!(world.released.lock().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn after_the_reboot_the_node_takes_pods_again() {
    let world = World::new();
    world.pod(Some(seconds(1)));
    let (announce, farewell, engine) = world.agent("boot-1");
    let (_call_off, delay) = world.delay(330);
    announce.send(delay).await.unwrap();
    world.until_released(farewell, engine).await;
    assert!(world.is_cordoned());
    let (_announce, farewell, engine) = world.agent("boot-2");
    tokio::select! {
        () = farewell.run() => panic!("the watch ended"),
        () = engine.run() => panic!("the engine ended"),
        () = tokio::time::sleep(seconds(5)) => {}
    }
    assert!(!world.is_cordoned());
    assert_eq!(world.kubelet.calls().last(), Some(&Call::Uncordon));
}
