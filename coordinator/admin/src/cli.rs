//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use smartscale_proto::{
    audit::Digest,
    identity::{Role, Segment},
};

use crate::{
    backtest::BacktestArgs,
    demo::DemoArgs,
    plan::{Output, PlanArgs},
};

/// Sees and steers a SmartScale coordinator, and tries policies offline.
#[derive(Debug, Parser)]
#[command(name = "smartscale", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Exit codes: 0 done, 1 the operation failed, 2 bad usage or bad input.")]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How a coordinator is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Credentials file; default: `smartscale/credentials.toml` in XDG_CONFIG_HOME or ~/.config
    #[arg(long, global = true, value_name = "FILE", env = "SMARTSCALE_CREDENTIALS")]
    pub(crate) credentials: Option<PathBuf>,
    /// Coordinators to ask instead of those of the credentials, host:port; may be repeated
    #[arg(
        long = "endpoint",
        global = true,
        value_name = "HOST:PORT",
        env = "SMARTSCALE_ENDPOINT",
        value_delimiter = ','
    )]
    pub(crate) endpoints: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    #[command(flatten)]
    Live(Live),
    /// Gets credentials: makes a key and a request for an administrator, then takes what comes back; nothing is contacted
    Login(LoginArgs),
    /// Tries a policy on a cluster that lies in files; nothing is contacted
    Plan(PlanArgs),
    /// Replays a history of requests by policies: what they would have cost, and who would have waited; nothing is contacted
    /// but where the history is asked for
    Backtest(BacktestArgs),
    /// Plays the main story on this machine: real coordinators and agents, a simulated cluster and cloud
    Demo(DemoArgs),
    /// Prints the completions of a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Prints the manual page
    Man,
}

/// The two halves of a login. The key stays on this machine; what travels is no secret.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct LoginArgs {
    /// Makes a key and writes the request for its certificate to this file (`-`: to stdout). An administrator answers with
    /// `smartscale identity issue`
    #[arg(long, value_name = "FILE")]
    pub(crate) request: Option<PathBuf>,
    /// Takes the administrator's answer from this file (`-`: from stdin) and writes the credentials
    #[arg(long, value_name = "FILE")]
    pub(crate) grant: Option<PathBuf>,
}

/// The form of what is printed.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Format {
    /// How the result is printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
}

/// Questions and orders to a running coordinator.
#[derive(Debug, Subcommand)]
pub(crate) enum Live {
    /// The cluster, its limits and sources, and who leads
    Status(Format),
    /// Every node with its figures and what keeps it
    Nodes(Format),
    /// Pods and where they stand
    Pods {
        /// Only pods that no node has taken
        #[arg(long)]
        pending: bool,
        #[command(flatten)]
        format: Format,
    },
    /// What was decided, newest first
    Decisions {
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Also decisions to do nothing
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Why something is, or is not: the last decision, a decision or operation by ID, `node NAME`, or `pod NS/NAME`
    Explain {
        /// An ID, or `node NAME`, or `pod NS/NAME`; nothing: the last decision
        #[arg(value_name = "SUBJECT", num_args = 0..=2)]
        subject: Vec<String>,
        #[command(flatten)]
        format: Format,
    },
    /// Operations, newest first
    Operations {
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// Only those that have not ended
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        format: Format,
    },
    /// What keeps nodes from being removed, by budget and pod, with its age
    Blockers(Format),
    /// What the machines cost in a month, what a fixed fleet would have cost, and what was saved and wasted
    Cost {
        /// A month of UTC; default: the present one
        #[arg(long, value_name = "YYYY-MM")]
        month: Option<String>,
        /// Shows amounts in this currency; default: the policy's (`[cost] currency`). With -o json amounts stay in USD
        #[arg(long, value_name = "CODE", value_parser = currency, requires = "rate")]
        currency: Option<String>,
        /// So many of it are one USD
        #[arg(long, value_name = "NUMBER", value_parser = rate, requires = "currency")]
        rate: Option<f64>,
        #[command(flatten)]
        format: Format,
    },
    /// Has every coordinator try what it depends on (permissions, reachability, clock, certificates, store, queries), and every
    /// agent what its machine does
    Check(CheckArgs),
    /// Events as they happen, until Ctrl-C
    Watch(Format),
    /// People's identities: handing them out, listing, revoking; role `admin`
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Who did what: reading the audit, and checking that nothing of it was changed
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Writes the files with which `smartscale plan` repeats the present decision
    Snapshot {
        /// The folder; it is created
        #[arg(
            short = 'o',
            long = "output",
            value_name = "DIR",
            default_value = "smartscale-snapshot"
        )]
        folder: PathBuf,
    },
    /// Drains a node and leaves it cordoned
    Drain {
        /// The node
        node: String,
        /// Time for the drain; default: the policy's
        #[arg(long, value_parser = duration, value_name = "TIME")]
        timeout: Option<Duration>,
        /// What happens at its end; default: the policy's
        #[arg(long, value_enum)]
        on_timeout: Option<OnTimeout>,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        /// Give the node's drain up instead, whoever ordered it: it takes pods again
        #[arg(long, conflicts_with_all = ["timeout", "on_timeout", "reason"])]
        cancel: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Drains a node and launches another in its place
    Recycle {
        /// The node
        node: String,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        format: Format,
    },
    /// Keeps new pods off a node
    Cordon {
        /// The node
        node: String,
    },
    /// Lets pods onto a node again
    Uncordon {
        /// The node
        node: String,
    },
    /// Stops scaling for a time or until resumed; operations under way end
    Pause {
        /// For how long, for example 2h; default: until `smartscale resume`
        #[arg(long = "for", value_parser = duration, value_name = "TIME")]
        duration: Option<Duration>,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        format: Format,
    },
    /// Ends a pause, and lets pools that were stopped launch again
    Resume {
        /// Also lifts the policy's freezes and its bounds on launches and spending in an hour, for so long; 0s puts them
        /// back
        #[arg(long, value_parser = duration, value_name = "TIME")]
        lift_brakes: Option<Duration>,
    },
    /// Sets a floor under the number of nodes for a time
    Scale {
        /// The fewest nodes; 0 takes the floor away
        #[arg(long, value_name = "N")]
        to: u32,
        /// For how long, for example 2h; default: 1h
        #[arg(long = "for", value_parser = duration, value_name = "TIME")]
        duration: Option<Duration>,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        format: Format,
    },
}

