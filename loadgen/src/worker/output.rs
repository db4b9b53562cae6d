//! Bytes on their way out: what a connection does not take waits in its slot.

use roadstead_net::{ConnId, Engine, Io};

use super::Worker;
use super::slot::Millis;
use crate::clock::Micros;

impl Worker {
    pub(super) fn flush_dirty<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for session in dirty.drain(..) {
            let slot = &mut self.slots[session as usize];
            slot.dirty = false;
            let ledger = &mut self.ledger;
            let compose = |message, number| ledger.compose(message, number, now);
            slot.session.flush(now, compose, &mut self.effects);
            self.arm(session);
            self.write(io, session, now);
        }
        self.dirty = dirty;
    }

    /// Hands over what a session wants to write; what the connection does not take waits.
    pub(super) fn write<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, now: Micros) {
        let out = &mut self.effects.out;
        let slot = &mut self.slots[session as usize];
        let Some(conn) = slot.conn().filter(|_| !out.is_empty()) else {
            return out.clear();
        };
        slot.last_write = Millis::after(now);
        if let Some(unsent) = &mut slot.unsent {
            unsent.extend_from_slice(out);
        } else {
            let taken = io.write(conn, out);
            if taken < out.len() {
                slot.unsent = Some(Box::new(out[taken..].into()));
                slot.session.set_blocked(true);
            }
        }
        out.clear();
    }

    pub(super) fn continue_writing<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        session: u32,
        conn: ConnId,
    ) {
        let slot = &mut self.slots[session as usize];
        if let Some(mut unsent) = slot.unsent.take() {
            let taken = io.write(conn, &unsent);
            if taken < unsent.len() {
                bytes::Buf::advance(unsent.as_mut(), taken);
                slot.unsent = Some(unsent);
                return;
            }
        }
        slot.session.set_blocked(false);
        self.mark_dirty(session);
    }
}
