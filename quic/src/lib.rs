//! A QUIC v1 transport (RFC 9000, 9001, 9002, 9221) built for silence: an idle connection is one
//! struct of at most 512 bytes, and what exists only in flight hangs off one box that goes when it
//! drains.
//!
//! Sans-IO: no socket, thread, file, clock or entropy. [`Endpoint::handle_datagram`] takes input,
//! [`Endpoint::poll_event`] and [`Endpoint::poll_transmit`] yield output, [`Endpoint::next_timeout`]
//! and [`Endpoint::handle_timeout`] stand for the clock. TLS and the AEAD come in through the traits
//! [`crypto::Tls`] and [`crypto::Aead`]. The rules T1 to T21 are those of docs/TRANSPORT.md.
//!
//! Reading order: `connection/mod.rs` for the data, `endpoint/mod.rs` for the drive contract,
//! `connection/receive.rs` and `connection/transmit.rs` for the packet path, then the rest.

#![forbid(unsafe_code)]

pub mod cid;
pub mod coding;
pub mod crypto;
pub mod error;
pub mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod limits;
pub mod packet;
pub mod params;

mod blocks;
mod buffer;
mod config;
mod connection;
mod endpoint;
mod event;
mod keys;
mod quota;
mod ranges;
mod recovery;
mod rng;
mod slab;
mod space;
mod streams;
mod time;
mod token;
mod wheel;

pub use blocks::{Block, Blocks};
pub use cid::CidFormat;
pub use config::{Config, KeyLimits, Transport};
pub use connection::{NotOpen, Path};
pub use endpoint::{Connect, ConnectError, Endpoint, Memory, Sending, Standing, Stats, Transmit};
pub use error::{CloseReason, Code, TransportError};
pub use event::{Connected, Event, Handle};
pub use frame::Dir;
pub use params::Side;
pub use quota::Quota;
pub use streams::{Read, StreamError, direction, initiator};
pub use time::Time;
