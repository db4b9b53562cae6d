//! `loadgen run FILE`: the steps of a scenario file.
//!
//! ```toml
//! name = "evening"
//!
//! [options]                # any option of the command line, which counts more
//! sessions = 50000
//! ramp = "500@10s,4000"
//! quic-engine = "lean"
//!
//! [[step]]
//! do = "hold"
//! time = "30s"
//!
//! [[step]]
//! do = "exchange"
//! who = "talk"             # anyone, talk, sample, fanout
//! rate = "100-2000@60s,2000"
//! time = "2m"
//! think = "6s"
//! churn = 0.01
//!
//! [[step]]
//! do = "storm"             # or rebind, restart
//! ```

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Deserialize;

use super::{Scene, Shape, exchange, from_seconds};
use crate::cli::{Cli, Command, Load, Run};
use crate::clock::{Micros, time};
use crate::plan::{Exchange, Step, Who};
use crate::profile::Profile;

/// How long a step that waits for sessions does so, unless told otherwise.
const PATIENCE: f64 = 600.0;

/// A scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    options: toml::Table,
    #[serde(default, rename = "step")]
    steps: Vec<Line>,
}

/// A step of it.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Line {
    Hold {
        time: Time,
    },
    Exchange {
        #[serde(default = "anyone")]
        who: String,
        rate: Option<Rate>,
        time: Option<Time>,
        think: Option<Time>,
        #[serde(default)]
        churn: f64,
        #[serde(default)]
        offline: f64,
        receivers: Option<u32>,
    },
    Storm {
        spread: Option<Time>,
        #[serde(default = "control_rate")]
        control_rate: f64,
        #[serde(default)]
        control: u32,
        patience: Option<Time>,
    },
    Rebind {
        over: Time,
    },
    Restart {
        patience: Option<Time>,
    },
}

/// A rate: a number, or a profile as text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Rate {
    Even(f64),
    Profile(Profile),
}

impl Rate {
    fn profile(&self) -> Result<Profile> {
        match self {
            Self::Even(rate) => rate.to_string().parse().map_err(anyhow::Error::msg),
            Self::Profile(profile) => Ok(profile.clone()),
        }
    }
}

/// A time with a unit.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Time(f64);

impl TryFrom<String> for Time {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        time(&text).map(Self)
    }
}

impl Time {
    fn micros(self) -> Micros {
        from_seconds(self.0)
    }
}

fn anyone() -> String {
    "anyone".into()
}

fn control_rate() -> f64 {
    200.0
}

/// Reads the text of a scenario file.
pub(super) fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

pub(super) fn scene(text: &str, arguments: &[String]) -> Result<Scene> {
    let file: File = toml::from_str(text).context("the scenario file")?;
    ensure!(!file.steps.is_empty(), "the scenario file has no step");
    let run = with_options(&file, arguments)?;
    let load = &run.remote.load;
    let shape = shape(&file, load)?;
    Ok(Scene::new(shape, &run.remote.server, load))
}

/// The command line with the file's options before its own, which then count more.
fn with_options(file: &File, arguments: &[String]) -> Result<Run> {
    let at = arguments.iter().position(|argument| argument == "run");
    let (program, own) = arguments.split_at(at.context("a command line with `run`")? + 1);
    let mut all = program.to_vec();
    for (name, value) in &file.options {
        option(name, value, &mut all);
    }
    all.extend_from_slice(own);
    let cli = Cli::try_parse_from(all).context("the options of the scenario file")?;
    match cli.command {
        Command::Run(run) => Ok(run),
        _ => bail!("a scenario file has options of `loadgen run`"),
    }
}

/// An option as it is on a command line; one that has a list is given as often as the list is long.
fn option(name: &str, value: &toml::Value, all: &mut Vec<String>) {
    let flag = format!("--{}", name.replace('_', "-"));
    match value {
        toml::Value::Boolean(true) => all.push(flag),
        toml::Value::Boolean(false) => {}
        toml::Value::Array(values) => values.iter().for_each(|value| option(name, value, all)),
        // In one word, as a value may begin with a dash.
        toml::Value::String(text) => all.push(format!("{flag}={text}")),
        other => all.push(format!("{flag}={other}")),
    }
}

fn shape(file: &File, load: &Load) -> Result<Shape> {
    let sessions = load.sessions.unwrap_or(1_000);
    let mut shape = Shape::new(file.name.clone(), sessions, Vec::new());
    for line in &file.steps {
        let step = step(line, load, &mut shape)?;
        shape.steps.push(step);
    }
    Ok(shape)
}

