//! Who may begin a handshake while many want to (T11): what one address can hold, who gives way to whom, and
//! what it costs to be refused.

mod common;

use common::fake::SESSIONS;
use common::net::{Net, Node, Note, Packet, Weather};
use common::own::{FakeOwn, address, client_addr, fake_client, fake_server, server_addr};
use common::stranger::{ask, begin, first_piece, id, initial, retry};
use roadstead_quic::limits::{
    DISPLACED_AFTER_MS, HALF_OPEN_BLOCK_MAX, HELLO_TIMEOUT_MS, REFUSALS_PER_S,
};
use roadstead_quic::packet::{Kind, Packet as Header};
use roadstead_quic::{CidFormat, Config, Time};

const NOW: Time = Time::from_millis(1_000);

fn server(edit: impl FnOnce(&mut Config)) -> FakeOwn {
    fake_server(40, |config, _| edit(config))
}

/// An honest client, on its own address, and how its handshake went.
fn honest(server: FakeOwn, now: Time) -> (FakeOwn, bool) {
    let client = fake_client(41, CidFormat::Compact, |_, _| {});
    let mut net = Net::new(1, Weather::CALM, client, server, server_addr());
    net.now = now;
    net.run_until(2_000_000, |net| net.client_notes.contains(&Note::Connected));
    let served = net.client_notes.contains(&Note::Connected);
    (net.server, served)
}

/// The audit's scenario: Initial, Retry, Initial with the token and one piece of a hello, again and again from one
/// address. It held every place, and all others were refused.
#[test]
fn tf2_t11_one_address_does_not_hold_the_door_shut() {
    let mut server = server(|_| {});
    let mut now = NOW;
    let mut proven = 0;
    for n in 0..5_000u16 {
        let (proof, _) = begin(&mut server, now, address(50, 1 + n), n.into());
        proven += u64::from(proof);
        now = now + 1_000;
    }
    assert!(server.endpoint.half_open() <= HALF_OPEN_BLOCK_MAX);
    let stats = server.endpoint.stats();
    assert!(
        proven > 4_000,
        "it has to prove its address beyond its part: {proven}"
    );
    assert_eq!(stats.accepted, stats.proven + HALF_OPEN_BLOCK_MAX as u64);
    // Most find its own places taken by handshakes that are a moment old.
    assert!(stats.no_room > 3_000, "{stats:?}");
    // Anybody else is served, and need not even prove an address.
    let retries = stats.retries_sent;
    let (server, served) = honest(server, now);
    assert!(served);
    assert_eq!(server.endpoint.stats().retries_sent, retries);
}

/// A block that holds all it may gives up what is its own and old.
#[test]
fn tf2_t11_a_block_gives_up_its_own_oldest() {
    let mut server = server(|_| {});
    let parts = u16::try_from(HALF_OPEN_BLOCK_MAX).unwrap();
    for n in 0..parts {
        begin(&mut server, NOW, address(50, 1 + n), n.into());
    }
    begin(&mut server, NOW, address(51, 1), 1_000);
    assert_eq!(server.endpoint.stats().displaced, 0);
    let young = NOW + (DISPLACED_AFTER_MS - 1) * 1_000;
    let (proven, answers) = begin(&mut server, young, address(50, 900), 1_001);
    assert!(proven && answers.is_empty(), "silence");
    assert_eq!(server.endpoint.stats().no_room, 1);
    let old = NOW + DISPLACED_AFTER_MS * 1_000;
    let (proven, answers) = begin(&mut server, old, address(50, 901), 1_002);
    assert!(proven && !answers.is_empty(), "acknowledged");
    let stats = server.endpoint.stats();
    assert_eq!((stats.displaced, stats.no_room), (1, 1));
    assert_eq!(server.endpoint.half_open(), HALF_OPEN_BLOCK_MAX + 1);
}

