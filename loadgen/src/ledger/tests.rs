//! The canaries: a ledger that finds nothing wrong must be one that would have.

use super::*;
use crate::topology::Topology;

/// Two users of two devices each: sessions 0 and 1 are user 0's, 2 and 3 user 1's.
struct Rig {
    ledger: Ledger,
    clock: u64,
}

/// A message of session 0 to user 1, as the server would make it.
struct Sent {
    message: u64,
    id: MessageId,
    position: Position,
    envelope: v1::Envelope,
}

impl Rig {
    fn new(devices: u32, read_fraction: f64) -> Self {
        let topology = Topology {
            users_from: 11,
            users: 2,
            devices,
            circle: 2,
            seed: 1,
        };
        let rules = Rules {
            thread: 0,
            run: 5,
            size: 100,
            read_fraction,
            details_max: 3,
        };
        let roster = topology.rosters(1, &[]).remove(0);
        Self {
            ledger: Ledger::new(rules, roster),
            clock: 0,
        }
    }

    fn send(&mut self, number: u64) -> Sent {
        self.clock += 1;
        let message = self.ledger.book(0, self.recipient(), 10 * number);
        let send = self.ledger.compose(message, number, 10 * number + 1);
        let id = MessageId::new(100 + number);
        let envelope = v1::Envelope {
            message_id: id.get(),
            chat: send.chat,
            sender: 11,
            sender_device: self.ledger.roster.device_id(0).get(),
            server_time_ms: 1,
            payload: send.payload,
            number: send.number,
        };
        Sent {
            message,
            id,
            position: position(self.clock),
            envelope,
        }
    }

    fn recipient(&self) -> u32 {
        1
    }

    fn receivers(&self) -> Vec<u32> {
        match self.ledger.roster.devices() {
            1 => vec![1],
            _ => vec![1, 2, 3],
        }
    }

    fn answer(&mut self, sent: &Sent) -> Option<Timing> {
        self.ledger.answered(sent.message, sent.id, sent.position)
    }

    fn deliver(&mut self, sent: &Sent, session: u32) -> Delivery {
        self.deliver_at(sent, session, sent.position, false)
    }

    fn deliver_at(
        &mut self,
        sent: &Sent,
        session: u32,
        position: Position,
        resynced: bool,
    ) -> Delivery {
        let envelope = &sent.envelope;
        self.ledger.delivered(&Arrival {
            session,
            position,
            envelope,
            resynced,
        })
    }

    /// A receipt of user 1 for every device of user 0.
    fn receipt(&mut self, delivered: Position, read: Position) {
        let update = v1::ReceiptUpdate {
            chat: Bytes::copy_from_slice(self.ledger.chat(0, 1).as_bytes()),
            user: 12,
            delivered: Bytes::copy_from_slice(delivered.as_bytes()),
            read: Bytes::copy_from_slice(read.as_bytes()),
            ..v1::ReceiptUpdate::default()
        };
        for session in self.ledger.roster.sessions_of(0) {
            self.ledger.receipt(session, &update);
        }
    }

    /// A message that went all the way.
    fn whole(&mut self, number: u64) -> Sent {
        let sent = self.send(number);
        self.answer(&sent);
        for session in self.receivers() {
            self.deliver(&sent, session);
        }
        let read = self.ledger.rules.read_fraction > 0.0;
        let read = if read { sent.position } else { Position::ZERO };
        self.receipt(sent.position, read);
        sent
    }

    fn close(self) -> (Tally, Findings) {
        self.ledger.close()
    }

    fn found(self) -> Vec<(Kind, u64)> {
        self.close()
            .1
            .iter()
            .map(|(kind, found)| (kind, found.count))
            .collect()
    }
}

fn position(place: u64) -> Position {
    let mut stamp = [0; 10];
    stamp[2..].copy_from_slice(&place.to_be_bytes());
    Position::new(1, stamp, 0)
}

