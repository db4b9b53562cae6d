//! What a worker keeps of a connection: the beginning of a frame, and frames that did not fit.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use roadstead::{Identity, SessionId};
use roadstead_net::{ConnId, Engine, Io};
use roadstead_proto::limits::FRAME_BYTES_MAX;
use roadstead_proto::v1::ClientFrame;
use roadstead_proto::{Deframer, ErrorCode, FrameError, decode_frame};

/// Bytes that may wait for a peer that does not read, beyond what the transport holds for it. The
/// delivery window and the answers to the sends in flight together stay below it.
const UNSENT_BYTES_MAX: usize = 512 * 1024;

/// The connections of a worker, by the transport's index.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    /// Results that wait until the outputs before them have been polled.
    pub(super) authenticated: VecDeque<(SessionId, Result<Identity, ErrorCode>)>,
}

struct Connection {
    generation: u32,
    deframer: Deframer,
    /// The rest of the chunk whose frames are being handled.
    chunk: Bytes,
    unsent: BytesMut,
    /// In the worker's list of connections to read once the store has caught up.
    waiting: bool,
}

impl Connections {
    pub(super) fn open(&mut self, id: ConnId) {
        let index = id.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        self.slots[index] = Some(Connection {
            generation: id.generation,
            deframer: Deframer::new(FRAME_BYTES_MAX),
            chunk: Bytes::new(),
            unsent: BytesMut::new(),
            waiting: false,
        });
    }

    /// Forgets a connection; false if it had never opened.
    pub(super) fn close(&mut self, id: ConnId) -> bool {
        if self.get(id).is_none() {
            return false;
        }
        self.slots[id.index as usize] = None;
        true
    }

    /// The next frame of the peer, or `None` if there is none now or the peer must read first.
    pub(super) fn next_frame<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        id: ConnId,
    ) -> Result<Option<ClientFrame>, FrameError> {
        let Some(connection) = self.get(id) else {
            return Ok(None);
        };
        if !connection.unsent.is_empty() {
            return Ok(None);
        }
        loop {
            if let Some(frame) = connection.deframer.next_frame(&mut connection.chunk)? {
                return decode_frame(frame).map(Some);
            }
            match io.read(id) {
                Some(chunk) => connection.chunk = chunk,
                None => {
                    // Even an empty slice keeps the packet that it came in.
                    connection.chunk = Bytes::new();
                    return Ok(None);
                }
            }
        }
    }

    /// Sends bytes, in order, keeping what does not fit. False if too much is kept already.
    pub(super) fn write<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        id: ConnId,
        bytes: &[u8],
    ) -> bool {
        let Some(connection) = self.get(id) else {
            return true;
        };
        let mut rest = bytes;
        if connection.unsent.is_empty() {
            rest = &bytes[io.write(id, bytes)..];
        }
        if rest.is_empty() {
            return true;
        }
        connection.unsent.extend_from_slice(rest);
        connection.unsent.len() <= UNSENT_BYTES_MAX
    }

    /// Goes on sending; true once nothing is kept.
    pub(super) fn write_on<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) -> bool {
        let Some(connection) = self.get(id) else {
            return false;
        };
        let sent = io.write(id, &connection.unsent);
        connection.unsent.advance(sent);
        if connection.unsent.is_empty() {
            connection.unsent = BytesMut::new();
        }
        connection.unsent.is_empty()
    }

    /// Marks a connection as waiting, or as not; false if that changes nothing.
    pub(super) fn set_waiting(&mut self, id: ConnId, waiting: bool) -> bool {
        let Some(connection) = self.get(id) else {
            return false;
        };
        std::mem::replace(&mut connection.waiting, waiting) != waiting
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.as_mut()
            .filter(|connection| connection.generation == id.generation)
    }
}
