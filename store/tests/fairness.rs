//! What one command, one inbox or one job may cost the others: D-F2, D-F3, D-F4, D-F9 (R16, R21, R25, R26).

mod rig;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use bytes::Bytes;
use rig::ask::{Ask, Memory, Who};
use rig::rules::{alice, bob, open_all};
use rig::{Rig, SHARD, device, item, user};
use roadstead::store::{
    CheckInbox, Command, InboxLimits, OpenDevice, Outcome, Request, RequestId, Sends, StoreError,
};
use roadstead_proto::Position;
use roadstead_store::Health;
use roadstead_store::embedded::SerialEngine;
use roadstead_store::keys::Keys;
use roadstead_store::records::held::{self, Count};
use roadstead_store::records::{Knowledge, inbox};
use roadstead_store::txn::{
    Engine, RangePage, RangeQuery, Read, Txn, TxnError, VALUE_BYTES_MAX, ready,
};

const T0: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

/// The id of a device whose record is to be found in a file.
const MARK: u32 = 0xa1b2_c3d4;

fn opening(id: u64) -> Command {
    opening_of((user(id), device(1)))
}

fn opening_of((user, device): Who) -> Command {
    Command::OpenDevice(OpenDevice {
        user,
        device,
        cursor: Position::ZERO,
        want_highest_number: false,
        unix_ms: 0,
        issued_s: 0,
    })
}

fn sending(from: Who, number: u64) -> Command {
    Command::Send(Sends {
        user: from.0,
        device: from.1,
        limits: InboxLimits::DEFAULT,
        items: vec![item(from, user(2), number, b"hello")],
    })
}

/// D-F4: what goes ahead of sends had all bytes of a batch, batch after batch, and a send was not even looked at.
#[test]
fn df4_r26_what_goes_ahead_leaves_every_batch_room_for_a_send() {
    // A quarter of the bytes is enough for all of them, and where nothing is left there is still one in each batch.
    for (ahead_bytes_max, sends) in [(6_144, 10), (8_192, 2)] {
        sends_beside_openings(ahead_bytes_max, sends);
    }
}

fn sends_beside_openings(ahead_bytes_max: usize, sends: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = std::sync::Arc::default();
    let mut config = rig::config(folder.path(), &clock);
    config.limits.batch_bytes_max = 8_192;
    config.limits.batch_ahead_bytes_max = ahead_bytes_max;
    let mut rig = Rig::with(config, clock);
    open_all(&mut rig, &[alice(), bob()]);
    // All of it waits before the committer looks at any of it.
    let openings = 2_000;
    let mut requests: Vec<Request> = (0..openings)
        .map(|id| Request {
            id: RequestId(1_000 + id),
            command: opening(1_000 + id),
        })
        .collect();
    for number in 1..=sends {
        requests.push(Request {
            id: RequestId(number),
            command: sending(alice(), number),
        });
    }
    assert!(rig.store.handle().submit(SHARD, requests).is_empty());
    let mut before = Vec::new();
    for answered in 0..openings + sends {
        let completion = rig.wait();
        assert!(completion.outcome.is_ok());
        if completion.id.0 <= sends {
            before.push(answered);
        }
    }
    assert!(
        before.last().is_some_and(|last| *last < openings / 4),
        "the sends were answered behind {before:?} of {openings} openings"
    );
}

/// Reads keys by themselves, and refuses to read ranges.
struct Points<T>(T);

impl<T: Txn> Txn for Points<T> {
    async fn get(&mut self, key: &[u8], read: Read) -> Result<Option<Bytes>, TxnError> {
        self.0.get(key, read).await
    }

    async fn range(&mut self, query: RangeQuery<'_>) -> Result<RangePage, TxnError> {
        panic!("a range was read: {}", query.from.escape_ascii());
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        self.0.set(key, value);
    }

    fn clear(&mut self, key: &[u8]) {
        self.0.clear(key);
    }

    fn clear_range(&mut self, from: &[u8], to: &[u8]) {
        self.0.clear_range(from, to);
    }