fn step(line: &Line, load: &Load, shape: &mut Shape) -> Result<Step> {
    let or_patience = |time: &Option<Time>| from_seconds(time.map_or(PATIENCE, |time| time.0));
    Ok(match line {
        Line::Hold { time } => Step::Hold(time.micros()),
        Line::Rebind { over } => Step::Rebind(over.micros()),
        Line::Restart { patience } => Step::Restart {
            patience: or_patience(patience),
        },
        Line::Storm {
            spread,
            control_rate,
            control,
            patience,
        } => {
            shape.control = shape.control.max(*control);
            Step::Storm {
                spread: spread.map_or(0, Time::micros),
                control_rate: *control_rate,
                patience: or_patience(patience),
            }
        }
        Line::Exchange {
            who,
            rate,
            time,
            think,
            churn,
            offline,
            receivers,
        } => {
            ensure!(
                (0.0..=1.0).contains(churn) && (0.0..=1.0).contains(offline),
                "churn and offline are from 0 to 1"
            );
            let who = match who.as_str() {
                "anyone" => Who::Anyone,
                "talk" => Who::Talk,
                "sample" => Who::Sample(load.sample),
                "fanout" => {
                    let receivers = receivers.context("a fanout has `receivers`")?;
                    shape.circle = shape.circle.max(receivers + 1);
                    Who::Fanout(receivers)
                }
                other => bail!("who = {other:?}: anyone, talk, sample or fanout"),
            };
            let is_sample = matches!(who, Who::Sample(_));
            ensure!(is_sample || time.is_some(), "an exchange needs a `time`");
            let base = exchange(load, who, 1_000.0, f64::MAX);
            Step::Exchange(Exchange {
                rate: match rate {
                    Some(rate) => rate.profile()?,
                    None => base.rate.clone(),
                },
                duration: time.map_or(from_seconds(f64::MAX), Time::micros),
                think: think.map_or(6_000_000, Time::micros),
                churn: *churn,
                offline_fraction: *offline,
                ..base
            })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENING: &str = r#"
name = "evening"

[options]
sessions = 400
ramp = "500@10s,4000"
quic_engine = "lean"
resumption = true

[[step]]
do = "hold"
time = "30s"

[[step]]
do = "exchange"
who = "talk"
rate = "100-2000@60s,2000"
time = "2m"
churn = 0.01

[[step]]
do = "exchange"
who = "fanout"
receivers = 9
time = "5s"

[[step]]
do = "storm"
spread = "2s"
control = 40
"#;

    fn parse(text: &str, own: &[&str]) -> Result<(Run, Shape)> {
        let file: File = toml::from_str(text)?;
        let arguments = ["loadgen", "run", "evening.toml"].iter().chain(own);
        let arguments: Vec<String> = arguments.map(|s| (*s).to_owned()).collect();
        let run = with_options(&file, &arguments)?;
        let shape = shape(&file, &run.remote.load)?;
        Ok((run, shape))
    }

    #[test]
    fn a_file_has_options_and_steps() {
        let (run, shape) = parse(EVENING, &[]).expect("good");
        assert!(run.remote.load.resumption);
        assert_eq!((shape.sessions, shape.control, shape.circle), (400, 40, 10));
        assert!(matches!(shape.steps[0], Step::Hold(30_000_000)));
        let Step::Exchange(talk) = &shape.steps[1] else {
            panic!("an exchange");
        };
        assert_eq!((talk.who, talk.duration), (Who::Talk, 120_000_000));
        assert_eq!(talk.rate.to_string(), "100-2000@60s,2000");
        assert!(matches!(
            shape.steps[3],
            Step::Storm {
                spread: 2_000_000,
                ..
            }
        ));
    }

    #[test]
    fn options_have_lists_and_rates_are_numbers_or_profiles() {
        let text = r#"
name = "x"
[options]
assert = ["ack.p99_ms<5", "sessions.lost==0"]
edge-option = "--log=debug"
[[step]]
do = "exchange"
rate = 25
time = "1s"
[[step]]
do = "exchange"
rate = 0.5
time = "1s"
"#;
        let (run, shape) = parse(text, &[]).expect("good");
        assert_eq!(run.remote.load.assert.len(), 2);
        assert_eq!(run.remote.server.own.edge_options, ["--log=debug"]);
        let rates: Vec<String> = shape.steps.iter().map(rate).collect();
        assert_eq!(rates, ["25", "0.5"]);
    }

    fn rate(step: &Step) -> String {
        match step {
            Step::Exchange(exchange) => exchange.rate.to_string(),
            other => panic!("no exchange: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_counts_more() {
        let (run, shape) = parse(EVENING, &["--sessions", "80"]).expect("good");
        assert_eq!(shape.sessions, 80);
        assert_eq!(run.remote.load.ramp.to_string(), "500@10s,4000");
    }

    #[test]
    fn mistakes_are_told() {
        let bad = |text: &str| parse(text, &[]).expect_err("bad").to_string();
        bad("name = 'x'\nsteps = []");
        bad("name = 'x'\n[options]\nno-such-option = 1\n[[step]]\ndo = 'hold'\ntime = '1s'");
        bad("name = 'x'\n[[step]]\ndo = 'hold'\ntime = '1y'");
        let who = bad("name = 'x'\n[[step]]\ndo = 'exchange'\nwho = 'me'\ntime = '1s'");
        assert!(who.contains("anyone, talk"), "{who}");
        bad("name = 'x'\n[[step]]\ndo = 'exchange'\nwho = 'fanout'\ntime = '1s'");
    }
}
