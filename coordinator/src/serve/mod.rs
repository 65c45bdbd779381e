//! Serving: agents and people over mutual TLS, on one port.
//!
//! ```text
//!   socket ─▶ tls::server::incoming ─▶ Connection ─▶ Authorise ─▶ Enrolment · Agent · Admin
//!               failed handshakes ─┐      (rate)        refusals ─┐       │ calls of people
//!                                  └──────────▶ audit ◀───────────┴───────┘
//! ```
//! - [`authority`], [`init`], [`csr`]: the certificate authority and what it signs
//! - [`authorise`], [`trust`], [`connection`]: who comes in
//! - [`enrolment`], [`attest`], [`challenges`], [`renewal`]: how a machine gets its first certificate, and its next
//! - [`session`], [`sessions`]: the agents' streams and what was said on them
//! - [`admin`]: what people ask and order
//! - `checks`: what `smartscale check` finds, here and at the agents
//! - [`people`]: their identities, handed out and revoked
//! - [`leading`], [`view`], [`audit`]: who leads, what was decided last, who called what

pub mod admin;
pub mod attest;
pub mod audit;
pub mod authorise;
pub mod authority;
pub mod challenges;
mod checks;
pub mod connection;
pub mod csr;
pub mod enrolment;
pub mod init;
pub mod join_tokens;
pub mod leading;
pub mod people;
pub mod renewal;
pub mod session;
pub mod sessions;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod trust;
mod upkeep;
pub mod view;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use smartscale_proto::{
    time::SharedClock,
    tls::{Rotating, TlsError, server},
    v1::{
        admin_server::AdminServer, agent_server::AgentServer, audit_server::AuditServer,
        checks_server::ChecksServer, enrolment_server::EnrolmentServer, identities_server::IdentitiesServer,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc, watch},
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, transport::Server};

use self::{
    admin::AdminDesk,
    attest::Attestor,
    audit::{Audit, desk::AuditDesk},
    authorise::Authorise,
    authority::{Authority, AuthorityError},
    challenges::Challenges,
    checks::ChecksDesk,
    connection::{Connection, Room},
    enrolment::EnrolmentDesk,
    leading::{Endpoints, Leader},
    people::{People, desk::IdentityDesk},
    renewal::Renewals,
    session::AgentDesk,
    sessions::Sessions,
    trust::Trust,
};
use crate::{
    check::Checks,
    ids::CoordinatorName,
    state::{SharedStore, lease::Leadership},
    tell::SharedTell,
};

/// Bytes of a message that an agent, or whoever wants to become one, may send.
const AGENT_MESSAGE: usize = 64 * 1024;
/// Bytes of a message that a person may send.
const ADMIN_MESSAGE: usize = 64 * 1024;

/// How the coordinator serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// This coordinator's name.
    pub name: CoordinatorName,
    /// `host:port` where agents, people and the other coordinator reach it.
    pub advertise: String,
    /// The others, by name.
    pub peers: BTreeMap<CoordinatorName, String>,
    /// Time that open streams have to end after the shutdown began.
    pub shutdown: Duration,
    /// Connections of agents and people that may be open at once.
    pub connections: usize,
    /// Calls, streams included, that may be open on one connection.
    pub calls_per_connection: usize,
    /// Calls that one connection may begin in a second.
    pub calls_per_second: u32,
}

impl Settings {
    /// The defaults for a coordinator of this name, reached at `advertise`.
    #[must_use]
    pub fn new(name: CoordinatorName, advertise: String) -> Self {
        Self {
            name,
            advertise,
            peers: BTreeMap::new(),
            shutdown: Duration::from_secs(20),
            connections: 8192,
            calls_per_connection: 64,
            calls_per_second: 200,
        }
    }
}

