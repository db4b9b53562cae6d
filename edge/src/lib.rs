//! The edge of Roadstead: holds sessions, moves messages. The program `roadstead` is [`run`] and nothing else.

mod admin;
mod capacity;
mod cli;
mod clock;
mod config;
mod cores;
mod credentials;
mod descriptors;
mod development;
mod doctor;
mod expiry;
mod files;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod log;
mod memory;
mod metrics;
mod numbers;
mod plan;
mod private;
mod reload;
mod reservation;
mod resume;
mod serve;
mod start;
mod store;
mod tls_error;
mod token;
mod transfer;
mod validity;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use roadstead_net::host;

/// The exit status of a server whose node number was taken over, for supervisors not to start it again.
const FENCED: u8 = 3;

/// The exit status for a command line that is not understood (`EX_USAGE` of sysexits).
const USAGE: u8 = 64;

/// Does what the command line says, and returns the exit status of the process.
#[must_use]
pub fn run() -> ExitCode {
    // As early as can be; `serve` turns them on if the configuration says so. A kernel that refuses has none.
    let _ = host::set_huge_pages(false);
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => return told_by_parser(&told),
    };
    let result = match cli.command {
        cli::Command::Serve(arguments) => serve::serve(&arguments).map(success),
        cli::Command::Token(arguments) => token::print(&arguments).map(success),
        cli::Command::Config => cli::print_default_config().map(success),
        cli::Command::Doctor(arguments) => doctor::run(&arguments),
        cli::Command::Plan(plan) => plan::run(&plan).map(success),
        cli::Command::Store(command) => transfer::run(&command).map(success),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            cli::print_error(&error);
            if error.is::<serve::Fenced>() {
                return ExitCode::from(FENCED);
            }
            ExitCode::FAILURE
        }
    }
}

/// Help and version are what was asked for; anything else is a command line that says nothing.
fn told_by_parser(told: &clap::Error) -> ExitCode {
    // Nobody reads it: the exit status says it, too.
    let _ = told.print();
    match told.use_stderr() {
        true => ExitCode::from(USAGE),
        false => ExitCode::SUCCESS,
    }
}

fn success(_: ()) -> ExitCode {
    ExitCode::SUCCESS
}
