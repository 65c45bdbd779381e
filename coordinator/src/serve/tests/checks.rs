//! What `smartscale check` is answered.

use smartscale_proto::{
    check::{Finding, Outcome, Report as Checked},
    identity::Role,
    v1::{self, Hello, checks_client::ChecksClient, session_request::Report, session_response::Command},
};
use tokio::task::JoinSet;
use tonic::{Code, Status, transport::Channel};

use super::sessions::Agent;
use crate::{
    serve::testing::{World, machine, person, until},
    state::lease::Leadership,
};

async fn viewer(world: &World) -> ChecksClient<Channel> {
    ChecksClient::new(world.channel(world.credential(person(Role::Viewer))).await)
}

/// What the agents find, as a viewer is told.
async fn round(world: &World, node: &str) -> Result<Vec<Checked>, Status> {
    let node = node.to_owned();
    let mut viewer = viewer(world).await;
    let answer = viewer.check_agents(v1::CheckAgentsRequest { node }).await?;
    let reports = answer.into_inner().reports;
    Ok(reports.into_iter().map(Checked::from).collect())
}

/// An agent that knows the command.
async fn able(world: &World, instance: &str) -> Agent {
    world.enrolled(instance).await;
    let hello = Hello {
        agent_version: "0.1.0".to_owned(),
        can_check: true,
        ..Hello::default()
    };
    Agent::of(world, instance, hello).await
}

impl Agent {
    /// The id of a check that is ordered.
    async fn ordered(&mut self) -> String {
        match self.hear().await {
            Ok(Command::Check(command)) => command.id,
            other => panic!("no check but {other:?}"),
        }
    }

    async fn answer(&self, id: &str, report: Checked) {
        let answer = v1::CheckAnswer {
            id: id.to_owned(),
            report: Some(report.into()),
        };
        self.say(Report::Check(answer)).await;
    }
}

fn report(findings: Vec<Finding>) -> Checked {
    Checked {
        program: "coordinator a".to_owned(),
        version: "0.1.0".to_owned(),
        findings,
    }
}

#[tokio::test]
async fn a_viewer_learns_what_the_coordinator_finds_and_that_is_audited() {
    let world = World::new().await;
    let answer = viewer(&world).await.check(v1::CheckRequest {}).await;
    let reports: Vec<Checked> = answer
        .unwrap()
        .into_inner()
        .reports
        .into_iter()
        .map(Checked::from)
        .collect();
    assert_eq!(reports.len(), 1);
    assert_eq!(reports[0].program, "coordinator a");
    assert!(reports[0].has_failed());
    let finding = &reports[0].findings[0];
    assert_eq!(
        [&*finding.area, &finding.tried, &finding.found, &finding.remedy],
        ["store", "read the lease", "no such table", "make it"]
    );
    world.audited("Checks/Check", "ok").await;
}

#[tokio::test]
async fn the_agents_are_asked_and_whoever_cannot_be_says_why() {
    let world = World::new().await;
    let mut agent = able(&world, "i-1").await;
    world.enrolled("i-2").await;
    let old = Hello {
        agent_version: "0.0.1\u{1b}[2J".to_owned(),
        ..Hello::default()
    };
    let _old = Agent::of(&world, "i-2", old).await;
    world.enrolled("i-3").await;
    world.put(&machine("i-4")).await;
    let mut revoked = machine("i-5");
    revoked.revoked_at = Some(jiff::Timestamp::now());
    world.put(&revoked).await;

    let findings = vec![
        Finding::passed("kernel", "read pressure", "it tells"),
        Finding::failed("k3s", "asked the server", "nobody answers", "open 6443"),
    ];
    let (asked, ()) = tokio::join!(round(&world, ""), async {
        let id = agent.ordered().await;
        // An answer to another question, and one that is given twice, change nothing.
        agent.answer("another", report(vec![])).await;
        agent.answer(&id, report(findings.clone())).await;
        agent.answer(&id, report(vec![])).await;
    });
    let reports = asked.unwrap();
    let programs: Vec<_> = reports.iter().map(|report| &*report.program).collect();
    assert_eq!(programs, ["agent i-1", "agent i-2", "agent i-3", "agent i-4"]);
    assert_eq!(reports[0].findings, findings);
    assert_eq!(reports[1].version, "0.0.1 [2J");
    let lines: Vec<_> = reports[1..]
        .iter()
        .flat_map(|report| &report.findings)
        .map(|finding| (finding.outcome, finding.found.split(':').next().unwrap()))
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[0],
        (Outcome::Warning, "its agent is of a version that cannot be asked")
    );
    assert_eq!(lines[1], (Outcome::Failed, "its agent has no session"));
    assert_eq!(lines[2].0, Outcome::Skipped);
    assert!(lines[2].1.starts_with("it was launched at"), "{lines:?}");
    assert!(
        world
            .audited("Checks/CheckAgents", "ok")
            .await
            .arguments
            .contains("node")
    );
}

