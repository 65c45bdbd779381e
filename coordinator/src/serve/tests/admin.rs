//! What people see and order.

use std::time::Duration;

use smartscale_proto::{
    identity::Role,
    time::{age, duration_to_wire},
    v1::{self, explain_request::Subject},
};
use tonic::Code;

use crate::{
    observe::notices::{NoticeKind, NoticeSource, Said},
    serve::testing::{World, until},
    state::{
        lease::Leadership,
        records::{BrakesLifted, Floor, Pause, Record as _},
    },
};

#[tokio::test]
async fn the_status_says_who_leads_and_what_does_not_answer() {
    let world = World::new().await;
    world.decide();
    let status = world
        .people(Role::Viewer)
        .await
        .status(v1::StatusRequest {})
        .await
        .unwrap()
        .into_inner();
    assert!(status.leading);
    assert_eq!((status.leader.as_str(), status.epoch), ("a", 7));
    assert_eq!(
        (status.nodes_total, status.nodes_ready, status.pods_pending),
        (2, 2, 1)
    );
    assert!(
        status
            .warnings
            .iter()
            .any(|one| one.contains("prometheus does not answer: connection refused"))
    );
    assert_eq!(status.cpu_percent, None);
    let audited = world.audited("Admin/Status", "ok").await;
    assert_eq!(audited.who, "spiffe://smartscale/cluster/demo/admin/viewer/jo");
}

#[tokio::test]
async fn before_the_first_decision_status_answers_and_lists_come_later() {
    let world = World::new().await;
    let mut client = world.people(Role::Viewer).await;
    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.warnings.iter().any(|one| one.contains("no decision")));
    assert_eq!(
        client
            .list_nodes(v1::ListNodesRequest {})
            .await
            .unwrap_err()
            .code(),
        Code::Unavailable
    );
}

#[tokio::test]
async fn nodes_pods_and_blockers_are_as_the_decision_saw_them() {
    let world = World::new().await;
    world.decide();
    let mut client = world.people(Role::Viewer).await;
    let nodes = client
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap()
        .into_inner()
        .nodes;
    let names: Vec<_> = nodes
        .iter()
        .map(|node| (node.name.as_str(), node.pool.as_str(), node.state.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("master", "", "ready"),
            ("node-a", "workers", "ready"),
            ("node-b", "workers", "ready")
        ]
    );
    assert_eq!(nodes[1].pods, 1);
    assert_eq!(nodes[1].cpu_percent, None);
    let pending = v1::ListPodsRequest { pending_only: true };
    let pods = client.list_pods(pending).await.unwrap().into_inner().pods;
    assert_eq!(pods.len(), 1);
    assert_eq!(
        (pods[0].name.as_str(), pods[0].code.as_str(), pods[0].cpu_millis),
        ("big", "NoInstanceTypeFits", 64_000)
    );
    let blockers = client
        .list_blockers(v1::ListBlockersRequest {})
        .await
        .unwrap()
        .into_inner()
        .blockers;
    let bare = blockers.iter().find(|one| one.code == "NotReplicated").unwrap();
    assert_eq!(
        (bare.node.as_str(), bare.pod.as_str()),
        ("node-a", "default/web-1")
    );
    assert!(bare.remedy.contains("controller") && bare.age.is_some());
    assert!(blockers.iter().all(|one| one.node != "master"));
}

