//! What every peer is asked to do, whatever library it is made of, and what it answers.
//!
//! A scenario is written once, in steps. A client takes them one by one; a server only echoes, and takes
//! the few [`Order`]s that a scenario may give it. Both keep [`Facts`], from which the scenario judges.

use std::net::SocketAddr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The protocol name that all agree on.
pub const ALPN: &str = "roadstead/1";

/// The name in the certificate.
pub const SERVER_NAME: &str = "localhost";

/// Which end a peer plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// It connects.
    Client,
    /// It listens.
    Server,
}

/// One thing that a client does. A step ends when the thing is done, or fails.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Completes a handshake. What the client remembers of earlier ones, it uses.
    Connect {
        /// The server, or the tap before it.
        to: SocketAddr,
    },
    /// Starts a handshake and waits for its failure.
    ConnectInVain {
        /// The server, or the tap before it.
        to: SocketAddr,
    },
    /// Opens bidirectional streams all at once, sends on each, ends it, and reads all of it back.
    Echo {
        /// How many streams.
        streams: usize,
        /// How many bytes on each.
        bytes: usize,
    },
    /// The same with unidirectional streams: the server answers each on one of its own.
    EchoUni {
        /// How many streams.
        streams: usize,
        /// How many bytes on each.
        bytes: usize,
    },
    /// Sends a datagram until it comes back.
    Datagram,
    /// Waits until a session ticket came.
    AwaitTicket,
    /// Updates the keys.
    UpdateKeys,
    /// Moves to another socket of its own.
    Migrate,
    /// Closes with an application's code and phrase.
    Close {
        /// The code.
        code: u32,
        /// The phrase.
        reason: String,
    },
    /// Waits until the connection has ended, and pokes a silent peer meanwhile.
    AwaitEnd,
}

/// What a scenario may ask of a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Update the keys of the connection.
    UpdateKeys,
    /// Close the connection.
    Close {
        /// The code.
        code: u32,
        /// The phrase.
        reason: String,
    },
    /// Lose every connection, as a restart does, and go on with the same address and keys.
    Forget,
}

/// How a server is to behave.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ServerOptions {
    /// Ask every newcomer for a Retry.
    pub retry: bool,
    /// Speak a version that a client of v1 does not know, and nothing else.
    pub foreign_version: bool,
}

/// How a client is to behave.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClientOptions {
    /// Offer a version first that the server does not know.
    pub foreign_version: bool,
}

/// Who ended a connection, and how, in the words of the one who tells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// By the teller's own application.
    Here,
    /// By the peer's application.
    Application {
        /// Its code.
        code: u64,
        /// Its phrase, where the library tells it.
        reason: Option<String>,
    },
    /// By a stateless reset.
    Reset,
    /// For want of a common version.
    Version,
    /// In some other way.
    Other(String),
}

/// What an end observed, as its library tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Facts {
    /// Handshakes that were completed.
    pub connected: u32,
    /// The protocol of the last one.
    pub alpn: String,
    /// Whether each was resumed, where the library tells.
    pub resumed: Vec<bool>,
    /// Streams that came back whole (client), or that were echoed (server).
    pub streams: u32,
    /// Bytes of them.
    pub bytes: u64,
    /// Datagrams that came back, or were echoed.
    pub datagrams: u32,
    /// How often a key phase was seen to change, where the library tells: of what this end sends, and of
    /// what its peer sends.
    pub key_updates: Option<(u32, u32)>,
    /// The addresses at which the peer was seen, in order.
    pub remotes: Vec<SocketAddr>,
    /// How each connection ended.
    pub ends: Vec<End>,
    /// Whatever else the library tells of what happened.
    pub notes: Vec<String>,
}

impl Facts {
    /// Notes where the peer is now.
    pub fn saw(&mut self, remote: SocketAddr) {
        if self.remotes.last() != Some(&remote) {
            self.remotes.push(remote);
        }
    }
}

/// A client under the scenario's control.
pub trait Client {
    /// Does one step.
    fn step(&mut self, step: &Step) -> Result<()>;

    /// What it observed.
    fn facts(&mut self) -> Result<Facts>;
}

/// A server that echoes until it is dropped.
pub trait Server {
    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// Does what the scenario asks.
    fn order(&mut self, order: &Order) -> Result<()>;

    /// What it observed.
    fn facts(&mut self) -> Result<Facts>;
}

/// The bytes of stream `n`: distinct streams have distinct bytes.
pub fn payload(n: usize, bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32.wrapping_mul(u32::try_from(n).expect("few streams") + 1);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    (0..bytes).map(|_| next()).collect()
}

/// The checksum by which payloads are compared.
pub fn checksum(bytes: &[u8]) -> Vec<u8> {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
        .as_ref()
        .to_vec()
}

/// What is sent on `streams` streams at once, and what must come back.
#[derive(Debug)]
pub struct Expected {
    left: Vec<Vec<u8>>,
    bytes: usize,
}

impl Expected {
    /// The payloads of these streams.
    pub fn new(streams: usize, bytes: usize) -> Self {
        let left = (0..streams).map(|n| checksum(&payload(n, bytes))).collect();
        Self { left, bytes }
    }

    /// Takes what came back on one stream; it must be one of the payloads, and each only once.
    pub fn take(&mut self, back: &[u8], facts: &mut Facts) -> Result<()> {
        let sum = checksum(back);
        let place = self.left.iter().position(|sent| *sent == sum);
        let place = place.ok_or_else(|| {
            anyhow::anyhow!("{} bytes came back with a wrong checksum", back.len())
        })?;
        self.left.swap_remove(place);
        facts.streams += 1;
        facts.bytes += self.bytes as u64;
        Ok(())
    }

    /// Whether everything came back.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}
