//! Transport parameters (RFC 9000 18, RFC 9221 3): encoding, and decoding with every bound.

use crate::coding::{Reader, VARINT_MAX, Writer, put_varint, varint_len};
use crate::error::{Code, TransportError};
use crate::frame::MAX_STREAMS_LIMIT;
use crate::packet::ConnectionId;

/// Which end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The end that opened the connection.
    Client = 0,
    /// The end that accepted it.
    Server = 1,
}

impl Side {
    /// True for the client.
    #[must_use]
    pub const fn is_client(self) -> bool {
        matches!(self, Self::Client)
    }

    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// The parameters of one side. Absent integers have their defaults (RFC 9000 18.2).
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "the names are those of RFC 9000 18.2")]
pub struct Params {
    pub original_destination_connection_id: Option<ConnectionId>,
    pub max_idle_timeout_ms: u64,
    pub stateless_reset_token: Option<[u8; 16]>,
    pub max_udp_payload_size: u64,
    pub initial_max_data: u64,
    pub initial_max_stream_data_bidi_local: u64,
    pub initial_max_stream_data_bidi_remote: u64,
    pub initial_max_stream_data_uni: u64,
    pub initial_max_streams_bidi: u64,
    pub initial_max_streams_uni: u64,
    pub ack_delay_exponent: u64,
    pub max_ack_delay_ms: u64,
    pub disable_active_migration: bool,
    pub active_connection_id_limit: u64,
    pub initial_source_connection_id: Option<ConnectionId>,
    pub retry_source_connection_id: Option<ConnectionId>,
    pub max_datagram_frame_size: u64,
    /// A server's preferred address was present and well formed. It is not used: a client MAY
    /// stay on the address of the handshake (RFC 9000 9.6).
    pub has_preferred_address: bool,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            original_destination_connection_id: None,
            max_idle_timeout_ms: 0,
            stateless_reset_token: None,
            max_udp_payload_size: 65_527,
            initial_max_data: 0,
            initial_max_stream_data_bidi_local: 0,
            initial_max_stream_data_bidi_remote: 0,
            initial_max_stream_data_uni: 0,
            initial_max_streams_bidi: 0,
            initial_max_streams_uni: 0,
            ack_delay_exponent: 3,
            max_ack_delay_ms: 25,
            disable_active_migration: false,
            active_connection_id_limit: 2,
            initial_source_connection_id: None,
            retry_source_connection_id: None,
            max_datagram_frame_size: 0,
            has_preferred_address: false,
        }
    }
}

const ORIGINAL_DESTINATION_CONNECTION_ID: u64 = 0x00;
const MAX_IDLE_TIMEOUT: u64 = 0x01;
const STATELESS_RESET_TOKEN: u64 = 0x02;
const MAX_UDP_PAYLOAD_SIZE: u64 = 0x03;
const INITIAL_MAX_DATA: u64 = 0x04;
const INITIAL_MAX_STREAM_DATA_BIDI_LOCAL: u64 = 0x05;
const INITIAL_MAX_STREAM_DATA_BIDI_REMOTE: u64 = 0x06;
const INITIAL_MAX_STREAM_DATA_UNI: u64 = 0x07;
const INITIAL_MAX_STREAMS_BIDI: u64 = 0x08;
const INITIAL_MAX_STREAMS_UNI: u64 = 0x09;
const ACK_DELAY_EXPONENT: u64 = 0x0a;
const MAX_ACK_DELAY: u64 = 0x0b;
const DISABLE_ACTIVE_MIGRATION: u64 = 0x0c;
const PREFERRED_ADDRESS: u64 = 0x0d;
const ACTIVE_CONNECTION_ID_LIMIT: u64 = 0x0e;
const INITIAL_SOURCE_CONNECTION_ID: u64 = 0x0f;
const RETRY_SOURCE_CONNECTION_ID: u64 = 0x10;
const MAX_DATAGRAM_FRAME_SIZE: u64 = 0x20;

const fn bad(reason: &'static str) -> TransportError {
    TransportError::new(Code::TRANSPORT_PARAMETER_ERROR, reason)
}

