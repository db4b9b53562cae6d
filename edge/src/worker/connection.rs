//! What a worker keeps of a connection: the beginning of a frame, and frames that did not fit.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use roadstead::{Identity, SessionId};
use roadstead_net::{ConnId, Engine, Io};
use roadstead_proto::limits::FRAME_BYTES_MAX;
use roadstead_proto::v1::ClientFrame;
use roadstead_proto::{Deframer, ErrorCode, FrameError, decode_frame};

use super::budget::Budget;

/// Bytes that may wait for a peer that does not read, beyond what the transport holds for it. The
/// delivery window and the answers to the sends in flight together stay below it.
const UNSENT_BYTES_MAX: usize = 512 * 1024;

/// Once so much of one frame has arrived, the rest is worth a larger window.
const LARGE_FRAME_BYTES: usize = 4 * 1024;

/// Connection window of a session in the middle of a large frame: the largest one fits (T8).
const WINDOW_RAISED: u32 = 64 * 1024;

/// The connections of a worker, by the transport's index.
#[derive(Default)]
pub(super) struct Connections {
    slots: Vec<Option<Connection>>,
    budget: Budget,
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
    /// Its window was raised, from the shard's budget.
    raised: bool,
}

impl Connection {
    /// Bytes that the shard holds for it.
    fn held(&self) -> usize {
        self.deframer.buffered() + self.unsent.len()
    }
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
            raised: false,
        });
    }

    /// Forgets a connection; false if it had never opened.
    pub(super) fn close(&mut self, id: ConnId) -> bool {
        let Some(connection) = self.get(id) else {
            return false;
        };
        let (held, raised) = (connection.held(), connection.raised);
        self.budget
            .release(held, if raised { WINDOW_RAISED } else { 0 });
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
        let before = connection.held();
        let frame = read_frame(connection, io, id);
        let after = connection.held();
        let wants_more = after > LARGE_FRAME_BYTES && !connection.raised;
        self.budget.changed(before, after);
        if wants_more && self.budget.promise(WINDOW_RAISED) {
            self.get(id).expect("it was there").raised = true;
            io.raise_receive_window(id, WINDOW_RAISED);
        }
        frame
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
        let fits = connection.unsent.len() <= UNSENT_BYTES_MAX;
        self.budget.changed(0, rest.len());
        fits
    }

    /// Goes on sending; true once nothing is kept.
    pub(super) fn write_on<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) -> bool {
        let Some(connection) = self.get(id) else {
            return false;
        };
        let sent = io.write(id, &connection.unsent);
        connection.unsent.advance(sent);
        let all = connection.unsent.is_empty();
        if all {
            connection.unsent = BytesMut::new();
        }
        self.budget.changed(sent, 0);
        all
    }

    /// Marks a connection as waiting, or as not; false if that changes nothing.
    pub(super) fn set_waiting(&mut self, id: ConnId, waiting: bool) -> bool {
        let Some(connection) = self.get(id) else {
            return false;
        };
        std::mem::replace(&mut connection.waiting, waiting) != waiting
    }

    /// The connection that holds most, if the shard holds more than it may (T8).
    pub(super) fn to_shed(&self) -> Option<ConnId> {
        if !self.budget.is_exceeded() {
            return None;
        }
        let open = self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let connection = slot.as_ref()?;
            let index = u32::try_from(index).expect("indices come from the transport");
            Some((
                connection.held(),
                ConnId {
                    index,
                    generation: connection.generation,
                },
            ))
        });
        open.max_by_key(|(held, _)| *held).map(|(_, id)| id)
    }

    /// Bytes held for connections: frames that are not complete, and what peers have not read.
    pub(super) fn held(&self) -> usize {
        self.budget.held()
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(id.index as usize)?;
        slot.as_mut()
            .filter(|connection| connection.generation == id.generation)
    }
}

fn read_frame<E: Engine>(
    connection: &mut Connection,
    io: &mut Io<'_, E>,
    id: ConnId,
) -> Result<Option<ClientFrame>, FrameError> {
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
