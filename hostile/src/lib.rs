//! Peers that mean harm, for runs against a server of one's own: `loadgen hostile` and `faults`.
//!
//! [`HalfOpen`] begins handshakes and finishes none. A [`Peer`] logs in as a client does; what it then sends is the
//! caller's choice, frame by frame. [`Peer::take_over`] leaves the protocol behind: its [`Packets`] are written by
//! hand, under the keys of the session.

#![forbid(unsafe_code)]

mod half_open;
mod packets;
mod peer;
mod tap;

pub use half_open::HalfOpen;
pub use packets::{Packets, frames};
pub use peer::{Access, Ended, Peer};
