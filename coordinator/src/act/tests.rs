//! The executor against a world in memory, killed after every single call that leaves the process.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod books;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use smartscale_manifests::{Node, Objects};
use smartscale_planner::{
    Action, Launch, Plan, Removal, RemovalReason, fixtures,
    model::{Market, NodeName},
    snapshot::State,
};
use smartscale_proto::{
    time::{Clock, SharedClock},
    v1::{DrainPhase, DrainReport, OnTimeout},
};
use tokio::sync::{Notify, watch};

use super::{
    Executor, Parts, Settings,
    agents::{Agents, NotConnected},
    fleet::{
        Fleet, FleetError, Instance, InstanceState, LaunchRequest, Launched, RefusalCause, RefusedOffering,
    },
    nodes::{Eviction, Nodes, NodesError, PodOnNode},
    operation::{Operation, Phase},
};
use crate::{
    decide::PolicyInForce,
    ids::{DecisionId, Epoch, IdSource, InstanceId, OperationId},
    observe::{ClusterView, Observed},
    state::{
        Attributes, Item, LeaseRow, SharedStore, StateStore, StoreError, Write,
        lease::Leadership,
        records::{NodeRecord, PoolRecord, Record as _},
        sqlite::SqliteStore,
    },
    tell::{Happening, Tell},
};

/// Everything outside, with a log of what was done to it.
#[derive(Default)]
struct World {
    log: Mutex<Vec<String>>,
    instances: Mutex<BTreeMap<InstanceId, Instance>>,
    tokens: Mutex<BTreeMap<String, Vec<InstanceId>>>,
    objects: Mutex<Objects>,
    calls: Mutex<usize>,
    crash_at: Mutex<Option<usize>>,
    crashed: Notify,
    elapsed: Mutex<Duration>,
    ids: Mutex<u64>,
    silent: Mutex<bool>,
    closed_budget: Mutex<bool>,
    pods: Mutex<Vec<PodOnNode>>,
    /// Why each next call of a launch is refused.
    refuses: Mutex<Vec<RefusalCause>>,
    /// Until when a volume is attached to every node.
    attached_until: Mutex<Duration>,
    /// Machines do not become nodes.
    never_boots: Mutex<bool>,
    /// The next commit takes place, and its answer is lost.
    unanswered: Mutex<bool>,
    /// The watch of the cluster has only begun.
    blind: Mutex<bool>,
}

impl World {
    /// Notes a call that took effect; the process may die before it hears of it.
    async fn done(&self, what: String) {
        self.log.lock().unwrap().push(what);
        let dies = {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            *self.crash_at.lock().unwrap() == Some(*calls)
        };
        if dies {
            self.crashed.notify_one();
            std::future::pending::<()>().await;
        }
    }

    fn count(&self, what: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line.starts_with(what))
            .count()
    }

    fn place(&self, what: &str) -> usize {
        self.log
            .lock()
            .unwrap()
            .iter()
            .position(|line| line.starts_with(what))
            .unwrap()
    }

    /// Registers a Ready node for each machine that has none.
    fn boot(&self) {
        if *self.never_boots.lock().unwrap() {
            return;
        }
        for id in self.instances.lock().unwrap().keys() {
            self.register(id.as_str());
        }
    }

    fn fall_ill(&self, name: &str) {
        let node = json!({
            "metadata": { "name": name, "labels": { "smartscale.io/pool": "workers" } },
            "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] }
        });
        let node: Node = serde_json::from_value(node).unwrap();
        self.objects.lock().unwrap().apply(node);
    }

    fn register(&self, name: &str) {
        let node: Node = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "smartscale.io/pool": "workers" } },
            "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                        "allocatable": { "cpu": "2", "memory": "4Gi", "pods": "110" },
                        "capacity": { "cpu": "2", "memory": "4Gi", "pods": "110" } }
        }))
        .unwrap();
        self.objects.lock().unwrap().apply(node);
    }
}

struct Hand(Arc<World>);

#[async_trait]
impl Clock for Hand {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.elapsed()).unwrap()
    }
    fn elapsed(&self) -> Duration {
        *self.0.elapsed.lock().unwrap()
    }
    async fn sleep(&self, _: Duration) {
        std::future::pending::<()>().await;
    }
}