    fn set_versionstamped_key(&mut self, prefix: &[u8], index: u16, suffix: &[u8], value: Bytes) {
        self.0.set_versionstamped_key(prefix, index, suffix, value);
    }

    fn set_versionstamped_value(&mut self, key: &[u8], prefix: &[u8], index: u16, suffix: &[u8]) {
        self.0.set_versionstamped_value(key, prefix, index, suffix);
    }

    fn atomic_add(&mut self, key: &[u8], delta: u64) {
        self.0.atomic_add(key, delta);
    }

    async fn commit(self) -> Result<[u8; 10], TxnError> {
        self.0.commit().await
    }
}

/// D-F3: a count read all that an inbox held, up to 650 MB, while nothing could be committed.
#[test]
fn df3_r21_a_look_at_an_inbox_reads_none_of_its_entries() {
    let mut store = Memory::new();
    open_all(&mut store, &[alice(), bob()]);
    for number in 1..=30 {
        store.send(alice(), user(2), number);
    }
    let check = CheckInbox {
        user: bob().0,
        device: bob().1,
        limits: InboxLimits {
            entries_max: 29,
            bytes_max: 1 << 20,
        },
    };
    let mut knowledge = Knowledge::of_one_among_many(2);
    // The newest minute is known: it is read once in the life of a committer.
    store.stamp_in(&mut knowledge);
    let mut scope = store.scope(&mut knowledge);
    let mut txn = Points(store.engine.begin());
    let checked = ready(inbox::check(&mut scope, &mut txn, &check)).expect("looks");
    assert!(checked.0, "it holds one too many");
}

/// What inboxes of an older store hold is counted once, in pieces, when it is opened.
#[test]
fn df3_r21_inboxes_without_a_counter_are_counted_once() {
    let mut store = Memory::new();
    let carol = (user(3), device(3));
    open_all(&mut store, &[alice(), bob(), carol]);
    for hundred in 0..25 {
        let numbers = hundred * 100 + 1..=hundred * 100 + 100;
        let items = numbers.map(|number| item(alice(), user(2), number, b"x"));
        store.sends(alice(), items.collect());
    }
    store.send(alice(), carol.0, 2_501);
    let half = rig::rules::cursors(&mut store, bob())[499];
    store.flush(bob(), half);
    let held = |store: &Memory, who| {
        let mut knowledge = Knowledge::of_one_among_many(2);
        let scope = store.scope(&mut knowledge);
        ready(held::load(
            &scope,
            &mut store.engine.begin(),
            who,
            Read::Snapshot,
        ))
        .expect("reads")
    };
    let counted = [bob(), carol].map(|who| held(&store, who));
    assert_eq!(counted[0].entries, 2_000);
    // As a version without counters has left it.
    let mut txn = store.engine.begin();
    for who in [bob(), carol] {
        txn.clear(&store.keys.held(who.0, who.1));
    }
    ready(txn.commit()).expect("commits");
    let mut knowledge = Knowledge::of_one_among_many(2);
    let scope = store.scope(&mut knowledge);
    let mut count = ready(Count::begin(&mut store.engine.begin())).expect("begins");
    let mut steps = 0;
    while !count.is_done() {
        let mut txn = store.engine.begin();
        count = ready(count.step(&scope, &mut txn)).expect("counts");
        ready(txn.commit()).expect("commits");
        steps += 1;
    }
    assert_eq!(steps, 2, "a piece at a time");
    assert_eq!([bob(), carol].map(|who| held(&store, who)), counted);
    let again = ready(Count::begin(&mut store.engine.begin())).expect("begins");
    assert!(again.is_done(), "once in the life of a store");
}

/// And the embedded store counts them before it serves.
#[test]
fn df3_r21_a_store_without_counters_is_counted_as_it_opens() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = std::sync::Arc::default();
    let config = rig::config(folder.path(), &clock);
    let mut rig = Rig::with(config.clone(), clock.clone());
    open_all(&mut rig, &[alice(), bob()]);
    for number in 1..=3 {
        rig.send(alice(), bob().0, number);
    }
    let keys = Keys::new(rig.store.placement_key());
    rig.store.stop();
    // As a version without counters has left it.
    let engine = SerialEngine::open(&config).expect("opens");
    let clear = engine.transact(async |txn: &mut _| {
        Txn::clear(txn, &keys.held(bob().0, bob().1));
        Txn::clear(txn, &Keys::counted());
    });
    ready(clear).1.expect("commits");
    drop(engine);
    let mut rig = Rig::with(config, clock);
    assert!(!rig.check(bob(), 3).0);
    assert!(rig.check(bob(), 2).0, "it holds three");
}

