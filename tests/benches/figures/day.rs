//! What an agent takes after a day's worth of reports, sent a hundred times as fast: a leak would show. The coordinator of this
//! day says nothing but its welcome; the agent and its machine are the rig's.

use std::{
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use smartscale_coordinator::serve::authority::{Authority, Names, vault::NoVault};
use smartscale_proto::time::{duration_to_wire, to_wire};
use smartscale_proto::tls::{Rotating, server};
use smartscale_proto::v1::{
    RenewRequest, RenewResponse, SessionRequest, SessionResponse, Welcome,
    agent_server::{Agent, AgentServer},
    session_request::Report,
    session_response::Command,
};
use smartscale_tests::rig::wait;
use smartscale_tests::site::{DEADLINE, policy};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::interval};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use crate::{Row, process::Usage, site};

/// Instead of a second.
const PACE: Duration = Duration::from_millis(10);

pub(crate) async fn take(reports: u32) -> anyhow::Result<Vec<Row>> {
    let site = site::start("figures-day", &policy("[limits]\nmin_nodes = 1\nmax_nodes = 1\n")).await?;
    let nodes = site.ready_nodes(1).await?;
    let machine = nodes.first().context("no node")?;
    let names = Names {
        trust: "smartscale".parse()?,
        cluster: site.stack.id.parse()?,
    };
    let quick = Quick::start(&site.stack.home, names).await?;
    let config = site
        .stack
        .machines
        .with(machine, |machine| machine.home().join("agent.toml"))?;
    let mut text = std::fs::read_to_string(&config).context("the agent's configuration")?;
    for door in site.stack.doors {
        text = text.replace(&door.to_string(), &quick.address.to_string());
    }
    std::fs::write(&config, text).context("the agent's configuration")?;
    site.stack
        .machines
        .with(machine, |machine| machine.kill_agent(false))?;
    let seen = || quick.reports.load(Ordering::Relaxed);
    wait::until_true("the first reports", DEADLINE, || async { Ok(seen() > 100) }).await?;
    let usage = || -> anyhow::Result<Usage> {
        let agent = site
            .stack
            .machines
            .with(machine, |machine| machine.agent().and_then(|agent| agent.id()))?;
        Usage::of(agent.context("the agent does not run")?)
    };
    let before = usage()?;
    // Every report differs from the one before.
    let mut pace = interval(PACE);
    for turn in 0_u64.. {
        pace.tick().await;
        if seen() >= reports {
            break;
        }
        let cpu = if turn.is_multiple_of(2) { 0.5 } else { 0.1 };
        site.stack
            .machines
            .with(machine, |machine| machine.busy(cpu, 0.2))?;
    }
    let after = usage()?;
    Ok(vec![Row::new(
        format!("agent: resident memory after {reports} reports"),
        format!("{}; after the first hundred {}", after.memory(), before.memory()),
        "a day's worth of one a second, sent a hundred times as fast",
    )])
}

/// A coordinator that only welcomes and counts.
struct Quick {
    address: SocketAddr,
    reports: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Drop for Quick {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Quick {
    async fn start(home: &Path, names: Names) -> anyhow::Result<Self> {
        let (certificates, key) = (home.join("ca.crt"), home.join("ca.key"));
        let authority = Authority::load(names, &certificates, &key, &NoVault).await?;
        let material = Rotating::new(authority.coordinator()?);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let reports = Arc::new(AtomicU32::new(0));
        let accepted = server::incoming(listener, material, |failure| eprintln!("figures: {failure:?}"))?;
        let desk = AgentServer::new(Desk(Arc::clone(&reports)));
        let task = tokio::spawn(async move {
            if let Err(error) = Server::builder()
                .add_service(desk)
                .serve_with_incoming(accepted)
                .await
            {
                eprintln!("figures: the quick coordinator ended: {error}");
            }
        });
        Ok(Self {
            address,
            reports,
            task,
        })
    }
}

struct Desk(Arc<AtomicU32>);

#[tonic::async_trait]
impl Agent for Desk {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut reports = request.into_inner();
        let (commands, stream) = mpsc::channel(1);
        let counted = Arc::clone(&self.0);
        tokio::spawn(async move {
            let welcome = Welcome {
                time: Some(to_wire(jiff::Timestamp::now())),
                changing_interval: Some(duration_to_wire(PACE)),
                quiet_interval: Some(duration_to_wire(PACE)),
                ..Welcome::default()
            };
            let welcome = SessionResponse {
                command: Some(Command::Welcome(welcome)),
            };
            if commands.send(Ok(welcome)).await.is_err() {
                return;
            }
            while let Ok(Some(request)) = reports.message().await {
                if matches!(request.report, Some(Report::Health(_))) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
            drop(commands);
        });
        let stream = ReceiverStream::new(stream).map(|answer: Result<SessionResponse, Status>| answer);
        Ok(Response::new(Box::pin(stream)))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<RenewResponse>, Status> {
        Err(Status::unavailable("not today"))
    }
}
