//! One node's shards.

pub mod shard;

mod check;
mod world;
