//! From power-on to Ready, in five steps, each tried for ever and reported with its time.
//!
//! ```text
//!   identity ─▶ secrets ─┬─▶ kubelet ─▶ ready
//!            └▶ enrolment ┘
//! ```
//! Enrolment waits for the first attempt at the secrets and not for its success: once enrolled, the agent can say which
//! secret is missing. A certificate that is still good is used at once, so that a restarted agent is in session within a second.

mod step;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::SignedDuration;
use smartscale_proto::{time::SharedClock, v1::BootStep};
use tokio::sync::{Notify, watch};

pub use step::Progress;

use crate::{
    config::Config,
    enrol::{Enrolled, Enroller},
    error::{Failure, Known},
    k3s::{DropIn, K3sFiles, server::JoinServer, words},
    kubelet::KubeletApi,
    machine::{Machine, MachineIdentity},
    outbox::Outbox,
    retire::retired_by,
    secrets::{
        Secrets,
        join::{BadJoin, JoinToken, server_url},
        offer::Offers,
    },
    state::StateFolder,
    units::Units,
};

/// What K3s needs to join.
struct Join {
    token: JoinToken,
    server: String,
    /// This machine's clock less the server's, where that is much.
    skewed: Option<SignedDuration>,
}

/// Clocks that differ by less are no reason why a join fails. Kubernetes' and K3s' certificates begin when they are made.
const SKEW: SignedDuration = SignedDuration::from_secs(30);
/// A join has so much time before the journal is asked why it takes so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Brings the node up.
pub struct Boot {
    /// The configuration.
    pub config: Arc<Config>,
    /// The clock.
    pub clock: SharedClock,
    /// Knows the machine.
    pub machine: Arc<dyn MachineIdentity>,
    /// Knows the secrets.
    pub secrets: Arc<dyn Secrets>,
    /// What a coordinator gives in their place.
    pub offers: Offers,
    /// Looks at the K3s server.
    pub server: Arc<dyn JoinServer>,
    /// Makes the agent's certificate.
    pub enroller: Arc<Enroller>,
    /// Writes K3s' files.
    pub files: Arc<dyn K3sFiles>,
    /// Starts K3s.
    pub units: Arc<dyn Units>,
    /// Sees the node.
    pub kubelet: Arc<dyn KubeletApi>,
    /// Where the state is kept.
    pub folder: Arc<dyn StateFolder>,
    /// Where progress is told.
    pub outbox: Outbox,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The enrolment, once there is one.
    pub enrolled: watch::Sender<Option<Enrolled>>,
    /// The node's name, once it is known.
    pub node: watch::Sender<Option<String>>,
    /// The step that is under way; `None` once the node is Ready.
    pub step: watch::Sender<Option<Progress>>,
}

impl Boot {
    /// Brings the node up; returns when it is Ready.
    pub async fn run(&self) {
        let stored = self.enroller.stored();
        // Within one boot the machine stays the same, so that nobody needs to be asked before the session begins.
        if let Some(enrolled) = stored.clone().filter(|enrolled| enrolled.boot_id == self.boot_id) {
            self.publish(enrolled);
        }
        let machine = self.attempt(BootStep::Identity, || self.machine.identity()).await;
        if self.node.borrow().is_none() {
            self.node.send_replace(Some(machine.id.to_string()));
        }
        let first_attempt = Notify::new();
        let secrets = async {
            let attempt = || async {
                // What the coordinator gives comes with the enrolment.
                if self.config.secrets.from_coordinator {
                    first_attempt.notify_one();
                }
                let join = self.join(&machine).await;
                first_attempt.notify_one();
                join
            };
            self.attempt(BootStep::Secrets, attempt).await
        };
        let enrolment = async {
            first_attempt.notified().await;
            // A disk that was copied from another machine brings a certificate that is not ours.
            let stored = Mutex::new(stored.filter(|enrolled| enrolled.machine.id == machine.id));
            let attempt = || {
                let stored = stored.lock().ok().and_then(|mut stored| stored.take());
                let machine = &machine;
                async move {
                    match stored {
                        Some(enrolled) => Ok(enrolled),
                        None => self.enroller.enrol(machine).await,
                    }
                }
            };
            let enrolled = self.attempt(BootStep::Enrolment, attempt).await;
            if self
                .enrolled
                .borrow()
                .as_ref()
                .is_none_or(|present| present.node != enrolled.node)
            {
                self.publish(enrolled.clone());
            }
            enrolled
        };
        let (join, enrolled) = tokio::join!(secrets, enrolment);
        self.attempt(BootStep::Kubelet, || {
            self.start_kubelet(&machine, &enrolled, &join)
        })
        .await;
        let skewed = join.skewed;
        drop(join);
        let began = self.clock.elapsed();
        self.attempt(BootStep::Ready, || async {
            let seen = self.ready(&enrolled.node).await;
            match seen {
                Err(failure) if self.clock.elapsed().saturating_sub(began) >= PATIENCE => {
                    Err(self.explained(failure, skewed).await)
                }
                seen => seen,
            }
        })
        .await;
        self.step.send_replace(None);
    }

