//! Checks that the coordinator asks for.

use smartscale_proto::{
    check,
    v1::session_response::Command::{self, Check},
};

use super::*;

fn check(id: &str) -> Command {
    Check(v1::CheckCommand { id: id.to_owned() })
}

fn answer(report: Report) -> Option<v1::CheckAnswer> {
    match report {
        Report::Check(answer) => Some(answer),
        _ => None,
    }
}

#[tokio::test]
async fn a_check_that_is_asked_for_is_answered_by_name_and_not_again_in_the_next_session() {
    let mut rig = coordinator(|_| {}).await;
    let machinery = machinery(&rig.address, &rig.coordinator.ca);
    let agent = machinery.start();
    let hello = rig.report(|report| match report {
        Report::Hello(hello) => Some(hello),
        _ => None,
    });
    assert!(hello.await.can_check);
    rig.boot(v1::BootStep::Ready, v1::Outcome::Done).await;
    rig.coordinator.order(check(&"x".repeat(65)));
    rig.coordinator.order(check("c-1"));
    let first = rig.report(answer).await;
    assert_eq!(first.id, "c-1", "what makes no sense is not carried out");
    let report = check::Report::from(first.report.unwrap());
    assert_eq!(report.program, "agent i-1");
    let passed = |area: &str| {
        let mut lines = report.findings.iter().filter(|finding| finding.area == area);
        lines.any(|finding| finding.outcome == check::Outcome::Passed)
    };
    assert!(
        passed("coordinator") && passed("secrets") && passed("node"),
        "{report}"
    );

    // The stream ends, and the next one brings what is asked in it alone.
    let ended = Err(Status::unavailable("on its way out"));
    rig.coordinator
        .orders
        .lock()
        .unwrap()
        .pop()
        .unwrap()
        .send(ended)
        .unwrap();
    rig.report(|report| matches!(report, Report::Hello(_)).then_some(()))
        .await;
    // After the welcome, which is how far an old answer would have come.
    rig.report(|report| matches!(report, Report::Health(_)).then_some(()))
        .await;
    rig.coordinator.order(check("c-2"));
    assert_eq!(rig.report(answer).await.id, "c-2");
    drop(agent);
}
