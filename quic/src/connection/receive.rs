//! From a datagram to frames: opening packets in place, and dispatch (RFC 9000 5.2, 12, 13).

use super::{Connection, Cx, Flags, Path, State};
use crate::coding::varint_len;
use crate::crypto::{Aead, KeyRef, LevelKeys, Tls, open, unmask};
use crate::error::{ALERT_UNEXPECTED_MESSAGE, Code, Refusal, TransportError, broken, refuse};
use crate::event::Event;
use crate::frame::{self, Frame, Frames, ty};
use crate::keys::Generation;
use crate::packet::{
    ConnectionId, INITIAL_DATAGRAM_MIN, Kind, Level, PACKET_NUMBER_END, Packet, pn_decode,
};
use crate::params::Side;
use crate::time::low32;

/// Where and how a packet arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: Path,
    /// The sequence number of the id it was sent to, when the id says so.
    pub(crate) sequence: Option<u8>,
    /// Bytes of the datagram.
    pub(crate) len: u64,
}

/// A packet with its protection removed.
pub(crate) struct Opened {
    pn: u64,
    /// Where the frames lie.
    payload: (usize, usize),
    /// Bits that must be zero were not (RFC 9000 17.2, 17.3.1).
    reserved: bool,
}

/// Opens the first Initial of a client in place, before there is a connection for it: what anybody may send
/// must not cost the state of a handshake (T11). `None` when it is not authentic.
pub(crate) fn open_initial<A: Aead>(
    aead: &A,
    keys: &LevelKeys,
    packet: &Packet,
    bytes: &mut [u8],
) -> Option<Opened> {
    packet.sample_offset()?;
    let keys = KeyRef::of(keys.suite, &keys.remote);
    let (len, bits) = unmask(aead, keys.suite, keys.hp, bytes, packet.pn_offset);
    let pn = pn_decode(None, bits, len)?;
    let reserved = bytes[0] & 0x0c != 0;
    let payload = open(aead, keys, bytes, pn, packet.pn_offset + len)?;
    Some(Opened {
        pn,
        payload,
        reserved,
    })
}

/// What the frames of a packet were like.
#[derive(Default)]
struct Summary {
    eliciting: bool,
    non_probing: bool,
}