#[test]
fn a_run_without_fault_has_no_findings() {
    for devices in [1, 2] {
        let mut rig = Rig::new(devices, 1.0);
        (1..=50).for_each(|number| drop(rig.whole(number)));
        assert!(rig.ledger.is_complete());
        rig.ledger.retire();
        assert!(rig.ledger.messages.is_empty(), "nothing is kept");
        let (tally, findings) = rig.close();
        assert!(findings.is_empty(), "{findings:?}");
        let receivers = u64::from(devices * 2 - 1);
        assert_eq!((tally.sent, tally.acknowledged), (50, 50));
        assert_eq!(
            (tally.to_deliver, tally.delivered),
            (50 * receivers, 50 * receivers)
        );
        assert_eq!(tally.receipts_delivered, 50 * u64::from(devices));
        assert_eq!(tally.receipts_read, 50 * u64::from(devices));
    }
}

#[test]
fn one_receipt_covers_all_before_it() {
    let mut rig = Rig::new(1, 0.0);
    let sent: Vec<_> = (1..=5).map(|number| rig.send(number)).collect();
    for sent in &sent {
        rig.answer(sent);
        rig.deliver(sent, 1);
    }
    assert!(!rig.ledger.is_complete());
    rig.receipt(sent[4].position, Position::ZERO);
    assert!(rig.ledger.is_complete());
    let (tally, findings) = rig.close();
    assert_eq!((tally.receipts_delivered, tally.receipts_read), (5, 0));
    assert!(findings.is_empty());
}

#[test]
fn timing_is_that_of_the_schedule_and_the_first_write() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(7);
    rig.ledger.compose(sent.message, 7, 999);
    let timing = Timing {
        intended: 70,
        written: 71,
    };
    assert_eq!(rig.answer(&sent), Some(timing));
    assert_eq!(
        rig.deliver(&sent, 1),
        Delivery::Fresh {
            timing,
            sender: 0,
            read: None,
            fanned_out: false
        }
    );
}

#[test]
fn canary_lost() {
    let mut rig = Rig::new(2, 0.0);
    let sent = rig.send(1);
    rig.answer(&sent);
    rig.deliver(&sent, 2);
    rig.deliver(&sent, 3);
    rig.receipt(sent.position, Position::ZERO);
    let (_, findings) = rig.close();
    let (kind, found) = findings.iter().next().expect("a finding");
    assert_eq!((kind, found.count), (Kind::Lost, 1));
    let detail = &found.details[0];
    assert!(detail.contains("number 1 of user 11"), "{detail}");
    assert!(
        detail.contains("not delivered to user 11"),
        "the sender's own tablet: {detail}"
    );
}

#[test]
fn canary_duplicated() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(1);
    rig.answer(&sent);
    rig.deliver(&sent, 1);
    assert_eq!(
        rig.deliver_at(&sent, 1, position(9), false),
        Delivery::Settled
    );
    rig.receipt(sent.position, Position::ZERO);
    let found = rig.found();
    assert!(found.contains(&(Kind::Duplicated, 1)), "{found:?}");
}

#[test]
fn canary_duplicated_long_after_it_was_settled() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.whole(1);
    rig.ledger.retire();
    rig.deliver(&sent, 1);
    assert_eq!(rig.found(), [(Kind::Duplicated, 1)]);
}

#[test]
fn canary_made_twice_by_the_server() {
    let mut rig = Rig::new(1, 0.0);
    let mut sent = rig.send(1);
    rig.answer(&sent);
    rig.deliver(&sent, 1);
    // The same number committed again under a new id: R12 broken.
    sent.envelope.message_id = 999;
    rig.deliver_at(&sent, 1, position(5), false);
    rig.receipt(sent.position, Position::ZERO);
    let found = rig.found();
    assert!(found.contains(&(Kind::Duplicated, 1)), "{found:?}");
    assert!(found.contains(&(Kind::Contradicted, 1)), "{found:?}");
}

#[test]
fn r3_a_repeat_after_a_resync_is_filtered() {
    let mut rig = Rig::new(1, 0.0);
    let first = rig.whole(1);
    rig.ledger.retire();
    let second = rig.send(2);
    rig.answer(&second);
    rig.deliver(&second, 1);
    rig.receipt(second.position, Position::ZERO);
    rig.deliver_at(&first, 1, first.position, true);
    rig.deliver_at(&second, 1, second.position, true);
    let (tally, findings) = rig.close();
    assert_eq!(tally.repeats_filtered, 2);
    assert!(findings.is_empty(), "{findings:?}");
}

