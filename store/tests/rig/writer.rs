//! A process that writes until it is killed, and what has to be left of it.

use std::collections::BTreeMap;
use std::path::Path;

use roadstead_proto::Position;

use super::ask::{Ask, Who};
use super::{Rig, config, device, user};

pub(crate) const PATH: &str = "ROADSTEAD_STORE_TEST_PATH";
pub(crate) const YOUNG: &str = "ROADSTEAD_STORE_TEST_YOUNG";

fn alice() -> Who {
    (user(1), device(1))
}

fn bob() -> Who {
    (user(2), device(2))
}

/// What a writer was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(BTreeMap<u64, Position>);

impl Answered {
    /// Takes a line of a writer; whether it tells of a send.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        let Some(rest) = line.split("sent ").nth(1) else {
            return false;
        };
        let (number, hex) = rest.split_once(' ').expect("two parts");
        let number = number.parse().expect("a number");
        let before = self.0.insert(number, position(hex));
        assert_eq!(before, None, "number {number} was executed twice");
        true
    }
}

fn position(hex: &str) -> Position {
    let bytes: Vec<u8> = (0..16)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
        .collect();
    Position::from_slice(&bytes).expect("16 bytes")
}

/// Writes until it is killed, and says what it was answered. Does nothing outside of a test's child.
#[allow(clippy::print_stdout, reason = "the parent listens")]
pub(crate) fn run() {
    let Ok(path) = std::env::var(PATH) else {
        return;
    };
    let young = std::env::var(YOUNG).expect("set with the path");
    let clock = std::sync::Arc::default();
    let mut config = config(Path::new(&path), &clock);
    config.limits.young_bytes_max = young.parse().expect("a number");
    let mut rig = Rig::with(config, clock);
    rig.open(bob());
    let first = rig.open(alice()).highest_number.expect("asked for") + 1;
    for number in first.. {
        let sent = rig.send(alice(), bob().0, number);
        let bytes = sent.position.as_bytes().iter();
        let hex: String = bytes.map(|byte| format!("{byte:02x}")).collect();
        println!("sent {number} {hex}");
        if number % 7 == 0 {
            // Some of it is acknowledged, so that entries come and go.
            let upto = rig.entries(bob())[1].cursor;
            rig.flush(bob(), upto);
        }
    }
}

/// Everything answered is there or was acknowledged, in order, and no stamp recurs. Looks at a copy, so
/// that the next writer finds what its predecessor left.
pub(crate) fn verify_copy(path: &Path, answered: &Answered) {
    let copy = tempfile::tempdir().expect("a folder");
    copy_folder(path, copy.path());
    verify(copy.path(), answered);
}

fn verify(path: &Path, Answered(answered): &Answered) {
    let mut rig = Rig::open(path);
    let acked = rig.open(bob()).stored_ack;
    let highest = rig.open(alice()).highest_number.expect("asked for");
    let (last, _) = answered.last_key_value().expect("some");
    assert!(
        highest >= *last && highest <= last + 1,
        "{highest} after {last}"
    );
    let messages: Vec<Position> = rig
        .entries(bob())
        .iter()
        .map(|entry| entry.cursor)
        .collect();
    assert!(messages.is_sorted_by(|a, b| a < b));
    for (number, position) in answered {
        let kept = messages.binary_search(position).is_ok();
        assert!(
            kept || *position <= acked,
            "message {number} at {position:?} is lost"
        );
    }
    let positions: Vec<Position> = answered.values().copied().collect();
    assert!(
        positions.is_sorted_by(|a, b| a < b),
        "R9: stamps never recur"
    );
    let next = rig.send(alice(), bob().0, highest + 1).position;
    let before = messages.iter().chain(&positions).max().expect("some");
    assert!(next > *before, "R9: stamps never recur");
}

pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copies");
        }
    }
}
