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
use rustls::pki_types::CertificateDer;
use smartscale_planner::model::NodeName;
use smartscale_proto::{
    time::{SharedClock, duration_to_wire, to_wire, within},
    v1::{
        self, SessionRequest, SessionResponse, agent_server::Agent, session_request::Report,
        session_response::Command,
    },
};
use tokio::sync::{mpsc, watch};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    audit::Audit,
    authorise::{self, Caller},
    authority::Held,
    connection::Peer,
    csr::RequestedKey,
    join_tokens::{Joining, TOKEN_LIFE},
    leading::Leader,
    renewal::Renewals,
    sessions::{End, Sessions, Ticket},
};
use crate::ids::InstanceId;

/// Time for the first message of a session.
const HELLO_TIME: Duration = Duration::from_secs(10);
/// Responses that may wait for the wire.
const RESPONSES: usize = 64;
/// What the audit keeps of an agent's word for its version.
const LONGEST_VERSION: usize = 64;

/// The service.
pub struct AgentDesk {
    /// Memory of all sessions.
    pub sessions: Arc<Sessions>,
    /// Signs fresh keys.
    pub renewals: Renewals,
    /// Notes who claims to be another.
    pub audit: Arc<Audit>,
    /// Who leads.
    pub leader: Leader,
    /// What machines join with; `None`: they find that elsewhere.
    pub joining: Option<Joining>,
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
        let peer = request.extensions().get::<Peer>();
        let certificate = peer.and_then(|peer| peer.certificate.clone());
        let (responses, stream) = mpsc::channel(RESPONSES);
        let line = Line {
            sessions: Arc::clone(&self.sessions),
            audit: Arc::clone(&self.audit),
            leader: self.leader.clone(),
            joining: self.joining.clone(),
            clock: Arc::clone(&self.clock),
            shutdown: self.shutdown.clone(),
            instance,
            who,
            certificate,
            authorities: self.renewals.authority.changes(),
            renewals: self.renewals.clone(),
            reports: request.into_inner(),
            responses,
        };
        self.tasks.spawn(line.run());
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let caller = Caller::of(&request)?;
        let (instance, who) = (caller.agent()?, caller.who());
        let key = RequestedKey::from_request(&request.get_ref().csr_der)
            .map_err(|error| Status::invalid_argument(format!("csr_der: {error}")))?;
        let outcome = self.renewals.renew(&instance, &key).await;
        let (code, what) = match &outcome {
            Ok(issued) => (Code::Ok, format!("a fresh key, until {}", issued.not_after)),
            Err(status) => (status.code(), status.message().to_owned()),
        };
        self.audit.record(&who, "/smartscale.v1.Agent/Renew", &what, code);
        let issued = outcome?;
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
    joining: Option<Joining>,
    clock: SharedClock,
    shutdown: CancellationToken,
    instance: InstanceId,
    /// Its identity, for the audit.
    who: String,
    /// What it showed when it connected.
    certificate: Option<CertificateDer<'static>>,
    authorities: watch::Receiver<Arc<Held>>,
    renewals: Renewals,
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
                let offer = self.join_offer(hello.wants_join_token).await;
                self.audited(&hello, !offer.0.is_empty());
                let mut ticket = self.sessions.begin(&self.instance, hello);
                let last = self.talk(&mut ticket, offer).await;
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

    fn audited(&self, hello: &v1::Hello, is_given_a_token: bool) {
        let version: String = hello.agent_version.chars().take(LONGEST_VERSION).collect();
        let token = if is_given_a_token {
            " with a join token"
        } else {
            ""
        };
        self.audit.record(
            &self.who,
            "/smartscale.v1.Agent/Session",
            &format!("agent_version={version:?} welcomed{token}"),
            Code::Ok,
        );
    }

    /// Whether the certificate of this connection would still be taken in a handshake, its life aside.
    fn is_of_ours(&mut self) -> bool {
        let held = Arc::clone(&self.authorities.borrow_and_update());
        self.certificate
            .as_ref()
            .is_some_and(|certificate| held.signed(certificate))
    }

    /// How sessions are held, and what an agent does where nobody commands it.
    fn welcome(
        &self,
        drain_policy: Option<v1::DrainPolicy>,
        (join_token, join_server): (String, String),
    ) -> SessionResponse {
        let settings = self.sessions.settings();
        response(Command::Welcome(v1::Welcome {
            changing_interval: Some(duration_to_wire(settings.changing)),
            quiet_interval: Some(duration_to_wire(settings.quiet)),
            endpoints: self.leader.endpoints().leader_first(&self.leader.now()),
            drain_policy,
            time: Some(to_wire(self.clock.now())),
            join_token,
            join_server,
        }))
    }

    /// A token and the server for a machine that has to join again; nothing where nobody mints.
    async fn join_offer(&self, wanted: bool) -> (String, String) {
        let Some(joining) = self.joining.as_ref().filter(|_| wanted) else {
            return Default::default();
        };
        let node = NodeName::from(self.instance.as_str());
        match joining.tokens.mint(&node, TOKEN_LIFE).await {
            Ok(mut minted) => (std::mem::take(&mut *minted), joining.server.clone()),
            Err(error) => {
                // It asks again with its next session; until then it says itself what it lacks.
                tracing::warn!(instance = %self.instance, %error, "a machine that joins again gets no token");
                Default::default()
            }
        }
    }

    async fn talk(&mut self, ticket: &mut Ticket, offer: (String, String)) -> Last {
        let settings = *self.sessions.settings();
        let mut terms = self.sessions.terms();
        let welcome = self.welcome(terms.present(), offer);
        if self.responses.send(Ok(welcome)).await.is_err() {
            return Last::Left;
        }
        // Beside everything else: a store that does not answer must not hold up what the agent has to say.
        let (renewals, instance) = (self.renewals.clone(), self.instance.clone());
        let mut due = std::pin::pin!(async move { renewals.is_due(&instance).await });
        let mut looked = false;
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
                policy = terms.changed() => {
                    let welcome = self.welcome(Some(policy), Default::default());
                    if self.responses.send(Ok(welcome)).await.is_err() {
                        return Last::Left;
                    }
                }
                Ok(()) = self.authorities.changed() => {
                    if !self.is_of_ours() {
                        return Last::Refuse(Status::unavailable(
                            "the authority of this connection's certificate is not trusted any more: connect anew",
                        ));
                    }
                }
                is_due = &mut due, if !looked => {
                    looked = true;
                    let renew = response(Command::Renew(v1::RenewCommand { within: None }));
                    if is_due && self.responses.send(Ok(renew)).await.is_err() {
                        return Last::Left;
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
