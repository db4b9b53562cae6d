//! What clients are told, held against what was committed.

use std::collections::{BTreeMap, BTreeSet};

use roadstead::SessionId;
use roadstead::limits::DELIVER_WINDOW_ENTRIES_MAX;
use roadstead::store::{Command, EntryBody, Grown, Outcome, Sent};
use roadstead_proto::limits::SENDS_IN_FLIGHT_MAX;
use roadstead_proto::v1::{
    self, ClientFrame, client_frame::Body as Up, server_frame::Body as Down,
};
use roadstead_proto::{DeviceId, Position, UserId};

type Device = (UserId, DeviceId);

/// A connection as its client sees it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) shard: usize,
    pub(super) session: SessionId,
    /// Who its Hello proved to be.
    pub(super) device: Option<Device>,
    /// Cursors that it was given, in order.
    pub(super) given: Vec<Position>,
    /// The Hello's cursor.
    cursor: Position,
    acked: Position,
    welcomed: bool,
    ended: bool,
}

impl Conn {
    pub(super) fn new(shard: usize, session: SessionId) -> Self {
        Self {
            shard,
            session,
            device: None,
            given: Vec::new(),
            cursor: Position::ZERO,
            acked: Position::ZERO,
            welcomed: false,
            ended: false,
        }
    }

    /// The client sent this.
    pub(super) fn said(&mut self, frame: &ClientFrame) {
        match &frame.body {
            Some(Up::Hello(hello)) if !self.welcomed && self.device.is_none() => {
                self.cursor = Position::from_slice(&hello.cursor).unwrap_or_default();
            }
            Some(Up::Ack(ack)) => {
                let upto = Position::from_slice(&ack.cursor).unwrap_or_default();
                self.acked = self.acked.max(upto);
            }
            _ => {}
        }
    }

    /// The server closed it.
    pub(super) fn end(&mut self) {
        assert!(!self.ended, "a connection ends once");
        self.ended = true;
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Check {
    /// Committed sends by number (R12).
    sent: BTreeMap<(Device, u64), Sent>,
    /// Messages in each inbox, in commit order, whether or not they are still there.
    inboxes: BTreeMap<Device, BTreeSet<Position>>,
    /// How far each device has acknowledged or resynchronised.
    flushed: BTreeMap<Device, Position>,
}

impl Check {
    /// A shard asks for this.
    pub(super) fn asked(&self, command: &Command) {
        match command {
            Command::Send(sends) => {
                assert!((1..=SENDS_IN_FLIGHT_MAX).contains(&sends.items.len()));
                let numbers = sends.items.iter().map(|item| item.number);
                assert!(numbers.into_iter().all(|number| number > 0));
            }
            Command::ReadInbox(read) => assert!(read.entries_max >= 1),
            Command::Flush(flush) => {
                let known = flush.known.iter().flat_map(|known| &known.entries);
                let cursors: Vec<Position> = known.map(|entry| entry.cursor).collect();
                assert!(
                    cursors.is_sorted_by(|a, b| a < b),
                    "a list is in order (R18)"
                );
            }
            _ => {}
        }
    }

    /// This is durable.
    pub(super) fn committed(&mut self, command: &Command, outcome: &Outcome) {
        match (command, outcome) {
            (Command::Send(sends), Outcome::Sent { answers, grown }) => {
                for (item, answer) in sends.items.iter().zip(answers) {
                    if let Ok(sent) = answer {
                        self.executed((sends.user, sends.device), item.number, *sent);
                    }
                }
                self.appended(grown);
            }
            (
                Command::Flush(flush),
                Outcome::Flushed {
                    grown, stored_ack, ..
                },
            ) => {
                let flushed = self.flushed.entry((flush.user, flush.device)).or_default();
                *flushed = (*flushed).max(*stored_ack);
                self.appended(grown);
            }
            (_, Outcome::MarkedRead { grown } | Outcome::InboxChecked { grown, .. }) => {
                self.appended(grown);
            }
            _ => {}
        }
    }

    /// R12: a number is executed once, and answered the same ever after.
    fn executed(&mut self, device: Device, number: u64, sent: Sent) {
        match self.sent.get(&(device, number)) {
            Some(first) => {
                assert!(sent.repeated, "R12: {number} was executed twice");
                assert_eq!(sent.position, first.position, "R12");
                assert_eq!(sent.message_id, first.message_id, "R12");
            }
            None => {
                assert!(!sent.repeated, "R12: {number} was never executed");
                self.sent.insert((device, number), sent);
            }
        }
    }

    fn appended(&mut self, grown: &[Grown]) {
        for grown in grown {
            if let Some(EntryBody::Message { .. }) = grown.entry {
                let inbox = self.inboxes.entry((grown.user, grown.device)).or_default();
                assert!(inbox.last().is_none_or(|last| *last < grown.cursor), "R1");
                inbox.insert(grown.cursor);
            }
        }
    }

    /// A client is told this.
    pub(super) fn heard(&self, conn: &mut Conn, frame: v1::ServerFrame) {
        assert!(!conn.ended, "nothing follows the end of a connection");
        let body = frame.body.expect("frames have a body");
        let opens = matches!(body, Down::Welcome(_) | Down::Error(_) | Down::GoAway(_));
        assert!(conn.welcomed || opens, "{body:?} before the Welcome");
        match body {
            Down::Welcome(_) => {
                assert!(!conn.welcomed, "one Welcome");
                conn.welcomed = true;
            }
            Down::SendResult(result) => self.told_sent(conn, &result),
            Down::Deliver(deliver) => {
                let cursor = self.told(conn, &deliver.cursor);
                self.told_message(conn, cursor);
            }
            Down::ReceiptUpdate(update) => {
                self.told(conn, &update.cursor);
            }
            Down::Gap(gap) => {
                self.told(conn, &gap.cursor);
            }
            Down::Error(_) | Down::GoAway(_) | Down::Typing(_) | Down::Pong(_) => {}
        }
    }

    /// R8, R12: only what is durable is confirmed, and as it is.
    fn told_sent(&self, conn: &Conn, result: &v1::SendResult) {
        let device = conn.device.expect("welcomed");
        let sent = self.sent.get(&(device, result.number));
        let sent = sent.expect("R8: confirmed and not committed");
        assert_eq!(result.position, sent.position.as_bytes()[..], "R12");
        assert_eq!(result.message_id, sent.message_id.get(), "R12");
    }

    /// R2: cursors grow; the window is kept.
    fn told(&self, conn: &mut Conn, cursor: &[u8]) -> Position {
        let cursor = Position::from_slice(cursor).expect("16 bytes");
        let last = conn.given.last();
        assert!(
            last.is_none_or(|last| *last < cursor),
            "R2: {cursor:?} again"
        );
        conn.given.push(cursor);
        let open = conn.given.iter().filter(|given| **given > conn.acked);
        assert!(open.count() <= DELIVER_WINDOW_ENTRIES_MAX);
        cursor
    }

    /// R1, R4: it is in the inbox, and what was left out before it had been acknowledged.
    fn told_message(&self, conn: &Conn, cursor: Position) {
        let device = conn.device.expect("welcomed");
        let inbox = self.inboxes.get(&device).expect("R1: somebody's message");
        assert!(inbox.contains(&cursor), "R1: {cursor:?} was never appended");
        let flushed = self.flushed.get(&device).copied().unwrap_or_default();
        let floor = flushed.max(conn.cursor);
        for left_out in inbox.range(..cursor).filter(|at| **at > floor) {
            let given = conn.given.binary_search(left_out).is_ok();
            assert!(given, "R4: {cursor:?} came and {left_out:?} had not");
        }
    }
}
