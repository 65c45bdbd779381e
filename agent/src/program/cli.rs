//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use smartscale_agent::config;

/// The node side of SmartScale: joins this machine to its cluster, reports its health, drains it when it has to go.
#[derive(Debug, Parser)]
#[command(name = "smartscale-agent", version)]
pub(crate) struct Cli {
    /// The configuration.
    #[arg(long, global = true, default_value = config::DEFAULT_PATH, env = "SMARTSCALE_AGENT_CONFIG")]
    pub(crate) config: PathBuf,
    /// The form of the log on standard error; SMARTSCALE_LOG filters it.
    #[arg(long, global = true, default_value = "text", env = "SMARTSCALE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the agent; what systemd starts.
    Run,
    /// Drain this node and wait for it.
    Drain(Drain),
    /// Check the configuration and say what is wrong with it.
    CheckConfig,
    /// Try everything that this machine needs, and say what to do; nothing is changed.
    Check(Check),
    /// Print the version.
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Time for the whole drain, for example 90s or 5m; the configuration's unless given.
    #[arg(long, value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Delete the pods that have not left by then, instead of giving the drain up.
    #[arg(long)]
    pub(crate) force: bool,
    /// Evict pods with local storage too, where the policy keeps a drain from that: their data is lost.
    #[arg(long)]
    pub(crate) evict_local_storage: bool,
    /// Give the drain of this node up, whoever ordered it, and let pods onto it again.
    #[arg(long, conflicts_with_all = ["timeout", "force", "reason", "evict_local_storage"])]
    pub(crate) cancel: bool,
    /// Why, for those who see the drain.
    #[arg(long, default_value = "ordered on the machine itself")]
    pub(crate) reason: String,
    /// The node, where the agent does not run and was never enrolled.
    #[arg(long)]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Form of the report.
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// The form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Lines for people.
    Text,
    /// One JSON object.
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    smartscale_planner::duration::parse(text).map_err(|error| error.to_string())
}
