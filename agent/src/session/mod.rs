//! The long conversation with a coordinator: reports up, commands down, for ever.
//!
//! ```text
//!   connect ─▶ Hello ─▶ Welcome ─▶ reports ⇄ commands ─▶ lost ─▶ back off, next coordinator
//!                    └▶ Redirect ─▶ connect to the leader at once
//! ```
//! - [`feed`]: what is sent, pulled by the connection as it has room
//! - this file: dialling, and what each command means

pub mod feed;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use rand::{SeedableRng as _, rngs::SmallRng};
use smartscale_proto::{
    backoff::Backoff,
    time::{SharedClock, duration_from_wire, from_wire, within},
    tls::client::Dialer,
    v1::{self, agent_client::AgentClient, session_response::Command},
};
use tokio::sync::watch;
use tonic::{Streaming, transport::Channel};

use crate::{
    bind::Binder,
    check::asked::Checker,
    drain::{Drainer, Order, TermsKeeper, terms::LONGEST},
    enrol::Enrolled,
    error::Failure,
    health::observe::{Intervals, Sample, Skew},
    outbox::Outbox,
    retire::Retirer,
    secrets::offer::Offers,
};
use feed::Feed;

/// Time from the connection to the coordinator's first word.
const WELCOME_TIME: Duration = Duration::from_secs(60);
/// Redirections that are followed at once; then somebody is confused and there is a pause.
const REDIRECTIONS: u32 = 4;
/// Delays between attempts.
const DELAYS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// Coordinators that are remembered at most.
const MOST_ENDPOINTS: usize = 16;
/// A renewal that is asked for waits no longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// The intervals that a coordinator may ask for.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(600));

/// Keeps a session with a coordinator.
pub struct Session {
    /// Dials coordinators.
    pub dialer: Dialer,
    /// The clock.
    pub clock: SharedClock,
    /// The configured coordinators.
    pub endpoints: Vec<String>,
    /// The enrolment, once there is one.
    pub enrolled: watch::Receiver<Option<Enrolled>>,
    /// Reports that must arrive.
    pub outbox: Outbox,
    /// The latest health.
    pub health: watch::Receiver<Sample>,
    /// The intervals that the coordinator wishes.
    pub intervals: watch::Sender<Intervals>,
    /// The coordinator's clock against this machine's.
    pub skew: watch::Sender<Option<Skew>>,
    /// The channel of the present session, for renewals.
    pub channel: watch::Sender<Option<Channel>>,
    /// Who drains.
    pub drainer: Drainer,
    /// The terms of a drain whose command names none; a welcome brings them.
    pub terms: TermsKeeper,
    /// Who stops the kubelet.
    pub retirer: Retirer,
    /// Who proves whose Node it is.
    pub binder: Binder,
    /// Who checks what this machine depends on.
    pub checker: Checker,
    /// What was found last.
    pub answers: watch::Receiver<Option<v1::CheckAnswer>>,
    /// Set when the coordinator wants the certificate renewed, with the time that this may take.
    pub renew: watch::Sender<Option<Duration>>,
    /// The kernel's boot id.
    pub boot_id: String,
    /// What a coordinator gives for the join.
    pub offers: Offers,
    /// Whether the join takes it.
    pub takes_offers: bool,
}

/// How a session ended.
enum End {
    Redirected(Vec<String>),
    Lost { welcomed: bool, failure: Failure },
}

impl Session {
    /// Keeps a session for ever.
    pub async fn run(mut self) {
        if self.enrolled.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let backoff = Backoff::new(DELAYS.0, DELAYS.1).unwrap_or(Backoff::DEFAULT);
        let mut random = SmallRng::seed_from_u64(rand::random());
        let mut preferred = VecDeque::<String>::new();
        let (mut index, mut failures, mut redirections) = (0_usize, 0_u32, 0_u32);
        let mut said = String::new();
        loop {
            let listed = index
                .checked_rem(self.endpoints.len())
                .and_then(|index| self.endpoints.get(index));
            let Some(endpoint) = preferred.pop_front().or_else(|| listed.cloned()) else {
                return;
            };
            let end = self.attend(&endpoint).await;
            self.channel.send_replace(None);
            match end {
                End::Redirected(endpoints) if redirections < REDIRECTIONS => {
                    tracing::info!(endpoint, to = ?endpoints, "the coordinator names the leader");
                    redirections += 1;
                    preferred = endpoints.into_iter().take(MOST_ENDPOINTS).collect();
                    continue;
                }
                End::Redirected(_) => preferred.clear(),
                End::Lost { welcomed, failure } => {
                    let text = format!("{endpoint}: {failure}");
                    // For hours without a coordinator, each distinct failure is logged once.
                    if welcomed || text != said {
                        tracing::warn!(endpoint, error = %failure, "no session with the coordinator");
                    }
                    said = text;
                    if welcomed {
                        failures = 0;
                    } else if preferred.is_empty() {
                        index += 1;
                    }
                }
            }
            redirections = 0;
            failures = failures.saturating_add(1);
            self.clock.sleep(backoff.delay(failures, &mut random)).await;
        }
    }

