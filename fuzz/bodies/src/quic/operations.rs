//! Own with own, the fake handshake, any operations, any weather (T15, T18).

use arbitrary::{Arbitrary, Unstructured};
use roadstead_quic::{CloseReason, Config};

use super::common::net::{Net, Node};
use super::common::own::{FakeOwn, fake_client, fake_server, server_addr};
use super::drive::{Operation, Sky, drive, format};

/// How the pair is set up.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Setup {
    seed: u8,
    format: u8,
    streams: u8,
    window: u8,
    flags: u8,
    sky: Sky,
}

#[derive(Arbitrary, Debug)]
struct Plan {
    setup: Setup,
    operations: Vec<Operation>,
}

/// A [`Plan`], as `arbitrary` reads it.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let mut net = pair(plan.setup);
    let model = drive(&mut net, &plan.operations);
    let over = model.is_over(&net);
    for end in [&net.client, &net.server] {
        honest(end);
        assert!(over || end.is_idle(), "memory returns to the idle size");
    }
    net.client.close(net.now);
    net.run_for(400_000_000);
    for end in [&net.client, &net.server] {
        assert!(end.endpoint.is_empty(), "the slot is free again");
        assert_eq!(end.endpoint.memory().heap, 0);
        assert_eq!(end.endpoint.half_open(), 0);
    }
}

/// Neither end finds fault with the other.
fn honest(end: &FakeOwn) {
    if let Some(CloseReason::Local(error)) = &end.last_close {
        panic!("an honest peer was closed: {error}");
    }
}

fn pair(setup: Setup) -> Net<FakeOwn, FakeOwn> {
    let seed = u64::from(setup.seed);
    let window = [1_024, 8 << 10, 64 << 10][usize::from(setup.window % 3)];
    let flag = |bit: u8| setup.flags & (1 << bit) != 0;
    let streams = 1 + u32::from(setup.streams % 8);
    let both = |config: &mut Config| {
        config.transport.streams_bidi = streams;
        config.transport.streams_uni = streams;
        config.transport.stream_window = window;
        config.transport.connection_window = 2 * window;
    };
    let client = fake_client(seed, format(setup.format), |config, tls| {
        both(config);
        config.transport.resumption = flag(0);
        config.transport.pacing = flag(1);
        if flag(2) {
            tls.hello_padding = 1_700;
        }
        if flag(3) {
            config.transport.key_update_after = 20;
        }
    });
    let server = fake_server(seed, |config, tls| {
        both(config);
        config.transport.new_tokens = flag(0);
        config.transport.pacing = flag(4);
        if flag(5) {
            tls.chain = 5_000;
        }
        if flag(6) {
            config.retry_above = 0;
        }
    });
    Net::new(seed, setup.sky.weather(), client, server, server_addr())
}

/// Drawn bytes: short plans and long ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    crate::drawn(24, 1_200)
}
