//! A peer that has the keys and puts what it likes into authentic packets (T8, T15): no panic, memory
//! and answers within bounds, and nothing left once it is silent.

use arbitrary::{Arbitrary, Unstructured};
use roadstead_quic::coding::VARINT_MAX;
use roadstead_quic::limits::NUMBER_RESERVE;
use roadstead_quic::packet::{Level, PACKET_NUMBER_END};
use roadstead_quic::{CidFormat, Side};

use super::common::net::Node;
use super::common::own::FakeOwn;
use super::common::rig::{Rig, varint};
use super::drive::End;

/// Packets of one input.
const PACKETS_MAX: usize = 64;

/// Above every window and buffer of one connection with the default configuration: 16 KiB received,
/// 64 KiB to be sent on the one stream, CRYPTO of two levels, and the handshake.
const HEAP_MAX: usize = 384 << 10;

/// Datagrams that one packet may cause.
const ANSWERS_MAX: usize = 64;

/// An integer of a frame: small ones reach further than large ones, and those at the end of the range find
/// what counts beyond it (T19).
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Int {
    Tiny(u8),
    Small(u16),
    Large(u64),
    /// So much below the largest.
    Top(u8),
}

#[derive(Arbitrary, Clone, Debug)]
struct Chunk {
    kind: u8,
    ints: Vec<Int>,
    data: Vec<u8>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Act {
    Frames {
        from: End,
        level: u8,
        chunks: Vec<Chunk>,
    },
    Raw {
        from: End,
        level: u8,
        payload: Vec<u8>,
    },
    /// The peer leaves out packet numbers until so many are left (T19): no input is long enough to walk there.
    Leap {
        from: End,
        left: u8,
    },
    /// The victim has sent packets until so many numbers are left to it.
    Wear {
        end: End,
        left: u8,
    },
    /// Not authentic.
    Noise {
        from: End,
        data: Vec<u8>,
    },
    /// The victim's application does something.
    Write {
        end: End,
        len: u16,
    },
    Read {
        end: End,
    },
    Advance {
        ms: u16,
    },
    Flush,
}

#[derive(Arbitrary, Debug)]
struct Plan {
    stage: u8,
    flip: u8,
    updated: bool,
    acts: Vec<Act>,
}

/// A [`Plan`], as `arbitrary` reads it.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let mut rig = match plan.stage % 4 {
        0 => Rig::default(),
        1 => Rig::established(CidFormat::Empty, |_, _| {}, |_, _| {}),
        2 => Rig::established(
            CidFormat::Compact,
            |config, _| config.transport.resumption = true,
            |config, _| config.transport.streams_bidi = 4,
        ),
        _ => {
            let mut rig = Rig::start(CidFormat::Compact, |_, _| {}, |_, _| {});
            rig.hello();
            rig
        }
    };
    let in_handshake = plan.stage % 4 == 3;
    rig.flip = if plan.flip > 200 { plan.flip & 0x1c } else { 0 };
    rig.generation = u32::from(plan.updated && !in_handshake);
    for act in plan.acts.into_iter().take(PACKETS_MAX) {
        perform(&mut rig, act, in_handshake);
        bounds(&rig);
    }
    rig.net.run_for(5_000_000);
    bounds(&rig);
    rig.net.weather.loss = 100;
    rig.net.run_for(500_000_000);
    for end in [&rig.net.client, &rig.net.server] {
        assert!(end.endpoint.is_empty(), "silence ends it");
        assert_eq!(end.endpoint.memory().heap, 0);
    }
}

fn perform(rig: &mut Rig, act: Act, in_handshake: bool) {
    match act {
        Act::Frames {
            from,
            level,
            chunks,
        } => {
            let payload: Vec<u8> = chunks.iter().flat_map(bytes).collect();
            inject(rig, from, level, &payload, in_handshake);
        }
        Act::Raw {
            from,
            level,
            payload,
        } => inject(rig, from, level, &payload, in_handshake),
        Act::Leap { from, left } => leap(rig, from, PACKET_NUMBER_END - 1 - u64::from(left)),
        Act::Wear { end, left } => {
            let next = PACKET_NUMBER_END - NUMBER_RESERVE - u64::from(left);
            match end {
                End::Client => wear(&mut rig.net.client, next),
                End::Server => wear(&mut rig.net.server, next),
            }
        }
        Act::Noise { from, mut data } => {
            data.truncate(1_500);
            rig.deliver(side(from), data);
        }
        Act::Write { end, len } => write(rig, end, len),
        Act::Read { end } => {
            let now = rig.net.now;
            match end {
                End::Client => drop(rig.net.client.read(now, 0)),
                End::Server => drop(rig.net.server.read(now, 0)),
            }
        }
        Act::Advance { ms } => rig.net.run_for(1_000 * u64::from(ms % 8_192)),
        Act::Flush => rig.net.flush(),
    }
}

/// What `from` sends to its victim from now on has numbers from `largest` on.
fn leap(rig: &mut Rig, from: End, largest: u64) {
    let victim = match from {
        End::Client => &mut rig.net.server,
        End::Server => &mut rig.net.client,
    };
    if let Some(handle) = victim.handle {
        victim.endpoint.leap_received(handle, largest);
        rig.next_pn = largest.saturating_add(1);
    }
}

fn wear(end: &mut FakeOwn, next: u64) {
    if let Some(handle) = end.handle {
        end.endpoint.leap_sent(handle, next);
    }
}

fn write(rig: &mut Rig, end: End, len: u16) {
    let (now, data) = (rig.net.now, vec![7; usize::from(len)]);
    match end {
        End::Client => {
            let id = rig.net.client.open(now, false).unwrap_or(0);
            rig.net.client.write(now, id, &data);
        }
        End::Server => {
            rig.net.server.write(now, 0, &data);
        }
    }
}

fn side(end: End) -> Side {
    match end {
        End::Client => Side::Client,
        End::Server => Side::Server,
    }
}

fn inject(rig: &mut Rig, from: End, level: u8, payload: &[u8], in_handshake: bool) {
    let level = match (in_handshake, level % 4) {
        (false, _) => Level::Data,
        (true, 0) => Level::Initial,
        (true, _) => Level::Handshake,
    };
    let payload = &payload[..payload.len().min(1_200)];
    rig.inject(level, side(from), payload);
    for _ in 0..2 {
        let mut out = Vec::new();
        rig.net.server.transmit(rig.net.now, &mut out);
        rig.net.client.transmit(rig.net.now, &mut out);
        assert!(out.len() <= ANSWERS_MAX, "{} datagrams at once", out.len());
    }
}

fn bytes(chunk: &Chunk) -> Vec<u8> {
    let mut out = varint(u64::from(chunk.kind % 0x33));
    for int in &chunk.ints {
        out.extend(varint(match *int {
            Int::Tiny(value) => value.into(),
            Int::Small(value) => value.into(),
            Int::Large(value) => value >> 2,
            Int::Top(below) => VARINT_MAX - u64::from(below),
        }));
    }
    out.extend(&chunk.data);
    out
}

fn bounds(rig: &Rig) {
    for end in [&rig.net.client, &rig.net.server] {
        end.endpoint.check_invariants();
        assert_eq!(end.endpoint.stats().invariants_broken, 0);
        let memory = end.endpoint.memory();
        assert!(memory.heap <= HEAP_MAX, "{memory:?}");
    }
}

/// Drawn bytes: short plans and long ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    crate::drawn(24, 800)
}
