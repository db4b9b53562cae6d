//! The configuration file. `roadstead.toml` beside this crate documents every value; a test holds the
//! two together.

mod limits;
mod network;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use roadstead::store::InboxLimits;
use roadstead_net::tls::TicketKeys;
use serde::Deserialize;

use crate::{admin, cli};

pub(crate) use limits::Limits;
pub(crate) use network::Network;

/// The documented file with every default.
pub(crate) const DEFAULT_FILE: &str = include_str!("../roadstead.toml");

/// The data directory when none is named.
pub(crate) const DATA_DEFAULT: &str = "./roadstead-data";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) data: PathBuf,
    pub(crate) shards: u16,
    pub(crate) admin: SocketAddr,
    pub(crate) admin_names: Vec<String>,
    pub(crate) node: u16,
    pub(crate) pin: bool,
    pub(crate) log: String,
    pub(crate) quic_engine: QuicEngine,
    pub(crate) memory_max_mib: u64,
    pub(crate) huge_pages: bool,
    pub(crate) tls: Tls,
    pub(crate) tokens: Tokens,
    pub(crate) sessions: Sessions,
    pub(crate) limits: Limits,
    pub(crate) store: Store,
}

/// A commit reads some hundred keys: a cache that does not outlive one is none.
const CACHED_KEYS_MIN: u32 = 1_024;

/// Messages of one inbox that can be configured: what its counter holds, with a wide margin.
const INBOX_ENTRIES_CAP: u64 = 1_000_000;

/// The same of its bytes, in MiB.
const INBOX_MIB_CAP: u64 = 65_536;

/// How long the check of a signed token can be told to last, in seconds: who has not been heard of by the identity
/// service for a year is asked again.
const LOGIN_VALID_CAP_S: u64 = 366 * 86_400;

/// An idle server of one shard takes 11 MiB: below this ceiling nobody could ever log in.
const MEMORY_MIB_MIN: u64 = 16;

const MIB: u64 = 1024 * 1024;

/// A QUIC implementation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuicEngine {
    /// The project's own, built for idle sessions.
    #[default]
    Lean,
    /// quinn-proto: proven elsewhere.
    Quinn,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) names: Vec<String>,
    pub(crate) tickets_rotate_h: u32,
}

impl Tls {
    /// How long a ticket key seals, or `None` if somebody else rotates them.
    pub(crate) fn tickets_rotate_every(&self) -> Option<Duration> {
        let hours = u64::from(self.tickets_rotate_h);
        (hours > 0).then(|| Duration::from_secs(hours * 3_600))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Tokens {
    pub(crate) jwks: PathBuf,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) resume_valid_for_s: u64,
    pub(crate) login_valid_for_s: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Sessions {
    pub(crate) heartbeat_s: u32,
    pub(crate) retry_above_half_open: usize,
    pub(crate) slow_consumer_s: u32,
    pub(crate) inbox_entries_max: u64,
    pub(crate) inbox_mib_max: u64,
    pub(crate) node_hints: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) block_cache_mib: u32,
    pub(crate) cached_keys: u32,
    pub(crate) reserve_mib: u32,
    #[cfg(feature = "foundationdb")]
    pub(crate) engine: Engine,
    #[cfg(feature = "foundationdb")]
    pub(crate) cluster_file: Option<PathBuf>,
    #[cfg(feature = "foundationdb")]
    pub(crate) deployment: String,
}

/// Where messages are kept.
#[cfg(feature = "foundationdb")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// In the data directory.
    #[default]
    Embedded,
    /// In a FoundationDB cluster.
    Foundationdb,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 4433))],
            data: DATA_DEFAULT.into(),
            shards: 0,
            admin: SocketAddr::from(([127, 0, 0, 1], 9433)),
            admin_names: Vec::new(),
            node: 0,
            pin: true,
            log: "info".into(),
            quic_engine: QuicEngine::default(),
            memory_max_mib: 0,
            huge_pages: false,
            tls: Tls::default(),
            tokens: Tokens::default(),
            sessions: Sessions::default(),
            limits: Limits::default(),
            store: Store::default(),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        let names = ["localhost", "127.0.0.1", "::1"].map(String::from).to_vec();
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            names,
            tickets_rotate_h: 24,
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            jwks: PathBuf::new(),
            issuer: "roadstead".into(),
            audience: "roadstead".into(),
            resume_valid_for_s: 7 * 86_400,
            login_valid_for_s: 30 * 86_400,
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            heartbeat_s: 120,
            retry_above_half_open: roadstead_net::config::RETRY_HALF_OPEN_DEFAULT,
            slow_consumer_s: 60,
            inbox_entries_max: roadstead::limits::INBOX_ENTRIES_MAX,
            inbox_mib_max: roadstead::limits::INBOX_BYTES_MAX / MIB,
            node_hints: Vec::new(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            block_cache_mib: 64,
            cached_keys: 128 * 1024,
            reserve_mib: 128,
            #[cfg(feature = "foundationdb")]
            engine: Engine::default(),
            #[cfg(feature = "foundationdb")]
            cluster_file: None,
            #[cfg(feature = "foundationdb")]
            deployment: "default".into(),
        }
    }
}

