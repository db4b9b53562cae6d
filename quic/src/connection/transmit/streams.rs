//! Frames of streams (RFC 9000 2.2, 4, 19.4 to 19.10), in turn.

use super::super::{Active, Connection};
use super::FRAME_ROOM_MIN;
use crate::coding::{Writer, varint_len};
use crate::crypto::Tls;
use crate::frame::{self, ty};
use crate::limits::STREAMS_PER_PACKET_MAX;
use crate::space::SentFrame;
use crate::streams::{RecvState, SendState, credit};

impl<T: Tls> Connection<T> {
    /// Frames of streams, in turn.
    pub(super) fn write_streams(&mut self, w: &mut Writer<'_>) {
        let mut visits = STREAMS_PER_PACKET_MAX;
        while visits > 0 && w.room() >= FRAME_ROOM_MIN {
            visits -= 1;
            let active = self.active.as_mut().expect("checked by the caller");
            let Some(id) = active.queue.pop_front() else {
                break;
            };
            if let Some((_, buf)) = Self::stream_parts(&mut self.stream0, active, id) {
                buf.queued = false;
                self.write_stream(id, w);
                self.requeue(id);
            }
        }
    }

    /// Queues a stream again when it could send more now.
    fn requeue(&mut self, id: u64) {
        let active = self.active.as_mut().expect("checked by the caller");
        let Some((state, buf)) = Self::stream_parts(&mut self.stream0, active, id) else {
            return;
        };
        if buf.wants(state, Self::send_limit(&self.flow, state, buf)) {
            buf.queued = true;
            active.queue.push_back(id);
        }
    }

    fn write_stream(&mut self, id: u64, w: &mut Writer<'_>) {
        let active = self.active.as_mut().expect("checked by the caller");
        let Active {
            data,
            streams,
            buf0,
            pending,
            told_data_blocked,
            ..
        } = &mut **active;
        let (state, buf) = match id {
            0 => (&mut self.stream0, buf0),
            _ => match streams.get_mut(&id) {
                Some(stream) => {
                    let stream = &mut **stream;
                    (&mut stream.state, &mut stream.buf)
                }
                None => return,
            },
        };
        if buf.send_reset && w.room() >= 25 {
            buf.send_reset = false;
            frame::write_ints(w, ty::RESET_STREAM, &[id, buf.reset_code, state.written]);
            data.note(SentFrame::ResetStream(id));
        }
        if buf.send_stop && w.room() >= 17 {
            buf.send_stop = false;
            frame::write_ints(w, ty::STOP_SENDING, &[id, buf.stop_code]);
            data.note(SentFrame::StopSending(id));
        }
        if buf.send_max && w.room() >= 17 {
            buf.send_max = false;
            // Credit never falls (T15).
            state.rx_max = state.rx_max.max(credit(state.read, self.stream_window));
            if state.recv == RecvState::Open {
                frame::write_ints(w, ty::MAX_STREAM_DATA, &[id, state.rx_max]);
                data.note(SentFrame::MaxStreamData(id));
            }
        }
        if !matches!(state.send, SendState::Open | SendState::Finished) {
            return;
        }
        loop {
            let head = 1 + varint_len(id) + varint_len(buf.tx.end()) + 2;
            let Some(room) = w.room().checked_sub(head + 1) else {
                break;
            };
            let (limit, sent) = (Self::send_limit(&self.flow, state, buf), buf.tx.sent());
            let (offset, len) = match buf.tx.take(room, limit) {
                Some(piece) => piece,
                None if state.send == SendState::Finished
                    && !buf.fin_sent
                    && buf.tx.sent() == buf.tx.end() =>
                {
                    (buf.tx.end(), 0)
                }
                None => break,
            };
            let end = offset + len as u64;
            self.flow.tx_sent += end.saturating_sub(sent);
            let fin = state.send == SendState::Finished && end == buf.tx.end();
            buf.fin_sent |= fin;
            let kind = ty::STREAM | 0x02 | u64::from(offset > 0) << 2 | u64::from(fin);
            w.varint(kind);
            w.varint(id);
            if offset > 0 {
                w.varint(offset);
            }
            w.varint(len as u64);
            buf.tx.copy(offset, w.lend(len));
            let len = u16::try_from(len).expect("a frame is inside a packet");
            data.note(SentFrame::Stream {
                id,
                offset,
                len,
                fin,
            });
            if fin && !buf.tx.has_lost() {
                break;
            }
        }
        // RFC 9000 4.1: the peer is told of a limit that holds data back, once.
        if buf.is_blocked(state) {
            buf.send_blocked |= !std::mem::replace(&mut buf.told_blocked, true);
        } else if buf.tx.sent() < buf.tx.end() && self.flow.tx_sent == self.flow.tx_max {
            pending.data_blocked |= !std::mem::replace(told_data_blocked, true);
        }
        if buf.send_blocked && w.room() >= 17 {
            buf.send_blocked = false;
            if buf.is_blocked(state) {
                frame::write_ints(w, ty::STREAM_DATA_BLOCKED, &[id, state.tx_max]);
                data.note(SentFrame::StreamDataBlocked(id));
            }
        }
    }
}
