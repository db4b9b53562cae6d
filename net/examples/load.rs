//! Measures the loop and its engine: handshakes, echoes and idle memory, each end in its own process.
//!
//! ```text
//! load serve 127.0.0.1:4433 1 &                   shards
//! load echo  127.0.0.1:4433 1000 16 1 200000      sessions sockets threads echoes
//! ```
//!
//! `serve` reports its own CPU time and memory on every line that it reads from standard input. The
//! client closes its sessions when it is done. Certificates are made up and accepted by both.
#![allow(clippy::print_stdout)]

use std::{
    collections::HashMap,
    io::BufRead,
    net::SocketAddr,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use bytes::Bytes;
use roadstead_net::{
    App, Client, ClientConfig, ConnId, ConnectParams, Event, Io, Quinn, SecretKeys, Server,
    ServerConfig, host,
    tls::{ALPN, ClientTls, ServerTls},
};

/// Bytes per echo.
const PAYLOAD: [u8; 100] = [7; 100];

/// Handshakes of a client thread that may be under way.
const CONNECTING_MAX: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |at: usize| arguments[at].parse::<usize>().expect("a number");
    let address = || arguments[2].parse::<SocketAddr>().expect("an address");
    match arguments.get(1).map(String::as_str) {
        Some("serve") => serve(address(), small(number(3))),
        Some("echo") => {
            echo(
                address(),
                number(3),
                small(number(4)),
                small(number(5)),
                number(6),
            );
        }
        _ => println!(
            "load serve ADDRESS SHARDS | load echo ADDRESS SESSIONS SOCKETS THREADS ECHOES"
        ),
    }
}

fn small(n: usize) -> u16 {
    u16::try_from(n).expect("a small number")
}

/// CPU seconds and resident bytes of this process.
fn usage() -> (f64, u64) {
    let usage = host::usage(std::process::id()).expect("it runs");
    (usage.cpu.as_secs_f64(), usage.rss_bytes)
}

struct Echo;

impl App<Quinn> for Echo {
    type Message = ();

    fn event(&mut self, io: &mut Io<'_, Quinn>, event: Event) {
        if let Event::Readable { conn } = event {
            while let Some(data) = io.read(conn) {
                io.write(conn, &data);
            }
        }
    }

    fn message(&mut self, _io: &mut Io<'_, Quinn>, (): ()) {}

    fn turn(&mut self, _io: &mut Io<'_, Quinn>) -> Option<Instant> {
        None
    }
}

fn serve(address: SocketAddr, shards: u16) {
    let made = rcgen::generate_simple_self_signed(["load.test".to_owned()]).expect("certificate");
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let tls = ServerTls::from_pem(chain.as_bytes(), key.as_bytes(), &[ALPN], None).expect("tls");
    let mut config = ServerConfig::new(vec![address], shards, Arc::new(tls), SecretKeys::random());
    config.transport.idle_timeout = Duration::from_secs(600);
    let mut server = Server::bind(config).expect("bind");
    let counters = server.counters();
    for seed in server.take_seeds() {
        std::thread::spawn(move || seed.run(Echo).map(drop).expect("loop"));
    }
    let (mut cpu, empty) = usage();
    println!("listening, {} KiB resident", empty / 1024);
    for _ in std::io::stdin().lock().lines() {
        let (now, resident) = usage();
        let sessions: u64 = counters.iter().map(|c| c.connections.get()).sum();
        let each = (resident - empty) / sessions.max(1);
        println!(
            "server: {:.2} s CPU since the last line, {sessions} sessions, {each} B each",
            now - cpu
        );
        for c in &counters {
            let moved: Vec<_> = c.snapshot().into_iter().filter(|(_, n)| *n > 0).collect();
            println!("  {moved:?}");
        }
        cpu = now;
    }
}

/// Opens its sessions, waits for the word, exchanges echoes on random ones, closes.
struct Load {
    params: ConnectParams,
    sessions: usize,
    echoes: usize,
    connecting: usize,
    started: usize,
    open: Vec<ConnId>,
    left: HashMap<ConnId, usize>,
    next: usize,
    milestones: mpsc::Sender<&'static str>,
    going: bool,
}

impl Load {
    fn connect(&mut self, io: &mut Io<'_, Quinn>) {
        while self.connecting < CONNECTING_MAX && self.started < self.sessions {
            io.connect(&self.params).expect("connect");
            self.started += 1;
            self.connecting += 1;
        }
    }

