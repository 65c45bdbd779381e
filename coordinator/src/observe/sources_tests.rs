#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::json;
use smartscale_planner::snapshot::State;
use smartscale_proto::{time::Clock, v1};

use super::*;
use crate::{
    act::fleet::{FleetError, LaunchRequest, Launched},
    ids::{Epoch, OperationId},
    observe::{
        MetricsError,
        snapshot::{self, Going},
    },
    state::{Attributes, Item, LeaseRow, StateStore, StoreError, Write},
    tell::Tell,
};

/// Tokio's paused time as a clock.
struct TestClock(tokio::time::Instant);

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.elapsed()).unwrap()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// Everything outside, as a test sets it.
struct World {
    clock: SharedClock,
    objects: Mutex<Observed<Objects>>,
    metrics: Mutex<Result<MetricsReading, MetricsError>>,
    agents: Mutex<BTreeMap<InstanceId, HealthReport>>,
    fleet: Mutex<Result<Vec<Instance>, FleetError>>,
    items: Mutex<Vec<Item>>,
    told: Mutex<Vec<Happening>>,
}

#[async_trait]
impl ClusterView for World {
    fn latest(&self) -> Observed<Objects> {
        let mut latest = locked(&self.objects).clone();
        if latest.error.is_none() {
            latest.at = Some(self.clock.now());
        }
        latest
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl MetricsSource for World {
    async fn read(&self) -> Result<MetricsReading, MetricsError> {
        locked(&self.metrics).clone()
    }
}

impl AgentHealth for World {
    fn latest(&self) -> BTreeMap<InstanceId, HealthReport> {
        locked(&self.agents).clone()
    }
}

#[async_trait]
impl Fleet for World {
    async fn launch(&self, _: &LaunchRequest) -> Result<Launched, FleetError> {
        Ok(Launched::default())
    }
    async fn find(&self, _: &OperationId) -> Result<Vec<Instance>, FleetError> {
        Ok(Vec::new())
    }
    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        locked(&self.fleet).clone()
    }
    async fn look(&self, _: &InstanceId) -> Result<Option<Instance>, FleetError> {
        Ok(None)
    }
    async fn terminate(&self, _: &[InstanceId]) -> Result<(), FleetError> {
        Ok(())
    }
}

#[async_trait]
impl StateStore for World {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        Ok(None)
    }
    async fn replace_lease(&self, _: Option<&str>, _: &LeaseRow) -> Result<bool, StoreError> {
        Ok(false)
    }
    async fn commit(&self, _: Epoch, _: &[Write], _: &Attributes) -> Result<(), StoreError> {
        Ok(())
    }
    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        if let Write::Put {
            key,
            body,
            expires_at,
            ..
        } = write.clone()
        {
            locked(&self.items).push(Item {
                key,
                body,
                version: 1,
                expires_at,
            });
        }
        Ok(())
    }
    async fn get(&self, _: &str) -> Result<Option<Item>, StoreError> {
        Ok(None)
    }
    async fn list(&self, prefix: &str, _: bool, _: usize) -> Result<Vec<Item>, StoreError> {
        Ok(locked(&self.items)
            .iter()
            .filter(|item| item.key.starts_with(prefix))
            .cloned()
            .collect())
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        Ok(Attributes::new())
    }
}

impl Tell for World {
    fn tell(&self, happening: Happening) {
        locked(&self.told).push(happening);
    }
}

fn hot(cpu: f64) -> MetricsReading {
    MetricsReading {
        cpu_percent: Some(cpu),
        memory_percent: Some(50.0),
        ..MetricsReading::default()
    }
}

fn follower() -> Leadership {
    Leadership::Follower { leader: None }
}

fn leader() -> Leadership {
    Leadership::Leader {
        epoch: Epoch(1),
        until: Duration::MAX,
    }
}

fn node(name: &str) -> serde_json::Value {
    json!({
        "metadata": { "name": name, "labels": { "smartscale.io/pool": "workers" } },
        "status": {
            "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" },
            "conditions": [ { "type": "Ready", "status": "True" } ]
        }
    })
}

fn objects(nodes: &[serde_json::Value]) -> Observed<Objects> {
    let mut objects = Objects::default();
    for node in nodes {
        objects.apply(serde_json::from_value::<smartscale_manifests::Node>(node.clone()).unwrap());
    }
    Observed {
        value: Some(Arc::new(objects)),
        at: None,
        error: None,
    }
}

