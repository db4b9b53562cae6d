//! Durable state: the ordered transactional seam, the records above it, and the engines below.
//!
//! - [`txn`]: the seam, cut to FoundationDB's measure.
//! - [`keys`]: where everything is kept.
//! - [`records`]: what the commands of a shard mean in keys and values, written once for every engine.
//! - [`embedded`]: the engine on an embedded LSM tree: one committer, group commit, synced before
//!   anything is visible (R8 to R11).
//! - [`memory`]: the engine of tests and the simulator, with the semantics of FoundationDB.
//! - [`conformance`]: what every engine has to do.
//! - [`transfer`]: moving a store from one engine to another.
//! - `foundationdb`, with the feature of that name: the engine on a FoundationDB cluster.
//!
//! A shard asks by [`roadstead::store::Request`] and is answered by [`roadstead::store::Completion`].

#![cfg_attr(not(feature = "foundationdb"), forbid(unsafe_code))]
#![deny(unsafe_code)]

mod admin;
pub mod conformance;
pub mod embedded;
#[cfg(feature = "foundationdb")]
pub mod foundationdb;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod keys;
pub mod memory;
pub mod recent;
pub mod records;
pub mod transfer;
pub mod txn;

pub use admin::Ends;
pub use embedded::{
    EmbeddedConfig, EmbeddedLimits, EmbeddedStore, Handle, Health, OpenError, Sink,
};
