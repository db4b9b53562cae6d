//! `roadstead serve`: from the configuration to a clean exit.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use roadstead::{Ended, Placement, Shard, ShardConfig, ShardId};
use roadstead_net::host;
use roadstead_net::tls::ServerTls;
use roadstead_net::{
    Engine, Lean, Mailbox, Quinn, SecretKeys, Seed, Server, ServerConfig, Transport,
};
use roadstead_store::Health;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc as async_mpsc;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::config::{Config, QuicEngine};
use crate::credentials::Credentials;
use crate::descriptors::{self, Takers};
use crate::files::{self, Files};
use crate::log::{self, Log};
use crate::memory::{self, Ceiling};
use crate::metrics::ShardMetrics;
use crate::reload::Reload;
use crate::start::{Start, Step};
use crate::store::{Handle, Store};
use crate::worker::{Addresses, Message, Parts, Report, ShardOutbox, Worker};
use crate::{cli, cores, expiry, private, reservation, tls_error, worker};

type WorkerThread = JoinHandle<Result<(), roadstead_net::Error>>;

/// How long a port may be in use before that is an error: the kernel tears the rings of a process that
/// crashed down a moment after it, and its sockets with them.
const PORT_PATIENCE: Duration = Duration::from_secs(3);

/// If it is set in the environment, the server drains and ends when the process that started it has ended. Not an
/// option: a load generator starts servers of other versions, too.
const END_WITH_PARENT: &str = "ROADSTEAD_END_WITH_PARENT";

/// How soon a process notices that its lease was taken over.
const FENCE_WATCH_EVERY: Duration = Duration::from_millis(250);

pub(crate) fn serve(arguments: &cli::Serve) -> anyhow::Result<()> {
    if std::env::var_os(END_WITH_PARENT).is_some() {
        end_with_parent()?;
    }
    let config = Config::load(arguments)?;
    let log = log::start(&config.log)?;
    private::keep_from_others();
    let result = serve_logged(&config, &log);
    log.flush();
    result
}

fn serve_logged(config: &Config, log: &Log) -> anyhow::Result<()> {
    forbid_core_dumps();
    if config.huge_pages
        && let Err(error) = host::set_huge_pages(true)
    {
        tracing::warn!(%error, "huge pages stay off");
    }
    let start = Start::begin(Step::Files)?;
    let files = files::load(config)?;
    for (name, path) in &files.paths {
        tracing::info!(path = %path.display(), "{name}");
    }
    match config.quic_engine {
        QuicEngine::Quinn => serve_with::<Quinn>(config, &files, log, start),
        QuicEngine::Lean => serve_with::<Lean>(config, &files, log, start),
    }
}

/// The one place where the engine is chosen: from here on it is a type.
fn serve_with<E: Engine + 'static>(
    config: &Config,
    files: &Files,
    log: &Log,
    start: Start,
) -> anyhow::Result<()> {
    let descriptors = descriptors::raise_limit();
    // Before a socket fails for want of one, as far as the addresses are known.
    takers(config, config.listen.len()).share_out(descriptors)?;
    let server_config = server_config(config, files)?;
    let credentials = Credentials::new(config, files)?;
    start.step(Step::Addresses);
    let mut server = bind::<E>(&server_config)?;
    // Before there is anything that would have to be stopped again.
    start.step(Step::Admin);
    let admin = bind_admin(config.admin)?;
    let takers = takers(config, server.addresses().len());
    let open_files = takers.share_out(descriptors)?;
    tracing::info!(
        descriptors,
        open_files,
        "limit of open files, and the store's part"
    );
    start.step(Step::Store);
    let store = open_store(config, open_files, server.mailboxes())?;
    tell_homes_of_ends(config, &store, server.mailboxes());
    start.step(Step::Shards);
    let shards = start_shards(config, &credentials, &mut server, &store)?;
    let (tls, mailboxes) = (server_config.tls, server.mailboxes());
    let reload = Reload::new(config.clone(), tls, credentials, mailboxes);
    let (stop_expiry, expiry) = start_expiry(&store)?;
    let told = Told { config, log, start };
    let result = run(told, &server, &store, shards, reload, admin);
    drop(stop_expiry);
    // Whatever of the job is under way ends with the store.
    store.stop();
    let _ = expiry.join();
    tracing::info!("stopped");
    result
}

