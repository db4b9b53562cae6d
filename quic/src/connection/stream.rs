//! Stream frames and the application's calls on streams (RFC 9000 2 to 4).

use super::{Active, Connection, Cx, DIRS, NotOpen, State};
use crate::crypto::{Aead, Tls};
use crate::error::{Refusal, TransportError, refuse};
use crate::event::Event;
use crate::frame::Dir;
use crate::streams::{
    Read, RecvState, SendState, Stream, StreamBuf, StreamError, StreamState, direction, initiator,
    stream_id,
};
use crate::time::sat32;

/// Which half of a stream a frame is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    /// The half that this side receives on.
    Receiving,
    /// The half that this side sends on.
    Sending,
}

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

    /// STREAM (RFC 9000 19.8).
    pub(super) fn on_stream<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        offset: u64,
        fin: bool,
        data: &[u8],
    ) -> Result<(), Refusal> {
        if !self.resolve(cx, id, Half::Receiving)? {
            return Ok(());
        }
        self.thaw(cx);
        let (rx_sum, rx_max) = (self.active.as_ref().expect("made").rx_sum, self.flow.rx_max);
        let (state, buf) = self.stream_mut(id).expect("resolved");
        if state.recv == RecvState::Done {
            return Ok(());
        }
        let end = offset + data.len() as u64;
        let highest = buf.rx.highest();
        check_final_size(buf.final_size, highest, end, fin)?;
        // RFC 9000 4.1: limits of the stream and of the connection.
        let grown = end.saturating_sub(highest);
        if end > state.rx_max || rx_sum + grown > rx_max {
            refuse!(FLOW_CONTROL_ERROR, "more data than permitted");
        }
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
        self.active.as_mut().expect("made").rx_sum += grown;
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
    pub(super) fn on_reset<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        code: u64,
        final_size: u64,
    ) -> Result<(), TransportError> {
        if !self.resolve(cx, id, Half::Receiving)? {
            return Ok(());
        }
        self.thaw(cx);
        let (rx_sum, rx_max) = (self.active.as_ref().expect("made").rx_sum, self.flow.rx_max);
        let (state, buf) = self.stream_mut(id).expect("resolved");
        if state.recv == RecvState::Done {
            return Ok(());
        }
        let highest = buf.rx.highest();
        check_final_size(buf.final_size, highest, final_size, true)?;
        let grown = final_size - highest;
        if final_size > state.rx_max || rx_sum + grown > rx_max {
            refuse!(FLOW_CONTROL_ERROR, "final size above the limit");
        }
        let unread = final_size - state.read;
        state.recv = RecvState::Done;
        state.read = final_size;
        buf.rx.discard(final_size);
        (buf.send_max, buf.send_stop) = (false, false);
        self.active.as_mut().expect("made").rx_sum += grown;
        self.consume_credit(unread);
        cx.event(Event::StreamReset { id, code });
        self.retire_stream(id);
        Ok(())
    }

    /// STOP_SENDING (RFC 9000 19.5): answered with a reset (3.5).
    pub(super) fn on_stop_sending<A: Aead>(
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
    pub(super) fn on_max_stream_data<A: Aead>(
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
        self.with_buf(id, |state, _| state.tx_max = state.tx_max.max(max));
        Ok(())
    }

    /// STREAM_DATA_BLOCKED (RFC 9000 19.13): nothing to do beyond the checks, as windows are
    /// advertised when data is read.
    pub(super) fn on_stream_data_blocked<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
    ) -> Result<(), TransportError> {
        self.resolve(cx, id, Half::Receiving).map(|_| ())
    }

    /// MAX_STREAMS (RFC 9000 19.11).
    pub(super) fn on_max_streams<A: Aead>(&mut self, cx: &mut Cx<'_, A>, dir: Dir, max: u64) {
        let limit = &mut self.counts.tx_limit[dir as usize];
        if sat32(max) > *limit {
            *limit = sat32(max);
            cx.event(Event::StreamsAvailable(dir));
        }
    }

    /// MAX_DATA (RFC 9000 19.9): streams that the connection's limit held back may go on.
    pub(super) fn on_max_data(&mut self, max: u64) {
        if max <= self.flow.tx_max {
            return;
        }
        let blocked = self.flow.tx_sent == self.flow.tx_max;
        self.flow.tx_max = max;
        let Some(active) = self.active.as_ref().filter(|_| blocked) else {
            return;
        };
        let ids: Vec<u64> = active.streams.keys().copied().chain([0]).collect();
        ids.into_iter().for_each(|id| self.enqueue(id));
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

    /// Opens a stream; `None` while the peer permits no more.
    pub(crate) fn open<A: Aead>(&mut self, cx: &mut Cx<'_, A>, dir: Dir) -> Option<u64> {
        let d = dir as usize;
        if self.state != State::Open || self.counts.tx_opened[d] >= self.counts.tx_limit[d] {
            return None;
        }
        let id = stream_id(self.side(), dir, self.counts.tx_opened[d]);
        self.counts.tx_opened[d] += 1;
        self.create(cx, id);
        Some(id)
    }

    /// Buffers bytes to send; returns how many were taken.
    pub(crate) fn write<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        bytes: &[u8],
    ) -> Result<usize, StreamError> {
        let cap = cx.transport.stream_send_buffer;
        let Some((state, buf)) = self.open_stream(cx, id) else {
            return Err(StreamError::Closed);
        };
        if state.send != SendState::Open {
            return Err(StreamError::Closed);
        }
        let n = cap.saturating_sub(buf.tx.len()).min(bytes.len());
        buf.wants_room |= n < bytes.len();
        if n == 0 && !bytes.is_empty() {
            return Err(StreamError::Blocked);
        }
        buf.tx.write(&bytes[..n]);
        state.written += n as u64;
        self.enqueue(id);
        Ok(n)
    }

    fn open_stream<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
    ) -> Option<(&mut StreamState, &mut StreamBuf)> {
        if self.state != State::Open {
            return None;
        }
        if id == 0 && !self.stream0.is_over() {
            self.thaw(cx);
        }
        self.stream_mut(id)
    }

    /// Ends the sending half after what was written.
    pub(crate) fn finish<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
    ) -> Result<(), StreamError> {
        match self.open_stream(cx, id) {
            Some((state, buf)) if state.send == SendState::Open => {
                state.send = SendState::Finished;
                buf.wants_room = false;
                self.enqueue(id);
                Ok(())
            }
            _ => Err(StreamError::Closed),
        }
    }

    /// Abandons the sending half.
    pub(crate) fn reset<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        code: u64,
    ) -> Result<(), StreamError> {
        match self.open_stream(cx, id) {
            Some((state, _)) if matches!(state.send, SendState::Open | SendState::Finished) => {
                self.reset_send(id, code);
                Ok(())
            }
            _ => Err(StreamError::Closed),
        }
    }

    /// Asks the peer to stop sending; what still comes is thrown away.
    pub(crate) fn stop<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        code: u64,
    ) -> Result<(), StreamError> {
        let Some((state, buf)) = self.open_stream(cx, id) else {
            return Err(StreamError::Closed);
        };
        if !matches!(state.recv, RecvState::Open | RecvState::Sized) || buf.stopped {
            return Err(StreamError::Closed);
        }
        let unread = buf.rx.highest() - state.read;
        buf.stopped = true;
        buf.stop_code = code;
        buf.rx.discard(0);
        state.read = buf.rx.offset();
        if state.recv == RecvState::Sized {
            // All is known to end: there is nothing to stop (RFC 9000 3.5).
            state.recv = RecvState::Done;
        } else {
            buf.send_stop = true;
        }
        self.consume_credit(unread);
        self.enqueue(id);
        self.retire_stream(id);
        Ok(())
    }

    /// Reads into `out`.
    pub(crate) fn read<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        id: u64,
        out: &mut [u8],
    ) -> Result<Read, StreamError> {
        if id == 0 && self.active.is_none() && self.stream0.recv == RecvState::Open {
            return Err(StreamError::Blocked);
        }
        let _ = cx;
        let window = u64::from(self.stream_window);
        let Some((state, buf)) = self.stream_mut(id) else {
            return Err(StreamError::Closed);
        };
        if matches!(state.recv, RecvState::Done | RecvState::Absent) || buf.stopped {
            return Err(StreamError::Closed);
        }
        let len = buf.rx.read(out);
        state.read += len as u64;
        if buf.rx.readable() == 0 {
            buf.told_readable = false;
        }
        let fin = buf.final_size == Some(state.read);
        if fin {
            state.recv = RecvState::Done;
        } else if len == 0 {
            return Err(StreamError::Blocked);
        }
        let update =
            state.recv == RecvState::Open && state.read + window >= state.rx_max + window / 2;
        if update {
            buf.send_max = true;
            self.enqueue(id);
        }
        self.consume_credit(len as u64);
        self.retire_stream(id);
        Ok(Read { len, fin })
    }

    /// Raises the receive windows, after authentication and from the shard's budget (T8).
    pub(crate) fn set_windows<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        stream: u32,
        connection: u32,
    ) -> Result<(), NotOpen> {
        if self.state != State::Open {
            return Err(NotOpen);
        }
        self.stream_window = self.stream_window.max(stream);
        self.connection_window = self.connection_window.max(connection);
        self.thaw(cx).pending.max_data = true;
        let active = self.active.as_ref().expect("made");
        let ids: Vec<u64> = active.streams.keys().copied().chain([0]).collect();
        for id in ids {
            self.with_buf(id, |state, buf| {
                buf.send_max = state.recv == RecvState::Open
            });
        }
        Ok(())
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
