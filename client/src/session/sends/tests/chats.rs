//! One chat takes nothing for a while (P112, P113).

use super::*;

const FULL: ErrorCode = ErrorCode::RecipientFull;
const BUSY: ErrorCode = ErrorCode::ChatBusy;
const SECOND: Duration = Duration::from_secs(1);

/// Two messages to user 2, the second to user 3, all of them out.
fn two_chats() -> Rig {
    let mut rig = Rig::new(1);
    rig.push(chat(3));
    rig.push(chat(2));
    assert_eq!(rig.transmitted(), [1, 2, 3]);
    rig
}

fn numbers(delays: &[SendDelay]) -> Vec<u64> {
    delays.iter().map(|delay| delay.number).collect()
}

/// Numbers and what was known to be refused before them.
fn placed(sent: &[v1::Send]) -> Vec<(u64, u64)> {
    sent.iter().map(|send| (send.number, send.after)).collect()
}

#[test]
fn df1_p112_a_chat_that_takes_nothing_holds_up_no_other() {
    let mut rig = two_chats();
    assert_eq!(rig.refuse(1, FULL, 30_000), Refusal::Delayed);
    assert_eq!(rig.refuse(3, FULL, 30_000), Refusal::Delayed);
    assert!(rig.confirm(2).is_some());
    for number in 4..1_000 {
        assert_eq!(rig.push(chat(3)), number);
        assert_eq!(rig.transmitted(), [number], "no window is held either");
        rig.confirm(number).expect("it was sent");
    }
    assert_eq!(rig.saved.renumbered, [(1, 0), (3, 0)].into());
}

#[test]
fn df1_p112_what_waits_is_sent_again_in_order_under_new_numbers() {
    let mut rig = two_chats();
    rig.refuse(1, FULL, 30_000);
    assert_eq!(rig.push(chat(2)), 4);
    assert_eq!(rig.transmitted(), [0; 0], "it would overtake");
    rig.refuse(3, FULL, 30_000);
    let wait = rig.pass_to_timeout();
    assert!(wait >= 30 * SECOND && wait < 60 * SECOND, "{wait:?}");
    // One alone finds out whether there is room.
    assert_eq!(placed(&rig.sent()), [(5, 3)]);
    assert_eq!(rig.saved.renumbered, [(1, 5), (3, 0), (4, 0)].into());
    let committed = rig.confirm(5).expect("it was sent");
    assert_eq!((committed.message.number, committed.sent_as), (1, 5));
    assert_eq!(placed(&rig.sent()), [(6, 3), (7, 3)]);
    assert_eq!(rig.confirm(6).expect("it was sent").message.number, 3);
    assert_eq!(rig.confirm(7).expect("it was sent").message.number, 4);
    assert_eq!(rig.push(chat(2)), 8);
    assert_eq!(rig.transmitted(), [8], "as if nothing had been");
    rig.confirm(8);
    assert_eq!(rig.saved.unconfirmed.keys().collect::<Vec<_>>(), [&2]);
    assert!(rig.saved.renumbered.is_empty());
    assert_eq!(rig.sends.poll_timeout(), None);
}

#[test]
fn df1_p112_a_chat_is_tried_again_when_all_its_numbers_have_their_answers() {
    let mut rig = Rig::new(3);
    rig.transmitted();
    rig.push(chat(2));
    rig.refuse(2, BUSY, 1_000);
    rig.pass(3600 * SECOND);
    assert_eq!(rig.transmitted(), [0; 0], "1 and 3 are out");
    assert_eq!(rig.saved.renumbered, [(4, 0)].into(), "4 never was");
    rig.confirm(1).expect("it was sent");
    assert_eq!(rig.transmitted(), [0; 0], "3 is out");
    rig.refuse(3, BUSY, 2_000);
    assert_eq!(rig.saved.renumbered, [2, 3, 4].map(|it| (it, 0)).into());
    let wait = rig.pass_to_timeout();
    assert!(wait >= 2 * SECOND, "the longest wait counts");
    assert_eq!(placed(&rig.sent()), [(5, 3)]);
}

