//! One series over a time, asked for in parts that a server answers.
//!
//! ```text
//!   from ├── 11,000 points ──┤├── 11,000 points ──┤├── the rest ──┤ to
//! ```

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::server::{Data, Line, Server, number};

/// Points of one series that Prometheus answers at most: "exceeded maximum resolution of 11,000 points per timeseries".
const MOST_POINTS: i64 = 11_000;

/// When a query is evaluated: from one time to another, both ends, every so often. Whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First.
    pub from: Timestamp,
    /// At the latest.
    pub to: Timestamp,
    /// Between two evaluations; at least a second.
    pub step: Duration,
}

impl Range {
    /// The parts, as first and last second of each.
    fn parts(&self) -> Vec<(i64, i64)> {
        let step = i64::try_from(self.step.as_secs()).unwrap_or(i64::MAX).max(1);
        let (from, to) = (self.from.as_second(), self.to.as_second());
        let length = step.saturating_mul(MOST_POINTS);
        let last = |first: i64| first.saturating_add(length - step).min(to);
        std::iter::successors(Some(from), |first| first.checked_add(length))
            .take_while(|first| *first <= to)
            .map(|first| (first, last(first)))
            .collect()
    }
}

/// What a query came to over a time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples {
    /// In the order of time. Where there was nothing, nothing stands; a value may be NaN or infinite.
    pub values: Vec<(Timestamp, f64)>,
    /// What the server warned of, each once.
    pub warnings: Vec<String>,
}

impl Server {
    /// The one series that `query` has in `range`, part after part.
    ///
    /// # Errors
    /// A sentence: no answer, the server's own error, several series where one is expected, histograms.
    pub async fn range(&self, query: &str, range: Range) -> Result<Samples, String> {
        let step = range.step.as_secs().max(1).to_string();
        let mut samples = Samples::default();
        let mut labels: Option<BTreeMap<String, String>> = None;
        for (first, last) in range.parts() {
            let (first, last) = (first.to_string(), last.to_string());
            let form = [
                ("query", query),
                ("start", &first),
                ("end", &last),
                ("step", &step),
                // One too many is enough to know; older servers pass it over.
                ("limit", "2"),
            ];
            let (data, warnings) = self.ask_with_warnings("query_range", &form).await?;
            let Some(line) = one(data)? else { continue };
            if labels.get_or_insert_with(|| line.metric.clone()) != &line.metric {
                return Err(SEVERAL.to_owned());
            }
            for (time, text) in line.values {
                samples.values.push((moment(time)?, number(&text)?));
            }
            samples.warnings.extend(warnings);
        }
        samples.warnings.sort();
        samples.warnings.dedup();
        Ok(samples)
    }
}

const SEVERAL: &str =
    "answered with several series where one is expected; an aggregation such as sum() makes one of them";

/// The one series of an answer, if there is any.
fn one(data: Data) -> Result<Option<Line>, String> {
    let Data::Matrix(lines) = data else {
        return Err("answered with no series over time".to_owned());
    };
    let mut lines = lines.into_iter();
    match (lines.next(), lines.next()) {
        (_, Some(_)) => Err(SEVERAL.to_owned()),
        (Some(line), None) if line.histograms.is_some() => Err(
            "answered with histograms where numbers are expected; histogram_count() makes numbers of them"
                .to_owned(),
        ),
        (line, None) => Ok(line),
    }
}

