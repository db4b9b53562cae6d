//! The own QUIC engine beside quinn-proto and noq-proto, all in one run: memory, handshakes as a share
//! of the bare cryptography, echoes, bulk, instructions per packet.
//!
//! ```text
//! cargo bench -p roadstead-bench --bench quic_engines [-- memory|rss|handshakes|echo|bulk|instructions]
//! ```
//!
//! All three have the smallest configuration that the messenger needs. The own engine and quinn-proto run
//! behind the seam of `roadstead-net`, which the edge uses; noq-proto is driven in the same way.
#![allow(
    clippy::print_stdout,
    reason = "printing numbers is what this program is for"
)]
#![allow(missing_docs, unreachable_pub, reason = "a program, in several files")]

mod end;
mod floor;
mod memory;
mod noq;
mod pair;

use std::process::Command;
use std::time::{Duration, Instant};

use end::{End, Identity, Seam};
use floor::Floor;
use memory::{Counting, Owner, allocations, held, take_peak};
use noq::Noq;
use pair::{Answer, Cost, Pair};
use roadstead_bench::{print_machine, spread, thread_cpu};
use roadstead_net::{Lean, Quinn};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Sessions for the counting allocator: five segments of the own engine's slab, nearly full.
const SESSIONS: usize = 20_000;

/// Sessions for the resident size.
const SESSIONS_RESIDENT: usize = 100_000;

/// Handshakes under way at once.
const RAMP: usize = 100;

const PAYLOAD: [u8; 100] = [7; 100];

/// Sessions that speak every 10 ms of virtual time, and sessions that speak every 2 s.
const HOT: usize = 100;

/// Virtual time from one echo to the next.
const STEP: Duration = Duration::from_micros(100);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|word| !word.starts_with('-'))
        .collect();
    if let ["child", part, engine, count] = words[..] {
        return child(part, engine, count.parse().expect("a number"));
    }
    print_machine();
    let parts: [(&str, fn()); 6] = [
        ("memory", || {
            for_all(memory::<Seam<Lean>>, memory::<Seam<Quinn>>, memory::<Noq>)
        }),
        ("rss", resident),
        ("handshakes", handshakes),
        ("echo", || {
            for_all(echo::<Seam<Lean>>, echo::<Seam<Quinn>>, echo::<Noq>)
        }),
        ("bulk", || {
            for_all(bulk::<Seam<Lean>>, bulk::<Seam<Quinn>>, bulk::<Noq>)
        }),
        ("instructions", instructions),
    ];
    for (name, run) in parts {
        if words.is_empty() || words.contains(&name) {
            println!("\n{name}");
            run();
        }
    }
}

fn for_all(lean: fn(), quinn: fn(), noq: fn()) {
    [lean, quinn, noq].into_iter().for_each(|run| run());
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("fewer than 2^32")
}

fn each(bytes: i64, n: usize) -> i64 {
    bytes / i64::from(count(n))
}

fn micros(time: Duration, n: usize) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count(n))
}

fn ratio(a: u64, b: usize) -> f64 {
    let a = u32::try_from(a).expect("fewer than 2^32");
    f64::from(a) / f64::from(count(b))
}

/// A pair with idle sessions: connected, one echo each, all timers of it run out.
fn idle<E: End>(identity: &Identity, sessions: usize) -> Pair<E> {
    let mut pair = Pair::<E>::new(identity, false, Answer::Echo);
    while pair.open.len() < sessions {
        pair.connect(RAMP.min(sessions - pair.open.len()));
        pair.advance(Duration::from_millis(1));
    }
    for n in 0..sessions {
        let conn = pair.open[n];
        assert_eq!(pair.write(conn, &PAYLOAD), PAYLOAD.len());
        if n % RAMP == RAMP - 1 {
            pair.exchange();
        }
    }
    pair.exchange();
    pair.advance(Duration::from_secs(10));
    let echoed = u64::from(count(sessions * PAYLOAD.len()));
    assert_eq!(pair.read, [echoed; 2], "every echo came");
    pair
}

fn memory<E: End>() {
    let identity = Identity::new();
    let base = [Owner::Server, Owner::Client].map(held);
    let mut pair = idle::<E>(&identity, SESSIONS);
    let now = [Owner::Server, Owner::Client].map(held);
    let [server, client] = [0, 1].map(|n| each(now[n] - base[n], SESSIONS));
    println!(
        "{:12} bytes per idle session: server {server}, client {client}",
        E::NAME
    );
    let mut peaks = [Vec::new(), Vec::new()];
    for _ in 0..100 {
        let sides = [Owner::Server, Owner::Client];
        let before = sides.map(|side| (take_peak(side), held(side)).1);
        pair.connect(1);
        for (n, side) in sides.into_iter().enumerate() {
            let peak = i32::try_from(take_peak(side) - before[n]).expect("small");
            peaks[n].push(f64::from(peak));
        }
    }
    let [server, client] = peaks.map(|peaks| spread(&peaks).0);
    println!("    most during one handshake: server {server:.0}, client {client:.0}");
    let before = held(Owner::Server);
    pair.half_open(1_000);
    let half_open = each(held(Owner::Server) - before, 1_000);
    println!("    a half-open handshake: server {half_open}");
}

