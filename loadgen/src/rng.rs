//! Seeded pseudo-random numbers, so that a run can be repeated.

use crate::clock::Micros;

/// SplitMix64: one word of state, every seed good.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator of its own for one purpose.
    pub(crate) fn stream(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform below `bound`, which must not be 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        let scaled = u64::from(bound) * (self.next() >> 32);
        u32::try_from(scaled >> 32).expect("below a 32-bit bound")
    }

    /// Uniform in [0, 1).
    #[allow(
        clippy::cast_precision_loss,
        reason = "53 bits are what a double holds"
    )]
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Exponential with this mean: the gap between independent events.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a positive time within a run"
    )]
    pub(crate) fn exponential(&mut self, mean: Micros) -> Micros {
        (-(1.0 - self.unit()).ln() * mean as f64) as Micros
    }

    /// `delay` spread evenly over its half and its one and a half, so that waiting peers do not return
    /// in step.
    pub(crate) fn jitter(&mut self, delay: Micros) -> Micros {
        let spread = u32::try_from(delay.max(1)).unwrap_or(u32::MAX);
        delay / 2 + u64::from(self.below(spread))
    }
}

/// A fixed shuffle of the numbers below `count`, by a seed: gives each number its place without a list.
///
/// A Feistel network over the next power of four, walked until it falls below `count`: at most four steps
/// on average.
#[derive(Debug, Clone)]
pub(crate) struct Shuffle {
    seed: u64,
    count: u32,
    half: u32,
}

impl Shuffle {
    pub(crate) fn new(seed: u64, count: u32) -> Self {
        let bits = u32::BITS - count.saturating_sub(1).leading_zeros();
        Self {
            seed,
            count,
            half: bits.div_ceil(2).max(1),
        }
    }

    /// The number at a place below `count`.
    pub(crate) fn at(&self, place: u32) -> u32 {
        assert!(place < self.count, "a place of the shuffle");
        let mut number = u64::from(place);
        loop {
            number = self.round(number);
            if number < u64::from(self.count) {
                return u32::try_from(number).expect("below a 32-bit count");
            }
        }
    }

    fn round(&self, number: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let (mut left, mut right) = (number >> self.half, number & mask);
        for key in 0..4 {
            let mixed = left ^ (mix(self.seed ^ mix(right << 8 | key)) & mask);
            (left, right) = (right, mixed);
        }
        left << self.half | right
    }
}

/// The finalizer of SplitMix64: spreads every bit of the input over the output.
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whether a thing of this name belongs to the share `fraction` of all things.
pub(crate) fn chosen(seed: u64, name: u64, fraction: f64) -> bool {
    Rng::stream(seed, name).unit() < fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let take = |seed| {
            let mut rng = Rng::new(seed);
            [rng.next(), rng.next(), rng.next()]
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
    }

    #[test]
    fn numbers_keep_their_bounds() {
        let mut rng = Rng::new(1);
        let mut seen = [0u32; 5];
        for _ in 0..5_000 {
            seen[rng.below(5) as usize] += 1;
            let delay = rng.jitter(1_000);
            assert!((500..1_500).contains(&delay));
            assert!((0.0..1.0).contains(&rng.unit()));
        }
        assert!(
            seen.iter().all(|count| (800..1_200).contains(count)),
            "{seen:?}"
        );
        assert_eq!(rng.jitter(0), 0);
    }

    #[test]
    fn a_shuffle_has_every_number_once_and_hardly_any_in_its_place() {
        for count in [1, 2, 3, 7, 64, 1_000, 4_097] {
            let shuffle = Shuffle::new(5, count);
            let mut all: Vec<u32> = (0..count).map(|place| shuffle.at(place)).collect();
            let kept = (0..).zip(&all).filter(|(place, at)| place == *at).count();
            assert!(count < 60 || kept < 10, "{kept} of {count}");
            all.sort_unstable();
            assert!(all.iter().copied().eq(0..count));
        }
        assert_ne!(Shuffle::new(1, 900).at(5), Shuffle::new(2, 900).at(5));
    }

    #[test]
    fn a_fraction_is_met() {
        let met = (0..10_000).filter(|name| chosen(3, *name, 0.25)).count();
        assert!((2_300..2_700).contains(&met), "{met}");
        assert!(!(0..100).any(|name| chosen(3, name, 0.0)));
        assert!((0..100).all(|name| chosen(3, name, 1.0)));
    }
}
