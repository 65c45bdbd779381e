//! The executor against a world in memory, killed after every single call that leaves the process.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod books;
mod refusals;
mod removals;
mod world;

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

use self::world::{Counted, Hand, Quiet, Remote, World};
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
