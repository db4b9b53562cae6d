//! Every limit of a shard, with the reason for its value and what happens when it is reached.
//!
//! Limits that a client must know are in [`roadstead_proto::limits`].

use std::time::Duration;

use roadstead_proto::limits as wire;

/// Devices of one user. A further device is refused: `DEVICE_LIMIT`.
pub const DEVICES_PER_USER_MAX: usize = 4;

/// Messages in one device's inbox before the device is suspended (R21). Soft: looked at in steps of
/// [`INBOX_CHECK_EVERY`], so a device may hold some more.
pub const INBOX_ENTRIES_MAX: u64 = 10_000;

/// Bytes of the messages in one device's inbox before the device is suspended (R21): ten thousand of a text
/// with room to spare, or a thousand of the largest.
pub const INBOX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Appends to one device between two looks at its inbox by the user's home. A look is one or two keys read by
/// themselves, so one in 128 appends costs less than a hundredth of them.
pub const INBOX_CHECK_EVERY: u32 = 128;

/// A message of so many bytes is as good a reason to look at an inbox as another message.
pub const INBOX_CHECK_BYTES: u32 = 4 * 1024;

/// One sender may have one part in so many of a crowded inbox (R21): it takes as many accounts to fill one.
pub const INBOX_SHARES: u64 = 10;

/// An inbox is crowded when it holds one part in so many of what it may hold: then its senders are counted
/// one by one. Below that nobody is near a share of it, and counting them would cost every message a write.
pub const INBOX_CROWDED_PART: u64 = 20;

/// Counted for an entry beside its payload, in bytes: ids, positions and what a store needs to keep it.
pub const ENTRY_BYTES: usize = 96;

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

/// Ends of devices and logins that a home remembers for [`HELLO_TIMEOUT`], for sessions that are being opened: more
/// than a script removes in that time at a commit each. The oldest is forgotten first; a device that this misses
/// ends with its next send, a login with its token.
pub const ENDS_REMEMBERED_MAX: usize = 4096;

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

/// Chats of a session whose read marks wait, at 32 bytes each. Then the session is heard no further until one
/// of them is with the store: "all read" in a thousand chats takes its time, and loses none. Twice as many as can wait
/// for an acknowledgement, so that there is always one that does not.
pub const READ_MARKS_WAITING_MAX: usize = 2 * DELIVER_WINDOW_ENTRIES_MAX;

/// Typing frames that a session may send in [`TYPING_INTERVAL`]; more are dropped and counted.
pub const TYPING_BURST: u8 = 4;

/// The interval of [`TYPING_BURST`].
pub const TYPING_INTERVAL: Duration = Duration::from_secs(2);

/// Inboxes that a shard reads again in one go after the store failed (R15), every [`REREAD_EVERY`]: 3,200 a second.
/// So a million sessions have read after some five minutes, and the store has its readers for those who
/// are written to, which read at once. All at once were a queue of a million reads, and 270 bytes for each of them.
pub const REREADS_AT_ONCE: usize = 32;

/// The pause after [`REREADS_AT_ONCE`].
pub const REREAD_EVERY: Duration = Duration::from_millis(10);

/// Of these reads, those that the store has not answered: where it takes longer than a few pauses, it has enough to do.
pub const REREADS_UNDER_WAY_MAX: usize = 4 * REREADS_AT_ONCE;

/// Sessions that are looked at in one go when something concerns all of them, and timers that fire in
/// one go: a fraction of a millisecond.
pub const SWEEP_SLICE: u32 = 1024;

const _: () = {
    assert!(INBOX_CHECK_EVERY as u64 * 64 <= INBOX_ENTRIES_MAX);
    assert!(
        INBOX_SHARES < INBOX_CROWDED_PART,
        "counted before a share is full"
    );
    assert!(FLUSH_ENTRIES <= DELIVER_WINDOW_ENTRIES_MAX);
    assert!(DELIVER_WINDOW_BYTES_MAX >= wire::FRAME_BYTES_MAX);
    assert!(FLUSH_DELAY.as_millis() <= 1_000, "R18");
    assert!(STORE_SENDS_CONGESTED >= wire::SENDS_IN_FLIGHT_MAX);
    assert!(STORE_SEND_BYTES_CONGESTED >= 16 * wire::SENDS_IN_FLIGHT_BYTES_MAX);
};
