//! A history from Prometheus instead of a file: what it is asked, what becomes of its answers, and what is refused.

use std::{
    process::Output,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use axum::{Router, http::HeaderMap, routing::post};

use super::{Folder, json, said};

/// A Prometheus that answers as it is told, and what it was asked.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<Asked>>>,
}

#[derive(Debug, Clone)]
struct Asked {
    query: String,
    start: i64,
    end: i64,
    step: String,
    authorization: Option<String>,
}

impl Server {
    fn new(answer: impl Fn(&Asked) -> String + Clone + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&seen);
        let (address, listening) = mpsc::channel();
        // It ends with the test's process.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                let ask = async move |headers: HeaderMap, form: String| {
                    let one = Asked::of(&headers, &form);
                    asked.lock().unwrap().push(one.clone());
                    answer(&one)
                };
                axum::serve(listener, Router::new().route("/api/v1/query_range", post(ask))).await
            })
        });
        Self {
            url: format!("http://{}", listening.recv().unwrap()),
            seen,
        }
    }

    /// One that has this value in every minute it is asked for.
    fn steady(value: &'static str) -> Self {
        Self::new(move |asked| {
            let minutes = (asked.start..=asked.end).step_by(60);
            series(&minutes.map(|second| (second, value)).collect::<Vec<_>>())
        })
    }

    fn asked(&self) -> Vec<Asked> {
        self.seen.lock().unwrap().clone()
    }
}

impl Asked {
    fn of(headers: &HeaderMap, form: &str) -> Self {
        let field = |name: &str| {
            let mut fields = form.split('&').filter_map(|field| field.split_once('='));
            fields.find(|(key, _)| *key == name).unwrap().1.to_owned()
        };
        Self {
            query: field("query"),
            start: field("start").parse().unwrap(),
            end: field("end").parse().unwrap(),
            step: field("step"),
            authorization: headers
                .get("authorization")
                .map(|value| value.to_str().unwrap().to_owned()),
        }
    }
}

fn series(values: &[(i64, &str)]) -> String {
    let values: Vec<String> = values
        .iter()
        .map(|(second, value)| format!("[{second},\"{value}\"]"))
        .collect();
    matrix(&format!("{{\"metric\":{{}},\"values\":[{}]}}", values.join(",")))
}

fn matrix(series: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":{{\"resultType\":\"matrix\",\"result\":[{series}]}}}}")
}

/// By the policy, on what the server has.
fn run(folder: &Folder, server: &Server, more: &[&str]) -> Output {
    let usual = ["--policy", "policy.toml", "--prometheus", &server.url];
    folder.backtest(&[&usual, more].concat())
}

/// Demand of each minute of the series that it wrote.
fn demand(folder: &Folder) -> Vec<f64> {
    let series = std::fs::read_to_string(folder.path("series.csv")).unwrap();
    let rows = series
        .lines()
        .skip(1)
        .map(|row| row.split(',').nth(1).unwrap().parse().unwrap());
    rows.collect()
}

