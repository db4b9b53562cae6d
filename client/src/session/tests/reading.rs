//! Read marks.

use super::*;
use crate::session::reads::SETTLED_MAX;

/// More than are remembered.
const CHATS: usize = SETTLED_MAX + 200;

fn chat_with(peer: u64) -> ChatId {
    let user = |id| UserId::new(id).expect("not 0");
    ChatId::pair(user(ME), user(peer))
}

fn reads(sent: &[Sent]) -> Vec<Bytes> {
    sent.iter()
        .filter_map(|frame| match frame {
            Sent::Read(read) => Some(read.chat.clone()),
            _ => None,
        })
        .collect()
}

fn lose_and_return(rig: &mut Rig) {
    rig.lose(Cause::Reset);
    rig.pass_to_timeout();
    rig.open(welcome());
}

#[test]
fn read_marks_only_grow_and_are_repeated_after_a_loss() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 5));
    rig.session.read(chat(), at(1, 5));
    rig.session.read(chat(), at(1, 3));
    let sent = rig.sent();
    assert!(matches!(sent.as_slice(), [Sent::Read(read)] if read.position == bytes(at(1, 5))));
    lose_and_return(&mut rig);
    assert!(
        rig.sent().is_empty(),
        "P31: this session was not given the position yet"
    );
    rig.receive(deliver(1, 5));
    assert!(matches!(rig.sent().as_slice(), [Sent::Read(_)]));
    assert!(rig.sent().is_empty());
}

/// "All read", in every chat at once.
#[test]
fn fc6_p32_a_mark_that_is_due_is_never_dropped() {
    let mut rig = Rig::active();
    for peer in 2..2 + CHATS as u64 {
        rig.session.read(chat_with(peer), at(1, 1));
    }
    assert!(rig.sent().is_empty(), "nothing was delivered");
    rig.receive(deliver(1, 1));
    assert_eq!(reads(&rig.sent()).len(), CHATS);
}

#[test]
fn fc6_p32_the_marks_said_last_are_repeated_in_the_next_session() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 1));
    let mut said = Vec::new();
    for peer in (2..2 + CHATS as u64).rev() {
        rig.session.read(chat_with(peer), at(1, 1));
        said.extend(reads(&rig.sent()));
    }
    assert_eq!(said.len(), CHATS);
    lose_and_return(&mut rig);
    rig.receive(deliver(1, 1));
    let mut last = said.split_off(CHATS - SETTLED_MAX);
    last.sort();
    assert_eq!(reads(&rig.sent()), last);
}

/// Bob answers while a message is on its way to him. He has not read it.
#[test]
fn fc6_p31_a_mark_waits_until_an_entry_was_delivered_an_own_answer_does_not_count() {
    let mut rig = Rig::active();
    rig.receive(deliver(1, 2));
    rig.send("mine");
    rig.sent();
    rig.receive(Body::SendResult(v1::SendResult {
        number: 1,
        message_id: 1,
        position: bytes(at(1, 4)),
        server_time_ms: 5,
    }));
    rig.session.read(chat(), at(1, 4));
    assert!(rig.sent().is_empty());
    rig.receive(deliver(1, 3));
    assert!(rig.sent().is_empty());
    rig.receive(deliver(1, 5));
    assert!(
        matches!(rig.sent().as_slice(), [Sent::Read(read)] if read.position == bytes(at(1, 4)))
    );
}

/// The server would end the session over it, and the next one, and so on.
#[test]
fn fc6_p31_a_chat_of_others_is_not_marked() {
    let mut group = [0; 16];
    group[15] = 1;
    let group = ChatId::from_slice(&group).expect("a group's");
    let user = |id| UserId::new(id).expect("not 0");
    let others = ChatId::pair(user(8), user(9));
    let mut rig = Rig::new();
    for chat in [group, others] {
        rig.session.read(chat, at(1, 1));
    }
    rig.open(welcome());
    rig.receive(deliver(1, 1));
    for chat in [group, others] {
        rig.session.read(chat, at(1, 1));
        rig.session.typing(chat);
    }
    assert!(rig.sent().is_empty());
}
