//! What becomes of connections, told to the application and counted.

use roadstead_quic::{self as lean, Connected, Dir, Handle, Side, initiator};

use super::{Lean, Mark, STREAM, conn_of};
use crate::event::{CloseReason, Event};

/// TLS alerts are the transport errors from here on (RFC 9001 section 4.8).
const CRYPTO_ERRORS: u64 = 0x100;

/// RFC 8446 section 6.2.
const NO_APPLICATION_PROTOCOL: u8 = 120;

impl Lean {
    /// Turns the endpoint's events into those of the seam.
    pub(super) fn translate(&mut self) {
        while let Some((handle, event)) = self.endpoint.poll_event() {
            self.on_event(handle, event);
        }
    }

    fn on_event(&mut self, handle: Handle, event: lean::Event) {
        let conn = conn_of(handle);
        match event {
            lean::Event::Connected(connected) => return self.opened(handle, &connected),
            lean::Event::Closed(reason) => return self.lose(handle, reason_of(reason)),
            _ => {}
        }
        // Nothing comes after the application was told the end of it.
        if self.marks.of(handle).has(Mark::Closed) {
            return;
        }
        match event {
            lean::Event::StreamOpened(STREAM) => {
                self.marks.set(handle, Mark::Stream);
                self.stream_is_there(handle);
            }
            lean::Event::StreamOpened(other) => self.refuse_stream(handle, other),
            lean::Event::StreamsAvailable(Dir::Bidi) => self.open_stream(handle),
            lean::Event::StreamReadable(STREAM) => self.events.push_back(Event::Readable { conn }),
            lean::Event::StreamWritable(STREAM) => self.tell_writable(handle),
            lean::Event::StreamStopped { id: STREAM, .. } => {
                self.events.push_back(Event::Aborted { conn });
                self.tell_writable(handle);
            }
            lean::Event::StreamReset { id: STREAM, .. } => {
                self.events.push_back(Event::Aborted { conn });
            }
            lean::Event::Datagram(data) => self.events.push_back(Event::Datagram { conn, data }),
            _ => {}
        }
    }

    fn opened(&mut self, handle: Handle, connected: &Connected) {
        self.settle(handle);
        match connected.resumed {
            true => self.counters.handshakes_resumed.add(1),
            false => self.counters.handshakes_full.add(1),
        }
        let path = self.endpoint.path(handle);
        let Some(path) = path.filter(|_| !self.marks.of(handle).has(Mark::Closed)) else {
            return;
        };
        self.marks.set(handle, Mark::Open);
        self.open += 1;
        self.open_stream(handle);
        self.events.push_back(Event::Opened {
            conn: conn_of(handle),
            peer: path.remote,
            resumed: connected.resumed,
            proven: self.marks.of(handle).has(Mark::Proven),
        });
    }

    /// A client opens the stream as soon as the server permits it.
    fn open_stream(&mut self, handle: Handle) {
        if self.lobby.is_some() || self.marks.of(handle).has(Mark::Stream) {
            return;
        }
        if self.endpoint.open(self.present(), handle, Dir::Bidi) == Some(STREAM) {
            self.marks.set(handle, Mark::Stream);
            self.stream_is_there(handle);
        }
    }

    /// What the application wanted of a stream that was not there yet.
    fn stream_is_there(&mut self, handle: Handle) {
        if self.marks.of(handle).has(Mark::Finishing) {
            let _ = self.endpoint.finish(self.present(), handle, STREAM);
        }
        self.tell_writable(handle);
    }

    /// One stream per connection: another one, after the first is over, is sent back.
    fn refuse_stream(&mut self, handle: Handle, id: u64) {
        let now = self.present();
        if initiator(id) == Side::Client {
            let _ = self.endpoint.stop(now, handle, id, 0);
            let _ = self.endpoint.reset(now, handle, id, 0);
        }
    }

    /// Tells once that a short write can be continued, if it can.
    pub(super) fn tell_writable(&mut self, handle: Handle) {
        let conn = conn_of(handle);
        let wanted = self.marks.of(handle).has(Mark::ShortWrite) && self.usable(conn).is_some();
        if wanted && (self.room(handle) > 0 || self.is_stopped(handle)) {
            self.marks.take(handle, Mark::ShortWrite);
            self.events.push_back(Event::Writable { conn });
        }
    }

    /// Tells once that the peer sends nothing more.
    pub(super) fn tell_finished(&mut self, handle: Handle) {
        if !self.marks.replace(handle, Mark::Finished) {
            let conn = conn_of(handle);
            self.events.push_back(Event::Finished { conn });
        }
    }

    /// A handshake is over, for the first time or again.
    fn settle(&mut self, handle: Handle) -> bool {
        let first = !self.marks.replace(handle, Mark::Settled);
        if first && self.lobby.is_none() {
            self.connecting -= 1;
        }
        first
    }

    /// A connection is lost. The application hears of it if it knew of it.
    fn lose(&mut self, handle: Handle, reason: CloseReason) {
        let marks = self.marks.of(handle);
        if self.settle(handle) && !marks.has(Mark::Closed) {
            self.counters.count_failed_handshake(&reason);
        }
        if marks.has(Mark::Closed) {
            return;
        }
        if marks.has(Mark::Open) || self.lobby.is_none() {
            self.tell_closed(handle, reason);
        } else {
            self.marks.set(handle, Mark::Closed);
            self.marks.set(handle, Mark::Gone);
        }
    }

    pub(super) fn tell_closed(&mut self, handle: Handle, reason: CloseReason) {
        self.marks.set(handle, Mark::Closed);
        if self.marks.of(handle).has(Mark::Open) {
            self.open -= 1;
            self.counters.count_closed(&reason);
        }
        let conn = conn_of(handle);
        self.events.push_back(Event::Closed { conn, reason });
    }
}

/// Why a connection was lost, in the words of this crate.
fn reason_of(reason: lean::CloseReason) -> CloseReason {
    match reason {
        lean::CloseReason::Local(error) => transport(error.code.0, false),
        lean::CloseReason::PeerTransport { code, .. } => transport(code.0, true),
        lean::CloseReason::LocalApplication(_) => CloseReason::Local,
        lean::CloseReason::PeerApplication { code, reason } => CloseReason::Application {
            code,
            reason: reason.into_vec().into(),
        },
        lean::CloseReason::IdleTimeout => CloseReason::IdleTimeout,
        lean::CloseReason::StatelessReset => CloseReason::StatelessReset,
        lean::CloseReason::VersionMismatch => CloseReason::VersionMismatch,
        lean::CloseReason::HandshakeTimeout => CloseReason::HandshakeTimeout,
        // RFC 9000 section 20.1, CONNECTION_REFUSED: only a server gives up a handshake so.
        lean::CloseReason::Displaced => transport(0x2, false),
    }
}

fn transport(code: u64, by_peer: bool) -> CloseReason {
    let alert = code.checked_sub(CRYPTO_ERRORS);
    match alert.and_then(|alert| u8::try_from(alert).ok()) {
        Some(NO_APPLICATION_PROTOCOL) => CloseReason::Alpn,
        Some(alert) => CloseReason::Tls { alert },
        None => CloseReason::Transport { code, by_peer },
    }
}
