//! The agent's program: sets up the process, reads the command line, runs.

mod program;

use std::process::ExitCode;

use clap::Parser as _;
use smartscale_agent::config::ConfigError;

use program::cli::Cli;

fn main() -> ExitCode {
    smartscale_proto::tls::install_provider();
    let cli = Cli::parse();
    program::log::start(cli.log_format);
    // One thread: the machine is for others, and every further stack is resident memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(program::run(cli)));
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("smartscale-agent: {error:#}");
            // Bad input is told apart from what failed, as by the other programs.
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}
