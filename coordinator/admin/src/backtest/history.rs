//! Where the history comes from: a file, a Prometheus that has watched the workload, or what the coordinators recorded.
//!
//! ```text
//!   --trace FILE ──────────────────────────────────────────────────────────────┐
//!   --prometheus URL --query      requests a second × 60 ──────────────────────┼─▶ requests in each row
//!                    --cpu-query  cores ÷ a pod's request × requests_per_pod ──┤
//!   --recorded                    pods that were wanted × what each serves ────┘
//! ```
//! From Prometheus and coordinators a row is a minute. A minute without a sample has no row, and nobody asked for anything in
//! it.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use smartscale_backtest::{Trace, Workload};
use smartscale_coordinator::observe::prometheus::{Auth, Range, Samples, Server, Settings};
use smartscale_proto::time::SystemClock;

use super::recorded;
use crate::{cli::Connection, input::BadInput};

/// A row of a history from Prometheus.
const STEP: Duration = Duration::from_secs(60);
/// Prometheus' own bound on a query.
const PATIENCE: Duration = Duration::from_secs(120);
/// Of one answer: some twenty times what a part of one series takes.
const MOST_BYTES: usize = 16 << 20;

/// Where the history comes from.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The history: CSV with columns `time` (RFC 3339 with an offset) and `requests` (in that row's interval)
    #[arg(long, value_name = "FILE", required_unless_present_any = ["prometheus", "recorded"])]
    pub(crate) trace: Option<PathBuf>,
    /// Takes the history from this Prometheus instead, minute by minute; needs --query or --cpu-query
    #[arg(long, value_name = "URL", conflicts_with = "trace")]
    pub(crate) prometheus: Option<String>,
    #[command(flatten)]
    pub(crate) demand: DemandArgs,
    /// Takes the history from what the coordinators of the credentials (--credentials, --endpoint) recorded of the last --days,
    /// 56 at most: the demand of the whole cluster, as if all of it were this workload
    #[arg(long, conflicts_with_all = ["trace", "prometheus", "demand", "prometheus_token_file", "user", "prometheus_ca_file"])]
    pub(crate) recorded: bool,
    /// So many days back from now
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = 30,
        value_parser = clap::value_parser!(u16).range(1..=3650),
        conflicts_with = "trace"
    )]
    pub(crate) days: u16,
    /// A bearer token for Prometheus, in a file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["trace", "user"])]
    pub(crate) prometheus_token_file: Option<PathBuf>,
    /// A user for Prometheus (basic authentication)
    #[arg(
        id = "user",
        long = "prometheus-user",
        value_name = "NAME",
        conflicts_with = "trace",
        requires = "prometheus_password_file"
    )]
    pub(crate) prometheus_user: Option<String>,
    /// The user's password, in a file
    #[arg(long, value_name = "FILE", requires = "user")]
    pub(crate) prometheus_password_file: Option<PathBuf>,
    /// Certificate authorities to trust with Prometheus instead of the system's, as PEM
    #[arg(long, value_name = "FILE", conflicts_with = "trace")]
    pub(crate) prometheus_ca_file: Option<PathBuf>,
}

/// What tells the demand. One of them, exactly where there is a Prometheus to ask.
#[derive(Debug, Clone, clap::Args)]
#[group(id = "demand", multiple = false)]
pub(crate) struct DemandArgs {
    /// PromQL of the requests a second, one series: `sum(rate(http_requests_total[1m]))`
    #[arg(long, value_name = "PROMQL", conflicts_with = "trace")]
    pub(crate) query: Option<String>,
    /// PromQL of the cores that the workload uses, one series, where requests are not measured: a pod at 100 % of its CPU
    /// request serves `requests_per_pod`. `sum(rate(container_cpu_usage_seconds_total{namespace="web"}[2m]))`
    #[arg(long, value_name = "PROMQL", conflicts_with = "trace")]
    pub(crate) cpu_query: Option<String>,
}

/// Whether an address has a user in it, whom everybody would see in the list of processes.
fn has_user(url: &str) -> bool {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    authority.contains('@')
}

impl HistoryArgs {
    /// What errors call it.
    pub(super) fn name(&self) -> String {
        match (&self.trace, &self.prometheus) {
            (Some(file), _) => file.display().to_string(),
            (None, Some(url)) => url.clone(),
            (None, None) if self.recorded => "--recorded".to_owned(),
            (None, None) => "--trace".to_owned(),
        }
    }

    /// Reads it; with what there is to warn of.
    ///
    /// # Errors
    /// The file with its line, the server with the query, or what the coordinators say.
    pub(super) fn read(
        &self,
        connection: &Connection,
        workload: &Workload,
    ) -> Result<(Trace, Vec<String>), BadInput> {
        if self.recorded {
            return recorded::read(connection, self.days, workload);
        }
        let DemandArgs { query, cpu_query } = &self.demand;
        match (&self.trace, &self.prometheus, query, cpu_query) {
            (Some(file), ..) => {
                let at = |error: &dyn std::fmt::Display| BadInput::new(file.display(), error);
                let read = File::open(file).map_err(|error| at(&format_args!("cannot be read: {error}")))?;
                let trace = Trace::from_csv(read).map_err(|error| at(&error))?;
                Ok((trace, Vec::new()))
            }
            (None, Some(url), Some(query), _) => self.ask(url, query, &Demand::Requests),
            (None, Some(url), None, Some(query)) => self.ask(url, query, &Demand::of_cores(workload)),
            (None, Some(_), None, None) => Err(BadInput::new(
                "--prometheus",
                "nothing is asked: expected --query, or --cpu-query where requests are not measured",
            )),
            (None, None, ..) => Err(BadInput::new(
                "--trace",
                "no history: expected it, --prometheus or --recorded",
            )),
        }
    }

