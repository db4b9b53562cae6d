//! Output: datagrams of all connections that have something to send, in the caller's arena.

use super::Endpoint;
use crate::connection::{Cx, Flags, Path};
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::time::Time;

/// Datagrams of one connection in a row, so that a bulk transfer does not starve the others.
const DATAGRAMS_PER_VISIT: usize = 64;

/// One or more datagrams to one address, in the arena of [`Endpoint::poll_transmit`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// From where to where.
    pub path: Path,
    /// Where the bytes start in the arena.
    pub offset: usize,
    /// Bytes of all datagrams.
    pub len: usize,
    /// Bytes of each datagram but the last, which may be shorter: a train of one session (T12).
    pub segment: usize,
}

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// Builds datagrams of all connections that have something to send, one after the other in the
    /// caller's arena, and appends what they are to `out`. True when the arena was full before all
    /// was sent: call again with a fresh one.
    pub fn poll_transmit(&mut self, now: Time, arena: &mut [u8], out: &mut Vec<Transmit>) -> bool {
        let mut at = 0;
        while let Some((path, bytes)) = self.stateless.front() {
            let Some(room) = arena.get_mut(at..at + bytes.len()) else {
                return true;
            };
            room.copy_from_slice(bytes);
            let len = bytes.len();
            out.push(Transmit {
                path: *path,
                offset: at,
                len,
                segment: len,
            });
            at += len;
            self.stateless.pop_front();
            self.stats.datagrams_sent += 1;
        }
        while let Some(index) = self.ready.pop_front() {
            // The entry of a connection that is gone, or that was served meanwhile.
            if !self
                .slab
                .get(index)
                .is_some_and(|c| c.flags.has(Flags::QUEUED))
            {
                continue;
            }
            if arena.len() - at < self.config.transport.datagram_room() {
                self.ready.push_front(index);
                return true;
            }
            let more = self.transmit_one(now, index, arena, &mut at, out);
            self.settle(now, index, more);
        }
        false
    }

    /// Builds datagrams of one connection; true when it may have more.
    fn transmit_one(
        &mut self,
        now: Time,
        index: u32,
        arena: &mut [u8],
        at: &mut usize,
        out: &mut Vec<Transmit>,
    ) -> bool {
        let payload = self.config.transport.datagram_room();
        let (conn, mut cx) = parts!(self, now, index);
        conn.flags.set(Flags::QUEUED, false);
        let first = out.len();
        for _ in 0..DATAGRAMS_PER_VISIT {
            let Some(room) = arena.get_mut(*at..*at + payload) else {
                return true;
            };
            let Some((len, path)) = conn.poll_datagram(&mut cx, room) else {
                return false;
            };
            cx.stats.datagrams_sent += 1;
            match out[first..].last_mut() {
                // T12: trains within one session only, of equal segments but for the last.
                Some(last)
                    if last.path == path && last.len % last.segment == 0 && len <= last.segment =>
                {
                    last.len += len;
                }
                _ => out.push(Transmit {
                    path,
                    offset: *at,
                    len,
                    segment: len,
                }),
            }
            *at += len;
        }
        true
    }
}
