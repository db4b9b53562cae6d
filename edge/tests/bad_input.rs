//! Bad input over real connections: each gets its code and its counter, and harms nobody else.

mod support;

use std::net::UdpSocket;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use roadstead_proto::v1::{self, client_frame, hello};
use roadstead_proto::{ErrorCode, Position, limits};
use support::{Client, Edge, Expect, chat};

/// A pair of well-behaved sessions that must not notice what happens beside them.
struct Bystanders {
    one: Client,
    two: Client,
}

impl Bystanders {
    async fn new(edge: &Edge) -> Self {
        Self {
            one: Client::login(edge, 901, 1).await,
            two: Client::login(edge, 902, 1).await,
        }
    }

    async fn are_well(&mut self) {
        self.one.message(chat(901, 902), b"still here").await;
        self.one.result().await;
        let deliver = self.two.deliver().await;
        self.two.ack(deliver.cursor).await;
    }
}

/// Sends bytes instead of, or after, a Hello and expects this end.
async fn refused(edge: &Edge, logged_in: bool, bytes: &[u8], code: ErrorCode) {
    let mut bystanders = Bystanders::new(edge).await;
    let name = format!("code=\"{}\"", code.as_str_name());
    let before = edge.metric("roadstead_refused_total", &name).await;
    let mut client = match logged_in {
        true => Client::login(edge, 7, 7).await,
        false => Client::connect(edge).await,
    };
    client.say_bytes(bytes).await;
    assert_eq!(client.closed().await, Some(code));
    edge.metric_reaches("roadstead_refused_total", &name, before + 1)
        .await;
    bystanders.are_well().await;
}

/// A token with any claims, signed with the development key.
fn signed(edge: &Edge, claims: &serde_json::Value) -> String {
    let pem = std::fs::read(edge.data.join("token-key.pem")).expect("the edge made it");
    let key = jsonwebtoken::EncodingKey::from_ed_pem(&pem).expect("a key");
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.kid = Some("development".into());
    jsonwebtoken::encode(&header, claims, &key).expect("signed")
}

fn frame(body: client_frame::Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    roadstead_proto::encode_frame(&v1::ClientFrame { body: Some(body) }, &mut bytes);
    bytes
}

#[tokio::test]
async fn wrong_alpn() {
    let edge = Edge::start();
    let mut bystanders = Bystanders::new(&edge).await;
    let error = Client::try_connect(&edge, b"h3")
        .await
        .err()
        .expect("refused");
    // RFC 7301, section 3.2: no_application_protocol, alert 120, as a QUIC crypto error.
    assert!(
        error.to_string().contains("120") || error.to_string().contains("protocol"),
        "{error}"
    );
    edge.metric_reaches("roadstead_net_handshakes_failed_alpn_total", "", 1)
        .await;
    bystanders.are_well().await;
}

#[tokio::test]
async fn malformed_frames() {
    let edge = Edge::start();
    refused(&edge, false, b"\x00", ErrorCode::FrameMalformed).await;
    refused(&edge, false, b"\x03\xff\xff\xff", ErrorCode::FrameMalformed).await;
    refused(&edge, true, b"\x80\x80\x80\x80", ErrorCode::FrameMalformed).await;
    // A frame whose message has no body.
    refused(&edge, true, b"\x02\x78\x01", ErrorCode::FrameMalformed).await;
}

#[tokio::test]
async fn an_oversized_frame() {
    let edge = Edge::start();
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(limits::FRAME_BYTES_MAX as u64 + 1, &mut bytes);
    refused(&edge, true, &bytes, ErrorCode::FrameTooLarge).await;
}

/// Before its login nobody holds more of a shard than a Hello takes; after it a frame is as large as ever.
#[tokio::test]
async fn tf7_t8_a_frame_before_login_is_at_most_8_kib() {
    let edge = Edge::start();
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(limits::HELLO_FRAME_BYTES_MAX as u64 + 1, &mut bytes);
    refused(&edge, false, &bytes, ErrorCode::FrameTooLarge).await;
    // The longest credential fits.
    let longest = "x".repeat(limits::CREDENTIAL_BYTES_MAX);
    let hello = v1::Hello {
        credential: Some(hello::Credential::Token(longest)),
        ..Client::hello(&edge, 7, 7)
    };
    let bytes = frame(client_frame::Body::Hello(hello));
    refused(&edge, false, &bytes, ErrorCode::TokenInvalid).await;
    let mut one = Client::login(&edge, 903, 1).await;
    let mut two = Client::login(&edge, 904, 1).await;
    one.message(chat(903, 904), &[7; 60_000]).await;
    one.result().await;
    let deliver = two.deliver().await;
    two.ack(deliver.cursor).await;
}