/// What serving needs.
pub struct Parts {
    /// How.
    pub settings: Settings,
    /// Signs certificates.
    pub authority: Arc<Authority>,
    /// Judges the proofs of new machines.
    pub attestor: Arc<dyn Attestor>,
    /// Node records, settings of people, audit.
    pub store: SharedStore,
    /// Time.
    pub clock: SharedClock,
    /// Told of what happens at the door.
    pub tell: SharedTell,
    /// The lease.
    pub leadership: watch::Receiver<Leadership>,
    /// What agents said.
    pub sessions: Arc<Sessions>,
    /// What machines join the cluster with; `None`: they find that elsewhere.
    pub joining: Option<join_tokens::Joining>,
    /// Tries what the coordinator depends on, when a person asks.
    pub checks: Checks,
    /// What people may see and order.
    pub admin: admin::Parts,
}

/// Serving that could not begin, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The authority cannot sign the coordinator's own certificate.
    #[error("the coordinator has no certificate")]
    Authority(#[from] AuthorityError),
    /// The TLS material cannot serve.
    #[error("TLS cannot be served")]
    Tls(#[from] TlsError),
    /// The server ended by itself.
    #[error("the server ended")]
    Server(#[from] tonic::transport::Error),
}

/// Serves on `listener` until `shutdown`; then open streams end, at the latest after `settings.shutdown`.
///
/// # Errors
/// [`ServeError`] when serving cannot begin.
pub async fn serve(
    parts: Parts,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let Parts {
        settings,
        authority,
        attestor,
        store,
        clock,
        tell,
        leadership,
        sessions,
        joining,
        checks,
        admin,
    } = parts;
    let endpoints = Endpoints {
        own: Some((settings.name.clone(), settings.advertise.clone())),
        peers: settings.peers.clone(),
    };
    let leader = Leader::new(leadership, Arc::clone(&clock), endpoints);
    let (audit, writer) = Audit::new(
        &settings.name,
        Arc::clone(&store),
        Arc::clone(&clock),
        Arc::clone(&authority),
    );
    let trusted = People::new(Arc::clone(&store));
    let trust = Arc::new(Trust::new(Arc::clone(&store)));
    let material = Rotating::new(authority.coordinator()?);
    // Everything below ends with this token, whether we were told to stop or the server ended by itself.
    let ending = shutdown.child_token();
    let _ended = ending.clone().drop_guard();
    let tasks = TaskTracker::new();

    let accepted = accept(listener, material.clone(), &settings, Arc::clone(&audit))?;
    let names = authority.names().clone();
    let enrolment = EnrolmentDesk {
        authority: Arc::clone(&authority),
        attestor,
        challenges: Challenges::new(Arc::clone(&clock)),
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        leader: leader.clone(),
        tell: Arc::clone(&tell),
        audit: Arc::clone(&audit),
        joining: joining.clone(),
        sessions: Arc::clone(&sessions),
    };
    let agents = AgentDesk {
        sessions: Arc::clone(&sessions),
        renewals: Renewals {
            authority: Arc::clone(&authority),
            store: Arc::clone(&store),
            leader: leader.clone(),
        },
        audit: Arc::clone(&audit),
        leader: leader.clone(),
        joining,
        clock: Arc::clone(&clock),
        shutdown: ending.clone(),
        tasks: tasks.clone(),
    };
    let identities = IdentityDesk {
        authority: Arc::clone(&authority),
        people: Arc::clone(&trusted),
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        leader: leader.clone(),
        tell: Arc::clone(&tell),
        audit: Arc::clone(&audit),
    };
    let auditors = AuditDesk {
        store: Arc::clone(&store),
        clock: Arc::clone(&clock),
        leader: leader.clone(),
        people: Arc::clone(&trusted),
        audit: Arc::clone(&audit),
    };
    let checking = ChecksDesk {
        checks: Mutex::new(checks),
        agents: Mutex::new(Arc::clone(&sessions)),
        store: Arc::clone(&store),
        leader: leader.clone(),
        clock: Arc::clone(&clock),
        audit: Arc::clone(&audit),
    };
    let ages = Arc::new(admin::Ages::default());
    tasks.spawn(admin::follow(
        Arc::clone(&ages),
        admin.latest.clone(),
        ending.clone(),
    ));
    let people = AdminDesk::new(
        admin,
        admin::Beside {
            name: settings.name.clone(),
            cluster: authority.names().cluster.to_string(),
            store,
            clock: Arc::clone(&clock),
            tell,
            leader: leader.clone(),
            sessions: Arc::clone(&sessions),
            audit: Arc::clone(&audit),
            people: Arc::clone(&trusted),
            ages: Arc::clone(&ages),
            shutdown: ending.clone(),
        },
    );
    // The writer goes on while streams end: their last words are audited too.
    let last_words = CancellationToken::new();
    let written = tokio::spawn(writer.run(last_words.clone()));
    tasks.spawn(upkeep::rotate(
        authority,
        material,
        Arc::clone(&sessions),
        ending.clone(),
    ));
    tasks.spawn(upkeep::watch_trust(
        Arc::clone(&trust),
        Arc::clone(&sessions),
        Arc::clone(&clock),
        ending.clone(),
    ));
    tasks.spawn(upkeep::watch_people(
        Arc::clone(&trusted),
        Arc::clone(&clock),
        ending.clone(),
    ));
    tasks.spawn(upkeep::load_at_takeover(
        sessions,
        leader,
        Arc::clone(&clock),
        ending.clone(),
    ));

    let server = Server::builder()
        .layer(Authorise::new(names, trust, trusted, Arc::clone(&audit)))
        .concurrency_limit_per_connection(settings.calls_per_connection)
        .max_concurrent_streams(u32::try_from(settings.calls_per_connection).unwrap_or(u32::MAX))
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .http2_max_header_list_size(16 * 1024)
        // Streams that are opened and reset at once (CVE-2023-44487): after so many that were not looked at yet, or that
        // went wrong by the peer's fault, the connection ends.
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(256))
        .max_frame_size(16 * 1024)
        .add_service(EnrolmentServer::new(enrolment).max_decoding_message_size(AGENT_MESSAGE))
        .add_service(AgentServer::new(agents).max_decoding_message_size(AGENT_MESSAGE))
        .add_service(AdminServer::new(people).max_decoding_message_size(ADMIN_MESSAGE))
        .add_service(IdentitiesServer::new(identities).max_decoding_message_size(ADMIN_MESSAGE))
        .add_service(AuditServer::new(auditors).max_decoding_message_size(ADMIN_MESSAGE))
        .add_service(ChecksServer::new(checking).max_decoding_message_size(ADMIN_MESSAGE))
        .serve_with_incoming_shutdown(accepted, ending.clone().cancelled_owned());
    let overdue = async {
        ending.cancelled().await;
        tokio::time::sleep(settings.shutdown).await;
    };
    let served = tokio::select! {
        served = server => served,
        () = overdue => {
            tracing::warn!("connections were still open at the end of the shutdown");
            Ok(())
        }
    };
    ending.cancel();
    tasks.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), tasks.wait()).await;
    last_words.cancel();
    let _ = tokio::time::timeout(Duration::from_secs(2), written).await;
    Ok(served?)
}