fn resident_bytes() -> u64 {
    roadstead_net::host::resident_bytes(std::process::id()).expect("it runs")
}

fn this() -> std::path::PathBuf {
    std::env::current_exe().expect("the path of this program")
}

const ENGINES: [&str; 3] = ["lean", "quinn-proto", "noq-proto"];

fn resident() {
    for engine in ENGINES {
        let sessions = SESSIONS_RESIDENT.to_string();
        let status = Command::new(this())
            .args(["child", "rss", engine, &sessions])
            .status();
        assert!(status.expect("the child runs").success());
    }
}

fn child(part: &str, engine: &str, count: usize) {
    match (part, engine) {
        ("rss", "lean") => child_resident::<Seam<Lean>>(count),
        ("rss", "quinn-proto") => child_resident::<Seam<Quinn>>(count),
        ("rss", "noq-proto") => child_resident::<Noq>(count),
        ("packets", "lean") => child_packets::<Seam<Lean>>(count),
        ("packets", "quinn-proto") => child_packets::<Seam<Quinn>>(count),
        ("packets", "noq-proto") => child_packets::<Noq>(count),
        ("handshakes", "lean") => child_handshakes::<Seam<Lean>>(count),
        ("handshakes", "quinn-proto") => child_handshakes::<Seam<Quinn>>(count),
        ("handshakes", "noq-proto") => child_handshakes::<Noq>(count),
        _ => panic!("child rss|packets|handshakes ENGINE COUNT"),
    }
}

fn child_resident<E: End>(sessions: usize) {
    let identity = Identity::new();
    let empty = resident_bytes();
    let pair = idle::<E>(&identity, sessions);
    let grown = ratio((resident_bytes() - empty) / 1024, sessions) * 1024.0;
    let both = held(Owner::Server) + held(Owner::Client);
    println!(
        "{:12} {sessions} sessions, both ends in one process: {grown:.0} B resident each pair, {} B allocated",
        E::NAME,
        each(both, sessions)
    );
    drop(pair);
}

/// Full handshakes, for callgrind.
fn child_handshakes<E: End>(count: usize) {
    let mut pair = Pair::<E>::new(&Identity::new(), false, Answer::Echo);
    for _ in 0..count {
        pair.connect(1);
    }
}

/// Echoes on one session, for callgrind.
fn child_packets<E: End>(echoes: usize) {
    let mut pair = Pair::<E>::new(&Identity::new(), false, Answer::Echo);
    pair.connect(1);
    pair.take_costs();
    run_echoes(&mut pair, echoes, 1);
    let [client, server] = pair.take_costs();
    println!("packets {}", client.packets + server.packets);
}

fn handshakes() {
    let floor = Floor::measure();
    println!("bare operations: {floor:?}");
    let rate = |time: Duration| 1.0 / time.as_secs_f64();
    println!(
        "floor: server full {:?} ({:.0}/s), client full {:?}, server resumed {:?} ({:.0}/s)",
        floor.server_full(),
        rate(floor.server_full()),
        floor.client_full(),
        floor.server_resumed(),
        rate(floor.server_resumed())
    );
    for_all(
        handshakes_of::<Seam<Lean>>,
        handshakes_of::<Seam<Quinn>>,
        handshakes_of::<Noq>,
    );
}

fn handshakes_of<E: End>() {
    const ROUNDS: usize = 15;
    const EACH: usize = 100;
    let identity = Identity::new();
    for resumption in [false, true] {
        let (mut shares, mut server_us, mut client_us) = (Vec::new(), Vec::new(), Vec::new());
        let mut pair = Pair::<E>::new(&identity, resumption, Answer::Echo);
        let mut packets = 0;
        for _ in 0..ROUNDS {
            // Beside the engine in every round, as the machine's speed varies.
            let floor = Floor::measure();
            pair.take_costs();
            for _ in 0..EACH {
                pair.connect(1);
            }
            let [client, server] = pair.take_costs();
            packets += client.packets + server.packets;
            let bare = match resumption {
                false => floor.server_full(),
                true => floor.server_resumed(),
            };
            server_us.push(micros(server.time, EACH));
            client_us.push(micros(client.time, EACH));
            shares.push(100.0 * micros(bare, 1) / micros(server.time, EACH));
        }
        let (server, ..) = spread(&server_us);
        println!(
            "{:12} {}: server {server:.1} us, {:.0} per core-second, {:.0} % of the floor; client {:.1} us; {:.1} packets",
            E::NAME,
            if resumption { "resumed" } else { "full" },
            1e6 / server,
            spread(&shares).0,
            spread(&client_us).0,
            ratio(packets, ROUNDS * EACH)
        );
        if resumption && E::NAME != Noq::NAME {
            let made = u64::from(count(ROUNDS * EACH));
            assert!(pair.resumed + 1 >= made, "all but the first resumed");
        }
    }
}

