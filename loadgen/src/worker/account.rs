//! What a session hears, entered into the account.

use roadstead_net::{ConnId, Engine, Io};

use super::{Alarm, CATCH_UP, Worker};
use crate::clock::Micros;
use crate::control::Stage;
use crate::findings::Kind;
use crate::ledger::{Arrival, Delivery, Timing};
use crate::session::Happened;

impl Worker {
    pub(super) fn read<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, conn: ConnId) {
        while let Some(chunk) = io.read(conn) {
            let now = self.clock.now();
            self.check_silence(session, chunk.len(), now);
            let slot = &mut self.slots[session as usize];
            slot.session
                .received(chunk, now, &mut self.rng, &mut self.effects);
            self.book(io, session, now);
        }
        self.mark_dirty(session);
    }

    /// Between its Welcome and the first message nothing may reach a silent session.
    pub(super) fn check_silence(&mut self, session: u32, bytes: usize, now: Micros) {
        let slot = &self.slots[session as usize];
        let is_quiet_time = match self.stage {
            Stage::Ramp => now > slot.online_since.micros() + CATCH_UP,
            Stage::Hold => true,
            _ => false,
        };
        if self.plan.silence && is_quiet_time && slot.session.is_active() {
            let what = format!("{bytes} bytes to a session that nobody wrote to");
            self.ledger.note(Kind::SilenceBroken, session, what);
        }
    }

    /// Enters into the account what a session's input led to.
    pub(super) fn book<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, now: Micros) {
        let mut happened = std::mem::take(&mut self.effects.happened);
        for event in happened.drain(..) {
            self.book_one(io, session, event, now);
        }
        self.effects.happened = happened;
        self.arm(session);
    }

    /// Calls a session again when it asked for that.
    pub(super) fn arm(&mut self, session: u32) {
        if let Some(at) = self.effects.wake_at.take() {
            self.set_alarm(at, session, Alarm::Flush);
        }
    }

    pub(super) fn book_one<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        session: u32,
        event: Happened,
        now: Micros,
    ) {
        match event {
            Happened::Welcomed(welcomed) => self.welcomed(session, welcomed, now),
            Happened::Answered {
                message,
                id,
                position,
                ..
            } => {
                if let Some(timing) = self.ledger.answered(message, id, position) {
                    self.record_ack(session, timing, now);
                }
            }
            Happened::Delivered {
                position,
                envelope,
                resynced,
            } => {
                let arrival = Arrival {
                    session,
                    position,
                    envelope: &envelope,
                    resynced,
                };
                match self.ledger.delivered(&arrival) {
                    Delivery::Fresh {
                        timing,
                        sender,
                        read,
                        fanned_out,
                    } => {
                        self.record_delivery(session, sender, timing, now);
                        if fanned_out {
                            let of = &mut self.latencies.fan_out;
                            of.record(timing.intended, timing.written, now);
                        }
                        if let Some(chat) = read {
                            self.slot(session).session.read(chat, position);
                        }
                    }
                    Delivery::Foreign => self.surprise(session, "a message of somebody else"),
                    Delivery::Settled => {}
                }
            }
            Happened::Receipt(update) => self.ledger.receipt(session, &update),
            Happened::Ephemeral(what) => self.surprise(session, what),
            Happened::Postponed { .. } => self.status.postponed += 1,
            Happened::ChatRefused { .. } => {
                self.status.chat_refusals += 1;
                if self.stage == Stage::Drain {
                    self.give_up_outside(session);
                }
            }
            Happened::AnsweredAgain { .. } | Happened::SessionError { .. } => {}
            Happened::Refused { message, code } => self.ledger.refused(message, code),
            Happened::Gap { reason } => {
                self.ledger
                    .note(Kind::Gap, session, format_args!("reason {reason}"));
            }
            Happened::Backwards { cursor, after } => {
                let what = format_args!("cursor {cursor:?} after {after:?}");
                self.ledger.note(Kind::Reordered, session, what);
            }
            Happened::GoAway { after } => self.go_away(io, session, now + after),
            Happened::Broken(what) => {
                *self
                    .status
                    .closes
                    .entry("protocol broken".into())
                    .or_default() += 1;
                self.ledger.note(Kind::ProtocolBroken, session, what);
                self.hang_up(io, session);
            }
        }
    }

    /// Something that is none of this run's: harmless, but no silence.
    pub(super) fn surprise(&mut self, session: u32, what: &str) {
        if self.plan.silence && self.stage != Stage::Ramp {
            self.ledger.note(Kind::SilenceBroken, session, what);
        }
    }

    pub(super) fn record_ack(&mut self, session: u32, timing: Timing, now: Micros) {
        if self.slot(session).online_since.micros() <= timing.intended {
            self.latencies
                .ack
                .record(timing.intended, timing.written, now);
            let queued = timing.written.saturating_sub(timing.intended);
            self.latencies.queue.record(0, 0, queued);
            self.recent.0.record(timing.intended, timing.written, now);
        }
    }

    fn check_late(&mut self, session: u32, timing: Timing, now: Micros) {
        let took = now.saturating_sub(timing.intended);
        let bound = self
            .plan
            .campaign
            .as_ref()
            .map(|campaign| campaign.late_after);
        if bound.is_some_and(|bound| took > bound) {
            let what = format_args!("a message came after {} ms", took / 1_000);
            self.ledger.note(Kind::Late, session, what);
        }
    }

    /// A message waits for its receiver to come back, or was cut off from its sender by an absence: both
    /// say nothing about the server, and are kept apart.
    pub(super) fn record_delivery(
        &mut self,
        session: u32,
        sender: u32,
        timing: Timing,
        now: Micros,
    ) {
        self.check_late(session, timing, now);
        let present =
            |session: u32| self.slots[session as usize].online_since.micros() <= timing.intended;
        let (of, recent) = match present(session) && present(sender) {
            true => (&mut self.latencies.deliver, Some(&mut self.recent.1)),
            false => (&mut self.latencies.catch_up, None),
        };
        of.record(timing.intended, timing.written, now);
        if let Some(recent) = recent {
            recent.record(timing.intended, timing.written, now);
        }
    }
}
