//! What a worker keeps of a connection: the beginning of a frame, and frames that did not fit.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use roadstead::slots::Slots;
use roadstead::{Identity, SessionId};
use roadstead_net::{ConnId, Engine, Io};
use roadstead_proto::limits::{FRAME_BYTES_MAX, HELLO_FRAME_BYTES_MAX};
use roadstead_proto::v1::{ClientFrame, client_frame};
use roadstead_proto::{Deframer, ErrorCode, FrameError, decode_frame};

use super::budget::{Budget, Held};

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
    /// It has had its Welcome.
    known: bool,
    /// It is being closed for what it held: nothing more is kept for it.
    shed: bool,
    under_way: Option<Box<UnderWay>>,
}

/// An idle connection of the worker.
const _: () = assert!(size_of::<Option<Connection>>() <= 16);

/// Bytes that are not a whole frame yet, or not sent yet: absent while there are none.
struct UnderWay {
    deframer: Deframer,
    /// The rest of the chunk whose frames are being handled.
    chunk: Bytes,
    /// A send that the store has no room for yet.
    parked: Option<Parked>,
    unsent: BytesMut,
}

impl UnderWay {
    fn new() -> Self {
        Self {
            deframer: Deframer::new(HELLO_FRAME_BYTES_MAX),
            chunk: Bytes::new(),
            parked: None,
            unsent: BytesMut::new(),
        }
    }

    /// Bytes that the shard holds for it.
    fn held(&self) -> usize {
        let parked = self.parked.as_ref().map_or(0, |parked| parked.bytes);
        self.deframer.buffered() + self.unsent.len() + parked
    }

    fn is_empty(&self) -> bool {
        self.held() == 0 && self.chunk.is_empty() && self.parked.is_none()
    }

    /// The frame that was parked, or the next one.
    fn next_frame<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        id: ConnId,
    ) -> Result<Option<ClientFrame>, FrameError> {
        match self.parked.take() {
            Some(parked) => Ok(Some(parked.frame)),
            None => read_frame(self, io, id),
        }
    }
}

/// A frame that is handled before all others.
struct Parked {
    frame: ClientFrame,
    /// What it counts for.
    bytes: usize,
}

impl Connection {
    fn held(&self) -> Held {
        Held {
            bytes: self.under_way.as_ref().map_or(0, |part| part.held()),
            known: self.known,
        }
    }

    /// Whether it has so much of a frame that the rest is worth a larger window (T8): nobody's before its login,
    /// whose frames fit the first one.
    fn wants_window(&self) -> bool {
        self.known && !self.raised && self.held().bytes > LARGE_FRAME_BYTES
    }
}

impl Connections {
    pub(super) fn open(&mut self, id: ConnId) {
        let connection = Connection {
            generation: id.generation,
            waiting: false,
            raised: false,
            known: false,
            shed: false,
            under_way: None,
        };
        self.slots.insert(id.index, connection);
    }

    /// A connection has had its Welcome: it may send what a session may.
    pub(super) fn log_in(&mut self, id: ConnId) {
        self.change(id, |connection| connection.known = true);
    }

    /// Forgets a connection; false if it had never opened.
    pub(super) fn close(&mut self, id: ConnId) -> bool {
        if self.get(id).is_none() {
            return false;
        }
        let connection = self.slots.remove(id.index).expect("it is there");
        if connection.raised {
            self.budget.take_back(WINDOW_RAISED);
        }
        let held = connection.held();
        self.budget.changed(id.index, held, Held::default());
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
        let frame = match part.unsent.is_empty() {
            true => part.next_frame(io, id),
            false => Ok(None),
        };
        self.put_under_way(id, part);
        self.raise_window(io, id);
        frame
    }

    /// Keeps a send for later: it is the next frame again.
    pub(super) fn park(&mut self, id: ConnId, frame: ClientFrame) {
        if let Some(mut part) = self.take_under_way(id) {
            let bytes = payload_bytes(&frame);
            part.parked = Some(Parked { frame, bytes });
            self.put_under_way(id, part);
        }
    }

