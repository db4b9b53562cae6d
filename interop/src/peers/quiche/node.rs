//! One quiche connection as a node of the seeded network.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Result;
use quiche::{Config, Connection, ConnectionId, Header, PathEvent, RecvInfo, Shutdown};
use roadstead_quic::{Side, Time, initiator};

use crate::{
    clock,
    common::net::{Dice, Node, Note, Packet},
    script::SERVER_NAME,
};

/// The largest datagram that is sent.
const PAYLOAD_MAX: usize = 1_350;

/// When virtual time began, since the epoch of the monotonic clock.
const VIRTUAL_EPOCH: Duration = Duration::from_secs(1 << 20);

/// What a token begins with; quiche leaves their making to the application.
const TOKEN: &[u8] = b"roadstead interop";

/// A client or server with at most one connection.
pub struct QuicheNode {
    config: Config,
    is_server: bool,
    address: SocketAddr,
    dice: Dice,
    virtual_time: bool,
    /// A server that asks every newcomer for a token.
    pub retry: bool,
    /// The connection.
    pub conn: Option<Connection>,
    /// The first destination id of the client: where its first flight goes.
    first_id: Vec<u8>,
    /// Counts connections.
    pub generation: u32,
    stateless: Vec<Packet>,
    notes: Vec<Note>,
    told_connected: bool,
    told_closed: bool,
    opened: BTreeSet<u64>,
    /// Streams whose end could not be sent yet.
    finishing: BTreeSet<u64>,
    next_bidi: u64,
    next_uni: u64,
}

impl std::fmt::Debug for QuicheNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QuicheNode")
            .field("is_server", &self.is_server)
            .finish_non_exhaustive()
    }
}

impl QuicheNode {
    /// A server.
    pub fn server(config: Config, address: SocketAddr, dice: Dice) -> Self {
        Self::new(config, true, address, dice)
    }

    /// A client that has not connected yet.
    pub fn client(config: Config, address: SocketAddr, dice: Dice) -> Self {
        Self::new(config, false, address, dice)
    }

    fn new(config: Config, is_server: bool, address: SocketAddr, dice: Dice) -> Self {
        Self {
            config,
            is_server,
            address,
            dice,
            virtual_time: false,
            retry: false,
            conn: None,
            first_id: Vec::new(),
            generation: 0,
            stateless: Vec::new(),
            notes: Vec::new(),
            told_connected: false,
            told_closed: false,
            opened: BTreeSet::new(),
            finishing: BTreeSet::new(),
            next_bidi: u64::from(is_server),
            next_uni: 2 + u64::from(is_server),
        }
    }

    /// The same under the clock of the simulated network. All of its calls must come from one thread.
    pub fn in_virtual_time(mut self) -> Self {
        self.virtual_time = true;
        self
    }

    /// Sets the clock that quiche is about to read.
    fn set_clock(&self, now: Time) {
        if self.virtual_time {
            clock::freeze(VIRTUAL_EPOCH + Duration::from_micros(now.as_micros()));
        }
    }

    /// What quiche's clock reads at this time.
    fn instant(&self, now: Time) -> Instant {
        match self.virtual_time {
            true => clock::instant_at(VIRTUAL_EPOCH + Duration::from_micros(now.as_micros())),
            false => Instant::now(),
        }
    }

