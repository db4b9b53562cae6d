//! The command line.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config;
pub(crate) use crate::plan::Plan;

/// Connection server of Roadstead: QUIC sessions, messages, receipts.
#[derive(Debug, Parser)]
#[command(name = "roadstead", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server until SIGTERM or SIGINT, then drain it.
    Serve(Serve),
    /// Print a token for development, signed with the key of the data directory.
    Token(Token),
    /// Print the configuration file with every default and its explanation.
    Config,
    /// Read this host and say what stands between it and that many sessions. Exit code 0: nothing; 1: it
    /// works, and costs something; 2: it will not work.
    Doctor(Doctor),
    /// Calculate hosts, memory, packets and disks from users and their habits, every formula shown.
    Plan(Plan),
    /// Move a store from one engine to another. The server must be stopped.
    #[command(subcommand)]
    Store(Store),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Write everything that the store holds to a new file.
    Export(Transfer),
    /// Put an export into an empty store, and make clients resynchronise.
    Import(Transfer),
}

/// Where the store is, for every command that opens one.
#[cfg(feature = "foundationdb")]
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StorePlace {
    /// Where messages are kept. Default: in the data directory.
    #[arg(long, value_name = "ENGINE")]
    pub(crate) store: Option<config::Engine>,
    /// Cluster file of FoundationDB. Default: the client library's.
    #[arg(long, value_name = "FILE")]
    pub(crate) cluster_file: Option<PathBuf>,
    /// Name of the deployment in the cluster; several may share it.
    #[arg(long, value_name = "NAME")]
    pub(crate) deployment: Option<String>,
}

/// Options of `store export` and `store import`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Transfer {
    /// The file that holds the store on its way.
    pub(crate) file: PathBuf,
    /// Configuration file (TOML), as for `serve`.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Data directory, as for `serve`.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    #[cfg(feature = "foundationdb")]
    #[command(flatten)]
    pub(crate) place: StorePlace,
    /// With `import` into a cluster: first remove what the deployment holds.
    #[cfg(feature = "foundationdb")]
    #[arg(long)]
    pub(crate) replace: bool,
}

impl Transfer {
    /// The options of a server on the same store.
    pub(crate) fn as_serve(&self) -> Serve {
        Serve {
            config: self.config.clone(),
            data: self.data.clone(),
            #[cfg(feature = "foundationdb")]
            place: self.place.clone(),
            ..Serve::default()
        }
    }
}

/// Options of `serve`. Each one set here overrides the configuration file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Serve {
    /// Configuration file (TOML); `roadstead config` prints one.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Address for client sessions (QUIC, UDP). Port 0 chooses a free one.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory of the store, certificate and keys; made if missing.
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Shards, one thread each. Default: one per core.
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u16>,
    /// Address of the admin HTTP: /metrics, /healthz, /readyz.
    #[arg(long, value_name = "ADDR")]
    pub(crate) admin: Option<SocketAddr>,
    /// QUIC engine of the sessions. Default: lean.
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) quic_engine: Option<config::QuicEngine>,
    #[cfg(feature = "foundationdb")]
    #[command(flatten)]
    pub(crate) place: StorePlace,
}

/// Options of `token`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Token {
    /// The user it is for.
    #[arg(long, value_name = "U")]
    pub(crate) user: u64,
    /// Directory with token-key.pem.
    #[arg(long, value_name = "DIR", default_value = config::DATA_DEFAULT)]
    pub(crate) data: PathBuf,
    /// How long it is valid, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
    pub(crate) valid_for: u64,
}

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Doctor {
    /// Sessions that the host is to hold.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) sessions: u64,
    /// Shards that it is to run. Default: one per core.
    #[arg(long, value_name = "N")]
    pub(crate) shards: Option<u16>,
    /// QUIC engine that it is to use. Default: lean.
    #[arg(long, value_enum, value_name = "ENGINE")]
    pub(crate) quic_engine: Option<config::QuicEngine>,
    /// Configuration that it is to run with, for the certificate in it.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Machine-readable.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn print_default_config() -> anyhow::Result<()> {
    line(config::DEFAULT_FILE.trim_end())
}

/// Writes the answer of a command to standard output, for people and for programs that started it.
/// `println!` would panic where nobody reads it or there is no room for it.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("standard output")
}

/// How long a command that failed waits for somebody to read why.
const LAST_WORD_PATIENCE: Duration = Duration::from_secs(1);

/// The last word of a command that failed; the exit code says it too. Written by a thread that is left behind
/// where standard error is not read: the process ends all the same.
pub(crate) fn print_error(error: &anyhow::Error) {
    let text = format!("roadstead: {error:#}\n");
    let (done, written) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = std::io::stderr().write_all(text.as_bytes());
        let _ = done.send(());
    });
    let _ = written.recv_timeout(LAST_WORD_PATIENCE);
}
