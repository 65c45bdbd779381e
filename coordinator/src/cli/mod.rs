//! The command line of the coordinator's program.

mod build;
mod ca;
mod channels;
mod check;
mod init;
mod policy;

use std::{io::IsTerminal as _, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use smartscale_coordinator::{
    config::{self, Store},
    policy::Origin,
    state::backup,
};

/// Keeps a K3s cluster at the right size, on EC2 or on machines that a program of yours adds and removes.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// The configuration.
    #[arg(long, global = true, default_value = "/etc/smartscale/coordinator.toml")]
    config: PathBuf,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the coordinator (the default).
    Run,
    /// Checks the configuration and the policy; nothing is contacted.
    CheckConfig,
    /// Tries everything that a coordinator depends on, and says what to do; nothing is changed.
    Check(check::CheckArgs),
    /// Creates a certificate authority, a first admin credential, a commented configuration and a policy.
    Init(init::InitArgs),
    /// Signs credentials for a person.
    Credentials(init::CredentialsArgs),
    /// Copies the SQLite store to a file that is not there yet, while coordinators use it.
    Backup {
        /// The copy; its mode is 0600.
        file: PathBuf,
    },
    /// The certificate authority, and how another one follows on it.
    #[command(subcommand)]
    Ca(ca::Ca),
}

/// How the log looks.
#[derive(Debug, Args)]
pub(crate) struct Log {
    /// Form of the log on stderr.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Log {
    /// Starts logging; `SMARTSCALE_LOG` filters it (`info` by default).
    pub(crate) fn start(&self) {
        let filter = tracing_subscriber::EnvFilter::try_from_env("SMARTSCALE_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        let builder = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr);
        match self.log_format {
            LogFormat::Text => builder.init(),
            LogFormat::Json => builder.json().init(),
        }
    }
}

/// Why the program ends without success.
pub(crate) enum Failure {
    /// Bad usage or bad input: exit code 2.
    Input(anyhow::Error),
    /// The run failed: exit code 1.
    Run(anyhow::Error),
    /// A check failed, which its report has said: exit code 1.
    Check,
}

/// Carries the command out.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = arguments.config;
    match arguments.command.unwrap_or(Command::Run) {
        Command::Run => {
            let config = config::load(&path).map_err(|error| Failure::Input(error.into()))?;
            let runtime = runtime()?;
            let of_file = match &config.policy {
                Origin::File(_) => Some(runtime.block_on(policy::read(&config)).map_err(Failure::Input)?),
                Origin::ConfigMap(_) => None,
            };
            runtime
                .block_on(build::run(config, of_file))
                .map_err(Failure::Run)
        }
        Command::Backup { file } => {
            let config = config::load(&path).map_err(|error| Failure::Input(error.into()))?;
            let Store::Sqlite(store) = &config.store else {
                return Err(Failure::Input(anyhow::anyhow!(
                    "store.kind is dynamodb: AWS copies tables (aws dynamodb create-backup)"
                )));
            };
            backup::copy(store, &file).map_err(|error| Failure::Run(error.into()))?;
            println!("{}: a copy of {}", file.display(), store.display());
            Ok(())
        }
        Command::Ca(command) => {
            let config = config::load(&path).map_err(|error| Failure::Input(error.into()))?;
            runtime()?
                .block_on(ca::run(&config, &command))
                .map_err(Failure::Run)
        }
        Command::CheckConfig => {
            let runtime = runtime()?;
            check_config(&runtime, &path).map_err(Failure::Input)
        }
        Command::Check(args) => {
            let config = config::load(&path).map_err(|error| Failure::Input(error.into()))?;
            let all_well = runtime()?
                .block_on(check::run(&config, &args))
                .map_err(Failure::Run)?;
            if all_well { Ok(()) } else { Err(Failure::Check) }
        }
        Command::Credentials(args) => runtime()?
            .block_on(init::credentials(&path, &args))
            .map_err(Failure::Input),
        Command::Init(init) => runtime()?.block_on(init::run(&init)).map_err(Failure::Input),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Run(error.into()))
}

fn check_config(runtime: &tokio::runtime::Runtime, path: &std::path::Path) -> anyhow::Result<()> {
    let config = config::load(path)?;
    println!(
        "{}: sound (mode {}, coordinator {})",
        path.display(),
        config.mode,
        config.name
    );
    let Origin::File(policy_file) = &config.policy else {
        println!("{}: not read; `check` reads it", config.policy);
        return Ok(());
    };
    let (in_force, warnings) = runtime.block_on(policy::read(&config))?;
    let policy = in_force.policy;
    println!(
        "{}: sound (cluster {}, {} pools, {} to {} nodes)",
        policy_file.display(),
        policy.cluster_id,
        policy.pools.len(),
        policy.limits.min_nodes,
        policy.limits.max_nodes
    );
    for warning in warnings {
        println!("{}: warning: {warning}", policy_file.display());
    }
    let launchable = config.fleet.launchable();
    let is_launchable = |name: &smartscale_planner::model::PoolName| {
        launchable.as_ref().is_none_or(|names| names.contains(name))
    };
    for pool in policy.pools.iter().filter(|pool| !is_launchable(&pool.name)) {
        println!(
            "{}: warning: fleet.pool.{} is missing: nothing can be launched for that pool",
            path.display(),
            pool.name
        );
    }
    Ok(())
}
