//! `smartscale demo`: plays the main story on this machine. Real coordinators and real agents over real mutual TLS and a
//! real store; the cluster, the cloud and the passing of time are simulated.
//!
//! ```text
//!  World ─▶ Story ─▶ Summary
//!    ├─────▶ a live view, where stdout is a terminal
//!    └─ log ─▶ lines (or JSON, one object a line) elsewhere
//! ```
//!
//! Exit codes: 0 the story ended as it should or was ended by Ctrl-C, 1 it went wrong, 2 bad usage.

mod lines;
mod view;

use std::{
    io::{self, IsTerminal as _, Write},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use smartscale_simulator::{
    log::Log,
    story::{Story, StoryError, Summary},
    world::{Settings, World},
};

use self::{
    lines::{Form, Lines},
    view::View,
};

/// Coordinators that were told to end have so long, in real time.
const FAREWELL: Duration = Duration::from_secs(5);
/// With `--keep` time goes on at this speed once the story is over.
const KEPT_SPEED: f64 = 1.0;

/// How the demo is played.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DemoArgs {
    /// How many times faster than real time it is played
    #[arg(long, default_value_t = 24.0, value_parser = speed, value_name = "FACTOR")]
    pub(crate) speed: f64,
    /// Derives everything random: the same seed gives the same workload, faults and decisions
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Goes on serving after the story, and says how to reach it from a second terminal
    #[arg(long)]
    pub(crate) keep: bool,
    /// How what happens is printed; on a terminal it is a live view unless this is given
    #[arg(short = 'o', long = "output", value_enum)]
    pub(crate) output: Option<Form>,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed: f64 = text
        .parse()
        .map_err(|_| "a number is needed, for example 24".to_owned())?;
    if speed > 0.0 && speed <= 10_000.0 {
        Ok(speed)
    } else {
        Err("a number above 0 and at most 10000 is needed".to_owned())
    }
}

/// Plays the demo and says how it ended.
pub(crate) fn run(args: &DemoArgs) -> ExitCode {
    match start(args) {
        Ok(code) => code,
        Err(error) if is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr().lock(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether a reader has left (`| head`), which is no failure.
fn is_closed(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn start(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    listen_to_the_programs();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the program cannot start")?;
    let code = runtime.block_on(play(args));
    runtime.shutdown_background();
    code
}

/// With `SMARTSCALE_LOG` set, the logs of the coordinators and agents go to standard error.
fn listen_to_the_programs() {
    if let Ok(filter) = std::env::var("SMARTSCALE_LOG") {
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(io::stderr)
            .try_init();
    }
}

/// How the story ended.
enum End {
    Played(Box<Result<Summary, StoryError>>),
    Interrupted,
}

async fn play(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let world = Arc::new(World::start(Settings::demo(args.seed, args.speed)).await?);
    let form = args.output.unwrap_or(Form::Lines);
    let mut show = if args.output.is_none() && io::stdout().is_terminal() {
        Show::View(Box::new(View::open().context("the terminal cannot be drawn on")?))
    } else {
        Show::Lines(Printer {
            log: world.log.clone(),
            lines: Lines::new(form),
            next: 0,
        })
    };
    let end = {
        let mut story = Story::new(Arc::clone(&world));
        tokio::select! {
            outcome = story.play() => End::Played(Box::new(outcome)),
            left = show.follow(&world) => {
                left?;
                End::Interrupted
            }
            _ = tokio::signal::ctrl_c() => End::Interrupted,
        }
    };
    let played = match end {
        End::Interrupted => None,
        End::Played(outcome) => Some(*outcome),
    };
    let code = match played {
        None => {
            show.close()?;
            note("ended by Ctrl-C");
            ExitCode::SUCCESS
        }
        Some(Ok(summary)) => {
            let text = Lines::new(form).summary(&summary)?;
            // A view keeps the terminal until the person leaves, so that the summary comes last there.
            if let Show::Lines(printer) = &mut show {
                printer.print_new()?;
                print(&text)?;
            }
            if args.keep {
                serve_on(&world, &mut show).await?;
            }
            let viewed = matches!(show, Show::View(_));
            show.close()?;
            if viewed {
                print(&text)?;
            }
            ExitCode::SUCCESS
        }
        Some(Err(error)) => {
            show.close()?;
            note(&format!("error: {:#}", anyhow::Error::new(error)));
            ExitCode::FAILURE
        }
    };
    // The second Ctrl-C, or a coordinator that takes too long, ends everything at once.
    tokio::select! {
        _ = tokio::time::timeout(FAREWELL, world.stop()) => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(code)
}

/// Goes on at real time until Ctrl-C.
async fn serve_on(world: &World, show: &mut Show) -> anyhow::Result<()> {
    world.clock.set_speed(KEPT_SPEED)?;
    let credentials = world.credentials();
    let endpoints: Vec<String> = world
        .running()
        .into_iter()
        .map(|(_, endpoint)| endpoint)
        .collect();
    let command = format!(
        "smartscale --credentials {} --endpoint {} status",
        credentials.display(),
        endpoints.join(",")
    );
    match show {
        Show::View(view) => view.say(&format!(
            "Goes on at real time. Second terminal: {command}   q ends it"
        )),
        Show::Lines(_) => note(&format!(
            "The cluster goes on, at real time from here. Ask it from a second terminal, for example:\n\n  {command}\n\n\
             Ctrl-C ends it."
        )),
    }
    tokio::select! {
        left = show.follow(world) => left,
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

/// How what happens is shown.
enum Show {
    Lines(Printer),
    View(Box<View>),
}

impl Show {
    /// Shows what happens until the person leaves.
    async fn follow(&mut self, world: &World) -> anyhow::Result<()> {
        match self {
            Self::Lines(printer) => Err(printer.follow().await),
            Self::View(view) => view.follow(world).await,
        }
    }

    fn close(self) -> anyhow::Result<()> {
        match self {
            Self::Lines(mut printer) => printer.print_new(),
            Self::View(_) => Ok(()),
        }
    }
}

/// Prints what happens.
struct Printer {
    log: Log,
    lines: Lines,
    next: u64,
}

impl Printer {
    /// Prints until that is not possible any more.
    async fn follow(&mut self) -> anyhow::Error {
        let mut changes = self.log.changes();
        loop {
            if let Err(error) = self.print_new() {
                return error;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn print_new(&mut self) -> anyhow::Result<()> {
        for entry in self.log.since(self.next) {
            self.next = entry.number + 1;
            if let Some(line) = self.lines.line(&entry)? {
                print(&line)?;
            }
        }
        Ok(())
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A word to the person, beside what is printed.
fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_number_above_zero() {
        assert_eq!(speed("2.5"), Ok(2.5));
        for text in ["0", "-1", "NaN", "inf", "fast", "20000"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }
}