struct Running {
    world: Arc<World>,
    view: View,
    leadership: watch::Sender<Leadership>,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn run(with_prometheus: bool, first: Leadership, prepare: impl FnOnce(&World)) -> Running {
    let clock: SharedClock = Arc::new(TestClock(tokio::time::Instant::now()));
    let world = Arc::new(World {
        clock: Arc::clone(&clock),
        objects: Mutex::new(objects(&[node("i-1")])),
        metrics: Mutex::new(Ok(hot(80.0))),
        agents: Mutex::default(),
        fleet: Mutex::new(Ok(Vec::new())),
        items: Mutex::default(),
        told: Mutex::default(),
    });
    prepare(&world);
    let (leadership, receiver) = watch::channel(first);
    let parts = Parts {
        cluster: Arc::clone(&world) as _,
        metrics: with_prometheus.then(|| Arc::clone(&world) as _),
        agents: Arc::clone(&world) as _,
        fleet: Arc::clone(&world) as _,
        market: None,
        store: Arc::clone(&world) as _,
        leadership: receiver,
        tell: Arc::clone(&world) as _,
        gauges: Metrics::new("test"),
        clock,
    };
    let (sources, view) = Sources::new(parts, Settings::default());
    let stop = CancellationToken::new();
    tokio::spawn(sources.run(stop.clone()));
    Running {
        world,
        view,
        leadership,
        stop,
    }
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn assemble(running: &Running) -> snapshot::Assembled {
    assemble_with(running, &Going::default())
}

fn assemble_with(running: &Running, going: &Going) -> snapshot::Assembled {
    snapshot::assemble(&running.view, State::default(), going, running.world.clock.now())
}

#[tokio::test(start_paused = true)]
async fn the_leader_takes_a_reading_at_each_interval_and_stores_it() {
    let running = run(true, leader(), |_| {});
    pass(125).await;
    assert_eq!(running.view.readings().len(), 3);
    assert_eq!(locked(&running.world.items).len(), 3);
    let assembled = assemble(&running);
    assert_eq!(assembled.snapshot.metrics.cluster.len(), 3);
    assert!(!assembled.snapshot.state.paused);
}

#[tokio::test(start_paused = true)]
async fn a_follower_stores_nothing_and_a_new_leader_goes_on_from_what_was_stored() {
    let running = run(true, follower(), |_| {});
    pass(70).await;
    assert_eq!(running.view.readings().len(), 2);
    assert!(locked(&running.world.items).is_empty());
    let before = Reading {
        time: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(50),
        cpu_percent: Some(90.0),
        memory_percent: None,
        source: Source::Prometheus,
    };
    let Some(Write::Put {
        key,
        body,
        expires_at,
        ..
    }) = history::stored(&before, Cadence::default())
    else {
        panic!("a put was expected")
    };
    locked(&running.world.items).push(Item {
        key,
        body,
        version: 1,
        expires_at,
    });
    running.leadership.send_replace(leader());
    pass(1).await;
    let times: Vec<_> = running
        .view
        .readings()
        .iter()
        .map(|reading| reading.time.as_second())
        .collect();
    assert_eq!(times, [0, 50]);
}

#[tokio::test(start_paused = true)]
async fn prometheus_lost_is_said_once_and_its_return_too_and_agents_do_not_stand_in() {
    let running = run(true, leader(), |_| {});
    pass(20).await;
    let report = HealthReport::receive(
        &v1::Health {
            cpu_percent: Some(1.0),
            memory_percent: Some(1.0),
            ..v1::Health::default()
        },
        running.world.clock.now(),
    );
    locked(&running.world.agents).insert("i-1".parse().unwrap(), report);
    *locked(&running.world.metrics) = Err(MetricsError("connection refused".into()));
    pass(300).await;
    assert_eq!(running.view.readings().len(), 1, "an absent answer is no reading");
    let state = running.view.states(running.world.clock.now()).remove(1);
    assert_eq!((state.source, state.fresh), ("prometheus", false));
    assert_eq!(state.error.as_deref(), Some("connection refused"));
    *locked(&running.world.metrics) = Ok(hot(80.0));
    pass(30).await;
    let told: Vec<_> = locked(&running.world.told)
        .iter()
        .filter_map(|happening| match &happening.event {
            Event::Source { source, fresh } if source == "prometheus" => Some(*fresh),
            _ => None,
        })
        .collect();
    assert_eq!(told, [false, true]);
}

#[tokio::test(start_paused = true)]
async fn without_prometheus_the_agents_speak_for_the_cluster() {
    let running = run(false, leader(), |world| {
        let report = HealthReport::receive(
            &v1::Health {
                cpu_percent: Some(75.0),
                ..v1::Health::default()
            },
            world.clock.now(),
        );
        locked(&world.agents).insert("i-1".parse().unwrap(), report);
    });
    pass(1).await;
    let readings = running.view.readings();
    assert_eq!(
        (readings[0].cpu_percent, readings[0].source),
        (Some(75.0), Source::Agent)
    );
    assert_eq!(running.view.averages_come_from(), Source::Agent);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_not_seen_is_held_and_not_taken_for_an_empty_one() {
    let running = run(true, leader(), |world| {
        *locked(&world.objects) = Observed::default();
    });
    pass(1).await;
    *locked(&running.world.objects) = Observed {
        error: Some("refused".into()),
        ..Observed::default()
    };
    let assembled = assemble(&running);
    assert!(assembled.snapshot.state.paused && !assembled.sees_cluster);
    assert!(
        assembled
            .warnings()
            .any(|warning| warning.contains("kubernetes has not answered yet: refused"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_stale_cluster_is_held_and_recovers_by_itself() {
    let running = run(true, leader(), |_| {});
    pass(10).await;
    {
        let mut objects = locked(&running.world.objects);
        objects.at = Some(running.world.clock.now());
        objects.error = Some("connection reset".into());
    }
    pass(91).await;
    assert!(assemble(&running).snapshot.state.paused);
    locked(&running.world.objects).error = None;
    assert!(!assemble(&running).snapshot.state.paused);
}

#[tokio::test(start_paused = true)]
async fn a_young_node_is_ready_when_the_taints_of_its_start_are_gone_and_not_before() {
    let running = run(true, leader(), |world| {
        let mut young = node("i-1");
        young["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:00Z");
        young["spec"]["taints"] = json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }]);
        let mut untainted = young.clone();
        untainted["metadata"]["name"] = json!("i-2");
        untainted["spec"]["taints"] = json!([]);
        *locked(&world.objects) = objects(&[young, untainted]);
    });
    pass(10).await;
    let ready = |assembled: &snapshot::Assembled| -> Vec<bool> {
        let nodes = &assembled.snapshot.cluster.nodes;
        nodes.iter().map(|node| node.ready).collect()
    };
    assert_eq!(ready(&assemble(&running)), [false, true]);
    pass(300).await;
    assert_eq!(
        ready(&assemble(&running)),
        [true, true],
        "an old one is what it says"
    );
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_taken_back_are_shown_as_waiting_but_those_that_stay_to_its_end() {
    let running = run(true, leader(), |world| {
        let pod = |name: &str, owner: &str| {
            let owner = json!([{ "kind": owner, "name": "o", "uid": "u", "controller": true }]);
            let pod = json!({
                "metadata": { "name": name, "namespace": "default", "uid": name, "ownerReferences": owner },
                "spec": { "nodeName": "i-1", "containers": [{ "name": "c" }] },
                "status": { "phase": "Running" },
            });
            serde_json::from_value::<smartscale_manifests::Pod>(pod).unwrap()
        };
        let mut seen = objects(&[node("i-1")]);
        let all = Arc::make_mut(seen.value.as_mut().unwrap());
        all.apply(pod("web", "ReplicaSet"));
        all.apply(pod("logs", "DaemonSet"));
        *locked(&world.objects) = seen;
    });
    pass(10).await;
    let going = Going {
        leaving: ["i-1".into()].into(),
        doomed: ["i-1".into()].into(),
    };
    let waiting = |assembled: &snapshot::Assembled| -> Vec<String> {
        let pods = assembled.snapshot.cluster.pods.iter();
        let waiting = pods.filter(|pod| pod.wants_place());
        waiting.map(|pod| pod.key.to_string()).collect()
    };
    assert_eq!(waiting(&assemble(&running)), Vec::<String>::new());
    assert_eq!(waiting(&assemble_with(&running, &going)), ["default/web"]);
}

#[tokio::test(start_paused = true)]
async fn bad_objects_and_figures_are_told_once() {
    let running = run(true, leader(), |world| {
        let mut bad = node("i-2");
        bad["status"]["allocatable"]["cpu"] = json!("two");
        *locked(&world.objects) = objects(&[node("i-1"), bad]);
        let absurd = v1::Health {
            cpu_percent: Some(f64::NAN),
            ..v1::Health::default()
        };
        locked(&world.agents).insert(
            "i-1".parse().unwrap(),
            HealthReport::receive(&absurd, world.clock.now()),
        );
    });
    pass(60).await;
    let told: Vec<_> = locked(&running.world.told)
        .iter()
        .filter(|happening| matches!(happening.event, Event::Trouble { .. }))
        .map(|happening| happening.message.clone())
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("i-2") && told[1].contains("agent i-1"),
        "{told:?}"
    );
    assert_eq!(assemble(&running).bad.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_fails_keeps_its_last_list_and_a_nudge_lists_at_once() {
    let running = run(true, leader(), |_| {});
    pass(1).await;
    let before = running.view.fleet();
    assert!(before.value.is_some() && before.error.is_none());
    *locked(&running.world.fleet) = Err(FleetError::Throttled("slow down".into()));
    running.view.refresh_fleet();
    pass(1).await;
    let after = running.view.fleet();
    assert_eq!((after.at, after.value.is_some()), (before.at, true));
    assert!(after.error.unwrap().contains("slow down"));
}