/// The running shards, as the main thread sees them.
struct Shards {
    threads: Vec<WorkerThread>,
    metrics: Vec<Arc<ShardMetrics>>,
    ceiling: Arc<Ceiling>,
    reports: async_mpsc::UnboundedReceiver<Report>,
}

fn server_config(config: &Config, files: &Files) -> anyhow::Result<ServerConfig> {
    let alpn = [roadstead_proto::ALPN];
    let tls = ServerTls::from_pem(
        &files.certificate,
        &files.key,
        &alpn,
        Some(files.tickets.clone()),
    )
    .map_err(|error| tls_error::explain(config, &files.certificate, &files.key, &error))?;
    let keys = SecretKeys {
        reset: files.reset,
        token: files.retry,
        epoch: files.epoch,
    };
    let listen = config.listen.clone();
    let mut server = ServerConfig::new(listen, config.shard_count(), Arc::new(tls), keys);
    server.retry_half_open = config.sessions.retry_above_half_open;
    server.blocks = config.limits.blocks();
    server.transport.idle_timeout = Transport::idle_timeout_for(config.heartbeat());
    Ok(server)
}

fn bind<E: Engine>(config: &ServerConfig) -> Result<Server<Message, E>, roadstead_net::Error> {
    let until = Instant::now() + PORT_PATIENCE;
    loop {
        match Server::bind_with_engine(config.clone()) {
            Err(roadstead_net::Error::PortInUse { .. }) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            result => return result,
        }
    }
}

fn bind_admin(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok::<_, std::io::Error>(listener)
    };
    bind().with_context(|| format!("admin address {address}"))
}

/// Who takes descriptors of this server.
fn takers(config: &Config, addresses: usize) -> Takers {
    let shards = config.shard_count().into();
    #[cfg(feature = "foundationdb")]
    if config.store.engine == crate::config::Engine::Foundationdb {
        return Takers::foundationdb(shards, addresses);
    }
    Takers::embedded(shards, addresses)
}

fn open_store(
    config: &Config,
    open_files: u64,
    mailboxes: Vec<Mailbox<Message>>,
) -> anyhow::Result<Store> {
    let deliver = move |shard: ShardId, completions| {
        worker::deliver(
            &mailboxes[usize::from(shard.0)],
            Message::Store(completions),
        );
    };
    Store::open(config, open_files, Arc::new(deliver))
}

/// What the store ends is told to the shard which keeps that user's sessions.
fn tell_homes_of_ends(config: &Config, store: &Store, mailboxes: Vec<Mailbox<Message>>) {
    let placement = Placement::new(store.placement_key(), config.shard_count());
    store.handle().tell_ends_to(Arc::new(move |ended: Ended| {
        let home = usize::from(placement.home(ended.user()).0);
        worker::deliver(&mailboxes[home], Message::Ended(ended));
    }));
}

fn start_shards<E: Engine + 'static>(
    config: &Config,
    credentials: &Credentials,
    server: &mut Server<Message, E>,
    store: &Store,
) -> anyhow::Result<Shards> {
    let ceiling = Arc::new(Ceiling::configured(config.memory_max_mib)?);
    let placement = Placement::new(store.placement_key(), config.shard_count());
    let mailboxes = server.mailboxes();
    let (report, reports) = async_mpsc::unbounded_channel();
    let mut shards = Shards {
        threads: Vec::new(),
        metrics: Vec::new(),
        ceiling: ceiling.clone(),
        reports,
    };
    let cores = if config.pin {
        cores::allowed()
    } else {
        Vec::new()
    };
    for seed in server.take_seeds() {
        let id = ShardId(seed.thread());
        let core = cores.get(usize::from(id.0) % cores.len().max(1)).copied();
        let metrics = Arc::new(ShardMetrics::default());
        let handle = store.handle();
        let parts = Parts {
            shard: Shard::new(shard_config(config, id, placement)),
            outbox: ShardOutbox::new(id, mailboxes.clone()),
            submit: Box::new(move |requests| handle.submit(id, requests)),
            credentials: credentials.clone(),
            metrics: metrics.clone(),
            ceiling: ceiling.clone(),
            addresses: Addresses::new(&config.limits, config.shard_count(), random_key()),
            report: Box::new({
                let report = report.clone();
                move |what| drop(report.send(what))
            }),
        };
        shards.metrics.push(metrics);
        shards
            .threads
            .push(start_shard(core, seed, parts, report.clone())?);
    }
    Ok(shards)
}

