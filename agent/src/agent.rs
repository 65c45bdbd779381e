//! An agent, put together from its parts and run until it is told to stop.
//!
//! The parts are the outside world; the loops in here are the agent. All of them run in one task: the machine is for others.

use std::{sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::SmallRng};
use smartscale_proto::{
    backoff::Backoff,
    time::{SharedClock, age},
    tls::{Credential, Rotating, client::Dialer},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    bind::{self, Binding},
    boot::{Boot, Progress},
    check::asked::{self, Checking},
    config::Config,
    drain::{self, Drainer, Engine, TermsKeeper},
    enrol::{Attestor, Enrolled, Enroller},
    health::{
        Vitals,
        observe::{Intervals, Observer, Sample},
    },
    k3s::{K3sFiles, server::JoinServer},
    kubelet::KubeletApi,
    machine::MachineIdentity,
    notices::{NoticeSource, watch::Watcher},
    outbox::Outbox,
    retire::{Retirement, Retirer, retirement},
    secrets::{Secrets, offer::Offers},
    session::Session,
    shutdown::{Farewell, Shutdowns},
    state::StateFolder,
    units::Units,
};

/// The world of an agent.
#[derive(Clone)]
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// Time.
    pub clock: SharedClock,
    /// The kernel's boot id: the same as long as the machine runs.
    pub boot_id: String,
    /// Where the agent remembers.
    pub folder: Arc<dyn StateFolder>,
    /// Which machine this is.
    pub machine: Arc<dyn MachineIdentity>,
    /// What is announced about it.
    pub notices: Arc<dyn NoticeSource>,
    /// The secrets of its join.
    pub secrets: Arc<dyn Secrets>,
    /// Its proof.
    pub attestor: Arc<dyn Attestor>,
    /// Its services.
    pub units: Arc<dyn Units>,
    /// Looks at the K3s server before it is joined.
    pub server: Arc<dyn JoinServer>,
    /// K3s' files.
    pub files: Arc<dyn K3sFiles>,
    /// The Kubernetes API with the kubelet's credential.
    pub kubelet: Arc<dyn KubeletApi>,
    /// Its vital signs.
    pub vitals: Arc<dyn Vitals>,
    /// What announces its end.
    pub shutdowns: Arc<dyn Shutdowns>,
}

