//! A sans-IO node as an echoing server in a thread of its own.

use std::{
    net::SocketAddr,
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};

use super::{Peer, Wire, echo::Echo};
use crate::{
    common::net::{Node, Note},
    script::{Facts, Order, Server},
    udp,
};

/// How long a turn waits for a packet: how late an order may be taken.
const TURN: Duration = Duration::from_millis(5);

/// How long the peer may keep an order from being carried out.
const ORDER_TIME: Duration = Duration::from_secs(60);

enum Request {
    Order(Order, Sender<Result<()>>),
    Facts(Sender<Facts>),
}

/// A server that is there until it is dropped.
#[derive(Debug)]
pub struct NodeServer {
    address: SocketAddr,
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl NodeServer {
    /// Starts a server whose node is made, in its thread, for its address.
    pub fn start<P: Peer + 'static>(
        make: impl FnOnce(SocketAddr) -> P + Send + 'static,
    ) -> Result<Self> {
        let socket = udp::bind()?;
        let address = socket.local_addr()?;
        let (requests, orders) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let wire = Wire::new(socket, make).expect("the socket has an address");
            let mut running = Running {
                wire,
                facts: Facts::default(),
                echo: Echo::default(),
                waiting: Vec::new(),
            };
            while running.turn(&orders).expect("the sockets work") {}
        });
        Ok(Self {
            address,
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T> {
        let (answer, answered) = mpsc::channel();
        let requests = self.requests.as_ref().expect("open until it is dropped");
        let sent = requests.send(request(answer));
        sent.map_err(|_| anyhow!("the server is gone"))?;
        answered.recv().context("the server is gone")
    }
}

impl Server for NodeServer {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn order(&mut self, order: &Order) -> Result<()> {
        self.ask(|answer| Request::Order(order.clone(), answer))?
    }

    fn facts(&mut self) -> Result<Facts> {
        self.ask(Request::Facts)
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed when it happened.
            let _ = thread.join();
        }
    }
}

struct Running<P> {
    wire: Wire<P>,
    facts: Facts,
    echo: Echo,
    /// Orders that the protocol does not permit yet, until when.
    waiting: Vec<(Instant, Order, Sender<Result<()>>)>,
}

impl<P: Peer> Running<P> {
    /// One turn; false when there is nobody left to serve.
    fn turn(&mut self, orders: &Receiver<Request>) -> Result<bool> {
        let notes = self.wire.turn(TURN, &mut self.facts)?;
        let now = self.wire.now();
        self.echo
            .take(now, self.wire.peer.node(), &notes, &mut self.facts);
        if notes.iter().any(|n| matches!(n, Note::Closed(_))) {
            self.wire.peer.release();
        }
        loop {
            match orders.try_recv() {
                Ok(Request::Facts(answer)) => {
                    self.wire.peer.observe(&mut self.facts);
                    // Who asked has gone, if this fails.
                    let _ = answer.send(self.facts.clone());
                }
                Ok(Request::Order(order, answer)) => {
                    self.waiting
                        .push((Instant::now() + ORDER_TIME, order, answer));
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
        for (until, order, answer) in std::mem::take(&mut self.waiting) {
            match self.obey(&order) {
                Ok(true) => drop(answer.send(Ok(()))),
                Ok(false) if Instant::now() < until => self.waiting.push((until, order, answer)),
                Ok(false) => drop(answer.send(Err(anyhow!("{order:?} was not permitted")))),
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        self.wire.flush()?;
        Ok(true)
    }

    /// Carries an order out; false when it is not permitted now.
    fn obey(&mut self, order: &Order) -> Result<bool> {
        let now = self.wire.now();
        match order {
            Order::UpdateKeys => return Ok(self.wire.peer.node().update_keys(now)),
            Order::Close { code, reason } => self.wire.peer.close_with(now, *code, reason),
            Order::Forget => {
                self.echo = Echo::default();
                if let Err(error) = self.wire.peer.forget(now) {
                    bail!("it can not forget: {error:#}");
                }
            }
        }
        Ok(true)
    }
}
