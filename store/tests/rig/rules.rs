//! The rules of delivery, each a check on anything that carries out commands, named after its rule.

use roadstead::limits::DEVICES_PER_USER_MAX;
use roadstead::store::{
    Command, EntryBody, Flush, InboxLimits, KnownEntries, KnownEntry, MarkRead, Outcome, SendItem,
    Sends, Sent, StoreError,
};
use roadstead_proto::v1::GapReason;
use roadstead_proto::{ChatId, Position};

use super::ask::{Ask, Who};
use super::{device, item, user};

/// Hands the names of all rules to a macro.
macro_rules! for_every_rule {
    ($run:ident) => {
        $run! {
            r1_a_message_has_one_position_in_every_inbox,
            r3_a_cursor_of_another_generation_acknowledges_nothing,
            r4_a_page_says_how_far_it_is_complete,
            r12_same_number_same_hash_is_answered_the_first_answer,
            r12_same_number_other_hash_is_refused,
            r12_a_number_whose_slot_was_taken_is_spent,
            r12_a_refusal_for_good_is_the_first_answer,
            r13_the_highest_number_is_found,
            r13_devices_are_registered_up_to_the_limit,
            r14_an_added_device_gets_the_next_message,
            df1_r16_a_full_recipient_refuses_its_own_chat_alone,
            df1_r16_what_is_behind_a_refusal_of_its_chat_is_refused_alike,
            df1_r13_a_removed_device_keeps_no_refusal,
            r16_other_failures_fail_alone,
            r18_a_flush_is_cumulative_and_idempotent,
            r18_a_known_list_counts_only_from_the_stored_ack,
            r18_a_cursor_beyond_everything_is_invalid,
            r20_delivered_is_told_once_by_the_first_device,
            r20_an_inbox_holds_one_pending_receipt_per_chat,
            r20_read_is_told_to_the_peer_and_the_readers_other_devices,
            r20_receipts_only_grow_and_make_no_receipts,
            r20_a_device_that_reads_loses_what_another_ones_read_left_in_its_inbox,
            r20_a_suspended_device_that_reads_loses_it_too,
            df13_r20_a_mark_claims_nothing_that_no_device_has,
            df5_r20_a_mark_where_nothing_was_delivered_does_nothing,
            df18_r13_a_removed_device_marks_nothing,
            df12_r21_bytes_suspend_a_device_as_messages_do,
            df6_r21_one_sender_may_have_a_share_of_an_inbox,
            df6_r21_a_share_that_is_used_up_is_told_where_the_message_goes_elsewhere,
            df3_r18_a_long_flush_is_done_in_pieces,
            r21_a_device_over_the_limit_is_suspended_until_it_resyncs,
            r21_recipient_full_only_if_all_devices_are_suspended,
            notes_to_oneself_reach_the_other_devices,
        }
    };
}

pub(crate) use for_every_rule;

pub(crate) fn alice() -> Who {
    (user(1), device(1))
}

fn alice_tablet() -> Who {
    (user(1), device(11))
}

pub(crate) fn bob() -> Who {
    (user(2), device(2))
}

pub(crate) fn bob_tablet() -> Who {
    (user(2), device(22))
}

pub(crate) fn chat() -> ChatId {
    ChatId::pair(user(1), user(2))
}

pub(crate) fn open_all(store: &mut impl Ask, devices: &[Who]) {
    for who in devices {
        store.open(*who);
    }
}

pub(crate) fn cursors(store: &mut impl Ask, who: Who) -> Vec<Position> {
    store
        .entries(who)
        .iter()
        .map(|entry| entry.cursor)
        .collect()
}

