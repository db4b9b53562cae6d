//! What a shard counts.

use roadstead_proto::ErrorCode;
use roadstead_proto::error::CODES_MAX;

use super::latency::Latencies;

/// What a shard has done since it began, and holds now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that are open, whatever their state.
    pub sessions: u64,
    /// Sessions that have had their Welcome.
    pub sessions_active: u64,
    /// Welcomes sent.
    pub welcomes: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Sends committed, without repeats.
    pub sends_committed: u64,
    /// Sends answered again with their first answer.
    pub sends_repeated: u64,
    /// Sends refused, for any reason.
    pub sends_refused: u64,
    /// Of those, because the user had made too many.
    pub sends_rate_limited: u64,
    /// Sends refused for good because their user had sent too much to their recipient.
    pub sends_chat_busy: u64,
    /// Users whose sends were counted anew before their bucket was full, because the table of them was.
    pub send_rates_forgotten: u64,
    /// Entries delivered.
    pub delivered: u64,
    /// Of those, delivered from a notify that was known to leave no gap.
    pub delivered_without_read: u64,
    /// Inbox reads asked of the store.
    pub inbox_reads: u64,
    /// Flushes asked of the store.
    pub flushes: u64,
    /// Read marks asked of the store.
    pub read_marks: u64,
    /// Times that a read mark waited because its user had sent too much.
    pub read_marks_rate_limited: u64,
    /// Read marks dropped because the driver went on reading a session that the shard held.
    pub read_marks_dropped: u64,
    /// Acks of another generation, which acknowledge nothing (R3).
    pub acks_of_other_generation: u64,
    /// Sessions closed because another one of the device took over.
    pub replaced: u64,
    /// Openings refused because their device had shown a later resume token.
    pub tokens_overtaken: u64,
    /// Typing frames dropped by their rate limit.
    pub typing_dropped: u64,
    /// Requests to the store that failed retryably.
    pub store_requests_failed: u64,
    /// Sends waiting for the store.
    pub sends_pending: u64,
    /// Bytes of their payloads.
    pub send_bytes_pending: u64,
    /// Requests waiting for the store.
    pub requests_pending: u64,
    /// Users in the directory.
    pub users: u64,
    /// Bytes of the table of sessions, without what is under way.
    pub session_bytes: u64,
    /// Bytes of the directory.
    pub directory_bytes: u64,
    /// Sends refused, by error code.
    pub sends_refused_by_code: CountByCode,
    /// Sessions closed by the server, by error code.
    pub closed_by_code: CountByCode,
    /// From the acceptance of a message to its Deliver, for sessions that had caught up.
    pub deliver: Latencies,
}

/// A count for each error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CountByCode([u64; CODES_MAX]);

impl CountByCode {
    pub(super) fn add(&mut self, code: ErrorCode) {
        let place = usize::try_from(code.as_close_code()).unwrap_or(0);
        self.0[place.min(CODES_MAX - 1)] += 1;
    }

    /// The counts, in the order of codes.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.into_iter()
    }
}

impl Default for CountByCode {
    fn default() -> Self {
        Self([0; CODES_MAX])
    }
}