/// A store that is elsewhere: whatever else is under way goes on while a commit travels, and an answer may get lost.
struct Remote(SqliteStore, Arc<World>);

#[async_trait]
impl StateStore for Remote {
    async fn lease(&self) -> Result<Option<LeaseRow>, StoreError> {
        self.0.lease().await
    }
    async fn replace_lease(&self, expected: Option<&str>, next: &LeaseRow) -> Result<bool, StoreError> {
        self.0.replace_lease(expected, next).await
    }
    async fn commit(
        &self,
        epoch: Epoch,
        writes: &[Write],
        attributes: &Attributes,
    ) -> Result<(), StoreError> {
        tokio::task::yield_now().await;
        self.0.commit(epoch, writes, attributes).await?;
        if std::mem::take(&mut *self.1.unanswered.lock().unwrap()) {
            return Err(StoreError::Unknown("no answer".to_owned()));
        }
        Ok(())
    }
    async fn append(&self, write: &Write) -> Result<(), StoreError> {
        self.0.append(write).await
    }
    async fn get(&self, key: &str) -> Result<Option<Item>, StoreError> {
        self.0.get(key).await
    }
    async fn list(&self, prefix: &str, newest_first: bool, limit: usize) -> Result<Vec<Item>, StoreError> {
        self.0.list(prefix, newest_first, limit).await
    }
    async fn attributes(&self) -> Result<Attributes, StoreError> {
        self.0.attributes().await
    }
}

struct Counted(Arc<World>);

impl IdSource for Counted {
    fn decision(&self, _: Timestamp) -> DecisionId {
        "d-1".parse().unwrap()
    }
    fn operation(&self, _: Timestamp) -> OperationId {
        let mut ids = self.0.ids.lock().unwrap();
        *ids += 1;
        format!("op-{ids}").parse().unwrap()
    }
}

struct Quiet;

impl Tell for Quiet {
    fn tell(&self, _: Happening) {}
}

#[async_trait]
impl Fleet for World {
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, FleetError> {
        let token = request.client_token();
        if let Some(cause) = self.refuses.lock().unwrap().pop() {
            let refused = RefusedOffering {
                instance_type: None,
                zone: request.zone.clone(),
                market: request.market,
                cause,
                message: "NoMore: of these".to_owned(),
            };
            self.log.lock().unwrap().push(format!("refuse {token}"));
            return Ok(Launched {
                instances: Vec::new(),
                refused: vec![refused],
            });
        }
        let known = self.tokens.lock().unwrap().get(&token).cloned();
        let ids = known.unwrap_or_else(|| {
            (0..request.count)
                .map(|n| format!("i-{token}-{n}").parse().unwrap())
                .collect::<Vec<InstanceId>>()
        });
        self.tokens.lock().unwrap().insert(token, ids.clone());
        let mut instances = Vec::new();
        for id in ids {
            let instance = Instance {
                id: id.clone(),
                instance_type: request.instance_types[0].clone(),
                zone: request.zone.clone(),
                market: request.market,
                pool: Some(request.pool.clone()),
                operation: Some(request.operation.clone()),
                state: InstanceState::Running,
                launched_at: fixtures::now(),
            };
            self.instances
                .lock()
                .unwrap()
                .entry(id)
                .or_insert_with(|| instance.clone());
            instances.push(instance);
        }
        self.done("launch".to_owned()).await;
        Ok(Launched {
            instances,
            refused: Vec::new(),
        })
    }

    async fn find(&self, operation: &OperationId) -> Result<Vec<Instance>, FleetError> {
        let ours = |instance: &&Instance| instance.operation.as_ref() == Some(operation);
        Ok(self
            .instances
            .lock()
            .unwrap()
            .values()
            .filter(ours)
            .cloned()
            .collect())
    }

    async fn list(&self) -> Result<Vec<Instance>, FleetError> {
        Ok(self.instances.lock().unwrap().values().cloned().collect())
    }

    async fn terminate(&self, instances: &[InstanceId]) -> Result<(), FleetError> {
        for id in instances {
            if let Some(instance) = self.instances.lock().unwrap().get_mut(id) {
                instance.state = InstanceState::Terminated;
            }
            self.done(format!("terminate {id}")).await;
        }
        Ok(())
    }
}

