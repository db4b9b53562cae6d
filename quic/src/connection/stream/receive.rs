//! Frames of streams that arrive (RFC 9000 3, 4, 19.4 to 19.14).

use super::super::{Connection, Cx};
use crate::crypto::{Aead, Tls};
use crate::error::{Refusal, TransportError, broken, ensure, refuse};
use crate::event::Event;
use crate::frame::Dir;
use crate::streams::{RecvState, SendState, credit, direction, initiator, stream_id};
use crate::time::sat32;

/// A stream that a frame may name is there, with an active part.
const UNRESOLVED: TransportError = broken("a stream that was resolved");

/// Which half of a stream a frame is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// The half that this side receives on.
    Receiving,
    /// The half that this side sends on.
    Sending,
}

impl<T: Tls> Connection<T> {
    /// Checks that a frame may name a stream, and opens what it implies (RFC 9000 3.2). True when
    /// the stream still exists.
    fn resolve<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        half: Half,
    ) -> Result<bool, TransportError> {
        let ours = initiator(id) == self.side();
        let dir = direction(id);
        // RFC 9000 19: a frame for a half that a unidirectional stream does not have.
        if dir == Dir::Uni && ours == (half == Half::Receiving) {
            refuse!(STREAM_STATE_ERROR, "frame for the wrong half of a stream");
        }
        let n = id >> 2;
        if ours {
            // RFC 9000 19.5, 19.8, 19.10: a stream of this side that it did not open.
            if n >= u64::from(self.counts.tx_opened[dir as usize]) {
                refuse!(STREAM_STATE_ERROR, "frame for a stream that was not opened");
            }
        } else {
            // RFC 9000 4.6.
            if n >= u64::from(self.counts.rx_limit[dir as usize]) {
                refuse!(STREAM_LIMIT_ERROR, "too many streams");
            }
            let n = sat32(n);
            while self.counts.rx_opened[dir as usize] <= n {
                let next = self.counts.rx_opened[dir as usize];
                self.counts.rx_opened[dir as usize] += 1;
                let opened = stream_id(self.side().peer(), dir, next);
                self.create(cx, opened);
                cx.event(Event::StreamOpened(opened));
            }
        }
        Ok(match id {
            0 => !self.stream0.is_over(),
            _ => self
                .active
                .as_ref()
                .is_some_and(|a| a.streams.contains_key(&id)),
        })
    }

    /// Checks that the peer may send on a stream up to `end` (RFC 9000 4.1, 4.5). Returns by how much
    /// the data received grows; `None` when the half is over.
    fn check_arrival<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        end: u64,
        fin: bool,
    ) -> Result<Option<u64>, TransportError> {
        if !self.resolve(cx, id, Half::Receiving)? {
            return Ok(None);
        }
        let (rx_sum, rx_max) = (self.thaw(cx).rx_sum, self.flow.rx_max);
        let (state, buf) = self.stream_mut(id).ok_or(UNRESOLVED)?;
        if state.recv == RecvState::Done {
            return Ok(None);
        }
        let highest = buf.rx.highest();
        check_final_size(buf.final_size, highest, end, fin)?;
        let grown = end.saturating_sub(highest);
        if end > state.rx_max || rx_sum.saturating_add(grown) > rx_max {
            refuse!(FLOW_CONTROL_ERROR, "more data than permitted");
        }
        Ok(Some(grown))
    }

    /// STREAM (RFC 9000 19.8).
    pub(in crate::connection) fn on_stream<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        offset: u64,
        fin: bool,
        data: &[u8],
    ) -> Result<(), Refusal> {
        let end = offset.saturating_add(data.len() as u64);
        let Some(grown) = self.check_arrival(cx, id, end, fin)? else {
            return Ok(());
        };
        let (state, buf) = self.stream_mut(id).ok_or(UNRESOLVED)?;
        if buf.stopped {
            buf.rx.discard(end);
            state.read = buf.rx.offset();
        } else {
            buf.rx.insert(offset, data).map_err(|_| Refusal::Drop)?;
        }
        let stopped = buf.stopped;
        if fin {
            buf.final_size = Some(end);
            state.recv = RecvState::Sized;
            buf.send_max = false;
        }
        let over = stopped && state.recv == RecvState::Sized;
        if over {
            state.recv = RecvState::Done;
        }
        let news = buf.rx.readable() > 0 || buf.final_size == Some(buf.rx.offset());
        let tell = news && !stopped && !std::mem::replace(&mut buf.told_readable, true);
        self.thaw(cx).rx_sum += grown;
        if stopped {
            self.consume_credit(grown);
        }
        if tell {
            cx.event(Event::StreamReadable(id));
        }
        self.retire_stream(id);
        Ok(())
    }

    /// RESET_STREAM (RFC 9000 19.4).
    pub(in crate::connection) fn on_reset<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        code: u64,
        final_size: u64,
    ) -> Result<(), TransportError> {
        let Some(grown) = self.check_arrival(cx, id, final_size, true)? else {
            return Ok(());
        };
        let (state, buf) = self.stream_mut(id).ok_or(UNRESOLVED)?;
        ensure!(final_size >= state.read, "read no more than the stream has");
        let unread = final_size - state.read;
        state.recv = RecvState::Done;
        state.read = final_size;
        buf.rx.discard(final_size);
        (buf.send_max, buf.send_stop) = (false, false);
        self.thaw(cx).rx_sum += grown;
        self.consume_credit(unread);
        cx.event(Event::StreamReset { id, code });
        self.retire_stream(id);
        Ok(())
    }

    /// STOP_SENDING (RFC 9000 19.5): answered with a reset (3.5).
    pub(in crate::connection) fn on_stop_sending<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        code: u64,
    ) -> Result<(), TransportError> {
        if !self.resolve(cx, id, Half::Sending)? {
            return Ok(());
        }
        let open = self
            .thaw_stream(cx, id)
            .is_some_and(|(s, _)| matches!(s.send, SendState::Open | SendState::Finished));
        if open {
            self.reset_send(id, code);
            cx.event(Event::StreamStopped { id, code });
        }
        Ok(())
    }

    /// MAX_STREAM_DATA (RFC 9000 19.10).
    pub(in crate::connection) fn on_max_stream_data<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        max: u64,
    ) -> Result<(), TransportError> {
        if !self.resolve(cx, id, Half::Sending)? {
            return Ok(());
        }
        if id == 0 && self.active.is_none() {
            self.stream0.tx_max = self.stream0.tx_max.max(max);
            return Ok(());
        }
        self.with_buf(id, |state, buf| {
            buf.told_blocked &= max <= state.tx_max;
            state.tx_max = state.tx_max.max(max);
        });
        Ok(())
    }

    /// STREAM_DATA_BLOCKED (RFC 9000 19.13). Windows are advertised when half of them is read
    /// (RFC 9000 4.2: a receiver must not wait for this frame); a sender that is stuck before that
    /// gets what was read at once.
    pub(in crate::connection) fn on_stream_data_blocked<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
    ) -> Result<(), TransportError> {
        if !self.resolve(cx, id, Half::Receiving)? {
            return Ok(());
        }
        let window = self.stream_window;
        if let Some((state, _)) = self.thaw_stream(cx, id)
            && state.recv == RecvState::Open
            && credit(state.read, window) > state.rx_max
        {
            self.with_buf(id, |_, buf| buf.send_max = true);
        }
        Ok(())
    }

    /// DATA_BLOCKED (RFC 9000 19.12): as for a stream.
    pub(in crate::connection) fn on_data_blocked<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        if credit(self.flow.consumed, self.connection_window) > self.flow.rx_max {
            self.thaw(cx).pending.max_data = true;
        }
    }

    /// MAX_STREAMS (RFC 9000 19.11).
    pub(in crate::connection) fn on_max_streams<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        dir: Dir,
        max: u64,
    ) {
        let limit = &mut self.counts.tx_limit[dir as usize];
        if sat32(max) > *limit {
            *limit = sat32(max);
            if let Some(active) = &mut self.active {
                active.told_streams_blocked[dir as usize] = false;
            }
            cx.event(Event::StreamsAvailable(dir));
        }
    }

    /// MAX_DATA (RFC 9000 19.9): streams that the connection's limit held back may go on.
    pub(in crate::connection) fn on_max_data(&mut self, max: u64) {
        if max <= self.flow.tx_max {
            return;
        }
        let blocked = self.flow.tx_sent == self.flow.tx_max;
        self.flow.tx_max = max;
        let Some(active) = self.active.as_mut().filter(|_| blocked) else {
            return;
        };
        active.told_data_blocked = false;
        let ids: Vec<u64> = active.streams.keys().copied().chain([0]).collect();
        ids.into_iter().for_each(|id| self.enqueue(id));
    }
}

/// RFC 9000 4.5: a final size never changes, and no data lies beyond it.
fn check_final_size(
    known: Option<u64>,
    highest: u64,
    end: u64,
    fin: bool,
) -> Result<(), TransportError> {
    let wrong = match known {
        Some(size) => end > size || (fin && end != size),
        None => fin && end < highest,
    };
    if wrong {
        refuse!(FINAL_SIZE_ERROR, "final size changed");
    }
    Ok(())
}
