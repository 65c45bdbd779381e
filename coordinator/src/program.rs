//! The composition root: builds every part of a coordinator and runs them, visibly, in one place.
//!
//! `main` and the simulator call the same [`run`]; they differ in what they pass as [`Outside`].

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    act::{
        self, Executor,
        agents::Agents,
        fleet::Fleet,
        nodes::Nodes,
        pace::Paced,
        steering::{self, Steering},
    },
    check::Checks,
    config::Mode,
    decide::{self, Decider, Pace, PolicyInForce},
    error::chain,
    ids::{CoordinatorName, SharedIds},
    observe::{
        ClusterView, MetricsSource,
        agents::AgentHealth,
        export,
        market::{self, Keeper, MarketSource},
        notices::{
            board::NoticeBoard,
            listen::{self, NoticeQueue},
        },
        sources::{self, Sources},
    },
    serve::{
        self,
        admin::{self, Orders, SourceView},
        attest::Attestor,
        authority::Authority,
        join_tokens::Joining,
        sessions::{SessionSettings, Sessions},
    },
    state::{
        SharedStore,
        lease::{self, Leadership, Lease, RvnSource},
    },
    tell::{
        DecisionLog, SharedTell, gauges, http,
        hub::{Courier, Hub},
    },
};
use smartscale_proto::time::{SharedClock, within};

/// The first decision waits so long for the market's first answers.
const FIRST_PRICES: Duration = Duration::from_secs(10);

/// How a coordinator runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name.
    pub name: CoordinatorName,
    /// Whether it acts.
    pub mode: Mode,
    /// `host:port` where it is reached.
    pub advertise: String,
    /// The others.
    pub peers: BTreeMap<CoordinatorName, String>,
    /// Decisions.
    pub pace: Pace,
    /// The lease.
    pub lease: lease::Settings,
    /// Operations.
    pub act: act::Settings,
    /// Sources.
    pub sources: sources::Settings,
    /// Agents' sessions.
    pub sessions: SessionSettings,
    /// Open streams have so long to end.
    pub shutdown: Duration,
}

/// A task of an adapter (a watch, for example) that lives as long as the program.
pub type OutsideTask = (
    &'static str,
    Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
);

/// The systems outside, behind their traits.
pub struct Outside {
    /// Machines.
    pub fleet: Arc<dyn Fleet>,
    /// Kubernetes nodes.
    pub nodes: Arc<dyn Nodes>,
    /// The cluster's objects.
    pub cluster: Arc<dyn ClusterView>,
    /// Utilisation; `None`: the agents alone.
    pub metrics: Option<Arc<dyn MetricsSource>>,
    /// The queue of EC2's notices; `None`: they come from the agents alone.
    pub queue: Option<Arc<dyn NoticeQueue>>,
    /// Types and prices; `None`: those of the policy and the built-in catalogue.
    pub market: Option<(Arc<dyn MarketSource>, market::Settings)>,
    /// Where decisions are kept beside the store; `None`: nowhere.
    pub log: Option<Arc<dyn DecisionLog>>,
    /// What machines join the cluster with; `None`: they find that elsewhere.
    pub joining: Option<Joining>,
    /// Tries all of them when a person asks.
    pub checks: Checks,
    /// Tasks of the adapters.
    pub tasks: Vec<OutsideTask>,
}

/// Everything a coordinator is made of.
pub struct Program {
    /// How it runs.
    pub settings: Settings,
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// Judges the proofs of new machines.
    pub attestor: Arc<dyn Attestor>,
    /// The policy; a new value takes effect at once.
    pub policy: watch::Receiver<PolicyInForce>,
    /// The clock.
    pub clock: SharedClock,
    /// Ids of decisions and operations.
    pub ids: SharedIds,
    /// Random texts of the lease.
    pub rvn: RvnSource,
    /// State.
    pub store: SharedStore,
    /// Who is told: made before the adapters, since they tell as well.
    pub hub: Arc<Hub>,
    /// Those who carry to the hub's sinks.
    pub couriers: Vec<Courier>,
    /// The systems outside.
    pub outside: Outside,
    /// Where agents and people are served.
    pub listener: TcpListener,
    /// Where metrics and probes are served.
    pub http: Option<TcpListener>,
}

/// A coordinator that ended although nobody told it to.
#[derive(Debug, thiserror::Error)]
#[error("{task} ended unexpectedly: {reason}")]
pub struct Ended {
    task: &'static str,
    reason: String,
}