#[async_trait]
impl Nodes for World {
    async fn cordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<bool, NodesError> {
        self.done(format!("cordon {node}")).await;
        Ok(false)
    }
    async fn uncordon(&self, node: &NodeName, _: Option<&OperationId>) -> Result<(), NodesError> {
        self.done(format!("uncordon {node}")).await;
        Ok(())
    }
    async fn pods(&self, _: &NodeName) -> Result<Vec<PodOnNode>, NodesError> {
        // What was evicted before is gone by the next look.
        let mut pods = self.pods.lock().unwrap();
        let seen = pods.clone();
        pods.retain(|pod| !pod.terminating);
        Ok(seen)
    }
    async fn evict(&self, pod: &PodOnNode) -> Result<Eviction, NodesError> {
        if *self.closed_budget.lock().unwrap() {
            return Ok(Eviction::Budget);
        }
        for known in self
            .pods
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|known| known.uid == pod.uid)
        {
            known.terminating = true;
        }
        self.done(format!("evict {}", pod.key)).await;
        Ok(Eviction::Accepted)
    }
    async fn delete_pod(&self, pod: &PodOnNode, _: u32) -> Result<(), NodesError> {
        self.pods.lock().unwrap().retain(|known| known.uid != pod.uid);
        self.done(format!("force {}", pod.key)).await;
        Ok(())
    }
    async fn verify(&self, node: &NodeName) -> Result<(), NodesError> {
        self.done(format!("verify {node}")).await;
        Ok(())
    }
    async fn leave_balancers(&self, node: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        self.done(format!("leave {node}")).await;
        Ok(())
    }
    async fn rejoin_balancers(&self, node: &NodeName, _: &OperationId) -> Result<(), NodesError> {
        self.done(format!("rejoin {node}")).await;
        Ok(())
    }
    async fn attached(&self, _: &NodeName) -> Result<Vec<String>, NodesError> {
        let until = *self.attached_until.lock().unwrap();
        let attached = *self.elapsed.lock().unwrap() < until;
        Ok(attached.then(|| "pv-1".to_owned()).into_iter().collect())
    }
    async fn out_of_service(&self, node: &NodeName) -> Result<(), NodesError> {
        self.done(format!("taint {node}")).await;
        Ok(())
    }
    async fn delete(&self, node: &NodeName) -> Result<(), NodesError> {
        self.objects
            .lock()
            .unwrap()
            .remove(smartscale_manifests::Kind::Node, "", node.as_str());
        self.done(format!("forget {node}")).await;
        Ok(())
    }
}

#[async_trait]
impl Agents for World {
    fn is_connected(&self, _: &InstanceId) -> bool {
        !*self.silent.lock().unwrap()
    }
    fn silent_for(&self, _: &InstanceId) -> Option<Duration> {
        None
    }
    async fn drain(
        &self,
        instance: &InstanceId,
        operation: &OperationId,
        _: Duration,
        _: OnTimeout,
        _: &str,
    ) -> Result<(), NotConnected> {
        self.done(format!("drain {instance} {operation}")).await;
        Ok(())
    }
    async fn abort_drain(&self, _: &InstanceId, _: &OperationId) -> Result<(), NotConnected> {
        Ok(())
    }
    async fn stop_kubelet(&self, instance: &InstanceId, operation: &OperationId) -> Result<(), NotConnected> {
        self.done(format!("stop {instance} {operation}")).await;
        Ok(())
    }
    fn drain_report(&self, instance: &InstanceId, operation: &str) -> Option<DrainReport> {
        (self.count(&format!("drain {instance} {operation}")) > 0).then(|| DrainReport {
            phase: DrainPhase::Drained.into(),
            ..Default::default()
        })
    }
    fn kubelet_stopped(&self, instance: &InstanceId, operation: &OperationId) -> bool {
        self.count(&format!("stop {instance} {operation}")) > 0
    }
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

#[async_trait]
impl ClusterView for World {
    fn latest(&self) -> Observed<Objects> {
        if *self.blind.lock().unwrap() {
            return Observed::default();
        }
        let objects = self.objects.lock().unwrap().clone();
        Observed {
            value: Some(Arc::new(objects)),
            at: Some(fixtures::now() + *self.elapsed.lock().unwrap()),
            error: None,
        }
    }
    async fn changed(&self) {
        std::future::pending::<()>().await;
    }
}

/// A world, a store, and leaders that come and go.
struct Stage {
    world: Arc<World>,
    clock: SharedClock,
    store: SharedStore,
    epoch: u64,
}

impl Stage {
    fn new() -> Self {
        let world = Arc::new(World::default());
        let clock: SharedClock = Arc::new(Hand(Arc::clone(&world)));
        let store: SharedStore = Arc::new(Remote(
            SqliteStore::in_memory("demo".into(), Arc::clone(&clock)).unwrap(),
            Arc::clone(&world),
        ));
        Self {
            world,
            clock,
            store,
            epoch: 0,
        }
    }