/// The refusal of 1 came while 3 waited for its turn after a failure of the store. It was sent before the
/// client knew, so it must say so when it is sent again: or it would overtake.
#[test]
fn df1_p39_a_retry_says_what_was_known_when_it_was_first_sent() {
    let mut rig = two_chats();
    rig.refuse(1, BUSY, 1_000);
    rig.refuse(2, ErrorCode::StoreUnavailable, 100);
    rig.refuse(3, ErrorCode::EarlierRefused, 100);
    rig.pass_to_timeout();
    assert_eq!(placed(&rig.sent()), [(2, 0), (3, 0)]);
    rig.confirm(2);
    rig.refuse(3, BUSY, 1_000);
    rig.pass_to_timeout();
    assert_eq!(placed(&rig.sent()), [(4, 3)]);
}

#[test]
fn df1_p112_after_is_said_only_to_a_server_that_reads_it() {
    let mut rig = two_chats();
    rig.sends.start_session(rig.now, 128, false);
    assert_eq!(rig.transmitted(), [1, 2, 3]);
    rig.refuse(1, BUSY, 1_000);
    rig.refuse(3, BUSY, 1_000);
    rig.pass_to_timeout();
    assert_eq!(rig.sent()[0].after, 0);
}

/// Whatever happened to 3 in the lost session: behind 1, which has its kept answer, it is refused.
#[test]
fn df1_p38_a_number_that_is_open_goes_again_behind_the_refused_ones() {
    let mut rig = two_chats();
    rig.push(chat(2));
    rig.refuse(1, FULL, 30_000);
    assert_eq!(rig.transmitted(), [0; 0]);
    let saved = rig.saved.clone();
    rig.start_session();
    let expected = [(1, 0), (2, 0), (3, 0)];
    assert_eq!(placed(&rig.sent()), expected);
    // The same after a crash.
    let mut rig = Rig::started(saved);
    rig.start_session();
    assert_eq!(placed(&rig.sent()), expected);
    rig.confirm(2);
    for number in [1, 3] {
        rig.refuse(number, FULL, 30_000);
    }
    rig.pass_to_timeout();
    assert_eq!(placed(&rig.sent()), [(5, 3)]);
}

#[test]
fn df1_p112_what_waits_without_a_number_is_not_sent_at_once_in_a_new_session() {
    let mut rig = two_chats();
    for number in [1, 3] {
        rig.refuse(number, FULL, 30_000);
    }
    rig.confirm(2);
    rig.start_session();
    assert_eq!(rig.transmitted(), [0; 0], "the pause outlives a session");
    // A new process knows of no pause, and finds out.
    let mut rig = Rig::started(rig.saved);
    rig.start_session();
    assert_eq!(placed(&rig.sent()), [(4, 0)]);
    assert_eq!(rig.saved.renumbered, [(1, 4), (3, 0)].into());
}

/// A crash may cut the records of a chat short anywhere.
#[test]
fn df1_p35_what_is_behind_a_message_without_a_number_has_none() {
    let mut rig = two_chats();
    rig.saved.apply(&Record::Renumbered {
        number: 1,
        sent_as: 0,
    });
    let mut rig = Rig::started(rig.saved);
    rig.start_session();
    assert_eq!(rig.saved.renumbered, [(1, 4), (3, 0)].into());
    assert_eq!(rig.transmitted(), [2, 4]);
    rig.confirm(4);
    assert_eq!(rig.transmitted(), [5]);
}

