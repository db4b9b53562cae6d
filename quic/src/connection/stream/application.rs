//! The application's calls on streams (RFC 9000 2.4).

use super::super::{Connection, Cx, NotOpen, State};
use crate::crypto::{Aead, Tls};
use crate::frame::Dir;
use crate::streams::{Read, RecvState, SendState, StreamBuf, StreamError, StreamState, stream_id};

impl<T: Tls> Connection<T> {
    /// Opens a stream; `None` while the peer permits no more.
    pub(crate) fn open<A: Aead>(&mut self, cx: &mut Cx<'_, A>, dir: Dir) -> Option<u64> {
        let d = dir as usize;
        if self.state != State::Open {
            return None;
        }
        if self.counts.tx_opened[d] >= self.counts.tx_limit[d] {
            // RFC 9000 4.6: the peer is told, once per limit while something is in flight.
            let active = self.thaw(cx);
            let told = std::mem::replace(&mut active.told_streams_blocked[d], true);
            active.pending.streams_blocked[d] |= !told;
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
}
