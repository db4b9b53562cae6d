//! `loadgen`: proves what a Roadstead edge does under load.
//!
//! Sends at an open-loop rate, measures from the time at which each message was meant to be sent, and
//! accounts for every one: acknowledged, delivered once to each device, in order, with its receipts.
//!
//! Reading order: `plan` (what a run is), `run` (its stages), `worker` (a thread), `session` (the
//! client's side of the protocol), `ledger` (the account), `report`; docs/LOADGEN.md says how it is used.

#![forbid(unsafe_code)]

mod agent;
mod assertion;
mod cli;
mod clock;
mod control;
mod crew;
mod edge;
mod findings;
mod hostile;
mod interrupt;
mod latency;
mod ledger;
mod out;
mod payload;
mod plan;
mod process;
mod profile;
mod record;
mod report;
mod rng;
mod run;
mod scenario;
mod schedule;
mod search;
mod session;
mod talk;
mod target;
mod token;
mod topology;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use roadstead_net::host;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The run could not be made.
const EXIT_ERROR: u8 = 1;

/// The command line was not understood (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    if let Err(error) = host::set_huge_pages(false) {
        out::note(format_args!(
            "loadgen: huge pages stay as they were: {error}"
        ));
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version are what was asked for.
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let done = match &cli.command {
        cli::Command::Agent(agent) => agent::serve(agent).map(|()| 0),
        _ => scenario::run(&cli).map(|report| report.verdict.exit_code()),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            out::note(format_args!("loadgen: {error:#}"));
            ExitCode::from(match error.is::<interrupt::Interrupted>() {
                true => interrupt::EXIT_CODE,
                false => EXIT_ERROR,
            })
        }
    }
}
