//! Servers and clients before their threads run: sockets bound, queues connected, seeds dealt out.

use std::{fmt, marker::PhantomData, net::SocketAddr, sync::Arc};

use crate::{
    config::{ClientConfig, STRAYS_MAX, ServerConfig},
    counters::Counters,
    driver::App,
    error::Error,
    looper,
    queue::{Mailbox, Queue, Waker},
    quic::{Engine, EngineConfig, IdPolicy, ServerSide, quinn::Quinn},
    steer, sys,
    udp::{self, Socket},
};

/// A datagram on its way to the shard that owns its connection (T1).
pub(crate) struct Stray {
    pub(crate) socket: u16,
    pub(crate) peer: SocketAddr,
    pub(crate) data: Box<[u8]>,
}

/// Where strays go: the queues of all shards, in their order. Empty on a client.
pub(crate) type Shards = Arc<[Arc<Queue<Stray>>]>;

/// Everything that one thread's loop needs. Move it into its thread and `run` it.
pub struct Seed<M, E = Quinn> {
    pub(crate) thread: u16,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) engine: EngineConfig,
    pub(crate) waker: Arc<Waker>,
    pub(crate) inbox: Arc<Queue<M>>,
    pub(crate) strays: Arc<Queue<Stray>>,
    pub(crate) shards: Shards,
    core: Option<usize>,
    engine_type: PhantomData<fn() -> E>,
}

impl<M: Send + 'static, E: Engine> Seed<M, E> {
    /// Which shard of the server, or thread of the client, this is.
    pub fn thread(&self) -> u16 {
        self.thread
    }

    /// The way in for other threads.
    pub fn mailbox(&self) -> Mailbox<M> {
        Mailbox::new(self.inbox.clone())
    }

    /// This thread's counters.
    pub fn counters(&self) -> Arc<Counters> {
        self.engine.counters.clone()
    }

    /// Pins the thread that will run this seed to a core.
    #[must_use]
    pub fn pin_to_core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Runs the loop on the calling thread until the application calls [`Io::stop`](crate::Io::stop),
    /// and gives the application back.
    pub fn run<A: App<E, Message = M>>(self, app: A) -> Result<A, Error> {
        if let Some(core) = self.core {
            sys::pin_to_core(core)?;
        }
        looper::run(self, app)
    }
}

/// A server whose sockets are bound and whose threads are not running yet.
///
/// ```text
/// Server::bind(config)? ─▶ take_seeds() ─▶ one thread each: seed.pin_to_core(n).run(app)
/// ```
///
/// The sockets belong to the seeds; a seed that is dropped unrun leaves a hole in its reuseport group.
pub struct Server<M, E = Quinn> {
    addresses: Vec<SocketAddr>,
    threads: Threads<M, E>,
}

impl<M: Send + 'static> Server<M, Quinn> {
    /// Binds every socket, in shard order, and attaches the steering program (T17). Messages of type `M`
    /// reach the shards' applications by their mailboxes.
    pub fn bind(config: ServerConfig) -> Result<Self, Error> {
        Self::bind_with_engine(config)
    }
}

impl<M: Send + 'static, E: Engine> Server<M, E> {
    /// As `bind`, for another engine.
    pub fn bind_with_engine(config: ServerConfig) -> Result<Self, Error> {
        let shards = config.shards;
        let group = udp::bind_group(&config.addresses, shards, config.receive_buffer)?;
        if config.steer_in_kernel && shards > 1 {
            // The first shard's sockets stand for the groups of all addresses.
            group.sockets[0]
                .iter()
                .try_for_each(|socket| steer::attach(socket, shards))?;
        }
        let side = ServerSide {
            tls: config.tls,
            keys: config.keys,
            retry_half_open: config.retry_half_open,
            half_open_max: config.half_open_max,
            blocks: config.blocks,
            resets_per_second: config.resets_per_second,
        };
        let engine = EngineConfig {
            ids: IdPolicy::Steered { shard: 0, shards },
            transport: config.transport,
            server: Some(side),
            client: None,
            counters: Arc::default(),
            all: Vec::new(),
        };
        let threads = Threads::new(group.sockets, &engine, config.mailbox_capacity)?;
        Ok(Self {
            addresses: group.addresses,
            threads,
        })
    }

    /// The addresses that were bound, wildcards expanded, ports chosen.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// One seed per shard. Empty the second time.
    pub fn take_seeds(&mut self) -> Vec<Seed<M, E>> {
        std::mem::take(&mut self.threads.seeds)
    }

    /// The mailbox of every shard.
    pub fn mailboxes(&self) -> Vec<Mailbox<M>> {
        self.threads.mailboxes.clone()
    }

    /// The counters of every shard.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.threads.counters.clone()
    }
}

