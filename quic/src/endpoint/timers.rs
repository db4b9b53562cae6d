//! The clock: one wheel for all connections, with lazy deadlines.

use super::Endpoint;
use crate::connection::Cx;
use crate::crypto::{Aead, Tls};
use crate::event::Handle;
use crate::slab::{Entry, NIL};
use crate::time::{Time, low32};

/// Timers that fire in one call. A driver receives between two calls, and so an acknowledgement that lies
/// in the socket stops the timer that waits for it. Without that, a driver that was held up for a second
/// sends a probe for every connection, misses their answers meanwhile because its socket overflows, and
/// goes on like that: 1.7 million sessions did, for two minutes.
const FIRED_MAX: usize = 256;

/// How far ahead a timer is armed: a week, less than the wheel tells apart.
const AHEAD_MAX_US: u64 = 7 * 24 * 3_600 * 1_000_000;

impl<T: Tls, A: Aead> Endpoint<T, A> {
    /// When [`Endpoint::handle_timeout`] is due; it may find nothing to do (deadlines are lazy).
    #[must_use]
    pub fn next_timeout(&self, now: Time) -> Option<Time> {
        let tick = self.wheel.next_tick()?;
        let ahead = tick.wrapping_sub(now.tick_down());
        let ahead = if ahead >= 1 << 31 { 0 } else { ahead };
        Some(Time::from_millis(now.as_millis() + u64::from(ahead)).max(now))
    }

    /// Does what is due, or a part of it: then [`Endpoint::next_timeout`] is due at once. Receive between
    /// two calls.
    pub fn handle_timeout(&mut self, now: Time) {
        self.purge_initials(now);
        let mut fired = std::mem::take(&mut self.fired);
        fired.clear();
        self.wheel
            .advance(&mut self.slab, now.tick_down(), FIRED_MAX, &mut fired);
        for index in fired.iter().copied() {
            if self.slab.get(index).is_none() {
                continue;
            }
            let (conn, mut cx) = parts!(self, now, index);
            let due = conn.deadline(&cx).is_some_and(|at| at <= now);
            if due {
                conn.on_timeout(&mut cx);
            }
            self.settle(now, index, due);
        }
        self.fired = fired;
    }

    /// Lazy: a deadline that moved later stays armed where it was, and one beyond the wheel is looked at
    /// early. Ticks are modular: without that bound a deadline of 25 days, which a peer's parameters may set,
    /// would look past, and its timer fire every millisecond.
    pub(super) fn rearm(&mut self, now: Time, index: u32, deadline: Option<Time>) {
        let Some(deadline) = deadline else {
            return self.wheel.disarm(&mut self.slab, index);
        };
        let tick = deadline.min(now + AHEAD_MAX_US).tick_up();
        let links = *self.slab[index].links();
        let armed = links.prev != NIL;
        if armed && tick.wrapping_sub(links.deadline) < 1 << 31 {
            return;
        }
        self.wheel.disarm(&mut self.slab, index);
        self.wheel.arm(&mut self.slab, index, tick);
    }

    /// Connections that heard nothing for longer than `idle_ms`, found in the dense array (T7).
    pub fn sweep_idle(&self, now: Time, idle_ms: u32, mut each: impl FnMut(Handle)) {
        let now_ms = low32(now.as_millis());
        self.slab.sweep(
            |at| now_ms.wrapping_sub(at) > idle_ms,
            |index, conn| {
                each(Handle {
                    index,
                    generation: conn.generation,
                })
            },
        );
    }
}
