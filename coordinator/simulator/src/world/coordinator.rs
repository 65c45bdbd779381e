//! A coordinator of the world: the program as it is, on a thread and a runtime of its own.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use smartscale_coordinator::{
    act,
    check::Checks,
    config::{LeaseTimes, Mode, Timing},
    decide::{Pace, PolicyInForce},
    ids::{CoordinatorName, DecisionId, IdSource, OperationId},
    observe::{history::Cadence, sources},
    program::{self, Outside, Program},
    serve::{
        attest::TokenAttestor,
        authority::{Authority, Names, vault::NoVault},
        sessions::SessionSettings,
    },
    state::{SharedStore, lease},
    tell::{Event, Happening, Hub, Metrics, Notifier, NotifyError, Severity, Sink},
};
use smartscale_planner::Policy;
use smartscale_proto::time::SharedClock;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::ScaledClock,
    cloud::Cloud,
    cluster::Cluster,
    load::Load,
    log::{Log, Source},
    seed::Seed,
};

/// What a coordinator is made from.
pub(super) struct Parts {
    pub(super) name: CoordinatorName,
    pub(super) advertise: String,
    pub(super) peers: BTreeMap<CoordinatorName, String>,
    pub(super) listener: TcpListener,
    pub(super) folder: PathBuf,
    pub(super) names: Names,
    pub(super) seed: Seed,
    pub(super) clock: Arc<ScaledClock>,
    pub(super) log: Log,
    pub(super) cluster: Cluster,
    pub(super) cloud: Cloud,
    pub(super) load: Load,
    pub(super) store: SharedStore,
    pub(super) policy: Arc<Policy>,
    pub(super) policy_text: Arc<str>,
}

/// A coordinator that runs.
pub(super) struct Running {
    shutdown: CancellationToken,
    killed: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

impl Running {
    pub(super) fn start(parts: Parts) -> anyhow::Result<Self> {
        let shutdown = CancellationToken::new();
        let (killed, kill) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for a coordinator")?;
        let (name, log, token) = (parts.name.clone(), parts.log.clone(), shutdown.clone());
        let thread = std::thread::Builder::new()
            .name(name.to_string())
            .spawn(move || {
                let outcome = runtime.block_on(async {
                    let program = program(parts).await?;
                    tokio::select! {
                        biased;
                        _ = kill => Ok(()),
                        outcome = program::run(program, token) => outcome.context("the coordinator"),
                    }
                });
                // Whatever it has spawned ends here, connections included; a write under way may still reach the disk.
                runtime.shutdown_background();
                if let Err(error) = outcome {
                    log.write(Source::Coordinator, "failed", name.as_str(), format!("{error:#}"));
                }
                let _ = end.send(());
            })?;
        Ok(Self {
            shutdown,
            killed,
            thread,
            ended,
        })
    }

    /// Ends it at this instant.
    pub(super) fn kill(self) {
        let _ = self.killed.send(());
        let _ = self.thread.join();
    }

    /// Ends it in good order.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.ended.await;
        drop(self.killed);
    }
}

