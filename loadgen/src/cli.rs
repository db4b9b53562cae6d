//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::assertion::Assertion;
use crate::clock::time;
use crate::hostile::Attacks;
use crate::profile::Profile;
use crate::schedule::Arrivals;

/// Open-loop load for a Roadstead edge, with an account of every message.
///
/// Exit code 0: everything sent was acknowledged, delivered exactly once to each device, in order, with
/// its receipts. 2: it was not, and the report names what. 1: the run could not be made.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, args_override_self = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold silent sessions; then a sample of them gets a message each.
    Hold(Remote),
    /// Users write to each other at a steady rate, whatever becomes of earlier messages.
    Chat(Remote),
    /// A day of conversations in a shorter time: quiet before dawn, busiest in the evening.
    Day(Day),
    /// One send to many receivers at once, measured to the last of them.
    Fanout(Fanout),
    /// Sessions leave and join all the time while others write.
    Churn(Churn),
    /// All sessions are cut at once and come back, while a control group goes on.
    Storm(Storm),
    /// Every source port changes, as when a NAT forgets; the sessions stay.
    Rebind(Rebind),
    /// SIGTERM to an edge of its own, which sends every session away; all come back after its start.
    Drain(Drain),
    /// Honest users write to each other while others attack the server: none of it may harm them, and all of it is
    /// refused by its counter.
    Hostile(Hostile),
    /// The steps of a scenario file (TOML), on this machine or on many.
    Run(Run),
    /// Start an edge in a temporary directory, chat against it, stop it.
    Demo(Demo),
    /// Make parts of the runs of a loadgen elsewhere that has --agents.
    Agent(Agent),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Agent {
    /// Where to listen (TCP).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7433")]
    pub(crate) listen: SocketAddr,
    /// The secret that it shares with those who may use it, at least 16 bytes.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: PathBuf,
}

/// A run against a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Remote {
    #[command(flatten)]
    pub(crate) server: Server,
    #[command(flatten)]
    pub(crate) load: Load,
}

/// A run against a server of its own.
#[derive(Debug, Clone, Args)]
pub(crate) struct Demo {
    #[command(flatten)]
    pub(crate) own: OwnEdge,
    #[command(flatten)]
    pub(crate) load: Load,
}

/// A server that this end starts.
#[derive(Debug, Clone, Args, Default)]
pub(crate) struct OwnEdge {
    /// The `roadstead` binary [default: the one beside this binary].
    #[arg(long, value_name = "FILE")]
    pub(crate) edge: Option<PathBuf>,
    /// Shards of the edge that this end starts [default: its own].
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u16>,
    /// An option of `roadstead serve` for that edge, as in --edge-option=--store=foundationdb; also more
    /// than once.
    #[arg(
        long = "edge-option",
        value_name = "OPTION",
        allow_hyphen_values = true
    )]
    pub(crate) edge_options: Vec<String>,
    /// What its configuration file says, if the scenario wants one.
    #[arg(skip)]
    pub(crate) config: Option<&'static str>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Day {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Messages of an active user in a day; --rate overrides it.
    #[arg(long, value_name = "N", default_value_t = 40.0, value_parser = positive)]
    pub(crate) messages_per_day: f64,
    /// Share of the users who are active.
    #[arg(long, value_name = "F", default_value_t = 0.6, value_parser = fraction)]
    pub(crate) active: f64,
    /// Time to think before a message of a conversation, on average.
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = time)]
    pub(crate) think: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Users that get each send, each in a chat of its own: as many as a group would have.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(crate) receivers: u32,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Churn {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Share of the sessions that leave each second; they join again after 5 s on average.
    #[arg(long, value_name = "F", default_value_t = 0.01, value_parser = fraction)]
    pub(crate) churn: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Storm {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The sessions try to come back within this time [default: all at once].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) spread: Option<f64>,
    /// Sessions that are not cut, and write to each other meanwhile.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub(crate) control: u32,
    /// Messages per second among them.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 200.0, value_parser = positive)]
    pub(crate) control_rate: f64,
    /// How long to wait for the last to come back.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub(crate) patience: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Rebind {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The ports change one after the other within this time.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub(crate) over: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    pub(crate) demo: Demo,
    /// How long to wait for the last to come back.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub(crate) patience: f64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Hostile {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(flatten)]
    pub(crate) attacks: Attacks,
    /// An honest message that is delivered later than this is a finding.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = time)]
    pub(crate) late_after: f64,
    /// So many rounds without attackers and as many with them, in turn: the report has the median ratio of their
    /// 99th percentiles of delivery. Each lasts for --duration.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) pairs: Option<u32>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// The scenario file. Options on the command line count more than those in the file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// The server under load.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    /// Address of the edge (QUIC, UDP).
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4433")]
    pub(crate) target: SocketAddr,
    /// The edge's data directory: cert.pem to trust and token-key.pem to sign tokens with.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Certificates to trust (PEM), instead of the one in --data.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Ed25519 key to sign tokens with (PEM), instead of the one in --data.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_key: Option<PathBuf>,
    /// Name of that key in the edge's JWKS.
    #[arg(long, value_name = "KID", default_value = "development")]
    pub(crate) token_key_id: String,
    /// Name in the edge's certificate.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    pub(crate) server_name: String,
    /// The edge's admin HTTP: tells its process, also after a restart.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// The edge's process, if there is no --admin.
    #[arg(long, value_name = "PID")]
    pub(crate) target_pid: Option<u32>,
    /// Start an edge in a temporary directory for this run, and stop it at the end.
    #[arg(long)]
    pub(crate) start_edge: bool,
    #[command(flatten)]
    pub(crate) own: OwnEdge,
    /// Its QUIC engine, where this end started it.
    #[arg(skip)]
    pub(crate) quic_engine: Option<QuicEngine>,
}