pub(crate) fn r1_a_message_has_one_position_in_every_inbox(store: &mut impl Ask) {
    open_all(store, &[alice(), alice_tablet(), bob(), bob_tablet()]);
    let items = (1..=3).map(|number| item(alice(), user(2), number, b"hello"));
    let (answers, grown) = store.sends(alice(), items.collect());
    let positions: Vec<_> = answers
        .iter()
        .map(|sent| sent.expect("sent").position)
        .collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "in number order");
    for who in [alice_tablet(), bob(), bob_tablet()] {
        assert_eq!(cursors(store, who), positions);
    }
    assert!(
        cursors(store, alice()).is_empty(),
        "not to the sending device"
    );
    assert_eq!(grown.len(), 9);
    assert!(grown.iter().all(|grown| positions.contains(&grown.cursor)));
}

pub(crate) fn r3_a_cursor_of_another_generation_acknowledges_nothing(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let sent = store.send(alice(), user(2), 1);
    let foreign = Position::new(9, sent.position.stamp(), 0);
    let opened = store.open_at(bob(), foreign).expect("opens");
    assert!(opened.resync);
    assert_eq!(opened.stored_ack, Position::ZERO);
    assert_eq!(
        store.try_flush(bob(), foreign, None).expect("answers").0,
        Position::ZERO
    );
    let page = store.page(bob(), foreign, (10, 1_000));
    assert_eq!(page.entries.len(), 1, "reading starts at the stored ack");
    assert!(!store.open_at(bob(), sent.position).expect("opens").resync);
}

pub(crate) fn r4_a_page_says_how_far_it_is_complete(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let sent: Vec<_> = (1..=5)
        .map(|number| store.send(alice(), user(2), number))
        .collect();
    let page = store.page(bob(), Position::ZERO, (2, 1 << 20));
    assert!(page.more);
    assert_eq!(page.through, sent[1].position);
    let page = store.page(bob(), page.through, (1_000, 1 << 20));
    assert!(!page.more && page.entries.len() == 3);
    assert!(
        page.through >= sent[4].position,
        "complete up to the version read"
    );
    let next = store.send(alice(), user(2), 6);
    assert!(
        next.position > page.through,
        "nothing is put below what was complete"
    );
    let page = store.page(bob(), Position::ZERO, (1_000, 0));
    assert!(
        page.more && page.entries.len() == 1,
        "a first entry is always returned"
    );
}

pub(crate) fn r12_same_number_same_hash_is_answered_the_first_answer(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let first = store.send(alice(), user(2), 1);
    let mut retry = item(alice(), user(2), 1, b"hello");
    retry.envelope.message_id = 99;
    let (answers, grown) = store.sends(alice(), vec![retry]);
    let again = answers[0].expect("answered");
    assert!(again.repeated && grown.is_empty());
    assert_eq!(
        (again.message_id, again.position),
        (first.message_id, first.position)
    );
    assert_eq!(again.server_time_ms, first.server_time_ms);
    assert_eq!(store.entries(bob()).len(), 1);
}

pub(crate) fn r12_same_number_other_hash_is_refused(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    store.send(alice(), user(2), 1);
    let (answers, _) = store.sends(alice(), vec![item(alice(), user(2), 1, b"other")]);
    assert_eq!(answers, [Err(StoreError::NumberReused)]);
}

pub(crate) fn r12_a_number_whose_slot_was_taken_is_spent(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    store.send(alice(), user(2), 257);
    assert_eq!(
        store.try_send(alice(), user(2), 1),
        Err(StoreError::NumberSpent)
    );
    store.send(alice(), user(2), 2);
    store.send(alice(), user(2), 513);
    assert_eq!(
        store.try_send(alice(), user(2), 257),
        Err(StoreError::NumberSpent)
    );
    assert_eq!(store.entries(bob()).len(), 3);
}