#[tokio::test]
async fn wrong_version() {
    let edge = Edge::start();
    let hello = v1::Hello {
        version: 2,
        ..Client::hello(&edge, 7, 7)
    };
    let bytes = frame(client_frame::Body::Hello(hello));
    refused(&edge, false, &bytes, ErrorCode::VersionUnsupported).await;
}

#[tokio::test]
async fn forged_and_expired_tokens() {
    let edge = Edge::start();
    let with = |token: String| {
        let credential = Some(hello::Credential::Token(token));
        frame(client_frame::Body::Hello(v1::Hello {
            credential,
            ..Client::hello(&edge, 7, 7)
        }))
    };
    refused(
        &edge,
        false,
        &with("not.a.token".into()),
        ErrorCode::TokenInvalid,
    )
    .await;
    let mut forged = edge.token(7).into_bytes();
    let last = forged.len() - 2;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("text");
    refused(&edge, false, &with(forged), ErrorCode::TokenInvalid).await;

    let expired = signed(
        &edge,
        &serde_json::json!({
            "sub": "7", "iss": "roadstead", "aud": "roadstead", "iat": 1_000, "exp": 2_000,
        }),
    );
    refused(&edge, false, &with(expired), ErrorCode::TokenExpired).await;
}

#[tokio::test]
async fn a_second_hello_and_a_frame_before_the_first() {
    let edge = Edge::start();
    let hello = frame(client_frame::Body::Hello(Client::hello(&edge, 7, 7)));
    refused(&edge, true, &hello, ErrorCode::FrameUnexpected).await;
    let ack = frame(client_frame::Body::Ack(v1::Ack {
        cursor: Bytes::new(),
    }));
    refused(&edge, false, &ack, ErrorCode::FrameUnexpected).await;
}

#[tokio::test]
async fn no_device_is_number_zero() {
    let edge = Edge::start();
    let hello = frame(client_frame::Body::Hello(Client::hello(&edge, 7, 0)));
    refused(&edge, false, &hello, ErrorCode::DeviceInvalid).await;
}

#[tokio::test]
async fn r19_an_ack_for_what_was_never_delivered() {
    let edge = Edge::start();
    let cursor = Bytes::copy_from_slice(Position::new(1, [0xff; 10], 0).as_bytes());
    let ack = frame(client_frame::Body::Ack(v1::Ack {
        cursor: cursor.clone(),
    }));
    refused(&edge, true, &ack, ErrorCode::CursorInvalid).await;
    let hello = v1::Hello {
        cursor,
        ..Client::hello(&edge, 7, 7)
    };
    let hello = frame(client_frame::Body::Hello(hello));
    refused(&edge, false, &hello, ErrorCode::CursorInvalid).await;
}

#[tokio::test]
async fn a_fifth_device() {
    let edge = Edge::start();
    for device in 1..=4 {
        Client::login(&edge, 8, device).await.leave().await;
    }
    let hello = frame(client_frame::Body::Hello(Client::hello(&edge, 8, 5)));
    refused(&edge, false, &hello, ErrorCode::DeviceLimit).await;
}

#[tokio::test]
async fn a_send_that_can_not_be() {
    let edge = Edge::start();
    let mut bystanders = Bystanders::new(&edge).await;
    let mut client = Client::login(&edge, 7, 7).await;
    let refusals = [
        (chat(7, 123_456), b"nobody".to_vec(), ErrorCode::UserUnknown),
        (
            chat(901, 902),
            b"not my chat".to_vec(),
            ErrorCode::ChatInvalid,
        ),
        (
            Bytes::from_static(b"short"),
            b"no chat".to_vec(),
            ErrorCode::ChatInvalid,
        ),
        (
            chat(7, 901),
            vec![0; limits::PAYLOAD_BYTES_MAX + 1],
            ErrorCode::PayloadTooLarge,
        ),
    ];
    for (chat, payload, code) in refusals {
        let number = client.message(chat, &payload).await;
        let error = client.error().await;
        assert_eq!(
            (error.code(), error.number, error.retryable),
            (code, number, false)
        );
    }
    edge.metric_reaches("roadstead_sends_refused_total", "", 4)
        .await;
    // The session itself goes on.
    client.message(chat(7, 901), b"fine").await;
    client.result().await;
    bystanders.are_well().await;
}

/// Writes to an inbox until that is refused: how many messages found room, and the refusal.
async fn fill(sender: &mut Client, chat: Bytes) -> (u32, v1::Error) {
    let mut accepted = 0;
    loop {
        sender.message(chat.clone(), b"filling").await;
        match sender.next().await {
            Expect::SendResult(_) => accepted += 1,
            Expect::Error(error) => return (accepted, error),
            other => panic!("{other:?}"),
        }
        assert!(accepted < 1_000, "the limit is never reached");
    }
}

