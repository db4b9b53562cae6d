//! What a run is to do, resolved from the command line: shared by all its threads.

use std::net::SocketAddr;

use roadstead_net::Transport;

use crate::cli::QuicEngine;
use crate::clock::Micros;
use crate::schedule::Arrivals;
use crate::token::TokenSigner;
use crate::topology::{Roster, Topology};

/// Everything that the threads of a run have in common.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    /// The name in the server's certificate.
    pub(crate) server_name: String,
    pub(crate) signer: TokenSigner,
    pub(crate) topology: Topology,
    /// The threads of the run.
    pub(crate) posts: Vec<Post>,
    /// Trusted certificates, PEM.
    pub(crate) roots: Vec<u8>,
    pub(crate) transport: Transport,
    /// The server's engine where it is known.
    pub(crate) target_engine: Option<QuicEngine>,
    /// TLS session resumption and resume tokens, off in headline runs (T13).
    pub(crate) resumption: bool,
    /// Tells this run's messages from those of others.
    pub(crate) run: u32,
    /// First connect counter, above that of every earlier run (R13).
    pub(crate) counter_base: u64,
    /// Sessions opened per second.
    pub(crate) ramp: f64,
    /// How long all sessions are held before messages are sent.
    pub(crate) hold: Micros,
    /// Nothing has been sent to these sessions, so whatever reaches them before is a finding.
    pub(crate) silence: bool,
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

/// One thread of a run.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) engine: QuicEngine,
    /// Sockets that its sessions share.
    pub(crate) sockets: u16,
    pub(crate) roster: Roster,
}

impl Plan {
    /// Sockets of all threads.
    pub(crate) fn sockets(&self) -> u32 {
        self.posts.iter().map(|post| u32::from(post.sockets)).sum()
    }

    /// Sessions on an engine.
    pub(crate) fn sessions_of(&self, engine: QuicEngine) -> u32 {
        let of = self.posts.iter().filter(|post| post.engine == engine);
        of.map(|post| post.roster.sessions()).sum()
    }

    pub(crate) fn threads(&self) -> u16 {
        u16::try_from(self.posts.len()).unwrap_or(u16::MAX)
    }
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
    /// Each of so many users, drawn by lot, gets one message.
    Sample(u32),
}
