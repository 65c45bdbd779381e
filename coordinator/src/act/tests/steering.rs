//! Steering by decisions: who may patch, when, and what becomes of a patch that fails.

use smartscale_manifests::Pod;

use super::*;
use crate::{
    act::steering::{Parts, Steering},
    serve::view::Latest,
    tell::SharedTell,
};

/// A clock that passes while somebody waits.
struct Passing(Arc<World>);

#[async_trait]
impl Clock for Passing {
    fn now(&self) -> Timestamp {
        fixtures::now() + SignedDuration::try_from(self.elapsed()).unwrap()
    }
    fn elapsed(&self) -> Duration {
        *self.0.elapsed.lock().unwrap()
    }
    async fn sleep(&self, duration: Duration) {
        *self.0.elapsed.lock().unwrap() += duration;
    }
}

/// Keeps what is told.
#[derive(Default)]
struct Ear(Mutex<Vec<String>>);

impl Tell for Ear {
    fn tell(&self, happening: Happening) {
        self.0.lock().unwrap().push(happening.message);
    }
}

/// A decision.
struct Decision {
    steer: &'static [&'static str],
    paused: bool,
    recorded: bool,
}

impl Decision {
    fn of(steer: &'static [&'static str]) -> Self {
        Self {
            steer,
            paused: false,
            recorded: true,
        }
    }
}

struct Leader {
    world: Arc<World>,
    clock: SharedClock,
    ear: Arc<Ear>,
    says: watch::Sender<Leadership>,
    decided: watch::Sender<Option<Arc<Latest>>>,
    steering: Steering,
}

impl Leader {
    /// A leader of a cluster with a pod of `web` on each of the nodes `a`, `b` and `c`.
    fn new(mode: Mode) -> Self {
        let world = Arc::new(World::default());
        for node in ["a", "b", "c"] {
            world.register(node);
            bear(&world, node, &json!({}));
        }
        let clock: SharedClock = Arc::new(Passing(Arc::clone(&world)));
        let ear = Arc::new(Ear::default());
        let tell: SharedTell = ear.clone();
        let (says, leadership) = watch::channel(leads(1));
        let (decided, latest) = watch::channel(None);
        let steering = Steering::new(Parts {
            mode,
            clock: Arc::clone(&clock),
            nodes: world.clone(),
            cluster: world.clone(),
            latest,
            leadership,
            tell,
        });
        Self {
            world,
            clock,
            ear,
            says,
            decided,
            steering,
        }
    }

    fn decide(&self, decision: &Decision) {
        let (cluster, _) = self.world.objects.lock().unwrap().to_cluster(self.clock.now());
        let mut snapshot = fixtures::snapshot(
            Vec::<smartscale_planner::model::Node>::new(),
            Vec::<smartscale_planner::model::Pod>::new(),
        );
        snapshot.cluster = cluster;
        snapshot.state.paused = decision.paused;
        let plan = Plan {
            steer: decision.steer.iter().map(|node| NodeName::new(*node)).collect(),
            ..Plan::default()
        };
        self.decided.send_replace(Some(Arc::new(Latest {
            at: self.clock.now(),
            snapshot: Arc::new(snapshot),
            plan: Arc::new(plan),
            policy: Arc::new(fixtures::policy("")),
            policy_toml: "".into(),
            decision: decision.recorded.then(|| "d-1".parse().unwrap()),
            cost_change_per_hour: 0.0,
            of_templates: Vec::new(),
            foreseen: None,
            steered: BTreeMap::new(),
            warnings: Vec::new(),
        })));
    }

    /// Decides the same every ten seconds for so long.
    async fn keeps_deciding(&mut self, seconds: u64, decision: &Decision) {
        let end = self.clock.elapsed() + Duration::from_secs(seconds);
        while self.clock.elapsed() < end {
            self.decide(decision);
            self.steering.turn().await;
            *self.world.elapsed.lock().unwrap() += Duration::from_secs(10);
        }
    }

    /// What was asked of pods.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.world.log.lock().unwrap())
    }
}

fn leads(epoch: u64) -> Leadership {
    Leadership::Leader {
        epoch: Epoch(epoch),
        until: Duration::MAX,
    }
}

/// Gives the pod on a node these annotations.
fn bear(world: &World, node: &str, annotations: &serde_json::Value) {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {
            "name": format!("web-{node}"), "namespace": "default", "uid": format!("uid-{node}"),
            "annotations": annotations,
            "ownerReferences": [{ "kind": "ReplicaSet", "name": "web", "controller": true }],
        },
        "spec": { "nodeName": node, "priority": 0, "containers": [{}] },
        "status": { "phase": "Running" },
    }))
    .unwrap();
    world.objects.lock().unwrap().apply(pod);
}

