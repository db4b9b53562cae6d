//! The embedded engine beside its records: queues, batches, growth, ids, minutes, age.

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rig::ask::{Ask, Who};
use rig::{PATIENCE, Rig, SHARD, config, device, item, user};
use roadstead::store::{
    Command, Completion, Flush, InboxLimits, OpenDevice, Outcome, Request, RequestId, Sends,
    StoreError,
};
use roadstead::time::Time;
use roadstead::{Ended, ShardId};
use roadstead_proto::{MessageId, Position};
use roadstead_store::{EmbeddedConfig, EmbeddedStore, Handle, Health, OpenError};

const T0: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;

fn alice() -> Who {
    (user(1), device(1))
}

fn bob() -> Who {
    (user(2), device(2))
}

fn pair(folder: &tempfile::TempDir) -> Rig {
    let mut rig = Rig::open(folder.path());
    rig.open(alice());
    rig.open(bob());
    rig
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn a_store_is_open_once() {
    let folder = folder();
    let rig = Rig::open(folder.path());
    let config = config(folder.path(), &rig.clock);
    let second = EmbeddedStore::open(config, Arc::new(|_, _| {}));
    assert!(matches!(second, Err(OpenError::InUse(path)) if path == folder.path()));
}

#[test]
fn r4_growth_names_the_entry_before_it() {
    let folder = folder();
    let mut rig = pair(&folder);
    let mut before = Some(Position::ZERO);
    for number in 1..=3 {
        let (_, grown) = rig.sends(alice(), vec![item(alice(), bob().0, number, b"hello")]);
        assert_eq!(grown[0].previous, before);
        assert!(grown[0].entry.is_some());
        before = Some(grown[0].cursor);
    }
    let receipts = rig.flush(bob(), before.expect("sent"));
    assert_eq!(receipts[0].previous, Some(Position::ZERO));
    drop(rig);
    let mut rig = Rig::open(folder.path());
    let (_, grown) = rig.sends(alice(), vec![item(alice(), bob().0, 4, b"hello")]);
    assert_eq!(grown[0].previous, None, "after a restart nobody knows");
}

#[test]
fn r13_a_removed_device_stays_removed() {
    let folder = folder();
    let mut rig = pair(&folder);
    let sent = rig.send(alice(), bob().0, 1).position;
    let handle = rig.store.handle();
    assert_eq!(handle.remove_device(bob().0, bob().1), Ok(true));
    assert_eq!(handle.remove_device(bob().0, bob().1), Ok(false));
    let gone = Err(StoreError::DeviceRemoved);
    assert_eq!(rig.open_at(bob(), Position::ZERO), gone);
    assert!(rig.try_flush(bob(), sent, None).is_err());
    assert!(rig.entries(bob()).is_empty());
    assert_eq!(
        rig.try_send(alice(), bob().0, 2),
        Err(StoreError::UserUnknown)
    );
    assert_eq!(
        rig.try_send(bob(), alice().0, 1),
        gone.map(|_| unreachable!())
    );
}

#[test]
fn df15_p14_a_user_who_was_signed_out_shows_another_token() {
    let folder = folder();
    let mut rig = pair(&folder);
    let handle = rig.store.handle();
    let (told, ended) = unbounded();
    handle.tell_ends_to(Arc::new(move |ended| told.send(ended).expect("heard")));
    let open = |who: Who, issued_s| {
        Command::OpenDevice(OpenDevice {
            user: who.0,
            device: who.1,
            cursor: Position::ZERO,
            want_highest_number: false,
            unix_ms: T0,
            issued_s,
        })
    };
    assert_eq!(handle.sign_out_user(bob().0, 1_000), Ok(true));
    assert_eq!(
        handle.sign_out_user(bob().0, 999),
        Ok(false),
        "it only grows"
    );
    // One who is not known yet, so that a token that was stolen before registers nobody.
    let nobody = (user(9), device(9));
    assert_eq!(handle.sign_out_user(nobody.0, 5), Ok(true));
    for who in [bob(), (bob().0, device(77)), nobody] {
        let refused = rig.ask(open(who, 4)).expect_err("signed out");
        assert_eq!(refused, StoreError::SignedOut);
    }
    assert!(rig.ask(open(bob(), 1_000)).is_ok());
    assert!(rig.ask(open(alice(), 0)).is_ok(), "somebody else");
    rig.send(alice(), bob().0, 1);
    assert_eq!(
        rig.try_send(alice(), nobody.0, 2),
        Err(StoreError::UserUnknown),
        "nobody has that id"
    );
    handle.remove_device(bob().0, bob().1).expect("removed");
    assert_eq!(
        ended.try_iter().collect::<Vec<_>>(),
        [
            Ended::Logins {
                user: bob().0,
                valid_after_s: 1_000
            },
            Ended::Logins {
                user: bob().0,
                valid_after_s: 999
            },
            Ended::Logins {
                user: nobody.0,
                valid_after_s: 5
            },
            Ended::Device(bob().0, bob().1),
        ]
    );
    drop(rig);
    let mut rig = Rig::open(folder.path());
    let refused = rig.ask(open(alice(), 0)).map(drop);
    assert_eq!(refused, Ok(()));
    let device = (bob().0, device(78));
    let refused = rig.ask(open(device, 999)).expect_err("signed out");
    assert_eq!(refused, StoreError::SignedOut);
}

#[test]
fn r16_sends_larger_than_a_batch_take_several() {
    let folder = folder();
    let clock = Arc::default();
    let mut config = config(folder.path(), &clock);
    config.limits.batch_bytes_max = 1_000;
    let mut rig = Rig::with(config, clock);
    rig.open(alice());
    rig.open(bob());
    let commits = rig.store.handle().counters().commit.commits.get();
    let items = (1..=20).map(|number| item(alice(), bob().0, number, &[7; 300]));
    let (answers, grown) = rig.sends(alice(), items.collect());
    let positions: Vec<_> = answers
        .iter()
        .map(|sent| sent.expect("sent").position)
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b));
    assert_eq!(grown.len(), 20);
    assert!(
        grown
            .windows(2)
            .all(|pair| pair[1].previous == Some(pair[0].cursor))
    );
    assert!(rig.store.handle().counters().commit.commits.get() > commits + 5);
    assert_eq!(rig.entries(bob()).len(), 20);
    assert_eq!(rig.store.handle().queue_depths().sends, 0);
}

