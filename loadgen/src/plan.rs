//! What a run is to do, resolved from the command line: shared by all its threads.

use std::net::SocketAddr;

use roadstead_net::Transport;

use crate::cli::QuicEngine;
use crate::clock::Micros;
use crate::schedule::Arrivals;
use crate::token::TokenSigner;
use crate::topology::Topology;

/// Everything that the threads of a run have in common.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    /// The name in the server's certificate.
    pub(crate) server_name: String,
    pub(crate) signer: TokenSigner,
    pub(crate) topology: Topology,
    pub(crate) threads: u16,
    pub(crate) sockets: u16,
    /// Trusted certificates, PEM.
    pub(crate) roots: Vec<u8>,
    pub(crate) transport: Transport,
    /// The engine of this end, and the server's where it is known.
    pub(crate) quic_engine: QuicEngine,
    pub(crate) target_engine: Option<QuicEngine>,
    /// TLS session resumption and resume tokens, off in headline runs (T13).
    pub(crate) resumption: bool,
    /// Tells this run's messages from those of others.
    pub(crate) run: u32,
    /// First connect counter, above that of every earlier run (R13).
    pub(crate) counter_base: u64,
    /// Sessions opened per second.
    pub(crate) ramp: f64,
    /// How long all sessions are held in silence before messages are sent.
    pub(crate) hold: Micros,
    pub(crate) exchange: Exchange,
    /// How long to wait for what is missing.
    pub(crate) drain_timeout: Micros,
    /// `None` takes the interval that the server asks for (T10).
    pub(crate) heartbeat: Option<Micros>,
    /// Losing a connection fails the run even if it came back.
    pub(crate) cuts_fail: bool,
    /// Findings of each kind that are told in words.
    pub(crate) details_max: usize,
}

/// The messages of a run.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    /// Messages per second.
    pub(crate) rate: f64,
    pub(crate) arrivals: Arrivals,
    pub(crate) duration: Micros,
    pub(crate) who: Who,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// Share of the chats that their readers read.
    pub(crate) read_fraction: f64,
    /// Share of the users who go away during the exchange and come back.
    pub(crate) offline_fraction: f64,
}

/// Who writes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    /// Any session, to anyone of its circle.
    Anyone,
    /// Each of so many users, spread over all, gets one message.
    Sample(u32),
}
