//! Sessions over the wire: what agents say arrives, what they may not say ends their stream alone.

use std::time::Duration;

use smartscale_proto::{
    time::duration_to_wire,
    v1::{
        self, BootStep, DrainPhase, DrainReport, Health, Hello, NoticeKind, Outcome, SessionRequest,
        SessionResponse, session_request::Report, session_response::Command,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::{
    act::agents::{Agents as _, DrainTerms},
    ids::InstanceId,
    observe::{agents::AgentHealth as _, notices::board::NoticeBoard},
    serve::{
        sessions::{SessionSettings, Sessions},
        testing::{World, until},
    },
    state::lease::Leadership,
    tell::Event,
};

pub(super) struct Agent {
    pub(super) up: mpsc::Sender<SessionRequest>,
    down: Streaming<SessionResponse>,
}

impl Agent {
    pub(super) async fn silent(world: &World, instance: &str) -> Self {
        let mut client = world.agent(instance).await;
        let (up, stream) = mpsc::channel(16);
        let down = client
            .session(ReceiverStream::new(stream))
            .await
            .unwrap()
            .into_inner();
        Self { up, down }
    }

    async fn connected(world: &World, instance: &str) -> Self {
        Self::of(world, instance, Hello::default()).await
    }

    pub(super) async fn of(world: &World, instance: &str, hello: Hello) -> Self {
        let mut agent = Self::silent(world, instance).await;
        agent.say(Report::Hello(hello)).await;
        assert!(matches!(agent.hear().await, Ok(Command::Welcome(_))));
        agent
    }

    pub(super) async fn say(&self, report: Report) {
        self.up
            .send(SessionRequest {
                time: None,
                report: Some(report),
            })
            .await
            .unwrap();
    }

    /// The next command, or the code with which the stream ended.
    pub(super) async fn hear(&mut self) -> Result<Command, Code> {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.down.message())
            .await
            .unwrap();
        match heard {
            Ok(Some(response)) => Ok(response.command.unwrap()),
            Ok(None) => Err(Code::Ok),
            Err(status) => Err(status.code()),
        }
    }

    async fn acknowledged(&mut self) -> String {
        match self.hear().await {
            Ok(Command::Acknowledgement(acknowledgement)) => acknowledgement.id,
            other => panic!("no acknowledgement but {other:?}"),
        }
    }
}

fn id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

fn drained(operation: &str, phase: DrainPhase) -> Report {
    Report::Drain(DrainReport {
        operation_id: operation.to_owned(),
        phase: phase.into(),
        ..DrainReport::default()
    })
}

#[tokio::test]
async fn an_agent_that_means_another_machine_is_refused_and_audited() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    world.enrolled("i-2").await;
    let mut agent = Agent::silent(&world, "i-1").await;
    let machine = v1::Machine {
        instance_id: "i-2".to_owned(),
        ..v1::Machine::default()
    };
    let hello = Hello {
        machine: Some(machine),
        ..Hello::default()
    };
    agent.say(Report::Hello(hello)).await;
    assert_eq!(agent.hear().await, Err(Code::PermissionDenied));
    let record = world.audited("Agent/Session", "permission_denied").await;
    assert_eq!(record.who, "spiffe://smartscale/cluster/demo/agent/i-1");
    assert!(record.arguments.contains("i-2"));
    assert!(!world.sessions.is_connected(&id("i-2")));
}

#[tokio::test]
async fn what_an_agent_says_is_remembered_under_the_name_of_its_certificate() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let agent = Agent::connected(&world, "i-1").await;
    agent
        .say(Report::Health(Health {
            cpu_percent: Some(42.0),
            memory_percent: Some(f64::NAN),
            ..Health::default()
        }))
        .await;
    let health = until(async || world.sessions.latest().remove(&id("i-1"))).await;
    assert_eq!(
        (health.health.cpu_percent, health.health.memory_percent),
        (Some(42.0), None)
    );
    assert_eq!(world.sessions.connected(), [id("i-1")].into());
    assert_eq!(world.sessions.latest().len(), 1);
}

