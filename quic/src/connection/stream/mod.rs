//! Streams of a connection (RFC 9000 2 to 4): what frames and the application's calls share.

mod application;
mod receive;

use super::{Active, Connection, Cx, DIRS};
use crate::crypto::{Aead, Tls};
use crate::event::Event;
use crate::frame::Dir;
use crate::streams::{RecvState, SendState, Stream, StreamBuf, StreamState, direction, initiator};

impl<T: Tls> Connection<T> {
    /// A stream's state with its in-flight part. Stream 0 is inline (T18); both need an active part.
    fn stream_mut(&mut self, id: u64) -> Option<(&mut StreamState, &mut StreamBuf)> {
        let active = self.active.as_mut()?;
        if id == 0 {
            let opened = self.stream0.send != SendState::Absent;
            return opened.then_some((&mut self.stream0, &mut active.buf0));
        }
        let stream = active.streams.get_mut(&id)?;
        Some((&mut stream.state, &mut stream.buf))
    }

    /// Runs `f` on a stream that still exists, and queues it when it then has something to send.
    pub(super) fn with_buf(&mut self, id: u64, f: impl FnOnce(&mut StreamState, &mut StreamBuf)) {
        if let Some((state, buf)) = self.stream_mut(id) {
            f(state, buf);
            self.enqueue(id);
        }
    }

    fn enqueue(&mut self, id: u64) {
        let Some((_, buf)) = self.stream_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut buf.queued, true) {
            self.active
                .as_mut()
                .expect("the stream's")
                .queue
                .push_back(id);
        }
    }

    fn fresh_state(&self, id: u64, rx_max: u32) -> StreamState {
        let ours = initiator(id) == self.side();
        let counts = &self.counts;
        let tx_max = match (direction(id), ours) {
            (Dir::Bidi, true) => counts.window_ours,
            (Dir::Bidi, false) => counts.window_theirs,
            (Dir::Uni, _) => counts.window_uni,
        };
        let uni = direction(id) == Dir::Uni;
        let send = if uni && !ours {
            SendState::Absent
        } else {
            SendState::Open
        };
        let recv = if uni && ours {
            RecvState::Absent
        } else {
            RecvState::Open
        };
        let (tx_max, rx_max) = (u64::from(tx_max), u64::from(rx_max));
        StreamState {
            tx_max,
            rx_max,
            send,
            recv,
            ..StreamState::ABSENT
        }
    }

    fn create<A: Aead>(&mut self, cx: &mut Cx<'_, A>, id: u64) {
        // The limit is what the parameters advertised, whatever the window is by now.
        let advertised = cx.transport.stream_window;
        let state = self.fresh_state(id, advertised);
        if id == 0 {
            self.stream0 = state;
        } else {
            let buf = StreamBuf::of(&state);
            self.thaw(cx)
                .streams
                .insert(id, Box::new(Stream { state, buf }));
        }
        if self.stream_window > advertised {
            self.thaw(cx);
            self.with_buf(id, |state, buf| {
                buf.send_max = state.recv == RecvState::Open
            });
        }
    }

    fn thaw_stream<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
    ) -> Option<(&mut StreamState, &mut StreamBuf)> {
        self.thaw(cx);
        self.stream_mut(id)
    }

    /// Counts bytes as read, and owes MAX_DATA once half of the window is used (RFC 9000 4.2).
    fn consume_credit(&mut self, bytes: u64) {
        self.flow.consumed += bytes;
        let window = u64::from(self.connection_window);
        if self.flow.consumed + window >= self.flow.rx_max + window / 2
            && let Some(active) = &mut self.active
        {
            active.pending.max_data = true;
        }
    }

    fn reset_send(&mut self, id: u64, code: u64) {
        self.with_buf(id, |state, buf| {
            state.send = SendState::Reset;
            buf.reset_code = code;
            buf.send_reset = true;
            // RFC 9000 4.5: the final size is what was sent.
            buf.tx.abandon();
            state.written = buf.tx.end();
            buf.wants_room = false;
        });
    }

    pub(super) fn on_stream_acked<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        offset: u64,
        len: u64,
        fin: bool,
    ) {
        let cap = cx.transport.stream_send_buffer;
        let Some((state, buf)) = self.stream_mut(id) else {
            return;
        };
        if !matches!(state.send, SendState::Open | SendState::Finished) {
            return;
        }
        buf.tx.ack(offset, len);
        buf.fin_acked |= fin;
        let writable = buf.wants_room && buf.tx.len() < cap;
        buf.wants_room &= !writable;
        let delivered = state.send == SendState::Finished && buf.fin_acked && buf.tx.is_drained();
        if delivered {
            state.send = SendState::Done;
            cx.event(Event::StreamDelivered(id));
            self.retire_stream(id);
        } else if writable {
            cx.event(Event::StreamWritable(id));
        }
    }

    pub(super) fn on_stream_lost(&mut self, id: u64, offset: u64, len: u64, fin: bool) {
        self.with_buf(id, |state, buf| {
            if matches!(state.send, SendState::Open | SendState::Finished) {
                buf.tx.lose(offset, len);
                buf.fin_sent &= !fin || buf.fin_acked;
            }
        });
    }

    pub(super) fn on_reset_acked(&mut self, id: u64) {
        if let Some((state, _)) = self.stream_mut(id)
            && state.send == SendState::Reset
        {
            state.send = SendState::Done;
            self.retire_stream(id);
        }
    }

    /// Forgets a stream that is over both ways, and permits the peer another one in its place.
    fn retire_stream(&mut self, id: u64) {
        if !self
            .stream_mut(id)
            .is_some_and(|(state, _)| state.is_over())
        {
            return;
        }
        let peers = initiator(id) != self.side();
        let active = self.active.as_mut().expect("the stream's");
        if id == 0 {
            // Once only: a stream 0 that is over stays so.
            if active.buf0.retired {
                return;
            }
            let queued = active.buf0.queued;
            active.buf0 = StreamBuf {
                retired: true,
                queued,
                ..StreamBuf::of(&self.stream0)
            };
        } else {
            active.streams.remove(&id);
        }
        if peers {
            let dir = direction(id) as usize;
            self.counts.rx_limit[dir] = self.counts.rx_limit[dir].saturating_add(1);
            active.pending.max_streams[dir] = true;
        }
    }

    /// The limit up to which a stream may send now.
    pub(crate) fn send_limit(
        flow: &crate::streams::Flow,
        state: &StreamState,
        buf: &StreamBuf,
    ) -> u64 {
        state
            .tx_max
            .min(buf.tx.sent() + (flow.tx_max - flow.tx_sent))
    }

    /// Queues every stream that has something to send; for tests of invariants.
    pub(super) fn stream_parts<'a>(
        stream0: &'a mut StreamState,
        active: &'a mut Active<T>,
        id: u64,
    ) -> Option<(&'a mut StreamState, &'a mut StreamBuf)> {
        if id == 0 {
            return Some((stream0, &mut active.buf0));
        }
        active.streams.get_mut(&id).map(|s| {
            let s = &mut **s;
            (&mut s.state, &mut s.buf)
        })
    }

    /// The stream limits that MAX_STREAMS frames advertise.
    pub(super) fn streams_owed(pending: &super::Pending) -> impl Iterator<Item = Dir> + use<T> {
        let owed = pending.max_streams;
        DIRS.into_iter().filter(move |d| owed[*d as usize])
    }
}
