//! `smartscale backtest`: replays a history of requests by a policy. Nothing is contacted.
//!
//! ```text
//! --trace ──────────────┐                      ┌─▶ the policy's run and those it is compared with ─▶ table, JSON
//! --policy --workload ──┼─▶ smartscale-backtest ┤
//! --compare --seed ─────┘                      └─▶ --series, --plot: the policy's run, minute by minute
//! ```
//!
//! Exit codes: 0 it was replayed, 1 a result could not be written, 2 bad usage or input.

mod plot;
mod result;
mod table;

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use smartscale_backtest::{Backtest, Rival, Series, Trace, Workload};
use smartscale_planner::Policy;

use self::result::Results;
use super::input::{BadInput, text};

/// What `smartscale backtest` is asked.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BacktestArgs {
    /// The history: CSV with columns `time` (RFC 3339 with an offset) and `requests` (in that row's interval)
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: PathBuf,
    /// The policy to try
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    /// What serves the requests, and how the cloud behaves
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: PathBuf,
    /// What the policy is compared with: fixed, thresholds, oracle; default: all of them
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = rival, default_value = "fixed,thresholds,oracle")]
    pub(crate) compare: Vec<Rival>,
    /// What chance (boot times, interruptions) is derived from; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How the result is printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Form::Table)]
    pub(crate) output: Form,
    /// Writes the policy's run minute by minute, as CSV
    #[arg(long, value_name = "FILE")]
    pub(crate) series: Option<PathBuf>,
    /// Draws the policy's run, as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}

/// Forms of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Form {
    /// For people.
    Table,
    /// For machines.
    Json,
}

fn rival(name: &str) -> Result<Rival, String> {
    let found = Rival::ALL.into_iter().find(|rival| rival.as_str() == name);
    found.ok_or_else(|| "expected fixed, thresholds or oracle".to_owned())
}

/// Reads, replays and prints.
pub(crate) fn run(args: &BacktestArgs) -> ExitCode {
    let (results, series, warnings) = match replay(args) {
        Ok(done) => done,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }
    let written = match &args.series {
        Some(path) => write_series(path, &series),
        None => Ok(()),
    };
    let drawn = written.and_then(|()| match &args.plot {
        Some(path) => {
            std::fs::write(path, plot::of(&series)).map_err(|error| format!("{}: {error}", path.display()))
        }
        None => Ok(()),
    });
    let printed = drawn.and_then(|()| {
        let text = match args.output {
            Form::Table => table::of(&results),
            Form::Json => serde_json::to_string_pretty(&results).map_err(|error| error.to_string())? + "\n",
        };
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .map_err(|error| error.to_string())
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: the result could not be written: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Reads everything and replays.
fn replay(args: &BacktestArgs) -> Result<(Results, Series, Vec<String>), BadInput> {
    let at = |path: &Path, error: &dyn std::fmt::Display| BadInput::new(path.display(), error);
    let (policy, warnings) =
        Policy::from_toml(&text(&args.policy)?).map_err(|error| at(&args.policy, &error))?;
    let workload = Workload::from_toml(&text(&args.workload)?).map_err(|error| at(&args.workload, &error))?;
    workload
        .check_against(&policy)
        .map_err(|error| at(&args.workload, &error))?;
    let file =
        File::open(&args.trace).map_err(|error| at(&args.trace, &format_args!("cannot be read: {error}")))?;
    let trace = Trace::from_csv(file).map_err(|error| at(&args.trace, &error))?;
    let begun = Instant::now();
    let backtest = Backtest {
        trace: &trace,
        policy: &policy,
        workload: &workload,
        seed: args.seed,
    };
    let rivals: BTreeSet<Rival> = args.compare.iter().copied().collect();
    let outcome = backtest.run(&rivals).map_err(|error| at(&args.trace, &error))?;
    let warnings = warnings
        .iter()
        .map(|warning| format!("{}: {warning}", args.policy.display()));
    let results = Results::new(&outcome, &trace, begun.elapsed());
    Ok((results, outcome.series, warnings.collect()))
}

fn write_series(path: &Path, series: &Series) -> Result<(), String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::create(path).map_err(failed)?;
    series.write_csv(BufWriter::new(file)).map_err(failed)
}
