//! Connection ids without a table (T2): an id is the session's place in the slab under a keyed
//! permutation, so finding a session is arithmetic.
//!
//! Twelve bytes: two for steering, uniform inside the shard's range, and ten permuted: slab index
//! 24 bits, generation 24, sequence 8, process epoch 16, zero 8. Eight bytes, for clients that share
//! a socket (T5): index 24, generation 16, sequence 8, zero 16. The permutation is a four-round
//! Feistel network whose round function is the header-protection mask (RFC 9001 5.4.3) under a
//! secret key; the steering bytes are its tweak. Four rounds of a random function hide equal
//! inputs up to about 2^20 ids an observer could compare (Luby-Rackoff bound 2^(n/4)); the zero
//! bits reject a forged id with probability 255/256, the rest falls to generation, sequence and
//! epoch, and then to packet protection.

use crate::crypto::Aead;
use crate::packet::ConnectionId;

/// How this endpoint's own ids look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CidFormat {
    /// Twelve bytes with the steering prefix: servers, and clients that share their sockets.
    Steered {
        /// The lowest prefix of the shard's range.
        first: u16,
        /// The highest prefix of the shard's range.
        last: u16,
    },
    /// Eight bytes without steering: many client sessions on one socket (T5).
    Compact,
    /// No bytes: one client session per local socket and peer (T5).
    Empty,
}

impl CidFormat {
    /// The prefixes of `shard` when there are `shards` of them: those with
    /// `(prefix * shards) >> 16 == shard`.
    ///
    /// # Panics
    /// Panics unless `shard < shards` and there are at most 65,536 shards.
    #[must_use]
    pub fn of_shard(shard: u32, shards: u32) -> Self {
        assert!(
            shard < shards && shards <= 1 << 16,
            "a shard of the process"
        );
        let first = (u64::from(shard) << 16).div_ceil(u64::from(shards));
        let last = (u64::from(shard + 1) << 16).div_ceil(u64::from(shards)) - 1;
        let narrow = |v: u64| u16::try_from(v).expect("a prefix of sixteen bits");
        Self::Steered {
            first: narrow(first),
            last: narrow(last),
        }
    }

    /// Bytes of an id.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Steered { .. } => 12,
            Self::Compact => 8,
            Self::Empty => 0,
        }
    }

    /// True for ids without bytes.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        matches!(self, Self::Empty)
    }

    /// Whether a packet for `id` belongs to this shard (T1). Formats without steering own all.
    #[must_use]
    pub fn owns(self, id: &[u8]) -> bool {
        match (self, id) {
            (Self::Steered { first, last }, [a, b, ..]) => {
                (first..=last).contains(&u16::from_be_bytes([*a, *b]))
            }
            _ => true,
        }
    }
}

/// What an id of ours says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) index: u32,
    pub(crate) generation: u32,
    pub(crate) sequence: u8,
}

/// Makes and reads this endpoint's ids.
pub(crate) struct CidCodec<A: Aead> {
    pub(crate) format: CidFormat,
    key: A::MaskKey,
    epoch: u16,
}

impl<A: Aead> CidCodec<A> {
    pub(crate) fn new(aead: &A, format: CidFormat, key: &[u8; 16], epoch: u16) -> Self {
        let key = aead.mask_key(key);
        Self { format, key, epoch }
    }

    /// A prefix inside the shard's range: pseudo-random, and the same whenever the same id is made
    /// again, so that a retransmitted NEW_CONNECTION_ID repeats its id.
    fn prefix(&self, aead: &A, plain: u128) -> [u8; 2] {
        let CidFormat::Steered { first, last } = self.format else {
            return [0; 2];
        };
        let mut sample = [0xff; 16];
        sample[6..].copy_from_slice(&plain.to_be_bytes()[6..]);
        let mask = aead.mask(&self.key, &sample);
        in_range(
            first,
            last,
            u32::from_be_bytes([mask[0], mask[1], mask[2], mask[3]]),
        )
    }

