//! The deterministic simulator: real shards, the real record layer, model clients, drawn faults, and an
//! independent checker, on one thread, from one printed seed.
//!
//! Reading order: [`swarm`] says what a seed draws, [`world`] runs it, [`check`] judges it, [`canary`]
//! checks the checker, [`explore`] does it many times.
//!
//! What is real: `roadstead::Shard`, and everything of `roadstead_store::records` and `keys`. What the
//! simulator provides: the engine below the records and the drivers that commit ([`store`]), connections
//! ([`net`]), clients ([`client`]). What it leaves out: the transport, tokens, the threads of the embedded
//! engine, and its files; they have tests of their own.

#![forbid(unsafe_code)]

pub mod canary;
pub mod check;
pub mod client;
pub mod explore;
pub mod net;
pub mod node;
pub mod report;
pub mod rng;
pub mod store;
pub mod swarm;
pub mod world;

pub use canary::Canary;
pub use explore::{Run, run};
pub use swarm::Plan;