/// A time as Prometheus writes it: seconds, with milliseconds as their fraction.
fn moment(seconds: f64) -> Result<Timestamp, String> {
    let millis = (seconds * 1000.0).round();
    #[allow(
        clippy::cast_possible_truncation,
        reason = "what is beyond is no time, and saturates"
    )]
    Timestamp::from_millisecond(millis as i64).map_err(|_| format!("{seconds} is no time"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use std::sync::{Arc, Mutex};

    use axum::{Router, routing::post};
    use smartscale_proto::time::SystemClock;
    use tokio::net::TcpListener;

    use super::*;
    use crate::observe::prometheus::Settings;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn range(from: i64, to: i64) -> Range {
        Range {
            from: at(from),
            to: at(to),
            step: Duration::from_secs(60),
        }
    }

    /// A server that gives these answers one after the other, and the forms that it was sent.
    async fn server(answers: &[&str]) -> (Server, Arc<Mutex<Vec<String>>>) {
        let forms = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&forms);
        let answers: Vec<String> = answers.iter().map(|text| (*text).to_owned()).collect();
        let answer = async move |body: String| {
            let mut seen = seen.lock().unwrap();
            seen.push(body);
            answers[(seen.len() - 1).min(answers.len() - 1)].clone()
        };
        let app = Router::new().route("/prom/api/v1/query_range", post(answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            url: format!("http://{}/prom/", listener.local_addr().unwrap()),
            ..Settings::default()
        };
        tokio::spawn(async move { axum::serve(listener, app).await });
        (Server::new(&settings, Arc::new(SystemClock)).unwrap(), forms)
    }

    fn matrix(series: &str) -> String {
        format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}"#)
    }

    #[test]
    fn no_part_has_more_points_than_prometheus_answers_and_none_is_asked_for_twice() {
        let days = 30 * 86_400;
        let parts = range(0, days).parts();
        let points: Vec<i64> = parts
            .iter()
            .map(|(first, last)| (last - first) / 60 + 1)
            .collect();
        assert_eq!(points, [11_000, 11_000, 11_000, 10_201]);
        assert!(parts.windows(2).all(|pair| pair[1].0 == pair[0].1 + 60));
        assert_eq!(parts.last().unwrap().1, days);
        assert_eq!(range(0, 0).parts(), [(0, 0)]);
        assert_eq!(range(60, 0).parts(), []);
    }

    #[tokio::test]
    async fn the_parts_of_a_long_time_are_put_together() {
        let first = matrix(r#"{"metric":{"job":"web"},"values":[[0,"1.5"],[60,"NaN"]]}"#);
        let second = matrix(r#"{"metric":{"job":"web"},"values":[[660000,"+Inf"]]}"#)
            .replace("\"data\"", "\"warnings\":[\"partial\",\"partial\"],\"data\"");
        let (server, forms) = server(&[&first, &second]).await;
        let samples = server.range("sum(x)", range(0, 660_000)).await.unwrap();
        assert_eq!(samples.warnings, ["partial"]);
        let times: Vec<Timestamp> = samples.values.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [at(0), at(60), at(660_000)]);
        assert_eq!(samples.values[0].1, 1.5);
        assert!(samples.values[1].1.is_nan() && samples.values[2].1.is_infinite());
        assert_eq!(
            *forms.lock().unwrap(),
            [
                "query=sum%28x%29&start=0&end=659940&step=60&limit=2",
                "query=sum%28x%29&start=660000&end=660000&step=60&limit=2"
            ]
        );
    }

    #[tokio::test]
    async fn several_series_are_refused_in_one_part_and_over_all() {
        let one = |job: &str| format!(r#"{{"metric":{{"job":"{job}"}},"values":[[0,"1"]]}}"#);
        let two = matrix(&format!("{},{}", one("a"), one("b")));
        let (two, _) = server(&[&two]).await;
        assert_eq!(two.range("x", range(0, 60)).await.unwrap_err(), SEVERAL);
        let (changing, _) = server(&[&matrix(&one("a")), &matrix(&one("b"))]).await;
        assert_eq!(changing.range("x", range(0, 660_000)).await.unwrap_err(), SEVERAL);
    }

    #[tokio::test]
    async fn nothing_is_no_error_and_what_is_no_series_of_numbers_is_one() {
        // Some servers that speak as Prometheus does write null where there is nothing to warn of.
        let nothing = matrix("").replace("\"data\"", "\"warnings\":null,\"data\"");
        let (nothing, _) = server(&[&nothing]).await;
        assert_eq!(
            nothing.range("x", range(0, 60)).await.unwrap(),
            Samples::default()
        );
        for (answer, said) in [
            (matrix(r#"{"metric":{},"histograms":[[0,{}]]}"#), "histogram"),
            (
                matrix(r#"{"metric":{},"values":[[0,"many"]]}"#),
                "`many` is no number",
            ),
            (matrix(r#"{"metric":{},"values":[[1e300,"1"]]}"#), "is no time"),
            (
                r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.to_owned(),
                "no series over time",
            ),
            (
                r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error"}"#.to_owned(),
                "bad_data: 1:5: parse error",
            ),
        ] {
            let (server, _) = server(&[&answer]).await;
            let error = server.range("x", range(0, 60)).await.unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }
}