fn ours(cost: &str) -> serde_json::Value {
    json!({ "controller.kubernetes.io/pod-deletion-cost": cost, "smartscale.io/steered": cost })
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn a_leader_marks_pods_of_nodes_that_have_been_candidates_for_a_minute() {
    let mut leader = Leader::new(Mode::Act);
    leader.keeps_deciding(60, &Decision::of(&["b", "a"])).await;
    assert_eq!(leader.asked(), NOTHING);
    leader.keeps_deciding(10, &Decision::of(&["b", "a"])).await;
    assert_eq!(
        leader.asked(),
        ["price default/web-b Some(-90)", "price default/web-a Some(-85)"]
    );
}

#[tokio::test]
async fn nobody_is_patched_in_observe_mode_by_a_follower_or_by_a_decision_without_a_record() {
    let observer = Leader::new(Mode::Observe);
    bear(&observer.world, "c", &ours("-90"));
    let stop = CancellationToken::new();
    let running = observer.steering.run(stop.clone());
    stop.cancel();
    running.await;
    assert_eq!(observer.world.count("price"), 0);

    let mut follower = Leader::new(Mode::Act);
    bear(&follower.world, "c", &ours("-90"));
    follower.says.send_replace(Leadership::Follower { leader: None });
    follower.keeps_deciding(200, &Decision::of(&["a"])).await;
    assert_eq!(follower.asked(), NOTHING);

    let mut unrecorded = Leader::new(Mode::Act);
    bear(&unrecorded.world, "c", &ours("-90"));
    let without_a_store = Decision {
        paused: true,
        recorded: false,
        ..Decision::of(&["a"])
    };
    unrecorded.keeps_deciding(200, &without_a_store).await;
    assert_eq!(unrecorded.asked(), NOTHING);
}

#[tokio::test]
async fn nothing_is_patched_while_the_cluster_is_not_seen() {
    let mut leader = Leader::new(Mode::Act);
    bear(&leader.world, "c", &ours("-90"));
    leader.keeps_deciding(50, &Decision::of(&["a"])).await;
    *leader.world.blind.lock().unwrap() = true;
    leader.keeps_deciding(200, &Decision::of(&["a"])).await;
    assert_eq!(leader.asked(), NOTHING);
}

#[tokio::test]
async fn marks_are_taken_back_when_steering_is_switched_off_and_while_somebody_has_paused() {
    let paused = Decision {
        paused: true,
        ..Decision::of(&["a", "b"])
    };
    for decision in [Decision::of(&[]), paused] {
        let mut leader = Leader::new(Mode::Act);
        bear(&leader.world, "a", &ours("-90"));
        bear(
            &leader.world,
            "b",
            &json!({ "controller.kubernetes.io/pod-deletion-cost": "7" }),
        );
        leader.keeps_deciding(70, &decision).await;
        assert_eq!(leader.asked(), ["price default/web-a None"]);
    }
}

#[tokio::test]
async fn a_new_term_begins_to_count_anew_so_that_no_two_leaders_patch_a_pod_within_a_minute() {
    let mut leader = Leader::new(Mode::Act);
    leader.keeps_deciding(70, &Decision::of(&["a"])).await;
    assert_eq!(leader.asked(), ["price default/web-a Some(-90)"]);
    bear(&leader.world, "a", &ours("-90"));
    leader.says.send_replace(leads(2));
    leader.keeps_deciding(60, &Decision::of(&[])).await;
    assert_eq!(leader.asked(), NOTHING);
    leader.keeps_deciding(10, &Decision::of(&[])).await;
    assert_eq!(leader.asked(), ["price default/web-a None"]);
}

#[tokio::test]
async fn a_pod_that_is_gone_or_was_written_by_somebody_else_is_no_failure() {
    let mut leader = Leader::new(Mode::Act);
    *leader.world.priced.lock().unwrap() = vec![Ok(Priced::Overtaken), Ok(Priced::Gone)];
    leader.keeps_deciding(70, &Decision::of(&["a", "b"])).await;
    assert_eq!(leader.asked().len(), 2);
    assert!(leader.ear.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_patch_ends_the_round_for_a_minute_and_is_told_once_with_what_is_missing() {
    let mut leader = Leader::new(Mode::Act);
    let refused = || Err(NodesError::Refused("403 forbidden".to_owned()));
    *leader.world.priced.lock().unwrap() = vec![refused(), refused()];
    leader.keeps_deciding(120, &Decision::of(&["a", "b"])).await;
    assert_eq!(leader.asked(), ["price default/web-a Some(-90)"]);
    leader.keeps_deciding(20, &Decision::of(&["a", "b"])).await;
    assert_eq!(leader.asked(), ["price default/web-a Some(-90)"]);
    let told = leader.ear.0.lock().unwrap().clone();
    assert_eq!(
        told,
        [
            "scale-ins are not steered: the Kubernetes API refused: 403 forbidden (scale_down.steer needs \
          packaging/kubernetes/steer)"
        ]
    );
}

#[tokio::test]
async fn a_leader_whose_time_ends_in_the_middle_of_a_round_stops_there() {
    let mut leader = Leader::new(Mode::Act);
    leader.keeps_deciding(60, &Decision::of(&["a", "b", "c"])).await;
    // Good until just after the first patch.
    leader.says.send_replace(Leadership::Leader {
        epoch: Epoch(1),
        until: leader.clock.elapsed() + Duration::from_millis(100),
    });
    leader.keeps_deciding(10, &Decision::of(&["a", "b", "c"])).await;
    assert_eq!(leader.asked(), ["price default/web-a Some(-90)"]);
}

#[tokio::test]
async fn the_loop_looks_at_each_decision_and_ends_with_the_program() {
    let leader = Leader::new(Mode::Act);
    let (stop, world) = (CancellationToken::new(), Arc::clone(&leader.world));
    let elapse = |seconds| *world.elapsed.lock().unwrap() = Duration::from_secs(seconds);
    leader.decide(&Decision::of(&["a"]));
    let Leader {
        steering, decided, ..
    } = leader;
    let first = decided.borrow().clone();
    let running = tokio::spawn(steering.run(stop.clone()));
    tokio::task::yield_now().await;
    elapse(60);
    decided.send_replace(first);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    drop(decided);
    stop.cancel();
    running.await.unwrap();
    assert_eq!(world.count("price"), 1);
}
