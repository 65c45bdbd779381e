//! The agents' service: one stream per agent, reports up, commands down, and fresh certificates.
//!
//! ```text
//!   Hello ─▶ do we lead? ─no─▶ Redirect, end
//!              │yes
//!           Welcome ─▶ reports ⇄ acknowledgements, commands ─▶ end: client left · silence · malformed message
//!                                                                · superseded · revoked · lease lost · shutdown
//! ```
//! Which machine speaks is said by its certificate alone. Whatever one stream does wrong ends that stream only.

use std::{pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use smartscale_proto::{
    time::{SharedClock, duration_to_wire, within},
    v1::{
        self, SessionRequest, SessionResponse, agent_server::Agent, session_request::Report,
        session_response::Command,
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};

use super::{
    audit::Audit,
    authorise::{self, Caller},
    authority::Authority,
    csr::RequestedKey,
    leading::Leader,
    sessions::{End, Sessions, Ticket},
};
use crate::ids::InstanceId;

/// Time for the first message of a session.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Responses that may wait for the wire.
const RESPONSES: usize = 64;

/// The service.
pub struct AgentDesk {
    /// Memory of all sessions.
    pub sessions: Arc<Sessions>,
    /// Signs.
    pub authority: Arc<Authority>,
    /// Notes who claims to be another.
    pub audit: Arc<Audit>,
    /// Who leads.
    pub leader: Leader,
    /// Time.
    pub clock: SharedClock,
    /// Ends every session.
    pub shutdown: CancellationToken,
    /// Owns the sessions' tasks.
    pub tasks: TaskTracker,
}

#[async_trait]
impl Agent for AgentDesk {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let (instance, who) = (caller.agent()?, caller.who());
        let (responses, stream) = mpsc::channel(RESPONSES);
        let line = Line {
            sessions: Arc::clone(&self.sessions),
            audit: Arc::clone(&self.audit),
            leader: self.leader.clone(),
            clock: Arc::clone(&self.clock),
            shutdown: self.shutdown.clone(),
            instance,
            who,
            reports: request.into_inner(),
            responses,
        };
        self.tasks.spawn(line.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let instance = Caller::of(&request)?.agent()?;
        let key = RequestedKey::from_request(&request.get_ref().csr_der)
            .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
        let segment = instance
            .as_str()
            .parse()
            .map_err(|_| Status::permission_denied("this is no machine's name"))?;
        let issued = self.authority.agent(segment, &key).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, %instance, "a certificate cannot be signed");
            Status::unavailable("the authority cannot sign at this moment")
        })?;
        tracing::info!(%instance, not_after = %issued.not_after, "a certificate was renewed");
        Ok(Response::new(v1::RenewResponse {
            certificate: Some(issued.into()),
        }))
    }
}

/// One session.
struct Line {
    sessions: Arc<Sessions>,
    audit: Arc<Audit>,
    leader: Leader,
    clock: SharedClock,
    shutdown: CancellationToken,
    instance: InstanceId,
    /// Its identity, for the audit.
    who: String,
    reports: Streaming<SessionRequest>,
    responses: mpsc::Sender<Result<SessionResponse, Status>>,
}

/// What ends a session that its agent did not end.
enum Last {
    Refuse(Status),
    Redirect,
    Left,
}

impl Line {
    async fn run(mut self) {
        let last = match self.hello().await {
            Ok(hello) if self.leader.now().ours => {
                let mut ticket = self.sessions.begin(&self.instance, hello);
                let last = self.talk(&mut ticket).await;
                self.sessions.end(&self.instance, ticket.id);
                last
            }
            Ok(_) => Last::Redirect,
            Err(last) => last,
        };
        match last {
            Last::Left => {}
            Last::Redirect => {
                let endpoints = self.leader.endpoints().elsewhere(&self.leader.now());
                tracing::info!(instance = %self.instance, ?endpoints, "an agent is sent to the leader");
                self.last_word(Ok(response(Command::Redirect(v1::Redirect { endpoints }))))
                    .await;
            }
            Last::Refuse(status) => {
                tracing::info!(instance = %self.instance, code = ?status.code(), reason = status.message(), "a session ends");
                self.last_word(Err(status)).await;
            }
        }
    }

