//! Own with quinn-proto over rustls: which end is which, the operations and the weather come from the
//! input (T15). TLS draws its own randomness, so a finding may need several runs to show again.

use arbitrary::{Arbitrary, Unstructured};
use roadstead_quic::CloseReason;

use super::common::net::{Dice, Net, Node};
use super::common::own::{RealOwn, client_addr, real_client, real_server, server_addr};
use super::common::quinn::Quinn;
use super::common::real;
use super::drive::{Operation, Sky, drive, format};

#[derive(Arbitrary, Debug)]
struct Plan {
    own_is_client: bool,
    seed: u8,
    format: u8,
    retry: bool,
    sky: Sky,
    operations: Vec<Operation>,
}

/// A [`Plan`], as `arbitrary` reads it.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let seed = u64::from(plan.seed);
    if plan.own_is_client {
        let client = real_client(seed, format(plan.format), real::AES_128, |config| {
            config.transport.streams_bidi = 4;
            config.transport.streams_uni = 4;
        });
        let mut server = Quinn::server(Dice(seed).seed(), server_addr());
        server.always_retry = plan.retry;
        let mut net = Net::new(seed, plan.sky.weather(), client, server, server_addr());
        let over = drive(&mut net, &plan.operations).is_over(&net);
        honest(&net.client, over);
        net.client.close(net.now);
        net.run_for(400_000_000);
        gone(&net.client);
    } else {
        let client = Quinn::client(Dice(seed).seed(), client_addr(), server_addr());
        let server = real_server(seed, |config| {
            config.transport.streams_bidi = 4;
            config.transport.streams_uni = 4;
            if plan.retry {
                config.retry_above = 0;
            }
        });
        let mut net = Net::new(seed, plan.sky.weather(), client, server, server_addr());
        let over = drive(&mut net, &plan.operations).is_over(&net);
        honest(&net.server, over);
        net.client.close(net.now);
        net.run_for(400_000_000);
        gone(&net.server);
    }
}

/// The own end finds no fault with quinn, and holds what an idle one holds.
fn honest(own: &RealOwn, over: bool) {
    if let Some(CloseReason::Local(error)) = &own.last_close {
        panic!("quinn was closed: {error}");
    }
    assert!(over || own.is_idle(), "memory returns to the idle size");
}

fn gone(own: &RealOwn) {
    assert!(own.endpoint.is_empty(), "the slot is free again");
    assert_eq!(own.endpoint.memory().heap, 0);
}

/// Drawn bytes: short plans and long ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    crate::drawn(12, 600)
}
