//! shard
/// x
#[derive(Debug)]
pub struct Shard;
/// x
#[derive(Debug)]
pub struct ShardConfig;
/// x
#[derive(Debug)]
pub struct Counters;