/// The load. Defaults depend on the scenario.
#[derive(Debug, Clone, Args, Serialize)]
pub(crate) struct Load {
    /// Sessions to open [default: 10000; chat: 1000].
    #[arg(long, value_name = "N")]
    #[serde(skip)]
    pub(crate) sessions: Option<u32>,
    /// Sessions opened per second. 2000, or steps 500@10s,4000, or an even rise 100-4000@30s,4000.
    #[arg(long, value_name = "PROFILE", default_value = "2000")]
    pub(crate) ramp: Profile,
    /// Messages per second, or a profile as of --ramp [default: 1000; demo: 2000; hold: enough for the sample in a minute].
    #[arg(long, value_name = "PROFILE")]
    #[serde(skip)]
    pub(crate) rate: Option<Profile>,
    /// Bytes of a message's payload, at least 40.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub(crate) size: usize,
    /// How long messages are sent, or silent sessions are held: 90, 90s, 10m, 2h [default: 30; demo: 20].
    #[arg(long, value_name = "TIME", value_parser = time)]
    #[serde(skip)]
    pub(crate) duration: Option<f64>,
    /// A limit that the run must keep, as in deliver.p99_ms<100; also more than once. A name that does not
    /// exist is answered with all that do.
    #[arg(long, value_name = "LIMIT")]
    #[serde(skip)]
    pub(crate) assert: Vec<Assertion>,
    /// chat: search the highest rate that keeps the limits of --assert, or deliver.p99_ms<100 without any.
    /// --rate is where the search starts, --duration how long each rate is tried.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) find_max: bool,
    /// Make the run on these agents (`loadgen agent`), each a part of it, all starting at one instant.
    #[arg(long, value_name = "ADDR,...", value_delimiter = ',')]
    #[serde(skip)]
    pub(crate) agents: Vec<String>,
    /// The secret that the agents know.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) agent_token_file: Option<PathBuf>,
    /// Write the report as JSON; `-` for standard output, here and below: the table goes to standard error.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
    /// Write the course of the run as CSV, a line a second.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) csv: Option<PathBuf>,
    /// Write the report with plots as one HTML page that needs no network.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) html: Option<PathBuf>,
    /// Share of the users who go away during the run and come back [default: 0; demo: 0.05].
    #[arg(long, value_name = "F", value_parser = fraction)]
    #[serde(skip)]
    pub(crate) offline_fraction: Option<f64>,
    /// Share of the chats whose messages are marked read.
    #[arg(long, value_name = "F", default_value_t = 0.5, value_parser = fraction)]
    pub(crate) read_fraction: f64,
    /// How the gaps between messages are spread.
    #[arg(long, value_enum, default_value_t = Arrivals::Poisson)]
    pub(crate) arrivals: Arrivals,
    /// Devices of each user, 1 to 4; each is a session.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) devices: u32,
    /// Users who chat with each other, every two in a chat of their own.
    #[arg(long, value_name = "USERS", default_value_t = 4)]
    pub(crate) circle: u32,
    /// Sockets in all, without those of --quinn-clients; sessions share them [default: 64].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    #[serde(skip)]
    pub(crate) sockets: Option<u16>,
    /// Threads [default: half of the cores].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    #[serde(skip)]
    pub(crate) threads: Option<u16>,
    /// QUIC engine of this end; demo: of the edge too.
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t)]
    #[serde(skip)]
    pub(crate) quic_engine: QuicEngine,
    /// So many of the sessions are clients on quinn, in threads of their own, whatever the engine of the
    /// others: two ends of one engine could hide a shared fault (T13).
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) quinn_clients: u32,
    /// Id of the first user.
    #[arg(long, value_name = "ID", default_value_t = 1)]
    pub(crate) users_from: u64,
    /// Interval of heartbeats: 120, 120s, 5m [default: what the edge asks for].
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) heartbeat: Option<f64>,
    /// Seed of device ids, arrivals and choices.
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Resume TLS sessions and log in with resume tokens when a session comes back.
    #[arg(long)]
    pub(crate) resumption: bool,
    /// hold: users, drawn by lot, who get a message at the end; all if there are fewer.
    #[arg(long, value_name = "USERS", default_value_t = 100_000)]
    pub(crate) sample: u32,
    /// hold, demo: a session may lose its connection if it comes back.
    #[arg(long)]
    pub(crate) allow_reconnects: bool,
    /// How long to wait for what is missing at the end.
    #[arg(long, value_name = "TIME", default_value = "60", value_parser = time)]
    pub(crate) drain_timeout: f64,
    /// Findings of each kind that the report tells in words.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) details: usize,
    /// No progress and no table.
    #[arg(long, short)]
    #[serde(skip)]
    pub(crate) quiet: bool,
}