    /// The id of a place. Twelve-byte ids are made from the whole generation, eight-byte ones from
    /// its low 16 bits.
    pub(crate) fn encode(&self, aead: &A, place: Place) -> ConnectionId {
        let (index, generation) = (u128::from(place.index), u128::from(place.generation));
        let sequence = u128::from(place.sequence);
        match self.format {
            CidFormat::Empty => ConnectionId::EMPTY,
            CidFormat::Compact => {
                let plain = index << 40 | (generation & 0xffff) << 24 | sequence << 16;
                let word = self.permute(aead, plain, 32, [0; 2]);
                ConnectionId::new(&word.to_be_bytes()[8..]).expect("8 bytes")
            }
            CidFormat::Steered { .. } => {
                let epoch = u128::from(self.epoch);
                let plain = index << 56 | generation << 32 | sequence << 24 | epoch << 8;
                let prefix = self.prefix(aead, plain);
                let word = self.permute(aead, plain, 40, prefix);
                let mut bytes = [0; 12];
                bytes[..2].copy_from_slice(&prefix);
                bytes[2..].copy_from_slice(&word.to_be_bytes()[6..]);
                ConnectionId::new(&bytes).expect("12 bytes")
            }
        }
    }

    /// Reads an id; `None` when it cannot be one of ours. Generations of the compact format are cut
    /// to 16 bits; the slab compares them likewise.
    pub(crate) fn decode(&self, aead: &A, id: &[u8]) -> Option<Place> {
        let mut word = [0u8; 16];
        let (half, tweak) = match (self.format, id.len()) {
            (CidFormat::Compact, 8) => {
                word[8..].copy_from_slice(id);
                (32, [0; 2])
            }
            (CidFormat::Steered { .. }, 12) if self.format.owns(id) => {
                word[6..].copy_from_slice(&id[2..]);
                (40, [id[0], id[1]])
            }
            _ => return None,
        };
        let plain = self.invert(aead, u128::from_be_bytes(word), half, tweak);
        let field = |shift: u32, bits: u32| {
            let value = (plain >> shift) & ((1 << bits) - 1);
            u32::try_from(value).expect("at most 24 bits")
        };
        let sequence = |shift| u8::try_from(field(shift, 8)).expect("8 bits");
        if half == 32 {
            let place = Place {
                index: field(40, 24),
                generation: field(24, 16),
                sequence: sequence(16),
            };
            return (field(0, 16) == 0).then_some(place);
        }
        let place = Place {
            index: field(56, 24),
            generation: field(32, 24),
            sequence: sequence(24),
        };
        let ours = field(0, 8) == 0 && field(8, 16) == u32::from(self.epoch);
        ours.then_some(place)
    }

    /// Whether the generation of a decoded id is that of a slot.
    pub(crate) fn same_generation(&self, decoded: u32, slot: u32) -> bool {
        match self.format {
            CidFormat::Compact => decoded == slot & 0xffff,
            _ => decoded == slot,
        }
    }

    fn round(&self, aead: &A, round: u8, half: u64, bits: u32, tweak: [u8; 2]) -> u64 {
        let mut sample = [0; 16];
        sample[0] = round;
        sample[1..3].copy_from_slice(&tweak);
        sample[8..].copy_from_slice(&half.to_be_bytes());
        let mask = aead.mask(&self.key, &sample);
        let mut word = [0; 8];
        word[3..].copy_from_slice(&mask);
        u64::from_be_bytes(word) & ((1 << bits) - 1)
    }

    fn permute(&self, aead: &A, plain: u128, bits: u32, tweak: [u8; 2]) -> u128 {
        let (mut left, mut right) = halves(plain, bits);
        for round in 0..4 {
            (left, right) = (right, left ^ self.round(aead, round, right, bits, tweak));
        }
        u128::from(left) << bits | u128::from(right)
    }

    fn invert(&self, aead: &A, word: u128, bits: u32, tweak: [u8; 2]) -> u128 {
        let (mut left, mut right) = halves(word, bits);
        for round in (0..4).rev() {
            (left, right) = (right ^ self.round(aead, round, left, bits, tweak), left);
        }
        u128::from(left) << bits | u128::from(right)
    }
}

/// A prefix between `first` and `last`.
pub(crate) fn in_range(first: u16, last: u16, random: u32) -> [u8; 2] {
    let span = u32::from(last - first) + 1;
    let offset = u16::try_from(random % span).expect("below 2^16");
    (first + offset).to_be_bytes()
}

