//! `smartscale backtest`: replays a history of requests by policies. Nothing is contacted but where the history is asked for:
//! a Prometheus that is named, or coordinators (`--recorded`).
//!
//! ```text
//! --trace, --prometheus, --recorded ─┐                       ┌─▶ the policies' runs and those they are compared with
//! --policy, --sweep ─────────────────┼─▶ smartscale-backtest ┤     ─▶ table, JSON
//! --workload ────────────────────────┘                       └─▶ --series, --plot: the policies' runs, minute by minute
//! ```
//!
//! Exit codes: 0 it was replayed, 1 a result could not be written, 2 bad usage or input.

mod bar;
mod files;
mod history;
mod plot;
mod recorded;
mod result;
mod several;
mod sweep;
mod table;
mod tried;

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use smartscale_backtest::{Backtests, Outcome, Rival, Series, Workload};

use self::{
    files::Files,
    history::HistoryArgs,
    result::{Compared, Of, Results},
    sweep::Sweep,
    tried::Tried,
};
use crate::{
    cli::Connection,
    input::{BadInput, text},
};

/// What `smartscale backtest` is asked.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BacktestArgs {
    #[command(flatten)]
    pub(crate) history: HistoryArgs,
    /// The policy to try; may be repeated
    #[arg(long = "policy", value_name = "FILE", required = true)]
    pub(crate) policies: Vec<PathBuf>,
    /// Tries each policy with each of these values of a key, such as scale_down.sustained=2m,5m,10m; repeated: all combinations
    #[arg(long = "sweep", value_name = "KEY=VALUE,…")]
    pub(crate) sweeps: Vec<Sweep>,
    /// What serves the requests, and how the cloud behaves
    #[arg(long, value_name = "FILE")]
    pub(crate) workload: PathBuf,
    /// What policies are compared with: fixed, thresholds, oracle; default: all of them
    #[arg(long, value_name = "NAMES", value_delimiter = ',', value_parser = rival, default_value = "fixed,thresholds,oracle")]
    pub(crate) compare: Vec<Rival>,
    /// What chance (boot times, interruptions) is derived from; the same seed gives the same run
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// How the result is printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Form::Table)]
    pub(crate) output: Form,
    /// Writes a policy's run minute by minute, as CSV; of several policies a file each: out-1.csv, out-2.csv, …
    #[arg(long, value_name = "FILE")]
    pub(crate) series: Option<PathBuf>,
    /// Draws a policy's run, as .svg or .png; of several policies a file each: out-1.svg, out-2.svg, …
    #[arg(long, value_name = "FILE", value_parser = drawable)]
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

fn drawable(path: &str) -> Result<PathBuf, String> {
    plot::Kind::of(Path::new(path)).map(|_| path.into())
}

/// Reads, replays and prints.
pub(crate) fn run(connection: &Connection, args: &BacktestArgs) -> ExitCode {
    let (results, runs) = match replay(connection, args) {
        Ok(done) => done,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    let written = runs.iter().try_for_each(|(files, series)| files.write(series));
    let printed = written.and_then(|()| {
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

/// Reads everything and replays: the results, and each run with the files that it is written to.
fn replay(connection: &Connection, args: &BacktestArgs) -> Result<(Results, Vec<(Files, Series)>), BadInput> {
    let Tried {
        names,
        policies,
        mut warnings,
    } = Tried::read(&args.policies, &args.sweeps)?;
    let is_one = args.policies.len() == 1 && args.sweeps.is_empty();
    // Of one policy nobody has to be told which it is.
    let at = |place: &dyn std::fmt::Display, index: usize, error: &dyn std::fmt::Display| match is_one {
        true => BadInput::new(place, error),
        false => BadInput::new(format_args!("{place}, by {}", names[index]), error),
    };
    let workload = &args.workload.display();
    let replayed =
        Workload::from_toml(&text(&args.workload)?).map_err(|error| BadInput::new(workload, error))?;
    for (index, policy) in policies.iter().enumerate() {
        replayed
            .check_against(policy)
            .map_err(|error| at(workload, index, &error))?;
    }
    let (trace, of_history) = args.history.read(connection, &replayed)?;
    warnings.extend(of_history);
    for warning in &warnings {
        eprintln!("warning: {warning}");
    }

    let begun = Instant::now();
    let backtests = Backtests {
        trace: &trace,
        policies: &policies,
        workload: &replayed,
        seed: args.seed,
        keep_series: args.series.is_some() || args.plot.is_some(),
    };
    let rivals: BTreeSet<Rival> = args.compare.iter().copied().collect();
    let progress = backtests.progress();
    let outcomes = bar::beside(&progress, &names, || backtests.run(&rivals, &progress));
    let history = &args.history.name();
    let outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .enumerate()
        .map(|(index, outcome)| outcome.map_err(|error| at(history, index, &error)))
        .collect::<Result<_, _>>()?;

    let minutes = trace.ticks().div_ceil(smartscale_backtest::TICKS_PER_MINUTE);
    let wall_seconds = begun.elapsed().as_secs_f64();
    let files = (0..outcomes.len()).map(|index| {
        let number = (!is_one).then_some((index, outcomes.len()));
        Files::new(args.series.as_deref(), args.plot.as_deref(), number)
    });
    let files: Vec<Files> = files.collect();
    let of = match &outcomes[..] {
        [outcome] if is_one => Of::One(Compared::new(outcome)),
        outcomes => {
            let tried = names.iter().zip(outcomes).zip(&files);
            Of::Several {
                policies: tried
                    .map(|((name, outcome), files)| result::Tried::new(name, outcome, files))
                    .collect(),
            }
        }
    };
    let results = Results {
        of,
        minutes,
        wall_seconds,
    };
    let series = outcomes.into_iter().map(|outcome| outcome.series);
    Ok((results, files.into_iter().zip(series).collect()))
}