/// Connections whose handshake is over, as many as there is room for.
fn accept(
    listener: TcpListener,
    material: Rotating,
    settings: &Settings,
    audit: Arc<Audit>,
) -> Result<ReceiverStream<std::io::Result<Connection>>, TlsError> {
    let refused = Arc::clone(&audit);
    let mut handshakes = server::incoming(listener, material, move |failure| {
        audit.record(
            &failure.peer.to_string(),
            "handshake",
            &failure.reason,
            Code::Unauthenticated,
        );
    })?;
    let (sender, connections) = mpsc::channel(16);
    let room = Room::new(settings.connections);
    let per_second = settings.calls_per_second;
    tokio::spawn(async move {
        loop {
            let next = tokio::select! {
                next = handshakes.next() => next,
                () = sender.closed() => return,
            };
            let Some(next) = next else { return };
            let connection = match next.map(|stream| Connection::new(stream, per_second, &room)) {
                Ok(Ok(connection)) => Ok(connection),
                Ok(Err((who, full))) => {
                    refused.record(&who, "connection", &full.to_string(), Code::ResourceExhausted);
                    continue;
                }
                Err(error) => Err(error),
            };
            if sender.send(connection).await.is_err() {
                return;
            }
        }
    });
    Ok(ReceiverStream::new(connections))
}