/// D-F3: whoever fills an inbox uses up its own share first. D-F1: the refusal is final for its number, so that it
/// holds up no other chat.
#[tokio::test]
async fn df3_r21_an_inbox_at_its_limit() {
    let edge = Edge::start_with("[sessions]\ninbox_entries_max = 40\n", &[]);
    let mut bystanders = Bystanders::new(&edge).await;
    Client::login(&edge, 2, 22).await.leave().await;
    let mut one = Client::login(&edge, 1, 11).await;
    let (mut accepted, error) = fill(&mut one, chat(1, 2)).await;
    assert_eq!(
        (error.code(), error.retryable),
        (ErrorCode::RecipientFull, false)
    );
    assert!(error.retry_after_ms > 0);
    assert!(
        (4..40).contains(&accepted),
        "a share is a tenth, not {accepted}"
    );
    bystanders.are_well().await;
    // Many together fill all of it. Both limits are soft: it takes a check by the user's home.
    for sender in 3.. {
        assert!(sender < 100, "the limit is never reached");
        let mut other = Client::login(&edge, sender, 1).await;
        let (more, error) = fill(&mut other, chat(sender, 2)).await;
        assert_eq!(error.code(), ErrorCode::RecipientFull);
        accepted += more;
        if more == 0 {
            break;
        }
    }
    assert!(accepted >= 40, "{accepted} are less than the limit");
    bystanders.are_well().await;

    // The device comes back, sees the gap, acknowledges it, and can be written to again.
    let mut two = Client::login(&edge, 2, 22).await;
    let mut delivered = 0;
    let gap = loop {
        match two.next().await {
            Expect::Deliver(_) => delivered += 1,
            Expect::Gap(gap) => break gap,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (delivered, gap.reason()),
        (accepted, v1::GapReason::InboxLimit)
    );
    two.ack(gap.cursor).await;
    let retried = async {
        let mut refused = error.number;
        loop {
            one.message_after(refused, chat(1, 2), b"filling").await;
            match one.try_next().await.expect("open") {
                Expect::SendResult(_) => return,
                Expect::Error(error) => refused = error.number,
                Expect::ReceiptUpdate(_) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    support::soon("what had been refused, under a new number", retried).await;
    two.deliver().await;
}

#[tokio::test]
async fn t11_a_flood_of_half_open_handshakes() {
    let edge = Edge::start_with(
        "[sessions]\nretry_above_half_open = 16\n",
        &["--shards", "1"],
    );
    let mut bystanders = Bystanders::new(&edge).await;
    // Datagrams of the size of an Initial, with distinct ids and nothing valid inside, cost the edge a
    // failed decryption each; real half-open handshakes are the ones whose client never answers.
    let attackers: Vec<HalfOpen> = (0..64).map(|_| HalfOpen::start(&edge)).collect();
    edge.metric_reaches("roadstead_net_retries_sent_total", "", 1)
        .await;
    bystanders.are_well().await;
    // A client that answers the Retry gets in.
    Client::login(&edge, 7, 7).await;
    drop(attackers);
}

/// A client that sends its first Initial and then says nothing.
struct HalfOpen {
    _socket: UdpSocket,
}

impl HalfOpen {
    fn start(edge: &Edge) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        for datagram in support::client::first_flight(edge) {
            socket.send_to(&datagram, edge.listen).expect("sent");
        }
        Self { _socket: socket }
    }
}

#[tokio::test]
async fn garbage_datagrams() {
    let edge = Edge::start();
    let mut bystanders = Bystanders::new(&edge).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for length in [0, 1, 2, 7, 20, 21, 100, 1_200, 1_500, 9_000] {
        for first in [0x00u8, 0x40, 0x80, 0xc0, 0xff] {
            let mut datagram = vec![first; length];
            if length > 5 {
                datagram[1..5].copy_from_slice(&1u32.to_be_bytes());
            }
            socket.send_to(&datagram, edge.listen).expect("sent");
        }
    }
    bystanders.are_well().await;
}

#[tokio::test]
async fn a_client_that_never_acknowledges() {
    let edge = Edge::start_with("[sessions]\nslow_consumer_s = 1\n", &[]);
    let mut bystanders = Bystanders::new(&edge).await;
    let mut slow = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    for _ in 0..limits::DELIVER_WINDOW_ENTRIES_MAX + 10 {
        one.message(chat(1, 2), b"more than the window holds").await;
        one.result().await;
    }
    assert_eq!(slow.closed().await, Some(ErrorCode::SlowConsumer));
    bystanders.are_well().await;
    // Nothing was lost for it.
    let mut slow = Client::login(&edge, 2, 22).await;
    slow.deliver().await;
}

#[tokio::test]
async fn a_client_that_never_reads() {
    let edge = Edge::start_with("[sessions]\nslow_consumer_s = 1\n", &[]);
    let mut bystanders = Bystanders::new(&edge).await;
    let deaf = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    for _ in 0..40 {
        one.message(chat(1, 2), &vec![1; 32 * 1024]).await;
        one.result().await;
    }
    // The server stops at the window and closes; the connection learns of it although nobody reads.
    let closed = support::soon("the end", deaf.connection.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = closed else {
        panic!("{closed}")
    };
    let code = ErrorCode::from_close_code(close.error_code.into_inner());
    assert_eq!(code, Some(ErrorCode::SlowConsumer));
    bystanders.are_well().await;
}

/// A user sends faster than it may: refused for now, in order, and its number is good for the next attempt
/// (R12, R16, R26).
#[tokio::test]
async fn r26_a_user_that_sends_too_much() {
    let edge = Edge::start_with("[limits]\nsends_per_s = 2\nsends_burst = 3\n", &[]);
    let mut bystanders = Bystanders::new(&edge).await;
    let mut greedy = Client::login(&edge, 7, 7).await;
    for _ in 0..100 {
        greedy.message(chat(7, 901), b"again").await;
    }
    let error = greedy.error().await;
    let limited = (ErrorCode::RateLimited, true);
    assert_eq!((error.code(), error.retryable), limited);
    assert!(error.number > 3 && error.retry_after_ms >= 250, "{error:?}");
    let behind = greedy.error().await;
    assert_eq!(behind.number, error.number + 1, "nothing overtakes it");
    edge.metric_reaches("roadstead_sends_rate_limited_total", "", 1)
        .await;
    bystanders.are_well().await;

    let number = error.number;
    let committed = async {
        loop {
            greedy
                .message_numbered(number, chat(7, 901), b"again")
                .await;
            match greedy.try_next().await.expect("the session goes on") {
                Expect::SendResult(result) if result.number == number => return,
                _ => {}
            }
        }
    };
    support::soon("the number that was refused", committed).await;
}

/// More sessions from one address than it may open: newcomers wait outside or are sent away, and nobody who is
/// in notices.
#[tokio::test]
async fn t11_an_address_that_opens_too_many_sessions() {
    let edge = Edge::start_with(
        "[limits]\nsessions_per_s = 1\nsessions_burst = 4\nunlimited = []\n",
        &["--shards", "1"],
    );
    let mut bystanders = Bystanders::new(&edge).await;
    let refused = async {
        loop {
            let crowd = (0..16).map(|_| end_of_a_session(&edge));
            let mut crowd: FuturesUnordered<_> = crowd.collect();
            while let Some(end) = crowd.next().await {
                if end == Some(ErrorCode::RateLimited) {
                    return;
                }
            }
        }
    };
    support::soon("a refusal", refused).await;
    edge.metric_reaches("roadstead_refused_address_total", "", 1)
        .await;
    bystanders.are_well().await;
}

/// An address that proves itself again and again and finishes no handshake: it is counted with its proof, so that it
/// soon costs a look-up a packet.
#[tokio::test]
async fn tf2_t11_an_address_that_finishes_no_handshake() {
    let edge = Edge::start_with(
        "[limits]\nsessions_per_s = 1\nsessions_burst = 8\nunlimited = []\n\
         [sessions]\nretry_above_half_open = 0\n",
        &["--shards", "1"],
    );
    let mut bystanders = Bystanders::new(&edge).await;
    let refused = edge.metric_reaches("roadstead_net_drop_not_admitted_total", "", 1);
    let attempts = async {
        loop {
            Client::begin_and_give_up(&edge).await;
        }
    };
    tokio::select! {
        () = refused => {}
        () = attempts => {}
    }
    assert_eq!(edge.metric("roadstead_refused_address_total", "").await, 0);
    bystanders.are_well().await;
}

/// How the server ends a session that says nothing.
async fn end_of_a_session(edge: &Edge) -> Option<ErrorCode> {
    let error = match Client::try_connect(edge, roadstead_proto::ALPN).await {
        Ok(client) => client.connection.closed().await,
        Err(error) => error,
    };
    let quinn::ConnectionError::ApplicationClosed(close) = error else {
        return None;
    };
    ErrorCode::from_close_code(close.error_code.into_inner())
}
