//! The path's MTU, found by probing (RFC 9000 14.3, RFC 8899), and a black hole noticed (4.3).
//!
//! Only a connection that moves bulk searches: the state lives in its active part, and what an idle
//! one keeps is the size that was confirmed. A probe is a PING padded to the size in question. It is
//! in flight as any packet is, but its loss says nothing about congestion (RFC 9000 14.4).

use super::{Connection, Cx, Flags, State};
use crate::coding::Writer;
use crate::config::Transport;
use crate::crypto::{Aead, Tls};
use crate::frame::ty;
use crate::limits::{
    BLACK_HOLE_LOSSES, BLACK_HOLE_PTOS, MTU_PROBES_MAX, MTU_SEARCH_AFTER, MTU_STEP_MIN,
};
use crate::packet::{INITIAL_DATAGRAM_MIN, Level, TAG_LEN};
use crate::space::{Sent, SentFrame};
use crate::time::sat32;

/// The search of one active part.
#[derive(Debug, Default)]
pub(crate) struct MtuSearch {
    /// Bytes sent since the active part was made.
    sent: u32,
    /// The largest size that may still work; zero before the search.
    ceiling: u16,
    /// The size of the probe in flight; zero for none.
    probing: u16,
    /// Probes of the present size that were lost.
    lost: u8,
    /// The search is over for this active part.
    done: bool,
    /// The ceiling itself was tried: from then on by halves.
    halving: bool,
    /// The largest number of a packet above the base size that was acknowledged.
    big_acked: u64,
    /// Packets above the base size that were lost since, with later numbers.
    big_lost: u8,
}

impl<T> Connection<T> {
    /// The largest datagram for this peer on this path (T12).
    pub(crate) fn payload(&self, transport: &Transport) -> u16 {
        transport
            .payload_max
            .max(self.mtu)
            .min(self.peer.payload_max)
            .max(1_200)
    }

    /// Another path, or a black hole: back to the base size.
    pub(super) fn forget_mtu(&mut self) {
        self.mtu = 0;
        if let Some(active) = &mut self.active {
            active.mtu = MtuSearch::default();
        }
    }

    fn on_black_hole(&mut self) {
        self.forget_mtu();
        if let Some(active) = &mut self.active {
            active.mtu.done = true;
        }
    }

    /// The probe timeout expired so often that packets of the found size may be what is lost.
    pub(super) fn suspect_mtu(&mut self) {
        if self.mtu > 0 && self.pto_count >= BLACK_HOLE_PTOS {
            self.on_black_hole();
        }
    }

    /// A packet of the application's level left.
    pub(super) fn count_for_mtu(&mut self, len: usize) {
        if let Some(active) = &mut self.active {
            active.mtu.sent = active.mtu.sent.saturating_add(sat32(len as u64));
        }
    }

    /// The size that a packet probed, if it was a probe.
    pub(super) fn probed(&self, level: Level, record: &Sent) -> Option<u16> {
        let active = self.active.as_ref().filter(|_| level == Level::Data)?;
        match (record.frames > 0).then(|| active.data.frame(record, 0))? {
            SentFrame::MtuProbe(size) => Some(size),
            _ => None,
        }
    }

    pub(super) fn on_mtu_probe_acked(&mut self, size: u16) {
        // Not one of a path that was left meanwhile.
        if let Some(active) = self.active.as_mut().filter(|a| a.mtu.probing == size) {
            (active.mtu.probing, active.mtu.lost) = (0, 0);
            self.mtu = size;
        }
    }

    pub(super) fn on_mtu_probe_lost(&mut self, size: u16) {
        let Some(active) = self.active.as_mut().filter(|a| a.mtu.probing == size) else {
            return;
        };
        let search = &mut active.mtu;
        search.probing = 0;
        search.lost += 1;
        if search.lost >= MTU_PROBES_MAX {
            // RFC 8899 5.1.2: that often lost, the size is held to be too large.
            search.ceiling = search.ceiling.min(size - 1);
            (search.lost, search.halving) = (0, true);
        }
    }

    /// Packets above the base size get through.
    pub(super) fn on_big_acked(&mut self, transport: &Transport, record: &Sent) {
        if let Some(active) = &mut self.active
            && record.size > transport.payload_max
        {
            active.mtu.big_acked = active.mtu.big_acked.max(record.pn);
            active.mtu.big_lost = 0;
        }
    }

    /// Packets above the base size are lost, and no later one of them arrived: a few such, and the
    /// path has become narrower (RFC 8899 4.3).
    pub(super) fn on_big_lost(&mut self, transport: &Transport, record: &Sent) {
        let Some(active) = &mut self.active else {
            return;
        };
        let search = &mut active.mtu;
        if record.size > transport.payload_max && record.pn > search.big_acked {
            search.big_lost = search.big_lost.saturating_add(1);
            if search.big_lost >= BLACK_HOLE_LOSSES && self.mtu > 0 {
                self.on_black_hole();
            }
        }
    }

    /// The size to probe now, if any.
    fn next_mtu_probe(&mut self, transport: &Transport) -> Option<u16> {
        let floor = self.payload(transport);
        let top = transport.mtu_max.min(self.peer.payload_max);
        let open = self.state == State::Open && self.flags.has(Flags::CONFIRMED);
        let cwnd = u64::from(self.window.cwnd);
        let active = self.active.as_mut().filter(|_| open && top > floor)?;
        let (in_flight, bulk) = (active.rec.bytes_in_flight, active.has_frames());
        let search = &mut active.mtu;
        let early = search.sent < MTU_SEARCH_AFTER || active.path.is_some();
        if search.done || search.probing != 0 || early || !bulk {
            return None;
        }
        if search.ceiling == 0 {
            search.ceiling = top;
        }
        if search.ceiling < floor.saturating_add(MTU_STEP_MIN) {
            search.done = true;
            return None;
        }
        let size = if search.halving {
            floor + (search.ceiling - floor).div_ceil(2)
        } else {
            search.ceiling
        };
        (in_flight + u64::from(size) <= cwnd).then_some(size)
    }
}

impl<T: Tls> Connection<T> {
    /// Builds a probe when one is due; returns its length.
    pub(super) fn build_mtu_probe<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        buf: &mut [u8],
    ) -> Option<usize> {
        let size = self.next_mtu_probe(cx.transport)?;
        let buf = buf.get_mut(..usize::from(size))?;
        debug_assert!(buf.len() > INITIAL_DATAGRAM_MIN);
        let room = buf.len() - TAG_LEN;
        let mut w = Writer::new(&mut buf[..room]);
        let head = self.write_head(cx, Level::Data, &mut w)?;
        w.varint(ty::PING);
        let end = w.len();
        let active = self.active.as_mut().expect("checked before");
        active.data.note(SentFrame::MtuProbe(size));
        active.mtu.probing = size;
        let built = self.finish_packet(cx, Level::Data, buf, &head, end, usize::from(size), true);
        self.on_packet_sent(cx, Level::Data, head.pn, &built);
        Some(built.len)
    }
}
