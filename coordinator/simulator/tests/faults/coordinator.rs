//! A coordinator of the world: lease, decisions, operations, sources and sessions of the real program, each its own task,
//! between doors that fail. What serves other processes is not there: agents call its sessions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use rand::RngExt as _;
use smartscale_coordinator::{
    act::{self, Executor, agents::Agents},
    config::Mode,
    decide::{self, Decider, Pace, PolicyInForce, Thinking},
    ids::{DecisionId, Epoch, IdSource, OperationId},
    observe::{
        agents::AgentHealth,
        history::Cadence,
        notices::{board::NoticeBoard, listen},
        sources::{self, Sources},
    },
    serve::{
        sessions::{SessionSettings, Sessions},
        view::Latest,
    },
    state::lease::{self, Leadership, Lease},
    tell::{Event, Happening, Metrics, Tell},
};
use smartscale_proto::time::{Clock, SharedClock};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    doors::Trace,
    outside::Outside,
    scheduler::{Owner, Time},
    town::Bug,
    world::World,
};

/// A coordinator that runs.
#[derive(Clone)]
pub(crate) struct Running {
    pub(crate) number: usize,
    pub(crate) clock: SharedClock,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) executor: Arc<Executor>,
    pub(crate) outside: Arc<Outside>,
    /// What it decided last.
    pub(crate) latest: watch::Receiver<Option<Arc<Latest>>>,
    /// Which of its lives this is.
    pub(crate) life: u64,
    acting: CancellationToken,
    lasting: CancellationToken,
    ended: Arc<(AtomicU64, Notify)>,
}

/// A coordinator that leads, as an agent finds it.
pub(crate) struct Leading {
    pub(crate) number: usize,
    pub(crate) life: u64,
    pub(crate) epoch: Epoch,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) outside: Arc<Outside>,
}

impl Running {
    /// The term under which it may act, by its own clock.
    pub(crate) fn term(&self) -> Option<Epoch> {
        self.leadership.borrow().may_act(&*self.clock)
    }

    /// Ends it in good order: what acts ends before the lease is handed over.
    pub(crate) async fn stop(self) {
        self.acting.cancel();
        while self.ended.0.load(Ordering::Relaxed) < 2 {
            self.ended.1.notified().await;
        }
        self.lasting.cancel();
    }
}

/// Starts a coordinator with an empty memory.
pub(crate) fn start(world: &Arc<World>, number: usize) -> Running {
    let owner = Owner::Coordinator(number);
    let life = world.next_life();
    let name = format!("c{number}");
    let ahead = world.character.ahead[number];
    let clock: SharedClock = Arc::new(Own {
        time: Arc::clone(&world.time),
        ahead,
        lost: (world.town.bug == Some(Bug::ClockStops)).then(|| world.asleep(number)),
    });
    let outside = Arc::new(Outside {
        door: world.door(&name, owner.clone(), world.character.coordinators),
        town: world.town.clone(),
        ledger: Arc::clone(&world.ledger),
        view: world.town.cluster.view(),
        synced: world.time.elapsed() + Duration::from_millis(world.stream().random_range(0..4_000)),
        lag: Mutex::default(),
        fleet_lag: Mutex::default(),
        ahead,
        read_journal: Mutex::default(),
    });
    let ids = Arc::new(Ids {
        prefix: format!("{number}-{life}"),
        next: AtomicU64::new(0),
    });
    let tell = Arc::new(Told {
        name: name.clone(),
        trace: Arc::clone(&world.trace),
    });
    let numbers = Arc::clone(&ids);
    let (lease, leadership) = Lease::new(
        name.parse().unwrap(),
        lease::Settings::default().check().unwrap(),
        outside.clone(),
        Arc::clone(&clock),
        tell.clone(),
        Arc::new(move || numbers.text("rvn", Timestamp::UNIX_EPOCH)),
    );
    let notices = NoticeBoard::new(outside.clone(), tell.clone(), Arc::clone(&clock));
    let sessions = Sessions::new(
        SessionSettings::default(),
        Arc::clone(&notices),
        outside.clone(),
        tell.clone(),
        Arc::clone(&clock),
    );
    let agents: Arc<dyn Agents> = sessions.clone();
    let health: Arc<dyn AgentHealth> = sessions.clone();
    let cadence = Cadence {
        interval: world.town.policy.scale_up.reading_interval,
        ..Cadence::default()
    };
    let (sources, view) = Sources::new(
        sources::Parts {
            cluster: outside.clone(),
            metrics: None,
            agents: health,
            fleet: outside.clone(),
            market: None,
            store: outside.clone(),
            leadership: leadership.clone(),
            tell: tell.clone(),
            gauges: Metrics::new("0"),
            clock: Arc::clone(&clock),
        },
        sources::Settings {
            cadence,
            judge_period: Duration::from_secs(30),
            ..sources::Settings::default()
        },
    );
    let (policy, force) = watch::channel(PolicyInForce {
        policy: Arc::clone(&world.town.policy),
        text: "".into(),
        warnings: Arc::default(),
    });
    let executor = Executor::new(act::Parts {
        mode: Mode::Act,
        settings: act::Settings {
            ready: Duration::from_secs(80),
            agent_silent: Duration::from_secs(30),
            orphan_grace: Duration::from_secs(120),
            ..act::Settings::default()
        },
        clock: Arc::clone(&clock),
        ids: ids.clone(),
        store: outside.clone(),
        tell: tell.clone(),
        fleet: outside.clone(),
        nodes: outside.clone(),
        agents,
        notices: Arc::clone(&notices),
        cluster: outside.clone(),
        leadership: leadership.clone(),
        policy: force.clone(),
    });
    let nudge = Arc::new(Notify::new());
    let (decider, latest) = Decider::new(decide::Parts {
        mode: Mode::Act,
        pace: Pace {
            period: Duration::from_secs(15),
            batch_idle: Duration::from_secs(4),
            batch_most: Duration::from_secs(10),
        },
        thinking: Thinking::Here,
        clock: Arc::clone(&clock),
        store: outside.clone(),
        view: view.clone(),
        cluster: Arc::new(Another(outside.clone(), world.town.cluster.view())),
        policy: force,
        leadership: leadership.clone(),
        notices: Arc::clone(&notices),
        executor: Arc::clone(&executor),
        tell: tell.clone(),
        log: None,
        nudge: Arc::clone(&nudge),
        ids,
    });
    let (looks, acts) = (view.clone(), Arc::clone(&executor));
    let listening = listen::Parts {
        queue: outside.clone(),
        board: notices,
        store: outside.clone(),
        leadership: leadership.clone(),
        wake: Box::new(move || {
            looks.refresh_fleet();
            acts.compare_books();
            nudge.notify_one();
        }),
        tell,
        counts: Metrics::new("0"),
        clock: Arc::clone(&clock),
    };
    let (acting, lasting) = (CancellationToken::new(), CancellationToken::new());
    let ended = Arc::new((AtomicU64::new(0), Notify::new()));
    let counted = |task: futures::Boxed| {
        let ended = Arc::clone(&ended);
        async move {
            task.await;
            ended.0.fetch_add(1, Ordering::Relaxed);
            ended.1.notify_one();
        }
    };
    let handle = &world.handle;
    handle.spawn(
        owner.clone(),
        counted(Box::pin(Arc::clone(&executor).run(acting.clone()))),
    );
    handle.spawn(owner.clone(), counted(Box::pin(decider.run(acting.clone()))));
    handle.spawn(owner.clone(), sources.run(lasting.clone()));
    handle.spawn(owner.clone(), listen::run(listening, lasting.clone()));
    let load = load_at_takeover(
        Arc::clone(&sessions),
        leadership.clone(),
        Arc::clone(&clock),
        policy,
    );
    handle.spawn(owner.clone(), load);
    let again = Arc::clone(world);
    let end = lasting.clone();
    handle.spawn(owner, async move {
        lease.run(end).await;
        // Its process ends; another one is started.
        again.gone(number);
    });
    Running {
        number,
        clock,
        leadership,
        sessions,
        executor,
        outside,
        latest,
        life,
        acting,
        lasting,
        ended,
    }
}

