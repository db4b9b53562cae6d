//! Values read back: with any bytes in any record, every command ends in an answer or an error.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use roadstead::store::{
    CheckInbox, Command, Flush, InboxLimits, MarkRead, OpenDevice, Outcome, ReadInbox, SendItem,
    Sends,
};
use roadstead::time::Time;
use roadstead_proto::v1::Envelope;
use roadstead_proto::{ChatId, DeviceId, Position, UserId};
use roadstead_store::keys::{Key, Keys};
use roadstead_store::memory::{MemoryEngine, MemoryTxn};
use roadstead_store::records::expiry::Budget;
use roadstead_store::records::{
    Knowledge, RecordError, Scope, command, device, expiry, inbox, meta, minutes, node, resolve,
};
use roadstead_store::txn::{STAMP_INCOMPLETE, Txn, ready};

const KEYS: Keys = Keys::new([7; 16]);
const GENERATION: u32 = 1;

/// What is damaged, and how.
#[derive(Arbitrary, Debug)]
struct Damage {
    record: u8,
    of_peer: bool,
    value: Vec<u8>,
}

#[derive(Arbitrary, Debug)]
struct Plan {
    damage: Vec<Damage>,
    commands: Vec<u8>,
}

fn user(peer: bool) -> UserId {
    UserId::new(1 + u64::from(peer)).expect("not 0")
}

fn device_of(peer: bool) -> DeviceId {
    DeviceId::new(11 + u32::from(peer)).expect("not 0")
}

fn chat() -> ChatId {
    ChatId::pair(user(false), user(true))
}

fn position(n: u8) -> Position {
    Position::new(GENERATION, [0, 0, 0, 0, 0, 0, 0, n, 0, 0], 0)
}

/// A [`Plan`], as `arbitrary` reads it.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let engine = MemoryEngine::new();
    for peer in [false, true] {
        drop(carry_out(&engine, &Command::OpenDevice(open(peer))));
    }
    let mut txn = engine.begin();
    for damage in plan.damage.iter().take(8) {
        let value = Bytes::copy_from_slice(&damage.value[..damage.value.len().min(4_096)]);
        txn.set(&key(damage.record, damage.of_peer), value);
    }
    ready(txn.commit()).expect("commits");
    for command in plan.commands.iter().take(16) {
        perform(&engine, *command);
    }
    // Entries are read without the records, too.
    for damage in plan.damage {
        if let Some(body) = inbox::decode(Bytes::from(damage.value)) {
            assert_eq!(inbox::decode(inbox::encode(&body)), Some(body));
        }
    }
}

/// Where the records of a device, its user, its chat and its node lie.
fn key(record: u8, peer: bool) -> Key {
    let (user, device) = (user(peer), device_of(peer));
    match record % 12 {
        0 => KEYS.versions(user),
        1 => KEYS.device(user, device),
        2 => KEYS.ack(user, device),
        3 => KEYS.answer(user, device, 1),
        4 => KEYS.answer(user, device, 200),
        5 => KEYS.entry(user, device, position(1)),
        6 => KEYS.entry(user, device, position(2)),
        7 => KEYS.receipt(chat(), user),
        8 => Keys::node(0),
        9 => Keys::minute(1),
        10 => Keys::generation(),
        _ => Keys::placement(),
    }
}

fn open(peer: bool) -> OpenDevice {
    OpenDevice {
        user: user(peer),
        device: device_of(peer),
        cursor: Position::ZERO,
        want_highest_number: true,
        unix_ms: 1,
        issued_s: 0,
    }
}

fn perform(engine: &MemoryEngine, command: u8) {
    let peer = command & 0x80 != 0;
    let (user, device) = (user(peer), device_of(peer));
    let command = match command % 12 {
        0 => Command::OpenDevice(open(peer)),
        1 => Command::Send(sends(peer)),
        2 => Command::ReadInbox(ReadInbox {
            user,
            device,
            after: Position::ZERO,
            entries_max: 10,
            bytes_max: 10_000,
        }),
        3 | 4 => Command::Flush(Flush {
            user,
            device,
            upto: position(command % 3),
            known: None,
        }),
        5 => Command::MarkRead(MarkRead {
            user,
            device,
            chat: chat(),
            position: position(1),
        }),
        6 => Command::CheckInbox(CheckInbox {
            user,
            device,
            limits: InboxLimits {
                entries_max: 1,
                bytes_max: 1 << 20,
            },
        }),
        other => return administer(engine, other, (user, device)),
    };
    drop(carry_out(engine, &command));
}

fn sends(peer: bool) -> Sends {
    let item = |number: u64| SendItem {
        number,
        request_hash: number,
        after: 0,
        refused: None,
        chat: chat(),
        recipient: user(!peer),
        envelope: Envelope {
            message_id: number,
            chat: Bytes::copy_from_slice(chat().as_bytes()),
            sender: user(peer).get(),
            sender_device: device_of(peer).get(),
            server_time_ms: 1,
            payload: Bytes::from_static(b"hello"),
            number,
        },
        deadline: Time::from_micros(u64::MAX),
    };
    Sends {
        user: user(peer),
        device: device_of(peer),
        limits: InboxLimits::DEFAULT,
        items: vec![item(1), item(200), item(257)],
    }
}

/// What the process itself does with the records.
fn administer(engine: &MemoryEngine, what: u8, of: (UserId, DeviceId)) {
    let mut txn = engine.begin();
    let proposed = meta::Meta {
        generation: GENERATION,
        placement_key: [7; 16],
    };
    let result = in_scope(&mut txn, |scope, txn| match what {
        7 => ready(node::take(txn, 0)).map(drop),
        8 => ready(node::reserve_ids(txn, (0, 1), 5)).map(drop),
        9 => ready(minutes::stamp(scope, txn, 2, true)).map(drop),
        10 => expire(scope, txn),
        _ => ready(device::remove(scope, txn, of))
            .and_then(|_| ready(meta::load_or_init(txn, proposed)))
            .map(drop),
    });
    if result.is_ok() {
        ready(txn.commit()).expect("nothing else commits");
    }
}

fn expire(scope: &mut Scope<'_>, txn: &mut MemoryTxn) -> Result<(), RecordError> {
    let mut progress = ready(expiry::begin(scope, txn, None))?;
    for _ in 0..10 {
        if progress.is_done() {
            break;
        }
        progress = ready(expiry::step(scope, txn, progress, Budget::OF_A_BATCH))?;
    }
    Ok(())
}

fn in_scope<R>(txn: &mut MemoryTxn, run: impl FnOnce(&mut Scope<'_>, &mut MemoryTxn) -> R) -> R {
    let mut scope = Scope {
        keys: &KEYS,
        generation: GENERATION,
        stamp: STAMP_INCOMPLETE,
        committed: Position::MAX,
        next_index: 0,
        knowledge: &mut Knowledge::of_one_among_many(8),
    };
    run(&mut scope, txn)
}

fn carry_out(engine: &MemoryEngine, command: &Command) -> Option<Outcome> {
    let mut txn = engine.begin();
    let done = in_scope(&mut txn, |scope, txn| {
        ready(command::run(scope, txn, command))
    });
    let mut outcome = done.ok()?.outcome;
    let stamp = ready(txn.commit()).expect("nothing else commits");
    resolve(&mut outcome, stamp);
    Some(outcome)
}

/// Drawn bytes.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    crate::drawn(24, 400)
}