    /// Somebody becomes the leader of the next term.
    async fn leader(&mut self) -> Arc<Executor> {
        let before = self.store.lease().await.unwrap().map(|row| row.rvn);
        self.epoch += 1;
        let row = LeaseRow {
            holder: Some("a".parse().unwrap()),
            rvn: format!("r{}", self.epoch),
            epoch: Epoch(self.epoch),
            lease: Duration::from_secs(15),
            expires_at: self.clock.now(),
        };
        assert!(self.store.replace_lease(before.as_deref(), &row).await.unwrap());
        let leads = Leadership::Leader {
            epoch: Epoch(self.epoch),
            until: Duration::MAX,
        };
        let policy = PolicyInForce {
            policy: Arc::new(fixtures::policy("")),
            text: "".into(),
        };
        Executor::new(Parts {
            settings: Settings::default(),
            clock: Arc::clone(&self.clock),
            ids: Arc::new(Counted(Arc::clone(&self.world))),
            store: Arc::clone(&self.store),
            tell: Arc::new(Quiet),
            fleet: self.world.clone(),
            nodes: self.world.clone(),
            agents: self.world.clone(),
            cluster: self.world.clone(),
            leadership: watch::channel(leads).1,
            policy: watch::channel(policy).1,
        })
    }

    /// What a decision of the present term does.
    async fn submit(&self, leader: &Executor, plan: &Plan) -> Result<Vec<OperationId>, StoreError> {
        let term = Epoch(self.epoch);
        assert!(leader.begin_term(term).await);
        leader.submit(plan, &decision(), term).await
    }

    /// What the planner would be shown of the term's operations.
    fn state(&self, leader: &Executor) -> State {
        let mut state = State::default();
        assert!(leader.fill(&mut state, &mut BTreeSet::new()).is_some());
        state
    }

    /// Turns until nothing is open, with the clock and the machines moving on. `false`: the leader died.
    async fn play(&self, executor: &Arc<Executor>) -> bool {
        for _ in 0..200 {
            tokio::select! {
                biased;
                () = self.world.crashed.notified() => return false,
                () = executor.turn() => {}
            }
            *self.world.elapsed.lock().unwrap() += Duration::from_secs(5);
            self.world.boot();
            self.enrol().await;
            if executor.open().is_empty() {
                return true;
            }
        }
        panic!("operations that never end: {:#?}", executor.open());
    }

    /// Every machine with a record enrols.
    async fn enrol(&self) {
        for item in self.store.list(NodeRecord::PREFIX, false, 100).await.unwrap() {
            let record = NodeRecord::from_item(&item).unwrap();
            if record.enrolled_at.is_none() {
                let record = NodeRecord {
                    enrolled_at: Some(self.clock.now()),
                    ..record
                };
                let write = super::journal::put(&record, None).unwrap();
                self.store
                    .commit(Epoch(self.epoch), &[write], &Attributes::new())
                    .await
                    .unwrap();
            }
        }
    }

    /// A worker of ours that is there already.
    async fn worker(&mut self, name: &str) {
        self.leader().await;
        let record = NodeRecord {
            instance: name.parse().unwrap(),
            pool: "workers".into(),
            instance_type: "t3.small".into(),
            zone: "us-east-1a".into(),
            market: Market::OnDemand,
            operation: "op-0".parse().unwrap(),
            launched_at: fixtures::now(),
            secret_hash: None,
            secret_expires_at: None,
            enrolled_key: None,
            enrolled_at: Some(fixtures::now()),
            ready_at: Some(fixtures::now()),
            revoked_at: None,
        };
        let instance = Instance {
            id: record.instance.clone(),
            instance_type: record.instance_type.clone(),
            zone: record.zone.clone(),
            market: record.market,
            pool: Some(record.pool.clone()),
            operation: Some(record.operation.clone()),
            state: InstanceState::Running,
            launched_at: record.launched_at,
        };
        self.world
            .instances
            .lock()
            .unwrap()
            .insert(record.instance.clone(), instance);
        self.world.register(name);
        let write = super::journal::put(&record, None).unwrap();
        self.store
            .commit(Epoch(self.epoch), &[write], &Attributes::new())
            .await
            .unwrap();
    }