    /// A connection in the middle of a large frame gets a larger window while the budget lasts (T8).
    fn raise_window<E: Engine>(&mut self, io: &mut Io<'_, E>, id: ConnId) {
        let wants = self.get(id).is_some_and(|it| it.wants_window());
        if wants && self.budget.promise(WINDOW_RAISED) {
            self.change(id, |connection| connection.raised = true);
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
        let Some(connection) = self.get(id).filter(|connection| !connection.shed) else {
            return true;
        };
        let part = connection.under_way.as_ref();
        let waits = part.is_some_and(|part| !part.unsent.is_empty());
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
        all
    }

    /// Marks a connection as waiting, or as not; false if that changes nothing.
    pub(super) fn set_waiting(&mut self, id: ConnId, waiting: bool) -> bool {
        let Some(connection) = self.get(id) else {
            return false;
        };
        std::mem::replace(&mut connection.waiting, waiting) != waiting
    }

    /// The connection to close next, while the shard holds more than it may (T8). What it held is let go at once.
    pub(super) fn shed(&mut self) -> Option<ConnId> {
        let index = self.budget.to_shed()?;
        let connection = self.slots.get_mut(index)?;
        let id = ConnId {
            index,
            generation: connection.generation,
        };
        self.change(id, |connection| {
            connection.shed = true;
            connection.under_way = None;
        });
        Some(id)
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

    /// Changes a connection, and what it counts for.
    fn change(&mut self, id: ConnId, change: impl FnOnce(&mut Connection)) {
        let Some(connection) = self.slots.get_mut(id.index) else {
            return;
        };
        if connection.generation == id.generation {
            let before = connection.held();
            change(connection);
            let after = connection.held();
            self.budget.changed(id.index, before, after);
        }
    }

    /// Takes out what a connection has under way, or something empty; `None` if there is no connection, or it is
    /// being closed for what it held.
    fn take_under_way(&mut self, id: ConnId) -> Option<Box<UnderWay>> {
        let connection = self.get(id).filter(|connection| !connection.shed)?;
        let known = connection.known;
        let mut part = None;
        self.change(id, |connection| part = connection.under_way.take());
        let part = part.or_else(|| self.spare.take());
        let mut part = part.unwrap_or_else(|| Box::new(UnderWay::new()));
        part.deframer.limit_to(match known {
            true => FRAME_BYTES_MAX,
            false => HELLO_FRAME_BYTES_MAX,
        });
        Some(part)
    }

    fn put_under_way(&mut self, id: ConnId, part: Box<UnderWay>) {
        if part.is_empty() {
            self.spare = Some(part);
        } else {
            self.change(id, |connection| connection.under_way = Some(part));
        }
    }
}

/// Of a send, its payload.
fn payload_bytes(frame: &ClientFrame) -> usize {
    match &frame.body {
        Some(client_frame::Body::Send(send)) => send.payload.len(),
        _ => 0,
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

#[cfg(test)]
mod tests {
    use roadstead_proto::v1;

    use super::*;

    fn connection(known: bool, bytes: usize) -> Connection {
        let mut part = UnderWay::new();
        part.unsent.resize(bytes, 0);
        Connection {
            generation: 0,
            waiting: false,
            raised: false,
            known,
            shed: false,
            under_way: Some(Box::new(part)),
        }
    }

    /// A Hello with the longest credential is larger than what makes a frame a large one.
    #[test]
    fn tf7_t8_no_window_is_raised_before_login() {
        assert!(!connection(false, HELLO_FRAME_BYTES_MAX).wants_window());
        assert!(connection(true, LARGE_FRAME_BYTES + 1).wants_window());
        assert!(!connection(true, LARGE_FRAME_BYTES).wants_window());
        let raised = Connection {
            raised: true,
            ..connection(true, HELLO_FRAME_BYTES_MAX)
        };
        assert!(!raised.wants_window());
    }

    #[test]
    fn df25_r26_what_is_parked_is_held_and_comes_first() {
        let mut connections = Connections::default();
        connections.open(conn(0));
        let send = v1::Send {
            payload: vec![0; 1_000].into(),
            ..v1::Send::default()
        };
        let frame = ClientFrame {
            body: Some(client_frame::Body::Send(send)),
        };
        connections.park(conn(0), frame.clone());
        assert_eq!(connections.held(), 1_000);
        let mut part = connections.take_under_way(conn(0)).expect("open");
        assert_eq!(part.parked.take().map(|parked| parked.frame), Some(frame));
        connections.put_under_way(conn(0), part);
        assert_eq!(connections.held(), 0);
        // An empty one is kept, too.
        connections.park(conn(0), ClientFrame::default());
        let part = connections.take_under_way(conn(0)).expect("open");
        assert!(part.parked.is_some() && connections.close(conn(0)));
    }

    fn conn(index: u32) -> ConnId {
        ConnId {
            index,
            generation: 0,
        }
    }

    /// Connections that hold so many bytes each.
    fn holding(connections: &mut Connections, indices: std::ops::Range<u32>, bytes: usize) {
        for index in indices {
            connections.open(conn(index));
            let mut part = connections.take_under_way(conn(index)).expect("open");
            part.unsent.resize(bytes, 0);
            connections.put_under_way(conn(index), part);
        }
    }

    /// Half-sent frames of strangers beside readers in bad coverage: the strangers go, as many as it takes and
    /// no more, and what they held is free at once.
    #[test]
    fn tf7_t8_shedding_ends_when_the_budget_holds() {
        let mut connections = Connections {
            budget: Budget::holding(1 << 20),
            ..Connections::default()
        };
        let (readers, strangers) = (0..100, 1_000..1_040);
        holding(&mut connections, readers.clone(), 9 << 10);
        readers
            .clone()
            .for_each(|index| connections.log_in(conn(index)));
        assert_eq!(connections.shed(), None);
        holding(&mut connections, strangers.clone(), HELLO_FRAME_BYTES_MAX);
        let mut shed = Vec::new();
        while let Some(id) = connections.shed() {
            shed.push(id.index);
        }
        // 900 KiB and 320 are 196 too many, of 8 each.
        assert_eq!(shed, (1_015..1_040).rev().collect::<Vec<_>>());
        // Nothing more is kept for one that is being closed.
        let closing = conn(shed[0]);
        assert!(connections.take_under_way(closing).is_none());
        let held = connections.held();
        assert!(connections.close(closing) && connections.held() == held);
        // And all is accounted for when everybody has left.
        readers.chain(strangers).for_each(|index| {
            connections.close(conn(index));
        });
        assert_eq!((connections.held(), connections.shed()), (0, None));
    }
}
