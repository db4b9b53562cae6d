//! Own with own over rustls: resumption, ALPN, certificates (T3, T6, T14).

mod common;

use std::sync::Arc;

use common::net::{Net, Node, Note, Weather};
use common::own::{Own, RealOwn, client_addr, config, real_client, real_server, server_addr};
use common::real::{self, AwsAead};
use roadstead_quic::{CidFormat, Event, Time};

fn client_with(tls: &Arc<rustls::ClientConfig>) -> RealOwn {
    let mut config = config(1, CidFormat::Empty);
    config.transport.resumption = true;
    let mut client = Own::new(config, None, AwsAead, client_addr());
    client.connect(Time::from_millis(1_000), tls, server_addr());
    client
}

#[test]
fn resumption_with_a_ticket_t6() {
    let tls = Arc::new(real::client_config(real::provider(real::AES_128)));
    let server = real_server(1, |_| {});
    let mut net = Net::new(1, Weather::CALM, client_with(&tls), server, server_addr());
    net.establish();
    net.run_for(3_000_000);
    assert!(net.client_notes.contains(&Note::Ticket));
    assert!(
        net.client.is_idle() && net.server.is_idle(),
        "TLS is gone on both ends"
    );
    net.client.close(net.now);
    net.run_for(10_000_000);
    // Again, with the ticket.
    let now = net.now;
    net.client.connect(now, &tls, server_addr());
    let mut resumed = false;
    for _ in 0..20 {
        let mut out = Vec::new();
        net.client.transmit(net.now, &mut out);
        out.into_iter().for_each(|p| net.server.receive(net.now, p));
        let mut out = Vec::new();
        net.server.transmit(net.now, &mut out);
        out.into_iter().for_each(|p| net.client.receive(net.now, p));
        while let Some((_, event)) = net.client.endpoint.poll_event() {
            if let Event::Connected(connected) = event {
                resumed = connected.resumed;
                assert_eq!(&*connected.alpn, b"roadstead/1");
            }
        }
    }
    assert!(resumed);
}

#[test]
fn no_common_protocol_rfc9001_8_1() {
    let mut tls = real::client_config(real::provider(real::AES_128));
    tls.alpn_protocols = vec![b"other/1".to_vec()];
    let server = real_server(2, |_| {});
    let mut net = Net::new(
        2,
        Weather::CALM,
        client_with(&Arc::new(tls)),
        server,
        server_addr(),
    );
    net.run_for(5_000_000);
    // no_application_protocol is 120: 0x178 on the wire.
    let text = net.client_notes.iter().find_map(|n| match n {
        Note::Closed(text) => Some(text.clone()),
        _ => None,
    });
    assert!(text.expect("closed").contains("0x178"));
    net.run_for(20_000_000);
    assert!(net.client.endpoint.is_empty() && net.server.endpoint.is_empty());
}

#[test]
fn a_certificate_that_is_not_trusted() {
    let provider = real::provider(real::AES_128);
    let mut roots = rustls::RootCertStore::empty();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    roots.add(other.cert.der().clone()).unwrap();
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"roadstead/1".to_vec()];
    let server = real_server(3, |_| {});
    let mut net = Net::new(
        3,
        Weather::CALM,
        client_with(&Arc::new(tls)),
        server,
        server_addr(),
    );
    net.run_for(5_000_000);
    assert!(!net.connected());
    for notes in [&net.client_notes, &net.server_notes] {
        assert!(notes.iter().any(|n| matches!(n, Note::Closed(_))));
    }
}

#[test]
fn echo_over_rustls_in_weather() {
    for seed in 0..10 {
        let weather = Weather {
            loss: 5,
            jitter: 20_000,
            ..Weather::CALM
        };
        let client = real_client(seed, CidFormat::Compact, real::AES_128, |_| {});
        let server = real_server(seed, |_| {});
        let mut net = Net::new(seed, weather, client, server, server_addr());
        net.establish();
        let id = net.client.open(net.now, false).unwrap();
        assert!(net.echo(id, 50_000, false, 120_000_000));
        net.client.update_keys(net.now);
        assert!(net.echo(id, 50_000, false, 120_000_000));
        net.weather = Weather::CALM;
        net.run_for(10_000_000);
        assert!(net.client.is_idle() && net.server.is_idle());
    }
}