/// A loop ended that never should: the process has to end, so that systemd starts it anew.
#[derive(Debug, thiserror::Error)]
#[error("the agent's {0} ended unexpectedly")]
pub struct Ended(&'static str);

/// An agent that is ready to run.
pub struct Agent {
    boot: Boot,
    enroller: Arc<Enroller>,
    engine: Engine,
    retirement: Retirement,
    binding: Binding,
    checking: Checking,
    session: Session,
    observer: Observer,
    watcher: Watcher,
    farewell: Farewell,
    clock: SharedClock,
    drainer: Drainer,
    retirer: Retirer,
    enrolled: watch::Sender<Option<Enrolled>>,
    channel: watch::Receiver<Option<Channel>>,
    renew: watch::Receiver<Option<Duration>>,
    step: watch::Receiver<Option<Progress>>,
}

impl Agent {
    /// Puts an agent together. Nothing happens yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let answers = watch::Sender::new(None);
        let (checker, checking) = asked::checking(parts.clone(), answers.clone());
        let Parts {
            config,
            clock,
            boot_id,
            folder,
            ..
        } = parts;
        let config = Arc::new(config);
        let outbox = Outbox::new(Arc::clone(&folder), Arc::clone(&clock));
        let material = Rotating::new(Credential {
            chain: Vec::new(),
            key: None,
            anchors: config.anchors.clone(),
        });
        let dialer = Dialer::new(material, config.expected.clone());

        let enrolled = watch::Sender::new(None);
        let node = watch::Sender::new(None);
        let latest = watch::Sender::new(None);
        let channel = watch::Sender::new(None);
        let step = watch::Sender::new(None);
        let skew = watch::Sender::new(None);
        let renew = watch::Sender::new(None);
        let intervals = watch::Sender::new(Intervals {
            changing: config.health.changing,
            quiet: config.health.quiet,
        });

        let offers = Offers::default();
        let terms = TermsKeeper::new(Arc::clone(&folder), config.drain.terms);
        let (drainer, engine) = drain::engine(drain::Tools {
            api: Arc::clone(&parts.kubelet),
            folder: Arc::clone(&folder),
            clock: Arc::clone(&clock),
            outbox: outbox.clone(),
            boot_id: boot_id.clone(),
            settings: config.drain.settings,
        });
        let (retirer, retirement) = retirement(
            Arc::clone(&folder),
            Arc::clone(&parts.units),
            outbox.clone(),
            Arc::clone(&clock),
            config.k3s.unit.clone(),
        );
        let (binder, binding) = bind::binding(Arc::clone(&parts.kubelet), outbox.clone(), Arc::clone(&clock));
        let enroller = Arc::new(Enroller {
            dialer: dialer.clone(),
            attestor: parts.attestor,
            folder: Arc::clone(&folder),
            clock: Arc::clone(&clock),
            configured: config.anchors.clone(),
            endpoints: config.coordinators.clone(),
            boot_id: boot_id.clone(),
            offers: offers.clone(),
        });
        let watcher = Watcher {
            source: parts.notices,
            outbox: outbox.clone(),
            drainer: drainer.clone(),
            folder: Arc::clone(&folder),
            clock: Arc::clone(&clock),
            interval: config.notice_interval,
            terms: terms.clone(),
            retirer: retirer.clone(),
            node: node.subscribe(),
        };
        let farewell = Farewell {
            source: parts.shutdowns,
            drainer: drainer.clone(),
            terms: terms.clone(),
            force_grace: config.drain.settings.force_grace,
            folder: Arc::clone(&folder),
            clock: Arc::clone(&clock),
            boot_id: boot_id.clone(),
            node: node.subscribe(),
        };
        let observer = Observer {
            vitals: parts.vitals,
            units: Arc::clone(&parts.units),
            kubelet: Arc::clone(&parts.kubelet),
            clock: Arc::clone(&clock),
            unit: config.k3s.unit.clone(),
            settings: config.health,
            intervals: intervals.subscribe(),
            skew: skew.subscribe(),
            node: node.subscribe(),
            latest: latest.clone(),
        };
        let session = Session {
            dialer,
            clock: Arc::clone(&clock),
            endpoints: config.coordinators.clone(),
            enrolled: enrolled.subscribe(),
            outbox: outbox.clone(),
            health: latest.subscribe(),
            intervals,
            skew,
            channel: channel.clone(),
            drainer: drainer.clone(),
            terms,
            retirer: retirer.clone(),
            binder,
            checker,
            answers: answers.subscribe(),
            renew: renew.clone(),
            boot_id: boot_id.clone(),
            offers: offers.clone(),
            takes_offers: config.secrets.from_coordinator,
        };
        let boot = Boot {
            config,
            clock: Arc::clone(&clock),
            machine: parts.machine,
            secrets: parts.secrets,
            offers,
            server: parts.server,
            enroller: Arc::clone(&enroller),
            files: parts.files,
            units: parts.units,
            kubelet: parts.kubelet,
            folder,
            outbox,
            boot_id,
            enrolled: enrolled.clone(),
            node,
            step: step.clone(),
        };
        Self {
            boot,
            enroller,
            engine,
            retirement,
            binding,
            checking,
            session,
            observer,
            watcher,
            farewell,
            clock,
            drainer,
            retirer,
            enrolled,
            channel: channel.subscribe(),
            renew: renew.subscribe(),
            step: step.subscribe(),
        }
    }

    /// Gives orders to this agent's drain from the machine itself.
    #[must_use]
    pub fn drainer(&self) -> Drainer {
        self.drainer.clone()
    }

    /// Gives orders about this agent's kubelet from the machine itself.
    #[must_use]
    pub fn retirer(&self) -> Retirer {
        self.retirer.clone()
    }

    /// The latest health.
    #[must_use]
    pub fn health(&self) -> watch::Receiver<Sample> {
        self.observer.latest.subscribe()
    }

    /// The node's name, once it is known.
    #[must_use]
    pub fn node(&self) -> watch::Receiver<Option<String>> {
        self.boot.node.subscribe()
    }

    /// The boot step under way; `None` before the first and once the node is Ready.
    #[must_use]
    pub fn progress(&self) -> watch::Receiver<Option<Progress>> {
        self.step.clone()
    }

    /// Runs until `shutdown`. A drain under way is left as it is and goes on with the next run; none is begun.
    ///
    /// # Errors
    /// [`Ended`] when a loop ends that never should.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Ended> {
        let Self {
            boot,
            enroller,
            engine,
            retirement,
            binding,
            checking,
            session,
            observer,
            watcher,
            farewell,
            clock,
            drainer,
            retirer,
            enrolled,
            channel,
            renew: asked,
            ..
        } = self;
        let boot = async {
            boot.run().await;
            std::future::pending::<()>().await;
        };
        // Engine and retirement end with their last handles, which live as long as this.
        let _handles = (drainer, retirer);
        tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            () = Box::pin(engine.run()) => Err(Ended("drain")),
            () = Box::pin(retirement.run()) => Err(Ended("retirement")),
            () = Box::pin(binding.run()) => Err(Ended("binding")),
            () = Box::pin(checking.run()) => Err(Ended("checking")),
            () = Box::pin(watcher.run()) => Err(Ended("watch for notices")),
            () = Box::pin(farewell.run()) => Err(Ended("watch for shutdowns")),
            () = Box::pin(session.run()) => Err(Ended("session")),
            () = Box::pin(observer.run()) => Err(Ended("observation of health")),
            () = Box::pin(renew(enroller, clock, enrolled, channel, asked)) => Err(Ended("renewal")),
            () = Box::pin(boot) => Err(Ended("boot")),
        }
    }
}