#[tokio::test]
async fn reports_are_acknowledged_once_they_are_stored_and_a_new_leader_knows_them() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let mut agent = Agent::connected(&world, "i-1").await;
    let boot = v1::BootReport {
        step: BootStep::Secrets.into(),
        outcome: Outcome::Done.into(),
        took: Some(duration_to_wire(Duration::from_millis(1500))),
        ..v1::BootReport::default()
    };
    agent.say(Report::Boot(boot)).await;
    assert_eq!(agent.acknowledged().await, "BOOT_STEP_SECRETS");
    agent.say(drained("op-1", DrainPhase::Evicting)).await;
    assert_eq!(agent.acknowledged().await, "op-1");
    agent.say(drained("op-1", DrainPhase::Drained)).await;
    assert_eq!(agent.acknowledged().await, "op-1");
    let result = v1::CommandResult {
        operation_id: "op-1".to_owned(),
        command: "stop_kubelet".to_owned(),
        outcome: Outcome::Done.into(),
        error: String::new(),
    };
    agent.say(Report::Result(result)).await;
    assert_eq!(agent.acknowledged().await, "op-1");
    assert_eq!(world.sessions.boot(&id("i-1")).len(), 1);

    let clock = std::sync::Arc::new(smartscale_proto::time::SystemClock);
    let next = Sessions::new(
        SessionSettings::default(),
        NoticeBoard::new(world.store.clone(), world.told.clone(), clock.clone()),
        world.store.clone(),
        world.told.clone(),
        clock,
    );
    next.load().await.unwrap();
    assert_eq!(
        next.drain_report(&id("i-1"), "op-1").unwrap().phase(),
        DrainPhase::Drained
    );
    assert!(next.kubelet_stopped(&id("i-1"), &"op-1".parse().unwrap()));
    assert!(next.drain_report(&id("i-1"), "op-2").is_none());
}

#[tokio::test]
async fn a_notice_is_told_once_however_often_it_comes() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let mut agent = Agent::connected(&world, "i-1").await;
    let notice = v1::Notice {
        kind: NoticeKind::SpotInterruption.into(),
        id: "n-1".to_owned(),
        detail: "terminate".to_owned(),
        ..v1::Notice::default()
    };
    let mut nudges = world.sessions.nudges();
    nudges.mark_unchanged();
    for _ in 0..3 {
        agent.say(Report::Notice(notice.clone())).await;
        assert_eq!(agent.acknowledged().await, "n-1");
    }
    assert!(nudges.has_changed().unwrap());
    let told = world.told.0.lock().unwrap();
    let noticed: Vec<_> = told
        .iter()
        .filter_map(|happening| match &happening.event {
            Event::Noticed { notice, .. } => Some(notice.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(noticed, ["spot_interruption"]);
}

#[tokio::test]
async fn commands_reach_the_agent_and_nobody_where_there_is_none() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let operation = "op-9".parse().unwrap();
    assert!(world.sessions.stop_kubelet(&id("i-1"), &operation).await.is_err());
    assert_eq!(world.sessions.silent_for(&id("i-1")), None);
    let mut agent = Agent::connected(&world, "i-1").await;
    let terms = DrainTerms {
        timeout: Duration::from_secs(300),
        on_timeout: v1::OnTimeout::Abort,
        local_storage: v1::LocalStorage::Keep,
        reason: "it is empty",
    };
    world.sessions.drain(&id("i-1"), &operation, terms).await.unwrap();
    let Ok(Command::Drain(command)) = agent.hear().await else {
        panic!("no drain")
    };
    assert_eq!(
        (command.operation_id.as_str(), command.reason.as_str()),
        ("op-9", "it is empty")
    );
    assert_eq!(command.local_storage(), v1::LocalStorage::Keep);
    drop(agent);
    until(async || world.sessions.silent_for(&id("i-1"))).await;
    assert!(!world.sessions.is_connected(&id("i-1")));
    // Nothing is kept of a machine that is gone for good.
    world.sessions.forget(&id("i-1"));
    assert_eq!(world.sessions.silent_for(&id("i-1")), None);
}

#[tokio::test]
async fn a_second_session_of_an_agent_ends_the_first_and_a_strangers_none() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    world.enrolled("i-2").await;
    let mut first = Agent::connected(&world, "i-1").await;
    let mut other = Agent::connected(&world, "i-2").await;
    let mut second = Agent::connected(&world, "i-1").await;
    assert_eq!(first.hear().await, Err(Code::Aborted));
    assert!(world.sessions.is_connected(&id("i-1")));
    for (agent, name) in [(&mut second, "op-1"), (&mut other, "op-2")] {
        agent.say(drained(name, DrainPhase::Evicting)).await;
        assert_eq!(agent.acknowledged().await, name);
    }
}

