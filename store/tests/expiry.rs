//! Expiry by the store's own time (R25), on the embedded engine and in memory.

mod rig;

use bytes::Bytes;
use rig::Rig;
use rig::ask::{Ask, Memory};
use rig::rules::{alice, bob, bob_tablet, chat, cursors, open_all};
use roadstead::store::{EntryBody, StoreError};
use roadstead_proto::Position;
use roadstead_store::keys::Keys;
use roadstead_store::records::expiry::{self, Budget, minute_of};
use roadstead_store::records::minutes::{self, Doubt, Stamped};
use roadstead_store::records::{Knowledge, RecordError, Scope};
use roadstead_store::txn::{RangeQuery, STAMP_INCOMPLETE, Txn, ready};

const T0: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// A store whose minutes are stamped and whose entries go by age.
trait Ages: Ask {
    /// Whether the minute is stamped.
    fn stamp(&mut self, unix_ms: u64) -> bool;

    /// How many entries the job removed.
    fn expire(&mut self) -> u64;

    /// Time passes, in one go: the clock has to prove itself first.
    fn passes_to(&mut self, unix_ms: u64) {
        assert!(self.stamp(unix_ms) || self.stamp(unix_ms));
    }
}

impl Ages for Rig {
    fn stamp(&mut self, unix_ms: u64) -> bool {
        self.store.handle().stamp_minute(unix_ms).expect("commits")
    }

    fn expire(&mut self) -> u64 {
        self.store.handle().expire(None).expect("commits").removed
    }
}

/// The records in memory, and what the driver of a node that is alone remembers.
struct Alone(Memory, Doubt);

impl Alone {
    fn transact<R>(
        &mut self,
        run: impl FnOnce(
            &mut Scope<'_>,
            &mut roadstead_store::memory::MemoryTxn,
        ) -> Result<R, RecordError>,
    ) -> R {
        let memory = &self.0;
        let committed = Position::end_of(memory.generation, memory.engine.last_stamp());
        let mut txn = memory.engine.begin();
        let mut scope = Scope {
            keys: &memory.keys,
            generation: memory.generation,
            stamp: STAMP_INCOMPLETE,
            committed,
            next_index: 0,
            knowledge: &mut Knowledge::of_one_among_many(2),
        };
        let result = run(&mut scope, &mut txn).expect("is carried out");
        ready(txn.commit()).expect("commits");
        result
    }

    /// All minutes that have a stamp.
    fn minutes(&self) -> Vec<u32> {
        let (from, to) = (Keys::minute(0), Keys::minute(u32::MAX));
        let mut txn = self.0.engine.begin();
        let page = ready(txn.range(RangeQuery::all(&from, &to))).expect("reads");
        let minute_of_key = |(key, _): &(Bytes, Bytes)| {
            let minute = key[key.len() - 4..].try_into().expect("four bytes");
            u32::from_be_bytes(minute)
        };
        page.pairs.iter().map(minute_of_key).collect()
    }
}

impl Ask for Alone {
    fn ask(
        &mut self,
        command: roadstead::store::Command,
    ) -> Result<roadstead::store::Outcome, StoreError> {
        self.0.ask(command)
    }
}

impl Ages for Alone {
    fn stamp(&mut self, unix_ms: u64) -> bool {
        let minute = minute_of(unix_ms);
        let agreed = self.1.confirms(minute);
        let stamped = self.transact(|scope, txn| ready(minutes::stamp(scope, txn, minute, agreed)));
        self.1.note(minute, stamped);
        stamped == Stamped::Yes
    }

    fn expire(&mut self) -> u64 {
        let mut progress = self.transact(|scope, txn| ready(expiry::begin(scope, txn, None)));
        while !progress.is_done() {
            progress = self.transact(|scope, txn| {
                ready(expiry::step(scope, txn, progress, Budget::OF_A_BATCH))
            });
        }
        progress.removed
    }
}

macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod in_memory { $(#[test] fn $name() {
            super::$name(&mut super::Alone(super::Memory::new(), super::Doubt::default()));
        })* }
        mod embedded { $(#[test] fn $name() {
            let folder = tempfile::tempdir().expect("a folder");
            super::$name(&mut super::Rig::open(folder.path()));
        })* }
    };
}

on_both! {
    r25_an_entry_goes_when_it_is_old_enough_and_no_other,
    r25_an_inbox_that_gets_only_receipts_is_visited,
    r25_an_inbox_that_gets_only_a_gap_is_visited,
    r25_what_was_written_before_the_first_minute_is_visited,
    r25_every_day_on_which_something_came_is_visited,
    r25_a_clock_that_nobody_agrees_with_removes_nothing,
    r21_a_suspension_ends_with_a_gap_that_has_expired,
}

fn r25_an_entry_goes_when_it_is_old_enough_and_no_other(store: &mut impl Ages) {
    open_all(store, &[alice(), bob()]);
    store.passes_to(T0);
    let old = store.send(alice(), bob().0, 1).position;
    store.passes_to(T0 + MINUTE);
    let young = store.send(alice(), bob().0, 2).position;
    store.passes_to(T0 + 30 * DAY);
    assert_eq!(store.expire(), 0, "a minute too early");
    store.passes_to(T0 + 30 * DAY + MINUTE);
    assert_eq!(store.expire(), 1);
    assert_eq!(store.expire(), 0, "nothing is left");
    assert_eq!(cursors(store, bob()), [young]);
    let opened = store.open_at(bob(), Position::ZERO).expect("opens");
    assert_eq!(opened.expired_through, old);
}

/// Alice's device gets nothing but the news that Bob has her messages.
fn r25_an_inbox_that_gets_only_receipts_is_visited(store: &mut impl Ages) {
    open_all(store, &[alice(), bob()]);
    store.passes_to(T0);
    let sent = store.send(alice(), bob().0, 1).position;
    store.flush(bob(), sent);
    store.mark_read(bob(), chat(), sent);
    assert_eq!(store.receipts(alice()).len(), 1);
    store.passes_to(T0 + MINUTE);
    store.passes_to(T0 + 31 * DAY);
    assert_eq!(store.expire(), 1);
    assert_eq!(cursors(store, alice()), []);
}

/// What came before the Gap goes ten days earlier, and its note with it.
fn r25_an_inbox_that_gets_only_a_gap_is_visited(store: &mut impl Ages) {
    suspend_after_ten_days(store);
    store.passes_to(T0 + 35 * DAY);
    assert_eq!(store.expire(), 1, "the message");
    store.passes_to(T0 + 41 * DAY);
    assert_eq!(store.expire(), 1, "the gap");
    assert_eq!(cursors(store, bob()), []);
}

/// A message on the first day; on the tenth, the inbox is found to be over its limit.
fn suspend_after_ten_days(store: &mut impl Ages) {
    open_all(store, &[alice(), bob()]);
    store.passes_to(T0);
    store.send(alice(), bob().0, 1);
    store.passes_to(T0 + MINUTE);
    store.passes_to(T0 + 10 * DAY);
    let (suspended, grown) = store.check(bob(), 0);
    assert!(suspended && matches!(grown[0].entry, Some(EntryBody::Gap(_))));
    store.passes_to(T0 + 10 * DAY + MINUTE);
}

fn r25_what_was_written_before_the_first_minute_is_visited(store: &mut impl Ages) {
    open_all(store, &[alice(), bob()]);
    store.send(alice(), bob().0, 1);
    store.passes_to(T0);
    store.passes_to(T0 + 30 * DAY);
    assert_eq!(store.expire(), 1);
}

fn r25_every_day_on_which_something_came_is_visited(store: &mut impl Ages) {
    open_all(store, &[alice(), bob(), bob_tablet()]);
    for day in 0..40 {
        store.passes_to(T0 + day * DAY);
        store.send(alice(), bob().0, day + 1);
        store.passes_to(T0 + day * DAY + MINUTE);
        store.expire();
        // What came on a day goes 30 days after the minute behind it.
        let kept = usize::try_from((day + 1).min(30)).expect("few");
        for device in [bob(), bob_tablet()] {
            assert_eq!(
                cursors(store, device).len(),
                kept,
                "{device:?} on day {day}"
            );
        }
    }
}

