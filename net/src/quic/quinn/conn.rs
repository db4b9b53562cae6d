//! One connection: its only stream, what it still has to write, and what to tell about it.

use std::{net::SocketAddr, time::Instant};

use bytes::{Buf, Bytes, BytesMut};
use quinn_proto::{
    Connection, ConnectionError, Dir, Event, ReadError, Side, StreamEvent, StreamId, VarInt,
    WriteError,
};

use roadstead_quic::Quota;

use super::door::Place;
use crate::{
    event::CloseReason,
    quic::{Outbound, session::HandshakeInfo},
};

/// TLS alerts are the transport errors from here on (RFC 9001 section 4.8).
const CRYPTO_ERRORS: std::ops::Range<u64> = 0x100..0x200;

/// RFC 8446 section 6.2.
const NO_APPLICATION_PROTOCOL: u8 = 120;

pub(super) struct Conn {
    pub(super) inner: Connection,
    /// Which socket the peer reaches us on.
    pub(super) socket: u16,
    /// When a handshake that is not complete is given up.
    pub(super) handshake_until: Instant,
    /// Where a half-open handshake is counted.
    pub(super) place: Place,
    /// A token proved the peer's address before the handshake.
    pub(super) proven: bool,
    /// Handshake complete.
    pub(super) settled: bool,
    /// Handshake failed, and was counted as such.
    pub(super) failed: bool,
    /// The application was told that it opened.
    pub(super) open: bool,
    /// `Closed` is on its way to the application.
    pub(super) closed: bool,
    /// `Closed` was delivered.
    pub(super) gone: bool,
    /// The endpoint has forgotten it.
    pub(super) drained: bool,
    pub(super) touched: bool,
    pub(super) dirty: bool,
    /// A close of this end that goes out after what was written.
    pub(super) closing: Option<Box<(VarInt, Bytes)>>,
    stream: Option<StreamId>,
    /// Written by the application and not yet taken by the engine. Empty and without room when idle.
    backlog: BytesMut,
    /// A write accepted less than it was given.
    short_write: bool,
    finish_wanted: bool,
    /// The application was told the end of what the peer sends, or that it gave that up.
    finished_told: bool,
    /// Datagrams taken of late, while the loop is behind (T21).
    pub(super) quota: Quota,
}

/// What a poll found.
#[derive(Default)]
pub(super) struct Polled {
    pub(super) opened: Option<Opened>,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Halves of the stream that the peer gave up.
    pub(super) aborted: usize,
    pub(super) datagrams: Vec<Bytes>,
    pub(super) lost: Option<Lost>,
}

pub(super) struct Opened {
    pub(super) peer: SocketAddr,
    pub(super) resumed: bool,
}

pub(super) struct Lost(pub(super) CloseReason);

/// What a read found.
#[derive(Default)]
pub(super) struct Read {
    pub(super) bytes: Option<Bytes>,
    pub(super) finished: bool,
    pub(super) transmit: bool,
}

impl Conn {
    pub(super) fn new(
        inner: Connection,
        socket: u16,
        handshake_until: Instant,
        place: Place,
    ) -> Self {
        Self {
            inner,
            socket,
            handshake_until,
            place,
            proven: false,
            settled: false,
            failed: false,
            open: false,
            closed: false,
            gone: false,
            drained: false,
            touched: false,
            dirty: false,
            closing: None,
            stream: None,
            backlog: BytesMut::new(),
            short_write: false,
            finish_wanted: false,
            finished_told: false,
            quota: Quota::default(),
        }
    }

    /// Whether the application may use it: open, and its end not yet told.
    pub(super) fn usable(&self) -> bool {
        self.open && !self.gone && self.closing.is_none()
    }

    /// The handshake is complete. Gives its place the first time.
    pub(super) fn settle(&mut self) -> Option<Place> {
        let first = !std::mem::replace(&mut self.settled, true);
        first.then_some(self.place)
    }

