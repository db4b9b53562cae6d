//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::schedule::Arrivals;

/// Open-loop load for a Roadstead edge, with an account of every message.
///
/// Exit code 0: everything sent was acknowledged, delivered exactly once to each device, in order, with
/// its receipts. 2: it was not, and the report names what. 1: the run could not be made.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Hold silent sessions; at the end a sample of them gets a message each.
    Hold(Remote),
    /// Users write to each other at a steady rate, whatever becomes of earlier messages.
    Chat(Remote),
    /// Start an edge in a temporary directory, chat against it, stop it.
    Demo(Demo),
}

/// A run against a server that is there.
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
    /// The `roadstead` binary [default: the one beside this binary].
    #[arg(long, value_name = "FILE")]
    pub(crate) edge: Option<PathBuf>,
    /// Shards of the edge [default: its own].
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u16>,
    #[command(flatten)]
    pub(crate) load: Load,
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
    /// Sessions opened per second.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 2_000.0, value_parser = positive)]
    pub(crate) ramp: f64,
    /// Messages per second [default: 1000; demo: 2000; hold: enough for the sample in a minute].
    #[arg(long, value_name = "PER_SECOND", value_parser = positive)]
    #[serde(skip)]
    pub(crate) rate: Option<f64>,
    /// Bytes of a message's payload, at least 40.
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub(crate) size: usize,
    /// How long messages are sent, or silent sessions are held: 90, 90s, 10m, 2h [default: 30; demo: 20].
    #[arg(long, value_name = "TIME", value_parser = time)]
    #[serde(skip)]
    pub(crate) duration: Option<f64>,
    /// Write the report as JSON; `-` for standard output.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub(crate) json: Option<PathBuf>,
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
    #[arg(long, value_name = "N")]
    #[serde(skip)]
    pub(crate) sockets: Option<u16>,
    /// Threads [default: half of the cores].
    #[arg(long, value_name = "N")]
    #[serde(skip)]
    pub(crate) threads: Option<u16>,
    /// QUIC engine of this end; demo: of the edge too.
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t = QuicEngine::Quinn)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuicEngine {
    /// quinn-proto.
    Quinn,
    /// The project's own.
    Lean,
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

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("a number above 0 is wanted".into()),
    }
}

/// Seconds, or a number with a unit.
fn time(text: &str) -> Result<f64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(at.unwrap_or(text.len()));
    let seconds = match unit {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err("a time is a number with ms, s, m, h or d, or of seconds".into()),
    };
    Ok(positive(number.trim())? * seconds)
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
    fn times_have_units() {
        let close = |text, seconds: f64| (time(text).expect("good") - seconds).abs() < 1e-9;
        assert!(close("90", 90.0) && close("1.5s", 1.5) && close("250ms", 0.25));
        assert!(close("2m", 120.0) && close("1 h", 3_600.0) && close("1d", 86_400.0));
        assert!(
            ["", "s", "-1s", "5y", "0"]
                .iter()
                .all(|bad| time(bad).is_err())
        );
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