#[test]
fn canary_reordered_in_the_chat() {
    let mut rig = Rig::new(1, 0.0);
    let (first, second) = (rig.send(1), rig.send(2));
    rig.answer(&first);
    rig.answer(&second);
    rig.deliver(&second, 1);
    rig.deliver(&first, 1);
    rig.receipt(second.position, Position::ZERO);
    assert_eq!(rig.found(), [(Kind::Reordered, 1)]);
}

#[test]
fn canary_numbers_committed_out_of_order() {
    let mut rig = Rig::new(1, 0.0);
    let (first, mut second) = (rig.send(1), rig.send(2));
    rig.answer(&first);
    second.position = Position::ZERO;
    rig.answer(&second);
    let found = rig.found();
    assert!(found.contains(&(Kind::Reordered, 1)), "{found:?}");
}

#[test]
fn canary_unacknowledged() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(1);
    rig.deliver(&sent, 1);
    assert_eq!(rig.found(), [(Kind::Unacknowledged, 1)]);
}

#[test]
fn canary_refused() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(1);
    rig.ledger.refused(sent.message, ErrorCode::UserUnknown);
    assert!(rig.ledger.is_complete(), "nothing more will come");
    let (tally, findings) = rig.close();
    assert_eq!((tally.refused, tally.to_deliver), (1, 0));
    assert_eq!(findings.count(Kind::Refused), 1);
}

#[test]
fn canary_refused_and_delivered_all_the_same() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(1);
    rig.ledger.refused(sent.message, ErrorCode::UserUnknown);
    rig.deliver(&sent, 1);
    assert!(rig.found().contains(&(Kind::Contradicted, 1)));
}

#[test]
fn canary_damaged() {
    let mut rig = Rig::new(1, 0.0);
    let mut sent = rig.send(1);
    let mut payload = sent.envelope.payload.to_vec();
    payload[60] ^= 1;
    sent.envelope.payload = payload.into();
    rig.answer(&sent);
    rig.deliver(&sent, 1);
    let found = rig.found();
    assert!(found.contains(&(Kind::Damaged, 1)), "{found:?}");
    assert!(found.contains(&(Kind::Lost, 1)), "{found:?}");
}

#[test]
fn canary_misdelivered() {
    let mut rig = Rig::new(2, 0.0);
    let mut sent = rig.whole(1);
    rig.deliver(&sent, 0);
    assert_eq!(
        rig.ledger.findings.count(Kind::Misdelivered),
        1,
        "to the sending device"
    );
    sent.envelope.sender = 12;
    rig.deliver(&sent, 2);
    assert_eq!(
        rig.ledger.findings.count(Kind::Misdelivered),
        2,
        "under another name"
    );
}

#[test]
fn canary_two_ids_or_positions_for_one_message() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(1);
    rig.answer(&sent);
    rig.deliver_at(&sent, 1, position(8), false);
    rig.receipt(position(8), Position::ZERO);
    assert_eq!(rig.found(), [(Kind::Contradicted, 1)]);
}

#[test]
fn canary_receipts_missing() {
    let mut rig = Rig::new(2, 1.0);
    let (first, second) = (rig.send(1), rig.send(2));
    for sent in [&first, &second] {
        rig.answer(sent);
        for session in [1, 2, 3] {
            rig.deliver(sent, session);
        }
    }
    rig.receipt(second.position, first.position);
    assert!(!rig.ledger.is_complete());
    let (tally, findings) = rig.close();
    assert_eq!((tally.receipts_delivered, tally.receipts_read), (4, 2));
    assert_eq!(
        findings.count(Kind::ReceiptMissing),
        2,
        "the second's read receipt, on two devices"
    );
}

#[test]
fn canary_receipt_for_what_nobody_has() {
    let mut rig = Rig::new(1, 0.0);
    let sent = rig.send(1);
    rig.answer(&sent);
    rig.receipt(sent.position, Position::ZERO);
    assert_eq!(
        rig.ledger.findings.count(Kind::ReceiptFalse),
        1,
        "not delivered"
    );
    rig.deliver(&sent, 1);
    rig.receipt(sent.position, sent.position);
    assert_eq!(
        rig.ledger.findings.count(Kind::ReceiptFalse),
        2,
        "delivered, not read"
    );
}

