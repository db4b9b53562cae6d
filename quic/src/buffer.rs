//! Byte buffers of a stream or of a level's CRYPTO data. Both are flat rings with a small set of
//! ranges beside them: memory is bounded by the window that was promised, never by how a peer
//! cuts its data (T8; the fragment metadata attack on other stacks).

use std::collections::VecDeque;

use crate::limits::STREAM_GAPS_MAX;
use crate::ranges::RangeSet;
use crate::time::to_usize;

/// Bytes written and not yet acknowledged.
#[derive(Debug, Default)]
pub(crate) struct SendBuf {
    data: VecDeque<u8>,
    /// Offset of the first byte of `data`: everything below is acknowledged.
    base: u64,
    /// Everything below was sent at least once.
    next: u64,
    /// Acknowledged ranges above `base`.
    acked: RangeSet,
    /// Ranges to send again.
    lost: RangeSet,
}

impl SendBuf {
    pub(crate) const fn at(offset: u64) -> Self {
        Self {
            data: VecDeque::new(),
            base: offset,
            next: offset,
            acked: RangeSet::new(),
            lost: RangeSet::new(),
        }
    }

    pub(crate) fn end(&self) -> u64 {
        self.base + self.data.len() as u64
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len()
    }

    /// The end of what was ever sent.
    pub(crate) fn sent(&self) -> u64 {
        self.next
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.data.is_empty()
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.data.extend(bytes);
    }

    /// Whether something could be sent when offsets up to `limit` are permitted.
    pub(crate) fn wants(&self, limit: u64) -> bool {
        !self.lost.is_empty() || self.next < self.end().min(limit)
    }

    pub(crate) fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// The next stretch to send: lost data first, then new data below `limit`.
    pub(crate) fn take(&mut self, max: usize, limit: u64) -> Option<(u64, usize)> {
        if max == 0 {
            return None;
        }
        if let Some((start, end)) = self.lost.pop_front(max as u64) {
            return Some((start, to_usize(end - start)));
        }
        let end = self.end().min(limit).min(self.next + max as u64);
        if end <= self.next {
            return None;
        }
        let start = std::mem::replace(&mut self.next, end);
        Some((start, to_usize(end - start)))
    }

    /// Copies bytes that were taken into a packet.
    pub(crate) fn copy(&self, offset: u64, out: &mut [u8]) {
        let at = to_usize(offset - self.base);
        let (front, back) = self.data.as_slices();
        let from_front = front.len().saturating_sub(at).min(out.len());
        if from_front > 0 {
            out[..from_front].copy_from_slice(&front[at..at + from_front]);
        }
        let rest = &mut out[from_front..];
        let at = at + from_front - front.len().min(at + from_front);
        rest.copy_from_slice(&back[at..at + rest.len()]);
    }

    pub(crate) fn ack(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        self.lost.remove(offset, end);
        if offset > self.base {
            self.acked.insert(offset, end);
            return;
        }
        let mut base = end.max(self.base);
        while let Some(further) = self.acked.take_from(base) {
            base = further;
        }
        self.data.drain(..to_usize(base - self.base));
        self.base = base;
    }

    /// Schedules a stretch for retransmission, but for what was acknowledged meanwhile.
    pub(crate) fn lose(&mut self, offset: u64, len: u64) {
        let lost = &mut self.lost;
        self.acked
            .gaps(offset.max(self.base), offset + len, |s, e| {
                lost.insert(s, e)
            });
    }

    /// Forgets everything: the stream was reset.
    pub(crate) fn abandon(&mut self) {
        *self = Self::at(self.next);
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity() + self.acked.capacity_bytes() + self.lost.capacity_bytes()
    }
}

/// Data arrived in more pieces than the cap on gaps permits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooManyGaps;

/// Bytes received and not yet read.
#[derive(Debug, Default)]
pub(crate) struct RecvBuf {
    /// From `read` on; bytes outside `received` are zero.
    data: VecDeque<u8>,
    read: u64,
    /// The end of the data received so far.
    highest: u64,
    received: RangeSet,
}

impl RecvBuf {
    pub(crate) const fn at(offset: u64) -> Self {
        Self {
            data: VecDeque::new(),
            read: offset,
            highest: offset,
            received: RangeSet::new(),
        }
    }

    pub(crate) fn offset(&self) -> u64 {
        self.read
    }

    pub(crate) fn highest(&self) -> u64 {
        self.highest
    }

    /// Bytes that can be read now.
    pub(crate) fn readable(&self) -> usize {
        match self.received.first() {
            Some((start, end)) if start <= self.read => to_usize(end - self.read),
            _ => 0,
        }
    }

