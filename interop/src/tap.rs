//! A tap between client and server: a NAT that can be told to forget, and an eye on the long headers.
//!
//! It listens where the client believes the server to be, and speaks to the server from a socket of its
//! own. [`Tap::rebind`] replaces that socket: the server sees a new address, the client sees nothing.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Result;
use roadstead_quic::packet::{Kind, Packet};

use crate::udp::{bind, receive, send, wait};

/// Packets seen in the clear, by what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Seen {
    /// Retry packets of the server.
    pub retries: u32,
    /// Initial packets of the client that carry a token.
    pub initials_with_token: u32,
    /// Version Negotiation packets of the server.
    pub version_negotiations: u32,
    /// Datagrams of clients.
    pub up: u32,
    /// Datagrams of the server.
    pub down: u32,
}

/// How often the tap looks whether it shall stop.
const TICK: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
struct Shared {
    seen: Seen,
    /// The socket towards the server, by client.
    outside: HashMap<SocketAddr, Arc<UdpSocket>>,
    failed: Option<String>,
}

/// A tap in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Tap {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// A tap before this server.
    pub fn before(server: SocketAddr) -> Result<Self> {
        let inside = bind()?;
        let address = inside.local_addr()?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let (theirs, flag) = (shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if let Err(error) = turn(&inside, server, &theirs) {
                    theirs.lock().expect("no panic").failed = Some(format!("{error:#}"));
                    return;
                }
            }
        });
        Ok(Self {
            address,
            shared,
            stop,
            thread: Some(thread),
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was seen so far.
    pub fn seen(&self) -> Result<Seen> {
        let shared = self.shared.lock().expect("no panic");
        match &shared.failed {
            Some(error) => anyhow::bail!("the tap failed: {error}"),
            None => Ok(shared.seen),
        }
    }

    /// Forgets all mappings and makes new ones; returns the addresses that the server sees from now on.
    pub fn rebind(&self) -> Result<Vec<SocketAddr>> {
        let mut shared = self.shared.lock().expect("no panic");
        let mut addresses = Vec::new();
        for socket in shared.outside.values_mut() {
            *socket = Arc::new(bind()?);
            addresses.push(socket.local_addr()?);
        }
        Ok(addresses)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// Forwards what is there, and waits a moment if nothing is.
fn turn(inside: &UdpSocket, server: SocketAddr, shared: &Mutex<Shared>) -> Result<()> {
    let sockets: Vec<(SocketAddr, Arc<UdpSocket>)> = {
        let shared = shared.lock().expect("no panic");
        let sockets = shared.outside.iter();
        sockets.map(|(c, s)| (*c, s.clone())).collect()
    };
    let all = std::iter::once(inside).chain(sockets.iter().map(|(_, s)| &**s));
    wait(all, TICK)?;
    let mut buf = [0; 65_536];
    while let Some((len, client)) = receive(inside, &mut buf)? {
        let mut shared = shared.lock().expect("no panic");
        shared.seen.up += 1;
        let first = Packet::parse(&buf[..len], 0).ok();
        let token = first.is_some_and(|p| p.kind == Kind::Initial && p.token.0 < p.token.1);
        shared.seen.initials_with_token += u32::from(token);
        let outside = match shared.outside.get(&client) {
            Some(socket) => socket.clone(),
            None => {
                let socket = Arc::new(bind()?);
                shared.outside.insert(client, socket.clone());
                socket
            }
        };
        send(&outside, &buf[..len], server)?;
    }
    for (client, socket) in sockets {
        while let Some((len, _)) = receive(&socket, &mut buf)? {
            let mut shared = shared.lock().expect("no panic");
            shared.seen.down += 1;
            match Packet::parse(&buf[..len], 0).map(|p| p.kind) {
                Ok(Kind::Retry) => shared.seen.retries += 1,
                Ok(Kind::VersionNegotiation) => shared.seen.version_negotiations += 1,
                _ => {}
            }
            // A mapping that was forgotten meanwhile delivers nothing more.
            if shared
                .outside
                .get(&client)
                .is_some_and(|s| Arc::ptr_eq(s, &socket))
            {
                send(inside, &buf[..len], client)?;
            }
        }
    }
    Ok(())
}
