//! What a run is to do, resolved from the command line: shared by all its threads.

use std::net::SocketAddr;

use roadstead_net::Transport;
use serde::Serialize;

use crate::assertion::Assertion;
use crate::cli::QuicEngine;
use crate::clock::Micros;
use crate::hostile::Campaign;
use crate::profile::Profile;
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
    pub(crate) ramp: Profile,
    /// What is done once the sessions are there.
    pub(crate) steps: Vec<Step>,
    /// Nothing is sent to these sessions before the first exchange, so whatever reaches them is a finding.
    pub(crate) silence: bool,
    /// Bytes of a payload.
    pub(crate) size: usize,
    /// Share of the chats that their readers read.
    pub(crate) read_fraction: f64,
    /// How long to wait for what is missing.
    pub(crate) drain_timeout: Micros,
    /// `None` takes the interval that the server asks for (T10).
    pub(crate) heartbeat: Option<Micros>,
    /// Losing a connection fails the run even if it came back.
    pub(crate) cuts_fail: bool,
    /// Findings of each kind that are told in words.
    pub(crate) details_max: usize,
    /// Attacks on the server while messages are sent.
    pub(crate) campaign: Option<Campaign>,
}

/// One thread of a run.
#[derive(Debug, Clone)]
pub(crate) struct Post {
    pub(crate) engine: QuicEngine,
    /// Sockets that its sessions share.
    pub(crate) sockets: u16,
    /// Stays in while the others are cut, and is measured apart.
    pub(crate) control: bool,
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

    /// Sessions without the control group.
    pub(crate) fn sessions_at_large(&self) -> u32 {
        let all = self.posts.iter().filter(|post| !post.control);
        all.map(|post| post.roster.sessions()).sum()
    }

    pub(crate) fn threads(&self) -> u16 {
        u16::try_from(self.posts.len()).unwrap_or(u16::MAX)
    }
}

/// One thing that a run does with its sessions.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Step {
    /// They are silent for a time.
    Hold(Micros),
    /// Messages are sent.
    Exchange(Exchange),
    /// Messages at ever other rates, each for the exchange's duration: the highest that keeps all limits.
    FindMax {
        exchange: Exchange,
        #[serde(serialize_with = "as_text")]
        limits: Vec<Assertion>,
    },
    /// All but the control group lose their connections at once, without a close, and come back.
    Storm {
        /// They try within this time.
        spread: Micros,
        /// Messages per second within the control group meanwhile.
        control_rate: f64,
        /// How long to wait for the last.
        patience: Micros,
    },
    /// Every socket changes its port within this time, as when a NAT forgets.
    Rebind(Micros),
    /// The edge of this run ends by SIGTERM, and starts again on its data.
    Restart {
        /// How long to wait for the last session.
        patience: Micros,
    },
}

/// Messages for a time.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Exchange {
    /// Messages per second; with [`Who::Fanout`] sends to so many at once.
    pub(crate) rate: Profile,
    pub(crate) arrivals: Arrivals,
    pub(crate) duration: Micros,
    pub(crate) who: Who,
    /// Share of the users who go away during the exchange and come back.
    pub(crate) offline_fraction: f64,
    /// Share of the sessions that leave each second and join again.
    pub(crate) churn: f64,
    /// Time before a message of a conversation, on average.
    pub(crate) think: Micros,
    /// There are attackers, and this user is the one whose inbox they fill.
    pub(crate) victim: Option<u64>,
}

/// Limits as they are written.
fn as_text<S: serde::Serializer>(limits: &[Assertion], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(limits.iter().map(ToString::to_string))
}

impl Exchange {
    /// Nothing is sent.
    pub(crate) fn none() -> Self {
        Self {
            rate: Profile::constant(1.0),
            arrivals: Arrivals::Constant,
            duration: 0,
            who: Who::Anyone,
            offline_fraction: 0.0,
            churn: 0.0,
            think: 0,
            victim: None,
        }
    }
}

/// Who writes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Who {
    /// Any session, to anyone of its circle.
    Anyone,
    /// Each of so many users, drawn by lot, gets one message.
    Sample(u32),
    /// Conversations, with time to think before each message.
    Talk,
    /// Any session, to so many users of its circle at once.
    Fanout(u32),
}