impl<T: Tls> Connection<T> {
    /// Takes a datagram for this connection, decrypting it in place.
    pub(crate) fn handle_datagram<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        data: &mut [u8],
    ) {
        match self.state {
            State::Closing => return self.on_packet_while_closing(arrival.path, data.len()),
            State::ExpectFinished | State::Open => {}
            State::Vacant | State::Draining | State::Drained => return,
        }
        // RFC 9000 9.3: a client discards packets from addresses its server did not use.
        if self.side().is_client() && arrival.path.remote != self.path().remote {
            return;
        }
        self.credit_path(arrival.path, data.len() as u64);
        self.handle_packets(cx, arrival, None, data);
    }

    /// Takes the datagram that began this connection, whose first packet is open already.
    pub(crate) fn handle_first<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        packet: &Packet,
        opened: &Opened,
        data: &mut [u8],
    ) {
        self.credit_path(arrival.path, data.len() as u64);
        let (bytes, rest) = data.split_at_mut(packet.end);
        self.take_opened(cx, arrival, Level::Initial, packet, opened, bytes);
        if self.is_alive() {
            self.handle_packets(cx, arrival, Some(packet.dcid), rest);
        }
    }

    /// Takes the packets of a datagram, from one that may be the first or, with the id of those before, is not.
    fn handle_packets<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        mut dcid: Option<ConnectionId>,
        data: &mut [u8],
    ) {
        let tail: Option<[u8; 16]> = data.last_chunk().copied();
        let mut rest = data;
        while let Ok(packet) = Packet::parse(rest, cx.codec.format.len()) {
            // RFC 9000 12.2: all packets of a datagram are for the same connection.
            if *dcid.get_or_insert(packet.dcid) != packet.dcid {
                break;
            }
            let (bytes, after) = std::mem::take(&mut rest).split_at_mut(packet.end);
            rest = after;
            let opened = self.handle_packet(cx, arrival, &packet, bytes);
            if !opened && packet.kind == Kind::OneRtt {
                self.check_stateless_reset(cx, tail);
            }
            if rest.is_empty() || !self.is_alive() {
                break;
            }
        }
        self.replay_undecryptable(cx);
    }

    /// Opens and processes one packet; false when it could not be opened.
    fn handle_packet<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        packet: &Packet,
        bytes: &mut [u8],
    ) -> bool {
        let level = match packet.kind {
            Kind::Initial => Level::Initial,
            Kind::Handshake => Level::Handshake,
            Kind::OneRtt => Level::Data,
            Kind::Retry => {
                self.on_retry(cx, packet, bytes);
                return true;
            }
            Kind::VersionNegotiation => {
                self.on_version_negotiation(cx, packet, bytes);
                return true;
            }
            // 0-RTT is refused (replay); packets of other versions are not for this connection.
            Kind::ZeroRtt | Kind::OtherVersion(_) => return true,
        };
        if !self.admits(arrival, level, packet) {
            if level != Level::Initial {
                self.keep_undecryptable(arrival, bytes);
            }
            return true;
        }
        let Some(sample) = packet.sample_offset() else {
            return false;
        };
        debug_assert!(sample + 16 <= bytes.len());
        let opened = match level {
            Level::Data => self.open_one_rtt(cx, packet, bytes),
            early => self.open_early(cx, early, packet, bytes),
        };
        let Some(opened) = opened else { return false };
        self.take_opened(cx, arrival, level, packet, &opened, bytes);
        true
    }

    fn take_opened<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        level: Level,
        packet: &Packet,
        opened: &Opened,
        bytes: &[u8],
    ) {
        let result = self.on_opened(cx, arrival, level, packet, opened, bytes);
        if let Err(Refusal::Close(error)) = result {
            self.close_with_error(cx, error);
        }
    }

    /// Whether packets of a level can be taken now.
    fn admits(&mut self, arrival: Arrival, level: Level, packet: &Packet) -> bool {
        let client = self.side().is_client();
        match level {
            // T6: a server opens no 1-RTT packet before Finished is verified.
            Level::Data => !self.keys.is_none() && (client || self.state == State::Open),
            // RFC 9000 14.1: every Initial of a client is in a full-sized datagram.
            Level::Initial if !client && arrival.len < INITIAL_DATAGRAM_MIN as u64 => false,
            // RFC 9000 17.2.2: a server's Initial has no token.
            Level::Initial if client && packet.token.0 != packet.token.1 => false,
            early => self
                .active
                .as_mut()
                .is_some_and(|a| a.early(early).is_some()),
        }
    }

    /// Keeps one packet that came before its keys (T8): reordering around the handshake is common.
    fn keep_undecryptable(&mut self, arrival: Arrival, bytes: &[u8]) {
        let Some(active) = self.active.as_mut().filter(|a| a.hs.is_some()) else {
            return;
        };
        if active.undecryptable.is_none() && bytes.len() <= 1_500 {
            active.undecryptable = Some(Box::new((arrival, bytes.to_vec())));
        }
    }

    /// Takes the packet that was kept, once there may be keys for it. Only between datagrams: inside of a
    /// packet that confirms the handshake it would overtake that one (T19; quic-go CVE-2025-59530).
    fn replay_undecryptable<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        if self.state == State::ExpectFinished
            && (self.side() == Side::Server || self.keys.is_none())
            && self
                .active
                .as_mut()
                .is_none_or(|a| a.early(Level::Handshake).is_none())
        {
            return;
        }
        let kept = self.active.as_mut().and_then(|a| a.undecryptable.take());
        let Some(kept) = kept.filter(|_| self.is_alive()) else {
            return;
        };
        let (arrival, mut bytes) = *kept;
        if let Ok(packet) = Packet::parse(&bytes, cx.codec.format.len()) {
            let end = packet.end;
            self.handle_packet(cx, arrival, &packet, &mut bytes[..end]);
        }
    }

    fn open_early<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        packet: &Packet,
        bytes: &mut [u8],
    ) -> Option<Opened> {
        let space = self.active.as_mut()?.early(level)?;
        let keys = KeyRef::of(space.keys.suite, &space.keys.remote);
        let (len, bits) = unmask(cx.aead, keys.suite, keys.hp, bytes, packet.pn_offset);
        let Some(pn) = pn_decode(space.pn.largest_received(), bits, len) else {
            cx.stats.numbers_refused += 1;
            return None;
        };
        let reserved = bytes[0] & 0x0c != 0;
        match open(cx.aead, keys, bytes, pn, packet.pn_offset + len) {
            Some(payload) => Some(Opened {
                pn,
                payload,
                reserved,
            }),
            None => {
                self.on_forged(cx);
                None
            }
        }
    }

    fn open_one_rtt<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        packet: &Packet,
        bytes: &mut [u8],
    ) -> Option<Opened> {
        let current = self.keys.remote(Generation::Current)?;
        let (len, bits) = unmask(cx.aead, current.suite, current.hp, bytes, packet.pn_offset);
        let Some(pn) = pn_decode(self.pn.largest_received(), bits, len) else {
            cx.stats.numbers_refused += 1;
            return None;
        };
        let reserved = bytes[0] & 0x18 != 0;
        let header = packet.pn_offset + len;
        let phase = bytes[0] & 0x04 != 0;
        let old = self.active.as_ref().and_then(|a| a.old_key.as_ref());
        let (key, next) = match (phase == self.flags.has(Flags::REMOTE_PHASE), old) {
            (true, _) => (current, false),
            // RFC 9001 6.5: the old phase for numbers below the first of the new one.
            (false, Some((old, _))) if pn < self.phases.remote_first => {
                (old.as_ref(current.suite), false)
            }
            (false, _) => (self.keys.remote(Generation::Next)?, true),
        };
        let Some(payload) = open(cx.aead, key, bytes, pn, header) else {
            self.on_forged(cx);
            return None;
        };
        if next && let Err(error) = self.on_peer_key_update(cx, pn) {
            self.close_with_error(cx, error);
            return None;
        }
        Some(Opened {
            pn,
            payload,
            reserved,
        })
    }

    /// Counts a packet that failed authentication (RFC 9001 6.6).
    fn on_forged<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        self.phases.failed += 1;
        let suite = self.keys.suite().integrity_limit();
        if self.phases.failed > suite.min(cx.transport.key_limits.integrity) {
            let error = TransportError::new(Code::AEAD_LIMIT_REACHED, "too many forged packets");
            self.close_with_error(cx, error);
        }
    }

    /// The peer switched to its next keys (RFC 9001 6.2).
    fn on_peer_key_update<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        pn: u64,
    ) -> Result<(), TransportError> {
        let answer = self.flags.has(Flags::LOCAL_PHASE) != self.flags.has(Flags::REMOTE_PHASE);
        // RFC 9001 6.1, 6.2: no second update before this side acknowledged a packet of the first,
        // and none before the handshake is confirmed.
        if !answer && self.phases.local_first > 0 && self.phases.local_first == self.pn.next {
            refuse!(
                KEY_UPDATE_ERROR,
                "key update before the last one was acknowledged"
            );
        }
        if !answer && self.side().is_client() && !self.flags.has(Flags::CONFIRMED) {
            refuse!(
                KEY_UPDATE_ERROR,
                "key update before the handshake was confirmed"
            );
        }
        let old = self.keys.rotate_remote(cx.aead);
        let old = old.ok_or(broken("a key update before there are keys"))?;
        let phase = self.flags.has(Flags::REMOTE_PHASE);
        self.flags.set(Flags::REMOTE_PHASE, !phase);
        self.phases.remote_first = pn;
        let until = cx.now + self.three_ptos(cx);
        self.thaw(cx).old_key = Some((old, until));
        if !answer {
            self.rotate_local(cx);
        }
        Ok(())
    }

    /// This side's keys move to the next generation.
    pub(crate) fn rotate_local<A: Aead>(&mut self, cx: &Cx<'_, A>) {
        self.keys.rotate_local(cx.aead);
        let phase = self.flags.has(Flags::LOCAL_PHASE);
        self.flags.set(Flags::LOCAL_PHASE, !phase);
        self.flags.set(Flags::PHASE_ACKED, false);
        self.phases.local_first = self.pn.next;
    }

    fn on_opened<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        level: Level,
        packet: &Packet,
        opened: &Opened,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        let Some(pns) = self.pns(level) else {
            return Ok(());
        };
        if pns.is_duplicate(opened.pn) {
            return Ok(());
        }
        // RFC 9000 12.3: numbers end before 2^62, and a connection before its numbers. No peer comes to it
        // but by leaving numbers out.
        if opened.pn == PACKET_NUMBER_END - 1 {
            refuse!(PROTOCOL_VIOLATION, "the packet numbers are used up");
        }
        let largest = pns.largest_received();
        let newest = largest.is_none_or(|l| opened.pn > l);
        let in_order = opened.pn == largest.map_or(0, |l| l + 1);
        if level != Level::Data && !self.accept_long_header(cx, level, packet) {
            return Ok(());
        }
        *cx.activity = low32(cx.now.as_millis());
        self.flags.set(Flags::SENT_SINCE, false);
        // RFC 9000 17.2, 17.3.1: reserved bits that are not zero after removing both protections.
        if opened.reserved {
            refuse!(PROTOCOL_VIOLATION, "reserved bits");
        }
        let payload = &bytes[opened.payload.0..opened.payload.1];
        let summary = self.on_frames(cx, arrival, level, payload)?;
        if !self.is_alive() {
            return Ok(());
        }
        // The space may have ended with this packet.
        if let Some(pns) = self.pns(level) {
            pns.on_received(opened.pn);
            if level == Level::Data {
                // Beyond a gap as wide as the window there is nothing left to acknowledge in time.
                let advanced = largest.map_or(1, |largest| opened.pn.saturating_sub(largest));
                let advanced = u8::try_from(advanced).unwrap_or(1).max(1);
                self.unacknowledged = self.unacknowledged.saturating_add(advanced);
            }
            if level == Level::Data
                && newest
                && let Some(active) = self.active.as_mut()
            {
                active.delayed_ack.arrived = Some(cx.now);
            }
            match level {
                _ if !summary.eliciting => {}
                Level::Data => {
                    self.owe_ack(cx, in_order);
                    self.on_heard();
                }
                early => self.owe_early_ack(early),
            }
        }
        if level == Level::Data && newest && summary.non_probing {
            self.on_peer_path(cx, arrival)?;
        }
        self.pump_tls(cx)?;
        Ok(())
    }

    pub(crate) fn pns(&mut self, level: Level) -> Option<&mut crate::space::PnSpace> {
        match level {
            Level::Data => Some(&mut self.pn),
            early => self.active.as_mut()?.early(early).map(|s| &mut s.pn),
        }
    }

    /// RFC 9000 13.2.1: Initial and Handshake packets are acknowledged at once.
    fn owe_early_ack(&mut self, level: Level) {
        if let Some(space) = self.active.as_mut().and_then(|a| a.early(level)) {
            space.ack_pending = true;
        }
    }

    fn on_frames<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        level: Level,
        payload: &[u8],
    ) -> Result<Summary, Refusal> {
        let mut summary = Summary::default();
        let mut frames = Frames::new(payload)?;
        while let Some((ty, frame)) = frames.next_frame()? {
            // RFC 9000 12.4: a frame in a packet type that does not permit it.
            if !frame::allowed(ty, level) {
                let error = TransportError::new(Code::PROTOCOL_VIOLATION, "frame in wrong packet");
                return Err(error.in_frame(ty).into());
            }
            summary.eliciting |= frame::ack_eliciting(ty);
            summary.non_probing |= !frame::probing(ty);
            self.on_frame(cx, arrival, level, ty, frame)
                .map_err(|refusal| match refusal {
                    Refusal::Close(error) if error.frame == 0 => Refusal::Close(error.in_frame(ty)),
                    other => other,
                })?;
            if !self.is_alive() {
                break;
            }
        }
        Ok(summary)
    }

    fn on_frame<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        arrival: Arrival,
        level: Level,
        ty: u64,
        frame: Frame<'_>,
    ) -> Result<(), Refusal> {
        match frame {
            Frame::Padding | Frame::Ping => {}
            // Streams are permitted again as they end: there is nothing to hurry.
            Frame::StreamsBlocked { .. } => {}
            Frame::DataBlocked(_) => self.on_data_blocked(cx),
            Frame::Ack(ack) => self.on_ack(cx, level, &ack)?,
            Frame::Crypto { offset, data } => self.on_crypto(cx, level, offset, data)?,
            Frame::ConnectionClose {
                code,
                frame,
                reason,
            } => {
                self.on_peer_close(cx, Some((Code(code), frame)), code, reason);
            }
            Frame::ApplicationClose { code, reason } => self.on_peer_close(cx, None, code, reason),
            Frame::Stream {
                id,
                offset,
                fin,
                data,
            } => self.on_stream(cx, id, offset, fin, data)?,
            Frame::ResetStream {
                id,
                code,
                final_size,
            } => self.on_reset(cx, id, code, final_size)?,
            Frame::StopSending { id, code } => self.on_stop_sending(cx, id, code)?,
            Frame::MaxData(max) => self.on_max_data(max),
            Frame::MaxStreamData { id, max } => self.on_max_stream_data(cx, id, max)?,
            Frame::MaxStreams { dir, max } => self.on_max_streams(cx, dir, max),
            Frame::StreamDataBlocked { id, .. } => self.on_stream_data_blocked(cx, id)?,
            Frame::NewConnectionId {
                sequence,
                retire_prior_to,
                id,
                token,
            } => {
                self.on_new_cid(cx, sequence, retire_prior_to, id, token)?;
            }
            Frame::RetireConnectionId(sequence) => self.on_retire_cid(cx, arrival, sequence)?,
            Frame::PathChallenge(data) => {
                self.thaw(cx).pending.path_response = Some((data, arrival.path, arrival.len));
            }
            Frame::PathResponse(data) => self.on_path_response(cx, data),
            Frame::NewToken(token) => self.on_new_token(cx, token)?,
            Frame::HandshakeDone => self.on_handshake_done(cx)?,
            Frame::Datagram(data) => self.on_datagram(cx, ty, data)?,
        }
        Ok(())
    }

    /// RFC 9000 19.7: only servers send NEW_TOKEN.
    fn on_new_token<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        token: &[u8],
    ) -> Result<(), TransportError> {
        if !self.side().is_client() {
            refuse!(PROTOCOL_VIOLATION, "NEW_TOKEN from a client");
        }
        cx.event(Event::NewToken(bytes::Bytes::copy_from_slice(token)));
        Ok(())
    }

    /// RFC 9221 3: a DATAGRAM above what was advertised, with its type and length.
    fn on_datagram<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        ty: u64,
        data: &[u8],
    ) -> Result<(), TransportError> {
        let length = if ty == ty::DATAGRAM {
            0
        } else {
            varint_len(data.len() as u64)
        };
        if 1 + length + data.len() > usize::from(cx.transport.datagram_frame_max) {
            refuse!(PROTOCOL_VIOLATION, "DATAGRAM above the limit");
        }
        cx.event(Event::Datagram(bytes::Bytes::copy_from_slice(data)));
        Ok(())
    }

    fn on_crypto<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Refusal> {
        if level == Level::Data {
            return self.on_crypto_after_handshake(cx, offset, data);
        }
        let validated = self.flags.has(Flags::VALIDATED) || self.side().is_client();
        let cap = if validated {
            crate::limits::CRYPTO_VALIDATED_MAX
        } else {
            crate::limits::CRYPTO_UNVALIDATED_MAX
        };
        let Some(space) = self.active.as_mut().and_then(|a| a.early(level)) else {
            return Ok(());
        };
        let rx = &mut space.sent.crypto_rx;
        // RFC 9000 7.5: more than can be buffered closes.
        let end = offset.saturating_add(data.len() as u64);
        if end.saturating_sub(rx.offset()) > cap {
            refuse!(CRYPTO_BUFFER_EXCEEDED, "too much CRYPTO data");
        }
        rx.insert(offset, data).map_err(|_| Refusal::Drop)
    }

    /// CRYPTO in 1-RTT packets: tickets for clients, nothing for servers (T6).
    fn on_crypto_after_handshake<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        offset: u64,
        data: &[u8],
    ) -> Result<(), Refusal> {
        if !self.side().is_client() {
            return Err(unexpected_message().into());
        }
        let cap = crate::limits::CRYPTO_POST_HANDSHAKE_MAX;
        let at = self.peer_ids.as_ref().map_or(0, |p| p.post.offset);
        let end = offset.saturating_add(data.len() as u64);
        if end <= at {
            return Ok(());
        }
        if end - at > cap {
            refuse!(
                CRYPTO_BUFFER_EXCEEDED,
                "too much CRYPTO data after the handshake"
            );
        }
        let active = self.thaw(cx);
        let rx = &mut active.data.crypto_rx;
        if rx.offset() < at {
            rx.discard(at);
        }
        rx.insert(offset, data).map_err(|_| Refusal::Drop)
    }
}

pub(crate) const fn unexpected_message() -> TransportError {
    TransportError::new(
        Code::crypto(ALERT_UNEXPECTED_MESSAGE),
        "unexpected TLS message",
    )
    .in_frame(ty::CRYPTO)
}