impl Params {
    /// Encodes the parameters. `grease` adds a reserved parameter, so that peers stay tolerant of
    /// unknown ones (RFC 9000 18.1).
    #[must_use]
    pub fn encode(&self, grease: Option<u64>) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        let defaults = Self::default();
        for (id, value, default) in [
            (
                MAX_IDLE_TIMEOUT,
                self.max_idle_timeout_ms,
                defaults.max_idle_timeout_ms,
            ),
            (
                MAX_UDP_PAYLOAD_SIZE,
                self.max_udp_payload_size,
                defaults.max_udp_payload_size,
            ),
            (INITIAL_MAX_DATA, self.initial_max_data, 0),
            (
                INITIAL_MAX_STREAM_DATA_BIDI_LOCAL,
                self.initial_max_stream_data_bidi_local,
                0,
            ),
            (
                INITIAL_MAX_STREAM_DATA_BIDI_REMOTE,
                self.initial_max_stream_data_bidi_remote,
                0,
            ),
            (
                INITIAL_MAX_STREAM_DATA_UNI,
                self.initial_max_stream_data_uni,
                0,
            ),
            (INITIAL_MAX_STREAMS_BIDI, self.initial_max_streams_bidi, 0),
            (INITIAL_MAX_STREAMS_UNI, self.initial_max_streams_uni, 0),
            (
                ACK_DELAY_EXPONENT,
                self.ack_delay_exponent,
                defaults.ack_delay_exponent,
            ),
            (
                MAX_ACK_DELAY,
                self.max_ack_delay_ms,
                defaults.max_ack_delay_ms,
            ),
            (
                ACTIVE_CONNECTION_ID_LIMIT,
                self.active_connection_id_limit,
                2,
            ),
            (MAX_DATAGRAM_FRAME_SIZE, self.max_datagram_frame_size, 0),
        ] {
            if value != default {
                put_varint(&mut out, id);
                put_varint(&mut out, varint_len(value) as u64);
                put_varint(&mut out, value);
            }
        }
        if self.disable_active_migration {
            put_bytes(&mut out, DISABLE_ACTIVE_MIGRATION, &[]);
        }
        for (id, cid) in [
            (
                ORIGINAL_DESTINATION_CONNECTION_ID,
                self.original_destination_connection_id,
            ),
            (
                INITIAL_SOURCE_CONNECTION_ID,
                self.initial_source_connection_id,
            ),
            (RETRY_SOURCE_CONNECTION_ID, self.retry_source_connection_id),
        ] {
            if let Some(cid) = cid {
                put_bytes(&mut out, id, cid.as_slice());
            }
        }
        if let Some(token) = self.stateless_reset_token {
            put_bytes(&mut out, STATELESS_RESET_TOKEN, &token);
        }
        if let Some(random) = grease {
            // Reserved: 31 * N + 27 (RFC 9000 18.1).
            put_bytes(
                &mut out,
                31 * (random % 1_000_000) + 27,
                &random.to_be_bytes()[..4],
            );
        }
        out
    }

    /// Decodes the parameters that `sender` sent. Every violation is a TRANSPORT_PARAMETER_ERROR
    /// (RFC 9000 7.4, 18.2).
    pub fn decode(bytes: &[u8], sender: Side) -> Result<Self, TransportError> {
        let mut params = Self::default();
        let mut r = Reader::new(bytes);
        let mut seen = 0u64;
        let mut unknown = Vec::new();
        while !r.is_empty() {
            let id = r.varint().ok_or(bad("truncated id"))?;
            let value = r.prefixed().ok_or(bad("truncated value"))?;
            // RFC 9000 7.4: no parameter twice. Known ids are all below 64.
            let twice = match id {
                0..64 => {
                    let bit = 1 << id;
                    let twice = seen & bit != 0;
                    seen |= bit;
                    twice
                }
                _ if unknown.len() < 32 => {
                    let twice = unknown.contains(&id);
                    unknown.push(id);
                    twice
                }
                _ => return Err(bad("too many unknown parameters")),
            };
            if twice {
                return Err(bad("duplicate parameter"));
            }
            params.set(id, value, sender)?;
        }
        Ok(params)
    }

    fn set(&mut self, id: u64, value: &[u8], sender: Side) -> Result<(), TransportError> {
        let server_only = matches!(
            id,
            ORIGINAL_DESTINATION_CONNECTION_ID
                | STATELESS_RESET_TOKEN
                | PREFERRED_ADDRESS
                | RETRY_SOURCE_CONNECTION_ID
        );
        // RFC 9000 18.2: a client MUST NOT send these four.
        if server_only && sender.is_client() {
            return Err(bad("a server's parameter from a client"));
        }
        let int = |min: u64, max: u64| {
            let mut r = Reader::new(value);
            match r.varint() {
                Some(v) if r.is_empty() && (min..=max).contains(&v) => Ok(v),
                _ => Err(bad("integer out of its range")),
            }
        };
        let cid = || {
            ConnectionId::new(value)
                .map(Some)
                .ok_or(bad("connection id too long"))
        };
        match id {
            ORIGINAL_DESTINATION_CONNECTION_ID => self.original_destination_connection_id = cid()?,
            MAX_IDLE_TIMEOUT => self.max_idle_timeout_ms = int(0, VARINT_MAX)?,
            STATELESS_RESET_TOKEN => {
                let token = value
                    .try_into()
                    .map_err(|_| bad("reset token is not 16 bytes"))?;
                self.stateless_reset_token = Some(token);
            }
            MAX_UDP_PAYLOAD_SIZE => self.max_udp_payload_size = int(1_200, VARINT_MAX)?,
            INITIAL_MAX_DATA => self.initial_max_data = int(0, VARINT_MAX)?,
            INITIAL_MAX_STREAM_DATA_BIDI_LOCAL => {
                self.initial_max_stream_data_bidi_local = int(0, VARINT_MAX)?;
            }
            INITIAL_MAX_STREAM_DATA_BIDI_REMOTE => {
                self.initial_max_stream_data_bidi_remote = int(0, VARINT_MAX)?;
            }
            INITIAL_MAX_STREAM_DATA_UNI => self.initial_max_stream_data_uni = int(0, VARINT_MAX)?,
            INITIAL_MAX_STREAMS_BIDI => self.initial_max_streams_bidi = int(0, MAX_STREAMS_LIMIT)?,
            INITIAL_MAX_STREAMS_UNI => self.initial_max_streams_uni = int(0, MAX_STREAMS_LIMIT)?,
            ACK_DELAY_EXPONENT => self.ack_delay_exponent = int(0, 20)?,
            MAX_ACK_DELAY => self.max_ack_delay_ms = int(0, (1 << 14) - 1)?,
            DISABLE_ACTIVE_MIGRATION if value.is_empty() => self.disable_active_migration = true,
            DISABLE_ACTIVE_MIGRATION => return Err(bad("flag with a value")),
            PREFERRED_ADDRESS => {
                check_preferred_address(value)?;
                self.has_preferred_address = true;
            }
            ACTIVE_CONNECTION_ID_LIMIT => self.active_connection_id_limit = int(2, VARINT_MAX)?,
            INITIAL_SOURCE_CONNECTION_ID => self.initial_source_connection_id = cid()?,
            RETRY_SOURCE_CONNECTION_ID => self.retry_source_connection_id = cid()?,
            MAX_DATAGRAM_FRAME_SIZE => self.max_datagram_frame_size = int(0, VARINT_MAX)?,
            // RFC 9000 7.4.2: unknown parameters MUST be ignored.
            _ => {}
        }
        Ok(())
    }
}