#[test]
fn df1_p112_a_chat_is_tried_ever_more_rarely_until_it_takes_something() {
    let mut rig = Rig::new(1);
    rig.transmitted();
    let mut number = 1;
    let mut waits = Vec::new();
    for _ in 0..14 {
        rig.refuse(number, FULL, 1_000);
        waits.push(rig.pass_to_timeout());
        number = rig.transmitted()[0];
    }
    assert!(waits[0] < 2 * SECOND, "{waits:?}");
    let longest = waits.iter().max().expect("some");
    assert!(
        *longest >= 300 * SECOND && *longest <= 600 * SECOND,
        "{waits:?}"
    );
    rig.confirm(number);
    number = rig.push(chat(2));
    rig.transmitted();
    rig.refuse(number, FULL, 1_000);
    assert!(rig.pass_to_timeout() < 2 * SECOND, "it begins anew");
}

#[test]
fn df1_p40_a_busy_chat_is_tried_when_it_was_said_and_not_much_later() {
    let mut rig = Rig::new(1);
    rig.transmitted();
    let mut number = 1;
    for _ in 0..20 {
        rig.refuse(number, BUSY, 500);
        let wait = rig.pass_to_timeout();
        assert!(wait >= Duration::from_millis(500) && wait <= 30 * SECOND);
        number = rig.transmitted()[0];
    }
}

#[test]
fn df1_p112_the_application_is_told_what_waits_and_for_how_long() {
    let mut rig = two_chats();
    rig.push(chat(2));
    rig.refuse(1, FULL, 30_000);
    let delays = rig.delays();
    let message = "4 was not sent and waits behind it";
    assert_eq!(numbers(&delays), [1, 4], "{message}");
    assert_eq!((delays[0].code, delays[0].chat), (FULL, chat(2)));
    assert!(delays[0].retry_in >= 30 * SECOND);
    rig.refuse(3, FULL, 30_000);
    assert_eq!(numbers(&rig.delays()), [3]);
    let late = rig.push(chat(2));
    assert_eq!(numbers(&rig.delays()), [late]);
    rig.pass_to_timeout();
    let sent_as = rig.transmitted()[0];
    rig.refuse(sent_as, BUSY, 30_000);
    let delays = rig.delays();
    assert_eq!(numbers(&delays), [1], "the others wait as they did");
    assert_eq!(delays[0].code, BUSY);
}

#[test]
fn df1_p112_one_chat_fills_its_share_of_the_outbox_and_all_such_chats_half() {
    let mut rig = Rig::new(1);
    rig.transmitted();
    rig.refuse(1, FULL, 30_000);
    for _ in 1..CHAT_WAITING_MAX {
        rig.sends.room_for(chat(2)).expect("room");
        rig.push(chat(2));
    }
    let full = rig.sends.room_for(chat(2)).expect_err("it has its share");
    assert!(matches!(full, ClientError::ChatFull));
    let chats = WAITING_MAX / CHAT_WAITING_MAX;
    let mut held = CHAT_WAITING_MAX;
    for peer in (3..).take(chats) {
        let number = rig.push(chat(peer));
        rig.transmitted();
        rig.refuse(number, FULL, 30_000);
        held += 1;
        while rig.sends.room_for(chat(peer)).is_ok() {
            rig.push(chat(peer));
            held += 1;
        }
    }
    assert_eq!(
        held,
        WAITING_MAX + 1,
        "the last chat's first was on its way"
    );
    for _ in held..UNCONFIRMED_MAX {
        rig.sends.room_for(chat(1_000)).expect("others have room");
        rig.push(chat(1_000));
    }
    let full = rig.sends.room_for(chat(1_000)).expect_err("all is full");
    assert!(matches!(full, ClientError::OutboxFull));
}

#[test]
fn df1_p113_what_was_not_sent_can_be_taken_back() {
    let mut rig = Rig::new(2);
    rig.push(chat(3));
    let back = rig.sends.take_back(rig.now, 2);
    assert_eq!(back.map(|message| message.number), Some(2));
    let records = rig.sends.take_records();
    assert!(records.contains(&Record::Settled(2)));
    let is_durable = records.iter().any(Record::must_be_durable);
    assert!(is_durable, "a crash must not undo it");
    assert_eq!(rig.transmitted(), [1, 3]);
    assert_eq!(rig.sends.take_back(rig.now, 2), None);
}

