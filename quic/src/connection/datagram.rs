//! Unreliable datagrams of the application (RFC 9221).

use bytes::Bytes;

use super::{Connection, Cx, NotOpen, State};
use crate::config::Transport;
use crate::crypto::Aead;

impl<T> Connection<T> {
    /// The largest DATAGRAM payload that fits a packet and the peer's limit.
    pub(crate) fn datagram_max(&self, transport: &Transport) -> usize {
        let payload = usize::from(self.payload(transport));
        // Short header with a full packet number, tag, frame type and length.
        let packet = payload.saturating_sub(1 + self.peer_cid.len() + 4 + 16 + 3);
        packet.min(usize::from(self.peer.datagram_max).saturating_sub(3))
    }

    pub(crate) fn send_datagram<A: Aead>(
        &mut self,
        cx: &mut Cx<'_, A>,
        data: Bytes,
    ) -> Result<(), NotOpen> {
        if self.state != State::Open || data.len() > self.datagram_max(cx.transport) {
            return Err(NotOpen);
        }
        let cap = cx.transport.datagram_send_buffer;
        let active = self.thaw(cx);
        active.datagram_bytes += data.len();
        active.datagrams.push_back(data);
        while active.datagram_bytes > cap
            && let Some(oldest) = active.datagrams.pop_front()
        {
            active.datagram_bytes -= oldest.len();
        }
        Ok(())
    }
}
