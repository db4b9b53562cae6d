//! The shard, driven directly.