pub(crate) fn r12_a_refusal_for_good_is_the_first_answer(store: &mut impl Ask) {
    open_all(store, &[alice()]);
    let unknown = Err(StoreError::UserUnknown);
    let twice = [1, 1].map(|number| item(alice(), user(2), number, b"hello"));
    assert_eq!(store.sends(alice(), twice.into()).0, [unknown; 2]);
    assert_eq!(store.open(alice()).highest_number, Some(1));
    store.open(bob());
    assert_eq!(store.try_send(alice(), user(2), 1), unknown, "again");
    let (other, _) = store.sends(alice(), vec![item(alice(), user(2), 1, b"other")]);
    assert_eq!(other, [Err(StoreError::NumberReused)]);
    store.send(alice(), user(2), 257);
    assert_eq!(
        store.try_send(alice(), user(2), 1),
        Err(StoreError::NumberSpent)
    );
    assert_eq!(store.entries(bob()).len(), 1);
}

pub(crate) fn r13_the_highest_number_is_found(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    assert_eq!(store.open(alice()).highest_number, Some(0));
    for number in [3, 300, 7] {
        store.send(alice(), user(2), number);
    }
    assert_eq!(store.open(alice()).highest_number, Some(300));
}

pub(crate) fn r13_devices_are_registered_up_to_the_limit(store: &mut impl Ask) {
    let max = u32::try_from(DEVICES_PER_USER_MAX).expect("few");
    for id in 1..=max {
        store.open((user(1), device(id)));
    }
    let refused = store.open_at((user(1), device(max + 1)), Position::ZERO);
    assert_eq!(refused, Err(StoreError::DeviceLimit));
    store.open((user(1), device(1)));
}

pub(crate) fn r14_an_added_device_gets_the_next_message(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    store.send(alice(), user(2), 1);
    store.open(bob_tablet());
    let second = store.send(alice(), user(2), 2);
    assert_eq!(cursors(store, bob_tablet()), [second.position]);
    assert_eq!(store.entries(bob()).len(), 2);
}

/// D-F1: what a chat refuses is final for its number, holds that chat alone, and is what any later copy hears.
pub(crate) fn df1_r16_a_full_recipient_refuses_its_own_chat_alone(store: &mut impl Ask) {
    let carol = (user(3), device(3));
    open_all(store, &[alice(), bob(), carol]);
    store.send(carol, user(2), 1);
    assert!(store.check(bob(), 0).0, "bob is suspended");
    let full = Err(StoreError::RecipientFull);
    let items = vec![
        item(alice(), user(3), 1, b"one"),
        item(alice(), user(2), 2, b"two"),
        item(alice(), user(3), 3, b"three"),
    ];
    let (answers, grown) = store.sends(alice(), items);
    assert!(answers[0].is_ok() && answers[2].is_ok(), "{answers:?}");
    assert_eq!(answers[1], full);
    assert_eq!(grown.len(), 2);
    // Bob is back, and there is room.
    let gap = *cursors(store, bob()).last().expect("a gap");
    store.flush(bob(), gap);
    let again = vec![item(alice(), user(2), 2, b"two")];
    assert_eq!(store.sends(alice(), again).0, [full]);
    store.send(alice(), user(2), 4);
}

/// What a device sent to a chat before it knew of a refusal there is refused alike, or it would overtake.
pub(crate) fn df1_r16_what_is_behind_a_refusal_of_its_chat_is_refused_alike(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let busy = StoreError::ChatBusy {
        retry_after_ms: 700,
    };
    let first = item(alice(), user(2), 1, b"one");
    let items = vec![
        SendItem {
            refused: Some(busy),
            ..first.clone()
        },
        item(alice(), user(2), 2, b"two"),
        SendItem {
            after: 2,
            ..item(alice(), user(2), 3, b"one again")
        },
    ];
    let (answers, _) = store.sends(alice(), items);
    assert_eq!(answers[..2], [Err(busy), Err(busy)]);
    assert!(answers[2].is_ok(), "its client knew of both");
    // The refusal is kept with all that it said, also for a copy that was refused by nobody.
    assert_eq!(store.sends(alice(), vec![first]).0, [Err(busy)]);
    // A number that was committed keeps its answer, whatever its chat says now.
    let committed = SendItem {
        refused: Some(busy),
        ..item(alice(), user(2), 3, b"one again")
    };
    let (again, _) = store.sends(alice(), vec![committed]);
    assert!(again[0].is_ok_and(|sent| sent.repeated), "{again:?}");
    assert_eq!(cursors(store, bob()).len(), 1);
}

