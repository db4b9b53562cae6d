//! The edge on each QUIC engine: quinn-proto, and the project's own, the default which all other tests run on,
//! with clients of another implementation (T13, T15).

mod support;

use std::process::Command;

use bytes::Bytes;
use roadstead_proto::ErrorCode;
use roadstead_proto::v1::{self, client_frame};
use support::{Client, Edge, chat, sibling};

fn edge(engine: &str) -> Edge {
    Edge::start_with("", &["--quic-engine", engine, "--shards", "2"])
}

macro_rules! on_each_engine {
    ($($name:ident),+ $(,)?) => {
        mod lean {
            $(#[tokio::test]
            async fn $name() {
                super::$name("lean").await;
            })+
        }

        mod quinn {
            $(#[tokio::test]
            async fn $name() {
                super::$name("quinn").await;
            })+
        }
    };
}

on_each_engine! {
    a_message_gets_its_three_ticks,
    a_large_message_arrives_whole,
    t1_old_connections_learn_of_the_restart,
    t18_a_client_that_moves_keeps_its_session,
    fc5_p2_a_client_that_stops_listening_ends_its_session,
    fc5_p2_a_client_that_gives_up_sending_ends_its_session,
    fc5_p2_a_client_that_has_said_all_ends_its_session,
    fc9_datagrams_are_not_announced_and_a_client_that_sends_one_is_closed,
    loadgen_chats_over_it_on_both_sides,
}

/// RFC 9221 section 3: what is not announced is a violation of the transport's protocol, not the session's.
async fn fc9_datagrams_are_not_announced_and_a_client_that_sends_one_is_closed(engine: &str) {
    const PROTOCOL_VIOLATION: u64 = 0x0a;
    let edge = edge(engine);
    let two = Client::login(&edge, 2, 22).await;
    assert_eq!(two.connection.max_datagram_size(), None, "none announced");
    let bold = Client::connect_boldly(&edge).await;
    assert!(bold.connection.max_datagram_size().is_some(), "bold");
    let datagram = Bytes::from_static(b"typing");
    bold.connection.send_datagram(datagram).expect("sent");
    let end = support::soon("the end", bold.connection.closed()).await;
    let ::quinn::ConnectionError::ConnectionClosed(close) = end else {
        panic!("{end}")
    };
    assert_eq!(u64::from(close.error_code), PROTOCOL_VIOLATION, "{close}");
    edge.metric_reaches("roadstead_net_closed_error_total", "", 1)
        .await;
    let mut one = Client::login(&edge, 1, 11).await;
    one.message(chat(1, 2), b"unharmed").await;
    one.result().await;
}

/// The server closes without fault, counts it, and harms no other. What was answered before stays.
async fn ends_its_session(engine: &str, aborted: u64, end: impl Fn(&mut Client)) {
    let edge = edge(engine);
    let mut two = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    one.message(chat(1, 2), b"before").await;
    one.result().await;
    end(&mut one);
    assert_eq!(one.closed().await, Some(ErrorCode::Unspecified));
    // Without a word, too.
    let mut silent = Client::connect(&edge).await;
    end(&mut silent);
    assert_eq!(silent.closed().await, Some(ErrorCode::Unspecified));
    edge.metric_reaches("roadstead_connections_closed_total", "reason=\"local\"", 2)
        .await;
    edge.metric_reaches("roadstead_streams_aborted_total", "", aborted)
        .await;
    let delivered = two.deliver().await.envelope.expect("an envelope");
    assert_eq!(&delivered.payload[..], b"before");
    let mut again = Client::resume(&edge, 1, 11, 2, Bytes::new()).await.0;
    again.message_numbered(2, chat(1, 2), b"after").await;
    again.result().await;
    let delivered = two.deliver().await.envelope.expect("an envelope");
    assert_eq!(&delivered.payload[..], b"after");
}

/// It hears no answer any more, so it must not be able to go on speaking either.
async fn fc5_p2_a_client_that_stops_listening_ends_its_session(engine: &str) {
    ends_its_session(engine, 2, Client::stop_listening).await;
}

