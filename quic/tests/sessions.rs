//! Many sessions on one endpoint: bytes of an idle one, and that they do not meddle with each other.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicIsize, Ordering};

use common::fake::{FakeAead, FakeConfig};
use common::net::Dice;
use common::own::{address, config, server_addr, steered};
use roadstead_quic::{CidFormat, Connect, Dir, Endpoint, Event, Handle, Path, Time, Transmit};

struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

fn add(size: usize, sign: isize) {
    LIVE.fetch_add(isize::try_from(size).unwrap_or(0) * sign, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        add(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Fake = Endpoint<common::fake::FakeTls, FakeAead>;

/// A client and a server endpoint with one wire between them.
struct Pair {
    now: Time,
    ends: [Fake; 2],
    arena: Vec<u8>,
    out: Vec<Transmit>,
    dice: Dice,
    loss: u64,
    events: [Vec<(Handle, Event)>; 2],
}

impl Pair {
    fn new(format: CidFormat) -> Self {
        let now = Time::from_millis(1_000);
        let mut server = config(1, steered());
        server.retry_above = 1 << 20;
        server.half_open_max = 1 << 20;
        server.transport.idle_timeout_ms = 600_000;
        let mut client = config(2, format);
        client.transport.idle_timeout_ms = 600_000;
        Self {
            now,
            ends: [
                Endpoint::new(client, None, FakeAead, now),
                Endpoint::new(server, Some(FakeConfig::new(9)), FakeAead, now),
            ],
            arena: vec![0; 1 << 18],
            out: Vec::new(),
            dice: Dice(4),
            loss: 0,
            events: [Vec::new(), Vec::new()],
        }
    }

    /// Carries datagrams both ways until nobody has any; all clients share one address.
    fn settle(&mut self) {
        loop {
            let mut any = false;
            for side in [0, 1] {
                loop {
                    self.out.clear();
                    let more =
                        self.ends[side].poll_transmit(self.now, &mut self.arena, &mut self.out);
                    for t in std::mem::take(&mut self.out) {
                        any = true;
                        let from = if side == 0 {
                            address(1, 5_000)
                        } else {
                            server_addr()
                        };
                        let train = &mut self.arena[t.offset..t.offset + t.len];
                        for data in train.chunks_mut(t.segment) {
                            if !self.dice.percent(self.loss) {
                                self.ends[1 - side].handle_datagram(self.now, 0, from, data);
                            }
                        }
                    }
                    if !more {
                        break;
                    }
                }
                while let Some(event) = self.ends[side].poll_event() {
                    self.events[side].push(event);
                }
            }
            if !any {
                return;
            }
            self.now = self.now + 500;
        }
    }

    fn run(&mut self, us: u64) {
        let until = self.now + us;
        loop {
            self.settle();
            let next = self
                .ends
                .iter()
                .filter_map(|e| e.next_timeout(self.now))
                .min();
            let Some(next) = next.filter(|t| *t <= until) else {
                break;
            };
            self.now = next.max(self.now + 1);
            self.ends
                .iter_mut()
                .for_each(|e| e.handle_timeout(self.now));
        }
        self.now = self.now.max(until);
    }

    fn connect(&mut self, app: u32) -> Handle {
        let connect = Connect {
            server_name: "localhost",
            path: Path {
                socket: 0,
                remote: server_addr(),
            },
            token: Vec::new(),
            home: None,
            app,
        };
        let tls = FakeConfig::new(u64::from(app) << 20);
        self.ends[0].connect(self.now, &tls, connect).unwrap()
    }
}

#[test]
fn thousands_of_sessions_on_one_socket_t5_t7() {
    const SESSIONS: u32 = 8_192;
    let mut pair = Pair::new(CidFormat::Compact);
    let before = LIVE.load(Ordering::Relaxed);
    // Lets the queues of the endpoints grow.
    let warm = pair.connect(0);
    pair.run(5_000_000);
    pair.ends[0].close(pair.now, warm, 0);
    pair.run(5_000_000);
    pair.events = [Vec::new(), Vec::new()];
    let mut handles = Vec::with_capacity(SESSIONS as usize);
    for app in 0..SESSIONS {
        handles.push(pair.connect(app));
        // Time passes, so that not all timers fire at once and the harness's own queues stay short.
        pair.run(1_000);
        pair.events.iter_mut().for_each(Vec::clear);
    }
    pair.run(20_000_000);
    pair.events = [Vec::new(), Vec::new()];
    let [client, server] = pair.ends.each_ref().map(Endpoint::memory);
    assert_eq!((client.connections, server.connections), (8_192, 8_192));
    assert_eq!((client.active, server.active), (0, 0), "all are idle");
    assert_eq!(server.heap, 0, "a server's idle session is its slot alone");
    let each = client.heap / client.connections;
    // 576 without spare ids (T7), and the one spare that servers issue (T18).
    assert!(each <= 576 - 504 + 48, "a client's box: {each}");
    let live = LIVE.load(Ordering::Relaxed) - before;
    let both = live / isize::try_from(SESSIONS).unwrap();
    // Both ends, with the dense arrays and the client's index of reset tokens.
    assert!(
        both <= 512 + 576 + 48 + 8 + 80,
        "{both} bytes for both ends"
    );

    // Each session gets its own bytes back, in bad weather.
    pair.loss = 5;
    for (n, handle) in handles.iter().enumerate().step_by(64) {
        let id = pair.ends[0].open(pair.now, *handle, Dir::Bidi).unwrap();
        let text = format!("session {n}");
        assert_eq!(
            pair.ends[0].write(pair.now, *handle, id, text.as_bytes()),
            Ok(text.len())
        );
    }
    for _ in 0..200 {
        pair.run(100_000);
        for (handle, event) in std::mem::take(&mut pair.events[1]) {
            if let Event::StreamReadable(id) = event {
                let mut buf = [0; 64];
                while let Ok(read) = pair.ends[1].read(pair.now, handle, id, &mut buf) {
                    pair.ends[1]
                        .write(pair.now, handle, id, &buf[..read.len])
                        .unwrap();
                }
            }
        }
    }
    for (n, handle) in handles.iter().enumerate().step_by(64) {
        assert_eq!(pair.ends[0].app(*handle), Some(u32::try_from(n).unwrap()));
        let mut buf = [0; 64];
        let read = pair.ends[0].read(pair.now, *handle, 0, &mut buf).unwrap();
        assert_eq!(&buf[..read.len], format!("session {n}").as_bytes());
    }
    pair.loss = 0;
    pair.run(20_000_000);
    let [client, server] = pair.ends.each_ref().map(Endpoint::memory);
    assert_eq!((client.active, server.active), (0, 0), "all are idle again");
    assert_eq!(server.heap, 0);
    pair.ends.iter().for_each(Endpoint::check_invariants);

    // Silence ends them all, and the slots are free for others.
    let mut silent = 0;
    pair.ends[1].sweep_idle(pair.now, 1_000, |_| silent += 1);
    assert_eq!(silent, SESSIONS);
    pair.run(700_000_000);
    assert!(pair.ends.iter().all(Endpoint::is_empty));
    let again = pair.connect(7);
    pair.run(1_000_000);
    assert_ne!(again, handles[0], "a handle does not come back");
    assert!(
        pair.events[0]
            .iter()
            .any(|(h, e)| *h == again && matches!(e, Event::Connected(_)))
    );
}