    /// When its timer must fire.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let engine = self.inner.poll_timeout();
        match !self.closed && self.inner.is_handshaking() {
            true => Some(engine.map_or(self.handshake_until, |at| at.min(self.handshake_until))),
            false => engine,
        }
    }

    pub(super) fn poll(&mut self) -> Polled {
        let mut polled = Polled::default();
        while let Some(event) = self.inner.poll() {
            match event {
                Event::Connected => polled.opened = Some(self.connected()),
                Event::Stream(event) => self.stream_event(&event, &mut polled),
                Event::DatagramReceived => {
                    while let Some(data) = self.inner.datagrams().recv() {
                        polled.datagrams.push(data);
                    }
                }
                Event::ConnectionLost { reason: cause } => {
                    polled.lost = Some(Lost(reason(&cause)));
                }
                Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
            }
        }
        if self.closed {
            // The application has been told the end of it; nothing comes after that.
            return Polled {
                opened: polled.opened,
                ..Polled::default()
            };
        }
        polled
    }

    fn connected(&mut self) -> Opened {
        if self.inner.side() == Side::Client {
            self.stream = self.inner.streams().open(Dir::Bi);
        }
        let info = self.inner.crypto_session().handshake_data();
        let info = info.and_then(|info| info.downcast::<HandshakeInfo>().ok());
        Opened {
            peer: self.inner.remote_address(),
            resumed: info.is_some_and(|info| info.resumed),
        }
    }

    fn stream_event(&mut self, event: &StreamEvent, polled: &mut Polled) {
        match event {
            StreamEvent::Opened { dir: Dir::Bi } if self.stream.is_none() => {
                self.stream = self.inner.streams().accept(Dir::Bi);
                polled.readable |= self.stream.is_some();
                self.look_for_reset(polled);
                self.pump();
            }
            StreamEvent::Available { dir: Dir::Bi }
                if self.stream.is_none() && self.inner.side() == Side::Client =>
            {
                self.stream = self.inner.streams().open(Dir::Bi);
                self.pump();
            }
            StreamEvent::Readable { id } if self.stream == Some(*id) => {
                polled.readable = true;
                self.look_for_reset(polled);
            }
            StreamEvent::Writable { .. } | StreamEvent::Stopped { .. } => {
                polled.aborted += usize::from(matches!(event, StreamEvent::Stopped { .. }));
                self.pump();
                polled.writable |= self.take_writable();
            }
            _ => {}
        }
    }

    /// A reset is told at once, whether the application reads or not.
    fn look_for_reset(&mut self, polled: &mut Polled) {
        let Some(stream) = self.stream.filter(|_| !self.finished_told) else {
            return;
        };
        if let Ok(Some(_)) = self.inner.recv_stream(stream).received_reset() {
            self.finished_told = true;
            polled.aborted += 1;
        }
    }

    /// Whether a short write can be continued, once.
    fn take_writable(&mut self) -> bool {
        self.backlog.is_empty() && std::mem::take(&mut self.short_write)
    }

    /// The next chunk of the stream.
    pub(super) fn read(&mut self) -> Read {
        let mut read = Read::default();
        let Some(stream) = self.stream.filter(|_| !self.finished_told) else {
            return read;
        };
        let mut receive = self.inner.recv_stream(stream);
        let Ok(mut chunks) = receive.read(true) else {
            return read;
        };
        match chunks.next(usize::MAX) {
            Ok(Some(chunk)) => read.bytes = Some(chunk.bytes),
            Ok(None) => read.finished = true,
            // A reset is looked for when it comes.
            Err(ReadError::Reset(_) | ReadError::Blocked) => {}
        }
        read.transmit = chunks.finalize().should_transmit();
        self.finished_told |= read.finished;
        read
    }

    pub(super) fn write_capacity(&self, limit: usize) -> usize {
        match self.finish_wanted {
            true => 0,
            false => limit.saturating_sub(self.backlog.len()),
        }
    }

    /// Gives the engine what it takes and keeps the rest, up to the limit.
    pub(super) fn write(&mut self, data: &[u8], limit: usize) -> usize {
        if self.finish_wanted {
            return 0;
        }
        let taken = if self.backlog.is_empty() {
            self.write_stream(data)
        } else {
            0
        };
        let rest = &data[taken..];
        let kept = rest.len().min(limit.saturating_sub(self.backlog.len()));
        self.backlog.extend_from_slice(&rest[..kept]);
        self.short_write |= kept < rest.len();
        taken + kept
    }

    /// How much the engine took. It registers the wish for more only when asked in vain, so it is asked
    /// until it refuses.
    fn write_stream(&mut self, data: &[u8]) -> usize {
        let Some(stream) = self.stream else { return 0 };
        let mut taken = 0;
        while taken < data.len() {
            match self.inner.send_stream(stream).write(&data[taken..]) {
                Ok(written) => taken += written,
                Err(WriteError::Blocked) => break,
                // The peer wants no more of it, or the connection is closing: there is no one to tell.
                Err(WriteError::Stopped(_) | WriteError::ClosedStream) => return data.len(),
            }
        }
        taken
    }

    fn pump(&mut self) {
        if !self.backlog.is_empty() {
            let backlog = std::mem::take(&mut self.backlog);
            let taken = self.write_stream(&backlog);
            self.backlog = backlog;
            self.backlog.advance(taken);
            if self.backlog.is_empty() {
                self.backlog = BytesMut::new();
            }
        }
        self.finish_if_wanted();
    }

    pub(super) fn finish(&mut self) {
        self.finish_wanted = true;
        self.finish_if_wanted();
    }

    fn finish_if_wanted(&mut self) {
        if let Some(stream) = self
            .stream
            .filter(|_| self.finish_wanted && self.backlog.is_empty())
        {
            // It fails only if the stream is finished or stopped already.
            let _ = self.inner.send_stream(stream).finish();
        }
    }

    /// Emits every packet that the windows allow.
    pub(super) fn transmit(&mut self, now: Instant, train: usize, out: &mut impl Outbound) {
        while let Some(transmit) = self.inner.poll_transmit(now, train, out.buffer()) {
            let segment = transmit
                .segment_size
                .and_then(|size| u16::try_from(size).ok());
            out.send(self.socket, transmit.destination, segment);
        }
    }
}

