//! Deliveries: to whom a message that arrived belongs, and whether it may arrive there now.

use roadstead_proto::v1;
use roadstead_proto::{ChatId, MessageId, Position};

use super::{Ledger, Timing, device_bit, sibling_bit};
use crate::findings::Kind;
use crate::payload::{self, Header, PayloadError};

/// A message that reached a session.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) session: u32,
    pub(crate) position: Position,
    pub(crate) envelope: &'a v1::Envelope,
    /// The session reads its inbox again (R3).
    pub(crate) resynced: bool,
}

/// Where a delivered message belongs.
enum Place {
    Open {
        peer: u32,
        bit: u8,
    },
    /// Every device had it.
    Retired,
}

/// What a delivery was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// New to this device.
    Fresh {
        timing: Timing,
        /// The session that sent it.
        sender: u32,
        /// Mark the chat read up to this message.
        read: Option<ChatId>,
        /// It was the last delivery of a fan-out.
        fanned_out: bool,
    },
    /// Of an earlier run, or of another client.
    Foreign,
    /// Nothing to be done: a repeat or a finding.
    Settled,
}

impl Ledger {
    /// A message reached a session.
    pub(crate) fn delivered(&mut self, arrival: &Arrival<'_>) -> Delivery {
        let session = arrival.session;
        let header = match payload::decode(&arrival.envelope.payload) {
            Ok(header) if header.run == self.rules.run => header,
            Ok(_) | Err(PayloadError::Foreign) => {
                self.tally.foreign += 1;
                return Delivery::Foreign;
            }
            Err(PayloadError::Damaged) => {
                self.note(Kind::Damaged, session, arrival);
                return Delivery::Settled;
            }
        };
        match self.place(&header, arrival) {
            Ok(Place::Open { peer, bit }) => self.take(header.message, peer, bit, arrival),
            Ok(Place::Retired) => self.repeated(header.message, arrival),
            Err(kind) => {
                self.note(kind, session, arrival);
                Delivery::Settled
            }
        }
    }

    fn take(&mut self, message: u64, peer: u32, bit: u8, arrival: &Arrival<'_>) -> Delivery {
        let (session, position) = (arrival.session, arrival.position);
        self.learn(
            message,
            MessageId::new(arrival.envelope.message_id),
            position,
        );
        let entry = self.get_mut(message).expect("found by place");
        if entry.delivered & bit != 0 {
            return self.repeated(message, arrival);
        }
        entry.delivered |= bit;
        let (timing, sender, refused) = (entry.timing(), entry.sender, entry.refused);
        let fanout = entry.fanout;
        if refused {
            self.note(
                Kind::Contradicted,
                session,
                format_args!("refused, and delivered: {arrival}"),
            );
            return Delivery::Settled;
        }
        self.tally.delivered += 1;
        self.check_order(message, peer, arrival);
        let from_peer = self.roster.user_id(peer).get() == arrival.envelope.sender;
        let read = (from_peer && self.reads(session, peer)).then(|| {
            let view = self.view(session, peer);
            view.marked = position.max(view.marked);
            self.chat(self.roster.user(session), peer)
        });
        Delivery::Fresh {
            timing,
            sender,
            read,
            fanned_out: fanout > 0 && self.fanned_out(fanout),
        }
    }

    fn check_order(&mut self, message: u64, peer: u32, arrival: &Arrival<'_>) {
        let view = self.view(arrival.session, peer);
        let before = view.delivered;
        view.delivered = arrival.position.max(before);
        if arrival.position <= before {
            let what = format!("{} after {before:?}", self.describe(message));
            self.note(Kind::Reordered, arrival.session, what);
        }
    }

    fn repeated(&mut self, message: u64, arrival: &Arrival<'_>) -> Delivery {
        if arrival.resynced {
            self.tally.repeats_filtered += 1;
        } else {
            let what = self.describe(message);
            self.note(Kind::Duplicated, arrival.session, what);
        }
        Delivery::Settled
    }

    /// Which partner's chat a delivered message belongs to, and the bit of this device in it.
    fn place(&self, header: &Header, arrival: &Arrival<'_>) -> Result<Place, Kind> {
        let envelope = arrival.envelope;
        if header.thread != self.rules.thread || header.sender != envelope.sender {
            return Err(Kind::Misdelivered);
        }
        if header.number != envelope.number {
            return Err(Kind::Contradicted);
        }
        if header.message < self.first {
            // Only what every device had was forgotten.
            return Ok(Place::Retired);
        }
        let entry = self.get(header.message).ok_or(Kind::Contradicted)?;
        let author = self.roster.user(entry.sender);
        if self.roster.device_id(entry.sender).get() != envelope.sender_device
            || self.roster.user_id(author).get() != envelope.sender
            || entry.number != header.number
            || *envelope.chat != self.chat(author, entry.recipient).as_bytes()[..]
        {
            return Err(Kind::Contradicted);
        }
        let device = self.roster.device(arrival.session);
        match self.roster.user(arrival.session) {
            _ if arrival.session == entry.sender => Err(Kind::Misdelivered),
            user if user == entry.recipient => Ok(Place::Open {
                peer: author,
                bit: device_bit(device),
            }),
            user if user == author => Ok(Place::Open {
                peer: entry.recipient,
                bit: sibling_bit(device),
            }),
            _ => Err(Kind::Misdelivered),
        }
    }
}

impl std::fmt::Display for Arrival<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let envelope = self.envelope;
        let id = MessageId::new(envelope.message_id);
        write!(
            f,
            "{id:?}, number {} of user {}",
            envelope.number, envelope.sender
        )
    }
}
