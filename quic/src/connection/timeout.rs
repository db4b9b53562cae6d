//! When a connection needs attention, and what is then due.

use super::{Connection, Cx, Flags, State};
use crate::crypto::Aead;
use crate::error::CloseReason;
use crate::limits::IDLE_EXTENSION_MAX;
use crate::packet::Level;
use crate::time::{Time, low32};

fn earliest(one: Option<Time>, other: Option<Time>) -> Option<Time> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        _ => one.or(other),
    }
}

impl<T> Connection<T> {
    /// The idle timeout that both ends agreed on (RFC 9000 10.1).
    fn idle_deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Option<Time> {
        if self.peer.idle_ms == 0 {
            return None;
        }
        // At least three PTO, so that losses have a chance to be repaired; but the peer chooses the round trip (T8).
        let agreed = u64::from(self.peer.idle_ms) * 1_000;
        let repaired = 3 * self.pto(cx, Level::Data);
        let idle = agreed.max(repaired.min(agreed + IDLE_EXTENSION_MAX));
        let age = low32(cx.now.as_millis()).wrapping_sub(*cx.activity);
        let last = Time::from_millis(cx.now.as_millis().saturating_sub(u64::from(age)));
        Some(last + idle)
    }

    /// When the connection next needs [`Connection::on_timeout`].
    pub(crate) fn deadline<A: Aead>(&self, cx: &Cx<'_, A>) -> Option<Time> {
        if let Some(close) = self.active.as_ref().and_then(|a| a.close.as_ref()) {
            return Some(close.until);
        }
        let idle = self.idle_deadline(cx);
        let Some(active) = &self.active else {
            let ping = self
                .flags
                .has(Flags::PING_SENT)
                .then(|| self.idle_ping_deadline(cx));
            return earliest(idle, ping);
        };
        let delayed_ack = match self.flags.has(Flags::ACK_PENDING) {
            true => active.delayed_ack.due,
            false => None,
        };
        // One by one: this runs for every packet, and as `flatten` and `min` over an array it took a
        // quarter of an echo's instructions.
        [
            active.hs.as_ref().map(|hs| hs.deadline),
            self.recovery_deadline(cx),
            active.path.as_ref().map(|p| p.next_at.min(p.deadline)),
            active.old_key.as_ref().map(|k| k.1),
            active.tail.as_ref().map(|t| t.1),
            active.rec.paced_until,
            delayed_ack,
        ]
        .into_iter()
        .fold(idle, earliest)
    }

    /// Does what is due.
    pub(crate) fn on_timeout<A: Aead>(&mut self, cx: &mut Cx<'_, A>)
    where
        T: crate::crypto::Tls,
    {
        if let Some(close) = self.active.as_ref().and_then(|a| a.close.as_ref()) {
            if close.until <= cx.now {
                self.state = State::Drained;
            }
            return;
        }
        if self.idle_deadline(cx).is_some_and(|at| at <= cx.now) {
            return self.vanish(cx, CloseReason::IdleTimeout);
        }
        let now = cx.now;
        let Some(active) = self.active.as_mut() else {
            return self.on_idle_ping_timeout(cx);
        };
        if active.hs.as_ref().is_some_and(|hs| hs.deadline <= now) {
            return self.vanish(cx, CloseReason::HandshakeTimeout);
        }
        if active.old_key.as_ref().is_some_and(|k| k.1 <= now) {
            active.old_key = None;
        }
        if active.tail.as_ref().is_some_and(|t| t.1 <= now) {
            active.tail = None;
        }
        active.delayed_ack.expire(now);
        self.on_path_timeout(cx);
        self.on_recovery_timeout(cx);
    }
}
