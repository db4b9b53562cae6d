//! What the peers on tokio have in common: a runtime of their own each, in a thread for servers.

use std::{
    future::Future,
    net::{SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    script::{Client, Expected, Facts, Order, Server, Step},
    udp,
};

/// How long a step may take, on a machine that is busy with other things.
const STEP_TIME: Duration = Duration::from_secs(60);

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// What an end observed, shared with its tasks.
pub(super) type SharedFacts = Arc<Mutex<Facts>>;

/// The orders that a server gets, with where the answers go. It ends with them.
pub(super) type Orders = mpsc::UnboundedReceiver<(Order, oneshot::Sender<Result<()>>)>;

/// Changes the shared facts.
pub(super) fn note(facts: &SharedFacts, change: impl FnOnce(&mut Facts)) {
    change(&mut facts.lock().expect("no panic while it is held"));
}

/// Takes what came back on the streams of an echo: all of it, and what was sent.
pub(super) fn compare(
    facts: &SharedFacts,
    streams: usize,
    bytes: usize,
    back: &[Vec<u8>],
) -> Result<()> {
    let mut expected = Expected::new(streams, bytes);
    for received in back {
        let mut facts = facts.lock().expect("no panic while it is held");
        expected.take(received, &mut facts)?;
    }
    ensure!(expected.is_empty(), "too few streams came back");
    Ok(())
}

/// A copy of the shared facts.
fn copy(facts: &SharedFacts) -> Facts {
    facts.lock().expect("no panic while it is held").clone()
}

/// A client whose steps are futures.
pub(super) trait Steps {
    /// Does one step.
    fn take(&mut self, step: &Step) -> impl Future<Output = Result<()>>;
}

/// Such a client, its runtime and its facts.
#[derive(Debug)]
pub(super) struct TokioClient<C> {
    // Dropped before the runtime in which its tasks are.
    client: C,
    runtime: Runtime,
    facts: SharedFacts,
}

impl<C: Steps> TokioClient<C> {
    /// Makes the client inside its runtime.
    pub(super) fn new(make: impl FnOnce(SharedFacts) -> Result<C>) -> Result<Self> {
        let runtime = runtime()?;
        let facts = SharedFacts::default();
        let client = {
            let _inside = runtime.enter();
            make(facts.clone())?
        };
        Ok(Self {
            client,
            runtime,
            facts,
        })
    }
}

impl<C: Steps> Client for TokioClient<C> {
    fn step(&mut self, step: &Step) -> Result<()> {
        let client = &mut self.client;
        let limited = async { timeout(STEP_TIME, client.take(step)).await };
        let result = self.runtime.block_on(limited);
        result.map_err(|_| anyhow!("{step:?}: not within {STEP_TIME:?}"))?
    }

    fn facts(&mut self) -> Result<Facts> {
        Ok(copy(&self.facts))
    }
}

/// A server in a thread and runtime of its own.
#[derive(Debug)]
pub(super) struct TokioServer {
    address: SocketAddr,
    orders: Option<mpsc::UnboundedSender<(Order, oneshot::Sender<Result<()>>)>>,
    facts: SharedFacts,
    thread: Option<JoinHandle<()>>,
}

impl TokioServer {
    /// Runs `serve` with a socket until its orders end.
    pub(super) fn start<F, S>(serve: S) -> Result<Self>
    where
        F: Future<Output = Result<()>>,
        S: FnOnce(UdpSocket, SharedFacts, Orders) -> F + Send + 'static,
    {
        let socket = udp::bind()?;
        let address = socket.local_addr()?;
        let facts = SharedFacts::default();
        let theirs = facts.clone();
        let (orders, receiver) = mpsc::unbounded_channel();
        let runtime = runtime()?;
        let thread = std::thread::spawn(move || {
            let result = runtime.block_on(async { serve(socket, theirs.clone(), receiver).await });
            if let Err(error) = result {
                note(&theirs, |facts| {
                    facts.notes.push(format!("the server failed: {error:#}"))
                });
            }
        });
        Ok(Self {
            address,
            orders: Some(orders),
            facts,
            thread: Some(thread),
        })
    }
}

impl Server for TokioServer {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        let orders = self.orders.as_ref().expect("open until it is dropped");
        orders
            .send((order.clone(), answer))
            .map_err(|_| anyhow!("the server is gone"))?;
        answered.blocking_recv().context("the server is gone")?
    }

    fn facts(&mut self) -> Result<Facts> {
        Ok(copy(&self.facts))
    }
}

impl Drop for TokioServer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}
