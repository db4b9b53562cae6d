//! The door for the fuzz targets (`fuzz/`): what they call and nobody else can. Absent without the feature.

use rustls::server::ProducesTickets;

use crate::tls::{TicketKeys, Ticketer};

/// Seals and opens session tickets as a server does.
#[derive(Debug)]
pub struct Tickets(Ticketer);

impl Tickets {
    /// With these keys.
    #[must_use]
    pub fn new(keys: &TicketKeys) -> Self {
        Self(Ticketer::new(keys))
    }

    /// A ticket that holds `state`.
    #[must_use]
    pub fn seal(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(state)
    }

    /// What a ticket holds, if it is one of these keys'.
    #[must_use]
    pub fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(ticket)
    }
}