#[test]
fn r26_a_send_past_its_deadline_is_not_committed() {
    let folder = folder();
    let mut rig = pair(&folder);
    rig.clock.store(100, SeqCst);
    let mut late = item(alice(), bob().0, 1, b"late");
    late.deadline = Time::from_micros(99);
    let behind = item(alice(), bob().0, 2, b"behind");
    let (answers, grown) = rig.sends(alice(), vec![late, behind]);
    let expected = [
        Err(StoreError::DeadlinePassed),
        Err(StoreError::EarlierSendFailed),
    ];
    assert_eq!(answers, expected);
    assert!(grown.is_empty() && rig.entries(bob()).is_empty());
}

/// A store whose committer waits, with what it has answered, until it is let go.
struct Held {
    store: EmbeddedStore,
    answered: Receiver<Completion>,
    go: Option<Sender<()>>,
}

impl Held {
    fn open(config: EmbeddedConfig) -> Self {
        let (go, wait) = bounded::<()>(1_000);
        let (sender, answered) = unbounded();
        let sink = move |_: ShardId, completions: Vec<Completion>| {
            for completion in completions {
                let _ = sender.send(completion);
            }
            let _ = wait.recv();
        };
        let store = EmbeddedStore::open(config, Arc::new(sink)).expect("opens");
        Self {
            store,
            answered,
            go: Some(go),
        }
    }

    fn ask(&self, id: u64, command: Command) -> Vec<Completion> {
        let id = RequestId(id);
        self.store
            .handle()
            .submit(SHARD, vec![Request { id, command }])
    }

    fn next(&self) -> u64 {
        self.answered
            .recv_timeout(PATIENCE)
            .expect("an answer")
            .id
            .0
    }
}

fn one_send(number: u64) -> Command {
    Command::Send(Sends {
        user: alice().0,
        device: alice().1,
        limits: InboxLimits::DEFAULT,
        items: vec![item(alice(), bob().0, number, b"hello")],
    })
}

fn a_flush() -> Command {
    Command::Flush(Flush {
        user: alice().0,
        device: alice().1,
        upto: Position::ZERO,
        known: None,
    })
}

