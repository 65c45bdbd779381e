//! `smartscale`: asks and orders a running coordinator, and tries policies offline.

mod backtest;
mod cli;
mod demo;
mod input;
mod live;
mod login;
mod plan;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use crate::cli::{Cli, Command};

fn main() -> ExitCode {
    smartscale_proto::tls::install_provider();
    let Cli { connection, command } = Cli::parse();
    match command {
        Command::Login(args) => login::run(&connection, &args),
        Command::Plan(args) => plan::run(args),
        Command::Backtest(args) => backtest::run(&connection, &args),
        Command::Demo(args) => demo::run(&args),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "smartscale", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Man => match clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Command::Live(command) => live::run(&connection, command),
    }
}
