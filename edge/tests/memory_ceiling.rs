//! The memory ceiling over real connections: newcomers are refused before their handshake costs anything, and
//! harm nobody who is in; when memory is free again, they are let in.

mod support;

use bytes::Bytes;
use quinn::ConnectionError;
use roadstead_proto::v1::{self, client_frame};
use roadstead_proto::{ALPN, ErrorCode};
use support::{Client, Edge, Expect, chat, soon};

/// Room above what a fresh edge of one shard takes: receive buffers that it has not touched yet (2 MiB), and
/// the sessions.
const ROOM_MIB: u64 = 24;

const ONE_SHARD: &[&str] = &["--shards", "1"];

/// Sessions that fill it several times over, at 50 KB each.
const GREEDY_MAX: usize = 1_500;

/// The beginning of a frame of 60,000 bytes, of which the rest never comes: prefix and 50,000 bytes.
fn unfinished_frame() -> Vec<u8> {
    let mut bytes = vec![0xe0, 0xd4, 0x03];
    bytes.resize(50_000, 0);
    bytes
}

const REFUSED: &str = "roadstead_refused_memory_total";

/// A session; what the server said instead, if the handshake was under way; `None` if it says nothing to
/// newcomers.
async fn login_or_silence(
    edge: &Edge,
    hello: v1::Hello,
) -> Option<Result<Client, ConnectionError>> {
    let before = edge.metric(REFUSED, "").await;
    tokio::select! {
        outcome = try_login(edge, hello) => Some(outcome),
        () = edge.metric_reaches(REFUSED, "", before + 1) => None,
    }
}

/// A session, or what the server said instead.
async fn try_login(edge: &Edge, hello: v1::Hello) -> Result<Client, ConnectionError> {
    let mut client = Client::try_connect(edge, ALPN).await?;
    client.say(client_frame::Body::Hello(hello)).await;
    match soon("an answer to Hello", client.try_next()).await? {
        Expect::Welcome(_) => Ok(client),
        other => panic!("{other:?} instead of a Welcome"),
    }
}

async fn a_message_passes(one: &mut Client, two: &mut Client) {
    one.message(chat(901, 902), b"still here").await;
    one.result().await;
    let deliver = two.deliver().await;
    two.ack(deliver.cursor).await;
}

/// Memory of an edge with two sessions that have talked, in MiB.
async fn base_mib() -> u64 {
    let edge = Edge::start_with("", ONE_SHARD);
    let mut one = Client::login(&edge, 901, 1).await;
    let mut two = Client::login(&edge, 902, 1).await;
    a_message_passes(&mut one, &mut two).await;
    edge.metric("roadstead_memory_used_bytes", "").await >> 20
}

/// One whose handshake was under way is told, and may try again.
fn told_why(refusal: ConnectionError) {
    let ConnectionError::ApplicationClosed(close) = refusal else {
        panic!("{refusal}");
    };
    let code = ErrorCode::from_close_code(close.error_code.into_inner());
    assert_eq!(code, Some(ErrorCode::Overloaded));
    assert!(ErrorCode::Overloaded.is_retryable());
    assert_eq!(
        close.reason,
        Bytes::from_static(b"the server's memory is full")
    );
}

/// Handshakes that were completed, that failed and that are under way.
async fn handshakes(edge: &Edge) -> u64 {
    let mut sum = 0;
    for name in [
        "handshakes_full_total",
        "handshakes_failed_total",
        "half_open",
    ] {
        sum += edge.metric(&format!("roadstead_net_{name}"), "").await;
    }
    sum
}

#[tokio::test]
async fn tf21_t8_at_the_memory_ceiling_newcomers_are_refused_and_sessions_stay() {
    let mib = base_mib().await + ROOM_MIB;
    let edge = Edge::start_with(&format!("memory_max_mib = {mib}\n"), ONE_SHARD);
    assert_eq!(
        edge.metric("roadstead_memory_ceiling_bytes", "").await,
        mib << 20
    );
    let mut one = Client::login(&edge, 901, 1).await;
    let mut two = Client::login(&edge, 902, 1).await;

    let mut greedy = Vec::new();
    let mut hello = v1::Hello::default();
    loop {
        assert!(greedy.len() < GREEDY_MAX, "nobody was refused");
        let (user, device) = (1_000 + greedy.len() / 4, greedy.len() % 4 + 1);
        if device == 1 {
            hello = Client::hello(&edge, user as u64, 1);
            a_message_passes(&mut one, &mut two).await;
        }
        hello.device = u32::try_from(device).expect("up to 4");
        match login_or_silence(&edge, hello.clone()).await {
            Some(Ok(mut client)) => {
                client.say_bytes(&unfinished_frame()).await;
                greedy.push(client);
            }
            Some(Err(refusal)) => {
                told_why(refusal);
                break;
            }
            None => break,
        }
    }
    a_message_passes(&mut one, &mut two).await;

    // From here on a newcomer costs a look-up: no handshake is begun for it.
    let begun = handshakes(&edge).await;
    for _ in 0..3 {
        let outcome = login_or_silence(&edge, hello.clone()).await;
        assert!(outcome.is_none(), "it was answered");
    }
    assert_eq!(handshakes(&edge).await, begun);
    a_message_passes(&mut one, &mut two).await;
    let (status, body) = edge.get("/readyz").await;
    assert!(status == 503 && body.contains("memory"), "{status} {body}");
    assert_eq!(edge.get("/healthz").await.0, 200);

    let leaving: Vec<_> = greedy
        .into_iter()
        .map(|client| tokio::spawn(client.leave()))
        .collect();
    for left in leaving {
        left.await.expect("it left");
    }
    let hello = Client::hello(&edge, 7, 1);
    let back = async {
        while !matches!(login_or_silence(&edge, hello.clone()).await, Some(Ok(_))) {
            tokio::task::yield_now().await;
        }
    };
    soon("a session after the others left", back).await;
    assert_eq!(edge.get("/readyz").await.0, 200);
    a_message_passes(&mut one, &mut two).await;
}
