//! The one source of chance in a run: what it gives depends on the seed and on nothing else.

use std::time::Duration;

/// SplitMix64 (Steele, Lea, Flood 2014): small, fast, and every seed is as good as another.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which must not be 0.
    pub fn below(&mut self, end: u64) -> u64 {
        let wide = u128::from(self.bits()) * u128::from(end);
        u64::try_from(wide >> 64).expect("the upper half of 128 bits")
    }

    /// An index into `len` things.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// A number from `from` to `to`, both included.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// True `parts` times of a million.
    pub fn ppm(&mut self, parts: u64) -> bool {
        parts > 0 && self.below(1_000_000) < parts
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A number from 1 to `max`, small ones as often as large ones: every power of two is as likely.
    pub fn magnitude(&mut self, max: u64) -> u64 {
        let bits = u64::from(u64::BITS - max.leading_zeros());
        let shift = self.below(bits);
        let low = 1 << shift;
        self.between(low, (low * 2 - 1).min(max).max(low)).min(max)
    }

    /// A duration of at most `max`, seldom near it.
    pub fn delay(&mut self, max: Duration) -> Duration {
        let max = u64::try_from(max.as_micros()).expect("delays are short");
        Duration::from_micros(self.magnitude(max.max(1)))
    }

    /// A duration around `mean` and never more than four times as long.
    pub fn around(&mut self, mean: Duration) -> Duration {
        let mean = u64::try_from(mean.as_micros())
            .expect("delays are short")
            .max(1);
        Duration::from_micros(match self.below(8) {
            0 => self.between(1, mean * 4),
            _ => self.between(1, mean * 2),
        })
    }
}