    /// Takes data at an offset. The caller checked flow control, so growth is bounded.
    pub(crate) fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), TooManyGaps> {
        let end = offset + data.len() as u64;
        let start = offset.max(self.read);
        if end <= start {
            // An empty piece ahead of the data counts as far as its offset (RFC 9000 4.1).
            self.highest = self.highest.max(end);
            return Ok(());
        }
        let data = &data[to_usize(start - offset)..];
        if self.received.len_after_insert(start, end) > STREAM_GAPS_MAX + 1 {
            return Err(TooManyGaps);
        }
        let at = to_usize(start - self.read);
        if at == self.data.len() {
            self.data.extend(data);
        } else {
            let needed = at + data.len();
            if needed > self.data.len() {
                self.data.resize(needed, 0);
            }
            let (front, back) = self.data.as_mut_slices();
            let cut = front.len().saturating_sub(at).min(data.len());
            if cut > 0 {
                front[at..at + cut].copy_from_slice(&data[..cut]);
            }
            if cut < data.len() {
                let at = at + cut - front.len();
                back[at..at + data.len() - cut].copy_from_slice(&data[cut..]);
            }
        }
        self.received.insert(start, end);
        self.highest = self.highest.max(end);
        Ok(())
    }

    /// Moves readable bytes into `out`.
    pub(crate) fn read(&mut self, out: &mut [u8]) -> usize {
        let n = self.readable().min(out.len());
        let (front, back) = self.data.as_slices();
        let cut = front.len().min(n);
        out[..cut].copy_from_slice(&front[..cut]);
        out[cut..n].copy_from_slice(&back[..n - cut]);
        self.consume(n);
        n
    }

    /// The readable bytes that lie in one piece.
    pub(crate) fn peek(&self) -> &[u8] {
        let n = self.readable();
        let front = self.data.as_slices().0;
        &front[..front.len().min(n)]
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.data.drain(..n);
        self.received.remove(self.read, self.read + n as u64);
        self.read += n as u64;
        if self.data.is_empty() && self.data.capacity() > 4_096 {
            self.data = VecDeque::new();
        }
    }

    /// Throws away what is buffered: the stream was reset or is not wanted.
    pub(crate) fn discard(&mut self, up_to: u64) {
        *self = Self::at(up_to.max(self.highest));
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.data.capacity() + self.received.capacity_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_piece_ahead_counts_once_rfc9000_4_1() {
        let mut buf = RecvBuf::at(0);
        assert!(buf.insert(5, &[]).is_ok());
        assert_eq!((buf.highest(), buf.offset(), buf.readable()), (5, 0, 0));
        assert!(buf.insert(0, b"abcde").is_ok());
        assert_eq!((buf.highest(), buf.readable()), (5, 5));
        assert_eq!(buf.read(&mut [0; 8]), 5);
        assert!(buf.insert(3, &[]).is_ok());
        assert_eq!(buf.highest(), buf.offset());
    }

    proptest! {
        /// Pieces in any order, overlapping and repeated, read in any portions, give the bytes.
        #[test]
        fn reassembly(pieces in prop::collection::vec((0usize..200, 1usize..40), 1..60), portion in 1usize..50) {
            let source: Vec<u8> = (0..=239u8).collect();
            let mut buf = RecvBuf::at(0);
            let mut out = Vec::new();
            let whole = [(0, 240)];
            for (start, len) in pieces.into_iter().chain(whole) {
                let end = (start + len).min(source.len());
                let piece = &source[start..end];
                if buf.insert(start as u64, piece).is_ok() {
                    let mut part = vec![0; portion];
                    let n = buf.read(&mut part);
                    out.extend_from_slice(&part[..n]);
                }
            }
            let mut rest = vec![0; 300];
            let n = buf.read(&mut rest);
            out.extend_from_slice(&rest[..n]);
            prop_assert_eq!(out, source);
        }

        /// Whatever is lost, acknowledged twice or out of order: in the end all is acknowledged.
        #[test]
        fn retransmission(script in prop::collection::vec((1usize..30, any::<bool>()), 1..200)) {
            let mut buf = SendBuf::at(7);
            let source: Vec<u8> = (0..200u8).collect();
            buf.write(&source);
            let mut flight = VecDeque::new();
            for (max, lose) in script.into_iter().chain((0..400).map(|_| (40, false))) {
                if let Some((offset, len)) = buf.take(max, u64::MAX) {
                    let mut copy = vec![0; len];
                    buf.copy(offset, &mut copy);
                    let at = usize::try_from(offset).unwrap() - 7;
                    prop_assert_eq!(&copy[..], &source[at..at + len]);
                    flight.push_back((offset, len as u64));
                }
                let Some((offset, len)) = flight.pop_back() else { continue };
                if lose { buf.lose(offset, len) } else { buf.ack(offset, len) }
            }
            while let Some((offset, len)) = flight.pop_front() {
                buf.ack(offset, len);
            }
            prop_assert!(buf.is_drained());
            prop_assert_eq!(buf.end(), 207);
        }
    }

    #[test]
    fn the_cap_on_gaps_t8() {
        let mut buf = RecvBuf::at(0);
        for n in 0..=STREAM_GAPS_MAX as u64 {
            assert_eq!(buf.insert(n * 2 + 1, &[1]), Ok(()));
        }
        assert_eq!(buf.insert(1_000, &[1]), Err(TooManyGaps));
        // Filling a gap is always possible.
        assert_eq!(buf.insert(2, &[1]), Ok(()));
        assert_eq!(buf.insert(0, &[1]), Ok(()));
        assert_eq!(buf.readable(), 4);
    }
}