    fn next_echo(&mut self, io: &mut Io<'_, Quinn>) {
        if self.echoes == 0 {
            if self.left.is_empty() && std::mem::take(&mut self.going) {
                self.milestones.send("echoed").expect("main waits");
            }
            return;
        }
        // A stride that is prime to most counts touches all sessions in turn, far apart in memory.
        self.next = (self.next + 7919) % self.open.len();
        let conn = self.open[self.next];
        self.echoes -= 1;
        *self.left.entry(conn).or_default() += PAYLOAD.len();
        assert_eq!(io.write(conn, &PAYLOAD), PAYLOAD.len());
    }

    fn took(&mut self, io: &mut Io<'_, Quinn>, conn: ConnId, data: &Bytes) {
        let left = self.left.get_mut(&conn).expect("an echo");
        *left -= data.len();
        let done = *left == 0;
        if done {
            self.left.remove(&conn);
        }
        for _ in 0..data.len() / PAYLOAD.len() {
            self.next_echo(io);
        }
    }
}

impl App<Quinn> for Load {
    type Message = usize;

    fn event(&mut self, io: &mut Io<'_, Quinn>, event: Event) {
        match event {
            Event::Opened { conn, .. } => {
                self.connecting -= 1;
                self.open.push(conn);
                if self.open.len() == self.sessions {
                    self.milestones.send("opened").expect("main waits");
                }
            }
            Event::Readable { conn } => {
                while let Some(data) = io.read(conn) {
                    self.took(io, conn, &data);
                }
            }
            Event::Closed { conn, reason } => println!("lost {conn:?}: {reason:?}"),
            _ => {}
        }
    }

    fn message(&mut self, io: &mut Io<'_, Quinn>, in_flight: usize) {
        if in_flight == 0 {
            io.close_all(0, b"done");
            return io.stop();
        }
        self.going = true;
        (0..in_flight).for_each(|_| self.next_echo(io));
    }

    fn turn(&mut self, io: &mut Io<'_, Quinn>) -> Option<Instant> {
        self.connect(io);
        None
    }
}

fn echo(address: SocketAddr, sessions: usize, sockets: u16, threads: u16, echoes: usize) {
    let tls = Arc::new(ClientTls::dangerous_accept_any(&[ALPN]).expect("tls"));
    let mut config = ClientConfig::new(threads, sockets, tls);
    config.transport.idle_timeout = Duration::from_secs(600);
    let mut client = Client::open(config).expect("sockets");
    let (mailboxes, counters) = (client.mailboxes(), client.counters());
    let (milestones, reached) = mpsc::channel();
    let count = usize::from(threads);
    let running: Vec<_> = client
        .take_seeds()
        .into_iter()
        .map(|seed| {
            let load = Load {
                params: ConnectParams::new(address, "load.test"),
                sessions: sessions / count,
                echoes: echoes / count,
                connecting: 0,
                started: 0,
                open: Vec::new(),
                left: HashMap::new(),
                next: 0,
                milestones: milestones.clone(),
                going: false,
            };
            std::thread::spawn(move || seed.run(load).map(drop).expect("loop"))
        })
        .collect();
    let phase = |name: &str, amount: usize, base: &mut (f64, Instant)| {
        (0..count).for_each(|_| assert_eq!(reached.recv(), Ok(name)));
        let ((cpu, resident), wall) = (usage(), base.1.elapsed().as_secs_f64());
        let amount = f64::from(u32::try_from(amount).expect("fewer than 2^32"));
        let (rate, each) = (amount / wall, (cpu - base.0) * 1e6 / amount);
        println!(
            "client: {name} {amount} in {wall:.2} s, {rate:.0}/s, {each:.1} us CPU each, {} KiB",
            resident / 1024
        );
        *base = (cpu, Instant::now());
    };
    let mut base = (usage().0, Instant::now());
    phase("opened", sessions, &mut base);
    println!("press enter");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin");
    base = (usage().0, Instant::now());
    for mailbox in &mailboxes {
        mailbox.send(sessions.min(256) / count).expect("room");
    }
    phase("echoed", echoes, &mut base);
    for c in &counters {
        let moved: Vec<_> = c.snapshot().into_iter().filter(|(_, n)| *n > 0).collect();
        println!("  {moved:?}");
    }
    println!("press enter");
    std::io::stdin().read_line(&mut line).expect("stdin");
    mailboxes
        .iter()
        .for_each(|mailbox| mailbox.send(0).expect("room"));
    running
        .into_iter()
        .for_each(|thread| thread.join().expect("a loop failed"));
}