#[test]
fn receipts_of_an_earlier_run_are_no_finding() {
    let mut rig = Rig::new(1, 0.0);
    rig.clock = 100;
    rig.receipt(position(50), position(50));
    let sent = rig.send(1);
    rig.answer(&sent);
    rig.deliver(&sent, 1);
    rig.receipt(sent.position, position(50));
    assert_eq!(rig.found(), []);
}

#[test]
fn canary_receipt_that_goes_back() {
    let mut rig = Rig::new(1, 0.0);
    let first = rig.whole(1);
    rig.ledger.findings = Findings::new(3);
    let second = rig.send(2);
    rig.answer(&second);
    rig.deliver(&second, 1);
    rig.receipt(second.position, Position::ZERO);
    rig.receipt(first.position, Position::ZERO);
    assert_eq!(rig.found(), [(Kind::ReceiptFalse, 1)]);
}

#[test]
fn messages_of_others_are_foreign_and_no_finding() {
    let mut rig = Rig::new(1, 0.0);
    let mut other = Rig::new(1, 0.0);
    other.ledger.rules.run = 6;
    let theirs = other.send(1);
    assert_eq!(rig.deliver(&theirs, 1), Delivery::Foreign);
    let mut text = theirs;
    text.envelope.payload = Bytes::from_static(b"hello");
    rig.deliver(&text, 1);
    let (tally, findings) = rig.close();
    assert_eq!(tally.foreign, 2);
    assert!(findings.is_empty());
}

#[test]
fn only_one_device_of_a_reader_marks_and_says_so_again_after_a_reconnect() {
    let mut rig = Rig::new(2, 1.0);
    let sent = rig.send(1);
    rig.answer(&sent);
    let chat = rig.ledger.chat(0, 1);
    assert!(matches!(rig.deliver(&sent, 2), Delivery::Fresh { read: Some(at), .. } if at == chat));
    assert!(matches!(
        rig.deliver(&sent, 3),
        Delivery::Fresh { read: None, .. }
    ));
    assert!(
        matches!(rig.deliver(&sent, 1), Delivery::Fresh { read: None, .. }),
        "its own message"
    );
    assert_eq!(rig.ledger.read_marks(2), [(chat, sent.position)]);
    assert_eq!(rig.ledger.read_marks(3), []);
}

#[test]
fn a_message_to_somebody_outside_needs_an_answer_or_to_be_taken_back() {
    let mut rig = Rig::new(1, 1.0);
    let outside = UserId::new(99).expect("not 0");
    let first = rig.ledger.book_outside(0, outside, 1);
    let second = rig.ledger.book_outside(0, outside, 2);
    let open = rig.ledger.book_outside(0, outside, 3);
    let send = rig.ledger.compose(first, 1, 5);
    let chat = ChatId::pair(outside, rig.ledger.roster.user_id(0));
    assert_eq!(send.chat, chat.as_bytes()[..]);
    let chat = rig.ledger.chat_name(first);
    assert!(Ledger::is_outside(chat) && chat == rig.ledger.chat_name(second));
    assert!(!rig.ledger.is_complete());
    let id = MessageId::new(1);
    assert_eq!(rig.ledger.answered(first, id, position(1)), None);
    rig.ledger.given_up(second);
    let (tally, findings) = rig.close();
    assert_eq!((tally.outside, tally.given_up, tally.sent), (3, 1, 0));
    assert_eq!(findings.count(Kind::Unacknowledged), 1, "{open}");
}

#[test]
fn a_message_that_went_again_under_another_number_is_in_order_by_that() {
    let mut rig = Rig::new(1, 0.0);
    let first = rig.send(1);
    let mut second = rig.send(2);
    rig.answer(&first);
    // Number 2 was refused for good, and its message committed as number 4.
    let send = rig.ledger.compose(second.message, 4, 50);
    (second.envelope.payload, second.envelope.number) = (send.payload, send.number);
    rig.answer(&second);
    rig.deliver(&first, 1);
    assert!(matches!(rig.deliver(&second, 1), Delivery::Fresh { .. }));
    let (tally, _) = rig.close();
    assert_eq!((tally.delivered, tally.sent), (2, 2));
}
