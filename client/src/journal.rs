//! What a device must not forget: its id, its numbers, its unconfirmed messages, its cursor.
//!
//! A device that forgot its numbers would reuse them for other messages and get the first answer
//! (R12); one that forgot its cursor would be shown messages again. So the client writes a record
//! *before* the frame that depends on it leaves, and replays the records when it starts.

mod file;
mod record;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, Position};

pub use self::file::FileJournal;
pub use crate::error::JournalError;

/// One change of what a device knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Record {
    /// The device's id, once, first.
    Device(DeviceId),
    /// The counter of the connection that is about to be made.
    Connect(u64),
    /// Numbers up to and including this one are used: 0 for a new device, and what the server says for
    /// one that lost its journal (R13).
    Numbers(u64),
    /// A message got its number.
    Send(Unconfirmed),
    /// The message of this number was confirmed or given up.
    Settled(u64),
    /// Everything up to here is stored by the application.
    Cursor(Position),
    /// A message goes to the server under another number from now on, or under none until it gets one:
    /// what had its number before was refused, for good, while its chat takes nothing, or never left.
    Renumbered {
        /// The number of its [`Send`](Record::Send).
        number: u64,
        /// What it is sent as, 0 while it waits without a number.
        sent_as: u64,
    },
}

impl Record {
    /// Whether a frame depends on it, so that it must be durable before the call returns. Losing one
    /// of the others costs a repeat, never a message.
    #[must_use]
    pub fn must_be_durable(&self) -> bool {
        !matches!(self, Self::Settled(_) | Self::Cursor(_))
    }
}

/// A message that the server has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Its number.
    pub number: u64,
    /// Its chat.
    pub chat: ChatId,
    /// Its content.
    pub payload: Bytes,
    /// When the application sent it, Unix time.
    pub sent_unix_ms: u64,
}

/// What all records together say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Saved {
    /// The device, unless nothing was ever written.
    pub device: Option<DeviceId>,
    /// The last connection's counter.
    pub connect_counter: u64,
    /// The highest number used.
    pub highest_number: u64,
    /// Whether that is known; else the server has to be asked before anything is sent.
    pub numbers_known: bool,
    /// Messages without an answer, by number.
    pub unconfirmed: BTreeMap<u64, Unconfirmed>,
    /// Of those, the ones that go under another number, or under none as long as that is 0.
    pub renumbered: BTreeMap<u64, u64>,
    /// The last inbox entry that is stored, with all before it.
    pub cursor: Position,
}

impl Saved {
    /// Takes one more record into account.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Device(device) => self.device = Some(*device),
            Record::Connect(counter) => self.connect_counter = self.connect_counter.max(*counter),
            Record::Numbers(number) => {
                self.numbers_known = true;
                self.highest_number = self.highest_number.max(*number);
            }
            Record::Send(message) => {
                self.highest_number = self.highest_number.max(message.number);
                self.unconfirmed.insert(message.number, message.clone());
            }
            Record::Settled(number) => {
                self.unconfirmed.remove(number);
                self.renumbered.remove(number);
            }
            Record::Cursor(cursor) => self.cursor = *cursor,
            Record::Renumbered { number, sent_as } => {
                self.highest_number = self.highest_number.max(*sent_as);
                if self.unconfirmed.contains_key(number) {
                    self.renumbered.insert(*number, *sent_as);
                }
            }
        }
    }

    /// The fewest records that say the same.
    #[must_use]
    pub fn to_records(&self) -> Vec<Record> {
        let mut records: Vec<Record> = self.device.map(Record::Device).into_iter().collect();
        records.push(Record::Connect(self.connect_counter));
        if self.numbers_known {
            records.push(Record::Numbers(self.highest_number));
        }
        records.push(Record::Cursor(self.cursor));
        records.extend(self.unconfirmed.values().cloned().map(Record::Send));
        let renumbered = self.renumbered.iter();
        records
            .extend(renumbered.map(|(&number, &sent_as)| Record::Renumbered { number, sent_as }));
        records
    }
}

/// Where the records are kept. Calls may block: the client makes them outside its event loop.
pub trait Journal: Send + fmt::Debug + 'static {
    /// Reads everything, once, before anything is appended.
    ///
    /// # Errors
    /// [`JournalError`]: the client does not start.
    fn load(&mut self) -> Result<Saved, JournalError>;

    /// Adds records, in order, all of them or a prefix. Durable on return if any of them
    /// [must be](Record::must_be_durable).
    ///
    /// # Errors
    /// [`JournalError`]: the client stops rather than send what it might forget.
    fn append(&mut self, records: &[Record]) -> Result<(), JournalError>;
}

/// A journal that lasts as long as the process: for tests and for devices that are meant to be new at
/// every start.
#[derive(Debug, Clone, Default)]
pub struct MemoryJournal {
    saved: Saved,
}

impl MemoryJournal {
    /// An empty one: a new device.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that starts with what an earlier one had.
    #[must_use]
    pub fn from_saved(saved: Saved) -> Self {
        Self { saved }
    }
}

impl Journal for MemoryJournal {
    fn load(&mut self) -> Result<Saved, JournalError> {
        Ok(self.saved.clone())
    }

    fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        records.iter().for_each(|record| self.saved.apply(record));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_records_say_the_same() {
        let saved = record::tests::sample_saved();
        let mut again = Saved::default();
        saved
            .to_records()
            .iter()
            .for_each(|record| again.apply(record));
        assert_eq!(again, saved);
    }

    #[test]
    fn df1_p35_a_number_that_a_message_left_is_never_free_again() {
        let mut saved = record::tests::sample_saved();
        let renumbered = |number, sent_as| Record::Renumbered { number, sent_as };
        assert!(renumbered(42, 90).must_be_durable());
        saved.apply(&renumbered(42, 90));
        assert_eq!(saved.highest_number, 90);
        saved.apply(&renumbered(42, 0));
        assert_eq!((saved.highest_number, saved.renumbered[&42]), (90, 0));
        // Of a message that is settled nothing is left but the numbers.
        saved.apply(&Record::Settled(42));
        saved.apply(&renumbered(42, 91));
        assert_eq!(saved.highest_number, 91);
        assert!(!saved.renumbered.contains_key(&42));
    }

    #[test]
    fn numbers_and_counters_never_fall() {
        let mut saved = Saved::default();
        for record in [
            Record::Connect(7),
            Record::Connect(3),
            Record::Numbers(9),
            Record::Numbers(2),
        ] {
            saved.apply(&record);
        }
        assert_eq!((saved.connect_counter, saved.highest_number), (7, 9));
    }
}