/// A full table: whoever holds most gives way, at once, to one that holds less.
#[test]
fn tf2_t11_a_full_table_gives_up_the_oldest_of_the_largest_holder() {
    let mut server = server(|config| {
        (config.half_open_max, config.retry_above) = (160, 20);
    });
    for n in 0..160u16 {
        let host = u8::try_from(60 + n / 10).unwrap();
        begin(&mut server, NOW, address(host, 1 + n), n.into());
    }
    let stats = server.endpoint.stats();
    assert_eq!((server.endpoint.half_open(), stats.displaced), (160, 0));
    let (server, served) = honest(server, NOW);
    assert!(served, "{:?}", server.endpoint.stats());
    let stats = server.endpoint.stats();
    assert_eq!((stats.displaced, stats.no_room, stats.refused), (1, 0, 0));
}

/// Who has proven nothing may be anybody: it takes no room of others.
#[test]
fn tf2_t11_an_address_without_proof_displaces_nobody() {
    let mut server = server(|config| {
        (config.half_open_max, config.retry_above) = (32, 1_000);
    });
    for n in 0..32u16 {
        let host = u8::try_from(60 + n / 2).unwrap();
        begin(&mut server, NOW, address(host, 1 + n), n.into());
    }
    let later = NOW + 2_000_000;
    let answers = ask(
        &mut server,
        later,
        address(99, 1),
        initial(&id(7), &[], 0, &first_piece()),
    );
    assert!(answers.is_empty(), "silence");
    let stats = server.endpoint.stats();
    assert_eq!((stats.displaced, stats.no_room), (0, 1));
}

/// Among equals only what is old gives way; a token is not used up before there is room, and good for the
/// next attempt.
#[test]
fn tf2_t11_a_token_is_not_used_up_where_there_is_no_room() {
    let mut server = server(|config| {
        (config.half_open_max, config.retry_above) = (32, 0);
    });
    for n in 0..32u16 {
        let host = u8::try_from(60 + n).unwrap();
        assert!(begin(&mut server, NOW, address(host, 1), n.into()).0);
    }
    let from = address(99, 1);
    let answers = ask(
        &mut server,
        NOW,
        from,
        initial(&id(900), &[], 0, &first_piece()),
    );
    let (dcid, token) = retry(&answers).expect("it has to prove its address");
    let with_token = |pn| initial(&dcid, &token, pn, &first_piece());
    for pn in 1..4 {
        assert!(
            ask(&mut server, NOW, from, with_token(pn)).is_empty(),
            "silence"
        );
    }
    assert_eq!(server.endpoint.stats().no_room, 3);
    let later = NOW + DISPLACED_AFTER_MS * 1_000;
    assert!(!ask(&mut server, later, from, with_token(4)).is_empty());
    let stats = server.endpoint.stats();
    assert_eq!(
        (stats.displaced, stats.tokens_refused, stats.refused),
        (1, 0, 0)
    );
}

/// RFC 9000 7.5 and T11: a hello comes in one flight. What comes after it has the time of the handshake.
#[test]
fn tf2_t11_a_hello_that_is_not_complete_has_three_seconds() {
    let mut server = server(|_| {});
    begin(&mut server, NOW, address(50, 1), 1);
    // Beside it one whose hello is whole, and who then says nothing.
    let mut silent = fake_client(42, CidFormat::Compact, |_, _| {});
    let mut out = Vec::new();
    silent.transmit(NOW, &mut out);
    out.into_iter()
        .for_each(|packet| server.receive(NOW, packet));
    assert_eq!(server.endpoint.half_open(), 2);
    let after = |ms: u32| NOW + u64::from(ms) * 1_000;
    for (ms, left) in [
        (HELLO_TIMEOUT_MS - 1, 2),
        (HELLO_TIMEOUT_MS, 1),
        (9_999, 1),
        (10_000, 0),
    ] {
        server.timeout(after(ms));
        assert_eq!(server.endpoint.half_open(), left, "after {ms} ms");
    }
}

