//! The edge of Roadstead: holds sessions, moves messages.

mod admin;
mod cli;
mod clock;
mod config;
mod files;
mod memory;
mod metrics;
mod reservation;
mod resume;
mod serve;
mod store;
mod token;
mod worker;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match cli::Cli::parse().command {
        cli::Command::Serve(arguments) => serve::serve(&arguments),
        cli::Command::Token(arguments) => token::print(&arguments),
        cli::Command::Config => cli::print_default_config(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            cli::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
