//! The core of Roadstead: one shard's deterministic state machine.
//!
//! A [`Shard`] is driven from outside, as a sans-IO protocol is: call [`Shard::handle`] with one
//! [`Input`], then [`Shard::poll`] until it returns `None`, and call [`Shard::handle_timeout`] when
//! [`Shard::poll_timeout`] is due. Nothing in this crate reads a clock, opens a file or socket, starts
//! a thread or draws randomness: the same inputs give the same outputs, in production and in `sim/`.
//!
//! Verbs: `handle_*` takes an input, `poll_*` yields outputs, getters have no prefix.

#![forbid(unsafe_code)]

mod directory;
pub mod io;
pub mod limits;
mod message_id;
pub mod peer;
pub mod placement;
pub mod rate;
pub mod refusals;
pub mod request_hash;
mod session;
mod shard;
pub mod slots;
pub mod store;
pub mod time;

pub use io::{CloseReason, Credential, Ended, Identity, Input, Output, Proof, SessionId};
pub use peer::ShardMessage;
pub use placement::{Placement, ShardId, Slot};
pub use rate::{Rate, RateTable};
pub use shard::{CountByCode, Counters, Latencies, Shard, ShardConfig};
pub use time::{Now, Time};
