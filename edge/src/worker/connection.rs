//! What a worker keeps of a connection: the beginning of a frame, and frames that did not fit.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use roadstead::slots::Slots;
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
    slots: Slots<Connection>,
    budget: Budget,
    /// Kept from one connection to the next, as most have a part under way only while they are read.
    spare: Option<Box<UnderWay>>,
    /// Results that wait until the outputs before them have been polled.
    pub(super) authenticated: VecDeque<(SessionId, Result<Identity, ErrorCode>)>,
}

struct Connection {
    generation: u32,
    /// In the worker's list of connections to read once the store has caught up.
    waiting: bool,
    /// Its window was raised, from the shard's budget.
    raised: bool,
    under_way: Option<Box<UnderWay>>,
}

/// An idle connection of the worker.
const _: () = assert!(size_of::<Option<Connection>>() <= 16);

/// Bytes that are not a whole frame yet, or not sent yet: absent while there are none.
struct UnderWay {
    deframer: Deframer,
    /// The rest of the chunk whose frames are being handled.
    chunk: Bytes,
    unsent: BytesMut,
}

impl UnderWay {
    fn new() -> Self {
        Self {
            deframer: Deframer::new(FRAME_BYTES_MAX),
            chunk: Bytes::new(),
            unsent: BytesMut::new(),
        }
    }

    /// Bytes that the shard holds for it.
    fn held(&self) -> usize {
        self.deframer.buffered() + self.unsent.len()
    }

    fn is_empty(&self) -> bool {
        self.held() == 0 && self.chunk.is_empty()
    }
}

impl Connection {
    fn held(&self) -> usize {
        self.under_way.as_ref().map_or(0, |part| part.held())
    }
}

impl Connections {
    pub(super) fn open(&mut self, id: ConnId) {
        let connection = Connection {
            generation: id.generation,
            waiting: false,
            raised: false,
            under_way: None,
        };
        self.slots.insert(id.index, connection);
    }

    /// Forgets a connection; false if it had never opened.
    pub(super) fn close(&mut self, id: ConnId) -> bool {
        if self.get(id).is_none() {
            return false;
        }
        let connection = self.slots.remove(id.index).expect("it is there");
        let window = if connection.raised { WINDOW_RAISED } else { 0 };
        self.budget.release(connection.held(), window);
        true
    }

    /// The next frame of the peer, or `None` if there is none now or the peer must read first.
    pub(super) fn next_frame<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        id: ConnId,
    ) -> Result<Option<ClientFrame>, FrameError> {
        let Some(mut part) = self.take_under_way(id) else {
            return Ok(None);
        };
        if !part.unsent.is_empty() {
            self.put_under_way(id, part);
            return Ok(None);
        }
        let before = part.held();
        let frame = read_frame(&mut part, io, id);
        let after = part.held();
        self.budget.changed(before, after);
        self.put_under_way(id, part);
        if after > LARGE_FRAME_BYTES {
            self.raise_window(io, id);
        }
        frame
    }

    /// A connection in the middle of a large frame gets a larger window while the budget lasts (T8).
    fn raise_window<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) {
        let is_raised = self.get(id).is_none_or(|connection| connection.raised);
        if !is_raised && self.budget.promise(WINDOW_RAISED) {
            self.get(id).expect("it was there").raised = true;
            io.raise_receive_window(id, WINDOW_RAISED);
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
        let waits = connection
            .under_way
            .as_ref()
            .is_some_and(|part| !part.unsent.is_empty());
        let rest = if waits {
            bytes
        } else {
            &bytes[io.write(id, bytes)..]
        };
        if rest.is_empty() {
            return true;
        }
        let mut part = self.take_under_way(id).expect("it was there");
        part.unsent.extend_from_slice(rest);
        let fits = part.unsent.len() <= UNSENT_BYTES_MAX;
        self.put_under_way(id, part);
        self.budget.changed(0, rest.len());
        fits
    }

    /// Goes on sending; true once nothing is kept.
    pub(super) fn write_on<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) -> bool {
        let Some(mut part) = self.take_under_way(id) else {
            return false;
        };
        let sent = io.write(id, &part.unsent);
        part.unsent.advance(sent);
        let all = part.unsent.is_empty();
        if all {
            part.unsent = BytesMut::new();
        }
        self.put_under_way(id, part);
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
        let open = self.slots.iter();
        let most = open.max_by_key(|(_, connection)| connection.held());
        most.map(|(index, connection)| ConnId {
            index,
            generation: connection.generation,
        })
    }

    /// Bytes of the table, without what is under way.
    pub(super) fn bytes(&self) -> usize {
        self.slots.bytes()
    }

    /// Bytes held for connections: frames that are not complete, and what peers have not read.
    pub(super) fn held(&self) -> usize {
        self.budget.held()
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Connection> {
        let connection = self.slots.get_mut(id.index)?;
        (connection.generation == id.generation).then_some(connection)
    }

    /// Takes out what a connection has under way, or something empty; `None` if there is no connection.
    fn take_under_way(&mut self, id: ConnId) -> Option<Box<UnderWay>> {
        let part = self.get(id)?.under_way.take();
        let part = part.or_else(|| self.spare.take());
        Some(part.unwrap_or_else(|| Box::new(UnderWay::new())))
    }

    fn put_under_way(&mut self, id: ConnId, part: Box<UnderWay>) {
        if part.is_empty() {
            self.spare = Some(part);
        } else if let Some(connection) = self.get(id) {
            connection.under_way = Some(part);
        }
    }
}

fn read_frame<E: Engine>(
    part: &mut UnderWay,
    io: &mut Io<'_, E>,
    id: ConnId,
) -> Result<Option<ClientFrame>, FrameError> {
    loop {
        if let Some(frame) = part.deframer.next_frame(&mut part.chunk)? {
            return decode_frame(frame).map(Some);
        }
        match io.read(id) {
            Some(chunk) => part.chunk = chunk,
            None => {
                // Even an empty slice keeps the packet that it came in.
                part.chunk = Bytes::new();
                return Ok(None);
            }
        }
    }
}
