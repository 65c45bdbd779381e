//! The program around the agent: command line, logs, composition, signals, systemd, local orders.

pub(crate) mod cli;
mod compose;
mod local;
pub(crate) mod log;
mod scrape;
mod service;

use std::process::ExitCode;

use cli::{Cli, Command, Output};
use smartscale_agent::{Config, check};

/// Carries the command out.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Version => {
            println!("smartscale-agent {}", smartscale_agent::VERSION);
            Ok(ExitCode::SUCCESS)
        }
        Command::CheckConfig => {
            Config::read(&cli.config)?;
            println!("{} is sound", cli.config.display());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(args) => {
            let parts = compose::parts(Config::read(&cli.config)?)?;
            let report = check::report(&parts).await;
            match args.output {
                Output::Text => print!("{report}"),
                Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
            }
            Ok(if report.has_failed() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Command::Run => {
            let config = Config::read(&cli.config)?;
            service::run(config).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Drain(drain) => local::drain(Config::read(&cli.config)?, drain).await,
    }
}