/// D-F1: nothing is written for a device that was removed, a refusal neither.
pub(crate) fn df1_r13_a_removed_device_keeps_no_refusal(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let removed = (user(1), device(77));
    let late = SendItem {
        refused: Some(StoreError::RecipientFull),
        ..item(removed, user(2), 1, b"late")
    };
    let (answers, _) = store.sends(removed, vec![late]);
    assert_eq!(answers, [Err(StoreError::DeviceRemoved)]);
    assert_eq!(store.open(removed).highest_number, Some(0));
}

pub(crate) fn r16_other_failures_fail_alone(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let items = vec![
        item(alice(), user(77), 1, b"nobody"),
        item(alice(), user(2), 2, b"two"),
    ];
    let (answers, _) = store.sends(alice(), items);
    assert_eq!(answers[0], Err(StoreError::UserUnknown));
    assert!(answers[1].is_ok());
}

pub(crate) fn r18_a_flush_is_cumulative_and_idempotent(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let sent: Vec<_> = (1..=4)
        .map(|number| store.send(alice(), user(2), number))
        .collect();
    assert_eq!(store.flush(bob(), sent[2].position).len(), 1);
    assert_eq!(cursors(store, bob()), [sent[3].position]);
    for upto in [sent[0].position, sent[2].position] {
        let (ack, grown) = store.try_flush(bob(), upto, None).expect("answers");
        assert_eq!(ack, sent[2].position);
        assert!(grown.is_empty());
    }
    assert_eq!(store.open(bob()).stored_ack, sent[2].position);
}

pub(crate) fn r18_a_known_list_counts_only_from_the_stored_ack(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let one = store.send(alice(), user(2), 1).position;
    let two = store.send(alice(), user(2), 2).position;
    let bytes = store.entries(bob())[0].body.counted_bytes();
    let entry = |cursor| KnownEntry {
        cursor,
        receipt: Some((chat(), cursor, user(1))),
        is_gap: false,
        bytes,
    };
    // A list that starts elsewhere is not believed: both entries leave, not the one it names.
    let known = KnownEntries {
        from: one,
        entries: vec![entry(two)],
    };
    store.try_flush(bob(), two, Some(known)).expect("flushes");
    assert!(store.entries(bob()).is_empty());
    let three = store.send(alice(), user(2), 3).position;
    let known = KnownEntries {
        from: two,
        entries: vec![entry(three)],
    };
    let (ack, grown) = store.try_flush(bob(), three, Some(known)).expect("flushes");
    assert_eq!((ack, grown.len()), (three, 1));
    assert!(store.entries(bob()).is_empty());
    assert_eq!(store.page(bob(), one, (9, 999)).entries, []);
}

pub(crate) fn r18_a_cursor_beyond_everything_is_invalid(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let sent = store.send(alice(), user(2), 1).position;
    let mut stamp = sent.stamp();
    stamp[0] = 0x7f;
    let beyond = Position::new(sent.generation(), stamp, 0);
    let invalid = Err(StoreError::CursorInvalid);
    assert_eq!(store.open_at(bob(), beyond), invalid);
    assert_eq!(
        store.try_flush(bob(), beyond, None).map(|_| ()),
        Err(StoreError::CursorInvalid)
    );
    assert_eq!(store.entries(bob()).len(), 1);
}