#[tokio::test]
async fn one_node_is_asked_alone_and_one_that_nobody_knows_is_not_found() {
    let world = World::new().await;
    let mut agent = able(&world, "i-0a1").await;
    world.enrolled("i-0a2").await;
    let (asked, ()) = tokio::join!(round(&world, "i-0a1"), async {
        let id = agent.ordered().await;
        agent.answer(&id, report(vec![])).await;
    });
    assert_eq!(asked.unwrap().len(), 1);
    let refusal = round(&world, "i-0a3").await.unwrap_err();
    assert_eq!(refusal.code(), Code::NotFound);
    assert!(
        refusal.message().contains("did you mean i-0a1, i-0a2?"),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn a_hostile_agents_report_is_cut_and_cleansed_and_one_that_is_too_long_ends_its_stream() {
    let world = World::new().await;
    let mut agent = able(&world, "i-1").await;
    let bell = "\u{7}\u{1b}[2J".repeat(40);
    let (asked, ()) = tokio::join!(round(&world, ""), async {
        let id = agent.ordered().await;
        let line = Finding::failed("k3s", &*bell, "found", "remedy");
        agent.answer(&id, report(vec![line; 100])).await;
    });
    let reports = asked.unwrap();
    assert_eq!(reports[0].findings.len(), 32);
    assert!(
        !reports[0]
            .to_string()
            .chars()
            .any(|c| c.is_control() && c != '\n')
    );

    let (asked, code) = tokio::join!(round(&world, ""), async {
        let id = agent.ordered().await;
        let line = Finding::failed("k3s", "x".repeat(70_000), "found", "remedy");
        agent.answer(&id, report(vec![line])).await;
        agent.hear().await
    });
    assert_eq!(code, Err(Code::InvalidArgument));
    let reports = asked.unwrap();
    assert_eq!(
        reports[0].findings[0].found,
        "its session ended before the answer came"
    );
}

#[tokio::test]
async fn eight_agents_are_asked_at_once_and_the_next_when_one_has_answered() {
    let world = World::new().await;
    let (answered, mut orders) = tokio::sync::mpsc::unbounded_channel();
    let mut agents = JoinSet::new();
    let release = tokio::sync::watch::Sender::new(false);
    for number in 10..20 {
        let mut agent = able(&world, &format!("i-{number}")).await;
        let (answered, mut go) = (answered.clone(), release.subscribe());
        agents.spawn(async move {
            let id = agent.ordered().await;
            answered.send(()).unwrap();
            go.wait_for(|go| *go).await.unwrap();
            agent.answer(&id, report(vec![])).await;
            agent
        });
    }
    let asking = async {
        for _ in 0..8 {
            orders.recv().await.unwrap();
        }
        // A question to the coordinator itself goes through meanwhile, and no further agent is asked.
        viewer(&world).await.check(v1::CheckRequest {}).await.unwrap();
        assert!(orders.try_recv().is_err());
        release.send_replace(true);
    };
    let (asked, ()) = tokio::join!(round(&world, ""), asking);
    assert_eq!(asked.unwrap().len(), 10);
    agents.join_all().await;
}

#[tokio::test]
async fn a_follower_sends_to_the_leader_and_an_agent_may_not_ask() {
    let world = World::new().await;
    world.enrolled("i-1").await;
    let party = smartscale_proto::identity::Party::Agent {
        instance: "i-1".parse().unwrap(),
    };
    let mut agent = ChecksClient::new(world.channel(world.credential(party)).await);
    let refusal = agent.check_agents(v1::CheckAgentsRequest::default()).await;
    assert_eq!(refusal.unwrap_err().code(), Code::PermissionDenied);
    world.leadership.send_replace(Leadership::Follower {
        leader: Some("b".parse().unwrap()),
    });
    let refusal = round(&world, "").await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert_eq!(
        refusal.metadata().get("smartscale-leader").unwrap(),
        "127.0.0.1:2"
    );
    world.audited("Checks/CheckAgents", "failed_precondition").await;
}

#[tokio::test]
async fn an_agent_that_goes_while_it_is_asked_holds_nobody_up() {
    let world = World::new().await;
    let mut agent = able(&world, "i-1").await;
    let (asked, ()) = tokio::join!(round(&world, ""), async {
        agent.ordered().await;
        drop(agent);
    });
    let reports = asked.unwrap();
    assert_eq!(
        reports[0].findings[0].found,
        "its session ended before the answer came"
    );
    until(async || world.sessions.connected().is_empty().then_some(())).await;
}