#[tokio::test]
async fn a_stream_that_says_nonsense_ends_alone() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    world.enrolled("i-2").await;
    let mut sound = Agent::connected(&world, "i-2").await;
    let mut hasty = Agent::silent(&world, "i-1").await;
    hasty.say(drained("op-1", DrainPhase::Drained)).await;
    assert_eq!(hasty.hear().await, Err(Code::InvalidArgument));
    for nonsense in [
        Report::Hello(Hello::default()),
        drained("", DrainPhase::Drained),
        Report::Boot(v1::BootReport::default()),
        drained(&"x".repeat(100 * 1024), DrainPhase::Drained),
    ] {
        let mut agent = Agent::connected(&world, "i-1").await;
        agent.say(nonsense).await;
        assert_eq!(agent.hear().await, Err(Code::InvalidArgument));
    }
    let mut empty = Agent::connected(&world, "i-1").await;
    empty.up.send(SessionRequest::default()).await.unwrap();
    assert_eq!(empty.hear().await, Err(Code::InvalidArgument));
    sound.say(drained("op-2", DrainPhase::Evicting)).await;
    assert_eq!(sound.acknowledged().await, "op-2");
}

#[tokio::test]
async fn an_agent_that_sends_without_end_is_stopped() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let mut agent = Agent::connected(&world, "i-1").await;
    let up = agent.up.clone();
    let flood = tokio::spawn(async move {
        let request = SessionRequest {
            time: None,
            report: Some(Report::Health(Health::default())),
        };
        while up.send(request.clone()).await.is_ok() {}
    });
    assert_eq!(agent.hear().await, Err(Code::ResourceExhausted));
    drop(agent);
    flood.abort();
}

#[tokio::test]
async fn a_revoked_agent_is_thrown_out_of_its_open_stream() {
    let world = World::new().await;
    let mut record = world.enrolled("i-1").await;
    let mut agent = Agent::connected(&world, "i-1").await;
    agent
        .say(Report::Health(Health {
            cpu_percent: Some(1.0),
            ..Health::default()
        }))
        .await;
    until(async || world.sessions.latest().remove(&id("i-1"))).await;
    record.revoked_at = Some(jiff::Timestamp::now());
    world.put(&record).await;
    // Within a second, by the period of `upkeep`.
    assert_eq!(agent.hear().await, Err(Code::PermissionDenied));
    assert!(world.sessions.latest().is_empty());
}

#[tokio::test]
async fn a_follower_sends_agents_to_the_leader_also_those_it_had() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let mut agent = Agent::connected(&world, "i-1").await;
    world.leadership.send_replace(Leadership::Follower {
        leader: Some("b".parse().unwrap()),
    });
    let mut late = Agent::silent(&world, "i-1").await;
    late.say(Report::Hello(Hello::default())).await;
    for agent in [&mut agent, &mut late] {
        let Ok(Command::Redirect(redirect)) = agent.hear().await else {
            panic!("no redirect")
        };
        assert_eq!(redirect.endpoints, ["127.0.0.1:2"]);
        assert_eq!(agent.hear().await, Err(Code::Ok));
    }
}

#[tokio::test]
async fn open_sessions_end_with_the_server() {
    let mut world = World::new().await;
    world.enrolled("i-1").await;
    let mut agent = Agent::connected(&world, "i-1").await;
    world.shutdown.cancel();
    assert_eq!(agent.hear().await, Err(Code::Unavailable));
    drop(agent);
    let ended = tokio::time::timeout(Duration::from_secs(10), &mut world.server)
        .await
        .unwrap();
    ended.unwrap().unwrap();
}