#[cfg(feature = "foundationdb")]
impl Store {
    fn take_arguments(&mut self, arguments: &cli::StorePlace) {
        self.engine = arguments.store.unwrap_or(self.engine);
        if let Some(file) = &arguments.cluster_file {
            self.cluster_file = Some(file.clone());
        }
        if let Some(deployment) = &arguments.deployment {
            self.deployment.clone_from(deployment);
        }
    }
}

impl Config {
    /// The file, if one is named, with the command line on top.
    pub(crate) fn load(arguments: &cli::Serve) -> anyhow::Result<Self> {
        let mut config = match &arguments.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        if let Some(listen) = arguments.listen {
            config.listen = vec![listen];
        }
        if let Some(data) = &arguments.data {
            config.data.clone_from(data);
        }
        config.shards = arguments.shards.unwrap_or(config.shards);
        config.admin = arguments.admin.unwrap_or(config.admin);
        config.quic_engine = arguments.quic_engine.unwrap_or(config.quic_engine);
        #[cfg(feature = "foundationdb")]
        config.store.take_arguments(&arguments.place);
        config.check()?;
        Ok(config)
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("configuration file {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("configuration file {}", path.display()))
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.listen.is_empty(), "listen names no address");
        anyhow::ensure!(self.node < 1 << 10, "node must be below 1024");
        anyhow::ensure!(self.shards <= 512, "shards must be at most 512");
        anyhow::ensure!(
            self.sessions.heartbeat_s >= 1,
            "heartbeat_s must be at least 1"
        );
        anyhow::ensure!(
            (1..=INBOX_ENTRIES_CAP).contains(&self.sessions.inbox_entries_max),
            "inbox_entries_max is 1 to {INBOX_ENTRIES_CAP}"
        );
        anyhow::ensure!(
            (1..=INBOX_MIB_CAP).contains(&self.sessions.inbox_mib_max),
            "inbox_mib_max is 1 to {INBOX_MIB_CAP}"
        );
        let tokens = &self.tokens;
        anyhow::ensure!(
            (1..=LOGIN_VALID_CAP_S).contains(&tokens.login_valid_for_s)
                && (1..=LOGIN_VALID_CAP_S).contains(&tokens.resume_valid_for_s),
            "tokens.login_valid_for_s and resume_valid_for_s are 1 to {LOGIN_VALID_CAP_S}"
        );
        anyhow::ensure!(
            self.store.cached_keys >= CACHED_KEYS_MIN,
            "store.cached_keys is at least {CACHED_KEYS_MIN}"
        );
        let every = self.tls.tickets_rotate_every();
        anyhow::ensure!(
            every.is_none_or(|every| every >= TicketKeys::ROTATE_EVERY_MIN),
            "tls.tickets_rotate_h is at least {}, or 0: tickets are good for longer than their key seals",
            TicketKeys::ROTATE_EVERY_MIN.as_secs() / 3_600
        );
        for name in &self.admin_names {
            anyhow::ensure!(
                admin::is_host(name),
                "admin_names: {name:?} is no host name or address without port"
            );
        }
        anyhow::ensure!(
            self.memory_max_mib == 0 || self.memory_max_mib >= MEMORY_MIB_MIN,
            "memory_max_mib is at least {MEMORY_MIB_MIN}, or 0 for a part of what the host has: an idle server takes as much"
        );
        self.limits.check()?;
        let both =
            self.tls.certificate.as_os_str().is_empty() == self.tls.key.as_os_str().is_empty();
        anyhow::ensure!(both, "tls.certificate and tls.key go together");
        Ok(())
    }