async fn fc5_p2_a_client_that_gives_up_sending_ends_its_session(engine: &str) {
    ends_its_session(engine, 2, Client::give_up_sending).await;
}

async fn fc5_p2_a_client_that_has_said_all_ends_its_session(engine: &str) {
    ends_its_session(engine, 0, Client::finish_sending).await;
}

async fn a_message_gets_its_three_ticks(engine: &str) {
    let edge = edge(engine);
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    one.message(chat(1, 2), b"hello").await;
    let sent = one.result().await;
    let delivered = two.deliver().await;
    assert_eq!(
        &delivered.envelope.expect("an envelope").payload[..],
        b"hello"
    );
    two.ack(delivered.cursor).await;
    assert_eq!(one.receipt().await.delivered, sent.position);
    let read = v1::Read {
        chat: chat(1, 2),
        position: sent.position.clone(),
    };
    two.say(client_frame::Body::Read(read)).await;
    assert_eq!(one.receipt().await.read, sent.position);
}

/// A frame of the largest payload fills several windows and a train of packets.
async fn a_large_message_arrives_whole(engine: &str) {
    let edge = edge(engine);
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    let text: Vec<u8> = (0..roadstead_proto::limits::PAYLOAD_BYTES_MAX)
        .map(|at| at.to_le_bytes()[0])
        .collect();
    for _ in 0..5 {
        one.message(chat(1, 2), &text).await;
        one.result().await;
        let delivered = two.deliver().await;
        assert_eq!(delivered.envelope.expect("an envelope").payload, text);
        two.ack(delivered.cursor).await;
        one.receipt().await;
    }
}

/// T1, T2: the restarted edge resets old connections, although their slots are in use again.
async fn t1_old_connections_learn_of_the_restart(engine: &str) {
    let mut edge = edge(engine);
    let mut old = Client::login(&edge, 1, 11).await;
    edge.kill();
    edge.restart();
    let mut new = Client::login(&edge, 2, 22).await;
    old.message(chat(1, 2), b"into the void").await;
    let end = support::soon("the reset", old.connection.closed()).await;
    assert!(matches!(end, ::quinn::ConnectionError::Reset), "{end}");
    new.message(chat(1, 2), b"unharmed").await;
    new.result().await;
}

/// T18, RFC 9000 section 9: the session follows a client that moves to another socket.
async fn t18_a_client_that_moves_keeps_its_session(engine: &str) {
    let edge = edge(engine);
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    for text in ["here", "there", "elsewhere"] {
        one.message(chat(1, 2), text.as_bytes()).await;
        one.result().await;
        let delivered = two.deliver().await;
        assert_eq!(
            &delivered.envelope.expect("an envelope").payload[..],
            text.as_bytes()
        );
        two.ack(delivered.cursor).await;
        one.receipt().await;
        one.move_to_another_socket();
        two.move_to_another_socket();
    }
}

/// The same engine on both sides, with the full account of loadgen.
async fn loadgen_chats_over_it_on_both_sides(engine: &str) {
    let edge = edge(engine);
    let json = edge.data.join("chat.json");
    let output = Command::new(sibling("loadgen", "roadstead-loadgen"))
        .args(["chat", "--quic-engine", engine, "--quiet"])
        .args(["--sessions", "200", "--rate", "300", "--duration", "3"])
        .args(["--offline-fraction", "0.2", "--target"])
        .args([&edge.listen.to_string(), "--admin", &edge.admin.to_string()])
        .arg("--data")
        .arg(&edge.data)
        .arg("--json")
        .arg(&json)
        .output()
        .expect("loadgen runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let text = std::fs::read_to_string(&json).unwrap_or_else(|e| panic!("{e}: {said}"));
    let report: serde_json::Value = serde_json::from_str(&text).expect("valid JSON");
    assert_eq!(report["verdict"], "pass", "{report:#}");
    assert_eq!(report["quic_engines"]["generator"][engine], 200);
    assert_eq!(report["messages"]["lost"], 0);
}