/// Renews the certificate at half of its life, or when the coordinator asks for it, over the session's channel, whose streams go on.
async fn renew(
    enroller: Arc<Enroller>,
    clock: SharedClock,
    enrolled: watch::Sender<Option<Enrolled>>,
    mut channel: watch::Receiver<Option<Channel>>,
    mut asked: watch::Receiver<Option<Duration>>,
) {
    let mut present = enrolled.subscribe();
    let mut random = SmallRng::seed_from_u64(rand::random());
    let mut failures = 0;
    let mut due = false;
    loop {
        let Ok(current) = present
            .wait_for(Option::is_some)
            .await
            .map(|current| current.clone())
        else {
            return;
        };
        let Some(current) = current else { continue };
        if !due {
            let within = tokio::select! {
                () = clock.sleep(current.until_renewal(clock.now())) => Duration::ZERO,
                Ok(()) = asked.changed() => asked.borrow_and_update().unwrap_or_default(),
            };
            // A fleet that is asked at once does not come at once.
            clock.sleep(within.mul_f64(rand::random())).await;
        }
        let left = age(clock.now(), current.not_after);
        let open = tokio::select! {
            biased;
            open = channel.wait_for(Option::is_some) => match open {
                Ok(open) => open.clone(),
                Err(_) => return,
            },
            () = clock.sleep(left) => None,
        };
        let renewal = match open {
            Some(open) => enroller.renew(open, &current).await,
            // It has ended while no coordinator was in reach.
            None => enroller.enrol_again(&current.machine).await,
        };
        due = renewal.is_err();
        match renewal {
            Ok(renewed) => {
                tracing::info!(not_after = %renewed.not_after, "the certificate was renewed");
                let due_again = renewed.until_renewal(clock.now()).is_zero();
                enrolled.send_replace(Some(renewed));
                if due_again {
                    failures += 1;
                    tracing::warn!(
                        "the new certificate is old already: this machine's clock is ahead of the coordinator's"
                    );
                    clock.sleep(Backoff::DEFAULT.delay(failures, &mut random)).await;
                } else {
                    failures = 0;
                }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, failures, "the certificate could not be renewed, trying again");
                clock.sleep(Backoff::DEFAULT.delay(failures, &mut random)).await;
            }
        }
    }
}