type Task = (&'static str, Result<(), String>);

/// Runs a coordinator until `shutdown`. Then the loops that act end first, the door closes under its deadline, and
/// the lease is handed over last. Dropping the future is a crash.
///
/// # Errors
/// [`Ended`] names the task that ended by itself; all others are ended with it.
pub async fn run(program: Program, shutdown: CancellationToken) -> Result<(), Ended> {
    let Program {
        settings,
        authority,
        attestor,
        policy,
        clock,
        ids,
        rvn,
        store,
        hub,
        couriers,
        outside,
        listener,
        http,
    } = program;
    let metrics = hub.metrics().clone();
    let keeping = Arc::clone(&clock);
    let tell: SharedTell = hub.clone();
    let (lease, leadership) = Lease::new(
        settings.name.clone(),
        settings.lease,
        Arc::clone(&store),
        Arc::clone(&clock),
        Arc::clone(&tell),
        rvn,
    );
    let notices = NoticeBoard::new(Arc::clone(&store), Arc::clone(&tell), Arc::clone(&clock));
    let sessions = Sessions::new(
        settings.sessions,
        Arc::clone(&notices),
        Arc::clone(&store),
        Arc::clone(&tell),
        Arc::clone(&clock),
    );
    sessions.follow(policy.clone());
    let agents: Arc<dyn Agents> = sessions.clone();
    let health: Arc<dyn AgentHealth> = sessions.clone();
    let market = outside
        .market
        .map(|(source, settings)| Keeper::new(source, policy.clone(), settings, Arc::clone(&clock)));
    let (keeper, kept) = market.unzip();
    let (policy, market, priced) = match kept {
        Some(kept) => (kept.policy, Some(kept.view), Some(kept.first)),
        None => (policy, None, None),
    };
    let fleet: Arc<dyn Fleet> = Arc::new(Paced::new(outside.fleet, Arc::clone(&clock)));
    let (sources, view) = Sources::new(
        sources::Parts {
            cluster: Arc::clone(&outside.cluster),
            metrics: outside.metrics,
            agents: health,
            fleet: Arc::clone(&fleet),
            market,
            store: Arc::clone(&store),
            leadership: leadership.clone(),
            tell: Arc::clone(&tell),
            gauges: metrics.clone(),
            clock: Arc::clone(&clock),
        },
        settings.sources,
    );
    let executor = Executor::new(act::Parts {
        mode: settings.mode,
        settings: settings.act,
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
        store: Arc::clone(&store),
        tell: Arc::clone(&tell),
        fleet,
        nodes: Arc::clone(&outside.nodes),
        agents,
        notices: Arc::clone(&notices),
        cluster: Arc::clone(&outside.cluster),
        leadership: leadership.clone(),
        policy: policy.clone(),
    });
    let orders: Arc<dyn Orders> = executor.clone();
    let nudge = Arc::new(Notify::new());
    let (decider, latest) = Decider::new(decide::Parts {
        mode: settings.mode,
        pace: settings.pace,
        thinking: decide::Thinking::Aside,
        clock: Arc::clone(&clock),
        store: Arc::clone(&store),
        view: view.clone(),
        cluster: Arc::clone(&outside.cluster),
        policy,
        leadership: leadership.clone(),
        notices: Arc::clone(&notices),
        executor: Arc::clone(&executor),
        tell: Arc::clone(&tell),
        log: outside.log,
        nudge: Arc::clone(&nudge),
        ids,
    });
    let steering = Steering::new(steering::Parts {
        mode: settings.mode,
        clock: Arc::clone(&clock),
        nodes: Arc::clone(&outside.nodes),
        cluster: Arc::clone(&outside.cluster),
        latest: latest.clone(),
        leadership: leadership.clone(),
        tell: Arc::clone(&tell),
    });
    let listening = outside.queue.map(|queue| listen::Parts {
        queue,
        board: notices,
        store: Arc::clone(&store),
        leadership: leadership.clone(),
        wake: wake(&view, &executor, &nudge),
        tell: Arc::clone(&tell),
        counts: metrics.clone(),
        clock: Arc::clone(&clock),
    });
    let mut door = serve::Settings::new(settings.name.clone(), settings.advertise);
    door.peers = settings.peers;
    door.shutdown = settings.shutdown;
    let objects = Arc::clone(&outside.cluster);
    let serving = serve::serve(
        serve::Parts {
            settings: door,
            authority,
            attestor,
            store,
            clock,
            tell,
            leadership: leadership.clone(),
            sessions,
            joining: outside.joining,
            checks: outside.checks,
            admin: admin::Parts {
                mode: settings.mode.as_str().to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                latest: latest.clone(),
                orders,
                nodes: outside.nodes,
                sources: Arc::new(move |now| view.states(now).into_iter().map(source_view).collect()),
                objects_json: Arc::new(move |()| {
                    let objects = objects
                        .latest()
                        .value
                        .ok_or("the cluster has not been seen yet")?;
                    export::objects_json(&objects).map_err(|error| error.to_string())
                }),
                happenings: Arc::new(move |()| hub.subscribe()),
                nudge,
            },
        },
        listener,
        shutdown.clone(),
    );

    let acting = shutdown.child_token();
    let lasting = CancellationToken::new();
    let mut tasks: JoinSet<Task> = JoinSet::new();
    let mut rest: JoinSet<Task> = JoinSet::new();
    let deciding = acting.clone();
    let waiting = Arc::clone(&keeping);
    spawn(&mut tasks, "decisions", async move {
        if let Some(priced) = priced {
            // A first decision by assumed prices would be corrected by a second, at the cost of a node or two.
            tokio::select! {
                biased;
                () = deciding.cancelled() => {}
                _ = within(&*waiting, FIRST_PRICES, priced) => {}
            }
        }
        decider.run(deciding).await;
    });
    spawn(&mut tasks, "operations", executor.run(acting.clone()));
    spawn(&mut tasks, "steering", steering.run(acting.clone()));
    tasks.spawn(async move { ("the door", serving.await.map_err(|error| chain(&error))) });
    spawn(&mut rest, "sources", sources.run(lasting.clone()));
    if let Some(parts) = listening {
        spawn(
            &mut rest,
            "the queue of notices",
            listen::run(parts, lasting.clone()),
        );
    }
    if let Some(keeper) = keeper {
        spawn(&mut rest, "the market", keeper.run(lasting.clone()));
    }
    for courier in couriers {
        spawn(&mut rest, courier.name(), courier.run(lasting.clone()));
    }
    for (name, task) in outside.tasks {
        spawn(&mut rest, name, task(lasting.clone()));
    }
    let showing = gauges::keep(
        metrics.clone(),
        latest.clone(),
        leadership.clone(),
        keeping,
        lasting.clone(),
    );
    spawn(&mut rest, "gauges", showing);
    if let Some(listener) = http {
        let router = http::router(metrics, move || ready(&latest, &leadership));
        let stop = lasting.clone();
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        rest.spawn(async move { ("metrics", serving.await.map_err(|error| error.to_string())) });
    }
    // The lease is contended for last and handed over last, when nothing acts any more.
    let handover = CancellationToken::new();
    let mut leasing: JoinSet<Task> = JoinSet::new();
    spawn(&mut leasing, "the lease", lease.run(handover.clone()));

    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        ended = tasks.join_next() => ended,
        ended = rest.join_next() => ended,
        ended = leasing.join_next() => ended,
    };
    shutdown.cancel();
    while tasks.join_next().await.is_some() {}
    handover.cancel();
    while leasing.join_next().await.is_some() {}
    lasting.cancel();
    while rest.join_next().await.is_some() {}
    match ended {
        None => Ok(()),
        Some(Ok((task, outcome))) => Err(Ended {
            task,
            reason: outcome.err().unwrap_or_else(|| "without an error".to_owned()),
        }),
        Some(Err(error)) => Err(Ended {
            task: "a task",
            reason: error.to_string(),
        }),
    }
}

fn spawn(tasks: &mut JoinSet<Task>, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
    tasks.spawn(async move {
        task.await;
        (name, Ok(()))
    });
}

/// Has a notice acted on, and the machines looked at, at once.
fn wake(view: &sources::View, executor: &Arc<Executor>, nudge: &Arc<Notify>) -> Box<dyn Fn() + Send + Sync> {
    let (view, executor, nudge) = (view.clone(), Arc::clone(executor), Arc::clone(nudge));
    Box::new(move || {
        view.refresh_fleet();
        executor.compare_books();
        nudge.notify_one();
    })
}

/// Whether the coordinator can do its work, as a leader or as a standby.
fn ready(
    latest: &watch::Receiver<Option<Arc<serve::view::Latest>>>,
    leadership: &watch::Receiver<Leadership>,
) -> Result<(), String> {
    if latest.borrow().is_none() {
        return Err("no decision has been made yet".to_owned());
    }
    match &*leadership.borrow() {
        Leadership::Follower { leader: None } => Err("no leader is known".to_owned()),
        _ => Ok(()),
    }
}

fn source_view(state: sources::SourceState) -> SourceView {
    SourceView {
        source: state.source.to_owned(),
        age: state.age,
        fresh: state.fresh,
        error: state.error,
    }
}
