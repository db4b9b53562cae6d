//! What the scenarios share: a server that echoes, a client that does what it is told and reports.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use roadstead_net::{
    App, Client, ClientConfig, CloseReason, ConnId, ConnectParams, Counters, Event, Io, Mailbox,
    SecretKeys, Server, ServerConfig,
    tls::{ALPN, ClientTls, ServerTls, TicketKeys},
};

use super::Engine;

/// Guards against a test that hangs; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The name that the certificate has.
pub(crate) const NAME: &str = "roadstead.test";

pub(crate) struct Pem {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate of its own for this process.
pub(crate) fn pem() -> &'static Pem {
    static PEM: OnceLock<Pem> = OnceLock::new();
    PEM.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        Pem {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        }
    })
}

pub(crate) fn server_tls(tickets: Option<TicketKeys>) -> Arc<ServerTls> {
    let Pem { certificate, key } = pem();
    let tls = ServerTls::from_pem(certificate.as_bytes(), key.as_bytes(), &[ALPN], tickets);
    Arc::new(tls.unwrap())
}

pub(crate) fn client_tls(alpn: &[&[u8]], resumption: bool) -> Arc<ClientTls> {
    Arc::new(ClientTls::trusting_pem(pem().certificate.as_bytes(), alpn, resumption).unwrap())
}

pub(crate) fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub(crate) fn server_config(shards: u16) -> ServerConfig {
    ServerConfig::new(
        vec![loopback()],
        shards,
        server_tls(None),
        SecretKeys::random(),
    )
}

pub(crate) fn client_config(threads: u16, sockets: u16) -> ClientConfig {
    let mut config = ClientConfig::new(threads, sockets, client_tls(&[ALPN], false));
    config.local = vec![loopback()];
    config
}

type Task<A> = Box<dyn FnOnce(&mut A, &mut Io<'_, Engine>) + Send>;

/// Echoes everything, and keeps what its peers do not take.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) carry: HashMap<ConnId, Vec<u8>>,
    pub(crate) open: HashMap<ConnId, SocketAddr>,
    pub(crate) resumed: usize,
    pub(crate) closed: Vec<CloseReason>,
    /// Addresses that proved themselves, and sessions that opened after that.
    pub(crate) proofs: usize,
    pub(crate) proven: usize,
    /// Read nothing, so that flow control holds the peer back.
    pub(crate) deaf: bool,
    pub(crate) watcher: Option<Sender<Event>>,
}

impl Echo {
    fn pump(&mut self, io: &mut Io<'_, Engine>, conn: ConnId) {
        let carry = self.carry.entry(conn).or_default();
        let accepted = io.write(conn, carry);
        carry.drain(..accepted);
        while carry.is_empty() {
            let Some(data) = io.read(conn) else { break };
            let accepted = io.write(conn, &data);
            carry.extend_from_slice(&data[accepted..]);
        }
        if carry.is_empty() {
            self.carry.remove(&conn);
        }
    }
}

impl App<Engine> for Echo {
    type Message = Task<Self>;

    fn proven(&mut self, _now: Instant, _peer: SocketAddr) -> bool {
        self.proofs += 1;
        true
    }

    fn event(&mut self, io: &mut Io<'_, Engine>, event: Event) {
        if let Some(watcher) = &self.watcher {
            let _ = watcher.send(event.clone());
        }
        match event {
            Event::Opened {
                conn,
                peer,
                resumed,
                proven,
            } => {
                self.proven += usize::from(proven);
                self.resumed += usize::from(resumed);
                assert_eq!(self.open.insert(conn, peer), None);
            }
            Event::Readable { conn } | Event::Writable { conn } if !self.deaf => {
                self.pump(io, conn);
            }
            Event::Finished { conn } => io.finish(conn),
            Event::Datagram { conn, data } => assert!(io.send_datagram(conn, data)),
            Event::Closed { conn, reason } => {
                self.carry.remove(&conn);
                assert!(
                    self.open.remove(&conn).is_some(),
                    "closed once, and only after opened"
                );
                assert!(!io.is_open(conn));
                self.closed.push(reason);
            }
            _ => {}
        }
    }

    fn message(&mut self, io: &mut Io<'_, Engine>, task: Task<Self>) {
        task(self, io);
    }

    fn turn(&mut self, _io: &mut Io<'_, Engine>) -> Option<Instant> {
        None
    }
}

/// What a client reports.
#[derive(Debug)]
pub(crate) enum Report {
    Event(usize, Event),
    Data(usize, ConnId, Bytes),
}

/// Does what it is told, reads what comes, reports all.
pub(crate) struct Puppet {
    thread: usize,
    reports: Sender<Report>,
}

impl App<Engine> for Puppet {
    type Message = Task<Self>;

    fn event(&mut self, io: &mut Io<'_, Engine>, event: Event) {
        if let Event::Readable { conn } = event {
            while let Some(data) = io.read(conn) {
                let _ = self.reports.send(Report::Data(self.thread, conn, data));
            }
        }
        let _ = self.reports.send(Report::Event(self.thread, event));
    }

    fn message(&mut self, io: &mut Io<'_, Engine>, task: Task<Self>) {
        task(self, io);
    }

    fn turn(&mut self, _io: &mut Io<'_, Engine>) -> Option<Instant> {
        None
    }
}

/// Threads that run apps of one kind, with a way to each.
pub(crate) struct Running<A: App<Engine, Message = Task<A>>> {
    pub(crate) counters: Vec<Arc<Counters>>,
    mailboxes: Vec<Mailbox<Task<A>>>,
    threads: Vec<JoinHandle<A>>,
}

