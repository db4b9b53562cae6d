//! The implementations, one file each.

mod aioquic;
mod own;
#[cfg(feature = "quiche")]
pub mod quiche;
mod quinn;
#[cfg(feature = "s2n")]
mod s2n;
mod tickets;
mod tokio_peer;

use anyhow::Result;

use crate::{
    identity::Identity,
    scenario::Feature,
    script::{Client, ClientOptions, Role, Server, ServerOptions},
};

pub use own::Roadstead;

/// A QUIC implementation that can play both ends.
pub trait Implementation {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Its version.
    fn version(&self) -> String;

    /// Why it does not offer a feature in a role; `None` when it does.
    fn lacks(&self, _feature: Feature, _role: Role) -> Option<&'static str> {
        None
    }

    /// Whether its client goes on with another version after a Version Negotiation packet.
    fn recovers_from_negotiation(&self) -> bool {
        false
    }

    /// Starts a server.
    fn serve(&self, identity: &Identity, options: &ServerOptions) -> Result<Box<dyn Server>>;

    /// Makes a client that has not connected yet.
    fn client(&self, identity: &Identity, options: &ClientOptions) -> Result<Box<dyn Client>>;
}

/// Everybody that Roadstead meets, and a line about each who is not at hand.
pub fn all() -> (Vec<Box<dyn Implementation>>, Vec<String>) {
    let mut peers: Vec<Box<dyn Implementation>> = vec![Box::new(quinn::Quinn)];
    #[cfg(feature = "quiche")]
    peers.push(Box::new(quiche::Quiche));
    #[cfg(feature = "s2n")]
    peers.push(Box::new(s2n::S2n));
    let mut skipped = Vec::new();
    match aioquic::Aioquic::new() {
        Ok(aioquic) => peers.push(Box::new(aioquic)),
        Err(error) => skipped.push(format!("aioquic was skipped: {error:#}")),
    }
    (peers, skipped)
}

/// The version of a crate that this build was locked to.
fn locked_version(name: &str) -> String {
    let lock = include_str!("../../Cargo.lock");
    let line = format!("name = \"{name}\"");
    let mut lines = lock.lines().skip_while(|l| **l != line).skip(1);
    let version = lines.next().and_then(|l| l.strip_prefix("version = "));
    version.unwrap_or("unknown").trim_matches('"').to_owned()
}