/// A QUIC implementation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuicEngine {
    /// The project's own.
    #[default]
    Lean,
    /// quinn-proto.
    Quinn,
}

impl QuicEngine {
    /// As on a command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Quinn => "quinn",
            Self::Lean => "lean",
        }
    }
}

impl Command {
    /// What every scenario has: the server and the load.
    #[cfg(test)]
    pub(crate) fn load(&self) -> &Load {
        match self {
            Self::Hold(remote) | Self::Chat(remote) => &remote.load,
            Self::Day(day) => &day.remote.load,
            Self::Fanout(fanout) => &fanout.remote.load,
            Self::Churn(churn) => &churn.remote.load,
            Self::Storm(storm) => &storm.remote.load,
            Self::Rebind(rebind) => &rebind.remote.load,
            Self::Drain(drain) => &drain.demo.load,
            Self::Hostile(hostile) => &hostile.remote.load,
            Self::Run(run) => &run.remote.load,
            Self::Demo(demo) => &demo.load,
            Self::Agent(_) => panic!("an agent has no load of its own"),
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0 is wanted".into()),
    }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err("a number from 0 to 1 is wanted".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_are_checked() {
        let parse =
            |arguments: &[&str]| Cli::try_parse_from(["loadgen", "chat"].iter().chain(arguments));
        assert!(parse(&["--rate", "0"]).is_err());
        assert!(parse(&["--ramp", "inf"]).is_err());
        assert!(parse(&["--offline-fraction", "1.5"]).is_err());
        assert!(parse(&["--offline-fraction", "0.3", "--rate", "12.5"]).is_ok());
    }
}
