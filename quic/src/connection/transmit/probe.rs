//! Packets for other paths than the current one (RFC 9000 8.2, 9.3.3).

use super::super::{Connection, Cx, Path, State};
use super::PACKET_ROOM_MIN;
use crate::coding::Writer;
use crate::crypto::{Aead, Tls};
use crate::frame::ty;
use crate::limits::AMPLIFICATION;
use crate::packet::{INITIAL_DATAGRAM_MIN, Level, TAG_LEN};

impl<T: Tls> Connection<T> {
    /// Packets for other paths than the current one: a PATH_RESPONSE to where its challenge came
    /// from (RFC 9000 8.2.2), a PATH_CHALLENGE to the previous path (9.3.3).
    pub(super) fn build_path_probe<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
        may_send: bool,
    ) -> Option<(usize, Path)> {
        if self.state != State::Open || self.keys.is_none() || !may_send {
            return None;
        }
        let current = self.path();
        let active = self.active.as_mut()?;
        let (to, kind, data, cap) = if let Some((data, path, received)) = active
            .pending
            .path_response
            .take_if(|(_, path, _)| *path != current)
        {
            let cap = received.saturating_mul(AMPLIFICATION);
            (
                path,
                ty::PATH_RESPONSE,
                data,
                usize::try_from(cap).unwrap_or(usize::MAX),
            )
        } else {
            let path = active.path.as_mut().filter(|p| p.send_prev)?;
            path.send_prev = false;
            (
                path.prev,
                ty::PATH_CHALLENGE,
                path.prev_challenge,
                usize::MAX,
            )
        };
        let limit = usize::from(self.payload_max(cx)).min(cap).min(buf.len());
        if limit < PACKET_ROOM_MIN / 2 {
            return None;
        }
        let mut w = Writer::new(&mut buf[..limit - TAG_LEN]);
        let head = self.write_head(cx, Level::Data, &mut w)?;
        w.varint(kind);
        w.bytes(&data);
        let end = w.len();
        let pad = INITIAL_DATAGRAM_MIN.min(limit);
        let built = self.finish_packet(cx, Level::Data, &mut buf[..limit], &head, end, pad, true);
        self.on_packet_sent(cx, Level::Data, head.pn, &built);
        Some((built.len, to))
    }
}