fn shard_config(config: &Config, id: ShardId, placement: Placement) -> ShardConfig {
    ShardConfig {
        node: config.node,
        heartbeat_interval: config.heartbeat(),
        node_hints: config.sessions.node_hints.clone(),
        inbox_limits: config.sessions.inbox_limits(),
        slow_consumer_after: Duration::from_secs(config.sessions.slow_consumer_s.into()),
        send_rate: config.limits.sends(),
        recipient_rate: config.limits.recipient_sends(),
        ..ShardConfig::new(id, placement, random_key())
    }
}

/// For a hash table whose collisions nobody outside may choose.
fn random_key() -> [u8; 16] {
    let mut key = [0; 16];
    aws_lc_rs::rand::fill(&mut key).expect("the system has randomness");
    key
}

fn start_shard<E: Engine + 'static>(
    core: Option<usize>,
    seed: Seed<Message, E>,
    parts: Parts,
    report: async_mpsc::UnboundedSender<Report>,
) -> anyhow::Result<WorkerThread> {
    let shard = seed.thread();
    let seed = match core {
        Some(core) => seed.pin_to_core(core),
        None => seed,
    };
    let run = move || {
        let result = seed.run(Worker::new(parts)).map(drop);
        if let Err(error) = &result {
            tracing::error!(shard, %error, "a shard failed");
        }
        let _ = report.send(Report::Ended);
        result
    };
    std::thread::Builder::new()
        .name(format!("shard-{shard}"))
        .spawn(run)
        .context("a thread")
}

/// What a run was told, and the start that it ends.
struct Told<'a> {
    config: &'a Config,
    log: &'a Log,
    start: Start,
}

/// Serves until a signal asks to stop or a shard fails, then drains.
fn run<E: Engine>(
    told: Told<'_>,
    server: &Server<Message, E>,
    store: &Store,
    mut shards: Shards,
    reload: Reload,
    listener: TcpListener,
) -> anyhow::Result<()> {
    let mailboxes = server.mailboxes();
    let _watching_memory = memory::watch(shards.ceiling.clone())?;
    let (stop_upkeep, upkeep) = start_upkeep(store, mailboxes.clone())?;
    let admin = Arc::new(Admin {
        shards: shards.metrics.clone(),
        ceiling: shards.ceiling.clone(),
        net: server.counters(),
        store: store.handle(),
        draining: AtomicBool::new(false),
        mailboxes: mailboxes.clone(),
        reloads: reload.counts(),
        log: told.log.clone(),
        udp_port: server.addresses()[0].port(),
        connections: Arc::default(),
        sample: admin::Sample::default(),
        guard: Arc::new(admin::Guard::new(&told.config.admin_names)),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(async {
        // What goes on while sessions are drained, too, and ends with this block.
        let mut beside = JoinSet::new();
        let served = match all_started(&mut shards).await {
            Ok(()) => {
                let served = async {
                    let address = answer(&mut beside, listener, &admin, reload)?;
                    serve_until_told(told, server, address, &mut shards, &admin.store).await
                };
                let served = served.await;
                admin.draining.store(true, Ordering::Relaxed);
                let most = shards.metrics.iter().map(|shard| shard.sessions()).max();
                let patience = worker::drain_patience(most.unwrap_or(0)) + PORT_PATIENCE;
                drain(&mailboxes, &mut shards.reports, patience).await;
                served
            }
            // Nobody is in.
            not_started => not_started,
        };
        for mailbox in &mailboxes {
            worker::deliver(mailbox, Message::Stop);
        }
        served
    });
    let joined = join(shards.threads);
    drop(stop_upkeep);
    let _ = upkeep.join();
    // What a shard says of its own failure explains more than that it ended.
    joined.and(served)
}

/// Sends all sessions away. A shard that has failed says nothing more: hence the time limit.
async fn drain(
    mailboxes: &[Mailbox<Message>],
    reports: &mut async_mpsc::UnboundedReceiver<Report>,
    patience: Duration,
) {
    tracing::info!("draining");
    mailboxes
        .iter()
        .for_each(|mailbox| worker::deliver(mailbox, Message::Drain));
    let all = async {
        for _ in mailboxes {
            reports.recv().await;
        }
    };
    let _ = tokio::time::timeout(patience, all).await;
}

/// Waits until every shard runs.
async fn all_started(shards: &mut Shards) -> anyhow::Result<()> {
    for _ in 0..shards.threads.len() {
        match shards.reports.recv().await {
            Some(Report::Started) => {}
            _ => anyhow::bail!("a shard could not start"),
        }
    }
    Ok(())
}

/// Answers at the admin address, and reads certificates and keys again on SIGHUP.
fn answer(
    tasks: &mut JoinSet<()>,
    listener: TcpListener,
    admin: &Arc<Admin>,
    reload: Reload,
) -> anyhow::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let (router, counts) = (admin::router(admin.clone()), admin.connections.clone());
    tasks.spawn(admin::serve(listener, router, counts));
    tasks.spawn(reload.run(signal(SignalKind::hangup())?));
    Ok(address)
}

/// Says that it is ready, and serves until a signal comes, a shard ends, or the node's number is taken.
async fn serve_until_told<E: Engine>(
    told: Told<'_>,
    server: &Server<Message, E>,
    admin: SocketAddr,
    shards: &mut Shards,
    store: &Handle,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let Told { config, start, .. } = told;
    drop(start);
    announce(config, server, admin);
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = shards.reports.recv() => Err(anyhow::anyhow!("a shard ended")),
        () = fenced(store) => Err(Fenced.into()),
    }
}