/// Client endpoints whose sockets are bound and whose threads are not running yet.
pub struct Client<M, E = Quinn> {
    threads: Threads<M, E>,
}

impl<M: Send + 'static> Client<M, Quinn> {
    /// Binds the sockets and deals them out to the threads.
    pub fn open(config: ClientConfig) -> Result<Self, Error> {
        Self::open_with_engine(config)
    }
}

impl<M: Send + 'static, E: Engine> Client<M, E> {
    /// As `open`, for another engine.
    pub fn open_with_engine(config: ClientConfig) -> Result<Self, Error> {
        check_client(&config)?;
        let mut dealt: Vec<Vec<Socket>> = (0..config.threads).map(|_| Vec::new()).collect();
        for n in 0..usize::from(config.sockets) {
            let local = config.local[n % config.local.len()];
            let thread = n % usize::from(config.threads);
            dealt[thread].push(udp::bind_client(local, config.receive_buffer)?);
        }
        let engine = EngineConfig {
            ids: IdPolicy::Random {
                length: config.connection_id_length,
            },
            transport: config.transport,
            server: None,
            client: Some(config.tls),
            counters: Arc::default(),
            all: Vec::new(),
        };
        Ok(Self {
            threads: Threads::new(dealt, &engine, config.mailbox_capacity)?,
        })
    }

    /// One seed per thread. Empty the second time.
    pub fn take_seeds(&mut self) -> Vec<Seed<M, E>> {
        std::mem::take(&mut self.threads.seeds)
    }

    /// The mailbox of every thread.
    pub fn mailboxes(&self) -> Vec<Mailbox<M>> {
        self.threads.mailboxes.clone()
    }

    /// The counters of every thread.
    pub fn counters(&self) -> Vec<Arc<Counters>> {
        self.threads.counters.clone()
    }
}

fn check_client(config: &ClientConfig) -> Result<(), Error> {
    if config.threads == 0 || config.sockets < config.threads || config.local.is_empty() {
        let text = "a client needs a thread, a socket per thread and a local address";
        return Err(Error::Config(text.into()));
    }
    if !(4..=8).contains(&config.connection_id_length) {
        return Err(Error::Config(
            "client connection ids have 4 to 8 bytes (T5)".into(),
        ));
    }
    Ok(())
}

/// What servers and clients have in common: seeds and the ways to reach their threads.
struct Threads<M, E> {
    seeds: Vec<Seed<M, E>>,
    mailboxes: Vec<Mailbox<M>>,
    counters: Vec<Arc<Counters>>,
}

impl<M: Send + 'static, E: Engine> Threads<M, E> {
    fn new(
        sockets: Vec<Vec<Socket>>,
        engine: &EngineConfig,
        mailbox_capacity: usize,
    ) -> Result<Self, Error> {
        let counters: Vec<Arc<Counters>> = sockets.iter().map(|_| Arc::default()).collect();
        let wakers = sockets
            .iter()
            .map(|_| Waker::new())
            .collect::<Result<Vec<_>, _>>()?;
        let shards: Shards = wakers
            .iter()
            .map(|waker| Queue::new(STRAYS_MAX, waker.clone()))
            .collect();
        let mut seeds = Vec::with_capacity(sockets.len());
        for ((thread, sockets), waker) in (0..).zip(sockets).zip(wakers) {
            let mut engine = engine.clone();
            engine.counters = counters[usize::from(thread)].clone();
            engine.all = counters.clone();
            if let IdPolicy::Steered { shard, .. } = &mut engine.ids {
                *shard = thread;
            }
            seeds.push(Seed {
                thread,
                sockets,
                engine,
                inbox: Queue::new(mailbox_capacity, waker.clone()),
                waker,
                strays: shards[usize::from(thread)].clone(),
                shards: shards.clone(),
                core: None,
                engine_type: PhantomData,
            });
        }
        let mailboxes = seeds.iter().map(Seed::mailbox).collect();
        Ok(Self {
            seeds,
            mailboxes,
            counters,
        })
    }
}

impl<M, E> fmt::Debug for Server<M, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl<M, E> fmt::Debug for Client<M, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("threads", &self.threads.mailboxes.len())
            .finish_non_exhaustive()
    }
}

impl<M, E> fmt::Debug for Seed<M, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed")
            .field("thread", &self.thread)
            .finish_non_exhaustive()
    }
}
