//! One door to every task of this repository.

mod foundationdb;
mod fuzz;
mod interop;
mod proof;
mod purity;
mod sanitize;
mod steps;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <task>

  demo [OPTIONS]  build everything, start an edge, ramp 10,000 sessions against it, verify every message
                  (OPTIONS go to `loadgen demo`)
  test            all tests of the workspace
  lint            formatting, clippy with warnings as errors, purity of the sans-IO crates
  fuzz [--seconds N] [TARGET...]
                  every fuzz target, or those named, for N seconds each (60)
  fuzz seeds      write the seeds of every corpus
  fuzz keep [TARGET...]
                  take over into the corpora what the last runs found
  smoke           a short verified load run of 2,000 sessions against a real edge process
  hostile         attackers of every kind beside a few honest users, against a real edge process
  sim [OPTIONS]   explore with the simulator (OPTIONS go to `roadstead-sim`; without any: half a minute of
                  fresh seeds, which it prints)
  faults [OPTIONS]
                  real faults against real processes under verified load: crashes, stops, disks, memory,
                  packets, floods; a table, and the report in target/faults.json (OPTIONS go to `faults`:
                  --minutes M soaks with a leak check, --only NAME, --list)
  interop [--server PATH]
                  a client in Python speaks every frame of the protocol with a server on either QUIC engine (PATH:
                  one that is built already)
  long            what takes too long for every change: the tests of minutes, half an hour each of the simulator and of
                  load with a leak check
  model           the wake-up of the loops over every interleaving (loom)
  sanitize [address | thread | miri]
                  net/ under the sanitizers, and what miri can run, with a nightly compiler; skipped where it lacks
                  them
  foundationdb    type-checks the engine on FoundationDB, and runs its tests if a server is at hand
  ci              lint, test, sim, smoke, interop, hostile, the quick faults, model, foundationdb, a few seconds of
                  every fuzz target: what .ci/run does";

/// The command line was not understood (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let task = arguments.first().map_or("help", String::as_str);
    let rest = arguments.get(1..).unwrap_or_default();
    let result = match task {
        "demo" => steps::demo(rest),
        "test" => steps::test(),
        "lint" => steps::lint(),
        "fuzz" => fuzz::fuzz(rest),
        "smoke" => steps::smoke(),
        "interop" => interop::walk(rest),
        "hostile" => steps::build().and_then(|()| steps::hostile()),
        "sim" => proof::sim(rest),
        "faults" => proof::faults(rest),
        "long" => proof::long(),
        "model" => proof::model(),
        "sanitize" => sanitize::sanitize(rest),
        "foundationdb" => foundationdb::check(),
        "ci" => steps::ci(),
        "help" | "--help" => {
            say(HELP);
            Ok(())
        }
        unknown => {
            say(&format!("xtask: there is no task {unknown:?}\n\n{HELP}"));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("xtask: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a task tells what it does")]
fn say(text: &str) {
    println!("{text}");
}