async fn program(parts: Parts) -> anyhow::Result<Program> {
    let Parts {
        name,
        advertise,
        peers,
        listener,
        folder,
        names,
        seed,
        clock,
        log,
        cluster,
        cloud,
        load,
        store,
        ..
    } = parts;
    let clock: SharedClock = clock;
    let (certificates, key) = (folder.join("ca.crt"), folder.join("ca.key"));
    let authority = Authority::load(names, &certificates, &key, &NoVault).await?;
    let LeaseTimes {
        length,
        renewal,
        margin,
    } = LeaseTimes::default();
    let timing = Timing::default();
    let cadence = Cadence {
        interval: parts.policy.scale_up.reading_interval,
        ..Cadence::default()
    };
    let (policy, force) = watch::channel(PolicyInForce {
        policy: parts.policy,
        text: parts.policy_text,
        warnings: Arc::default(),
    });
    let keep: program::OutsideTask = (
        "policy",
        Box::new(move |stop: CancellationToken| {
            Box::pin(async move {
                let _policy = policy;
                stop.cancelled().await;
            })
        }),
    );
    let ids = Arc::new(Ids {
        seed,
        name: name.clone(),
        next: AtomicU64::new(0),
    });
    let rvn = Arc::clone(&ids);
    let narrator = Narrator {
        name: name.clone(),
        log,
    };
    let sink = Sink {
        dedupe: None,
        ..Sink::for_people(Arc::new(narrator), Severity::Detail)
    };
    let (hub, couriers) = Hub::new(Metrics::new(env!("CARGO_PKG_VERSION")), &clock, vec![sink]);
    // Everything here is on this machine: nothing has to be reached.
    let checks = Checks::new(name.clone(), Arc::clone(&clock), Vec::new());
    Ok(Program {
        settings: program::Settings {
            name,
            mode: Mode::Act,
            advertise,
            peers,
            pace: Pace {
                period: timing.period,
                batch_idle: timing.batch_idle,
                batch_most: timing.batch_most,
            },
            lease: lease::Settings {
                lease: length,
                renew: renewal,
                margin,
                ..lease::Settings::default()
            }
            .check()?,
            act: act::Settings::default(),
            sources: sources::Settings {
                cadence,
                ..sources::Settings::default()
            },
            // A second of the agents' is milliseconds here: an agent that has not spoken for a while was not let to.
            sessions: SessionSettings {
                silence: Duration::from_secs(180),
                messages_per_second: 10_000,
                ..SessionSettings::default()
            },
            shutdown: Duration::from_secs(5),
        },
        authority: Arc::new(authority),
        attestor: Arc::new(TokenAttestor::new(Arc::clone(&clock))),
        policy: force,
        clock,
        ids,
        rvn: Arc::new(move || rvn.text("rvn", 0)),
        store,
        hub,
        couriers,
        outside: Outside {
            fleet: Arc::new(cloud),
            nodes: Arc::new(cluster.clone()),
            cluster: Arc::new(cluster.view()),
            metrics: Some(Arc::new(load)),
            queue: None,
            market: None,
            log: None,
            joining: None,
            checks,
            tasks: vec![keep],
        },
        listener: tokio::net::TcpListener::from_std(listener)?,
        http: None,
    })
}

/// Ids that repeat with the seed, apart from the time in front.
struct Ids {
    seed: Seed,
    name: CoordinatorName,
    next: AtomicU64,
}

impl Ids {
    fn text(&self, prefix: &str, milliseconds: i64) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let chance = self.seed.number(&format!("{prefix}/{}/{number}", self.name)) >> 16;
        format!("{prefix}-{milliseconds:012x}-{chance:012x}")
    }

    fn id<T: std::str::FromStr>(&self, prefix: &str, now: Timestamp) -> T {
        let text = self.text(prefix, now.as_millisecond().max(0));
        text.parse()
            .unwrap_or_else(|_| unreachable!("letters, digits and dashes are an id"))
    }
}

impl IdSource for Ids {
    fn decision(&self, now: Timestamp) -> DecisionId {
        self.id("d", now)
    }

    fn operation(&self, now: Timestamp) -> OperationId {
        self.id("op", now)
    }
}

/// Writes what a coordinator tells into the world's log.
struct Narrator {
    name: CoordinatorName,
    log: Log,
}

#[async_trait]
impl Notifier for Narrator {
    fn name(&self) -> &'static str {
        "narrator"
    }

    async fn notify(&self, happening: &Happening) -> Result<(), NotifyError> {
        let kind = match &happening.event {
            Event::LeaseAcquired { .. } => "lease_acquired",
            Event::LeaseLost { .. } => "lease_lost",
            Event::Decided { action, .. } if action == "none" => "decided_nothing",
            Event::Decided { .. } => "decided",
            Event::Operation { .. } => "operation",
            Event::Joined { .. } => "joined",
            Event::Noticed { .. } => "noticed",
            Event::Drain { .. } => "drain",
            Event::Source { .. } => "source",
            Event::Agent { .. } => "agent",
            Event::BootStep { .. } => "boot_step",
            Event::Admin { .. } => "admin",
            Event::Brake { .. } => "brake",
            Event::Policy { .. } => "policy",
            Event::Trouble { .. } => "trouble",
        };
        let mut details = serde_json::to_value(&happening.event).unwrap_or_default();
        if let Some(details) = details.as_object_mut() {
            details.insert("severity".to_owned(), json!(happening.severity));
        }
        self.log.write_with(
            Source::Coordinator,
            kind,
            self.name.as_str(),
            happening.message.clone(),
            details,
        );
        Ok(())
    }
}
