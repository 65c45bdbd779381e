//! Agents' sessions without agents: the certificate of each machine, a connection of its own, Hello, and then its health
//! every second.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use smartscale_coordinator::serve::authority::{Authority, Names, vault::NoVault};
use smartscale_proto::identity::Party;
use smartscale_proto::time::to_wire;
use smartscale_proto::tls::Rotating;
use smartscale_proto::tls::client::{Dialer, Expected};
use smartscale_proto::v1::agent_client::AgentClient;
use smartscale_proto::v1::session_request::Report;
use smartscale_proto::v1::session_response::Command;
use smartscale_proto::v1::{
    Health, Hello, Machine, PodCounts, Pressure, SessionRequest, SessionResponse, UnitState,
};
use smartscale_tests::rig::wait;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// Sessions that are held until this is dropped.
pub(crate) struct Sessions {
    tasks: JoinSet<anyhow::Result<()>>,
    welcomed: watch::Receiver<usize>,
    count: usize,
}

impl Sessions {
    /// Begins a session for each machine, with certificates of the authority in `home`.
    pub(crate) async fn begin(
        home: &Path,
        names: Names,
        door: &str,
        machines: &[String],
    ) -> anyhow::Result<Self> {
        let expected = Expected {
            trust: names.trust.clone(),
            cluster: names.cluster.clone(),
        };
        let authority = Authority::load(names, &home.join("ca.crt"), &home.join("ca.key"), &NoVault).await?;
        let (count, welcomed) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for machine in machines {
            let party = Party::Agent {
                instance: machine.parse()?,
            };
            let (credential, _) = authority.client(party, Duration::from_secs(3600))?;
            let line = Line {
                dialer: Dialer::new(Rotating::new(credential), expected.clone()),
                door: door.to_owned(),
                machine: machine.clone(),
                welcomed: count.clone(),
            };
            tasks.spawn(line.run());
        }
        Ok(Self {
            tasks,
            welcomed,
            count: machines.len(),
        })
    }

    /// Waits until the coordinator has welcomed all.
    pub(crate) async fn welcomed(&mut self, deadline: Duration) -> anyhow::Result<()> {
        let count = self.count;
        tokio::select! {
            all = timeout(deadline, self.welcomed.wait_for(|welcomed| *welcomed == count)) => {
                all.context("not every session was welcomed")??;
                Ok(())
            }
            ended = self.tasks.join_next() => ended.context("there are no sessions")??,
        }
    }

    /// Holds all of them for so long; an error if one ends.
    pub(crate) async fn hold(&mut self, window: Duration) -> anyhow::Result<()> {
        match timeout(window, self.tasks.join_next()).await {
            Err(_) => Ok(()),
            Ok(ended) => ended.context("there are no sessions")??,
        }
    }
}

struct Line {
    dialer: Dialer,
    door: String,
    machine: String,
    welcomed: watch::Sender<usize>,
}

impl Line {
    async fn run(self) -> anyhow::Result<()> {
        // The coordinator may be starting still, or wait for its lease: then it names no leader.
        let (reports, mut answers) = wait::until("a welcome", Duration::from_secs(90), || async {
            self.open().await.map(Some)
        })
        .await?;
        self.welcomed.send_modify(|count| *count += 1);
        let mut second = interval(Duration::from_secs(1));
        for turn in 0_u32.. {
            tokio::select! {
                _ = second.tick() => reports.send(at_this_moment(Report::Health(health(turn)))).await?,
                answer = answers.message() => {
                    answer?.with_context(|| format!("the session of {} ended", self.machine))?;
                }
            }
        }
        Ok(())
    }

    /// A session that was welcomed.
    async fn open(&self) -> anyhow::Result<(mpsc::Sender<SessionRequest>, Streaming<SessionResponse>)> {
        let channel = self.dialer.connect(&self.door).await?;
        let (sender, reports) = mpsc::channel(4);
        sender.send(at_this_moment(Report::Hello(self.hello()))).await?;
        let reports = ReceiverStream::new(reports);
        let mut answers = AgentClient::new(channel).session(reports).await?.into_inner();
        match answers.message().await?.and_then(|answer| answer.command) {
            Some(Command::Welcome(_)) => Ok((sender, answers)),
            other => anyhow::bail!("no welcome but {other:?}"),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            agent_version: "bench".to_owned(),
            boot_id: self.machine.clone(),
            machine: Some(Machine {
                instance_id: self.machine.clone(),
                instance_type: "t3.small".to_owned(),
                zone: "us-east-1a".to_owned(),
                market: "on-demand".to_owned(),
                private_ip: "10.0.0.1".to_owned(),
            }),
            draining_operation: String::new(),
            wants_join_token: false,
            can_check: false,
        }
    }
}

fn at_this_moment(report: Report) -> SessionRequest {
    SessionRequest {
        time: Some(to_wire(jiff::Timestamp::now())),
        report: Some(report),
    }
}

fn health(turn: u32) -> Health {
    let busy = if turn.is_multiple_of(2) { 50.0 } else { 40.0 };
    Health {
        cpu_percent: Some(busy),
        memory_percent: Some(55.0),
        memory_total_bytes: Some(2 << 30),
        load1: Some(1.0),
        pressure: Some(Pressure {
            cpu_some_percent: Some(2.0),
            memory_some_percent: Some(0.0),
            io_some_percent: Some(1.0),
        }),
        disk_percent: Some(30.0),
        inode_percent: Some(10.0),
        pods: Some(PodCounts {
            running: 10,
            ..PodCounts::default()
        }),
        units: vec![UnitState {
            unit: "k3s-agent.service".to_owned(),
            active_state: "active".to_owned(),
        }],
        node_ready: Some(true),
        kubelet_healthy: Some(true),
        runtime_healthy: Some(true),
        steal_percent: Some(0.0),
        conntrack_percent: Some(1.0),
        oom_kills: Some(0),
        nic_errors: Some(0),
        clock_skew_ms: Some(0),
        ..Health::default()
    }
}