pub(crate) fn r20_delivered_is_told_once_by_the_first_device(store: &mut impl Ask) {
    open_all(store, &[alice(), alice_tablet(), bob(), bob_tablet()]);
    let sent = store.send(alice(), user(2), 1).position;
    let grown = store.flush(bob(), sent);
    assert_eq!(grown.len(), 2, "both devices of the sender learn of it");
    assert_eq!(store.flush(bob_tablet(), sent).len(), 0);
    for who in [alice(), alice_tablet()] {
        let receipts = store.receipts(who);
        assert_eq!(receipts.len(), 1);
        assert_eq!(
            (receipts[0].user, &receipts[0].delivered[..]),
            (2, &sent.as_bytes()[..])
        );
    }
}

pub(crate) fn r20_an_inbox_holds_one_pending_receipt_per_chat(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let mut last = Position::ZERO;
    for number in 1..=5 {
        last = store.send(alice(), user(2), number).position;
        store.flush(bob(), last);
        assert_eq!(store.receipts(alice()).len(), 1);
    }
    assert_eq!(store.receipts(alice())[0].delivered, &last.as_bytes()[..]);
    // Once acknowledged, it is not pending, and the next is a new one.
    let cursor = store.entries(alice())[0].cursor;
    store.flush(alice(), cursor);
    assert!(store.entries(alice()).is_empty());
    let sent = store.send(alice(), user(2), 6).position;
    store.flush(bob(), sent);
    assert_eq!(store.receipts(alice()).len(), 1);
}

pub(crate) fn r20_read_is_told_to_the_peer_and_the_readers_other_devices(store: &mut impl Ask) {
    open_all(store, &[alice(), bob(), bob_tablet()]);
    let one = store.send(alice(), user(2), 1).position;
    let two = store.send(alice(), user(2), 2).position;
    store.flush(bob(), two);
    assert_eq!(store.mark_read(bob(), chat(), one).len(), 2);
    assert_eq!(store.mark_read(bob(), chat(), two).len(), 2);
    assert!(
        store.mark_read(bob(), chat(), one).is_empty(),
        "it only grows"
    );
    let told = store.receipts(alice());
    assert_eq!(told.len(), 1, "delivered and read in one");
    assert_eq!(told[0].read, &two.as_bytes()[..]);
    assert_eq!(told[0].delivered, &two.as_bytes()[..]);
    let own = store.receipts(bob_tablet());
    assert_eq!((own.len(), own[0].user), (1, 2));
    assert!(
        store.receipts(bob()).is_empty(),
        "not to the device that read"
    );
    // A delivered receipt that follows takes nothing from the reader's own devices.
    let three = store.send(alice(), user(2), 3).position;
    store.flush(bob(), three);
    assert_eq!(store.receipts(bob_tablet()).len(), 1);
    assert_eq!(store.receipts(alice()).len(), 1);
}

pub(crate) fn r20_receipts_only_grow_and_make_no_receipts(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let sent = store.send(alice(), user(2), 1).position;
    store.flush(bob(), sent);
    store.mark_read(bob(), chat(), sent);
    let receipt = store.entries(alice())[0].cursor;
    assert!(store.flush(alice(), receipt).is_empty());
    let foreign = ChatId::pair(user(3), user(4));
    assert!(
        store.mark_read(bob(), foreign, sent).is_empty(),
        "not a member"
    );
}

/// Two devices of a user read in turn, each further than the other: neither inbox keeps the receipt that
/// its own device has outdone, however long it goes on.
pub(crate) fn r20_a_device_that_reads_loses_what_another_ones_read_left_in_its_inbox(
    store: &mut impl Ask,
) {
    open_all(store, &[alice(), bob(), bob_tablet()]);
    for number in 1..=4 {
        let sent = store.send(alice(), user(2), number).position;
        let (reader, other) = match number % 2 {
            0 => (bob(), bob_tablet()),
            _ => (bob_tablet(), bob()),
        };
        store.flush(reader, sent);
        let grown = store.mark_read(reader, chat(), sent);
        let told: Vec<Who> = grown.iter().map(|one| (one.user, one.device)).collect();
        assert!(told.contains(&other) && !told.contains(&reader), "{told:?}");
        assert_eq!(store.receipts(reader), [], "the reader's own is taken back");
        let kept = store.receipts(other);
        assert_eq!(kept.len(), 1, "one per chat: {kept:?}");
        assert_eq!(kept[0].read, sent.as_bytes()[..]);
        assert_eq!(store.receipts(alice()).len(), 1);
    }
}