/// The clock of this host is a year ahead. Nothing is stamped by it, so nothing is old (R25).
fn r25_a_clock_that_nobody_agrees_with_removes_nothing(store: &mut impl Ages) {
    open_all(store, &[alice(), bob()]);
    store.passes_to(T0);
    store.send(alice(), bob().0, 1);
    store.passes_to(T0 + MINUTE);
    assert!(!store.stamp(T0 + 365 * DAY));
    assert_eq!(store.expire(), 0);
    assert!(store.stamp(T0 + 2 * MINUTE), "it was set right");
    assert_eq!(store.expire(), 0);
    assert_eq!(cursors(store, bob()).len(), 1);
}

/// R21: limits do not deadlock. The Gap whose acknowledgement would end the suspension is gone, and what
/// expired is told in its place.
fn r21_a_suspension_ends_with_a_gap_that_has_expired(store: &mut impl Ages) {
    suspend_after_ten_days(store);
    let full = Err(StoreError::RecipientFull);
    let first = cursors(store, bob())[0];
    store.passes_to(T0 + 41 * DAY);
    assert_eq!(store.expire(), 2);
    let opened = store.open_at(bob(), Position::ZERO).expect("opens");
    assert_eq!(
        store.try_send(alice(), bob().0, 2),
        full,
        "it is not told yet"
    );
    store.flush(bob(), first);
    assert_eq!(
        store.try_send(alice(), bob().0, 3),
        full,
        "nor acknowledged"
    );
    store.flush(bob(), opened.expired_through);
    store.send(alice(), bob().0, 4);
    assert_eq!(cursors(store, bob()).len(), 1);
}

/// Ten years of minutes are five million, and each of them is as good as another of its day once no entry is
/// as old.
#[test]
fn r24_minutes_older_than_entries_are_kept_one_a_day() {
    let mut store = Alone(Memory::new(), Doubt::default());
    let (a_minute, a_day) = (minute_of(MINUTE), minute_of(DAY));
    let first = minute_of(T0);
    for day in [0, 1, 2, 31, 32] {
        for minute in 0..3 {
            store.passes_to(T0 + day * DAY + minute * MINUTE);
        }
    }
    assert_eq!(store.minutes().len(), 15);
    store.expire();
    // Entries are as old as the last of these minutes, by which they go.
    let cut = first + 2 * a_day + 2 * a_minute;
    let old = [first, first + a_day, first + 2 * a_day, cut];
    let minutes = store.minutes();
    let (older, young) = minutes.split_at(4);
    assert_eq!(older, old, "the first of each day");
    assert_eq!(young.len(), 6, "and all that entries may be as old as");
}

/// The note is the cost of the first entry of a day alone, whatever kind the others are of.
#[test]
fn r25_a_device_is_noted_once_a_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut store = Rig::open(folder.path());
    open_all(&mut store, &[alice(), bob()]);
    store.passes_to(T0);
    let writes_of = |store: &mut Rig, number| {
        let writes = |store: &Rig| store.store.handle().counters().commit.writes.get();
        let before = writes(store);
        let sent = store.send(alice(), bob().0, number).position;
        let sent_writes = writes(store) - before;
        store.flush(bob(), sent);
        let receipts: Vec<Position> = cursors(store, alice());
        let flushed_writes = writes(store) - before - sent_writes;
        store.flush(alice(), receipts[0]);
        (sent_writes, flushed_writes)
    };
    let first = writes_of(&mut store, 1);
    let second = writes_of(&mut store, 2);
    assert_eq!(second, (first.0 - 1, first.1 - 1), "without the notes");
    assert_eq!(writes_of(&mut store, 3), second);
    store.passes_to(T0 + DAY);
    assert_eq!(writes_of(&mut store, 4), first, "another day");
    assert_eq!(writes_of(&mut store, 5), second);
}
