//! Coalesced datagrams: header after header, and whole ones handed to a server (RFC 9000 12.2, 17).

use roadstead_quic::Time;
use roadstead_quic::packet::{CID_LEN_MAX, Kind, Packet};

use super::common::net::{Node, Packet as Datagram};
use super::common::own::{client_addr, fake_server, server_addr};

/// A client's datagrams with an Initial are at least this long (RFC 9000 14.1), in bytes.
const INITIAL_DATAGRAM_MIN: usize = 1_200;

/// Timers that may fire before a silent client is forgotten.
const TIMERS_MAX: usize = 256;

/// First byte: length of the receiver's ids. The rest: one datagram.
pub fn run(data: &[u8]) {
    let Some((first, datagram)) = data.split_first() else {
        return;
    };
    headers(datagram, usize::from(*first) % (CID_LEN_MAX + 1));
    deliver(datagram);
}

fn headers(datagram: &[u8], cid_len: usize) {
    let mut rest = datagram;
    while let Ok(packet) = Packet::parse(rest, cid_len) {
        assert!(packet.pn_offset <= packet.end && packet.end <= rest.len());
        assert!(packet.token.0 <= packet.token.1 && packet.token.1 <= packet.pn_offset);
        if let Some(at) = packet.sample_offset() {
            assert!(at + 16 <= packet.end, "the sample lies in the packet");
        }
        if packet.kind == Kind::OneRtt {
            assert_eq!((packet.end, packet.dcid.len()), (rest.len(), cid_len));
        }
        assert!(packet.end > 0, "parsing goes on");
        rest = &rest[packet.end..];
    }
}

/// A server takes no more of it than an Initial, of which nothing is left when the client stays silent; and
/// it answers with at most three times what it got.
fn deliver(datagram: &[u8]) {
    let mut server = fake_server(1, |_, _| {});
    let mut now = Time::from_millis(1_000);
    let empty = server.endpoint.memory().heap;
    server.receive(
        now,
        Datagram {
            from: client_addr(),
            to: server_addr(),
            data: datagram.to_vec(),
        },
    );
    server.endpoint.check_invariants();
    let is_small = datagram.len() < INITIAL_DATAGRAM_MIN;
    assert!(!is_small || server.endpoint.is_empty(), "RFC 9000 14.1");
    let mut sent = 0;
    let mut out = Vec::new();
    for _ in 0..TIMERS_MAX {
        server.transmit(now, &mut out);
        sent += out.drain(..).map(|packet| packet.data.len()).sum::<usize>();
        assert!(sent <= 3 * datagram.len(), "RFC 9000 8.1");
        server.notes(now);
        if server.endpoint.is_empty() {
            break;
        }
        now = server.next_timeout(now).expect("a handshake has a timer");
        server.timeout(now);
    }
    assert!(server.endpoint.is_empty(), "silence ends it");
    assert_eq!(server.endpoint.memory().heap, empty);
}

/// Real datagrams of a handshake and of the traffic after it, whole and with their first bytes alone.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    super::drive::datagrams()
        .into_iter()
        .flat_map(|datagram| {
            let head = datagram[..datagram.len().min(60)].to_vec();
            [datagram, head]
        })
        .map(|datagram| [&[12][..], &datagram].concat())
        .collect()
}
