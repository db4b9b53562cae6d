//! TLS of a client that believes that the server takes DATAGRAM frames (RFC 9221), whatever it announced.

use std::any::Any;
use std::io::Cursor;
use std::sync::Arc;

use quinn_proto::crypto::{self, ExportKeyingMaterialError, HeaderKey, KeyPair, Keys, PacketKey};
use quinn_proto::transport_parameters::TransportParameters;
use quinn_proto::{ConnectError, ConnectionId, Side, TransportError};

/// The transport parameter `max_datagram_frame_size` (RFC 9221 section 3) with 1,200 bytes.
const DATAGRAM_FRAME_SIZE: [u8; 4] = [0x20, 2, 0x44, 0xb0];

/// Makes sessions that are bold.
pub(crate) struct Bold(pub(crate) Arc<dyn crypto::ClientConfig>);

impl crypto::ClientConfig for Bold {
    fn start_session(
        self: Arc<Self>,
        version: u32,
        server_name: &str,
        params: &TransportParameters,
    ) -> Result<Box<dyn crypto::Session>, ConnectError> {
        let session = self.0.clone().start_session(version, server_name, params)?;
        Ok(Box::new(Session(session)))
    }
}

struct Session(Box<dyn crypto::Session>);

impl crypto::Session for Session {
    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(announced) = self.0.transport_parameters()? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        announced.write(&mut bytes);
        bytes.extend_from_slice(&DATAGRAM_FRAME_SIZE);
        let believed = TransportParameters::read(Side::Client, &mut Cursor::new(bytes))?;
        Ok(Some(believed))
    }

    fn initial_keys(&self, dst_cid: &ConnectionId, side: Side) -> Keys {
        self.0.initial_keys(dst_cid, side)
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        self.0.handshake_data()
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        self.0.peer_identity()
    }

    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        self.0.early_crypto()
    }

    fn early_data_accepted(&self) -> Option<bool> {
        self.0.early_data_accepted()
    }

    fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    fn read_handshake(&mut self, buf: &[u8]) -> Result<bool, TransportError> {
        self.0.read_handshake(buf)
    }

    fn write_handshake(&mut self, buf: &mut Vec<u8>) -> Option<Keys> {
        self.0.write_handshake(buf)
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        self.0.next_1rtt_keys()
    }

    fn is_valid_retry(&self, orig_dst_cid: &ConnectionId, header: &[u8], payload: &[u8]) -> bool {
        self.0.is_valid_retry(orig_dst_cid, header, payload)
    }

    fn export_keying_material(
        &self,
        output: &mut [u8],
        label: &[u8],
        context: &[u8],
    ) -> Result<(), ExportKeyingMaterialError> {
        self.0.export_keying_material(output, label, context)
    }
}