    fn id(&mut self) -> ConnectionId<'static> {
        ConnectionId::from_vec(self.dice.seed()[..16].to_vec())
    }

    /// Starts a connection.
    pub fn connect(&mut self, now: Time, to: SocketAddr) -> Result<()> {
        self.set_clock(now);
        self.restart();
        let id = self.id();
        let conn = quiche::connect(Some(SERVER_NAME), &id, self.address, to, &mut self.config)?;
        self.conn = Some(conn);
        Ok(())
    }

    fn restart(&mut self) {
        self.generation += 1;
        (self.told_connected, self.told_closed) = (false, false);
        (self.next_bidi, self.next_uni) =
            (u64::from(self.is_server), 2 + u64::from(self.is_server));
        self.opened.clear();
        self.finishing.clear();
        self.notes.clear();
    }

    /// A datagram that the present connection does not know: a newcomer's, at a server.
    fn welcome(&mut self, packet: &mut Packet) -> Option<()> {
        let header = Header::from_slice(&mut packet.data, 16).ok()?;
        if header.ty != quiche::Type::Initial && header.version == quiche::PROTOCOL_VERSION {
            return None;
        }
        let mut out = vec![0; 1_500];
        if !quiche::version_is_supported(header.version) {
            if header.ty == quiche::Type::Short || packet.data.len() < 1_200 {
                return None;
            }
            let len = quiche::negotiate_version(&header.scid, &header.dcid, &mut out).ok()?;
            return self.answer(packet, &out[..len]);
        }
        let known = self.conn.as_ref().is_some_and(|conn| {
            !conn.is_closed()
                && !conn.is_draining()
                && (conn.source_ids().any(|id| *id == header.dcid)
                    || *header.dcid == *self.first_id)
        });
        if known {
            return None;
        }
        let token = header.token.clone().unwrap_or_default();
        if self.retry && token.is_empty() {
            let id = self.id();
            let token = [TOKEN, &header.dcid].concat();
            let (scid, dcid) = (&header.scid, &header.dcid);
            let len = quiche::retry(scid, dcid, &id, &token, header.version, &mut out).ok()?;
            return self.answer(packet, &out[..len]);
        }
        // A client continues with the id that its Retry gave it; other tokens are as if absent.
        let original = token.strip_prefix(TOKEN).filter(|_| self.retry);
        let original = original.map(|id| ConnectionId::from_vec(id.to_vec()));
        let id = match original {
            Some(_) => ConnectionId::from_vec(header.dcid.to_vec()),
            None => self.id(),
        };
        self.restart();
        self.first_id = header.dcid.to_vec();
        let (to, from) = (packet.to, packet.from);
        self.conn = quiche::accept(&id, original.as_ref(), to, from, &mut self.config).ok();
        None
    }

    fn answer(&mut self, packet: &Packet, data: &[u8]) -> Option<()> {
        self.stateless.push(Packet {
            from: packet.to,
            to: packet.from,
            data: data.to_vec(),
        });
        Some(())
    }

    /// Follows what quiche leaves to its application: spare ids, paths, ends of streams.
    fn attend(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        while conn.is_established() && conn.scids_left() > 0 {
            let id = ConnectionId::from_vec(self.dice.seed()[..16].to_vec());
            let token = u128::from(self.dice.next()) << 64 | u128::from(self.dice.next());
            if conn.new_scid(&id, token, false).is_err() {
                break;
            }
        }
        while let Some(event) = conn.path_event_next() {
            match event {
                PathEvent::New(local, peer) => {
                    // It is there already, or there is no id to spare.
                    let _ = conn.probe_path(local, peer);
                }
                PathEvent::PeerMigrated(..) => self.notes.push(Note::Migrated),
                _ => {}
            }
        }
        while conn.retired_scid_next().is_some() {}
        self.finishing.retain(|id| {
            conn.stream_send(*id, b"", true)
                .is_err_and(|e| e == quiche::Error::Done)
        });
    }

    fn shutdown(&mut self, now: Time, id: u64, half: Shutdown, code: u64) -> bool {
        self.set_clock(now);
        let conn = self.conn.as_mut();
        conn.is_some_and(|conn| conn.stream_shutdown(id, half, code).is_ok())
    }

    fn observe(&mut self) {
        let Some(conn) = &mut self.conn else { return };
        if conn.is_established() && !self.told_connected {
            self.told_connected = true;
            self.notes.extend([Note::Connected, Note::Confirmed]);
        }
        let own = if self.is_server {
            Side::Server
        } else {
            Side::Client
        };
        for id in conn.readable() {
            if initiator(id) != own && self.opened.insert(id) {
                self.notes.push(Note::Opened(id));
            }
            self.notes.push(Note::Readable(id));
        }
        let mut buf = [0; 2_048];
        while let Ok(len) = conn.dgram_recv(&mut buf) {
            self.notes.push(Note::Datagram(buf[..len].to_vec()));
        }
        let over = conn.peer_error().is_some() || conn.local_error().is_some() || conn.is_closed();
        if over && !self.told_closed {
            self.told_closed = true;
            let text = format!(
                "peer {:?}, here {:?}, timeout {}",
                conn.peer_error(),
                conn.local_error(),
                conn.is_timed_out()
            );
            self.notes.push(Note::Closed(text));
        }
    }
}

/// Whether a packet is this connection's. quiche leaves that to its application, and takes a late packet
/// with an id that was retired, which is a stranger's (RFC 9000 5.2), for a violation of the protocol.
fn routes(conn: &Connection, data: &mut [u8]) -> bool {
    let id_len = conn.source_id().len();
    Header::from_slice(data, id_len).is_ok_and(|header| {
        header.ty != quiche::Type::Short || conn.source_ids().any(|id| *id == header.dcid)
    })
}

