#![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
use std::sync::Arc;

use axum::{Router, body::Body, response::Response, routing::post};
use http::StatusCode;
use smartscale_proto::time::SystemClock;
use tokio::net::TcpListener;

use super::*;

fn vector(series: &str) -> String {
    format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{series}]}}}}"#)
}

fn value(text: &str) -> String {
    vector(&format!(r#"{{"metric":{{}},"value":[1767323045.1,"{text}"]}}"#))
}

/// A server that answers each query (by a word in it) with a status and a body.
async fn server(answers: Vec<(&'static str, u16, String)>) -> Settings {
    let answer = async move |body: String| {
        let (_, status, text) = answers
            .iter()
            .find(|(word, ..)| body.contains(word))
            .cloned()
            .unwrap_or(("", 200, vector("")));
        Response::builder().status(status).body(Body::from(text)).unwrap()
    };
    let app = Router::new().route("/prom/api/v1/query", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/prom/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    let query = |text: &str| Some(text.to_owned());
    Settings {
        url,
        queries: Queries {
            cpu: query("CPU"),
            memory: query("MEMORY"),
            node_cpu: query("EACH"),
            node_memory: query("SIZE"),
        },
        ..Settings::default()
    }
}

async fn read(settings: &Settings) -> Result<MetricsReading, MetricsError> {
    Prometheus::new(settings, Arc::new(SystemClock))
        .unwrap()
        .read()
        .await
}

#[tokio::test]
async fn figures_are_read_and_nodes_found_by_their_label() {
    let nodes = vector(
        r#"{"metric":{"node":"i-1:9100"},"value":[1,"12.5"]},{"metric":{"node":"i-2:9100"},"value":[1,"120"]}"#,
    );
    let mut settings = server(vec![
        ("CPU", 200, value("70")),
        (
            "MEMORY",
            200,
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"40.25"]}}"#.into(),
        ),
        ("EACH", 200, nodes),
    ])
    .await;
    settings.node_template = "$node:9100".into();
    let reading = read(&settings).await.unwrap();
    assert_eq!(
        (reading.cpu_percent, reading.memory_percent),
        (Some(70.0), Some(40.25))
    );
    assert_eq!(reading.nodes[&NodeName::from("i-1")], (Some(12.5), None));
    assert_eq!(reading.nodes[&NodeName::from("i-2")], (Some(120.0), None));
    assert!(reading.problems.is_empty());
}

#[tokio::test]
async fn no_series_and_nan_are_unknown_and_no_problem() {
    let settings = server(vec![("CPU", 200, value("NaN"))]).await;
    assert_eq!(read(&settings).await, Ok(MetricsReading::default()));
}

#[tokio::test]
async fn a_figure_that_is_no_percentage_is_a_problem_that_names_its_query() {
    for bad in ["-1", "+Inf", "-Inf", "many"] {
        let settings = server(vec![("CPU", 200, value(bad)), ("MEMORY", 200, value("50"))]).await;
        let reading = read(&settings).await.unwrap();
        assert_eq!((reading.cpu_percent, reading.memory_percent), (None, Some(50.0)));
        assert!(
            reading.problems[0].contains("query `cpu`"),
            "{:?}",
            reading.problems
        );
    }
}

#[tokio::test]
async fn several_series_where_one_is_expected_are_unknown() {
    let two = vector(r#"{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"2"]}"#);
    let settings = server(vec![("CPU", 200, two), ("MEMORY", 200, value("50"))]).await;
    let reading = read(&settings).await.unwrap();
    assert_eq!(reading.cpu_percent, None);
    assert!(reading.problems[0].contains("2 series"));
}

#[tokio::test]
async fn a_node_with_two_series_is_unknown_and_the_others_count() {
    let nodes = vector(
        r#"{"metric":{"node":"a"},"value":[1,"1"]},{"metric":{"node":"a"},"value":[1,"2"]},
           {"metric":{"node":"b"},"value":[1,"3"]},{"metric":{},"value":[1,"4"]}"#,
    );
    let settings = server(vec![("EACH", 200, nodes)]).await;
    let reading = read(&settings).await.unwrap();
    assert_eq!(reading.nodes.len(), 1);
    assert_eq!(reading.problems.len(), 2);
}

#[tokio::test]
async fn prometheus_own_error_is_passed_on() {
    let error = r#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}"#;
    let settings = server(
        ["CPU", "MEMORY", "EACH", "SIZE"]
            .map(|word| (word, 400, error.to_owned()))
            .into(),
    )
    .await;
    let error = read(&settings).await.unwrap_err().0;
    assert_eq!(error, "query `cpu`: bad_data: parse error: unexpected end");
}

#[tokio::test]
async fn an_answer_that_is_too_large_or_no_json_is_refused() {
    let mut settings = server(vec![
        ("CPU", 200, "x".repeat(4096)),
        ("MEMORY", 502, "<html>".into()),
    ])
    .await;
    settings.most_bytes = 1024;
    let error = read(&settings).await.unwrap_err().0;
    assert!(error.contains("larger than 1024 bytes"), "{error}");
    assert!(error.contains("502"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_and_not_zero() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        url: format!("http://{}", listener.local_addr().unwrap()),
        ..Settings::default()
    };
    drop(listener);
    assert!(read(&settings).await.is_err());
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings {
        url: format!("http://{}", listener.local_addr().unwrap()),
        timeout: Duration::from_millis(20),
        ..Settings::default()
    };
    assert!(read(&settings).await.unwrap_err().0.contains("no answer within"));
}

#[test]
fn templates_are_filled_and_unknown_names_refused() {
    let settings = Settings {
        cluster_id: "k3s".into(),
        ..Settings::default()
    };
    assert_eq!(
        fill(r#"rate(x{c="$cluster",d=~"a$"}[$window])"#, &settings),
        Ok(r#"rate(x{c="k3s",d=~"a$"}[120s])"#.to_owned())
    );
    assert!(fill("x[$range]", &settings).unwrap_err().contains("$range"));
}

#[test]
fn settings_that_cannot_work_are_refused_with_their_key() {
    let refused = |settings: Settings| Prometheus::new(&settings, Arc::new(SystemClock)).unwrap_err().key;
    assert_eq!(
        refused(Settings {
            url: "prometheus:9090".into(),
            ..Settings::default()
        }),
        "url"
    );
    assert_eq!(
        refused(Settings {
            node_label: String::new(),
            ..Settings::default()
        }),
        "queries.node_label"
    );
    assert_eq!(
        refused(Settings {
            node_template: "node".into(),
            ..Settings::default()
        }),
        "queries.node_template"
    );
    assert_eq!(
        refused(Settings {
            ca_file: Some("/nonexistent".into()),
            ..Settings::default()
        }),
        "ca_file"
    );
}

mod fuzz {
    use smartscale_fuzz::{Target, fuzz};

    use super::*;

    #[test]
    fn answers_of_prometheus() {
        let vector =
            vector(r#"{"metric":{"node":"a","instance":"10.0.0.1:9100"},"value":[1767323045.1,"51.5"]}"#);
        let target = Target {
            name: "coordinator/prometheus",
            seeds: &[
                vector.as_bytes(),
                br#"{"status":"success","data":{"resultType":"scalar","result":[1767323045.1,"NaN"]}}"#,
                br#"{"status":"error","errorType":"bad_data","error":"parse error"}"#,
                br#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#,
            ],
            words: &[
                "\"NaN\"",
                "\"+Inf\"",
                "\"-1\"",
                "\"1e309\"",
                "[",
                "]",
                "{",
                "}",
                ",",
                "\"value\":",
                "\"vector\"",
                "\"string\"",
            ],
            kept: None,
        };
        fuzz(target, |input| {
            let read = |status| match server::parse(status, input).and_then(|(data, _)| at_once(data)) {
                Ok(series) => series
                    .iter()
                    .map(|one| match one.figure() {
                        Ok(Some(value)) => {
                            assert!(value.is_finite() && value >= 0.0);
                            "figure ".to_owned()
                        }
                        Ok(None) => "unknown ".to_owned(),
                        Err(error) => error,
                    })
                    .collect::<String>(),
                Err(error) => error,
            };
            format!("{} {}", read(StatusCode::OK), read(StatusCode::BAD_GATEWAY))
        });
    }
}
