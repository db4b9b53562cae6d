//! Packets of a connection that closes (RFC 9000 10.2).

use super::super::ack::LEVELS;
use super::super::{Connection, Cx, Flags, Path};
use super::PACKET_ROOM_MIN;
use crate::coding::Writer;
use crate::crypto::{Aead, Tls};
use crate::error::Code;
use crate::frame::{self, ty};
use crate::packet::{INITIAL_DATAGRAM_MIN, Level, TAG_LEN};

impl<T: Tls> Connection<T> {
    /// CONNECTION_CLOSE at every level the peer may have keys for (RFC 9000 10.2.3).
    pub(super) fn build_close<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
    ) -> Option<(usize, Path)> {
        let validated = self.flags.has(Flags::VALIDATED | Flags::CLIENT);
        let limit = usize::from(self.payload_max(cx)).min(buf.len());
        let close = self.active.as_mut()?.close.as_mut()?;
        let to = close.send.take()?;
        if !close.may_send(limit, validated) {
            return None;
        }
        let mut at = 0;
        for level in LEVELS {
            if limit - at >= PACKET_ROOM_MIN {
                at += self.build_close_packet(cx, level, &mut buf[at..limit]);
            }
        }
        self.active.as_mut()?.close.as_mut()?.sent += at as u64;
        (at > 0).then_some((at, to))
    }

    fn build_close_packet<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        buf: &mut [u8],
    ) -> usize {
        let hs = self.active.as_ref().and_then(|a| a.hs.as_ref());
        let usable = match level {
            // A server must not assume that a client in its handshake has 1-RTT keys.
            Level::Data => !self.keys.is_none() && (hs.is_none() || self.flags.has(Flags::CLIENT)),
            early => hs.is_some_and(|hs| hs.spaces[early as usize].is_some()),
        };
        if !usable {
            return 0;
        }
        let close = self
            .active
            .as_ref()
            .and_then(|a| a.close.as_ref())
            .expect("closing");
        let reason = close.reason.clone();
        let (kind, code, frame, reason) = match (close.frame, level) {
            (Some(frame), _) => (ty::CONNECTION_CLOSE, close.code, frame, reason),
            (None, Level::Data) => (ty::APPLICATION_CLOSE, close.code, 0, reason),
            // RFC 9000 10.2.3: an application's code and its phrase are not shown before the handshake
            // is done.
            (None, _) => (
                ty::CONNECTION_CLOSE,
                Code::APPLICATION_ERROR.0,
                0,
                Box::default(),
            ),
        };
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let Some(head) = self.write_head(cx, level, &mut w) else {
            return 0;
        };
        frame::write_close(&mut w, kind, code, frame, &reason);
        let end = w.len();
        // A client's Initials are full-sized always (RFC 9000 14.1); a close fits one datagram.
        let pad = match level {
            Level::Initial if self.flags.has(Flags::CLIENT) => INITIAL_DATAGRAM_MIN,
            _ => 0,
        };
        let built = self.finish_packet(cx, level, buf, &head, end, pad, false);
        self.pns(level).expect("a level with keys").next += 1;
        built.len
    }
}
