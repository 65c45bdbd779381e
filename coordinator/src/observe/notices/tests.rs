#![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
use smartscale_proto::time::to_wire;

use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2026-01-02T03:04:05Z";

pub(crate) fn said(kind: NoticeKind, source: NoticeSource, id: &str, at: Option<&str>) -> Said {
    Said {
        instance: "i-1".parse().unwrap(),
        kind,
        at: at.map(time),
        detail: "terminate".into(),
        source,
        id: id.into(),
    }
}

#[test]
fn the_same_from_the_same_changes_nothing_and_from_another_adds_who_said_it() {
    let agent = said(NoticeKind::SpotInterruption, NoticeSource::Agent, "a", None);
    let queue = said(
        NoticeKind::SpotInterruption,
        NoticeSource::Queue,
        "q",
        Some("2026-01-02T03:06:00Z"),
    );
    let mut notice = Notice::first(queue.clone(), time(NOW));
    assert_eq!(notice.own_drain(), None);
    assert_eq!(notice.add(&queue, time(NOW)), Change::Nothing);
    assert_eq!(notice.add(&agent, time(NOW)), Change::Source);
    assert_eq!(notice.add(&agent, time(NOW)), Change::Nothing);
    assert_eq!(notice.sources(), "queue, agent");
    assert_eq!(notice.own_drain().as_deref(), Some("notice/a"));
    assert_eq!(notice.at, Some(time("2026-01-02T03:06:00Z")));
}

#[test]
fn of_two_times_the_earlier_counts() {
    let first = said(
        NoticeKind::Maintenance,
        NoticeSource::Queue,
        "q",
        Some("2026-01-05T00:00:00Z"),
    );
    let mut notice = Notice::first(first, time(NOW));
    let moved = said(
        NoticeKind::Maintenance,
        NoticeSource::Queue,
        "q",
        Some("2026-01-04T00:00:00Z"),
    );
    assert_eq!(notice.add(&moved, time(NOW)), Change::Particulars);
    assert_eq!(notice.at, Some(time("2026-01-04T00:00:00Z")));
    assert_eq!(notice.sightings.len(), 1);
}

#[test]
fn sightings_are_bounded_and_another_source_is_never_among_those_left_out() {
    let mut notice = Notice::first(
        said(NoticeKind::Maintenance, NoticeSource::Queue, "q", None),
        time(NOW),
    );
    for n in 0..100 {
        notice.add(
            &said(NoticeKind::Maintenance, NoticeSource::Queue, &n.to_string(), None),
            time(NOW),
        );
    }
    assert_eq!(notice.sightings.len(), MOST_SIGHTINGS);
    let agent = said(NoticeKind::Maintenance, NoticeSource::Agent, "a", None);
    assert_eq!(notice.add(&agent, time(NOW)), Change::Source);
    assert_eq!(notice.sources(), "queue, agent");
}

#[test]
fn maintenance_stands_until_it_is_over_and_an_interruption_for_two_days() {
    let until = |kind, at| Notice::first(said(kind, NoticeSource::Agent, "a", at), time(NOW)).until();
    assert_eq!(
        until(NoticeKind::Maintenance, Some("2026-01-20T00:00:00Z")),
        time("2026-01-20T02:00:00Z")
    );
    assert_eq!(
        until(NoticeKind::SpotInterruption, None),
        time("2026-01-04T03:04:05Z")
    );
    assert_eq!(until(NoticeKind::Rebalance, None), time("2026-01-04T03:04:05Z"));
}

#[test]
fn an_agents_notice_is_taken_over_without_a_time_that_cannot_be() {
    let instance: InstanceId = "i-1".parse().unwrap();
    let wire = |at: &str| v1::Notice {
        kind: v1::NoticeKind::Maintenance.into(),
        id: "n".into(),
        at: Some(to_wire(time(at))),
        detail: format!("line\nfeed{}", "x".repeat(100)),
        seen_at: None,
    };
    let said = |at| Said::by_agent(&instance, &wire(at), time(NOW)).unwrap();
    assert_eq!(
        said("2026-01-03T00:00:00Z").at,
        Some(time("2026-01-03T00:00:00Z"))
    );
    assert_eq!(said("2036-01-03T00:00:00Z").at, None);
    assert_eq!(
        said("2036-01-03T00:00:00Z").detail.chars().count(),
        LONGEST_DETAIL
    );
    let unknown = v1::Notice {
        kind: 99,
        ..wire("2026-01-03T00:00:00Z")
    };
    assert_eq!(Said::by_agent(&instance, &unknown, time(NOW)), None);
}
