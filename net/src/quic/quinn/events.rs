//! What becomes of connections, told to the application and counted.

use std::time::Instant;

use super::{
    Quinn,
    conn::{self, Conn, Lost},
};
use crate::event::{CloseReason, ConnId, Event};

impl Quinn {
    pub(super) fn timer_fired(&mut self, index: u32, now: Instant) {
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        if conn.inner.is_handshaking() && !conn.closed && now >= conn.handshake_until {
            conn.closing = Some(Box::default());
            self.lose(index, CloseReason::HandshakeTimeout);
            return self.mark_dirty(index);
        }
        conn.inner.handle_timeout(now);
        self.touch(index);
    }

    pub(super) fn poll_events(&mut self, index: u32) {
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        conn.touched = false;
        let polled = conn.poll();
        let id = self.id_of(index);
        if let Some(opened) = polled.opened {
            self.opened(index, id, opened);
        }
        // First, so that nothing is read behind it.
        for _ in 0..polled.aborted {
            self.events.push_back(Event::Aborted { conn: id });
        }
        if polled.readable {
            self.events.push_back(Event::Readable { conn: id });
        }
        for data in polled.datagrams {
            self.events.push_back(Event::Datagram { conn: id, data });
        }
        if polled.writable {
            self.events.push_back(Event::Writable { conn: id });
        }
        if let Some(Lost(reason)) = polled.lost {
            self.lose(index, reason);
        }
    }

    pub(super) fn opened(&mut self, index: u32, id: ConnId, opened: conn::Opened) {
        if let Some(place) = self.conn_mut(index).and_then(Conn::settle) {
            self.settle(place);
        }
        match opened.resumed {
            true => self.counters.handshakes_resumed.add(1),
            false => self.counters.handshakes_full.add(1),
        }
        let conn = self.conn_mut(index).expect("it was just polled");
        if conn.closed {
            return;
        }
        conn.open = true;
        let proven = conn.proven;
        self.open += 1;
        let conn::Opened { peer, resumed } = opened;
        self.events.push_back(Event::Opened {
            conn: id,
            peer,
            resumed,
            proven,
        });
    }

    /// A connection is lost. The application hears of it if it knew of it.
    pub(super) fn lose(&mut self, index: u32, reason: CloseReason) {
        let server = self.door.is_some();
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        let (closed, open) = (conn.closed, conn.open);
        let failed = !conn.settled && !std::mem::replace(&mut conn.failed, true);
        if failed && !closed {
            self.counters.count_failed_handshake(&reason);
        }
        if closed {
            return;
        }
        if open || !server {
            self.tell_closed(index, reason);
        } else if let Some(conn) = self.conn_mut(index) {
            conn.closed = true;
            conn.gone = true;
        }
    }

    pub(super) fn tell_closed(&mut self, index: u32, reason: CloseReason) {
        let id = self.id_of(index);
        let Some(conn) = self.conn_mut(index) else {
            return;
        };
        conn.closed = true;
        if conn.open {
            self.open -= 1;
            self.counters.count_closed(&reason);
        }
        self.events.push_back(Event::Closed { conn: id, reason });
    }
}
