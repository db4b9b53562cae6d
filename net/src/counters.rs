//! Counters of one thread, readable from any other.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::event::CloseReason;

/// A number with one writer: the loop that owns it. Reading it from elsewhere is always allowed and
/// never slows the writer, because the writer uses no atomic read-modify-write.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// The value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `n`. Only the thread that owns the counter may call this.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Sets a gauge. Only the thread that owns it may call this.
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What one thread did. Everything grows, except the gauges, which say so.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Names and values, for metrics.
            pub fn snapshot(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }
    };
}

counters! {
    /// Turns of the loop.
    turns,
    /// Turns that slept in the kernel.
    sleeps,
    /// UDP datagrams received, each segment of a GRO train counted.
    packets_received,
    /// Their bytes of payload.
    bytes_received,
    /// Receive completions that held more than one segment.
    gro_trains_received,
    /// UDP datagrams given to the kernel, each segment of a GSO train counted.
    packets_sent,
    /// Their bytes of payload.
    bytes_sent,
    /// Send entries with more than one segment.
    gso_trains_sent,
    /// Batches of sends submitted.
    send_batches,
    /// Sends lost because the socket buffer was full (EAGAIN).
    send_lost_again,
    /// Sends lost to any other error.
    send_lost_error,
    /// Multishot receives armed again because the buffers had run out (ENOBUFS).
    receive_rearmed_no_buffers,
    /// Multishot receives armed again for any other reason.
    receive_rearmed_other,
    /// Datagrams dropped because they were cut short or unreadable.
    drop_truncated,
    /// Datagrams dropped because they were larger than what this end advertises to take (T8).
    drop_oversized,
    /// Datagrams that the engine had no use for.
    drop_unroutable,
    /// Initials dropped because too many waited.
    drop_initial_backlog,
    /// Initials dropped because the application admits no more from their address.
    drop_not_admitted,
    /// Initials dropped because too many handshakes were half open, of all or of their address.
    drop_half_open,
    /// Initials dropped because their Retry token was stale or had been used.
    drop_token_reused,
    /// Used Retry tokens forgotten before they were stale.
    tokens_forgotten,
    /// Datagrams dropped because their connection had sent more than its quota while this shard was behind (T21).
    drop_quota,
    /// Packets dropped because their number would be 2^62 or more (T19).
    drop_packet_number,
    /// Datagrams of another shard that arrived here (T1).
    strays_received,
    /// Of these, handed to their owner.
    strays_forwarded,
    /// Of these, dropped because the owner's queue was full.
    drop_stray_queue_full,
    /// Datagrams of this shard that another shard handed over.
    strays_taken,
    /// Handshakes completed without a ticket.
    handshakes_full,
    /// Handshakes completed with one.
    handshakes_resumed,
    /// Handshakes that failed for any reason.
    handshakes_failed,
    /// Of these, for want of a common protocol.
    handshakes_failed_alpn,
    /// Of these, because they took too long.
    handshakes_failed_timeout,
    /// Of these, because their place was given to a newcomer (T11).
    handshakes_displaced,
    /// Gauge: handshakes begun and not yet complete, those that failed and linger included.
    half_open,
    /// Gauge: connections that are open.
    connections,
    /// Retry packets sent (T11).
    retries_sent,
    /// Stateless resets sent (T1).
    resets_sent,
    /// Stateless resets not sent, for want of budget.
    resets_suppressed,
    /// Version negotiation packets and refusals sent.
    other_responses_sent,
    /// Connections closed by the peer's application.
    closed_by_peer,
    /// Connections closed by this application.
    closed_locally,
    /// Connections that timed out.
    closed_idle,
    /// Connections ended by a stateless reset from the peer.
    closed_reset,
    /// Connections ended by an error.
    closed_error,
    /// Of these, because they had the most in flight when the memory for it was used up (T8).
    closed_hoarders,
    /// Of these, because an invariant of this side did not hold for them (T19).
    closed_broken,
    /// Messages taken from the mailbox.
    messages_received,
    /// Wake-ups received.
    wakes_received,
    /// Wake-ups sent to sleeping threads.
    wakes_sent,
}

impl Counters {
    /// An open connection is gone.
    pub(crate) fn count_closed(&self, reason: &CloseReason) {
        let counter = match reason {
            CloseReason::Application { .. } => &self.closed_by_peer,
            CloseReason::Local => &self.closed_locally,
            CloseReason::IdleTimeout => &self.closed_idle,
            CloseReason::StatelessReset => &self.closed_reset,
            _ => &self.closed_error,
        };
        counter.add(1);
    }

    /// A connection is gone that never opened.
    pub(crate) fn count_failed_handshake(&self, reason: &CloseReason) {
        self.handshakes_failed.add(1);
        match reason {
            CloseReason::Alpn => self.handshakes_failed_alpn.add(1),
            CloseReason::HandshakeTimeout | CloseReason::IdleTimeout => {
                self.handshakes_failed_timeout.add(1);
            }
            _ => {}
        }
    }
}
