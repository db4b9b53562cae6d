//! Sockets, rings, timers and the QUIC engine of Roadstead.
//!
//! This crate holds everything that touches the kernel, and it is the only one with `unsafe` code. It
//! serves both ends: the edge runs one [`Seed`] of a [`Server`] per shard, loadgen runs the seeds of a
//! [`Client`]. A seed is moved into its own thread, where [`Seed::run`] turns it into an event loop:
//!
//! ```text
//! ring ── packets ──▶ steering check ──▶ engine ── Event ──▶ App
//!  ▲                    │ stray: to its owner's queue          │ read, write, close through Io
//!  └── batched sends ◀──┴──────────── engine ◀─────────────────┘
//! ```
//!
//! The application implements [`App`]; other threads reach it through [`Mailbox`]. The engine is a type
//! parameter ([`quic::Engine`]), so the seam costs nothing per packet. Comments cite the transport rules
//! as `T<number>`.

pub mod config;
pub mod counters;
pub mod driver;
pub mod error;
pub mod event;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod host;
pub mod probe;
pub mod queue;
pub mod quic;
pub mod setup;
pub mod tls;
pub mod wheel;

mod address;
mod looper;
mod pace;
mod receive;
mod ring;
mod send;
mod sleep;
mod spare;
mod steer;
mod sys;
mod udp;

pub use config::{ClientConfig, SecretKeys, ServerConfig, Transport};
pub use counters::Counters;
pub use driver::{App, Io};
pub use error::{ConnectError, Error};
pub use event::{CloseReason, ConnId, ConnectParams, Event, HomePrefix};
pub use queue::Mailbox;
pub use quic::{Engine, TransportMemory, lean::Lean, quinn::Quinn};
pub use setup::{Client, Seed, Server};
