//! What a connection can tell about itself: its memory, and the invariants of T15.

use super::Connection;
use crate::keys::OneRttKeys;

impl<T> Connection<T> {
    /// Bytes on the heap behind this connection.
    pub(crate) fn heap_bytes(&self) -> usize {
        let keys = if matches!(self.keys, OneRttKeys::Boxed(..)) {
            32 * 5 + 36 + 96
        } else {
            0
        };
        self.active.as_ref().map_or(0, |a| a.heap_bytes())
            + self.peer_ids.as_ref().map_or(0, |p| p.heap_bytes())
            + keys
    }

    /// The invariants of T15 that one connection can check about itself; for tests and debug runs.
    pub(crate) fn check(&self) {
        let Some(active) = &self.active else { return };
        let early: u64 = active
            .hs
            .iter()
            .flat_map(|hs| hs.spaces.iter().flatten())
            .map(|s| s.sent.bytes_in_flight())
            .sum();
        let records = early + active.data.bytes_in_flight();
        assert_eq!(
            active.rec.bytes_in_flight, records,
            "bytes in flight = sum of records"
        );
        assert!(self.flow.tx_sent <= self.flow.tx_max, "credit is respected");
        assert!(
            active.rx_sum >= self.flow.consumed,
            "read no more than arrived"
        );
        for space in active
            .hs
            .iter()
            .flat_map(|hs| hs.spaces.iter().flatten())
            .map(|s| &s.sent)
        {
            assert_eq!(space.noted(), 0, "every noted frame belongs to a record");
        }
        assert_eq!(
            active.data.noted(),
            0,
            "every noted frame belongs to a record"
        );
    }
}