    async fn operations(&self) -> Vec<Operation> {
        let items = self.store.list(Operation::PREFIX, false, 100).await.unwrap();
        items
            .iter()
            .map(|item| Operation::from_item(item).unwrap())
            .collect()
    }
}

fn launch(zone: &str) -> Launch {
    Launch {
        pool: "workers".into(),
        zone: zone.into(),
        market: Market::OnDemand,
        instance_types: vec!["t3.small".into()],
        price_per_hour: 0.02,
        pods: Vec::new(),
    }
}

fn scale_up() -> Plan {
    Plan {
        action: Action::ScaleUp,
        launch: vec![launch("us-east-1a"), launch("us-east-1a")],
        ..Plan::default()
    }
}

fn scale_down(node: &str) -> Plan {
    let removal = Removal {
        node: node.into(),
        reason: RemovalReason::Underutilised,
        moves: Vec::new(),
        saves_per_hour: 0.02,
    };
    Plan {
        action: Action::ScaleDown,
        remove: vec![removal],
        ..Plan::default()
    }
}

fn decision() -> DecisionId {
    "d-1".parse().unwrap()
}

fn pod(name: &str, tier: i32) -> PodOnNode {
    PodOnNode {
        key: format!("default/{name}").parse().unwrap(),
        uid: format!("uid-{name}"),
        must_leave: true,
        terminating: false,
        tier,
    }
}

#[tokio::test]
async fn a_plan_becomes_one_launch_call_for_its_group_and_ends_when_every_node_is_ready() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_up()).await.unwrap();
    assert!(stage.play(&leader).await);
    assert_eq!(stage.world.count("launch"), 1);
    let operations = stage.operations().await;
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].phase, Phase::Done);
    assert_eq!(operations[0].launch().unwrap().ready.len(), 2);
    let attributes = stage.store.attributes().await.unwrap();
    assert_eq!(attributes["last_scale_action"], json!("scale_up"));
    assert_eq!(attributes["scaling_in_progress"], json!(false));
}

#[tokio::test]
async fn operations_that_end_in_the_same_moment_leave_no_scaling_in_progress() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    let plan = Plan {
        launch: vec![launch("us-east-1a"), launch("us-east-1b")],
        ..scale_up()
    };
    stage.submit(&leader, &plan).await.unwrap();
    assert!(stage.play(&leader).await);
    assert_eq!(stage.operations().await.len(), 2);
    let attributes = stage.store.attributes().await.unwrap();
    assert_eq!(attributes["scaling_in_progress"], json!(false));
}

#[tokio::test]
async fn a_leader_that_dies_after_any_call_of_a_launch_leaves_no_second_machine_and_no_orphan() {
    for crash in 1..20 {
        let mut stage = Stage::new();
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_up()).await.unwrap();
        *stage.world.crash_at.lock().unwrap() = Some(crash);
        let survived = stage.play(&leader).await;
        if !survived {
            drop(leader);
            let next = stage.leader().await;
            assert!(stage.play(&next).await);
        }
        assert_eq!(
            stage.world.instances.lock().unwrap().len(),
            2,
            "crash at call {crash}"
        );
        assert_eq!(
            stage
                .store
                .list(NodeRecord::PREFIX, false, 10)
                .await
                .unwrap()
                .len(),
            2
        );
        let operations = stage.operations().await;
        assert_eq!(operations[0].phase, Phase::Done);
        if survived {
            return;
        }
        assert_eq!(operations[0].takeovers, 1);
    }
    panic!("the launch never came to an end without dying");
}

