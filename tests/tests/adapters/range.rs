//! Histories from Prometheus: what a real server answers to a query over a time.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use smartscale_coordinator::observe::prometheus::{Range, Server, Settings};
use smartscale_proto::time::SystemClock;
use smartscale_tests::rig::{Folder, Prometheus};

async fn server(name: &str) -> (Folder, Prometheus, Server) {
    let folder = Folder::new(name).unwrap();
    let prometheus = Prometheus::start(&folder).await.unwrap();
    let settings = Settings {
        url: prometheus.url(),
        timeout: Duration::from_secs(60),
        most_bytes: 16 << 20,
        ..Settings::default()
    };
    let server = Server::new(&settings, Arc::new(SystemClock)).unwrap();
    (folder, prometheus, server)
}

/// So many minutes, the last of them not long ago.
fn minutes(number: i64) -> Range {
    let to: Timestamp = "2026-03-01T00:00:00Z".parse().unwrap();
    Range {
        from: to - SignedDuration::from_mins(number - 1),
        to,
        step: Duration::from_secs(60),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_of_minutes_comes_in_as_many_parts_as_the_server_wants_without_a_seam() {
    let (_folder, _prometheus, server) = server("range-month").await;
    let month = minutes(43_200);
    let samples = server.range("vector(time())", month).await.unwrap();
    assert_eq!((samples.values.len(), samples.warnings.len()), (43_200, 0));
    for (index, (time, value)) in (0..).zip(&samples.values) {
        assert_eq!(*time, month.from + SignedDuration::from_mins(index));
        assert_eq!(*value, time.as_second() as f64);
    }
    // Every second of some hours: one part more than a single answer may hold.
    let by_second = Range {
        step: Duration::from_secs(1),
        ..minutes(200)
    };
    let samples = server.range("vector(1)", by_second).await.unwrap();
    assert_eq!(samples.values.len(), 11_941);
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_are_left_out_and_what_is_no_number_is_passed_on() {
    let (_folder, _prometheus, server) = server("range-gaps").await;
    let every_other = "vector(time()) % 120 == 0";
    let samples = server.range(every_other, minutes(10)).await.unwrap();
    let seconds: Vec<i64> = samples
        .values
        .iter()
        .map(|(time, _)| time.as_second() % 120)
        .collect();
    assert_eq!(seconds, [0; 5]);
    let nothing = server.range("vector(1) > 2", minutes(10)).await.unwrap();
    assert!(nothing.values.is_empty());
    let undefined = server.range("vector(0) / vector(0)", minutes(2)).await.unwrap();
    assert!(undefined.values.len() == 2 && undefined.values.iter().all(|(_, value)| value.is_nan()));
    let scalar = server.range("2 * 21", minutes(2)).await.unwrap();
    assert_eq!(
        scalar.values.iter().map(|(_, value)| *value).collect::<Vec<_>>(),
        [42.0, 42.0]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_series_and_what_the_server_refuses_are_said() {
    let (_folder, _prometheus, server) = server("range-refusals").await;
    for (query, said) in [
        (
            "label_replace(vector(1), \"shop\", \"x\", \"\", \"\") or vector(2)",
            "several series",
        ),
        ("sum(vector(1)", "bad_data"),
        ("vector(1)[5m]", "bad_data"),
    ] {
        let error = server.range(query, minutes(2)).await.unwrap_err();
        assert!(error.contains(said), "{query}: {error}");
    }
}