/// Another process has taken over this node's number. Whoever starts servers should not start this one
/// again: the two would take the number from each other in turns.
#[derive(Debug, thiserror::Error)]
#[error("another process has taken over this node's number")]
pub(crate) struct Fenced;

/// Waits until another process holds this node's lease. Nothing that this one commits can succeed any
/// more, so it closes its sessions and ends (R24): they come back where they are served.
async fn fenced(store: &Handle) {
    while store.health() != Health::Fenced {
        tokio::time::sleep(FENCE_WATCH_EVERY).await;
    }
}

fn announce<E: Engine>(config: &Config, server: &Server<Message, E>, admin: SocketAddr) {
    let listen: Vec<String> = server
        .addresses()
        .iter()
        .map(SocketAddr::to_string)
        .collect();
    let pid = std::process::id();
    let data = config.data.display();
    let announced = cli::line(&format!(
        "roadstead ready listen={} admin={admin} data={data} pid={pid}",
        listen.join(",")
    ));
    if let Err(error) = announced {
        tracing::warn!(%error, "the ready line could not be written");
    }
}

fn start_upkeep(
    store: &Store,
    mailboxes: Vec<Mailbox<Message>>,
) -> anyhow::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let handle = store.handle();
    let upkeep = move || reservation::run(&handle, &mailboxes, &receiver);
    let thread = std::thread::Builder::new()
        .name("upkeep".into())
        .spawn(upkeep)?;
    Ok((sender, thread))
}

/// The expiry takes as long as it takes, and nothing may wait for it: a thread of its own.
fn start_expiry(store: &Store) -> anyhow::Result<(mpsc::Sender<()>, JoinHandle<()>)> {
    let (sender, receiver) = mpsc::channel();
    let handle = store.handle();
    let thread = std::thread::Builder::new()
        .name("expiry".into())
        .spawn(move || expiry::run(&handle, &receiver))?;
    Ok((sender, thread))
}

fn join(threads: Vec<WorkerThread>) -> anyhow::Result<()> {
    let mut result = Ok(());
    for thread in threads {
        let ended = thread
            .join()
            .map_err(|_| anyhow::anyhow!("a shard panicked"));
        let ended = ended.and_then(|ended| ended.map_err(anyhow::Error::from));
        result = result.and(ended);
    }
    result
}

/// SIGTERM for this process when its parent ends. One that ended before this was asked for has left it to another.
fn end_with_parent() -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM)).context("the signal of a parent's end")?;
    anyhow::ensure!(
        getppid() == parent,
        "the process that started this one has ended"
    );
    Ok(())
}

/// Keys and traffic secrets live in this process's memory: none of it goes to a core file (T4).
fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be turned off");
    }
}