fn halves(word: u128, bits: u32) -> (u64, u64) {
    let mask = (1u128 << bits) - 1;
    let half = |v: u128| u64::try_from(v & mask).expect("a half is at most 40 bits");
    (half(word >> bits), half(word))
}

impl<A: Aead> std::fmt::Debug for CidCodec<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CidCodec")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

/// The stateless reset token of one of our ids (RFC 9000 10.3.2, T1): computed, never stored.
pub(crate) fn reset_token<A: Aead>(aead: &A, key: &[u8; 32], id: &ConnectionId) -> [u8; 16] {
    let mac = aead.hmac(key, &[b"reset", id.as_slice()]);
    mac[..16].try_into().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Suite;

    #[test]
    fn shard_ranges_partition_the_prefixes_t1() {
        for shards in [1, 2, 3, 5, 7, 64] {
            let mut next = 0u32;
            for shard in 0..shards {
                let CidFormat::Steered { first, last } = CidFormat::of_shard(shard, shards) else {
                    panic!("steered")
                };
                assert_eq!(u32::from(first), next);
                for prefix in [first, last] {
                    assert_eq!((u32::from(prefix) * shards) >> 16, shard);
                }
                next = u32::from(last) + 1;
            }
            assert_eq!(next, 1 << 16);
        }
    }

    /// A stand-in for the mask function; nothing else is used here.
    struct Mask;

    impl Aead for Mask {
        type MaskKey = [u8; 16];

        fn mask_key(&self, key: &[u8; 16]) -> [u8; 16] {
            *key
        }
        fn mask(&self, key: &[u8; 16], sample: &[u8; 16]) -> [u8; 5] {
            self.header_mask(Suite::Aes128Gcm, key, sample)
        }
        fn seal(&self, _: Suite, _: &[u8], _: &[u8; 12], _: &[u8], _: &mut [u8]) -> [u8; 16] {
            unreachable!()
        }
        fn open(&self, _: Suite, _: &[u8], _: &[u8; 12], _: &[u8], _: &mut [u8]) -> bool {
            unreachable!()
        }
        fn header_mask(&self, _: Suite, key: &[u8], sample: &[u8; 16]) -> [u8; 5] {
            let mut h = 0xcbf2_9ce4_8422_2325u64;
            for byte in key.iter().chain(sample) {
                h = (h ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                h ^= h >> 29;
            }
            h.to_le_bytes()[..5].try_into().unwrap()
        }
        fn hkdf_extract(&self, _: &[u8], _: &[u8]) -> [u8; 32] {
            unreachable!()
        }
        fn hkdf_expand_labels(&self, _: Suite, _: &[u8], _: &mut [crate::crypto::Labelled<'_>]) {
            unreachable!()
        }
        fn hmac(&self, _: &[u8; 32], _: &[&[u8]]) -> [u8; 32] {
            unreachable!()
        }
    }

    #[test]
    fn ids_lead_back_and_others_do_not_t2() {
        let formats = [CidFormat::of_shard(2, 7), CidFormat::Compact];
        for format in formats {
            let codec = CidCodec::new(&Mask, format, &[3; 16], 9);
            let mut seen = std::collections::BTreeSet::new();
            for n in 0..2_000u32 {
                let place = Place {
                    index: n * 8_191 % (1 << 24),
                    generation: n % 70,
                    sequence: 1,
                };
                let id = codec.encode(&Mask, place);
                assert_eq!(id, codec.encode(&Mask, place), "the same id again");
                assert_eq!(codec.decode(&Mask, id.as_slice()), Some(place));
                assert!(codec.format.owns(id.as_slice()));
                assert!(seen.insert(id));
                // Another process start, another key, a flipped bit.
                let mut bytes = id.as_slice().to_vec();
                if matches!(format, CidFormat::Steered { .. }) {
                    let epoch = CidCodec::new(&Mask, format, &[3; 16], 10);
                    assert_eq!(epoch.decode(&Mask, &bytes), None);
                }
                let other = CidCodec::new(&Mask, format, &[4; 16], 9);
                assert_ne!(other.decode(&Mask, &bytes), Some(place));
                bytes[5] ^= 1;
                assert_ne!(codec.decode(&Mask, &bytes), Some(place));
            }
            assert_eq!(codec.decode(&Mask, &[]), None);
            assert_eq!(codec.decode(&Mask, &[1; 20]), None);
        }
    }
}