impl Node for QuicheNode {
    fn receive(&mut self, now: Time, mut packet: Packet) {
        self.set_clock(now);
        if self.is_server && self.welcome(&mut packet).is_some() {
            return;
        }
        // A client's socket has no other connection, and what it does not know may be a stateless reset.
        if let Some(conn) = &mut self.conn
            && (!self.is_server || routes(conn, &mut packet.data))
        {
            let info = RecvInfo {
                from: packet.from,
                to: packet.to,
            };
            // An error has closed the connection, which is told as its end.
            let _ = conn.recv(&mut packet.data, info);
        }
        self.attend();
    }

    fn transmit(&mut self, now: Time, out: &mut Vec<Packet>) {
        self.set_clock(now);
        out.append(&mut self.stateless);
        self.attend();
        let Some(conn) = &mut self.conn else { return };
        let mut buf = [0; PAYLOAD_MAX];
        while let Ok((len, info)) = conn.send(&mut buf) {
            out.push(Packet {
                from: info.from,
                to: info.to,
                data: buf[..len].to_vec(),
            });
        }
    }

    fn next_timeout(&mut self, now: Time) -> Option<Time> {
        self.set_clock(now);
        let at = self.conn.as_ref()?.timeout_instant()?;
        let left = at.saturating_duration_since(self.instant(now)).as_micros();
        Some(now + u64::try_from(left).expect("a short run") + 1)
    }

    fn timeout(&mut self, now: Time) {
        self.set_clock(now);
        if let Some(conn) = &mut self.conn {
            conn.on_timeout();
        }
    }

    fn notes(&mut self, now: Time) -> Vec<Note> {
        self.set_clock(now);
        self.observe();
        std::mem::take(&mut self.notes)
    }

    fn open(&mut self, _: Time, uni: bool) -> Option<u64> {
        let conn = self.conn.as_ref()?;
        let left = match uni {
            true => conn.peer_streams_left_uni(),
            false => conn.peer_streams_left_bidi(),
        };
        if left == 0 {
            return None;
        }
        let next = if uni {
            &mut self.next_uni
        } else {
            &mut self.next_bidi
        };
        *next += 4;
        Some(*next - 4)
    }

    fn write(&mut self, now: Time, id: u64, data: &[u8]) -> usize {
        self.set_clock(now);
        let conn = self.conn.as_mut();
        conn.and_then(|conn| conn.stream_send(id, data, false).ok())
            .unwrap_or(0)
    }

    fn finish(&mut self, now: Time, id: u64) -> bool {
        self.set_clock(now);
        self.finishing.insert(id);
        self.attend();
        self.conn.is_some()
    }

    fn reset(&mut self, now: Time, id: u64, code: u64) -> bool {
        self.shutdown(now, id, Shutdown::Write, code)
    }

    fn stop(&mut self, now: Time, id: u64, code: u64) -> bool {
        self.shutdown(now, id, Shutdown::Read, code)
    }

    fn read(&mut self, now: Time, id: u64) -> (Vec<u8>, bool) {
        self.set_clock(now);
        let mut out = Vec::new();
        let Some(conn) = &mut self.conn else {
            return (out, false);
        };
        let mut buf = [0; 4_096];
        while let Ok((len, fin)) = conn.stream_recv(id, &mut buf) {
            out.extend_from_slice(&buf[..len]);
            if fin {
                return (out, true);
            }
        }
        (out, false)
    }

    fn send_datagram(&mut self, now: Time, data: Vec<u8>) -> bool {
        self.set_clock(now);
        self.conn
            .as_mut()
            .is_some_and(|conn| conn.dgram_send(&data).is_ok())
    }

    fn ping(&mut self, now: Time) -> bool {
        self.set_clock(now);
        self.conn
            .as_mut()
            .is_some_and(|conn| conn.send_ack_eliciting().is_ok())
    }

    fn close(&mut self, now: Time) {
        self.set_clock(now);
        if let Some(conn) = &mut self.conn {
            // It fails only if it is closed.
            let _ = conn.close(true, 42, b"");
        }
    }

    /// quiche answers key updates and begins none.
    fn update_keys(&mut self, _: Time) -> bool {
        false
    }
}