    /// How many shards to run.
    pub(crate) fn shard_count(&self) -> u16 {
        match self.shards {
            0 => std::thread::available_parallelism()
                .ok()
                .and_then(|cores| u16::try_from(cores.get()).ok())
                .unwrap_or(1),
            shards => shards,
        }
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_secs(self.sessions.heartbeat_s.into())
    }
}

impl Sessions {
    pub(crate) fn inbox_limits(&self) -> InboxLimits {
        InboxLimits {
            entries_max: self.inbox_entries_max,
            bytes_max: self.inbox_mib_max * MIB,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_file_is_the_default() {
        let documented: Config = toml::from_str(DEFAULT_FILE).expect("it parses");
        assert_eq!(documented, Config::default());
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<Config>("lisden = []").expect_err("a typing error");
        assert!(error.to_string().contains("lisden"), "{error}");
    }

    #[test]
    fn a_limit_that_can_not_be_is_named() {
        for (text, named) in [
            ("sends_per_s = 2_000_000", "a second"),
            ("sessions_burst = 0", "sessions_burst"),
            ("recipient_sends_burst = 0", "recipient_sends_burst"),
            ("address_bits_v4 = 0", "address_bits_v4"),
        ] {
            let config: Config = toml::from_str(&format!("[limits]\n{text}\n")).expect(text);
            let error = config.check().expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
        }
        for (text, named) in [
            ("admin_names = [\"a:80\"]\n", "without port"),
            ("[tls]\ntickets_rotate_h = 15\n", "at least 16"),
            ("memory_max_mib = 1\n", "memory_max_mib is at least 16"),
            (
                "[sessions]\ninbox_entries_max = 1000001\n",
                "inbox_entries_max is 1 to 1000000",
            ),
            ("[sessions]\ninbox_mib_max = 0\n", "inbox_mib_max is 1 to"),
            (
                "[tokens]\nresume_valid_for_s = 31622401\n",
                "resume_valid_for_s are 1 to 31622400",
            ),
            ("[tokens]\nlogin_valid_for_s = 0\n", "login_valid_for_s"),
            (
                "[store]\ncached_keys = 1023\n",
                "cached_keys is at least 1024",
            ),
        ] {
            let config: Config = toml::from_str(text).expect("it parses");
            let error = config.check().expect_err("too little").to_string();
            assert!(error.contains(named), "{error}");
        }
        let error = toml::from_str::<Config>("[limits]\nunlimited = [\"10.0.0.1\"]\n");
        assert!(
            error
                .expect_err("no network")
                .to_string()
                .contains("10.0.0.1")
        );
    }

    #[test]
    fn the_command_line_wins() {
        let arguments = cli::Serve {
            shards: Some(3),
            quic_engine: Some(QuicEngine::Lean),
            ..cli::Serve::default()
        };
        let config = Config::load(&arguments).expect("valid");
        assert_eq!(config.shard_count(), 3);
        assert_eq!(config.quic_engine, QuicEngine::Lean);
    }
}
