//! Anything that carries out commands: the embedded store, or records on the engine in memory.

use roadstead::store::{
    CheckInbox, Command, DeviceOpened, Entry, EntryBody, Flush, Grown, InboxLimits, InboxPage,
    KnownEntries, MarkRead, OpenDevice, Outcome, ReadInbox, SendItem, Sends, Sent, StoreError,
};
use roadstead_proto::v1::ReceiptUpdate;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};
use roadstead_store::keys::Keys;
use roadstead_store::memory::{MemoryEngine, MemoryTxn};
use roadstead_store::records::{Knowledge, RecordError, Scope, command, meta, minutes, resolve};
use roadstead_store::txn::{STAMP_INCOMPLETE, Txn, TxnError, ready};

use super::{Rig, item};

pub(crate) type Who = (UserId, DeviceId);

pub(crate) trait Ask {
    fn ask(&mut self, command: Command) -> Result<Outcome, StoreError>;

    fn open(&mut self, who: Who) -> DeviceOpened {
        self.open_at(who, Position::ZERO).expect("opens")
    }

    fn open_at(&mut self, who: Who, cursor: Position) -> Result<DeviceOpened, StoreError> {
        let open = OpenDevice {
            user: who.0,
            device: who.1,
            cursor,
            want_highest_number: true,
            unix_ms: 1,
            issued_s: 0,
        };
        match self.ask(Command::OpenDevice(open))? {
            Outcome::DeviceOpened(opened) => Ok(opened),
            other => panic!("{other:?}"),
        }
    }

    fn try_sends(&mut self, sends: Sends) -> Vec<Result<Sent, StoreError>> {
        match self.ask(Command::Send(sends)) {
            Ok(Outcome::Sent { answers, .. }) => answers,
            other => panic!("{other:?}"),
        }
    }

    fn sends(
        &mut self,
        from: Who,
        items: Vec<SendItem>,
    ) -> (Vec<Result<Sent, StoreError>>, Vec<Grown>) {
        let sends = Sends {
            user: from.0,
            device: from.1,
            limits: InboxLimits::DEFAULT,
            items,
        };
        match self.ask(Command::Send(sends)) {
            Ok(Outcome::Sent { answers, grown }) => (answers, grown),
            other => panic!("{other:?}"),
        }
    }

    fn try_send(&mut self, from: Who, to: UserId, number: u64) -> Result<Sent, StoreError> {
        self.sends(from, vec![item(from, to, number, b"hello")]).0[0]
    }

    fn send(&mut self, from: Who, to: UserId, number: u64) -> Sent {
        self.try_send(from, to, number).expect("committed")
    }