/// A suspended device gets nothing more, but what it reads it has.
pub(crate) fn r20_a_suspended_device_that_reads_loses_it_too(store: &mut impl Ask) {
    open_all(store, &[alice(), bob(), bob_tablet()]);
    let one = store.send(alice(), user(2), 1).position;
    let two = store.send(alice(), user(2), 2).position;
    store.flush(bob_tablet(), two);
    store.mark_read(bob_tablet(), chat(), one);
    assert_eq!(store.receipts(bob()).len(), 1);
    assert!(store.check(bob(), 1).0);
    store.mark_read(bob(), chat(), two);
    assert_eq!(store.receipts(bob()), []);
}

/// D-F13: Bob answers while Alice's message is on its way to him, and marks up to his own. It is on no device of
/// his.
pub(crate) fn df13_r20_a_mark_claims_nothing_that_no_device_has(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let first = store.send(alice(), user(2), 1).position;
    store.flush(bob(), first);
    store.send(alice(), user(2), 2);
    let own = store.send(bob(), user(1), 1).position;
    store.mark_read(bob(), chat(), own);
    let told = store.receipts(alice()).pop().expect("a receipt");
    assert_eq!(told.read, &first.as_bytes()[..]);
    assert_eq!(told.delivered, &first.as_bytes()[..]);
}

/// D-F5: who was never written to has read nothing, and reaches nobody's inbox by saying so.
pub(crate) fn df5_r20_a_mark_where_nothing_was_delivered_does_nothing(store: &mut impl Ask) {
    let stranger = (user(9), device(9));
    open_all(store, &[alice(), bob(), stranger]);
    let sent = store.send(alice(), user(2), 1).position;
    for peer in [1, 2, 77] {
        let chat = ChatId::pair(user(9), user(peer));
        assert!(store.mark_read(stranger, chat, sent).is_empty());
        assert!(store.mark_read(stranger, chat, Position::MAX).is_empty());
    }
    assert!(store.entries(alice()).is_empty());
    // The recipient of a message that it has not stored has not read it either.
    assert!(store.mark_read(bob(), chat(), sent).is_empty());
}

/// D-F5, R13: a device that was removed has nothing to say.
pub(crate) fn df18_r13_a_removed_device_marks_nothing(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let sent = store.send(alice(), user(2), 1).position;
    store.flush(bob(), sent);
    let mark = MarkRead {
        user: user(2),
        device: device(77),
        chat: chat(),
        position: sent,
    };
    let refused = store.ask(Command::MarkRead(mark)).expect_err("no device");
    assert_eq!(refused, StoreError::DeviceRemoved);
}

/// D-F3, D-F12: an inbox is limited in messages and in their bytes, and receipts count for neither.
pub(crate) fn df12_r21_bytes_suspend_a_device_as_messages_do(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    let limits = |bytes_max| InboxLimits {
        bytes_max,
        ..InboxLimits::DEFAULT
    };
    for number in 1..=3 {
        let large = vec![item(alice(), user(2), number, &[7; 60_000])];
        assert!(store.sends(alice(), large).0[0].is_ok());
    }
    assert!(!store.check_limits(bob(), limits(180_500)).0);
    let first = cursors(store, bob())[0];
    store.flush(bob(), first);
    assert!(
        !store.check_limits(bob(), limits(121_000)).0,
        "two are left"
    );
    let receipts = store.receipts(alice()).len();
    assert_eq!(receipts, 1);
    assert!(!store.check(alice(), 0).0, "a receipt counts for nothing");
    assert!(store.check_limits(bob(), limits(120_000)).0);
}

