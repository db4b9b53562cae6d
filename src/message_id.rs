//! Message ids, from blocks that the node reserved (R24).

use roadstead_proto::MessageId;

use crate::placement::ShardId;

/// Makes the message ids of one shard: the milliseconds that the node reserved, its number, and a share
/// of the sequence bits that belongs to this shard alone.
#[derive(Debug)]
pub(crate) struct MessageIds {
    node: u16,
    shard: u16,
    sequence_bits: u32,
    /// The last id's time and sequence.
    ms: u64,
    sequence: u16,
    /// The reserved block `[from_ms, until_ms)`.
    from_ms: u64,
    until_ms: u64,
}

impl MessageIds {
    pub(crate) fn new(node: u16, shard: ShardId, shards: u16) -> Self {
        let shard_bits = u32::from(shards).next_power_of_two().trailing_zeros();
        assert!(
            shard_bits + 2 < MessageId::SEQUENCE_BITS,
            "at least 8 ids a ms for each shard"
        );
        Self {
            node,
            shard: shard.0,
            sequence_bits: MessageId::SEQUENCE_BITS - shard_bits,
            ms: 0,
            sequence: 0,
            from_ms: 0,
            until_ms: 0,
        }
    }

    pub(crate) fn reserve(&mut self, from_ms: u64, until_ms: u64) {
        self.from_ms = from_ms;
        self.until_ms = until_ms;
    }

    /// The next id, or `None` while the reserved block is used up. A burst runs ahead of the clock; a
    /// clock that jumped back is not followed.
    pub(crate) fn next(&mut self, unix_ms: u64) -> Option<MessageId> {
        let clock = unix_ms
            .saturating_sub(MessageId::EPOCH_UNIX_MS)
            .max(self.from_ms);
        let (ms, sequence) = if clock > self.ms {
            (clock, 0)
        } else if self.sequence + 1 < 1 << self.sequence_bits {
            (self.ms, self.sequence + 1)
        } else {
            (self.ms + 1, 0)
        };
        if ms >= self.until_ms {
            return None;
        }
        (self.ms, self.sequence) = (ms, sequence);
        Some(MessageId::from_parts(
            ms,
            self.node,
            self.shard << self.sequence_bits | sequence,
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NOW: u64 = MessageId::EPOCH_UNIX_MS + 5_000;

    #[test]
    fn r24_nothing_without_a_reservation() {
        assert_eq!(MessageIds::new(0, ShardId(0), 1).next(NOW), None);
    }

    #[test]
    fn r24_ids_stay_in_the_block_and_shards_never_meet() {
        let mut seen = BTreeSet::new();
        for shard in 0..3 {
            let mut ids = MessageIds::new(5, ShardId(shard), 3);
            ids.reserve(6_000, 6_003);
            while let Some(id) = ids.next(NOW) {
                assert!((6_000..6_003).contains(&(id.unix_ms() - MessageId::EPOCH_UNIX_MS)));
                assert!(seen.insert(id), "{id:?} twice");
            }
        }
        assert_eq!(seen.len(), 3 * 3 * 1024);
    }

    #[test]
    fn a_clock_that_jumps_back_repeats_nothing() {
        let mut ids = MessageIds::new(0, ShardId(0), 1);
        ids.reserve(0, u64::MAX);
        let first = ids.next(NOW).expect("reserved");
        let second = ids.next(NOW - 4_000).expect("reserved");
        assert!(second > first);
    }
}