impl<A: App<Engine, Message = Task<A>> + Send + 'static> Running<A> {
    /// Runs `task` inside a thread's loop.
    pub(crate) fn tell(
        &self,
        thread: usize,
        task: impl FnOnce(&mut A, &mut Io<'_, Engine>) + Send + 'static,
    ) {
        let mut task: Task<A> = Box::new(task);
        while let Err(back) = self.mailboxes[thread].send(task) {
            task = back;
            std::thread::yield_now();
        }
    }

    /// Runs `task` inside a thread's loop and waits for its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        thread: usize,
        task: impl FnOnce(&mut A, &mut Io<'_, Engine>) -> T + Send + 'static,
    ) -> T {
        let (answer, answers) = channel();
        self.tell(thread, move |app, io| answer.send(task(app, io)).unwrap());
        answers.recv_timeout(PATIENCE).unwrap()
    }

    /// Ends the loops, without a word to their peers, and gives the apps back.
    pub(crate) fn kill(self) -> Vec<A> {
        for thread in 0..self.mailboxes.len() {
            self.tell(thread, |_, io| io.stop());
        }
        self.threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    }

    /// Sum of a counter over all threads.
    pub(crate) fn sum(&self, pick: impl Fn(&Counters) -> u64) -> u64 {
        self.counters.iter().map(|counters| pick(counters)).sum()
    }

    /// Waits until a condition on the counters holds. Every step is a round trip through all loops, so
    /// this is no sleep: the loops turn in between.
    pub(crate) fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !holds(self) {
            let counters: Vec<_> = self.counters.iter().map(|c| c.snapshot()).collect();
            assert!(start.elapsed() < PATIENCE, "{what}: {counters:?}");
            (0..self.mailboxes.len()).for_each(|thread| self.ask(thread, |_, _| ()));
        }
    }
}

pub(crate) type RunningServer = Running<Echo>;

/// Starts a server whose shards are made by `app`.
pub(crate) fn serve_with(
    config: ServerConfig,
    app: impl Fn(u16) -> Echo,
) -> (RunningServer, Vec<SocketAddr>) {
    let mut server = Server::<_, Engine>::bind_with_engine(config).unwrap();
    let (addresses, counters, mailboxes) = (
        server.addresses().to_vec(),
        server.counters(),
        server.mailboxes(),
    );
    let threads = server
        .take_seeds()
        .into_iter()
        .map(|seed| {
            let app = app(seed.thread());
            std::thread::spawn(move || seed.run(app).unwrap())
        })
        .collect();
    (
        Running {
            counters,
            mailboxes,
            threads,
        },
        addresses,
    )
}

pub(crate) fn serve(config: ServerConfig) -> (RunningServer, SocketAddr) {
    let (server, addresses) = serve_with(config, |_| Echo::default());
    (server, addresses[0])
}

/// A client and its reports.
pub(crate) struct RunningClient {
    pub(crate) running: Running<Puppet>,
    pub(crate) reports: Receiver<Report>,
}

pub(crate) fn start(config: ClientConfig) -> RunningClient {
    let mut client = Client::<_, Engine>::open_with_engine(config).unwrap();
    let (counters, mailboxes) = (client.counters(), client.mailboxes());
    let (sender, reports) = channel();
    let threads = client
        .take_seeds()
        .into_iter()
        .map(|seed| {
            let app = Puppet {
                thread: usize::from(seed.thread()),
                reports: sender.clone(),
            };
            std::thread::spawn(move || seed.run(app).unwrap())
        })
        .collect();
    RunningClient {
        running: Running {
            counters,
            mailboxes,
            threads,
        },
        reports,
    }
}

impl RunningClient {
    pub(crate) fn connect(&self, thread: usize, params: ConnectParams) -> ConnId {
        self.running
            .ask(thread, move |_, io| io.connect(&params).unwrap())
    }

    /// Connects and waits until it is open.
    pub(crate) fn open(&self, remote: SocketAddr) -> ConnId {
        let conn = self.connect(0, ConnectParams::new(remote, NAME));
        match self.event() {
            Event::Opened { conn: opened, .. } => assert_eq!(opened, conn),
            other => panic!("{other:?}"),
        }
        conn
    }

    pub(crate) fn report(&self) -> Report {
        self.reports.recv_timeout(PATIENCE).unwrap()
    }

    /// The next event of thread 0.
    pub(crate) fn event(&self) -> Event {
        match self.report() {
            Report::Event(_, event) => event,
            data => panic!("{data:?}"),
        }
    }

    /// The reason of the next event, which must be the end of `conn`.
    pub(crate) fn closed(&self, conn: ConnId) -> CloseReason {
        match self.event() {
            Event::Closed {
                conn: closed,
                reason,
            } => {
                assert_eq!(closed, conn);
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn write(&self, conn: ConnId, data: &'static [u8]) {
        self.running
            .tell(0, move |_, io| assert_eq!(io.write(conn, data), data.len()));
    }

    /// Writes and waits for the echo.
    pub(crate) fn echo(&self, conn: ConnId, data: &'static [u8]) {
        self.write(conn, data);
        let mut back = Vec::new();
        while back.len() < data.len() {
            match self.report() {
                Report::Data(_, from, data) if from == conn => back.extend_from_slice(&data),
                Report::Event(_, Event::Readable { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(back, data);
        // Readable is reported after the data that was read for it.
        match self.event() {
            Event::Readable { .. } => {}
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn kill(self) {
        self.running.kill();
    }
}