/// A handshake that fails lingers for three probe timeouts, with all that it holds: it keeps its place so long.
#[test]
fn tf2_t11_a_handshake_that_fails_at_once_keeps_its_place() {
    let mut server = server(|_| {});
    // HANDSHAKE_DONE is not for Initials (RFC 9000 12.4).
    let wrong = [0x1e];
    for n in 0..100u16 {
        let dcid = id(n.into());
        let from = address(50, 1 + n);
        ask(&mut server, NOW, from, initial(&dcid, &[], 0, &wrong));
    }
    assert_eq!(server.endpoint.half_open(), HALF_OPEN_BLOCK_MAX);
    assert_eq!(
        server.endpoint.stats().retries_sent,
        100 - HALF_OPEN_BLOCK_MAX as u64
    );
    let later = NOW + 5_000_000;
    server.timeout(later);
    assert_eq!(server.endpoint.half_open(), 0);
    assert!(server.endpoint.is_empty());
}

/// Junk with a well-formed header: it is opened before anything is made for it.
#[test]
fn tf9_t11_a_forged_initial_makes_no_tls() {
    let mut server = server(|_| {});
    let before = SESSIONS.get();
    for n in 0..1_000u16 {
        let mut junk = initial(&id(n.into()), &[], 0, &first_piece());
        junk[600] ^= 1;
        let from = address(50, 1 + n);
        assert!(ask(&mut server, NOW, from, junk).is_empty());
    }
    assert_eq!(SESSIONS.get(), before, "TLS sessions");
    assert_eq!(server.endpoint.stats().dropped, 1_000);
    // The same with a token that would prove the address: it is not used up by a forgery.
    server.endpoint.set_retry_above(0);
    let from = address(50, 1);
    let answers = ask(
        &mut server,
        NOW,
        from,
        initial(&id(5_000), &[], 0, &first_piece()),
    );
    let (dcid, token) = retry(&answers).expect("a Retry");
    let good = initial(&dcid, &token, 1, &first_piece());
    let mut junk = good.clone();
    junk[600] ^= 1;
    assert!(ask(&mut server, NOW, from, junk).is_empty());
    assert_eq!(SESSIONS.get(), before);
    assert!(!ask(&mut server, NOW, from, good).is_empty());
    assert_eq!(SESSIONS.get(), before + 1);
}

/// RFC 9000 8.1.3: a client whose Retry token is not taken is told, as it takes no second one; but not any
/// number of them, as each answer costs keys.
#[test]
fn tf9_t11_refused_tokens_are_answered_within_an_allowance() {
    let mut server = server(|config| config.retry_above = 0);
    let from = address(50, 1);
    let answers = ask(
        &mut server,
        NOW,
        from,
        initial(&id(1), &[], 0, &first_piece()),
    );
    let (dcid, token) = retry(&answers).expect("a Retry");
    let elsewhere = initial(&dcid, &token, 1, &first_piece());
    let mut told = 0;
    for n in 0..1_000u16 {
        let answers = ask(&mut server, NOW, address(51, 1 + n), elsewhere.clone());
        told += u32::try_from(answers.len()).unwrap();
    }
    assert_eq!(told, REFUSALS_PER_S);
    let stats = server.endpoint.stats();
    assert_eq!(
        (stats.tokens_refused, stats.refused),
        (1_000, REFUSALS_PER_S.into())
    );
    assert!(server.endpoint.is_empty());
}

/// What becomes of a client that is told: it ends at once.
#[test]
fn tf9_t11_an_honest_client_hears_that_its_token_is_stale() {
    let mut server = server(|config| config.retry_above = 0);
    let mut client = fake_client(43, CidFormat::Compact, |_, _| {});
    let mut exchange = |client: &mut FakeOwn, now| {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.transmit(now, &mut there);
        there
            .into_iter()
            .for_each(|packet| server.receive(now, packet));
        server.transmit(now, &mut back);
        back
    };
    let back = exchange(&mut client, NOW);
    assert_eq!(Header::parse(&back[0].data, 0).unwrap().kind, Kind::Retry);
    let late = NOW + 20_000_000;
    let to = client_addr();
    back.into_iter()
        .for_each(|packet| client.receive(NOW, Packet { to, ..packet }));
    let back = exchange(&mut client, late);
    back.into_iter()
        .for_each(|packet| client.receive(late, packet));
    let notes = client.notes(late);
    let told = |note: &Note| matches!(note, Note::Closed(text) if text.contains("0xb"));
    assert!(notes.iter().any(told), "{notes:?}");
}
