//! The TLS side of a quinn-proto connection, which lets go of rustls once the handshake is over.
//!
//! rustls keeps 4 KB per connection that an established session never uses again. What it still needs
//! are the secrets of the next key update, so only these stay (T6). A server is done when its ticket is
//! written; a client when its handshake is complete or, with resumption, when the first ticket came.
//! What arrives in CRYPTO frames afterwards is judged by message headers alone: a client skips tickets,
//! everything else closes the connection with an unexpected message alert.

use std::{any::Any, io, sync::Arc};

use quinn_proto::{
    ConnectError, ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{
        self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion,
    },
    transport_parameters::TransportParameters,
};
use rustls::{
    CipherSuite, HandshakeKind,
    pki_types::ServerName,
    quic::{self, Connection, KeyChange, Secrets, Suite, Version},
};

use super::wire::{RETRY_TAG_BYTES, retry_tag, without_parameter};
use crate::error::Error;

/// The only version served: QUIC v1.
pub(crate) const QUIC_V1: u32 = 1;

/// TLS alert of RFC 8446 section 6.2.
const UNEXPECTED_MESSAGE: u8 = 10;

/// TLS message of RFC 8446 section 4.
const NEW_SESSION_TICKET: u8 = 4;

/// CRYPTO bytes that a client skips after its handshake: some tickets, and no more (T6).
const SKIPPED_BYTES_MAX: usize = 4 * 1024;

/// RFC 9000 section 18.2. Without the parameter the limit is 2, the least: one id in use and a spare.
const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;

/// What `handshake_data` answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HandshakeInfo {
    pub(crate) resumed: bool,
}

enum State {
    /// rustls works.
    Handshake(Box<Connection>),
    /// rustls is gone.
    Done { peer_parameters: Option<Box<[u8]>> },
}

struct Session {
    side: Side,
    suite: Suite,
    secrets: Option<Secrets>,
    info: Option<HandshakeInfo>,
    keep_for_ticket: bool,
    skip: Skip,
    state: State,
}

impl Session {
    fn new(side: Side, suite: Suite, connection: Connection, keep_for_ticket: bool) -> Self {
        let state = State::Handshake(Box::new(connection));
        Self {
            side,
            suite,
            secrets: None,
            info: None,
            keep_for_ticket,
            skip: Skip::default(),
            state,
        }
    }

    /// Lets rustls go. A client's peer parameters are asked for later than this.
    fn finish(&mut self) {
        let State::Handshake(tls) = &self.state else {
            return;
        };
        let parameters = tls.quic_transport_parameters().map(Box::from);
        let peer_parameters = parameters.filter(|_| self.side.is_client());
        self.state = State::Done { peer_parameters };
    }

    fn skip_ticket(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        match self.side {
            Side::Client => self.skip.take(bytes).map(|()| false),
            Side::Server => Err(unexpected_message()),
        }
    }

    fn peer_parameters(&self) -> Option<&[u8]> {
        match &self.state {
            State::Handshake(tls) => tls.quic_transport_parameters(),
            State::Done { peer_parameters } => peer_parameters.as_deref(),
        }
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        initial_keys(&self.suite, dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.info.map(|info| Box::new(info) as Box<dyn Any>)
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.side.is_client().then_some(false)
    }

    fn is_handshaking(&self) -> bool {
        match &self.state {
            State::Handshake(tls) => tls.is_handshaking(),
            State::Done { .. } => false,
        }
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        let State::Handshake(tls) = &mut self.state else {
            return self.skip_ticket(bytes);
        };
        let was_handshaking = tls.is_handshaking();
        if let Err(error) = tls.read_hs(bytes) {
            return Err(tls_error(&error, tls.alert().map(u8::from)));
        }
        if !was_handshaking {
            // rustls takes nothing but tickets now. One is enough, once it is complete.
            self.skip.take(bytes)?;
            if self.skip.between_messages() {
                self.finish();
            }
            return Ok(false);
        }
        if tls.is_handshaking() {
            return Ok(false);
        }
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        self.info = Some(HandshakeInfo { resumed });
        Ok(true)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(bytes) = self.peer_parameters() else {
            return Ok(None);
        };
        let bytes = without_parameter(bytes, ACTIVE_CONNECTION_ID_LIMIT);
        let parameters = TransportParameters::read(self.side, &mut io::Cursor::new(bytes))?;
        Ok(Some(parameters))
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        let State::Handshake(tls) = &mut self.state else {
            return None;
        };
        let keys = match tls.write_hs(out) {
            Some(KeyChange::Handshake { keys }) => Some(keys),
            Some(KeyChange::OneRtt { keys, next }) => {
                self.secrets = Some(next);
                Some(keys)
            }
            None => None,
        };
        let drained = keys.is_none() && out.is_empty() && !tls.is_handshaking();
        if drained && self.secrets.is_some() && !self.keep_for_ticket {
            self.finish();
        }
        keys.map(boxed)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.secrets.as_mut()?.next_packet_keys();
        Some(KeyPair {
            local: Box::new(keys.local),
            remote: Box::new(keys.remote),
        })
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        let Some((token, tag)) = payload.split_last_chunk::<RETRY_TAG_BYTES>() else {
            return false;
        };
        let packet = [header, token].concat();
        retry_tag(orig_dst_cid, &packet) == *tag
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        let State::Handshake(tls) = &self.state else {
            return Err(ExportKeyingMaterialError);
        };
        tls.export_keying_material(output, label, Some(context))
            .map(drop)
            .map_err(|_| ExportKeyingMaterialError)
    }
}

/// The server's factory of sessions.
pub(crate) struct ServerCrypto {
    tls: Arc<rustls::ServerConfig>,
    suite: Suite,
}

impl ServerCrypto {
    pub(crate) fn new(tls: Arc<rustls::ServerConfig>) -> Result<Self, Error> {
        let suite = initial_suite(tls.crypto_provider())?;
        Ok(Self { tls, suite })
    }
}

impl crypto::ServerConfig for ServerCrypto {
    fn initial_keys(
        &self,
        version: u32,
        dst_cid: &ConnectionId,
    ) -> Result<Keys, UnsupportedVersion> {
        match version {
            QUIC_V1 => Ok(initial_keys(&self.suite, dst_cid, Side::Server)),
            _ => Err(UnsupportedVersion),
        }
    }

