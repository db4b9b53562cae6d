//! CPU time that an echo of a small datagram costs its server: one datagram in, one out.
//!
//! The contenders are this project's loop as the edge runs it (multishot RECVMSG, batched SEND, with an
//! engine that only echoes), recvmmsg/sendmmsg, tokio's `UdpSocket`, and tokio-uring with one task and
//! with several. All run in this process, one after the other in every round, each on a thread of its
//! own that is measured by the clock of its CPU time; the client runs on another core.
//!
//! - saturated: a window of datagrams is always under way, so receives come in batches;
//! - paced: 20,000 datagrams a second, evenly spaced, so that each finds its server asleep.
//!
//! `cargo bench -p roadstead-bench --bench udp_echo [-- ROUNDS]`
#![allow(
    clippy::print_stdout,
    reason = "printing numbers is what this program is for"
)]

mod client;
mod mmsg;
mod ring;
mod tokio_udp;
mod tokio_uring_udp;

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use roadstead_bench::{
    nanoseconds_each, number_argument, pin_to_core, print_machine, spread, thread_cpu,
};

use crate::client::Client;

/// Bytes of a datagram.
const PAYLOAD: usize = 100;

/// Bytes of a datagram that asks the server for its meter instead of an echo.
const MARK: usize = 1;

const ROUNDS: u32 = 9;
const CLIENT_CORE: usize = 0;
const SERVER_CORE: usize = 1;

/// What a server has done so far.
#[derive(Clone, Copy, Debug)]
struct Reading {
    cpu: Duration,
    echoes: u32,
}

/// Counts a server's echoes, in its thread.
#[derive(Debug)]
struct Meter {
    echoes: u32,
    readings: Sender<Reading>,
}

impl Meter {
    /// Takes note of a datagram. Answers whether it is to be echoed.
    fn took(&mut self, length: usize) -> bool {
        if length != MARK {
            self.echoes += 1;
            return true;
        }
        let reading = Reading {
            cpu: thread_cpu(),
            echoes: self.echoes,
        };
        self.readings.send(reading).expect("main waits");
        false
    }
}

/// A running server.
struct Contender {
    name: &'static str,
    client: Client,
    readings: Receiver<Reading>,
    saturated: Figures,
    paced: Figures,
}

/// One value per round.
#[derive(Default)]
struct Figures {
    nanoseconds: Vec<f64>,
    ratio: Vec<f64>,
    busy: Vec<f64>,
    rate: Vec<f64>,
    lost: u32,
}

/// What a load cost.
struct Cost {
    nanoseconds: f64,
    busy: f64,
    rate: f64,
    lost: u32,
}

impl Contender {
    fn start(
        name: &'static str,
        serve: impl FnOnce(Meter, Sender<SocketAddr>) + Send + 'static,
    ) -> Self {
        let (send_reading, readings) = mpsc::channel();
        let (send_address, address) = mpsc::channel();
        thread::spawn(move || {
            pin_to_core(SERVER_CORE);
            let meter = Meter {
                echoes: 0,
                readings: send_reading,
            };
            serve(meter, send_address);
        });
        let address = address.recv().expect("the server binds");
        Self {
            name,
            client: Client::new(address),
            readings,
            saturated: Figures::default(),
            paced: Figures::default(),
        }
    }

    /// What the server spends on a load.
    fn measure(&mut self, load: impl Fn(&mut Client) -> Duration) -> Cost {
        let before = self.read();
        let wall = load(&mut self.client).as_secs_f64();
        let after = self.read();
        let cpu = after.cpu - before.cpu;
        let echoes = after.echoes - before.echoes;
        Cost {
            nanoseconds: nanoseconds_each(cpu, echoes),
            busy: cpu.as_secs_f64() / wall,
            rate: f64::from(echoes) / wall,
            lost: self.client.take_lost(),
        }
    }

    fn read(&mut self) -> Reading {
        self.client.mark();
        self.readings
            .recv_timeout(Duration::from_secs(10))
            .expect("a server answers")
    }
}

impl Figures {
    /// Takes a cost, and returns what the rest of the round is compared with.
    fn add(&mut self, cost: &Cost, base: Option<f64>) -> f64 {
        let base = base.unwrap_or(cost.nanoseconds);
        self.nanoseconds.push(cost.nanoseconds);
        self.ratio.push(cost.nanoseconds / base);
        self.busy.push(cost.busy);
        self.rate.push(cost.rate);
        self.lost += cost.lost;
        base
    }

    fn print(&self, name: &str) {
        let (nanoseconds, ..) = spread(&self.nanoseconds);
        let (ratio, low, high) = spread(&self.ratio);
        let (busy, ..) = spread(&self.busy);
        let (rate, ..) = spread(&self.rate);
        println!(
            "{name:<22} {:>6.2} us {ratio:>6.2}  ({low:.2} to {high:.2}), {rate:>7.0}/s, {:>3.0} % of a core, {} lost",
            nanoseconds / 1e3,
            busy * 100.0,
            self.lost
        );
    }
}

/// A server's socket, with the receive buffer that the kernel gives everybody.
fn bind() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a port is free");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

fn main() {
    print_machine();
    let rounds = number_argument(ROUNDS);
    pin_to_core(CLIENT_CORE);
    let mut contenders = [
        Contender::start("recvmmsg/sendmmsg", mmsg::serve),
        Contender::start("this loop", ring::serve),
        Contender::start("tokio", tokio_udp::serve),
        Contender::start("tokio-uring, 1 task", |meter, address| {
            tokio_uring_udp::serve(meter, &address, 1);
        }),
        Contender::start("tokio-uring, 16 tasks", |meter, address| {
            tokio_uring_udp::serve(meter, &address, 16);
        }),
    ];
    for contender in &mut contenders {
        contender.client.saturate();
        contender.client.take_lost();
    }
    for _ in 0..rounds {
        // The first contender of a round is what the others are compared with.
        let (mut saturated, mut paced) = (None, None);
        for contender in &mut contenders {
            let measured = contender.measure(Client::saturate);
            saturated = Some(contender.saturated.add(&measured, saturated));
            let measured = contender.measure(Client::pace);
            paced = Some(contender.paced.add(&measured, paced));
        }
    }
    println!(
        "server CPU per echo of {PAYLOAD} bytes, medians of {rounds} rounds; ratio to recvmmsg (lowest to highest)"
    );
    println!("saturated, {} under way:", client::WINDOW);
    contenders.iter().for_each(|c| c.saturated.print(c.name));
    println!("paced, at most {}/s:", client::PACE);
    contenders.iter().for_each(|c| c.paced.print(c.name));
}
