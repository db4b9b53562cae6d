//! The shard, driven directly: a [`world`] of shards, a [`fake_store`], and what must hold of them.
//!
//! One file for each matter; the names cite the delivery rules. [`random`] does everything at once, with
//! faults, from a seed.

mod acks;
mod chat_refusals;
mod ending;
mod ends;
mod ephemeral;
mod fake_store;
mod frames;
mod inbox_limit;
mod opening;
mod phone;
mod pressure;
mod random;
mod rates;
mod reading;
mod receipts;
mod rereads;
mod sends;
mod takeover;
mod timers;
mod world;
