//! A client's tickets. The library's own store keeps eight per server, which is plenty for one phone and
//! nothing for a load generator, whose sessions all talk to the same server.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard},
};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// Tickets kept per server name, about 1 KB each; the oldest go first.
const TICKETS_MAX: usize = 64 * 1024;

/// Server names: those of one deployment.
const NAMES_MAX: usize = 64;

#[derive(Default)]
struct Server {
    group: Option<NamedGroup>,
    tickets: VecDeque<Tls13ClientSessionValue>,
}

/// Tickets by server name, each used once (RFC 8446 appendix C.4).
#[derive(Default)]
pub(super) struct TicketStore {
    servers: Mutex<HashMap<ServerName<'static>, Server>>,
}

impl TicketStore {
    fn lock(&self) -> MutexGuard<'_, HashMap<ServerName<'static>, Server>> {
        self.servers.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn with(&self, name: ServerName<'static>, change: impl FnOnce(&mut Server)) {
        let mut servers = self.lock();
        if servers.len() < NAMES_MAX || servers.contains_key(&name) {
            change(servers.entry(name).or_default());
        }
    }
}

impl ClientSessionStore for TicketStore {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.with(name, |server| server.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.lock().get(name)?.group
    }

    fn set_tls12_session(&self, _name: ServerName<'static>, _value: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _name: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.with(name, |server| {
            if server.tickets.len() >= TICKETS_MAX {
                server.tickets.pop_front();
            }
            server.tickets.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.lock().get_mut(name)?.tickets.pop_back()
    }
}

impl fmt::Debug for TicketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tickets: usize = self
            .lock()
            .values()
            .map(|server| server.tickets.len())
            .sum();
        f.debug_struct("TicketStore")
            .field("tickets", &tickets)
            .finish()
    }
}