/// D-F3: nobody knows how many entries a Hello's cursor stands for, and none of them may cost the others more than
/// a batch.
pub(crate) fn df3_r18_a_long_flush_is_done_in_pieces(store: &mut impl Ask) {
    open_all(store, &[alice(), bob()]);
    for hundred in 0..6 {
        let numbers = hundred * 100 + 1..=hundred * 100 + 100;
        let items = numbers.map(|number| item(alice(), user(2), number, b"x"));
        store.sends(alice(), items.collect());
    }
    let last = *cursors(store, bob()).last().expect("many");
    let flush = Flush {
        user: user(2),
        device: bob().1,
        upto: last,
        known: None,
    };
    let mut pieces = Vec::new();
    loop {
        match store.ask(Command::Flush(flush.clone())) {
            Ok(Outcome::Flushed {
                stored_ack,
                more,
                grown,
            }) => {
                assert_eq!(grown.len(), 1, "each tells how far it got");
                pieces.push(stored_ack);
                if !more {
                    break;
                }
                assert!(stored_ack < last);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(pieces.len(), 3, "600 entries");
    assert!(pieces.is_sorted_by(|a, b| a < b) && pieces[2] == last);
    assert!(store.entries(bob()).is_empty());
    assert!(!store.check(bob(), 0).0, "and nothing is held");
}

/// Sends one message to Bob, whose inbox may hold so much.
fn send_within(
    store: &mut impl Ask,
    from: Who,
    number: u64,
    limits: InboxLimits,
) -> Result<Sent, StoreError> {
    let sends = Sends {
        user: from.0,
        device: from.1,
        limits,
        items: vec![item(from, user(2), number, b"x")],
    };
    store.try_sends(sends).pop().expect("one answer")
}

/// D-F6: long before a device is suspended, one sender has had its share of it. Others have theirs.
pub(crate) fn df6_r21_one_sender_may_have_a_share_of_an_inbox(store: &mut impl Ask) {
    let carol = (user(3), device(3));
    open_all(store, &[alice(), bob(), carol]);
    let limits = InboxLimits {
        entries_max: 100,
        bytes_max: 1 << 20,
    };
    let mut number = 0;
    let mut send = |store: &mut _, from, count| {
        let numbers = number + 1..=number + count;
        number += count;
        numbers
            .filter(|number| send_within(store, from, *number, limits).is_ok())
            .count()
    };
    // Six messages make it crowded, and from there on ten are a share.
    assert_eq!(send(store, alice(), 6), 6);
    assert!(!store.check_limits(bob(), limits).0);
    assert_eq!(send(store, alice(), 30), 10);
    assert_eq!(send(store, carol, 12), 10, "who has a share of her own");
    // What is stored makes room for its sender again. Eleven are, of which six were in nobody's share: it is soft.
    let all = cursors(store, bob());
    store.flush(bob(), all[10]);
    assert_eq!(send(store, alice(), 30), 10);
    // An inbox that is empty counts nobody.
    let all = cursors(store, bob());
    store.flush(bob(), *all.last().expect("some"));
    assert_eq!(send(store, alice(), 30), 30);
}

/// D-F6: where another device takes it, the one in which the sender has used up its share goes without, with a Gap,
/// and everybody else reaches it as before.
pub(crate) fn df6_r21_a_share_that_is_used_up_is_told_where_the_message_goes_elsewhere(
    store: &mut impl Ask,
) {
    let carol = (user(3), device(3));
    open_all(store, &[alice(), bob(), bob_tablet(), carol]);
    let limits = InboxLimits {
        entries_max: 20,
        bytes_max: 1 << 20,
    };
    let send = |store: &mut _, from, number| {
        let sent = send_within(store, from, number, limits).expect("the phone takes it");
        // The phone stores everything, the tablet is away.
        Ask::flush(store, bob(), sent.position);
    };
    for number in 1..=2 {
        send(store, alice(), number);
    }
    assert!(!store.check_limits(bob_tablet(), limits).0);
    for number in 3..=10 {
        send(store, alice(), number);
    }
    send(store, carol, 1);
    let bodies: Vec<EntryBody> = store
        .entries(bob_tablet())
        .into_iter()
        .map(|entry| entry.body)
        .collect();
    let gaps = |body: &&EntryBody| matches!(body, EntryBody::Gap(GapReason::SenderLimit));
    assert_eq!(bodies.len(), 2 + 2 + 1 + 1, "{bodies:?}");
    assert_eq!(bodies.iter().filter(gaps).count(), 1, "one for all of them");
    assert!(matches!(bodies[5], EntryBody::Message { .. }), "Carol's");
    // It comes back and stores all of it, and stays away once more: the next time is told of again.
    let all = cursors(store, bob_tablet());
    store.flush(bob_tablet(), *all.last().expect("some"));
    for number in 11..=14 {
        send(store, alice(), number);
    }
    assert_eq!(store.entries(bob_tablet()).len(), 4);
    assert!(!store.check_limits(bob_tablet(), limits).0);
    for number in 15..=18 {
        send(store, alice(), number);
    }
    let entries = store.entries(bob_tablet());
    assert_eq!(entries.len(), 4 + 2 + 1);
    assert_eq!(entries[6].body, EntryBody::Gap(GapReason::SenderLimit));
}

pub(crate) fn r21_a_device_over_the_limit_is_suspended_until_it_resyncs(store: &mut impl Ask) {
    open_all(store, &[alice(), bob(), bob_tablet()]);
    for number in 1..=4 {
        store.send(alice(), user(2), number);
    }
    assert!(!store.check(bob(), 4).0);
    let (suspended, grown) = store.check(bob(), 3);
    assert!(suspended && grown.len() == 1);
    let (suspended, grown) = store.check(bob(), 3);
    assert!(suspended && grown.is_empty(), "one gap");
    let sent = store.send(alice(), user(2), 5).position;
    let entries = store.entries(bob());
    assert_eq!(entries.len(), 5);
    assert_eq!(entries[4].body, EntryBody::Gap(GapReason::InboxLimit));
    assert_eq!(cursors(store, bob_tablet()).last(), Some(&sent));
    store.flush(bob(), entries[3].cursor);
    store.send(alice(), user(2), 6);
    assert_eq!(
        store.entries(bob()).len(),
        1,
        "the gap alone, until it is acknowledged"
    );
    store.flush(bob(), entries[4].cursor);
    let sent = store.send(alice(), user(2), 7).position;
    assert_eq!(cursors(store, bob()), [sent]);
}

pub(crate) fn r21_recipient_full_only_if_all_devices_are_suspended(store: &mut impl Ask) {
    open_all(store, &[alice(), bob(), bob_tablet()]);
    store.send(alice(), user(2), 1);
    assert!(store.check(bob(), 0).0);
    store.send(alice(), user(2), 2);
    assert!(store.check(bob_tablet(), 0).0);
    assert_eq!(
        store.try_send(alice(), user(2), 3),
        Err(StoreError::RecipientFull)
    );
    let gap = *cursors(store, bob()).last().expect("a gap");
    store.flush(bob(), gap);
    store.send(alice(), user(2), 4);
}

pub(crate) fn notes_to_oneself_reach_the_other_devices(store: &mut impl Ask) {
    store.open(alice());
    store.send(alice(), user(1), 1);
    store.open(alice_tablet());
    let sent = store.send(alice(), user(1), 2).position;
    assert_eq!(cursors(store, alice_tablet()), [sent]);
    assert!(
        store.flush(alice_tablet(), sent).is_empty(),
        "no receipts of one's own messages"
    );
    assert!(store.entries(alice()).is_empty());
    let notes = ChatId::pair(user(1), user(1));
    assert_eq!(store.mark_read(alice_tablet(), notes, sent).len(), 1);
}