#[tokio::test]
async fn what_ec2_announced_is_shown_with_who_said_so_and_what_the_pool_says_to_it() {
    let world = World::new().await;
    world.decide();
    let said = |source, id: &str| Said {
        instance: "node-a".parse().unwrap(),
        kind: NoticeKind::Maintenance,
        at: Some("2036-01-05T00:00:00Z".parse().unwrap()),
        detail: "instance-stop".to_owned(),
        source,
        id: id.to_owned(),
    };
    for one in [said(NoticeSource::Agent, "a"), said(NoticeSource::Queue, "q")] {
        world.sessions.board().take(one).await.unwrap();
    }
    let mut client = world.people(Role::Viewer).await;
    let nodes = client
        .list_nodes(v1::ListNodesRequest {})
        .await
        .unwrap()
        .into_inner()
        .nodes;
    let notice = &nodes[1].notices[0];
    let sources: Vec<_> = notice.sightings.iter().map(|one| one.source.as_str()).collect();
    assert_eq!(
        (notice.kind.as_str(), notice.detail.as_str()),
        ("maintenance", "instance-stop")
    );
    assert_eq!(sources, ["agent", "queue"]);
    assert!(nodes[2].notices.is_empty());

    let request = v1::ExplainRequest {
        subject: Some(Subject::Node("node-a".to_owned())),
    };
    let lines = client
        .explain(request)
        .await
        .unwrap()
        .into_inner()
        .lines
        .join("\n");
    for part in [
        "EC2 has scheduled maintenance of the machine (instance-stop) at 2036-01-05T00:00:00Z; said by agent",
        "and queue",
        "It is replaced for that from 1 d 0 h before it begins",
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
}

#[tokio::test]
async fn explain_tells_the_chain_of_reasons() {
    let world = World::new().await;
    world.decide();
    let mut client = world.people(Role::Viewer).await;
    let mut explain = async |subject| {
        let request = v1::ExplainRequest {
            subject: Some(subject),
        };
        client.explain(request).await.map(tonic::Response::into_inner)
    };
    let decision = explain(Subject::Id(String::new())).await.unwrap();
    assert!(
        decision
            .lines
            .iter()
            .any(|line| line.starts_with("Rule pending_pods")),
        "{:?}",
        decision.lines
    );
    let node = explain(Subject::Node("node-a".to_owned())).await.unwrap();
    assert!(
        node.lines
            .iter()
            .any(|line| line.contains("NotReplicated") && line.contains("default/web-1"))
    );
    let pod = explain(Subject::Pod("default/big".to_owned())).await.unwrap();
    assert!(
        pod.lines.iter().any(|line| line.contains("NoInstanceTypeFits")),
        "{:?}",
        pod.lines
    );
    let operation = explain(Subject::Id("op-1".to_owned())).await.unwrap();
    assert_eq!(operation.summary, "remove of node-a is in phase draining");

    let wrong = explain(Subject::Node("node-c".to_owned())).await.unwrap_err();
    assert_eq!(wrong.code(), Code::NotFound);
    assert!(
        wrong.message().contains("did you mean node-a, node-b?"),
        "{}",
        wrong.message()
    );
    assert_eq!(
        explain(Subject::Pod("big".to_owned())).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        explain(Subject::Id("op-2".to_owned())).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        explain(Subject::Id("a b".to_owned())).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn orders_are_checked_carried_out_and_audited_with_their_arguments() {
    let world = World::new().await;
    world.decide();
    let mut client = world.people(Role::Operator).await;
    let order = |node: &str| v1::DrainRequest {
        node: node.to_owned(),
        ..v1::DrainRequest::default()
    };
    assert_eq!(
        client
            .drain(order("node-a"))
            .await
            .unwrap()
            .into_inner()
            .operation_id,
        "op-1"
    );
    client
        .cordon(v1::CordonRequest {
            node: "node-b".to_owned(),
        })
        .await
        .unwrap();
    client
        .uncordon(v1::UncordonRequest {
            node: "node-b".to_owned(),
        })
        .await
        .unwrap();
    let refused = client
        .recycle(v1::RecycleRequest {
            node: "node-a".to_owned(),
            reason: String::new(),
        })
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(
        *world.book.0.lock().unwrap(),
        [
            "drain node-a by jo (operator)",
            "cordon node-b",
            "uncordon node-b",
            "recycle node-a by jo (operator)"
        ]
    );
    assert!(
        world
            .audited("Admin/Drain", "ok")
            .await
            .arguments
            .contains("node-a")
    );
    assert_eq!(
        client.drain(order("node-x")).await.unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        client.drain(order("")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    assert_eq!(
        client.drain(order("master")).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let timeout = Some(prost_types::Duration {
        seconds: -5,
        nanos: 0,
    });
    let negative = v1::DrainRequest {
        timeout,
        ..order("node-a")
    };
    assert_eq!(
        client.drain(negative).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    world.audited("Admin/Drain", "invalid_argument").await;
}

#[tokio::test]
async fn a_pause_and_a_floor_are_kept_in_the_store() {
    let world = World::new().await;
    world.decide();
    let mut client = world.people(Role::Operator).await;
    let two_hours = Some(duration_to_wire(Duration::from_secs(7200)));
    let pause = v1::PauseRequest {
        duration: two_hours,
        reason: "a release".to_owned(),
    };
    assert!(client.pause(pause).await.unwrap().into_inner().until.is_some());
    let stored = Pause::from_item(&world.store.get(Pause::PREFIX).await.unwrap().unwrap()).unwrap();
    assert_eq!(
        (stored.by.as_str(), stored.reason.as_str()),
        ("jo (operator)", "a release")
    );
    assert!(
        client
            .status(v1::StatusRequest {})
            .await
            .unwrap()
            .into_inner()
            .paused
    );
    client.resume(v1::ResumeRequest::default()).await.unwrap();
    assert!(
        !client
            .status(v1::StatusRequest {})
            .await
            .unwrap()
            .into_inner()
            .paused
    );

    let scale = |nodes| v1::ScaleRequest {
        nodes,
        duration: None,
        reason: String::new(),
    };
    client.scale(scale(4)).await.unwrap();
    let stored = Floor::from_item(&world.store.get(Floor::PREFIX).await.unwrap().unwrap()).unwrap();
    assert_eq!(stored.nodes, 4);
    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.floor_nodes, status.min_nodes), (4, 4));
    let above = client.scale(scale(1000)).await.unwrap_err();
    assert_eq!(above.code(), Code::InvalidArgument);
    assert!(above.message().contains("max_nodes"));
    client.scale(scale(0)).await.unwrap();
    assert!(world.store.get(Floor::PREFIX).await.unwrap().is_none());
}

#[tokio::test]
async fn a_person_lifts_the_brakes_for_a_time_and_puts_them_back() {
    let world = World::new().await;
    world.decide();
    let mut client = world.people(Role::Operator).await;
    let lift = |seconds| v1::ResumeRequest {
        lift_brakes: Some(prost_types::Duration { seconds, nanos: 0 }),
    };
    let lifted = client.resume(lift(3600)).await.unwrap().into_inner();
    assert!(lifted.brakes_lifted_until.is_some());
    let item = || world.store.get(BrakesLifted::PREFIX);
    let stored = BrakesLifted::from_item(&item().await.unwrap().unwrap()).unwrap();
    assert_eq!(stored.by, "jo (operator)");
    assert_eq!(age(stored.since, stored.until).as_secs(), 3600);
    // Whoever resumes without a word of them leaves them as they are.
    client.resume(v1::ResumeRequest::default()).await.unwrap();
    assert!(item().await.unwrap().is_some());
    let back = client.resume(lift(0)).await.unwrap().into_inner();
    assert_eq!(back.brakes_lifted_until, None);
    assert!(item().await.unwrap().is_none());
    let refusal = client.resume(lift(32 * 24 * 3600)).await.unwrap_err();
    assert!(refusal.message().starts_with("lift_brakes"), "{refusal}");
}

#[tokio::test]
async fn a_follower_answers_questions_and_takes_no_orders() {
    let world = World::new().await;
    world.decide();
    world.leadership.send_replace(Leadership::Follower {
        leader: Some("b".parse().unwrap()),
    });
    let mut client = world.people(Role::Operator).await;
    let status = client.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (status.leading, status.leader.as_str(), status.epoch),
        (false, "b", 7)
    );
    let refusal = client.resume(v1::ResumeRequest::default()).await.unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    assert!(
        refusal.message().contains("`b` at 127.0.0.1:2"),
        "{}",
        refusal.message()
    );
}

#[tokio::test]
async fn watching_people_hear_what_happens_until_the_end() {
    let world = World::new().await;
    let mut client = world.people(Role::Operator).await;
    let mut events = client.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    client.resume(v1::ResumeRequest::default()).await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(
        (event.kind.as_str(), event.message.as_str()),
        ("operation", "jo (operator) resumed scaling")
    );
    world.shutdown.cancel();
    let ended = until(async || events.message().await.err()).await;
    assert_eq!(ended.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_watch_ends_with_the_term_and_a_follower_sends_it_to_the_leader() {
    let world = World::new().await;
    let mut client = world.people(Role::Viewer).await;
    let mut events = client.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    world.leadership.send_replace(Leadership::Follower {
        leader: Some("b".parse().unwrap()),
    });
    let ended = until(async || events.message().await.err()).await;
    let refused = client.watch(v1::WatchRequest {}).await.unwrap_err();
    for status in [ended, refused] {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(status.metadata().contains_key("smartscale-leader"));
    }

    // Nobody is known to lead: what this one says is better than nothing.
    world
        .leadership
        .send_replace(Leadership::Follower { leader: None });
    client.watch(v1::WatchRequest {}).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_what_plan_reads() {
    let world = World::new().await;
    world.decide();
    let files = world
        .people(Role::Viewer)
        .await
        .snapshot(v1::SnapshotRequest {})
        .await
        .unwrap()
        .into_inner();
    let metrics = smartscale_planner::snapshot::Metrics::from_json(&files.metrics_json).unwrap();
    assert!(metrics.cluster.is_empty());
    assert!(smartscale_planner::snapshot::State::from_json(&files.state_json, &"test".into()).is_ok());
    assert_eq!(files.policy_toml, "[cluster]");
}

#[tokio::test]
async fn a_list_is_as_long_as_asked_within_bounds() {
    let world = World::new().await;
    let mut client = world.people(Role::Viewer).await;
    let ask = |limit| v1::ListDecisionsRequest {
        limit,
        include_idle: true,
    };
    assert!(
        client
            .list_decisions(ask(0))
            .await
            .unwrap()
            .into_inner()
            .decisions
            .is_empty()
    );
    assert_eq!(
        client.list_decisions(ask(1001)).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}