/// IPv4 and IPv6 addresses with ports, an id of 1 to 20 bytes, a token (RFC 9000 18.2).
fn check_preferred_address(value: &[u8]) -> Result<(), TransportError> {
    let mut r = Reader::new(value);
    let id_len = r.bytes(24).and_then(|_| r.u8()).map_or(0, usize::from);
    let whole = r.bytes(id_len).and_then(|_| r.bytes(16)).is_some() && r.is_empty();
    match id_len {
        1..=crate::packet::CID_LEN_MAX if whole => Ok(()),
        _ => Err(bad("preferred address")),
    }
}

fn put_bytes(out: &mut Vec<u8>, id: u64, value: &[u8]) {
    let mut head = [0; 16];
    let mut w = Writer::new(&mut head);
    w.varint(id);
    w.varint(value.len() as u64);
    out.extend_from_slice(w.written());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn full() -> Params {
        let id = |b: u8| ConnectionId::new(&[b; 7]);
        Params {
            original_destination_connection_id: id(1),
            max_idle_timeout_ms: 90_000,
            stateless_reset_token: Some([7; 16]),
            max_udp_payload_size: 1_472,
            initial_max_data: 1 << 20,
            initial_max_stream_data_bidi_local: 4_096,
            initial_max_stream_data_bidi_remote: 8_192,
            initial_max_stream_data_uni: 1,
            initial_max_streams_bidi: 1,
            initial_max_streams_uni: MAX_STREAMS_LIMIT,
            ack_delay_exponent: 20,
            max_ack_delay_ms: (1 << 14) - 1,
            disable_active_migration: true,
            active_connection_id_limit: 8,
            initial_source_connection_id: id(2),
            retry_source_connection_id: id(3),
            max_datagram_frame_size: 1_200,
            has_preferred_address: false,
        }
    }

    #[test]
    fn round_trip_with_grease() {
        for grease in [None, Some(0), Some(u64::MAX)] {
            let bytes = full().encode(grease);
            assert_eq!(Params::decode(&bytes, Side::Server), Ok(full()));
        }
        assert_eq!(
            Params::decode(&Params::default().encode(None), Side::Client),
            Ok(Params::default())
        );
    }

    /// Each bound of RFC 9000 18.2, one beyond it.
    #[test]
    fn bounds_of_rfc9000_18_2() {
        let int = |id: u8, value: u64| {
            let mut out = vec![id, u8::try_from(varint_len(value)).unwrap()];
            put_varint(&mut out, value);
            out
        };
        let refused: Vec<(Vec<u8>, &str)> = vec![
            (int(0x03, 1_199), "max_udp_payload_size below 1200"),
            (int(0x08, MAX_STREAMS_LIMIT + 1), "streams above 2^60"),
            (int(0x09, MAX_STREAMS_LIMIT + 1), "streams above 2^60"),
            (int(0x0a, 21), "ack_delay_exponent above 20"),
            (int(0x0b, 1 << 14), "max_ack_delay of 2^14"),
            (int(0x0e, 1), "active_connection_id_limit below 2"),
            (vec![0x0c, 1, 0], "flag with a value"),
            (vec![0x01, 2, 0x05, 0], "trailing byte in an integer"),
            (vec![0x01, 0], "integer without bytes"),
            (vec![0x01, 1, 5, 0x01, 1, 5], "duplicate"),
            (vec![0x40, 0x60, 0, 0x40, 0x60, 0], "duplicate unknown"),
            (
                vec![
                    0x0f, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
                ],
                "id",
            ),
            ([&[0x02, 15][..], &[0; 15]].concat(), "token of 15 bytes"),
            (
                [&[0x0d, 41][..], &[0; 41]].concat(),
                "preferred address with an empty id",
            ),
            (vec![0x04, 4, 0], "truncated"),
            (vec![0x04], "truncated"),
        ];
        for (bytes, what) in refused {
            let error = Params::decode(&bytes, Side::Server).expect_err(what);
            assert_eq!(error.code, Code::TRANSPORT_PARAMETER_ERROR, "{what}");
        }
        for bytes in [
            int(0x03, 1_200),
            int(0x0a, 20),
            int(0x0b, (1 << 14) - 1),
            int(0x0e, 2),
        ] {
            assert!(Params::decode(&bytes, Side::Server).is_ok());
        }
    }

    #[test]
    fn a_client_may_not_send_a_servers_parameters_rfc9000_18_2() {
        let preferred = [&[0x0d, 45][..], &[0; 24], &[4, 0, 0, 0, 0], &[0; 16]].concat();
        for bytes in [
            vec![0x00, 0],
            [&[0x02, 16][..], &[0; 16]].concat(),
            preferred,
            vec![0x10, 0],
        ] {
            assert!(Params::decode(&bytes, Side::Server).is_ok());
            let error = Params::decode(&bytes, Side::Client).unwrap_err();
            assert_eq!(error.code, Code::TRANSPORT_PARAMETER_ERROR);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Params::decode(&bytes, Side::Client);
            let _ = Params::decode(&bytes, Side::Server);
        }
    }
}
