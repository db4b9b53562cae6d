//! T10: a heartbeat on an idle session allocates nothing and makes no active part, on either end.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::net::{Net, Node, Note, Weather};
use common::own::{fake_client, fake_server, server_addr};
use roadstead_quic::{CidFormat, Time, Transmit};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    let _ = ALLOCATIONS.try_with(|c| c.set(c.get() + 1));
}

// SAFETY: every call is passed on to the system allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn a_heartbeat_allocates_nothing_and_costs_one_packet_each_way_t10() {
    for format in [CidFormat::Empty, CidFormat::Compact] {
        let client = fake_client(1, format, |_, _| {});
        let server = fake_server(1, |_, _| {});
        let mut net = Net::new(1, Weather::CALM, client, server, server_addr());
        net.establish();
        net.run_for(5_000_000);
        assert!(net.client.is_idle() && net.server.is_idle());

        let (mut now, client, server) = (net.now, &mut net.client, &mut net.server);
        let mut arena = vec![0; 1 << 14];
        let mut out: Vec<Transmit> = Vec::with_capacity(4);
        let (ch, sh) = (client.h(), server.h());
        // What the server sees as the client's address is the address the client sends from.
        let (ca, sa) = (client.addresses[0], server.addresses[0]);
        for beat in 0..1_000u32 {
            let before = ALLOCATIONS.get();
            client.endpoint.ping(now, ch).unwrap();
            out.clear();
            client.endpoint.poll_transmit(now, &mut arena, &mut out);
            assert_eq!(out.len(), 1, "one packet out");
            let range = out[0].offset..out[0].offset + out[0].len;
            now = now + 20_000;
            server
                .endpoint
                .handle_datagram(now, 0, ca, &mut arena[range]);
            assert!(server.endpoint.is_idle(sh), "no active part");
            out.clear();
            server.endpoint.poll_transmit(now, &mut arena, &mut out);
            assert_eq!(out.len(), 1, "one packet back");
            let range = out[0].offset..out[0].offset + out[0].len;
            now = now + 20_000;
            client
                .endpoint
                .handle_datagram(now, 0, sa, &mut arena[range]);
            assert!(client.endpoint.is_idle(ch), "no active part");
            let mut pongs = 0;
            while let Some((_, event)) = client.endpoint.poll_event() {
                pongs += u32::from(event == roadstead_quic::Event::Pong);
            }
            assert_eq!(pongs, 1);
            out.clear();
            client.endpoint.poll_transmit(now, &mut arena, &mut out);
            server.endpoint.poll_transmit(now, &mut arena, &mut out);
            assert!(out.is_empty(), "and nothing more");
            // Between two heartbeats the timers run.
            let next = now + 30_000_000;
            while let Some(at) = client.endpoint.next_timeout(now).filter(|t| *t <= next) {
                now = at.max(now + 1);
                client.endpoint.handle_timeout(now);
            }
            now = now.max(Time::ZERO);
            while let Some(at) = server.endpoint.next_timeout(now).filter(|t| *t <= next) {
                now = at.max(now + 1);
                server.endpoint.handle_timeout(now);
            }
            now = now.max(next);
            let allocated = ALLOCATIONS.get() - before;
            // The first beats may grow the queues of the endpoint.
            assert!(
                beat < 2 || allocated == 0,
                "beat {beat} allocated {allocated} times"
            );
            assert!(client.endpoint.is_idle(ch) && server.endpoint.is_idle(sh));
        }
        assert!(client.endpoint.poll_event().is_none() && server.endpoint.poll_event().is_none());
        assert!(server.endpoint.rtt_us(sh).is_some());
    }
}

/// The PING is repeated by probe timeouts when it or its acknowledgement is lost, still without an
/// active part.
#[test]
fn a_lost_heartbeat_is_repeated_t10() {
    let client = fake_client(2, CidFormat::Empty, |_, _| {});
    let server = fake_server(2, |_, _| {});
    let mut net = Net::new(2, Weather::CALM, client, server, server_addr());
    net.establish();
    net.run_for(5_000_000);
    net.weather.loss = 100;
    net.client.ping(net.now);
    net.run_for(300_000);
    assert!(net.client.is_idle());
    net.weather.loss = 0;
    net.run_for(3_000_000);
    assert!(net.client_notes.contains(&Note::Pong));
    assert!(net.client.is_idle() && net.server.is_idle());
}

/// A PING under way when data is written becomes an ordinary record.
#[test]
fn a_heartbeat_meets_data_t10() {
    for lose in [false, true] {
        let client = fake_client(3, CidFormat::Empty, |_, _| {});
        let server = fake_server(3, |_, _| {});
        let mut net = Net::new(3, Weather::CALM, client, server, server_addr());
        net.establish();
        net.run_for(5_000_000);
        let id = net.client.open(net.now, false).unwrap();
        net.weather.loss = if lose { 100 } else { 0 };
        net.client.ping(net.now);
        net.flush();
        net.weather.loss = 0;
        assert!(net.echo(id, 5_000, false, 5_000_000));
        net.run_for(5_000_000);
        assert!(net.client_notes.contains(&Note::Pong));
        assert!(net.client.is_idle() && net.server.is_idle());
    }
}