#[test]
fn requests_a_second_become_requests_of_a_minute() {
    let (folder, server) = (Folder::new(), Server::steady("0.5"));
    let output = run(
        &folder,
        &server,
        &[
            "--query",
            "rps",
            "--days",
            "1",
            "-o",
            "json",
            "--series",
            "series.csv",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(json(&output)["minutes"], 1440);
    assert_eq!(demand(&folder), vec![30.0; 1440]);
}

#[test]
fn cores_in_use_become_the_requests_that_pods_serve_with_them() {
    let (folder, server) = (Folder::new(), Server::steady("1.5"));
    let output = run(
        &folder,
        &server,
        &["--cpu-query", "cores", "--days", "1", "--series", "series.csv"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    // A pod requests half a core and serves 10 requests a minute with it.
    assert_eq!(demand(&folder), vec![30.0; 1440]);
}

#[test]
fn thirty_days_are_asked_in_parts_of_at_most_eleven_thousand_full_minutes() {
    let (folder, server) = (Folder::new(), Server::steady("0.1"));
    let output = run(
        &folder,
        &server,
        &["--query", "sum(rate(x[1m]))", "--compare", "oracle", "-o", "json"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(json(&output)["minutes"], 30 * 1440);
    let asked = server.asked();
    let points: Vec<i64> = asked.iter().map(|one| (one.end - one.start) / 60 + 1).collect();
    assert_eq!(points, [11_000, 11_000, 11_000, 10_200]);
    for one in &asked {
        assert_eq!((one.start % 60, one.end % 60, one.step.as_str()), (0, 0, "60"));
        assert_eq!(one.query, "sum%28rate%28x%5B1m%5D%29%29");
    }
}

#[test]
fn a_minute_without_a_sample_is_a_gap_that_is_not_stretched() {
    let (folder, server) = (
        Folder::new(),
        // The first two samples are three minutes apart.
        Server::new(|asked| {
            series(&[
                (asked.start, "1"),
                (asked.start + 180, "2"),
                (asked.start + 240, "1"),
            ])
        }),
    );
    let output = run(
        &folder,
        &server,
        &["--query", "rps", "--days", "1", "--series", "series.csv"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(demand(&folder), [60.0, 0.0, 0.0, 120.0, 60.0]);
}

#[test]
fn an_answer_that_is_no_demand_is_refused_with_the_query() {
    let folder = Folder::new();
    let two =
        "{\"metric\":{\"a\":\"1\"},\"values\":[[0,\"1\"]]},{\"metric\":{\"a\":\"2\"},\"values\":[[0,\"1\"]]}";
    let error =
        "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"1:5: parse error: unexpected end\"}";
    for (answer, expected) in [
        (matrix(two), "several series where one is expected"),
        (
            matrix(""),
            "answered no data for --days 1: expected requests a second",
        ),
        (
            series(&[(60, "1"), (120, "NaN")]),
            "answered NaN at 1970-01-01T00:02:00Z",
        ),
        (series(&[(60, "-1")]), "answered -1 at 1970-01-01T00:01:00Z"),
        (series(&[(60, "+Inf")]), "answered inf at 1970-01-01T00:01:00Z"),
        (error.to_owned(), "bad_data: 1:5: parse error: unexpected end"),
        ("<html>".to_owned(), "the answer is not Prometheus'"),
    ] {
        let server = Server::new(move |_| answer.clone());
        let output = run(&folder, &server, &["--query", "my{query}", "--days", "1"]);
        assert_eq!(output.status.code(), Some(2), "{expected}");
        let said = said(&output);
        let place = format!("error: {}: query `my{{query}}`: ", server.url);
        assert!(
            said.starts_with(&place) && said.contains(expected),
            "{expected}: {said}"
        );
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_server_that_is_away_is_named() {
    let folder = Folder::new();
    let output = folder.backtest(&[
        "--policy",
        "policy.toml",
        "--prometheus",
        "http://127.0.0.1:1",
        "--query",
        "x",
    ]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said(&output).contains("http://127.0.0.1:1: query `x`: "),
        "{}",
        said(&output)
    );
}

#[test]
fn a_token_or_a_password_is_read_from_its_file() {
    let (folder, server) = (Folder::new(), Server::steady("1"));
    folder.write("token", "t0ken\n");
    folder.write("password", "pa:ss\n");
    let bearer = ["--prometheus-token-file", "token"];
    let basic = [
        "--prometheus-user",
        "jo",
        "--prometheus-password-file",
        "password",
    ];
    for more in [&[][..], &bearer, &basic] {
        let output = run(
            &folder,
            &server,
            &[&["--query", "x", "--days", "1"], more].concat(),
        );
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    let sent: Vec<Option<String>> = server.asked().into_iter().map(|one| one.authorization).collect();
    // jo:pa:ss
    let expected = [
        None,
        Some("Bearer t0ken".to_owned()),
        Some("Basic am86cGE6c3M=".to_owned()),
    ];
    assert_eq!(sent, expected);
    let missing = run(
        &folder,
        &server,
        &["--query", "x", "--prometheus-token-file", "nowhere"],
    );
    assert_eq!(missing.status.code(), Some(2));
    assert!(said(&missing).contains("nowhere: "), "{}", said(&missing));
}

#[test]
fn what_a_server_warns_of_is_passed_on() {
    let folder = Folder::new();
    let server = Server::new(|asked| {
        series(&[(asked.start, "1")]).replacen('{', "{\"warnings\":[\"a store is away\"],", 1)
    });
    let output = run(&folder, &server, &["--query", "x", "--days", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("warning: ") && said(&output).contains("a store is away"));
}

#[test]
fn a_history_comes_from_a_file_or_from_one_query() {
    let folder = Folder::new();
    for (arguments, expected) in [
        (&[][..], "--trace"),
        (
            &["--trace", "trace.csv", "--prometheus", "http://a"],
            "cannot be used with",
        ),
        (&["--trace", "trace.csv", "--query", "x"], "cannot be used with"),
        (&["--trace", "trace.csv", "--days", "3"], "cannot be used with"),
        (&["--query", "x"], "--trace"),
        (&["--prometheus", "http://a"], "expected --query"),
        (
            &["--prometheus", "http://a", "--query", "x", "--cpu-query", "y"],
            "cannot be used with",
        ),
        (&["--prometheus", "a:9090", "--query", "x"], "http://HOST:PORT"),
        (
            &["--prometheus", "http://jo:pw@a", "--query", "x"],
            "--prometheus-user",
        ),
        (
            &["--prometheus", "http://a", "--query", "x", "--days", "0"],
            "1..=3650",
        ),
        (
            &[
                "--prometheus",
                "http://a",
                "--query",
                "x",
                "--prometheus-user",
                "jo",
            ],
            "--prometheus-password-file",
        ),
    ] {
        let output = folder.backtest(&[&["--policy", "policy.toml"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(
            said(&output).contains(expected),
            "{arguments:?}: {}",
            said(&output)
        );
        assert!(!said(&output).contains("pw"), "{}", said(&output));
    }
}
