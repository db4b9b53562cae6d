//! Reading an inbox and delivering what is in it: the one path for live, offline and catch-up (R4).

use std::time::Duration;

use bytes::Bytes;
use roadstead_proto::Position;
use roadstead_proto::v1::{self, server_frame};

use super::{Pending, Shard};
use crate::io::SessionId;
use crate::limits;
use crate::session::WindowEntry;
use crate::store::{
    Command, Entry, EntryBody, Grown, InboxPage, KnownEntry, ReadInbox, StoreError,
};
use crate::time::Now;

impl Shard {
    /// Reads on, if the window has room and no read is under way; else leaves the mark to do it later.
    pub(super) fn read_inbox(&mut self, now: Now, id: SessionId) {
        self.read_inbox_for(now, id, Pending::ReadInbox);
    }

    /// The same, for the one who waits; whether it reads.
    pub(super) fn read_inbox_for(
        &mut self,
        now: Now,
        id: SessionId,
        pending: fn(SessionId) -> Pending,
    ) -> bool {
        let Some(session) = self.active_mut(id) else {
            return false;
        };
        if session.reading || !session.has_room() {
            session.dirty = true;
            session.caught_up &= session.has_room();
            return false;
        }
        let (user, device) = session.identity();
        session.reading = true;
        session.dirty = false;
        let after = session.read_through;
        let active = session.in_flight(now.at);
        let command = Command::ReadInbox(ReadInbox {
            user,
            device,
            after,
            entries_max: limits::DELIVER_WINDOW_ENTRIES_MAX - active.unacked,
            bytes_max: limits::DELIVER_WINDOW_BYTES_MAX - active.unacked_bytes,
        });
        self.counters.inbox_reads += 1;
        self.ask(command, pending(id));
        true
    }

    pub(super) fn handle_inbox_page(&mut self, now: Now, id: SessionId, page: InboxPage) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        session.reading = false;
        if let Some(active) = session.in_flight.as_mut() {
            active.retries = 0;
        }
        for entry in page.entries {
            self.deliver(now, id, entry);
        }
        let session = self.active_mut(id).expect("delivering closes nothing");
        session.read_through = session.read_through.max(page.through);
        if page.more || session.dirty {
            // R5: a notify during the read causes one more.
            self.read_inbox(now, id);
        } else {
            session.caught_up = true;
        }
        self.settle(now, id);
    }

    pub(super) fn handle_read_failed(&mut self, now: Now, id: SessionId, error: StoreError) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        session.reading = false;
        session.dirty = true;
        if error.is_retryable() {
            let active = session.in_flight(now.at);
            active.retry_at = Some(now.at + backoff(&mut active.retries));
            self.arm(now, id);
        } else {
            self.refuse(now, id, error.code(), "the inbox can not be read");
        }
    }

    pub(super) fn handle_retry_due(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        let Some(active) = session.in_flight.as_mut() else {
            return;
        };
        if active.retry_at.is_some_and(|at| at <= now.at) {
            active.retry_at = None;
            if session.dirty {
                self.read_inbox(now, id);
            }
        }
    }

    /// The inbox of a session grew. With proof that nothing lies between, the entry is delivered; else
    /// this only says when to read (R4, R7).
    pub(super) fn handle_notify(&mut self, now: Now, id: SessionId, grown: Grown) {
        let Some(session) = self.active_mut(id) else {
            return;
        };
        if grown.cursor <= session.read_through {
            return;
        }
        let known = grown
            .previous
            .is_some_and(|previous| previous <= session.read_through);
        match grown.entry {
            Some(body) if known && !session.reading && !session.dirty && session.has_room() => {
                self.counters.delivered_without_read += 1;
                self.deliver(
                    now,
                    id,
                    Entry {
                        cursor: grown.cursor,
                        body,
                    },
                );
            }
            _ if session
                .in_flight
                .as_ref()
                .is_some_and(|active| active.retry_at.is_some()) =>
            {
                session.dirty = true;
            }
            _ => self.read_inbox(now, id),
        }
        self.arm(now, id);
    }

    pub(super) fn deliver(&mut self, now: Now, id: SessionId, entry: Entry) {
        let session = self.active_mut(id).expect("checked by the caller");
        assert!(
            entry.cursor > session.delivered,
            "cursors only grow within a session (R4)"
        );
        let (user, _) = session.identity();
        let is_live = session.caught_up;
        session.delivered = entry.cursor;
        session.read_through = session.read_through.max(entry.cursor);
        let bytes = limits::ENTRY_BYTES + payload_len(&entry.body);
        let known = KnownEntry::of(user, entry.cursor, &entry.body);
        let active = session.in_flight(now.at);
        active.unacked += 1;
        active.unacked_bytes += bytes;
        active.window.push_back(WindowEntry { known, bytes });
        if !session.has_room() {
            session.in_flight(now.at).progress_at = now.at;
        }
        self.counters.delivered += 1;
        if let EntryBody::Message { envelope, .. } = &entry.body
            && is_live
        {
            let took = now.unix_ms.saturating_sub(envelope.server_time_ms);
            self.counters.deliver.record(took);
        }
        self.send(id, frame_of(entry));
    }
}

/// The wait before the next try: doubles from [`limits::STORE_RETRY`] to [`limits::STORE_RETRY_MAX`].
pub(super) fn backoff(retries: &mut u32) -> Duration {
    let wait = limits::STORE_RETRY.saturating_mul(1 << (*retries).min(10));
    *retries += 1;
    wait.min(limits::STORE_RETRY_MAX)
}

fn payload_len(body: &EntryBody) -> usize {
    match body {
        EntryBody::Message { envelope, .. } => envelope.payload.len(),
        EntryBody::Receipt(_) | EntryBody::Gap(_) => 0,
    }
}

fn frame_of(entry: Entry) -> server_frame::Body {
    let cursor = Bytes::copy_from_slice(entry.cursor.as_bytes());
    match entry.body {
        EntryBody::Message {
            chat_position,
            envelope,
        } => {
            let chat_position = match chat_position {
                Position::ZERO => Bytes::new(),
                place => Bytes::copy_from_slice(place.as_bytes()),
            };
            server_frame::Body::Deliver(v1::Deliver {
                cursor,
                chat_position,
                envelope: Some(envelope),
            })
        }
        EntryBody::Receipt(update) => {
            server_frame::Body::ReceiptUpdate(v1::ReceiptUpdate { cursor, ..update })
        }
        EntryBody::Gap(reason) => server_frame::Body::Gap(v1::Gap {
            cursor,
            reason: reason.into(),
        }),
    }
}
