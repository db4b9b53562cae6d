//! The handshake (RFC 9000 7, RFC 9001 4): driving TLS, levels, parameters, Retry, version
//! negotiation.

use super::receive::unexpected_message;
use super::{Connection, Cx, EarlySpace, Flags, State, initial_level};
use crate::crypto::{Aead, KeyChange, Tls, retry_tag, same};
use crate::error::{CloseReason, Code, TransportError, broken, refuse};
use crate::event::{Connected, Event};
use crate::keys::OneRttKeys;
use crate::packet::{Level, Packet, TAG_LEN, VERSION};
use crate::params::{Params, Side};
use crate::recovery::Window;
use crate::time::sat32;

impl<T: Tls> Connection<T> {
    /// Checks and notes what a long header says about the connection. False when the packet is not
    /// to be processed.
    pub(super) fn accept_long_header<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        level: Level,
        packet: &Packet,
    ) -> bool {
        let client = self.side().is_client();
        let Some(hs) = self.active.as_mut().and_then(|a| a.hs.as_mut()) else {
            return false;
        };
        match hs.peer_scid {
            None => {
                // RFC 9000 7.2: the peer's first source id replaces the destination.
                hs.peer_scid = Some(packet.scid);
                self.peer_cid = packet.scid;
            }
            // RFC 9000 7.2: later packets with another source id are discarded.
            Some(scid) if scid != packet.scid => return false,
            Some(_) => {}
        }
        if level == Level::Handshake && !client && !self.flags.has(Flags::VALIDATED) {
            // RFC 9000 8.1: a Handshake packet proves the address.
            self.flags.set(Flags::VALIDATED, true);
        }
        if level == Level::Handshake && !client {
            // RFC 9001 4.9.1.
            self.discard_level(Level::Initial);
        }
        let _ = cx;
        true
    }

    /// Moves handshake bytes between the levels and TLS until nothing changes.
    pub(crate) fn pump_tls<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> Result<(), TransportError> {
        if self.active.as_ref().is_none_or(|a| a.hs.is_none()) {
            return self.read_after_handshake(cx);
        }
        loop {
            let read = self.read_early()?;
            let wrote = self.write_tls(cx)?;
            self.apply_params(cx)?;
            if !read && !wrote {
                break;
            }
        }
        let Some(hs) = self.active.as_ref().and_then(|a| a.hs.as_ref()) else {
            return Ok(());
        };
        let has_keys = !self.keys.is_none();
        if self.state == State::ExpectFinished && !hs.tls.is_handshaking() && has_keys {
            self.on_complete(cx)?;
        }
        if !self.side().is_client() && self.state == State::Open {
            return Ok(());
        }
        self.read_after_handshake(cx)
    }

    /// Feeds CRYPTO data in order; true when there was some.
    fn read_early(&mut self) -> Result<bool, TransportError> {
        let Some(active) = self.active.as_mut() else {
            return Ok(false);
        };
        let Some(hs) = active.hs.as_mut() else {
            return Ok(false);
        };
        let mut any = false;
        for level in [Level::Initial, Level::Handshake] {
            let Some(space) = hs.spaces[level as usize].as_mut() else {
                continue;
            };
            loop {
                let piece = space.sent.crypto_rx.peek();
                if piece.is_empty() {
                    break;
                }
                // RFC 9001 4.1.3: data of a level that TLS has left.
                if level != hs.read_level {
                    refuse!(PROTOCOL_VIOLATION, "CRYPTO data after its level");
                }
                let len = piece.len();
                hs.tls.read(piece).map_err(|e| crypto_error(e.alert))?;
                space.sent.crypto_rx.consume(len);
                any = true;
            }
        }
        Ok(any)
    }

    /// Collects what TLS has to say, and keys; true when there was something.
    fn write_tls<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> Result<bool, TransportError> {
        let mut any = false;
        let mut out = Vec::new();
        loop {
            let active = self.active.as_mut().ok_or(NO_HANDSHAKE)?;
            let hs = active.hs.as_mut().ok_or(NO_HANDSHAKE)?;
            out.clear();
            let change = hs.tls.write(&mut out).map_err(|e| crypto_error(e.alert))?;
            if out.is_empty() && change.is_none() {
                return Ok(any);
            }
            any = true;
            if !out.is_empty() {
                let level = hs.write_level;
                let space = match level {
                    Level::Data => Some(&mut active.data),
                    early => hs.spaces[early as usize].as_mut().map(|s| &mut s.sent),
                };
                let space = space.ok_or(broken("TLS writes at a level with keys"))?;
                space.crypto_tx.write(&out);
            }
            match change {
                Some(KeyChange::Handshake(keys)) => {
                    hs.spaces[1] = Some(EarlySpace::new(keys));
                    hs.deadline = hs.until;
                    (hs.write_level, hs.read_level) = (Level::Handshake, Level::Handshake);
                }
                Some(KeyChange::OneRtt {
                    keys,
                    local_secret,
                    remote_secret,
                }) => {
                    hs.write_level = Level::Data;
                    self.keys = OneRttKeys::new(cx.aead, &keys, &local_secret, &remote_secret);
                }
                None => {}
            }
        }
    }

    /// Applies the peer's transport parameters once, as soon as TLS has them.
    fn apply_params<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> Result<(), TransportError> {
        let side = self.side();
        let active = self.active.as_mut().ok_or(NO_HANDSHAKE)?;
        let hs = active.hs.as_mut().ok_or(NO_HANDSHAKE)?;
        // A client's TLS may still show the parameters of an earlier connection, from the ticket
        // (RFC 9000 7.4.1); those of this one are authentic once the handshake is done.
        if hs.params_done || (side.is_client() && hs.tls.is_handshaking()) {
            return Ok(());
        }
        let Some(bytes) = hs.tls.peer_params() else {
            return Ok(());
        };
        let params = Params::decode(bytes, side.peer())?;
        hs.params_done = true;
        // RFC 9000 7.3: the ids of the handshake are authenticated by the parameters.
        if params.initial_source_connection_id != hs.peer_scid {
            refuse!(TRANSPORT_PARAMETER_ERROR, "initial_source_connection_id");
        }
        if side == Side::Client {
            if params.original_destination_connection_id != Some(hs.odcid) {
                refuse!(
                    TRANSPORT_PARAMETER_ERROR,
                    "original_destination_connection_id"
                );
            }
            if params.retry_source_connection_id != hs.retry_scid {
                refuse!(TRANSPORT_PARAMETER_ERROR, "retry_source_connection_id");
            }
        }
        self.adopt_params(cx, &params);
        Ok(())
    }

    fn adopt_params<A: Aead>(&mut self, cx: &mut Cx<'_, A>, params: &Params) {
        let sat16 = |v: u64| u16::try_from(v).unwrap_or(u16::MAX);
        let own_idle = u64::from(cx.transport.idle_timeout_ms);
        // RFC 9000 10.1: the smaller of both, where zero is none.
        let idle = match (own_idle, params.max_idle_timeout_ms) {
            (0, other) | (other, 0) => other,
            (a, b) => a.min(b),
        };
        // Beyond 12 days the timer wheel looks early; beyond 2^32 ms there is no difference.
        self.peer.idle_ms = sat32(idle);
        self.peer.payload_max = sat16(params.max_udp_payload_size);
        self.peer.datagram_max = sat16(params.max_datagram_frame_size);
        self.peer.max_ack_delay_ms = sat16(params.max_ack_delay_ms);
        self.peer.ack_delay_exponent = params.ack_delay_exponent.to_le_bytes()[0];
        self.flags
            .set(Flags::MIGRATION_DISABLED, params.disable_active_migration);
        self.flow.tx_max = params.initial_max_data;
        self.counts.tx_limit = [
            sat32(params.initial_max_streams_bidi),
            sat32(params.initial_max_streams_uni),
        ];
        self.counts.window_theirs = sat32(params.initial_max_stream_data_bidi_local);
        self.counts.window_ours = sat32(params.initial_max_stream_data_bidi_remote);
        self.counts.window_uni = sat32(params.initial_max_stream_data_uni);
        if let Some(token) = params.stateless_reset_token {
            self.set_reset_token(cx, token);
        }
    }

    /// Both Finished messages are done (RFC 9001 4.1.1).
    fn on_complete<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> Result<(), TransportError> {
        let active = self.active.as_mut().ok_or(NO_HANDSHAKE)?;
        let hs = active.hs.as_mut().ok_or(NO_HANDSHAKE)?;
        // RFC 9001 8.2: parameters are mandatory.
        if !hs.params_done {
            return Err(TransportError::new(
                Code::crypto(109),
                "no transport parameters",
            ));
        }
        hs.read_level = Level::Data;
        let connected = Connected {
            alpn: hs.tls.alpn().unwrap_or_default().into(),
            server_name: hs.tls.server_name().map(Into::into),
            peer_certificates: hs.tls.peer_certificates(),
            resumed: hs.tls.resumed(),
        };
        self.state = State::Open;
        cx.event(Event::Connected(Box::new(connected)));
        if self.side() == Side::Server {
            self.flags.set(Flags::VALIDATED, true);
            let active = self.active.as_mut().ok_or(NO_HANDSHAKE)?;
            active.pending.handshake_done = true;
            active.pending.new_token = cx.transport.new_tokens;
            self.issue_own_id(cx);
            self.on_confirmed(cx);
        }
        Ok(())
    }

    /// HANDSHAKE_DONE (RFC 9000 19.20): only servers send it.
    pub(super) fn on_handshake_done<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
    ) -> Result<(), TransportError> {
        if !self.side().is_client() {
            refuse!(PROTOCOL_VIOLATION, "HANDSHAKE_DONE from a client");
        }
        if self.state == State::Open && !self.flags.has(Flags::CONFIRMED) {
            self.on_confirmed(cx);
        }
        Ok(())
    }

    /// RFC 9001 4.1.2, 4.9.2: the handshake's keys and TLS go (T6).
    fn on_confirmed<A: Aead>(&mut self, cx: &mut Cx<'_, A>) {
        self.discard_level(Level::Initial);
        self.discard_level(Level::Handshake);
        self.flags.set(Flags::CONFIRMED, true);
        let until = cx.now + self.three_ptos(cx);
        let keep = self.side() == Side::Client && cx.transport.resumption;
        let Some(active) = self.active.as_mut() else {
            return;
        };
        let tls = active.hs.take().map(|hs| hs.tls);
        active.tail = tls.filter(|_| keep).map(|tls| (Box::new(tls), until));
        cx.event(Event::Confirmed);
    }

    /// 1-RTT CRYPTO on a client: to TLS while it is kept, else only message headers are read (T6).
    fn read_after_handshake<A: Aead>(&mut self, cx: &mut Cx<'_, A>) -> Result<(), TransportError> {
        loop {
            let Some(active) = self.active.as_mut() else {
                return Ok(());
            };
            let piece = active.data.crypto_rx.peek();
            if piece.is_empty() {
                return Ok(());
            }
            let len = piece.len();
            let ids = self.peer_ids.get_or_insert_default();
            let tls = match (&mut active.hs, &mut active.tail) {
                (Some(hs), _) => Some(&mut hs.tls),
                (None, Some((tls, _))) => Some(&mut **tls),
                (None, None) => None,
            };
            skip_messages(&mut ids.post, piece)?;
            if let Some(tls) = tls {
                let before = tls.tickets();
                tls.read(piece).map_err(|e| crypto_error(e.alert))?;
                let ticket = tls.tickets() > before;
                if ticket {
                    cx.event(Event::Ticket);
                    active.tail = None;
                }
            }
            active.data.crypto_rx.consume(len);
            ids.post.offset += len as u64;
        }
    }

    /// Retry (RFC 9000 17.2.5, RFC 9001 5.8), on clients.
    pub(super) fn on_retry<A: Aead>(&mut self, cx: &mut Cx<'_, A>, packet: &Packet, bytes: &[u8]) {
        let client = self.side().is_client();
        let Some(hs) = self.active.as_mut().and_then(|a| a.hs.as_mut()) else {
            return;
        };
        // RFC 9000 17.2.5.2: one Retry, before any other packet of the server, with a token and an
        // id that is not the client's choice.
        let token_end = bytes.len().saturating_sub(TAG_LEN);
        let usable = client
            && hs.retry_scid.is_none()
            && hs.peer_scid.is_none()
            && token_end > packet.pn_offset
            && packet.scid != hs.odcid;
        if !usable
            || !same(
                &retry_tag(cx.aead, &hs.odcid, &bytes[..token_end]),
                &bytes[token_end..],
            )
        {
            return;
        }
        hs.retry_scid = Some(packet.scid);
        hs.token = bytes[packet.pn_offset..token_end].to_vec();
        self.peer_cid = packet.scid;
        let Some(space) = hs.spaces[0].as_mut() else {
            return;
        };
        // Keys follow the new destination; packet numbers go on (RFC 9000 17.2.5.3), and the hello
        // is sent again.
        space.keys = initial_level(cx.aead, Side::Client, &packet.scid);
        let end = space.sent.crypto_tx.sent();
        space.sent.crypto_tx.lose(0, end);
        let crypto_tx = std::mem::take(&mut space.sent.crypto_tx);
        space.sent = crate::space::SentSpace::default();
        space.sent.crypto_tx = crypto_tx;
        if let Some(active) = self.active.as_mut() {
            active.rec.bytes_in_flight = 0;
        }
        self.window = Window::new(cx.transport.payload_max);
        self.pto_count = 0;
    }

    /// Version negotiation (RFC 9000 6.2), on clients: without a common version the attempt ends.
    pub(super) fn on_version_negotiation<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        packet: &Packet,
        bytes: &[u8],
    ) {
        let Some(hs) = self.active.as_ref().and_then(|a| a.hs.as_ref()) else {
            return;
        };
        let first = hs.peer_scid.is_none() && hs.retry_scid.is_none();
        // The ids must be those of the first Initial (RFC 9000 17.2.1).
        let ours = packet.scid == hs.odcid && packet.dcid == cx.own_cid(0);
        if !self.side().is_client() || !first || !ours {
            return;
        }
        let versions = bytes[packet.pn_offset..].chunks_exact(4);
        // RFC 9000 6.2: a list with the version in use is ignored; so is an empty one.
        let mut none = versions.len() > 0;
        for version in versions {
            none &= version != VERSION.to_be_bytes();
        }
        if none {
            self.vanish(cx, CloseReason::VersionMismatch);
        }
    }
}