    /// One session with the coordinator at `endpoint`, to its end.
    async fn attend(&mut self, endpoint: &str) -> End {
        let lost = |failure: Failure| End::Lost {
            welcomed: false,
            failure,
        };
        let Some(enrolled) = self.enrolled.borrow().clone() else {
            return lost(Failure::because("not enrolled"));
        };
        let channel = match self.dialer.connect(endpoint).await {
            Ok(channel) => channel,
            Err(error) => return lost(error.into()),
        };
        self.outbox.rewind();
        let hello = v1::Hello {
            agent_version: crate::VERSION.to_owned(),
            boot_id: self.boot_id.clone(),
            machine: Some(enrolled.machine.to_wire()),
            draining_operation: self.drainer.draining().unwrap_or_default(),
            wants_join_token: self.takes_offers && self.offers.is_empty(),
            can_check: true,
        };
        let welcomed = watch::Sender::new(false);
        let feed = Feed::new(
            hello,
            self.outbox.clone(),
            self.health.clone(),
            self.answers.clone(),
            welcomed.subscribe(),
            Arc::clone(&self.clock),
        );
        let mut client = AgentClient::new(channel.clone());
        let opening = async {
            let mut commands = client.session(feed.into_stream()).await?.into_inner();
            let first = commands.message().await?;
            Ok::<_, tonic::Status>((commands, first))
        };
        let (mut commands, first) = match within(&*self.clock, WELCOME_TIME, opening).await {
            None => return lost(Failure::because("the coordinator does not say a word")),
            Some(Err(status)) => return lost(status.into()),
            Some(Ok((commands, first))) => (commands, first.and_then(|response| response.command)),
        };
        match first {
            Some(Command::Welcome(welcome)) => self.welcome(welcome),
            Some(Command::Redirect(redirect)) => return End::Redirected(redirect.endpoints),
            _ => return lost(Failure::because("the coordinator does not begin with a welcome")),
        }
        tracing::info!(endpoint, node = enrolled.node, "in session with the coordinator");
        self.channel.send_replace(Some(channel));
        welcomed.send_replace(true);
        self.obey(&mut commands, &enrolled.node).await
    }

    /// Carries commands out until the stream ends.
    async fn obey(&mut self, commands: &mut Streaming<v1::SessionResponse>, node: &str) -> End {
        loop {
            let command = match commands.message().await {
                Ok(Some(response)) => response.command,
                Ok(None) => {
                    let failure = Failure::because("the coordinator ended the session");
                    return End::Lost {
                        welcomed: true,
                        failure,
                    };
                }
                Err(status) => {
                    return End::Lost {
                        welcomed: true,
                        failure: status.into(),
                    };
                }
            };
            match command {
                Some(Command::Welcome(welcome)) => self.welcome(welcome),
                Some(Command::Redirect(redirect)) => return End::Redirected(redirect.endpoints),
                Some(Command::Acknowledgement(acknowledgement)) => {
                    self.outbox.acknowledge(&acknowledgement.id);
                }
                Some(Command::Drain(command)) => match self.order(command, node) {
                    Ok(order) => self.drainer.order(order).await,
                    Err((operation, error)) => {
                        tracing::error!(op = operation, error, "a command makes no sense");
                        self.outbox
                            .result(&operation, "drain", v1::Outcome::Failed, error);
                    }
                },
                Some(Command::AbortDrain(command)) => {
                    self.retirer.revoke(command.operation_id.clone()).await;
                    self.drainer.abort(command.operation_id).await;
                }
                Some(Command::BindNode(command)) => self.binder.bind(node, command),
                Some(Command::Check(command)) => self.checker.check(command),
                Some(Command::StopKubelet(command)) => self.retirer.stop(command.operation_id).await,
                Some(Command::Renew(command)) => {
                    let within = command.within.as_ref().map(duration_from_wire);
                    let within = within.and_then(Result::ok).unwrap_or_default();
                    self.renew.send_replace(Some(within.min(LONGEST_WAIT)));
                }
                // A command of a later version: the coordinator sees that nothing comes of it.
                None => tracing::warn!("a command is unknown to this agent"),
            }
        }
    }

    fn order(&self, command: v1::DrainCommand, node: &str) -> Result<Order, (String, String)> {
        let on_timeout = command.on_timeout().into();
        let local_storage = command.local_storage().into();
        let operation = command.operation_id;
        if operation.is_empty() || operation.len() > 256 {
            return Err((
                operation.chars().take(256).collect(),
                "a drain needs the id of its operation".to_owned(),
            ));
        }
        let timeout = match command.timeout.as_ref().map(duration_from_wire) {
            None => self.terms.present().timeout,
            Some(Ok(timeout)) => timeout.min(LONGEST),
            Some(Err(error)) => return Err((operation, error.to_string())),
        };
        Ok(Order {
            operation,
            node: node.to_owned(),
            timeout,
            on_timeout,
            reason: command.reason,
            taken_at: None,
            local_storage,
        })
    }

    fn welcome(&mut self, welcome: v1::Welcome) {
        if let Some(policy) = &welcome.drain_policy {
            self.terms.take(policy);
        }
        if let Some(theirs) = welcome.time.as_ref().and_then(|time| from_wire(time).ok()) {
            let wall = self.clock.now();
            self.skew.send_replace(Some(Skew {
                wall,
                elapsed: self.clock.elapsed(),
                ahead: wall.duration_since(theirs),
            }));
        }
        self.offers.take(&welcome.join_token, &welcome.join_server);
        let wish = |wire: Option<_>| {
            let duration = duration_from_wire(wire.as_ref()?).ok()?;
            Some(duration.clamp(INTERVALS.0, INTERVALS.1))
        };
        self.intervals.send_modify(|intervals| {
            intervals.changing = wish(welcome.changing_interval).unwrap_or(intervals.changing);
            intervals.quiet = wish(welcome.quiet_interval)
                .unwrap_or(intervals.quiet)
                .max(intervals.changing);
        });
        for endpoint in welcome.endpoints {
            if self.endpoints.len() < MOST_ENDPOINTS && !self.endpoints.contains(&endpoint) {
                self.endpoints.push(endpoint);
            }
        }
    }
}

#[cfg(test)]
mod tests;
