//! Real faults against a real `roadstead serve`, while `loadgen` accounts for every message.
//!
//! Each [`scenario`] breaks one thing that breaks in production, mends it again, and asks two questions:
//! did the load generator account for every message (nothing acknowledged lost, nothing doubled or out of
//! order), and did the fault really happen. [`soak`] runs faults for a long time against one process and
//! asks a third one: does memory return to its base.
//!
//! Everything stays on this machine: loopback, folders and network namespaces of its own, and processes
//! that it started itself.

mod edge;
mod load;
mod network;
mod report;
mod scenario;
mod slow;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::report::Report;
use crate::scenario::Bench;

/// Breaks things under a real server and load generator, and says what came of it.
///
/// Exit code 0: every scenario that could be run here passed. 2: one did not. 1: nothing could be run. 64: the command line was
/// not understood.
#[derive(Debug, Parser)]
#[command(name = "faults", version, about)]
struct Cli {
    /// Only scenarios whose name contains this; may be given several times.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Seconds of load in each scenario.
    #[arg(long, value_name = "SECS", default_value_t = 20)]
    seconds: u64,
    /// Scenarios that run at the same time, each with processes and folders of its own.
    #[arg(long, value_name = "N", default_value_t = 1)]
    at_once: usize,
    /// Also soak: so many minutes of faults against one process, with a leak check at the end.
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// QUIC engine of both ends.
    #[arg(long, value_name = "ENGINE", default_value = "lean")]
    quic_engine: String,
    /// Write the report as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Folder of `roadstead` and `loadgen` [default: the one of this program].
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
}

/// The command line was not understood (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            let _ = told.print();
            return ExitCode::from(if told.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            report::say(&format!("faults: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    if cli.list {
        scenario::ALL
            .iter()
            .for_each(|one| report::say(&format!("{:<20} {}", one.name, one.what)));
        return Ok(true);
    }
    let bench = Bench::new(cli.binaries.clone(), cli.seconds, &cli.quic_engine)?;
    let mut report = Report::default();
    let wanted = |name: &str| cli.only.is_empty() || cli.only.iter().any(|one| name.contains(one));
    let bench = &bench;
    let wanted: Vec<_> = scenario::ALL
        .iter()
        .filter(|one| wanted(one.name))
        .map(|one| (one.name, move || (one.run)(bench)))
        .collect();
    report.add_all(&wanted, cli.at_once);
    if let Some(minutes) = cli.minutes {
        report.add("soak", || soak::run(bench, minutes));
    }
    report::say(&report.table());
    if let Some(file) = &cli.json {
        std::fs::write(file, serde_json::to_string_pretty(&report.json())? + "\n")?;
    }
    anyhow::ensure!(
        !report.is_empty(),
        "no scenario has such a name: see --list"
    );
    Ok(report.passed())
}
