//! What a deployment is asked to carry. The defaults are the product's design point.

use clap::Args;

use crate::config::QuicEngine;

/// A number that counts something: finite and not negative.
fn amount(text: &str) -> Result<f64, String> {
    let value: f64 = text.replace('_', "").parse().map_err(|_| "not a number")?;
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err("must be 0 or more".into())
    }
}

/// The same, and something is divided by it or it is a count that cannot be nothing.
fn positive(text: &str) -> Result<f64, String> {
    match amount(text)? {
        0.0 => Err("must be more than 0".into()),
        value => Ok(value),
    }
}

/// A share of a whole: more than 0, at most 1.
fn share(text: &str) -> Result<f64, String> {
    positive(text).and_then(|value| {
        if value <= 1.0 {
            Ok(value)
        } else {
            Err("a share is at most 1".into())
        }
    })
}

/// Options of `plan`. Numbers may be written as 2e9.
#[derive(Debug, Clone, Args)]
pub(crate) struct Plan {
    /// Registered users.
    #[arg(long, value_name = "N", default_value = "2e9", value_parser = positive)]
    pub(crate) users: f64,
    /// Sessions open at once, for each user.
    #[arg(long, value_name = "F", default_value = "0.1", value_parser = positive)]
    pub(crate) online_share: f64,
    /// Devices of a user: each has an inbox of its own and gets every message.
    #[arg(long, value_name = "N", default_value = "2", value_parser = positive)]
    pub(crate) devices: f64,
    /// Messages sent in a day, by all.
    #[arg(long, value_name = "N", default_value = "100e9", value_parser = positive)]
    pub(crate) messages_per_day: f64,
    /// Bytes of a message's payload.
    #[arg(long, value_name = "BYTES", default_value = "250", value_parser = amount)]
    pub(crate) payload_bytes: f64,
    /// The busiest hour, as a multiple of the average one.
    #[arg(long, value_name = "F", default_value = "2.5", value_parser = positive)]
    pub(crate) peak_factor: f64,
    /// Seconds between two heartbeats of a silent session.
    #[arg(long, value_name = "SECS", default_value = "120", value_parser = positive)]
    pub(crate) heartbeat_s: f64,
    /// How often a session begins anew in a day.
    #[arg(long, value_name = "N", default_value = "10", value_parser = amount)]
    pub(crate) connects_per_day: f64,
    /// Share of inbox entries that wait for a device that is away.
    #[arg(long, value_name = "F", default_value = "0.1", value_parser = share)]
    pub(crate) waiting_share: f64,
    /// How long those wait, in days.
    #[arg(long, value_name = "DAYS", default_value = "1", value_parser = positive)]
    pub(crate) waiting_days: f64,
    /// Cores of a host.
    #[arg(long, value_name = "N", default_value = "16", value_parser = positive)]
    pub(crate) host_cores: f64,
    /// RAM of a host, in GiB.
    #[arg(long, value_name = "GIB", default_value = "64", value_parser = positive)]
    pub(crate) host_ram_gib: f64,
    /// Most sessions on one host, whatever fits: what one failure may cut off.
    #[arg(long, value_name = "N", default_value = "2e6", value_parser = positive)]
    pub(crate) host_sessions_max: f64,
    /// Share of a host's CPU that may be used in the busiest hour.
    #[arg(long, value_name = "F", default_value = "0.5", value_parser = share)]
    pub(crate) cpu_share: f64,
    /// Hosts beyond those needed, for failures and upgrades, as a share of them.
    #[arg(long, value_name = "F", default_value = "0.2", value_parser = amount)]
    pub(crate) spare_share: f64,
    /// Copies that FoundationDB keeps.
    #[arg(long, value_name = "N", default_value = "3", value_parser = positive)]
    pub(crate) copies: f64,
    /// QUIC engine of the sessions.
    #[arg(long, value_enum, value_name = "ENGINE", default_value_t)]
    pub(crate) quic_engine: QuicEngine,
    /// Machine-readable.
    #[arg(long)]
    pub(crate) json: bool,
}
