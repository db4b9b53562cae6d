//! Every limit of the wire, with the reason for its value.
//!
//! Limits of the server's own queues and windows are in the core (`roadstead::limits`); these are the
//! ones that a client has to know.

/// Largest frame, without its length prefix, in bytes. A text message is a few hundred bytes; media
/// travel by reference. 64 KiB leaves room for MLS handshake messages of a large group.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Largest frame before Welcome, without its length prefix, in bytes: a Hello with the longest credential and as
/// much again (P110). Who has not logged in yet may hold no more of a shard's memory (T8).
pub const HELLO_FRAME_BYTES_MAX: usize = 8 * 1024;

/// Room that a frame needs beside the payload: identifiers, positions and field tags.
pub const ENVELOPE_OVERHEAD_BYTES_MAX: usize = 512;

/// Largest payload of a Send, in bytes, so that the Deliver made of it still fits in a frame.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - ENVELOPE_OVERHEAD_BYTES_MAX;

/// Bytes of the longest length prefix that a frame may have.
pub const LENGTH_PREFIX_BYTES_MAX: usize = 3;

/// Sends of one device that may be unanswered at once (R12). Half the answers kept, so that a retry of
/// the oldest one in flight always finds its answer.
pub const SENDS_IN_FLIGHT_MAX: usize = 128;

/// Payload bytes of one device's sends above which no further one may be unanswered: 16 of the largest, more
/// than a phone's link carries in the round trip of a commit. A send that begins below it is taken.
pub const SENDS_IN_FLIGHT_BYTES_MAX: usize = 1024 * 1024;

/// Answers kept per device (R12): number `n` lives in slot `n % SEND_ANSWERS_KEPT`.
pub const SEND_ANSWERS_KEPT: u64 = 256;

/// Longest credential in a Hello, in bytes. An EdDSA token with a dozen claims has about 400.
pub const CREDENTIAL_BYTES_MAX: usize = 4 * 1024;

/// Most entries that may be delivered and not yet acknowledged. A client that stores in batches
/// acknowledges far more often.
pub const DELIVER_WINDOW_ENTRIES_MAX: usize = 256;

const _: () = {
    assert!(PAYLOAD_BYTES_MAX + ENVELOPE_OVERHEAD_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(2 * CREDENTIAL_BYTES_MAX <= HELLO_FRAME_BYTES_MAX);
    assert!(HELLO_FRAME_BYTES_MAX <= FRAME_BYTES_MAX);
    assert!(FRAME_BYTES_MAX < 1 << (7 * LENGTH_PREFIX_BYTES_MAX));
    assert!(SENDS_IN_FLIGHT_MAX as u64 * 2 <= SEND_ANSWERS_KEPT);
    assert!(SENDS_IN_FLIGHT_BYTES_MAX >= PAYLOAD_BYTES_MAX);
};
