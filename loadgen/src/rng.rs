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

    /// `delay` spread evenly over its half and its one and a half, so that waiting peers do not return
    /// in step.
    pub(crate) fn jitter(&mut self, delay: Micros) -> Micros {
        let spread = u32::try_from(delay.max(1)).unwrap_or(u32::MAX);
        delay / 2 + u64::from(self.below(spread))
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
    fn a_fraction_is_met() {
        let met = (0..10_000).filter(|name| chosen(3, *name, 0.25)).count();
        assert!((2_300..2_700).contains(&met), "{met}");
        assert!(!(0..100).any(|name| chosen(3, name, 0.0)));
        assert!((0..100).all(|name| chosen(3, name, 1.0)));
    }
}
