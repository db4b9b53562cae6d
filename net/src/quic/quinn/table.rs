//! The table of connections, in step with the endpoint's own, and the lists of those with work to do.

use std::time::Instant;

use quinn_proto::{ConnectionHandle, Endpoint, EndpointEvent};

use super::{Quinn, Slot, TRAIN_PACKETS_MAX, conn::Conn, door::Place};
use crate::{event::ConnId, quic::Outbound};

impl Quinn {
    pub(super) fn insert(&mut self, handle: ConnectionHandle, conn: Conn) -> ConnId {
        let index = index_of(handle);
        if self.slots.len() <= handle.0 {
            self.slots.resize_with(handle.0 + 1, Slot::default);
        }
        let slot = &mut self.slots[handle.0];
        assert!(
            slot.conn.is_none(),
            "the endpoint reused a handle that is in use"
        );
        slot.conn = Some(Box::new(conn));
        let generation = slot.generation;
        self.present += 1;
        self.half_open += 1;
        self.touch(index);
        ConnId { index, generation }
    }

    pub(super) fn remove(&mut self, index: u32) {
        let slot = &mut self.slots[slot_of(index)];
        if let Some(conn) = slot.conn.take() {
            slot.generation = slot.generation.wrapping_add(1);
            self.present -= 1;
            // One that failed was half open to its end: it lingered with all that it held.
            if !conn.settled {
                self.settle(conn.place);
            }
            self.wheel.cancel(index);
        }
    }

    /// A handshake is no longer half open.
    pub(super) fn settle(&mut self, place: Place) {
        self.half_open -= 1;
        if let Some(door) = &mut self.door {
            door.settled(place);
        }
    }

    pub(super) fn flush_one(&mut self, index: u32, now: Instant, out: &mut impl Outbound) {
        let Some(conn) = self.slots[slot_of(index)].conn.as_deref_mut() else {
            return;
        };
        conn.dirty = false;
        let train = if self.transport.gso {
            TRAIN_PACKETS_MAX
        } else {
            1
        };
        endpoint_events(&mut self.endpoint, index, conn);
        conn.transmit(now, train, out);
        if let Some(closing) = conn.closing.take() {
            conn.inner.close(now, closing.0, closing.1);
            conn.transmit(now, 1, out);
        }
        if endpoint_events(&mut self.endpoint, index, conn) {
            return self.remove(index);
        }
        match conn.deadline() {
            Some(at) => self.wheel.set(index, at),
            None => self.wheel.cancel(index),
        }
    }

    /// It may have events, and therefore packets.
    pub(super) fn touch(&mut self, index: u32) {
        let conn = self.slots[slot_of(index)].conn.as_deref_mut();
        if let Some(conn) = conn.filter(|conn| !conn.touched) {
            conn.touched = true;
            self.touched.push(index);
        }
        self.mark_dirty(index);
    }

    /// It may have packets to send, or its timer may have moved.
    pub(super) fn mark_dirty(&mut self, index: u32) {
        let conn = self.slots[slot_of(index)].conn.as_deref_mut();
        if let Some(conn) = conn.filter(|conn| !conn.dirty) {
            conn.dirty = true;
            self.dirty.push(index);
        }
    }

    pub(super) fn id_of(&self, index: u32) -> ConnId {
        ConnId {
            index,
            generation: self.slots[slot_of(index)].generation,
        }
    }

    pub(super) fn conn_mut(&mut self, index: u32) -> Option<&mut Conn> {
        self.slots.get_mut(slot_of(index))?.conn.as_deref_mut()
    }

    pub(super) fn slot_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        let slot = self.slots.get_mut(slot_of(conn.index))?;
        slot.conn
            .as_deref_mut()
            .filter(|_| slot.generation == conn.generation)
    }

    pub(super) fn open_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.slot_mut(conn).filter(|found| found.usable())
    }

    pub(super) fn open_ref(&self, conn: ConnId) -> Option<&Conn> {
        let slot = self.slots.get(slot_of(conn.index))?;
        let found = slot
            .conn
            .as_deref()
            .filter(|_| slot.generation == conn.generation);
        found.filter(|found| found.usable())
    }
}

/// Carries events between a connection and its endpoint. Answers whether the connection is drained, in
/// which case the endpoint has forgotten it.
fn endpoint_events(endpoint: &mut Endpoint, index: u32, conn: &mut Conn) -> bool {
    let handle = ConnectionHandle(slot_of(index));
    while let Some(event) = conn.inner.poll_endpoint_events() {
        let drained = EndpointEvent::is_drained(&event);
        if let Some(answer) = endpoint.handle_event(handle, event) {
            conn.inner.handle_event(answer);
        }
        conn.drained |= drained;
    }
    conn.drained
}

pub(super) fn index_of(handle: ConnectionHandle) -> u32 {
    u32::try_from(handle.0).expect("fewer connections than 2^32")
}

pub(super) fn slot_of(index: u32) -> usize {
    index as usize
}