#[test]
fn r26_queues_are_bounded_and_acks_have_room_ahead_of_sends() {
    let folder = folder();
    drop(pair(&folder));
    let mut config = config(folder.path(), &Arc::new(AtomicU64::new(0)));
    config.limits.sends_queued_max = 2;
    let mut held = Held::open(config);
    assert!(held.ask(1, one_send(1)).is_empty());
    assert_eq!(held.next(), 1);
    // The committer is held; what is asked now waits.
    assert!(held.ask(2, one_send(2)).is_empty());
    assert!(held.ask(3, one_send(3)).is_empty());
    let refused = held.ask(4, one_send(4));
    assert_eq!(refused.len(), 1);
    assert!(matches!(refused[0].outcome, Err(StoreError::Overloaded)));
    assert_eq!(held.store.handle().queue_depths().sends, 2);
    assert!(held.ask(5, a_flush()).is_empty(), "a reserve of its own");
    held.go = None;
    assert_eq!([held.next(), held.next(), held.next()], [5, 2, 3]);
    let handle = held.store.handle();
    held.store.stop();
    assert_eq!(handle.health(), Health::Stopped);
    let refused = handle.submit(
        SHARD,
        vec![Request {
            id: RequestId(6),
            command: a_flush(),
        }],
    );
    assert!(matches!(refused[0].outcome, Err(StoreError::Unavailable)));
}

#[test]
fn stopping_answers_everything_that_was_asked() {
    let folder = folder();
    let mut rig = pair(&folder);
    for number in 1..=500 {
        rig.submit(one_send(number));
    }
    let handle = rig.store.handle();
    let Rig { store, answers, .. } = rig;
    store.stop();
    let sent = answers
        .try_iter()
        .filter(|completion| matches!(&completion.outcome, Ok(Outcome::Sent { .. })));
    assert_eq!(sent.count(), 500);
    assert_eq!(handle.queue_depths().sends, 0);
}

#[test]
fn r24_message_ids_lie_above_every_earlier_block() {
    let folder = folder();
    let until = T0 - MessageId::EPOCH_UNIX_MS;
    let handle = Rig::open(folder.path()).store.handle();
    assert_eq!(
        handle.reserve_message_ids(T0),
        Err(StoreError::Unavailable),
        "stopped"
    );
    let rig = Rig::open(folder.path());
    let handle = rig.store.handle();
    assert_eq!(handle.reserve_message_ids(T0), Ok((0, until)));
    assert_eq!(
        handle.reserve_message_ids(T0 + 5_000),
        Ok((until, until + 5_000))
    );
    rig.store.stop();
    let handle_of_next = Rig::open(folder.path());
    let handle = handle_of_next.store.handle();
    // A clock that was set back still gets a block, above all others.
    assert_eq!(
        handle.reserve_message_ids(1),
        Ok((until + 5_000, until + 6_000))
    );
}

#[test]
fn r25_minutes_only_grow_and_jumps_have_to_prove_themselves() {
    let folder = folder();
    let rig = Rig::open(folder.path());
    let handle = rig.store.handle();
    assert_eq!(handle.stamp_minute(T0), Ok(true));
    assert_eq!(handle.stamp_minute(T0), Ok(true), "once more is no harm");
    assert_eq!(handle.stamp_minute(T0 + 10 * MINUTE), Ok(true));
    assert_eq!(handle.stamp_minute(T0 + 9 * MINUTE), Ok(false), "back");
    assert_eq!(handle.stamp_minute(T0 + 60 * MINUTE), Ok(false), "too far");
    assert_eq!(
        handle.stamp_minute(T0 + 61 * MINUTE),
        Ok(true),
        "it stays there"
    );
}

fn removed(handle: &Handle) -> u64 {
    handle.expire(None).expect("commits").removed
}

#[test]
fn r25_entries_go_by_age() {
    let folder = folder();
    let mut rig = pair(&folder);
    let handle = rig.store.handle();
    assert_eq!(handle.stamp_minute(T0), Ok(true));
    let old: Vec<_> = (1..=3)
        .map(|number| rig.send(alice(), bob().0, number).position)
        .collect();
    assert_eq!(handle.stamp_minute(T0 + MINUTE), Ok(true));
    let young = rig.send(alice(), bob().0, 4).position;

    let later = T0 + 30 * DAY + MINUTE;
    assert_eq!(handle.stamp_minute(later), Ok(false), "a jump");
    assert_eq!(removed(&handle), 0, "not by a clock alone");
    assert_eq!(handle.stamp_minute(later), Ok(true));
    assert_eq!(removed(&handle), 3);
    assert_eq!(removed(&handle), 0, "nothing is left");
    let left: Vec<_> = rig
        .entries(bob())
        .iter()
        .map(|entry| entry.cursor)
        .collect();
    assert_eq!(left, [young]);
    let opened = rig.open(bob());
    assert_eq!(
        (opened.expired_through, opened.stored_ack),
        (old[2], Position::ZERO)
    );
    // What was removed by age was not delivered: no receipt tells that it was.
    assert_eq!(rig.flush(bob(), old[2]).len(), 0);
    assert_eq!(rig.flush(bob(), young).len(), 1);
    assert_eq!(rig.open(bob()).expired_through, Position::ZERO);
}
