//! `roadstead-sim`: replays a seed, explores new ones, or looks for a planted bug.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roadstead_sim::report::{Report, describe, say};
use roadstead_sim::swarm::Plan;
use roadstead_sim::{Canary, explore, run};

const HELP: &str = "\
roadstead-sim [OPTIONS]

  --seed N         run this seed; give it twice or more for several
  --seeds N        run so many seeds, from --seed on or fresh ones
  --minutes M      run the regression seeds and then fresh ones, or from --seed on, for so long
  --canary NAME    plant a bug (r3 r3repeat r4 r5 r8 r9 r12 r13 r14 r16 r18 r19 r20 r21 r25 r25early r25gap)
  --json FILE      write {verdict, seeds, steps, faults, violations, failing_seeds}
  --plan           print what each seed draws

Without any: the regression seeds, then 20 fresh ones. The exit code is 0 only if no rule was broken.";

/// The command line was not understood (`EX_USAGE` of sysexits).
const EXIT_USAGE: u8 = 64;

#[derive(Debug, Default)]
struct Options {
    seeds: Vec<u64>,
    count: Option<u64>,
    lasts: Option<Duration>,
    canary: Option<Canary>,
    json: Option<String>,
    plan: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match Options::parse(&arguments) {
        Ok(Some(options)) => explore_all(&options),
        Ok(None) => {
            say(HELP);
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("{error}\n\n{HELP}"));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self::default();
        let mut arguments = arguments.iter();
        while let Some(name) = arguments.next() {
            if name == "--plan" {
                options.plan = true;
                continue;
            }
            if name == "--help" {
                return Ok(None);
            }
            let value = arguments
                .next()
                .ok_or_else(|| format!("{name} needs a value"))?;
            let number = || {
                value
                    .parse::<u64>()
                    .map_err(|error| format!("{name}: {error}"))
            };
            match name.as_str() {
                "--seed" => options.seeds.push(number()?),
                "--seeds" => options.count = Some(number()?),
                "--minutes" => {
                    let minutes: f64 = value.parse().map_err(|error| format!("{name}: {error}"))?;
                    let lasts = Duration::try_from_secs_f64(minutes * 60.0);
                    options.lasts = Some(lasts.map_err(|error| format!("{name}: {error}"))?);
                }
                "--canary" => {
                    let canary = Canary::named(value);
                    options.canary = Some(canary.ok_or_else(|| format!("no canary {value}"))?);
                }
                "--json" => options.json = Some(value.clone()),
                _ => return Err(format!("{name} is no option")),
            }
        }
        Ok(Some(options))
    }

    /// The seeds to run, endless if only time ends them.
    fn seeds(&self, first: u64) -> Box<dyn Iterator<Item = u64>> {
        match (self.count, self.lasts, self.seeds.is_empty()) {
            (Some(count), _, _) => Box::new(first..first.saturating_add(count)),
            (None, Some(_), true) => Box::new(explore::regressions().chain(first..)),
            (None, Some(_), false) => Box::new(first..),
            (None, None, false) => Box::new(self.seeds.clone().into_iter()),
            (None, None, true) => Box::new(explore::regressions().chain(first..first + 20)),
        }
    }
}

/// A seed that was not run before, small enough to be typed.
fn fresh() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() % 1_000_000_000 * 1_000
}

fn explore_all(options: &Options) -> ExitCode {
    let began = Instant::now();
    let mut report = Report::default();
    let first = options.seeds.first().copied().unwrap_or_else(fresh);
    say(&format!("from seed {first}"));
    for seed in options.seeds(first) {
        if options.lasts.is_some_and(|lasts| began.elapsed() >= lasts) {
            break;
        }
        if options.plan {
            say(&format!("{:#?}", Plan::draw(seed, options.canary)));
        }
        name_in_panics(seed, options);
        let run = run(seed, options.canary);
        if !options.seeds.is_empty() && options.count.is_none() || !run.violations.is_empty() {
            say(&describe(&run));
        }
        if let Some(first) = run.violations.first()
            && options.canary.is_none()
        {
            let rule = first.rule;
            say(&format!("for sim/regressions.txt: {seed} {rule}: …"));
        }
        report.add(&run);
    }
    say(&format!(
        "{} in {:.1} s",
        report.summary(),
        began.elapsed().as_secs_f64()
    ));
    if let Some(file) = &options.json
        && let Err(error) = std::fs::write(file, report.to_json().to_string())
    {
        say(&format!("{file}: {error}"));
        return ExitCode::from(2);
    }
    if report.is_clean() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A broken invariant of the code under test panics, and in release builds aborts: the seed is named, and
/// the report says so.
fn name_in_panics(seed: u64, options: &Options) {
    let json = options.json.clone();
    std::panic::set_hook(Box::new(move |panic| {
        say(&format!("seed {seed}: {panic}"));
        if let Some(file) = &json {
            let report = serde_json::json!({
                "verdict": "fail",
                "violations": [{ "seed": seed, "rule": "panic", "what": panic.to_string() }],
                "failing_seeds": [seed],
            });
            // Nothing is left to be done about a file that can not be written.
            let _ = std::fs::write(file, report.to_string());
        }
    }));
}