    fn ask(&self, url: &str, query: &str, demand: &Demand) -> Result<(Trace, Vec<String>), BadInput> {
        if has_user(url) {
            let message =
                "a user stands in the address: expected --prometheus-user and --prometheus-password-file";
            return Err(BadInput::new("--prometheus", message));
        }
        let settings = Settings {
            url: url.to_owned(),
            timeout: PATIENCE,
            most_bytes: MOST_BYTES,
            auth: self.auth(),
            ca_file: self.prometheus_ca_file.clone(),
            ..Settings::default()
        };
        let server = Server::new(&settings, Arc::new(SystemClock))
            .map_err(|error| BadInput::new("--prometheus", error.reason))?;
        let at = |error: String| BadInput::new(url, format!("query `{query}`: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| at(error.to_string()))?;
        let samples = runtime
            .block_on(server.range(query, minutes(Timestamp::now(), self.days)))
            .map_err(at)?;
        if samples.values.is_empty() {
            let (days, what) = (self.days, demand.what());
            return Err(at(format!("answered no data for --days {days}: expected {what}")));
        }
        let warnings = samples.warnings.iter();
        let warnings = warnings
            .map(|warning| format!("{url}: query `{query}`: {warning}"))
            .collect();
        Ok((demand.trace(&samples).map_err(at)?, warnings))
    }

    fn auth(&self) -> Auth {
        match (
            &self.prometheus_token_file,
            &self.prometheus_user,
            &self.prometheus_password_file,
        ) {
            (Some(file), ..) => Auth::BearerFile(file.clone()),
            (None, Some(user), Some(file)) => Auth::Basic {
                user: user.clone(),
                password_file: file.clone(),
            },
            _ => Auth::None,
        }
    }
}

/// The full minutes of so many days up to now.
fn minutes(now: Timestamp, days: u16) -> Range {
    let step = SignedDuration::try_from(STEP).unwrap_or(SignedDuration::ZERO);
    let second = now.as_second();
    let to = Timestamp::from_second(second - second.rem_euclid(step.as_secs())).unwrap_or(now);
    Range {
        // As many rows as there are minutes in those days.
        from: to - SignedDuration::from_hours(24 * i64::from(days)) + step,
        to,
        step: STEP,
    }
}

/// What samples are, and so what they come to in a row.
#[derive(Debug)]
enum Demand {
    /// A second.
    Requests,
    /// Cores in use; so many requests a minute each.
    Cores { requests: f64 },
}

impl Demand {
    /// By the workload: one pod serves `requests_per_pod` a minute with all of the CPU that it requests.
    fn of_cores(workload: &Workload) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "a pod's CPU")]
        let cores = workload.cpu.0 as f64 / 1000.0;
        Self::Cores {
            requests: workload.requests_per_pod / cores,
        }
    }

    fn what(&self) -> &'static str {
        match self {
            Self::Requests => "requests a second",
            Self::Cores { .. } => "cores in use",
        }
    }

    fn trace(&self, samples: &Samples) -> Result<Trace, String> {
        let each = match self {
            Self::Requests => STEP.as_secs_f64(),
            Self::Cores { requests } => *requests,
        };
        for (time, value) in &samples.values {
            // A NaN, which PromQL answers where there is nothing to divide, is no number at all: neither no demand nor a gap.
            if !(value.is_finite() && *value >= 0.0) {
                return Err(format!(
                    "answered {value} at {time}: expected {}, at least 0; `(…) >= 0` leaves out what is none",
                    self.what()
                ));
            }
        }
        let rows = samples.values.iter().map(|(time, value)| (*time, value * each));
        Trace::from_rows(rows, STEP).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed test should stop at its line")]
    use super::*;

    #[test]
    fn the_minutes_are_full_ones_and_as_many_as_the_days_have() {
        let now: Timestamp = "2026-03-02T10:00:59.9Z".parse().unwrap();
        let range = minutes(now, 1);
        assert_eq!(range.to, "2026-03-02T10:00:00Z".parse().unwrap());
        assert_eq!(range.from, "2026-03-01T10:01:00Z".parse().unwrap());
    }

    #[test]
    fn cores_become_requests_by_what_a_pod_serves_with_all_of_its_request() {
        let text = "[workload]\nrequests_per_pod = 30\ncpu = \"250m\"\nmemory = \"1Gi\"\n";
        let Demand::Cores { requests } = Demand::of_cores(&Workload::from_toml(text).unwrap()) else {
            panic!("no cores");
        };
        // One core is four pods.
        assert_eq!(requests, 120.0);
    }

    #[test]
    fn a_user_in_an_address_is_found() {
        assert!(has_user("http://jo:secret@host:9090/x") && has_user("jo@host"));
        assert!(!has_user("http://host:9090/a@b") && !has_user("http://host?a=b@c"));
    }
}