    /// A peer that does not read must not hold up our end.
    async fn last_word(&self, word: Result<SessionResponse, Status>) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.responses.send(word)).await;
    }

    async fn hello(&mut self) -> Result<v1::Hello, Last> {
        let first = tokio::select! {
            () = self.shutdown.cancelled() => return Err(Last::Refuse(Status::unavailable("this coordinator is shutting down"))),
            first = within(&*self.clock, HELLO_TIME, self.reports.message()) => first,
        };
        match first {
            Some(Ok(Some(SessionRequest {
                report: Some(Report::Hello(hello)),
                ..
            }))) => self.own(hello),
            Some(Ok(None)) => Err(Last::Left),
            Some(Ok(Some(_))) => Err(Last::Refuse(Status::invalid_argument(
                "hello: it must be the first message",
            ))),
            Some(Err(status)) => Err(broken(&status)),
            None => Err(Last::Refuse(Status::deadline_exceeded(
                "the first message did not come",
            ))),
        }
    }

    /// An agent that means another machine than its certificate is refused, whatever it would have said.
    fn own(&self, hello: v1::Hello) -> Result<v1::Hello, Last> {
        let claimed = hello
            .machine
            .as_ref()
            .map_or("", |machine| machine.instance_id.as_str());
        if claimed.is_empty() || claimed == self.instance.as_str() {
            return Ok(hello);
        }
        let status =
            Status::permission_denied("hello.machine.instance_id: the certificate is another machine's");
        self.audit.record(
            &self.who,
            "/smartscale.v1.Agent/Session",
            &format!("machine.instance_id={claimed:?}"),
            status.code(),
        );
        Err(Last::Refuse(status))
    }

    async fn talk(&mut self, ticket: &mut Ticket) -> Last {
        let settings = *self.sessions.settings();
        let welcome = v1::Welcome {
            changing_interval: Some(duration_to_wire(settings.changing)),
            quiet_interval: Some(duration_to_wire(settings.quiet)),
            endpoints: self.leader.endpoints().leader_first(&self.leader.now()),
        };
        if self
            .responses
            .send(Ok(response(Command::Welcome(welcome))))
            .await
            .is_err()
        {
            return Last::Left;
        }
        let mut pace = Pace::new(settings.messages_per_second, self.clock.elapsed());
        let mut heard = self.clock.elapsed();
        loop {
            let quiet_left = settings
                .silence
                .saturating_sub(self.clock.elapsed().saturating_sub(heard));
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    return Last::Refuse(Status::unavailable("this coordinator is shutting down"));
                }
                end = told_to_end(&mut ticket.end) => return ended(end.as_ref()),
                () = self.leader.changed() => {
                    if !self.leader.now().ours {
                        return Last::Redirect;
                    }
                }
                Some(command) = ticket.commands.recv() => {
                    if self.responses.send(Ok(command)).await.is_err() {
                        return Last::Left;
                    }
                }
                message = self.reports.message() => {
                    heard = self.clock.elapsed();
                    if !pace.take(heard) {
                        return Last::Refuse(Status::resource_exhausted("too many reports"));
                    }
                    let acknowledged = match message {
                        Ok(Some(request)) => self.sessions.take(&self.instance, request).await,
                        Ok(None) => return Last::Left,
                        Err(status) => return broken(&status),
                    };
                    match acknowledged {
                        Ok(None) => {}
                        Ok(Some(id)) => {
                            let word = response(Command::Acknowledgement(v1::Acknowledgement { id }));
                            if self.responses.send(Ok(word)).await.is_err() {
                                return Last::Left;
                            }
                        }
                        Err(status) => return Last::Refuse(status),
                    }
                }
                () = self.clock.sleep(quiet_left) => {
                    return Last::Refuse(Status::deadline_exceeded("nothing was reported for too long"));
                }
                () = self.responses.closed() => return Last::Left,
            }
        }
    }
}

fn response(command: Command) -> SessionResponse {
    SessionResponse {
        command: Some(command),
    }
}

fn broken(status: &Status) -> Last {
    if authorise::is_malformed(status) {
        Last::Refuse(authorise::malformed(status))
    } else {
        Last::Left
    }
}

async fn told_to_end(end: &mut watch::Receiver<Option<End>>) -> Option<End> {
    end.wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|end| end.clone())
}

fn ended(end: Option<&End>) -> Last {
    match end {
        Some(End::Distrusted(why)) => Last::Refuse(Status::permission_denied(why.clone())),
        Some(End::Superseded) => Last::Refuse(Status::aborted("this agent began another session")),
        None => Last::Left,
    }
}

/// Ten seconds' worth of messages may come at once: a new session brings what was not acknowledged.
struct Pace {
    per_second: f64,
    tokens: f64,
    filled: Duration,
}

impl Pace {
    fn new(per_second: u32, now: Duration) -> Self {
        let per_second = f64::from(per_second.max(1));
        Self {
            per_second,
            tokens: per_second * 10.0,
            filled: now,
        }
    }

    fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second * 10.0);
        self.filled = now;
        self.tokens -= 1.0;
        self.tokens >= 0.0
    }
}