/// Echoes on the sessions in turn, one every [`STEP`].
fn run_echoes<E: End>(pair: &mut Pair<E>, echoes: usize, sessions: usize) {
    let before = pair.read[0];
    for n in 0..echoes {
        // A stride that is prime to the counts touches all, far apart in memory.
        let conn = pair.open[n * 7919 % sessions];
        assert_eq!(pair.write(conn, &PAYLOAD), PAYLOAD.len());
        pair.exchange();
        pair.advance(STEP);
    }
    let echoed = u64::from(count(echoes * PAYLOAD.len()));
    assert_eq!(pair.read[0] - before, echoed, "every echo came at once");
}

fn echo<E: End>() {
    const ROUNDS: usize = 5;
    let identity = Identity::new();
    let mut pair = idle::<E>(&identity, SESSIONS);
    for (name, sessions, echoes) in [("hot", HOT, 10_000), ("cold", SESSIONS, 20_000)] {
        run_echoes(&mut pair, sessions, sessions);
        report_echoes(&mut pair, name, sessions, echoes, ROUNDS);
    }
    pair.use_sockets();
    report_echoes(&mut pair, "hot, loopback sockets", HOT, 10_000, ROUNDS);
}

fn report_echoes<E: End>(
    pair: &mut Pair<E>,
    name: &str,
    sessions: usize,
    echoes: usize,
    rounds: usize,
) {
    let (mut ends, mut total) = ([Vec::new(), Vec::new()], Vec::new());
    let (mut packets, mut allocated) = (0, 0);
    for _ in 0..rounds {
        pair.take_costs();
        let (cpu, calls) = (thread_cpu(), allocations());
        run_echoes(pair, echoes, sessions);
        total.push(micros(thread_cpu() - cpu, echoes));
        allocated += allocations() - calls;
        for (
            n,
            Cost {
                time,
                packets: sent,
            },
        ) in pair.take_costs().into_iter().enumerate()
        {
            ends[n].push(micros(time, echoes));
            packets += sent;
        }
    }
    let [client, server] = ends.map(|times| spread(&times).0);
    println!(
        "{:12} {name}: {:.1} us both ends ({client:.1} client, {server:.1} server), {:.1} us CPU in all, {:.2} packets, {:.1} allocations",
        E::NAME,
        client + server,
        spread(&total).0,
        ratio(packets, rounds * echoes),
        ratio(u64::try_from(allocated).expect("grows"), rounds * echoes)
    );
}

fn bulk<E: End>() {
    const BYTES: usize = 16 << 20;
    const ROUNDS: usize = 5;
    let mut rates = Vec::new();
    let (mut packets, mut costs) = (0, [Vec::new(), Vec::new()]);
    let identity = Identity::new();
    for _ in 0..ROUNDS {
        let mut pair = Pair::<E>::new(&identity, false, Answer::Drop);
        pair.connect(1);
        pair.advance(Duration::from_millis(100));
        pair.take_costs();
        let (conn, chunk) = (pair.open[0], vec![3; 64 * 1024]);
        let (begin, mut written) = (Instant::now(), 0);
        while written < BYTES {
            written += pair.write(conn, &chunk[..chunk.len().min(BYTES - written)]);
            pair.exchange();
            if !pair.take_writable() {
                pair.advance(Duration::from_millis(1));
            }
        }
        while pair.read[1] < u64::from(count(BYTES)) {
            pair.advance(Duration::from_millis(1));
        }
        let [client, server] = pair.take_costs();
        costs[0].push(micros(client.time, BYTES >> 20));
        costs[1].push(micros(server.time, BYTES >> 20));
        rates.push(f64::from(count(BYTES >> 20)) / (client.time + server.time).as_secs_f64());
        packets += client.packets + server.packets;
        assert!(begin.elapsed() < Duration::from_secs(60), "it flows");
    }
    let [client, server] = costs.map(|times| spread(&times).0);
    println!(
        "{:12} {:.0} MiB/s on one core for both ends ({client:.0} us client, {server:.0} us server each MiB), {:.0} packets each MiB",
        E::NAME,
        spread(&rates).0,
        ratio(packets, ROUNDS * (BYTES >> 20))
    );
}

/// Instructions of the echo, by the difference of two runs under callgrind.
fn instructions() {
    for engine in ENGINES {
        let run = |echoes: &str| -> Option<[u64; 2]> {
            let output = Command::new("valgrind")
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(this())
                .args(["child", "packets", engine, echoes])
                .output()
                .ok()?;
            let [out, err] = [output.stdout, output.stderr].map(|s| String::from_utf8(s).ok());
            let number = |text: Option<String>, mark: &str| -> Option<u64> {
                let text = text?;
                let (_, rest) = text.split_once(mark)?;
                rest.split_whitespace().next()?.parse().ok()
            };
            Some([number(out, "packets ")?, number(err, "Collected :")?])
        };
        match (run("500"), run("2500")) {
            (Some(few), Some(many)) => {
                let [packets, executed] = [0, 1].map(|n| many[n] - few[n]);
                println!(
                    "{engine:12} {} instructions each packet, sent and received; {} each echo",
                    executed / packets,
                    executed / 2_000
                );
            }
            _ => println!("{engine:12} not measured: valgrind did not run"),
        }
    }
}