#[tokio::test]
async fn a_leader_that_dies_after_any_call_of_a_removal_is_followed_by_one_that_ends_it_in_the_same_order() {
    for crash in 1..20 {
        let mut stage = Stage::new();
        stage.worker("i-old").await;
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_down("i-old")).await.unwrap();
        *stage.world.crash_at.lock().unwrap() = Some(crash);
        let survived = stage.play(&leader).await;
        if !survived {
            drop(leader);
            let next = stage.leader().await;
            assert!(stage.play(&next).await);
        }
        let world = &stage.world;
        let order =
            ["drain i-old", "stop i-old", "terminate i-old", "forget i-old"].map(|what| world.place(what));
        assert!(order.is_sorted(), "crash at call {crash}: {order:?}");
        assert!(
            stage
                .store
                .list(NodeRecord::PREFIX, false, 10)
                .await
                .unwrap()
                .is_empty()
        );
        if survived {
            return;
        }
    }
    panic!("the removal never came to an end without dying");
}

#[tokio::test]
async fn a_fenced_leader_begins_nothing() {
    let mut stage = Stage::new();
    let old = stage.leader().await;
    let _new = stage.leader().await;
    assert!(old.begin_term(Epoch(1)).await);
    let submitted = old.submit(&scale_up(), &decision(), Epoch(1)).await;
    assert!(submitted.is_err());
    old.turn().await;
    assert_eq!(stage.world.count("launch"), 0);
}

#[tokio::test]
async fn a_plan_is_carried_out_only_in_the_term_whose_operations_it_knows() {
    let mut stage = Stage::new();
    let dead = stage.leader().await;
    stage.submit(&dead, &scale_up()).await.unwrap();
    let next = stage.leader().await;
    let (mut state, mut leaving) = (State::default(), BTreeSet::new());

    // It leads and has not taken over yet: what is under way is unknown to it.
    assert_eq!(next.fill(&mut state, &mut leaving), None);
    let blind = next.submit(&scale_up(), &decision(), Epoch(2)).await;
    assert!(matches!(blind, Err(StoreError::Fenced)), "{blind:?}");

    assert!(next.begin_term(Epoch(2)).await);
    assert_eq!(next.fill(&mut state, &mut leaving), Some(Epoch(2)));
    assert_eq!(state.launching.len(), 2);
    // A plan that was begun before it led was made without them.
    let stale = next.submit(&scale_up(), &decision(), Epoch(1)).await;
    assert!(matches!(stale, Err(StoreError::Fenced)), "{stale:?}");
    assert_eq!(stage.operations().await.len(), 1);
}

#[tokio::test]
async fn operations_whose_journaling_was_not_answered_are_carried_out_in_the_same_term() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.unanswered.lock().unwrap() = true;
    let submitted = stage.submit(&leader, &scale_up()).await;
    assert!(matches!(submitted, Err(StoreError::Unknown(_))), "{submitted:?}");
    // Until they are read, no plan may be made without them.
    assert_eq!(leader.fill(&mut State::default(), &mut BTreeSet::new()), None);
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
    assert_eq!(operations[0].takeovers, 0);
}

#[tokio::test]
async fn a_leader_that_does_not_see_the_cluster_yet_gives_no_late_machine_up() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_up()).await.unwrap();
    while stage.operations().await[0].phase != Phase::Joining {
        leader.turn().await;
    }
    stage.world.boot();
    stage.enrol().await;
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(600);
    *stage.world.blind.lock().unwrap() = true;
    let next = stage.leader().await;
    next.turn().await;
    assert_eq!(stage.world.count("terminate"), 0);
    *stage.world.blind.lock().unwrap() = false;
    assert!(stage.play(&next).await);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_drained_node_that_took_pods_again_loses_none_of_them() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.pods.lock().unwrap() = vec![pod("newcomer", 0)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    let order = [
        "drain i-old",
        "cordon i-old",
        "evict default/newcomer",
        "terminate i-old",
    ];
    let order = order.map(|what| stage.world.place(what));
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_node_whose_agent_is_silent_is_drained_through_the_api_tier_by_tier_and_no_pod_twice() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("late", 1), pod("early", 0)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    assert!(stage.world.place("evict default/early") < stage.world.place("evict default/late"));
    assert_eq!(stage.world.count("evict"), 2);
    assert_eq!(stage.world.count("drain"), 0);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
}