/// Whom a check asks, and what of it is shown.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Asks the agent of this node alone
    #[arg(long, value_name = "NODE", conflicts_with = "no_agents")]
    pub(crate) node: Option<String>,
    /// Asks the coordinators alone
    #[arg(long)]
    pub(crate) no_agents: bool,
    /// Also shows the lines of agents that passed; with -o json they are there in any case
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) format: Format,
}

/// Identities of people.
#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Signs a person's request (`smartscale login --request`), for eight hours at most
    Issue {
        /// What the person may do: viewer, operator or admin
        #[arg(long)]
        role: Role,
        /// Who it is
        #[arg(long = "for", value_name = "NAME")]
        name: Segment,
        /// The request's file (`-`: from stdin)
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
        /// How long the certificate is good
        #[arg(long, value_parser = duration, value_name = "TIME", default_value = "8h")]
        life: Duration,
        /// The file to hand back (`-`: stdout)
        #[arg(short = 'o', long = "output", value_name = "FILE", default_value = "-")]
        output: PathBuf,
    },
    /// Those that are good
    List {
        /// Also those that have ended or were revoked
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Refuses a person, or one certificate of theirs, from now on
    Revoke {
        /// The person: every certificate that was handed out until now
        #[arg(
            value_name = "NAME",
            required_unless_present = "serial",
            conflicts_with = "serial"
        )]
        name: Option<String>,
        /// One certificate, by its serial number
        #[arg(long, value_name = "HEX")]
        serial: Option<String>,
        /// Why, for the record
        #[arg(long, default_value = "")]
        reason: String,
    },
}

/// Who did what.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Records, newest first
    List {
        /// At most so many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// The chain of one coordinator
        #[arg(long, value_name = "NAME", default_value = "")]
        coordinator: String,
        #[command(flatten)]
        format: Format,
    },
    /// Checks every chain from its first record to its head; exit code 1 when something is wrong
    Verify {
        /// A record that was noted earlier, as the last run printed it: it must still be there; may be repeated
        #[arg(long, value_name = "NAME:NUMBER:HASH", value_parser = noted)]
        noted: Vec<Noted>,
    },
}

/// A record that somebody noted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    pub(crate) coordinator: String,
    pub(crate) sequence: u64,
    pub(crate) hash: Digest,
}

fn noted(text: &str) -> Result<Noted, String> {
    let mut parts = text.splitn(3, ':');
    let read = (|| {
        Some(Noted {
            coordinator: parts.next()?.to_owned(),
            sequence: parts.next()?.parse().ok()?,
            hash: Digest::try_from(parts.next()?.to_owned()).ok()?,
        })
    })();
    read.ok_or_else(|| "NAME:NUMBER:HASH is expected, as `smartscale audit verify` prints it".to_owned())
}

/// What happens at a drain's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnTimeout {
    /// Uncordon, and report the pods that would not leave.
    Abort,
    /// Delete the remaining pods.
    Force,
}

fn duration(text: &str) -> Result<Duration, String> {
    smartscale_planner::duration::parse(text).map_err(|error| error.to_string())
}

fn currency(text: &str) -> Result<String, String> {
    if text.len() == 3 && text.bytes().all(|letter| letter.is_ascii_uppercase()) {
        Ok(text.to_owned())
    } else {
        Err("three capital letters are expected as in ISO 4217, for example BDT".to_owned())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: Option<f64> = text.parse().ok();
    rate.filter(|rate| rate.is_finite() && *rate > 0.0)
        .ok_or_else(|| "a number above 0 is expected, for example 121.5".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed arrangement fails the test")]
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_noted_record_is_read_as_it_was_printed() {
        let hash = "ab".repeat(32);
        let read = noted(&format!("a:7:{hash}")).unwrap();
        assert_eq!((read.coordinator.as_str(), read.sequence), ("a", 7));
        assert_eq!(read.hash.to_string(), hash);
        assert!(noted("a:7").is_err() && noted("a:x:00").is_err() && noted("a:7:00").is_err());
    }

    #[test]
    fn times_are_written_as_in_policies() {
        assert_eq!(duration("2h").unwrap(), Duration::from_secs(7200));
        assert!(duration("soon").is_err());
    }
}
