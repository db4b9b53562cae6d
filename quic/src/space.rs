//! Packet number spaces (RFC 9000 12.3): what was received, in a window, and what was sent, in
//! records that exist only in flight.

use std::collections::VecDeque;

use crate::buffer::{RecvBuf, SendBuf};
use crate::frame::Dir;
use crate::time::{Time, to_usize};

/// Numbers of one space: the part that an idle connection keeps (40 bytes).
///
/// Received numbers are a window of 128 bits below the largest. Anything older is dropped unseen,
/// which RFC 9000 13.2.3 permits and which makes duplicates (12.3) and the size of an ACK frame
/// bounded without a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PnSpace {
    /// The next number to send.
    pub(crate) next: u64,
    /// One above the largest number the peer acknowledged; zero for none.
    acked_end: u64,
    /// One above the largest number received; zero for none.
    received_end: u64,
    /// Bit n of the 128: `received_end - 1 - n` was received. Two words, as u128 would align the
    /// connection to 16 bytes.
    window: [u64; 2],
}

/// How many numbers the receive window covers.
const WINDOW: u64 = 128;

impl PnSpace {
    pub(crate) const NEW: Self = Self {
        next: 0,
        acked_end: 0,
        received_end: 0,
        window: [0; 2],
    };

    fn bits(&self) -> u128 {
        u128::from(self.window[1]) << 64 | u128::from(self.window[0])
    }

    fn set_bits(&mut self, bits: u128) {
        let low = |v: u128| u64::try_from(v & u128::from(u64::MAX)).expect("masked");
        self.window = [low(bits), low(bits >> 64)];
    }

    pub(crate) fn largest_acked(&self) -> Option<u64> {
        self.acked_end.checked_sub(1)
    }

    pub(crate) fn on_acked(&mut self, largest: u64) {
        self.acked_end = self.acked_end.max(largest.saturating_add(1));
    }

    pub(crate) fn largest_received(&self) -> Option<u64> {
        self.received_end.checked_sub(1)
    }

    /// True for numbers already seen, or too old to tell (RFC 9000 12.3).
    pub(crate) fn is_duplicate(&self, pn: u64) -> bool {
        if pn >= self.received_end {
            return false;
        }
        let age = self.received_end - 1 - pn;
        age >= WINDOW || self.bits() >> age & 1 == 1
    }

    /// Notes a number. One that is older than the window stays forgotten: its packet counts as lost,
    /// and another that was taken out of order meanwhile may be the reason (T19).
    pub(crate) fn on_received(&mut self, pn: u64) {
        if pn >= self.received_end {
            let end = pn.saturating_add(1);
            let shift = end - self.received_end;
            let bits = if shift < WINDOW {
                self.bits() << shift
            } else {
                0
            };
            self.set_bits(bits | 1);
            self.received_end = end;
            return;
        }
        let age = self.received_end - 1 - pn;
        if age < WINDOW {
            self.set_bits(self.bits() | 1 << age);
        }
    }

    /// The received numbers, for an ACK frame.
    pub(crate) fn ranges(&self) -> Ranges {
        Ranges {
            bits: self.bits(),
            top: self.received_end,
        }
    }
}

/// The received numbers as inclusive ranges, descending.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    /// Bit 0 stands for `top - 1`.
    bits: u128,
    top: u64,
}

impl Iterator for Ranges {
    type Item = (u64, u64);

    fn next(&mut self) -> Option<(u64, u64)> {
        if self.bits == 0 {
            return None;
        }
        let gap = self.bits.trailing_zeros();
        self.bits >>= gap;
        self.top -= u64::from(gap);
        let run = self.bits.trailing_ones();
        let high = self.top - 1;
        self.bits = if run < 128 { self.bits >> run } else { 0 };
        self.top -= u64::from(run);
        Some((self.top, high))
    }
}

/// What a sent packet carried that may have to be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SentFrame {
    Crypto {
        offset: u64,
        len: u16,
    },
    Stream {
        id: u64,
        offset: u64,
        len: u16,
        fin: bool,
    },
    ResetStream(u64),
    StopSending(u64),
    MaxData,
    MaxStreamData(u64),
    MaxStreams(Dir),
    DataBlocked,
    StreamDataBlocked(u64),
    StreamsBlocked(Dir),
    NewCid(u8),
    RetireCid(u32),
    HandshakeDone,
    NewToken,
    /// Padding to this many bytes, to see whether they pass (RFC 8899).
    MtuProbe(u16),
}

/// A packet in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) pn: u64,
    pub(crate) time: Time,
    /// Where its frames start in the space's queue, counted from the beginning of the space.
    first_frame: u64,
    pub(crate) frames: u16,
    pub(crate) size: u16,
    pub(crate) eliciting: bool,
    /// Acknowledged or lost: kept only until it reaches the front of the queue.
    pub(crate) gone: bool,
}

/// What one space has in flight, with the CRYPTO stream of its level.
#[derive(Debug, Default)]
pub(crate) struct SentSpace {
    pub(crate) sent: VecDeque<Sent>,
    frames: VecDeque<SentFrame>,
    frames_base: u64,
    pub(crate) loss_time: Option<Time>,
    pub(crate) last_eliciting: Time,
    pub(crate) eliciting_in_flight: u32,
    /// PTO probes owed (RFC 9002 6.2.4).
    pub(crate) probes: u8,
    pub(crate) crypto_tx: SendBuf,
    pub(crate) crypto_rx: RecvBuf,
}

impl SentSpace {
    /// Notes a frame of the packet that is being built.
    pub(crate) fn note(&mut self, frame: SentFrame) {
        self.frames.push_back(frame);
    }