#[tokio::test]
async fn a_budget_that_stays_closed_ends_in_an_uncordoned_node_that_is_still_there() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    *stage.world.silent.lock().unwrap() = true;
    *stage.world.closed_budget.lock().unwrap() = true;
    *stage.world.pods.lock().unwrap() = vec![pod("web", 0)];
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    assert!(stage.play(&leader).await);
    let operation = &stage.operations().await[0];
    assert_eq!(
        (operation.phase, operation.error_type.as_deref()),
        (Phase::Aborted, Some("drain_timeout"))
    );
    assert!(operation.error.as_deref().unwrap().contains("default/web"));
    assert_eq!(stage.world.count("uncordon"), 1);
    assert_eq!(stage.world.count("rejoin i-old"), 1);
    assert_eq!(stage.world.count("terminate"), 0);
}

#[tokio::test]
async fn a_record_without_a_machine_is_forgotten_with_its_node() {
    let mut stage = Stage::new();
    stage.worker("i-lost").await;
    stage.world.instances.lock().unwrap().clear();
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(600);
    let leader = stage.leader().await;
    leader.turn().await;
    assert!(stage.play(&leader).await);
    assert!(stage.world.place("taint i-lost") < stage.world.place("forget i-lost"));
    assert_eq!(stage.world.count("drain"), 0);
    assert_eq!(stage.world.count("leave"), 0);
    assert!(stage.store.get("node#i-lost").await.unwrap().is_none());
}

#[tokio::test]
async fn a_machine_with_our_tag_that_nobody_knows_is_terminated_after_a_grace() {
    let mut stage = Stage::new();
    stage.worker("i-stranger").await;
    stage
        .store
        .commit(
            Epoch(1),
            &[Write::Delete {
                key: "node#i-stranger".to_owned(),
            }],
            &Attributes::new(),
        )
        .await
        .unwrap();
    let leader = stage.leader().await;
    leader.turn().await;
    assert_eq!(stage.world.count("terminate"), 0);
    *stage.world.elapsed.lock().unwrap() = Duration::from_secs(601);
    leader.turn().await;
    assert_eq!(stage.world.count("terminate i-stranger"), 1);
}

#[tokio::test]
async fn a_refused_launch_is_planned_anew_in_another_zone_by_the_same_operation() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Capacity];
    let first = stage.submit(&leader, &scale_up()).await.unwrap();
    assert_eq!(stage.state(&leader).launching.len(), 2);
    leader.turn().await;
    let refused = stage.operations().await;
    assert_eq!(refused[0].phase, Phase::Refused);
    leader.wants_a_plan().await;
    assert_eq!(stage.state(&leader).launching, [], "its pods wait again");
    let backoffs = stage.store.list("offering#", false, 10).await.unwrap();
    assert_eq!(backoffs[0].key, "offering#t3.small#us-east-1a#on-demand");
    let elsewhere = Plan {
        launch: vec![launch("us-east-1b"), launch("us-east-1b")],
        ..scale_up()
    };
    assert_eq!(stage.submit(&leader, &elsewhere).await.unwrap(), first);
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!(operations.len(), 1);
    assert_eq!(operations[0].phase, Phase::Done);
    let names: Vec<String> = operations[0].nodes().iter().map(ToString::to_string).collect();
    assert_eq!(names, ["i-op-1-2-0", "i-op-1-2-1"], "under a token of its own");
}

#[tokio::test]
async fn a_refused_launch_that_the_next_plan_does_without_ends() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Quota];
    stage.submit(&leader, &scale_up()).await.unwrap();
    // A plan that was begun before the refusal says nothing of it.
    stage.state(&leader);
    leader.turn().await;
    leader.turn().await;
    assert!(!leader.awaits_a_plan());
    stage.submit(&leader, &Plan::default()).await.unwrap();
    assert_eq!(stage.operations().await[0].phase, Phase::Refused);
    stage.state(&leader);
    assert!(leader.awaits_a_plan());
    stage.submit(&leader, &Plan::default()).await.unwrap();
    let operations = stage.operations().await;
    assert_eq!(operations[0].phase, Phase::Failed);
    assert_eq!(operations[0].error_type.as_deref(), Some("quota"));
}