/// D-F9: whoever wrote to a user whose record lay in a damaged block of the database reopened the store for all.
#[test]
fn df9_r10_a_damaged_block_costs_who_asks_for_it_and_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = std::sync::Arc::default();
    let config = rig::config(folder.path(), &clock);
    let mut rig = Rig::with(config.clone(), clock.clone());
    open_all(&mut rig, &[alice(), bob()]);
    // The record of the one in the middle of all, by its slot: far from everything that the store itself needs.
    let key = Keys::new(rig.store.placement_key());
    let mut ids: Vec<u64> = (100_000..103_000).collect();
    ids.sort_by_key(|id| key.versions(user(*id)).to_vec());
    let victim = ids[1_500];
    for id in &ids {
        let device = device(if *id == victim { MARK } else { 1 });
        rig.submit(opening_of((user(*id), device)));
    }
    for _ in &ids {
        rig.wait();
    }
    rig.store.stop();
    // What is in the log goes into one table when it is read back.
    Rig::with(config.clone(), clock.clone()).store.stop();
    assert!(damage(folder.path(), &MARK.to_be_bytes()) > 0);
    let mut rig = Rig::with(config, clock);
    let (answers, _) = rig.sends(alice(), vec![item(alice(), user(victim), 1, b"x")]);
    assert_eq!(answers, [Err(StoreError::RecordDamaged)]);
    rig.send(alice(), bob().0, 2);
    assert_eq!(rig.store.handle().health(), Health::Ready);
    assert_eq!(rig.store.handle().counters().commit.failures.get(), 0);
}

/// D-F9: the same of a command that writes more than a transaction may.
#[test]
fn df9_r10_a_send_that_writes_too_much_fails_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    open_all(&mut rig, &[alice(), bob()]);
    let items = vec![
        item(alice(), bob().0, 1, &[7; VALUE_BYTES_MAX + 1]),
        item(alice(), bob().0, 2, b"x"),
    ];
    let (answers, _) = rig.sends(alice(), items);
    assert_eq!(answers[0], Err(StoreError::RecordDamaged));
    assert!(answers[1].is_ok(), "{answers:?}");
    let handle = rig.store.handle();
    let counters = &handle.counters().commit;
    assert_eq!((counters.own_errors.get(), counters.failures.get()), (1, 0));
}

/// Flips a bit wherever these bytes stand in the tables. How many.
fn damage(folder: &std::path::Path, bytes: &[u8]) -> usize {
    let mut flipped = 0;
    let mut folders = vec![folder.join("tables")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut file = std::fs::read(&path).expect("reads");
            let places: Vec<usize> = file
                .windows(bytes.len())
                .enumerate()
                .filter_map(|(at, window)| (window == bytes).then_some(at))
                .collect();
            for place in &places {
                file[*place] ^= 1;
            }
            if !places.is_empty() {
                std::fs::write(&path, file).expect("writes");
            }
            flipped += places.len();
        }
    }
    flipped
}

/// D-F2, on a store whose notes are older than the cut: the job visits them page by page, in the commits of others, and
/// neither reservations nor sends wait for it.
#[test]
fn df2_r24_r25_nothing_waits_for_an_expiry_of_many_notes() {
    expiry_beside_load(30_000);
}

/// The same with a million, as a node of a large service has them in a day. Run by `cargo xtask long`.
#[test]
#[ignore = "takes minutes: cargo xtask long"]
fn df2_r24_r25_nothing_waits_for_an_expiry_of_a_million_notes() {
    expiry_beside_load(1_000_000);
}

