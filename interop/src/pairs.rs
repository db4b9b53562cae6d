//! Roadstead and quiche over the seeded network of `quic/tests`, in virtual time (T15).

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
};

use anyhow::Result;
use roadstead_quic::{CidFormat, Time};

use crate::{
    common::{
        net::{Dice, Net, Weather},
        own::{RealOwn, client_addr, real_client, real_server, server_addr, steered},
        real,
        session::{Life, session},
    },
    identity::Identity,
    peers::quiche::{QuicheNode, client_config, server_config},
    report::Weathered,
};

/// One life from a seed.
type Live = fn(u64, &Identity) -> Result<Life>;

/// Runs this many seeds in each role.
pub fn run(seeds: u64, out: &mut impl Write) -> Result<Vec<Weathered>> {
    let own = real::identity();
    let identity = Identity::of(own.cert_pem.clone(), own.key_pem.clone())?;
    let lives: [(&str, Live); 2] = [
        ("Roadstead as the client, quiche as the server", own_client),
        ("quiche as the client, Roadstead as the server", own_server),
    ];
    let mut all = Vec::new();
    for (name, live) in lives {
        let mut role = Weathered {
            name,
            seeds,
            ..Weathered::default()
        };
        for seed in 0..seeds {
            // The assertions are those of the tests, so they panic; the message was printed by then.
            match catch_unwind(AssertUnwindSafe(|| live(seed, &identity))) {
                Ok(life) => {
                    let life = life?;
                    role.connected += u64::from(life != Life::NotConnected);
                    role.arrived += u64::from(life == Life::Arrived);
                    role.closed += u64::from(life == Life::Closed);
                }
                Err(_) => {
                    writeln!(out, "{name}: seed {seed} fails")?;
                    role.failed.push(seed);
                }
            }
        }
        writeln!(out, "{role:?}")?;
        all.push(role);
    }
    Ok(all)
}

/// The first seed is calm, so that what fails in it fails for everybody.
fn weather(seed: u64) -> Weather {
    let mut dice = Dice(seed);
    match seed {
        0 => Weather::CALM,
        _ => Weather {
            rebind: 30,
            ..Weather::draw(&mut dice)
        },
    }
}

fn own_client(seed: u64, identity: &Identity) -> Result<Life> {
    let formats = [CidFormat::Empty, CidFormat::Compact, steered()];
    let format = formats[usize::try_from(seed % 3)?];
    // More credit than the life uses: quiche, blocked by the connection's limit, sends DATA_BLOCKED with
    // every packet, and those use its congestion window up before what was lost in a rebind is sent again.
    let client = real_client(seed, format, real::AES_128, |c| {
        c.transport.connection_window = 128 << 10;
    });
    let config = server_config(identity)?;
    let mut server = QuicheNode::server(config, server_addr(), Dice(seed ^ 1)).in_virtual_time();
    server.retry = seed % 5 == 4;
    let mut net: Net<RealOwn, QuicheNode> =
        Net::new(seed, weather(seed), client, server, server_addr());
    Ok(session(&mut net, true, seed == 0))
}

fn own_server(seed: u64, identity: &Identity) -> Result<Life> {
    let config = client_config(identity, quiche::PROTOCOL_VERSION)?;
    let mut client = QuicheNode::client(config, client_addr(), Dice(seed ^ 1)).in_virtual_time();
    client.connect(Time::from_millis(1_000), server_addr())?;
    let server = real_server(seed, |c| {
        c.transport.streams_bidi = 8;
        c.transport.streams_uni = 2;
        if seed % 5 == 4 {
            c.retry_above = 0;
        }
    });
    let mut net: Net<QuicheNode, RealOwn> =
        Net::new(seed, weather(seed), client, server, server_addr());
    Ok(session(&mut net, false, seed == 0))
}