#[tokio::test]
async fn a_refused_launch_without_a_plan_ends_by_itself_also_under_another_leader() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Capacity];
    stage.submit(&leader, &scale_up()).await.unwrap();
    leader.turn().await;
    leader.turn().await;
    assert_eq!(stage.operations().await[0].phase, Phase::Refused);
    let other = stage.leader().await;
    assert!(stage.play(&other).await);
    assert_eq!(stage.operations().await[0].phase, Phase::Failed);
    assert_eq!(stage.world.instances.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_throttled_launch_is_made_again_under_the_same_token() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Throttled; 3];
    stage.submit(&leader, &scale_up()).await.unwrap();
    assert!(stage.play(&leader).await);
    assert_eq!(stage.world.count("refuse op-1-1"), 3);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
    assert_eq!(stage.store.list("offering#", false, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_launch_that_is_wrong_in_itself_stops_its_pool() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.refuses.lock().unwrap() = vec![RefusalCause::Configuration];
    stage.submit(&leader, &scale_up()).await.unwrap();
    leader.turn().await;
    leader.turn().await;
    let item = stage.store.get("pool#workers").await.unwrap().unwrap();
    let stopped = PoolRecord::from_item(&item).unwrap().stopped.unwrap();
    assert_eq!(stopped.reason, "NoMore: of these");
    assert!(stopped.until > stage.clock.now());
}

#[tokio::test]
async fn machines_that_never_join_are_terminated_and_three_launches_of_them_stop_the_pool() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    *stage.world.never_boots.lock().unwrap() = true;
    stage.submit(&leader, &scale_up()).await.unwrap();
    for attempt in 1..=3 {
        while stage.operations().await[0].phase != Phase::Refused {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(30);
        }
        let item = stage.store.get("pool#workers").await.unwrap().unwrap();
        let stopped = PoolRecord::from_item(&item).unwrap().stopped.is_some();
        assert_eq!(stopped, attempt == 3, "attempt {attempt}");
        stage.state(&leader);
        stage.submit(&leader, &scale_up()).await.unwrap();
    }
    assert_eq!(stage.world.count("terminate"), 6);
    *stage.world.never_boots.lock().unwrap() = false;
    assert!(stage.play(&leader).await);
    let operations = stage.operations().await;
    assert_eq!((operations.len(), operations[0].phase), (1, Phase::Done));
}

#[tokio::test]
async fn many_machines_are_launched_by_calls_of_fifty() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    let plan = Plan {
        launch: vec![launch("us-east-1a"); 120],
        ..scale_up()
    };
    assert_eq!(stage.submit(&leader, &plan).await.unwrap().len(), 3);
    assert!(stage.play(&leader).await);
    assert_eq!(stage.world.instances.lock().unwrap().len(), 120);
    assert_eq!(stage.world.count("launch"), 3);
}

#[tokio::test]
async fn a_machine_is_terminated_once_its_volumes_are_detached_and_not_waited_for_for_ever() {
    for (attached, terminated) in [(40, 40), (10_000, 120)] {
        let mut stage = Stage::new();
        stage.worker("i-old").await;
        *stage.world.attached_until.lock().unwrap() = Duration::from_secs(attached);
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_down("i-old")).await.unwrap();
        while stage.world.count("terminate") == 0 {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(5);
        }
        let elapsed = stage.world.elapsed.lock().unwrap().as_secs();
        assert!((terminated..terminated + 40).contains(&elapsed), "{elapsed} s");
        assert!(stage.play(&leader).await);
        assert_eq!(stage.operations().await[0].phase, Phase::Done);
        assert!(stage.world.place("leave i-old") < stage.world.place("drain i-old"));
    }
}

#[tokio::test]
async fn a_machine_that_is_silent_and_not_ready_is_replaced_and_many_are_left_alone() {
    for (sick, replaced) in [(1, 1), (2, 0)] {
        let mut stage = Stage::new();
        for n in 0..5 {
            stage.worker(&format!("i-{n}")).await;
        }
        *stage.world.silent.lock().unwrap() = true;
        for n in 0..sick {
            stage.world.fall_ill(&format!("i-{n}"));
        }
        let leader = stage.leader().await;
        for _ in 0..30 {
            leader.turn().await;
            *stage.world.elapsed.lock().unwrap() += Duration::from_secs(20);
        }
        assert_eq!(stage.world.count("terminate"), replaced);
        assert_eq!(stage.world.count("drain"), 0);
        let operations = stage.operations().await;
        assert!(operations.iter().all(|operation| operation.phase == Phase::Done));
        assert_eq!(operations.len(), replaced);
    }
}
