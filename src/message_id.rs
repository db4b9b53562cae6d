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
        // A block that goes on where the last one ends is one with it: an id says when it was given, and would be ahead
        // by all of the last one otherwise.
        if from_ms != self.until_ms {
            self.from_ms = from_ms;
        }
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
        if ms >= self.until_ms.min(MessageId::MS_END) {
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

    /// D-F20: ids were ahead of the clock by what had been reserved before, 80 to 100 s.
    #[test]
    fn df20_r24_an_id_says_when_it_was_given() {
        let mut ids = MessageIds::new(0, ShardId(0), 4);
        // A restart: what was reserved before it may be in use, and is left out.
        let mut until = 5_000 + 120_000;
        ids.reserve(until, until + 20_000);
        until += 20_000;
        let first = ids.next(NOW).expect("reserved");
        assert_eq!(first.unix_ms() - NOW, 120_000);
        let mut last = first;
        // Every 20 s a block, 120 s ahead of the clock.
        for turn in 1..100 {
            let now = NOW + turn * 20_000;
            let next = (now - MessageId::EPOCH_UNIX_MS + 120_000).max(until + 1);
            ids.reserve(until, next);
            until = next;
            let id = ids.next(now).expect("reserved");
            assert!(id > last, "never twice");
            last = id;
            if turn > 6 {
                assert_eq!(id.unix_ms(), now, "at the clock");
            }
        }
        // One turn was not heard of.
        ids.reserve(until + 20_000, until + 40_000);
        let id = ids.next(NOW + 2_000_000).expect("reserved");
        assert!(id > last && id.unix_ms() - MessageId::EPOCH_UNIX_MS >= until + 20_000);
    }

    /// D-F7: a clock beyond 2094 ended the process at the first send, and after every restart.
    #[test]
    fn df7_r24_ids_end_without_a_panic() {
        let mut ids = MessageIds::new(0, ShardId(0), 1);
        ids.reserve(MessageId::MS_END - 1, u64::MAX);
        let beyond = MessageId::EPOCH_UNIX_MS + MessageId::MS_END;
        for _ in 0..1 << MessageId::SEQUENCE_BITS {
            assert!(ids.next(NOW).is_some());
        }
        assert_eq!(ids.next(NOW), None);
        assert_eq!(ids.next(beyond), None);
        assert_eq!(ids.next(u64::MAX), None);
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