/// Why a connection was lost, in the words of this crate.
pub(super) fn reason(cause: &ConnectionError) -> CloseReason {
    match cause {
        ConnectionError::VersionMismatch => CloseReason::VersionMismatch,
        ConnectionError::TransportError(error) => transport(error.code.into(), false),
        ConnectionError::ConnectionClosed(close) => transport(close.error_code.into(), true),
        ConnectionError::ApplicationClosed(close) => CloseReason::Application {
            code: close.error_code.into_inner(),
            reason: close.reason.clone(),
        },
        ConnectionError::Reset => CloseReason::StatelessReset,
        ConnectionError::TimedOut => CloseReason::IdleTimeout,
        ConnectionError::LocallyClosed => CloseReason::Local,
        ConnectionError::CidsExhausted => CloseReason::Exhausted,
    }
}

fn transport(code: u64, by_peer: bool) -> CloseReason {
    match u8::try_from(code - code.min(CRYPTO_ERRORS.start)) {
        Ok(NO_APPLICATION_PROTOCOL) if CRYPTO_ERRORS.contains(&code) => CloseReason::Alpn,
        Ok(alert) if CRYPTO_ERRORS.contains(&code) => CloseReason::Tls { alert },
        _ => CloseReason::Transport { code, by_peer },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crypto_errors_are_alerts() {
        assert_eq!(transport(0x178, true), CloseReason::Alpn);
        assert_eq!(transport(0x12a, true), CloseReason::Tls { alert: 42 });
        assert_eq!(
            transport(0x0a, false),
            CloseReason::Transport {
                code: 0x0a,
                by_peer: false
            }
        );
        assert_eq!(
            transport(0x278, true),
            CloseReason::Transport {
                code: 0x278,
                by_peer: true
            }
        );
    }
}
