//! What a shard may hold for peers, and what it may promise them (T8).
//!
//! Flow control advertised is memory promised. Every session starts with a small window; one in the middle
//! of a large frame gets a larger one while the budget lasts, and otherwise sends that frame more slowly.

/// Bytes of raised windows that a shard promises: 4,096 sessions in the middle of the largest frame.
const PROMISED_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Bytes that a shard holds in incomplete frames and for peers that do not read. Above it the connection
/// that holds most is closed.
const HELD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Budget {
    promised: u64,
    held: usize,
}

impl Budget {
    /// Promises a window, if there is room for it.
    pub(super) fn promise(&mut self, window: u32) -> bool {
        let fits = self.promised + u64::from(window) <= PROMISED_BYTES_MAX;
        if fits {
            self.promised += u64::from(window);
        }
        fits
    }

    /// What is held for a connection has changed.
    pub(super) fn changed(&mut self, before: usize, after: usize) {
        self.held = self.held + after - before;
    }

    /// A connection has gone.
    pub(super) fn release(&mut self, held: usize, window: u32) {
        self.held -= held;
        self.promised -= u64::from(window);
    }

    pub(super) fn is_exceeded(&self) -> bool {
        self.held > HELD_BYTES_MAX
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t8_no_more_is_promised_than_there_is() {
        let mut budget = Budget::default();
        let window = 64 * 1024;
        let promised = (0..10_000).filter(|_| budget.promise(window)).count();
        assert_eq!(promised as u64, PROMISED_BYTES_MAX / u64::from(window));
        budget.release(0, window);
        assert!(budget.promise(window));
    }

    #[test]
    fn t8_pressure_is_noticed_and_passes() {
        let mut budget = Budget::default();
        budget.changed(0, HELD_BYTES_MAX + 1);
        assert!(budget.is_exceeded());
        budget.release(HELD_BYTES_MAX + 1, 0);
        assert_eq!((budget.is_exceeded(), budget.held()), (false, 0));
    }
}