fn expiry_beside_load(notes: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let clock = std::sync::Arc::default();
    let config = rig::config(folder.path(), &clock);
    let mut rig = Rig::with(config.clone(), clock.clone());
    open_all(&mut rig, &[alice(), bob()]);
    let handle = rig.store.handle();
    assert_eq!(handle.stamp_minute(T0), Ok(true));
    rig.send(alice(), bob().0, 1);
    assert_eq!(handle.stamp_minute(T0 + MINUTE), Ok(true));
    let keys = Keys::new(rig.store.placement_key());
    rig.store.stop();
    write_notes(&config, keys, notes);

    let mut rig = Rig::with(config, clock);
    let handle = rig.store.handle();
    for days in [33, 33] {
        let _ = handle.stamp_minute(T0 + days * DAY);
    }
    let commits_before = handle.counters().commit.commits.get();
    let is_done = AtomicBool::new(false);
    let (mut reserved, mut sent, mut number) = (0, 0, 1);
    let expired = std::thread::scope(|scope| {
        let expiry = scope.spawn(|| {
            let expired = handle.expire(None).expect("runs");
            is_done.store(true, SeqCst);
            expired
        });
        while !is_done.load(SeqCst) {
            handle.reserve_message_ids(T0).expect("reserves");
            reserved += 1;
            number += 1;
            rig.send(alice(), bob().0, number);
            sent += 1;
        }
        expiry.join().expect("ends")
    });
    let commits = handle.counters().commit.commits.get() - commits_before;
    assert!(
        expired.visited > notes && expired.removed == 1,
        "{expired:?}"
    );
    assert!(reserved > 1 && sent > 1, "{reserved} and {sent} meanwhile");
    // One piece of at most 128 notes in each commit, whoever it is for.
    assert!(commits >= notes / 128, "{commits} commits");
    let own = commits - reserved - sent;
    assert!(own <= notes / 64, "{own} commits of its own");
    // Notes that stand for nothing any more went in the commits that found that out.
    let again = handle.expire(None).expect("runs");
    assert!(again.visited < 10, "{again:?}");
    // And once a day is done it is done.
    assert_eq!(handle.expire(Some(again.day)).expect("runs").visited, 0);
}

/// Notes of as many devices, from a day long past.
fn write_notes(config: &roadstead_store::EmbeddedConfig, keys: Keys, notes: u64) {
    let engine = SerialEngine::open(config).expect("opens");
    let day = u32::try_from(T0 / DAY).expect("a day") - 5;
    let mut ids = 1_000_000..1_000_000 + notes;
    loop {
        let batch: Vec<u64> = ids.by_ref().take(10_000).collect();
        if batch.is_empty() {
            return;
        }
        let write = engine.transact(async |txn: &mut _| {
            for id in &batch {
                Txn::set(txn, &keys.expiry(day, user(*id), device(1)), Bytes::new());
            }
        });
        ready(write).1.expect("commits");
    }
}

/// D-F3: a removed device's inbox goes in pieces, none of them larger than a batch.
#[test]
fn df3_r13_a_removed_device_is_cleaned_away_in_pieces() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut rig = Rig::open(folder.path());
    open_all(&mut rig, &[alice(), bob()]);
    for hundred in 0..8 {
        let numbers = hundred * 100 + 1..=hundred * 100 + 100;
        let items = numbers.map(|number| item(alice(), user(2), number, b"x"));
        rig.sends(alice(), items.collect());
    }
    let commits = |rig: &Rig| rig.store.handle().counters().commit.commits.get();
    let before = commits(&rig);
    let removed = rig.store.handle().remove_device(bob().0, bob().1);
    assert_eq!(removed, Ok(true));
    assert!(commits(&rig) - before >= 4, "one for the list, and pieces");
    assert!(rig.entries(bob()).is_empty());
    let Outcome::InboxChecked { suspended, .. } = rig
        .ask(Command::CheckInbox(CheckInbox {
            user: bob().0,
            device: bob().1,
            limits: InboxLimits::DEFAULT,
        }))
        .expect("looks")
    else {
        panic!("another answer");
    };
    assert!(!suspended);
}