    /// Frames noted since the last record.
    pub(crate) fn noted(&self) -> u64 {
        let recorded = self
            .sent
            .back()
            .map_or(self.frames_base, |s| s.first_frame + u64::from(s.frames));
        self.frames_base + self.frames.len() as u64 - recorded
    }

    /// Turns the noted frames into the record of a packet.
    pub(crate) fn record(&mut self, pn: u64, time: Time, size: usize, eliciting: bool) {
        let noted = self.noted();
        let total = self.frames_base + self.frames.len() as u64;
        assert!(
            self.sent.back().is_none_or(|s| s.pn < pn),
            "packet numbers grow"
        );
        self.sent.push_back(Sent {
            pn,
            time,
            first_frame: total - noted,
            frames: u16::try_from(noted).expect("a packet has fewer frames than bytes"),
            size: u16::try_from(size).expect("a packet is below 64 KiB"),
            eliciting,
            gone: false,
        });
        if eliciting {
            self.eliciting_in_flight += 1;
            self.last_eliciting = time;
        }
    }

    /// The index of the first record that is not below `pn`.
    pub(crate) fn position(&self, pn: u64) -> usize {
        self.sent.partition_point(|s| s.pn < pn)
    }

    /// Marks a record as gone and returns it; `None` if it was gone already.
    pub(crate) fn settle(&mut self, index: usize) -> Option<Sent> {
        let record = self.sent.get_mut(index).filter(|record| !record.gone)?;
        record.gone = true;
        if record.eliciting {
            self.eliciting_in_flight -= 1;
        }
        Some(*record)
    }

    /// The n-th frame of a record.
    pub(crate) fn frame(&self, record: &Sent, n: u16) -> SentFrame {
        self.frames[to_usize(record.first_frame + u64::from(n) - self.frames_base)]
    }

    /// The sequence numbers of RETIRE_CONNECTION_ID frames in packets that are not settled, as often as they were sent.
    pub(crate) fn retired_unacknowledged(&self) -> impl Iterator<Item = u32> {
        let open = self.sent.iter().filter(|record| !record.gone);
        let frames = open.flat_map(|record| (0..record.frames).map(|n| self.frame(record, n)));
        frames.filter_map(|frame| match frame {
            SentFrame::RetireCid(sequence) => Some(sequence),
            _ => None,
        })
    }

    /// Drops settled records from the front.
    pub(crate) fn trim(&mut self) {
        while let Some(record) = self.sent.front().filter(|s| s.gone) {
            let frames = usize::from(record.frames);
            self.sent.pop_front();
            self.frames.drain(..frames);
            self.frames_base += frames as u64;
        }
    }

    /// Bytes in flight by the records: the invariant of T15 compares this with the counter.
    pub(crate) fn bytes_in_flight(&self) -> u64 {
        self.sent
            .iter()
            .filter(|s| !s.gone)
            .map(|s| u64::from(s.size))
            .sum()
    }

    pub(crate) fn is_quiescent(&self) -> bool {
        self.sent.is_empty() && self.crypto_tx.is_drained() && self.crypto_rx.readable() == 0
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.sent.capacity() * size_of::<Sent>()
            + self.frames.capacity() * size_of::<SentFrame>()
            + self.crypto_tx.heap_bytes()
            + self.crypto_rx.heap_bytes()
    }
}

const _: () = assert!(size_of::<PnSpace>() == 40);
const _: () = assert!(size_of::<Sent>() <= 32);
const _: () = assert!(size_of::<SentFrame>() <= 24);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tf6_t19_a_number_that_fell_out_of_the_window_is_ignored() {
        let mut space = PnSpace::NEW;
        space.on_received(500);
        for old in [0, 3, 500 - WINDOW] {
            assert!(space.is_duplicate(old));
            space.on_received(old);
        }
        space.on_received(501 - WINDOW);
        let seen: Vec<_> = space.ranges().collect();
        assert_eq!(seen, [(500, 500), (501 - WINDOW, 501 - WINDOW)]);
    }

    /// The last number of all and the ACK that names it (RFC 9000 12.3).
    #[test]
    fn tf1_t19_the_window_reaches_the_last_number() {
        let last = crate::packet::PACKET_NUMBER_END - 1;
        let mut space = PnSpace::NEW;
        for pn in [0, last - 200, last - 2, last] {
            assert!(!space.is_duplicate(pn));
            space.on_received(pn);
            assert!(space.is_duplicate(pn));
        }
        assert!(space.is_duplicate(0) && !space.is_duplicate(last - 1));
        let mut buf = [0; 64];
        let mut w = crate::coding::Writer::new(&mut buf);
        assert!(crate::frame::write_ack(&mut w, u64::MAX, space.ranges()));
        assert_eq!(
            space.ranges().collect::<Vec<_>>(),
            [(last, last), (last - 2, last - 2)]
        );
        space.on_acked(u64::MAX);
        assert_eq!(space.largest_acked(), Some(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_set(pns in prop::collection::vec(0u64..400, 1..200)) {
            let mut space = PnSpace::NEW;
            let mut model = std::collections::BTreeSet::new();
            for pn in pns {
                let too_old = model.last().is_some_and(|top| pn + WINDOW <= *top);
                prop_assert_eq!(space.is_duplicate(pn), too_old || model.contains(&pn));
                if !space.is_duplicate(pn) {
                    space.on_received(pn);
                    model.insert(pn);
                }
                let top = *model.last().unwrap();
                let seen: Vec<u64> = space.ranges().flat_map(|(l, h)| (l..=h).rev()).collect();
                let expected: Vec<u64> =
                    model.iter().rev().copied().filter(|n| n + WINDOW > top).collect();
                prop_assert_eq!(seen, expected);
            }
        }
    }
}
