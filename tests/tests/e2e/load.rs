//! The load test that `make load` runs at length, for as long as a test may take.

use std::time::Duration;

use smartscale_tests::load::{Plan, run};

#[tokio::test(flavor = "multi_thread")]
async fn people_who_come_in_a_day_of_forty_seconds_are_served_by_more_than_one_node_and_the_day_is_drawn() {
    let plan = Plan {
        profile: "daily".into(),
        length: Duration::from_secs(40),
        peak: 100,
    };
    let report = run(&plan).await.unwrap();
    assert!(report.launched() > 1, "{report}");
    // At night as at noon: a hundred a second at the highest, a quarter of that at the lowest.
    assert!((1000..4000).contains(&report.answered()), "{report}");
    let folder = tempfile::tempdir().unwrap();
    let picture = folder.path().join("day.svg");
    report.draw(&picture).unwrap();
    let drawn = std::fs::read_to_string(picture).unwrap();
    for panel in ["latency", "requests a second", "pods", "nodes", "USD an hour"] {
        assert!(drawn.contains(panel), "no panel {panel}");
    }
}