    fn page(&mut self, who: Who, after: Position, limits: (usize, usize)) -> InboxPage {
        let read = ReadInbox {
            user: who.0,
            device: who.1,
            after,
            entries_max: limits.0,
            bytes_max: limits.1,
        };
        match self.ask(Command::ReadInbox(read)) {
            Ok(Outcome::Inbox(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    fn entries(&mut self, who: Who) -> Vec<Entry> {
        self.page(who, Position::ZERO, (10_000, 1 << 24)).entries
    }

    fn receipts(&mut self, who: Who) -> Vec<ReceiptUpdate> {
        let entries = self.entries(who).into_iter();
        entries
            .filter_map(|entry| match entry.body {
                EntryBody::Receipt(update) => Some(update),
                EntryBody::Message { .. } | EntryBody::Gap(_) => None,
            })
            .collect()
    }

    fn try_flush(
        &mut self,
        who: Who,
        upto: Position,
        known: Option<KnownEntries>,
    ) -> Result<(Position, Vec<Grown>), StoreError> {
        let flush = Flush {
            user: who.0,
            device: who.1,
            upto,
            known,
        };
        match self.ask(Command::Flush(flush))? {
            Outcome::Flushed {
                more: true, grown, ..
            } => {
                let rest = self.try_flush(who, upto, None)?;
                Ok((rest.0, [grown, rest.1].concat()))
            }
            Outcome::Flushed {
                stored_ack, grown, ..
            } => Ok((stored_ack, grown)),
            other => panic!("{other:?}"),
        }
    }

    fn flush(&mut self, who: Who, upto: Position) -> Vec<Grown> {
        let (stored_ack, grown) = self.try_flush(who, upto, None).expect("flushes");
        assert!(stored_ack >= upto);
        grown
    }

    fn mark_read(&mut self, who: Who, chat: ChatId, position: Position) -> Vec<Grown> {
        let mark = MarkRead {
            user: who.0,
            device: who.1,
            chat,
            position,
        };
        match self.ask(Command::MarkRead(mark)) {
            Ok(Outcome::MarkedRead { grown }) => grown,
            other => panic!("{other:?}"),
        }
    }

    fn check(&mut self, who: Who, entries_max: u64) -> (bool, Vec<Grown>) {
        let limits = InboxLimits {
            entries_max,
            ..InboxLimits::DEFAULT
        };
        self.check_limits(who, limits)
    }

    fn check_limits(&mut self, who: Who, limits: InboxLimits) -> (bool, Vec<Grown>) {
        let check = CheckInbox {
            user: who.0,
            device: who.1,
            limits,
        };
        match self.ask(Command::CheckInbox(check)) {
            Ok(Outcome::InboxChecked { suspended, grown }) => (suspended, grown),
            other => panic!("{other:?}"),
        }
    }
}

impl Ask for Rig {
    fn ask(&mut self, command: Command) -> Result<Outcome, StoreError> {
        Rig::ask(self, command)
    }
}

/// Records on the engine in memory: one command, one transaction, tried again on a conflict.
pub(crate) struct Memory {
    pub(crate) engine: MemoryEngine,
    pub(crate) keys: Keys,
    pub(crate) generation: u32,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let engine = MemoryEngine::new();
        let proposed = meta::Meta {
            generation: 1,
            placement_key: [7; 16],
        };
        let mut txn = engine.begin();
        let meta = ready(meta::load_or_init(&mut txn, proposed)).expect("new");
        ready(txn.commit()).expect("commits");
        Self {
            engine,
            keys: Keys::new(meta.placement_key),
            generation: meta.generation,
        }
    }

    /// What the commands of one transaction share.
    pub(crate) fn scope<'a>(&'a self, knowledge: &'a mut Knowledge) -> Scope<'a> {
        Scope {
            keys: &self.keys,
            generation: self.generation,
            stamp: STAMP_INCOMPLETE,
            committed: Position::end_of(self.generation, self.engine.last_stamp()),
            next_index: 0,
            knowledge,
        }
    }

    /// Lets the newest minute be known, as a committer does that has written before.
    pub(crate) fn stamp_in(&self, knowledge: &mut Knowledge) {
        let mut scope = self.scope(knowledge);
        let mut txn = self.engine.begin();
        ready(minutes::stamp(&mut scope, &mut txn, 1, true)).expect("stamps");
    }

    /// One try: the outcome, or why the transaction failed.
    pub(crate) fn attempt(
        &self,
        command: &Command,
    ) -> Result<Result<Outcome, StoreError>, TxnError> {
        let (txn, outcome) = self.prepare(command)?;
        let Ok(mut outcome) = outcome else {
            return Ok(outcome);
        };
        resolve(&mut outcome, ready(txn.commit())?);
        Ok(Ok(outcome))
    }

    /// Runs a command in a transaction and does not commit it yet.
    pub(crate) fn prepare(
        &self,
        command: &Command,
    ) -> Result<(MemoryTxn, Result<Outcome, StoreError>), TxnError> {
        let mut txn = self.engine.begin();
        let mut knowledge = Knowledge::of_one_among_many(2);
        let mut scope = self.scope(&mut knowledge);
        match ready(command::run(&mut scope, &mut txn, command)) {
            Ok(done) => Ok((txn, Ok(done.outcome))),
            Err(RecordError::Refused(error)) => Ok((txn, Err(error))),
            Err(RecordError::Txn(error)) => Err(error),
        }
    }
}

impl Ask for Memory {
    fn ask(&mut self, command: Command) -> Result<Outcome, StoreError> {
        loop {
            match self.attempt(&command) {
                Ok(outcome) => return outcome,
                // R15: k/ tells whether it happened.
                Err(TxnError::Conflict | TxnError::UnknownResult) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
