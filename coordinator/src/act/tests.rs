//! The executor against a world in memory, killed after every single call that leaves the process.
#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]

mod binding;
mod books;
mod interruptions;
mod refusals;
mod removals;
mod steering;
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
    Action, Launch, Plan, Removal, RemovalReason,
    drainability::Tier,
    fixtures,
    model::{Market, NodeName, PodKey},
    snapshot::State,
};
use smartscale_proto::{
    time::{Clock, SharedClock},
    v1::{DrainPhase, DrainReport, OnTimeout},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use self::world::{Counted, Hand, Quiet, Remote, World};
use super::{
    Executor, Parts, Settings,
    agents::{Agents, DrainTerms, NotConnected},
    binding::{Binding, Verified},
    fleet::{
        Drift, Fleet, FleetError, Instance, InstanceState, LaunchRequest, Launched, RefusalCause,
        RefusedOffering,
    },
    nodes::{Eviction, HandOver, Name, Nodes, NodesError, PodOnNode, Priced},
    operation::{Operation, Phase},
};
use crate::{
    config::Mode,
    decide::PolicyInForce,
    ids::{DecisionId, Epoch, IdSource, InstanceId, OperationId},
    observe::{
        ClusterView, Observed,
        notices::{NoticeKind, NoticeSource, Said, board::NoticeBoard},
    },
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
    /// By term; each leader believes that it leads for ever.
    says: Vec<watch::Sender<Leadership>>,
    epoch: u64,
    mode: Mode,
    settings: Settings,
    notices: Arc<NoticeBoard>,
}

impl Stage {
    fn new() -> Self {
        let world = Arc::new(World::default());
        let clock: SharedClock = Arc::new(Hand(Arc::clone(&world)));
        let store: SharedStore = Arc::new(Remote(
            SqliteStore::in_memory("demo".into(), Arc::clone(&clock)).unwrap(),
            Arc::clone(&world),
        ));
        let notices = NoticeBoard::new(Arc::clone(&store), Arc::new(Quiet), Arc::clone(&clock));
        Self {
            world,
            clock,
            store,
            says: Vec::new(),
            epoch: 0,
            mode: Mode::Act,
            settings: Settings::default(),
            notices,
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
        let (says, leadership) = watch::channel(leads);
        self.says.push(says);
        let policy = PolicyInForce {
            warnings: Arc::default(),
            policy: Arc::new(fixtures::policy("")),
            text: "".into(),
        };
        Executor::new(Parts {
            mode: self.mode,
            settings: self.settings,
            clock: Arc::clone(&self.clock),
            ids: Arc::new(Counted(Arc::clone(&self.world))),
            store: Arc::clone(&self.store),
            tell: Arc::new(Quiet),
            fleet: self.world.clone(),
            nodes: self.world.clone(),
            agents: self.world.clone(),
            notices: Arc::clone(&self.notices),
            cluster: self.world.clone(),
            leadership,
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

    /// Plays to the end: a leader that dies after so many calls of its own, another one, and one that lives. How many died.
    async fn play_on(&mut self, mut leader: Arc<Executor>, deaths: [usize; 2]) -> usize {
        for (died, calls) in deaths.into_iter().enumerate() {
            let after = *self.world.calls.lock().unwrap() + calls;
            *self.world.crash_at.lock().unwrap() = Some(after);
            if self.play(&leader).await {
                return died;
            }
            leader = self.leader().await;
        }
        assert!(self.play(&leader).await);
        deaths.len()
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
                // It is nobody's call who may die.
                let crash_at = self.world.crash_at.lock().unwrap().take();
                self.store
                    .commit(Epoch(self.epoch), &[write], &Attributes::new())
                    .await
                    .unwrap();
                *self.world.crash_at.lock().unwrap() = crash_at;
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
            binding_secret: None,
            certified: None,
            revoked_at: None,
            boot: Vec::new(),
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
            ended_at: None,
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
        price_source: None,
        price_age_seconds: None,
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
        due: None,
        saves_source: None,
        saves_age_seconds: None,
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

fn pod(name: &str, tier: Tier) -> PodOnNode {
    PodOnNode {
        key: format!("default/{name}").parse().unwrap(),
        uid: format!("uid-{name}"),
        must_leave: true,
        local_storage: false,
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
async fn leaders_that_die_after_any_two_calls_of_a_launch_leave_no_second_machine_and_no_orphan() {
    for deaths in pairs() {
        let mut stage = Stage::new();
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_up()).await.unwrap();
        let died = stage.play_on(leader, deaths).await;
        let instances = stage.world.instances.lock().unwrap().len();
        let records = stage.store.list(NodeRecord::PREFIX, false, 10).await.unwrap();
        assert_eq!((instances, records.len()), (2, 2), "deaths after {deaths:?}");
        let operations = stage.operations().await;
        assert_eq!(
            (operations.len(), operations[0].phase),
            (1, Phase::Done),
            "{deaths:?}"
        );
        assert!(operations[0].takeovers as usize <= died, "{deaths:?}");
        if died == 0 {
            return;
        }
    }
    panic!("the launch never came to an end without dying");
}

#[tokio::test]
async fn leaders_that_die_after_any_two_calls_of_a_removal_are_followed_by_one_that_ends_it_in_the_same_order()
 {
    for deaths in pairs() {
        let mut stage = Stage::new();
        stage.worker("i-old").await;
        let leader = stage.leader().await;
        stage.submit(&leader, &scale_down("i-old")).await.unwrap();
        let died = stage.play_on(leader, deaths).await;
        let world = &stage.world;
        let order =
            ["drain i-old", "stop i-old", "terminate i-old", "forget i-old"].map(|what| world.place(what));
        assert!(order.is_sorted(), "deaths after {deaths:?}: {order:?}");
        let records = stage.store.list(NodeRecord::PREFIX, false, 10).await.unwrap();
        assert_eq!(records, [], "deaths after {deaths:?}");
        if died == 0 {
            return;
        }
    }
    panic!("the removal never came to an end without dying");
}

/// Every two calls after which leaders die: more than an operation has.
fn pairs() -> impl Iterator<Item = [usize; 2]> {
    (1..30).flat_map(|first| (1..30).map(move |second| [first, second]))
}

#[tokio::test]
async fn what_a_leader_did_whose_clock_was_ahead_holds_its_successor_no_longer_than_since_it_leads() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    assert!(leader.begin_term(Epoch(1)).await);
    let led_at = stage.clock.now();
    *stage.world.elapsed.lock().unwrap() += Duration::from_secs(60);
    let now = stage.clock.now();
    let seen = |last: Timestamp| {
        let mut state = State {
            last_scale_time: Some(last),
            ..State::default()
        };
        leader.fill(&mut state, &mut BTreeSet::new());
        state.last_scale_time.unwrap()
    };
    assert_eq!(seen(now + Duration::from_secs(600)), led_at);
    assert_eq!(seen(now), now);
}

#[tokio::test]
async fn a_cloud_that_does_not_answer_a_launch_holds_no_removal() {
    let mut stage = Stage::new();
    stage.worker("i-old").await;
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_up()).await.unwrap();
    // The next commit journals the call, the call itself hears nothing.
    let calls = *stage.world.calls.lock().unwrap();
    *stage.world.crash_at.lock().unwrap() = Some(calls + 2);
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&leader).run(shutdown.clone()));
    stage.world.crashed.notified().await;
    stage.submit(&leader, &scale_down("i-old")).await.unwrap();
    // The store works on threads of its own: on a busy machine it is slow, in turns as in seconds.
    let removed = async {
        for turn in 0.. {
            leader.nudge();
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            if turn < 1_000 {
                *stage.world.elapsed.lock().unwrap() += Duration::from_secs(1);
            }
            if leader.open().len() == 1 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(60), removed).await;
    running.abort();
    let phases: Vec<Phase> = stage.operations().await.iter().map(|one| one.phase).collect();
    assert_eq!(phases, [Phase::Requesting, Phase::Done]);
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
async fn a_step_that_was_overtaken_by_another_write_is_not_journaled_and_the_journal_is_read_again() {
    let mut stage = Stage::new();
    let leader = stage.leader().await;
    stage.submit(&leader, &scale_up()).await.unwrap();
    let mut overtaken = leader.open().remove(0);
    leader.turn().await;
    let after = stage.operations().await;
    assert_ne!(after[0].phase, Phase::Planned);
    let now = stage.clock.now();
    overtaken.advance(Phase::Requesting, now, "too late").unwrap();
    let written = leader
        .write(Epoch(stage.epoch), &mut overtaken, Vec::new(), Attributes::new())
        .await;
    assert!(!written);
    assert_eq!(stage.operations().await, after);
    // Until it is read, no plan may be made without what the other write said.
    assert_eq!(leader.fill(&mut State::default(), &mut BTreeSet::new()), None);
    assert!(stage.play(&leader).await);
    assert_eq!(stage.operations().await[0].phase, Phase::Done);
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
