//! What a worker measures.

use serde::{Deserialize, Serialize};

use crate::latency::Latency;

/// What a worker measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// From send to SendResult.
    pub(crate) ack: Latency,
    /// From send to Deliver.
    pub(crate) deliver: Latency,
    /// From the time at which a message was meant to be sent to its first byte: what waited in this end,
    /// by its own fault or for the server's credit.
    pub(crate) queue: Latency,
    /// The same for messages whose receiver was away.
    pub(crate) catch_up: Latency,
    /// From the start of a connection to the end of the handshake, and to Welcome (T14).
    pub(crate) handshake: Latency,
    pub(crate) login: Latency,
    /// From a cut, or a restart of the server, to the Welcome after it.
    pub(crate) come_back: Latency,
    /// From a send to several users to its last delivery.
    pub(crate) fan_out: Latency,
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            ack: Latency::new(),
            deliver: Latency::new(),
            queue: Latency::new(),
            catch_up: Latency::new(),
            handshake: Latency::new(),
            login: Latency::new(),
            come_back: Latency::new(),
            fan_out: Latency::new(),
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.ack.merge(&other.ack);
        self.deliver.merge(&other.deliver);
        self.queue.merge(&other.queue);
        self.catch_up.merge(&other.catch_up);
        self.handshake.merge(&other.handshake);
        self.login.merge(&other.login);
        self.come_back.merge(&other.come_back);
        self.fan_out.merge(&other.fan_out);
    }
}
