//! What `smartscale check` is answered.

use smartscale_proto::{
    check::Report,
    identity::Role,
    v1::{self, checks_client::ChecksClient},
};

use crate::serve::testing::{World, person};

#[tokio::test]
async fn a_viewer_learns_what_the_coordinator_finds_and_that_is_audited() {
    let world = World::new().await;
    let channel = world.channel(world.credential(person(Role::Viewer))).await;
    let answer = ChecksClient::new(channel).check(v1::CheckRequest {}).await;
    let reports: Vec<Report> = answer
        .unwrap()
        .into_inner()
        .reports
        .into_iter()
        .map(Report::from)
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
