//! Every limit of a shard, with the reason for its value and what happens when it is reached.
//!
//! Limits that a client must know are in [`roadstead_proto::limits`].

use std::time::Duration;

use roadstead_proto::limits as wire;

/// Devices of one user. A further device is refused: `DEVICE_LIMIT`.
pub const DEVICES_PER_USER_MAX: usize = 4;

/// Entries of one device's inbox before the device is suspended (R21). Soft: counted in steps of
/// [`INBOX_CHECK_EVERY`], so a device may hold that many more.
pub const INBOX_ENTRIES_MAX: usize = 10_000;

/// Appends to one device between two counts of its inbox by the user's home. A count is a bounded range
/// read; one in 1,250 appends costs less than a hundredth of them.
pub const INBOX_CHECK_EVERY: u32 = 1_250;

/// Delivered entries that a session may leave unacknowledged. Then reading pauses until an Ack.
pub const DELIVER_WINDOW_ENTRIES_MAX: usize = wire::DELIVER_WINDOW_ENTRIES_MAX;

/// Bytes of delivered and unacknowledged entries of a session. Then reading pauses until an Ack. Two of
/// the largest frames, so that one can be stored while the next is on its way.
pub const DELIVER_WINDOW_BYTES_MAX: usize = 2 * wire::FRAME_BYTES_MAX;

/// How long a session with entries waiting may go without acknowledging any. Then it is closed:
/// `SLOW_CONSUMER`. A phone that was put to sleep in mid-read is back or gone within a minute.
pub const SLOW_CONSUMER_AFTER: Duration = Duration::from_secs(60);

/// How long acknowledgements are collected before they are flushed to the store (R18 allows 1 s).
pub const FLUSH_DELAY: Duration = Duration::from_millis(400);

/// Acknowledged entries that are flushed at once, without waiting for [`FLUSH_DELAY`].
pub const FLUSH_ENTRIES: usize = 128;

/// From the opening of a connection to its Hello. Then it is closed: `HELLO_TIMEOUT`.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a send may wait for its commit when the client names no deadline (R26). Then it is answered
/// `DEADLINE_PASSED` and not committed.
pub const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// The longest deadline that a client may name.
pub const SEND_DEADLINE_MAX: Duration = Duration::from_secs(60);

/// Sends of one shard that wait for the store. Above it the shard grants no stream flow control (R26),
/// and sends already received are answered `OVERLOADED` beyond [`STORE_SENDS_REFUSED_ABOVE`].
pub const STORE_SENDS_CONGESTED: usize = 16 * 1024;

/// Sends of one shard waiting for the store above which further ones are refused.
pub const STORE_SENDS_REFUSED_ABOVE: usize = 2 * STORE_SENDS_CONGESTED;

/// Bytes of a shard's sends that wait for the store, above which it grants no stream flow control (R26).
/// At the size of a chat message [`STORE_SENDS_CONGESTED`] is reached first; this bounds memory when
/// payloads are large.
pub const STORE_SEND_BYTES_CONGESTED: usize = 32 * 1024 * 1024;

/// Bytes of a shard's sends waiting for the store above which further ones are refused.
pub const STORE_SEND_BYTES_REFUSED_ABOVE: usize = 2 * STORE_SEND_BYTES_CONGESTED;

/// Users of one shard whose sends are counted at once, when their rate is limited: 16 bytes each. One is in
/// the table only until its bucket is full again. When all places of a set are taken, the bucket nearest to
/// full is forgotten ([`crate::rate`]).
pub const SEND_RATES_MAX: usize = 64 * 1024;

/// Pairs of sender and recipient of one shard whose sends are counted at once, when that rate is limited. As
/// [`SEND_RATES_MAX`]; a user writes to few others in the time in which a bucket fills.
pub const RECIPIENT_RATES_MAX: usize = 128 * 1024;

/// How long a session remembers that a chat refused it for a while (R16), if its client does not say before
/// that it knows. What was sent before the refusal was known has long arrived: a client that hears nothing
/// for so long takes its connection for dead.
pub const CHAT_REFUSAL_REMEMBERED: Duration = Duration::from_secs(60);

/// When a client may try a recipient again that has no room, in milliseconds. It needs that recipient's
/// device to come back or to acknowledge, which takes minutes at least where it is not a matter of moments.
pub const RECIPIENT_FULL_RETRY_MS: u32 = 30_000;

/// What a client is told to wait after a retryable refusal of a send, in milliseconds, at least.
pub const RETRY_AFTER_MS: u32 = 250;

/// GoAway asks the clients of a draining shard to come back within this time, each at its own moment.
pub const DRAIN_SPREAD: Duration = Duration::from_secs(5);

/// How long a draining session may stay after GoAway before the server closes it.
pub const DRAIN_GRACE: Duration = Duration::from_secs(3);

/// How long a session waits before it asks a store that failed again. Doubles to [`STORE_RETRY_MAX`].
pub const STORE_RETRY: Duration = Duration::from_millis(250);

/// The longest wait between two tries of a store that fails.
pub const STORE_RETRY_MAX: Duration = Duration::from_secs(5);

/// Chats of a session whose read marks wait while one is with the store, at 32 bytes each. A phone that was
/// offline for a day has read fewer; a mark more is dropped and counted.
pub const READ_MARKS_WAITING_MAX: usize = 256;

/// Typing frames that a session may send in [`TYPING_INTERVAL`]; more are dropped and counted.
pub const TYPING_BURST: u8 = 4;

/// The interval of [`TYPING_BURST`].
pub const TYPING_INTERVAL: Duration = Duration::from_secs(2);

/// Sessions that are looked at in one go when something concerns all of them, and timers that fire in
/// one go: a fraction of a millisecond.
pub const SWEEP_SLICE: u32 = 1024;

const _: () = {
    assert!(INBOX_CHECK_EVERY as usize * 8 <= INBOX_ENTRIES_MAX);
    assert!(FLUSH_ENTRIES <= DELIVER_WINDOW_ENTRIES_MAX);
    assert!(DELIVER_WINDOW_BYTES_MAX >= wire::FRAME_BYTES_MAX);
    assert!(FLUSH_DELAY.as_millis() <= 1_000, "R18");
    assert!(STORE_SENDS_CONGESTED >= wire::SENDS_IN_FLIGHT_MAX);
    assert!(STORE_SEND_BYTES_CONGESTED >= 16 * wire::SENDS_IN_FLIGHT_BYTES_MAX);
};