mod futures {
    //! What a task is before it is spawned.
    pub(super) type Boxed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// As `serve/upkeep` does it: what agents told a former leader is read at the beginning of a term.
async fn load_at_takeover(
    sessions: Arc<Sessions>,
    mut leadership: watch::Receiver<Leadership>,
    clock: SharedClock,
    _policy: watch::Sender<PolicyInForce>,
) {
    let mut loaded = None;
    loop {
        let term = leadership.borrow_and_update().may_act(&*clock);
        if term.is_some() && term != loaded {
            if sessions.load().await.is_ok() {
                loaded = term;
            } else {
                clock.sleep(Duration::from_secs(1)).await;
                continue;
            }
        }
        let _ = leadership.changed().await;
    }
}

/// The same cluster for another waiter.
struct Another(Arc<Outside>, smartscale_simulator::cluster::api::View);

#[async_trait]
impl smartscale_coordinator::observe::ClusterView for Another {
    fn latest(&self) -> smartscale_coordinator::observe::Observed<smartscale_manifests::Objects> {
        smartscale_coordinator::observe::ClusterView::latest(&*self.0)
    }

    async fn changed(&self) {
        self.1.changed().await;
    }
}

/// Ids that repeat with the seed.
struct Ids {
    prefix: String,
    next: AtomicU64,
}

impl Ids {
    /// The time in front, as in the program: ids sort by it.
    fn text(&self, kind: &str, now: Timestamp) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{kind}-{:012x}-{}-{number:04}", now.as_millisecond(), self.prefix)
    }
}

impl IdSource for Ids {
    fn decision(&self, now: Timestamp) -> DecisionId {
        self.text("d", now).parse().unwrap()
    }

    fn operation(&self, now: Timestamp) -> OperationId {
        self.text("op", now).parse().unwrap()
    }
}

/// Writes into the trace what a coordinator tells.
struct Told {
    name: String,
    trace: Arc<Trace>,
}

impl Tell for Told {
    fn tell(&self, happening: Happening) {
        match &happening.event {
            Event::Operation { operation, phase, .. } => {
                self.trace.note(format_args!(
                    "{} {operation} {phase}: {}",
                    self.name, happening.message
                ));
            }
            Event::LeaseAcquired { .. }
            | Event::LeaseLost { .. }
            | Event::Trouble { .. }
            | Event::Decided { .. } => {
                self.trace
                    .note(format_args!("{} {}", self.name, happening.message));
            }
            _ => {}
        }
    }
}

/// A coordinator's own clock: its wall clock may be wrong.
struct Own {
    time: Arc<Time>,
    ahead: SignedDuration,
    /// The time that it does not count, since it stands still while its machine is suspended.
    lost: Option<Arc<Mutex<Duration>>>,
}

#[async_trait]
impl Clock for Own {
    fn now(&self) -> Timestamp {
        self.time.now() + self.ahead
    }

    fn elapsed(&self) -> Duration {
        let lost = self.lost.as_ref().map(|lost| *lost.lock().unwrap());
        self.time.elapsed().saturating_sub(lost.unwrap_or_default())
    }

    async fn sleep(&self, duration: Duration) {
        self.time.sleep(duration).await;
    }
}