    fn publish(&self, enrolled: Enrolled) {
        self.node.send_replace(Some(enrolled.node.clone()));
        self.enrolled.send_replace(Some(enrolled));
    }

    async fn join(&self, machine: &Machine) -> Result<Join, Failure> {
        let names = &self.config.secrets;
        let (token, server, named) = if names.from_coordinator {
            let offer = self.offers.newest(&self.clock).await?;
            let named = (
                "the coordinator's join token".to_owned(),
                "the coordinator's join server".to_owned(),
            );
            (offer.token, offer.server, named)
        } else {
            let token = self.secrets.secret(&names.join_token, &machine.zone).await?;
            let server = self.secrets.secret(&names.server, &machine.zone).await?;
            let named = (
                format!("secret {}", names.join_token),
                format!("secret {}", names.server),
            );
            (token, server, named)
        };
        let unusable = |what: &str, error: BadJoin| {
            Failure::because(format!("{what}: {error}")).known_as(Known::SecretUnusable)
        };
        let token = JoinToken::try_from(token).map_err(|error| unusable(&named.0, error))?;
        let server = server_url(server.reveal()).map_err(|error| unusable(&named.1, error))?;
        let seen = self.server.look(&server, &token).await?;
        let skewed = seen.skew.filter(|skew| skew.abs() >= SKEW);
        if let Some(skew) = skewed {
            tracing::warn!(%skew, server, "this machine's clock differs from the K3s server's");
        }
        Ok(Join {
            token,
            server,
            skewed,
        })
    }

    async fn start_kubelet(
        &self,
        machine: &Machine,
        enrolled: &Enrolled,
        join: &Join,
    ) -> Result<(), Failure> {
        if let Some(operation) = retired_by(&*self.folder) {
            return Err(Failure::because(format!(
                "the kubelet was stopped for good by operation {operation}"
            )));
        }
        let token_file = self.files.write_token(&join.token)?;
        let market = if enrolled.market.is_empty() {
            machine.market.as_str()
        } else {
            &enrolled.market
        };
        let drop_in = DropIn::new(
            machine,
            &enrolled.node,
            &enrolled.pool,
            market,
            join.server.clone(),
            token_file.display().to_string(),
        )
        .with_labels(&self.config.k3s.labels);
        if self.files.write_drop_in(&drop_in)? {
            tracing::info!(
                node = enrolled.node,
                server = drop_in.server,
                "K3s is told what to be"
            );
        }
        self.units.start(&self.config.k3s.unit).await
    }

    async fn ready(&self, node: &str) -> Result<(), Failure> {
        match self.kubelet.node(node).await {
            Ok(seen) if seen.ready => Ok(()),
            Ok(_) => Err(Failure::because(format!(
                "node {node} is registered but not Ready"
            ))),
            Err(crate::kubelet::Refusal::NotFound) => {
                Err(Failure::because(format!("node {node} is not registered yet")))
            }
            Err(refusal) => Err(Failure::because(format!("node {node} cannot be seen: {refusal}"))),
        }
    }

    /// Why K3s does not get on, as far as it says so itself.
    async fn explained(&self, failure: Failure, skewed: Option<SignedDuration>) -> Failure {
        let unit = &self.config.k3s.unit;
        if let Some((known, said)) = words::why(&self.units.last_words(unit).await) {
            return Failure::because(format!("{failure}; {unit} says: {said}")).known_as(known);
        }
        match skewed {
            Some(skew) => {
                let by = skew.as_secs();
                let text = format!("{failure}; this machine's clock differs from the K3s server's by {by} s");
                Failure::because(text).known_as(Known::ClockSkew)
            }
            None => failure,
        }
    }
}