/// TLS drives the handshake, and goes with it.
const NO_HANDSHAKE: TransportError = broken("a handshake is under way");

const fn crypto_error(alert: u8) -> TransportError {
    TransportError::new(Code::crypto(alert), "TLS refused").in_frame(crate::frame::ty::CRYPTO)
}

/// NewSessionTicket (RFC 8446 4.6.1), the only message that may come now (RFC 9001 6: KeyUpdate is
/// refused with 0x010a).
const NEW_SESSION_TICKET: u8 = 4;

/// Steps over messages, checking their types.
fn skip_messages(post: &mut super::PostHandshake, mut piece: &[u8]) -> Result<(), TransportError> {
    while let Some(byte) = piece.first() {
        if post.body_left > 0 {
            let n = piece.len().min(post.body_left as usize);
            post.body_left -= sat32(n as u64);
            piece = &piece[n..];
            continue;
        }
        post.header[usize::from(post.header_len)] = *byte;
        post.header_len += 1;
        piece = &piece[1..];
        if post.header[0] != NEW_SESSION_TICKET {
            return Err(unexpected_message());
        }
        if post.header_len == 4 {
            let [_, a, b, c] = post.header;
            post.body_left = u32::from_be_bytes([0, a, b, c]);
            post.header_len = 0;
        }
    }
    Ok(())
}
