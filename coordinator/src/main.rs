//! `smartscale-coordinator`: reads the command line, builds the coordinator and runs it.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    smartscale_proto::tls::install_provider();
    let arguments = cli::Arguments::parse();
    arguments.log.start();
    match cli::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(cli::Failure::Input(error)) => {
            eprintln!("smartscale-coordinator: {error:#}");
            ExitCode::from(2)
        }
        Err(cli::Failure::Check) => ExitCode::from(1),
        Err(cli::Failure::Run(error)) => {
            tracing::error!(error = format!("{error:#}"), "the coordinator ended");
            eprintln!("smartscale-coordinator: {error:#}");
            ExitCode::from(1)
        }
    }
}