#[test]
fn df1_p113_what_was_refused_for_a_while_can_be_taken_back() {
    let mut rig = two_chats();
    let behind = rig.push(chat(2));
    rig.refuse(1, FULL, 30_000);
    for number in [1, behind] {
        let back = rig.sends.take_back(rig.now, number);
        assert_eq!(back.map(|message| message.number), Some(number));
    }
    rig.refuse(3, FULL, 30_000);
    rig.pass_to_timeout();
    assert_eq!(placed(&rig.sent()), [(5, 3)]);
    assert_eq!(rig.saved.unconfirmed.keys().collect::<Vec<_>>(), [&2, &3]);
}

#[test]
fn df1_p113_what_may_have_been_committed_can_not_be_taken_back() {
    let mut rig = two_chats();
    assert_eq!(rig.sends.take_back(rig.now, 3), None, "it is out");
    rig.refuse(3, ErrorCode::StoreUnavailable, 100);
    assert_eq!(rig.sends.take_back(rig.now, 3), None, "who knows");
    rig.sends.end_session();
    assert_eq!(rig.sends.take_back(rig.now, 3), None, "still");
    let mut rig = Rig::started(rig.saved);
    let unknown = "the journal does not say";
    assert_eq!(rig.sends.take_back(rig.now, 1), None, "{unknown}");
    rig.start_session();
    rig.transmitted();
    for number in [1, 3] {
        rig.refuse(number, FULL, 30_000);
    }
    rig.pass_to_timeout();
    assert_eq!(rig.transmitted(), [4]);
    assert_eq!(rig.sends.take_back(rig.now, 1), None, "it is out again");
    assert_eq!(rig.sends.take_back(rig.now, 999), None);
}

/// All that waited was taken back. The server still remembers its refusal.
#[test]
fn df1_p112_the_next_message_says_what_was_refused_before_it() {
    let mut rig = Rig::new(1);
    rig.transmitted();
    rig.refuse(1, BUSY, 1_000);
    rig.sends.take_back(rig.now, 1).expect("it waits");
    rig.pass_to_timeout();
    assert_eq!(
        rig.sends.poll_timeout(),
        None,
        "nothing is left to wait for"
    );
    rig.push(chat(2));
    assert_eq!(placed(&rig.sent()), [(2, 1)]);
}

#[test]
fn df1_p41_what_waits_in_a_chat_is_given_up_within_a_session() {
    let mut rig = two_chats();
    rig.refuse(1, FULL, 30_000);
    rig.refuse(3, FULL, 30_000);
    rig.confirm(2);
    rig.pass(WEEK / 2);
    assert_eq!(rig.transmitted(), [4]);
    rig.refuse(4, FULL, u32::MAX);
    let late = rig.push(chat(2));
    let wait = rig.pass_to_timeout();
    assert!(wait <= WEEK / 2, "a long pause does not keep it");
    assert_eq!(rig.saved.unconfirmed.keys().collect::<Vec<_>>(), [&late]);
    rig.pass(WEEK);
    assert!(rig.saved.unconfirmed.is_empty());
}

#[test]
fn df1_p41_what_is_kept_for_ever_does_not_expire() {
    let mut rig = Rig::new(1);
    rig.sends.keep = Duration::MAX;
    rig.transmitted();
    rig.refuse(1, FULL, 30_000);
    assert!(rig.pass_to_timeout() < 60 * SECOND);
    assert_eq!(rig.transmitted(), [2]);
}

#[test]
fn df1_p112_no_more_refusals_are_remembered_than_the_server_remembers() {
    let mut rig = Rig::new(0);
    for peer in 2..402 {
        let number = rig.push(chat(peer));
        rig.transmitted();
        rig.refuse(number, BUSY, 1_000);
        rig.sends.take_back(rig.now, number).expect("it waits");
    }
    assert_eq!(rig.sends.refused.len() as u64, SEND_ANSWERS_KEPT);
    assert!(rig.sends.refused.contains_key(&chat(401)), "the latest");
}