    fn retry_tag(&self, _version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        retry_tag(orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        _version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        let tls = quic::ServerConnection::new(self.tls.clone(), Version::V1, encoded(params))
            .expect("the configuration has TLS 1.3 and no early data of its own");
        Box::new(Session::new(
            Side::Server,
            self.suite,
            Connection::Server(tls),
            false,
        ))
    }
}

/// The client's factory of sessions.
pub(crate) struct ClientCrypto {
    tls: Arc<rustls::ClientConfig>,
    suite: Suite,
    resumption: bool,
}

impl ClientCrypto {
    pub(crate) fn new(tls: Arc<rustls::ClientConfig>, resumption: bool) -> Result<Self, Error> {
        let suite = initial_suite(tls.crypto_provider())?;
        Ok(Self {
            tls,
            suite,
            resumption,
        })
    }
}

impl crypto::ClientConfig for ClientCrypto {
    fn start_session(
        self: Arc<Self>,
        _version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let name = ServerName::try_from(server_name)
            .map_err(|_| ConnectError::InvalidServerName(server_name.into()))?
            .to_owned();
        let tls = quic::ClientConnection::new(self.tls.clone(), Version::V1, name, encoded(params))
            .expect("the configuration has TLS 1.3");
        let connection = Connection::Client(tls);
        Ok(Box::new(Session::new(
            Side::Client,
            self.suite,
            connection,
            self.resumption,
        )))
    }
}

/// Skips what a server sends after the handshake, by message headers.
#[derive(Debug, Default)]
struct Skip {
    header: [u8; 4],
    header_bytes: usize,
    body_left: usize,
    total: usize,
}

impl Skip {
    fn between_messages(&self) -> bool {
        self.header_bytes == 0 && self.body_left == 0
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), TransportError> {
        self.total += bytes.len();
        if self.total > SKIPPED_BYTES_MAX {
            return Err(unexpected_message());
        }
        while !bytes.is_empty() {
            let body = self.body_left.min(bytes.len());
            self.body_left -= body;
            bytes = &bytes[body..];
            if let Some((first, rest)) = bytes.split_first() {
                self.header[self.header_bytes] = *first;
                self.header_bytes += 1;
                bytes = rest;
            }
            if self.header_bytes == self.header.len() {
                let [kind, length @ ..] = self.header;
                if kind != NEW_SESSION_TICKET {
                    return Err(unexpected_message());
                }
                self.header_bytes = 0;
                self.body_left = length.iter().fold(0, |n, byte| n << 8 | usize::from(*byte));
            }
        }
        Ok(())
    }
}

fn unexpected_message() -> TransportError {
    TransportError {
        code: TransportErrorCode::crypto(UNEXPECTED_MESSAGE),
        frame: None,
        reason: "unexpected TLS message".into(),
    }
}

fn tls_error(error: &rustls::Error, alert: Option<u8>) -> TransportError {
    let code = alert.map_or(
        TransportErrorCode::PROTOCOL_VIOLATION,
        TransportErrorCode::crypto,
    );
    TransportError {
        code,
        frame: None,
        reason: error.to_string(),
    }
}

fn initial_suite(provider: &rustls::crypto::CryptoProvider) -> Result<Suite, Error> {
    provider
        .cipher_suites
        .iter()
        .filter(|suite| suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256)
        .find_map(|suite| suite.tls13()?.quic_suite())
        .ok_or_else(|| Error::Tls("the provider lacks AES-128-GCM for Initial packets".into()))
}

fn initial_keys(suite: &Suite, id: &ConnectionId, side: Side) -> Keys {
    let side = match side {
        Side::Client => rustls::Side::Client,
        Side::Server => rustls::Side::Server,
    };
    boxed(suite.keys(id, side, Version::V1))
}

fn boxed(keys: quic::Keys) -> Keys {
    Keys {
        header: KeyPair {
            local: Box::new(keys.local.header),
            remote: Box::new(keys.remote.header),
        },
        packet: KeyPair {
            local: Box::new(keys.local.packet),
            remote: Box::new(keys.remote.packet),
        },
    }
}

fn encoded(params: &TransportParameters) -> Vec<u8> {
    let mut bytes = Vec::new();
    params.write(&mut bytes);
    without_parameter(&bytes, ACTIVE_CONNECTION_ID_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_skipped_in_any_pieces_and_nothing_else_is() {
        let ticket = [&[NEW_SESSION_TICKET, 0, 1, 4][..], &[7; 260]].concat();
        let two = [&ticket[..], &ticket].concat();
        for piece in [1, 3, 5, 264, 528] {
            let mut skip = Skip::default();
            for bytes in two.chunks(piece) {
                skip.take(bytes).unwrap();
            }
            assert!(skip.between_messages());
            assert!(
                skip.take(&[24, 0, 0, 1, 0]).is_err(),
                "a key update is not a ticket"
            );
        }
        assert!(
            Skip::default()
                .take(&[NEW_SESSION_TICKET; SKIPPED_BYTES_MAX + 1])
                .is_err()
        );
    }
}
