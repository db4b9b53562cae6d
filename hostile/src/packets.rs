//! 1-RTT packets by hand: any frames under any packet number.

use std::fmt;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use quinn_proto::crypto::{HeaderKey, PacketKey};

/// Frames that a packet may hold (RFC 9000 section 19).
pub mod frames {
    /// Asks for an acknowledgement, and nothing else.
    pub const PING: &[u8] = &[0x01];
    /// The application ends the session with code 0 and no reason.
    pub const CLOSE: &[u8] = &[0x1d, 0x00, 0x00];
}

/// Fixed bit, and packet numbers of four bytes (RFC 9000 section 17.3.1).
const FIRST_BYTE: u8 = 0x43;
const NUMBER_BYTES: usize = 4;

/// Payload and tag must reach as far as the sample of header protection (RFC 9001 section 5.4.2).
const PAYLOAD_BYTES_MIN: usize = 4;

/// A session that is written to by hand. The server's packets are not read.
pub struct Packets {
    pub(crate) socket: UdpSocket,
    pub(crate) target: SocketAddr,
    pub(crate) header: Arc<dyn HeaderKey>,
    pub(crate) packet: Arc<dyn PacketKey>,
    pub(crate) id: Vec<u8>,
    /// Of the last packet.
    pub(crate) number: u64,
    pub(crate) buffer: Vec<u8>,
}

impl fmt::Debug for Packets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packets")
            .field("target", &self.target)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Packets {
    /// The number of the last packet.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Sends frames in one packet whose number is `step` above the last. Answers whether the kernel took it.
    pub fn send(&mut self, step: u64, frames: &[u8]) -> bool {
        self.number += step;
        self.write(frames);
        self.socket.send_to(&self.buffer, self.target).is_ok()
    }

    /// Throws away what the server has sent, so that its packets need no memory of this end. Answers how many.
    pub fn forget_answers(&self) -> usize {
        let mut buffer = [0; 64];
        std::iter::from_fn(|| self.socket.recv(&mut buffer).ok()).count()
    }

    fn write(&mut self, frames: &[u8]) {
        let buffer = &mut self.buffer;
        buffer.clear();
        buffer.push(FIRST_BYTE);
        buffer.extend_from_slice(&self.id);
        let number_at = buffer.len();
        // The low 32 bits: the receiver knows the rest by the last number (RFC 9000 section A.3).
        let [.., a, b, c, d] = self.number.to_be_bytes();
        buffer.extend_from_slice(&[a, b, c, d]);
        let header = number_at + NUMBER_BYTES;
        buffer.extend_from_slice(frames);
        // Zeros are PADDING frames.
        let payload = frames.len().max(PAYLOAD_BYTES_MIN);
        buffer.resize(header + payload + self.packet.tag_len(), 0);
        self.packet.encrypt(self.number, buffer, header);
        self.header.encrypt(number_at, buffer);
    }
}
