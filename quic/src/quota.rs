//! How many packets of one connection are served while a shard is behind (T21).

use crate::limits::{QUOTA_PACKETS, QUOTA_WINDOW_MS};

/// What a connection has used of its quota: two bytes. Windows are counted modulo 256, so a connection that
/// used up one and then was silent for exactly 2.56 s finds it used up again, for the rest of 10 ms.
#[derive(Clone, Copy, Default, Debug)]
pub struct Quota {
    window: u8,
    used: u8,
}

impl Quota {
    /// Takes one packet at `now_ms`, of any clock that only grows; false when the window has had as many as
    /// it may.
    pub fn take(&mut self, now_ms: u64) -> bool {
        let [window, ..] = (now_ms / QUOTA_WINDOW_MS).to_le_bytes();
        if window != self.window {
            *self = Self { window, used: 0 };
        }
        let left = self.used < QUOTA_PACKETS;
        self.used = self.used.saturating_add(1);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf8_t21_a_window_has_its_quota_and_the_next_one_another() {
        let mut quota = Quota::default();
        let taken = |quota: &mut Quota, ms| (0..1_000).filter(|_| quota.take(ms)).count();
        for ms in [0, 10, 25_595, u64::MAX] {
            assert_eq!(taken(&mut quota, ms), usize::from(QUOTA_PACKETS), "at {ms}");
            assert!(!quota.take(ms));
        }
        assert_eq!(taken(&mut quota, 9), usize::from(QUOTA_PACKETS));
        assert_eq!(taken(&mut quota, 5), 0, "the same window");
    }
}
