//! Streams (RFC 9000 2, 3, 4): states, and the part of each that exists only in flight.

use crate::buffer::{RecvBuf, SendBuf};
use crate::coding::VARINT_MAX;
use crate::frame::Dir;
use crate::params::Side;

/// Who opened a stream (RFC 9000 2.1).
#[must_use]
pub const fn initiator(id: u64) -> Side {
    if id & 1 == 0 {
        Side::Client
    } else {
        Side::Server
    }
}

/// Which way a stream carries data (RFC 9000 2.1).
#[must_use]
pub const fn direction(id: u64) -> Dir {
    if id & 2 == 0 { Dir::Bidi } else { Dir::Uni }
}

/// The n-th stream of a kind.
pub(crate) const fn stream_id(side: Side, dir: Dir, n: u32) -> u64 {
    (n as u64) << 2 | (dir as u64) << 1 | side as u64
}

/// The sending half (RFC 9000 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendState {
    /// The stream has no such half, or was never opened.
    Absent,
    Open,
    /// The application ended it; not all is acknowledged.
    Finished,
    /// Reset; not acknowledged.
    Reset,
    Done,
}

/// The receiving half (RFC 9000 3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RecvState {
    Absent,
    Open,
    /// The final size is known and not all is read.
    Sized,
    /// The peer reset it and the application was not told yet, or all is read.
    Done,
}

/// What a stream keeps while nothing of it is in flight: inline in the connection for stream 0.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamState {
    /// Bytes the application wrote.
    pub(crate) written: u64,
    /// The peer's limit on this stream.
    pub(crate) tx_max: u64,
    /// Bytes the application read.
    pub(crate) read: u64,
    /// The limit advertised to the peer.
    pub(crate) rx_max: u64,
    pub(crate) send: SendState,
    pub(crate) recv: RecvState,
}

impl StreamState {
    pub(crate) const ABSENT: Self = Self {
        written: 0,
        tx_max: 0,
        read: 0,
        rx_max: 0,
        send: SendState::Absent,
        recv: RecvState::Absent,
    };

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.send, SendState::Absent | SendState::Done)
            && matches!(self.recv, RecvState::Absent | RecvState::Done)
    }
}

/// What a stream has in flight.
#[derive(Debug, Default)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "independent facts, not a state machine"
)]
pub(crate) struct StreamBuf {
    pub(crate) tx: SendBuf,
    pub(crate) rx: RecvBuf,
    pub(crate) final_size: Option<u64>,
    pub(crate) fin_sent: bool,
    pub(crate) fin_acked: bool,
    pub(crate) reset_code: u64,
    pub(crate) stop_code: u64,
    /// The application wants no more data.
    pub(crate) stopped: bool,
    /// Stream 0 only: it is over and its credit was given back.
    pub(crate) retired: bool,
    /// Frames owed.
    pub(crate) send_reset: bool,
    pub(crate) send_stop: bool,
    pub(crate) send_max: bool,
    pub(crate) send_blocked: bool,
    /// The peer was told that its present limit holds the stream back (RFC 9000 4.1).
    pub(crate) told_blocked: bool,
    /// In the queue of streams with something to send.
    pub(crate) queued: bool,
    /// The application was told that it can read.
    pub(crate) told_readable: bool,
    /// The application was refused bytes.
    pub(crate) wants_room: bool,
}

impl StreamBuf {
    pub(crate) fn of(state: &StreamState) -> Self {
        Self {
            tx: SendBuf::at(state.written),
            rx: RecvBuf::at(state.read),
            ..Self::default()
        }
    }

    /// Whether the stream has a frame to send when data up to `limit` are permitted.
    pub(crate) fn wants(&self, state: &StreamState, limit: u64) -> bool {
        if self.send_reset || self.send_stop || self.send_max {
            return true;
        }
        match state.send {
            SendState::Open => self.tx.wants(limit) || self.send_blocked,
            SendState::Finished => self.tx.wants(limit) || self.send_blocked || !self.fin_sent,
            _ => false,
        }
    }

    /// True when bytes wait that the stream's own limit does not permit.
    pub(crate) fn is_blocked(&self, state: &StreamState) -> bool {
        self.tx.sent() < self.tx.end() && self.tx.sent() >= state.tx_max
    }

    /// True when nothing is unacknowledged, unread or unsent.
    pub(crate) fn is_quiescent(&self, state: &StreamState) -> bool {
        let tx = match state.send {
            SendState::Absent | SendState::Done => true,
            SendState::Open => self.tx.is_drained(),
            SendState::Finished | SendState::Reset => false,
        };
        let rx = match state.recv {
            RecvState::Absent | RecvState::Done => true,
            RecvState::Open => self.rx.highest() == self.rx.offset(),
            RecvState::Sized => false,
        };
        tx && rx && !self.send_stop && !self.send_max && !self.send_reset && !self.wants_room
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.tx.heap_bytes() + self.rx.heap_bytes()
    }
}

/// A stream other than the inline one: it lives in the active part (T18).
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) state: StreamState,
    pub(crate) buf: StreamBuf,
}

/// Connection flow control (RFC 9000 4.1), and what of it an idle connection keeps. The sum of the
/// data received is `consumed` then, as nothing is unread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    /// The peer's limit.
    pub(crate) tx_max: u64,
    /// New stream bytes sent.
    pub(crate) tx_sent: u64,
    /// The limit advertised.
    pub(crate) rx_max: u64,
    /// Bytes read or thrown away.
    pub(crate) consumed: u64,
}

/// The limit to advertise once `read` bytes were taken: a window further, and at most what can be
/// written (T19).
pub(crate) fn credit(read: u64, window: u32) -> u64 {
    read.saturating_add(window.into()).min(VARINT_MAX)
}

/// Stream counts and limits, indexed by [`Dir`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    /// Streams this side may open.
    pub(crate) tx_limit: [u32; 2],
    /// Streams this side opened.
    pub(crate) tx_opened: [u32; 2],
    /// Streams the peer may open.
    pub(crate) rx_limit: [u32; 2],
    /// Streams the peer opened.
    pub(crate) rx_opened: [u32; 2],
    /// The peer's first windows: for streams it opens, for bidirectional ones this side opens, and
    /// for unidirectional ones this side opens.
    pub(crate) window_theirs: u32,
    pub(crate) window_ours: u32,
    pub(crate) window_uni: u32,
}

/// Why a stream refused an operation of the application.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StreamError {
    /// No such stream, or that half of it is over.
    Closed,
    /// Nothing can be done now; an event will come.
    Blocked,
}

impl std::fmt::Display for StreamError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("the stream is closed"),
            Self::Blocked => f.write_str("the stream is blocked"),
        }
    }
}

impl std::error::Error for StreamError {}

/// What a read returned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Read {
    /// Bytes written to the caller's buffer.
    pub len: usize,
    /// The stream ended after these bytes.
    pub fin: bool,
}

const _: () = assert!(size_of::<StreamState>() == 40);
const _: () = assert!(size_of::<Flow>() == 32);
const _: () = assert!(size_of::<Counts>() == 44);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf1_t19_credit_ends_with_the_range_of_the_frames() {
        assert_eq!(credit(0, 0), 0);
        assert_eq!(credit(5, 1 << 16), (1 << 16) + 5);
        assert_eq!(credit(VARINT_MAX - 5, 5), VARINT_MAX);
        assert_eq!(credit(VARINT_MAX - 5, 6), VARINT_MAX);
        assert_eq!(credit(VARINT_MAX, u32::MAX), VARINT_MAX);
        assert_eq!(credit(u64::MAX, u32::MAX), VARINT_MAX);
    }
}
