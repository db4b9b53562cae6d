//! Version negotiation (RFC 9000 6): the server's answer to a version that it does not speak.

use super::Endpoint;
use crate::connection::Path;
use crate::crypto::{Aead, Tls};
use crate::packet::{INITIAL_DATAGRAM_MIN, Packet, write_version_negotiation};
use crate::time::low32;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// RFC 9000 6.1, 14.1; T11: only for datagrams that could have started a connection.
    pub(super) fn send_version_negotiation(&mut self, path: Path, packet: &Packet, len: usize) {
        if len < INITIAL_DATAGRAM_MIN {
            self.stats.dropped += 1;
            return;
        }
        let mut out = [0; 64];
        let random = low32(self.rng.next());
        let len = write_version_negotiation(
            &mut out,
            random,
            packet.scid.as_slice(),
            packet.dcid.as_slice(),
        );
        self.stats.version_negotiations_sent += 1;
        self.push_stateless(path, out[..len].to_vec());
    }
}
