//! Messages between real sessions.

mod support;

use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame};
use roadstead_proto::{ErrorCode, Position};
use support::{Client, Edge, chat};

#[tokio::test]
async fn a_message_gets_its_three_ticks() {
    let edge = Edge::start();
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;

    one.message(chat(1, 2), b"hello").await;
    let sent = one.result().await;
    let delivered = two.deliver().await;
    let envelope = delivered.envelope.expect("an envelope");
    assert_eq!(&envelope.payload[..], b"hello");
    assert_eq!((envelope.sender, envelope.sender_device), (1, 11));
    assert_eq!(envelope.message_id, sent.message_id);
    // R1: one position, in the inbox and in the answer.
    assert_eq!(delivered.cursor, sent.position);

    two.ack(delivered.cursor.clone()).await;
    let double = one.receipt().await;
    assert_eq!((double.user, double.delivered), (2, sent.position.clone()));
    assert!(double.read.is_empty());

    let read = v1::Read {
        chat: chat(1, 2),
        position: sent.position.clone(),
    };
    two.say(client_frame::Body::Read(read)).await;
    let blue = one.receipt().await;
    assert_eq!((blue.user, blue.read), (2, sent.position));
}

#[tokio::test]
async fn a_message_waits_for_a_device_that_is_away() {
    let edge = Edge::start();
    Client::login(&edge, 2, 22).await.leave().await;
    let mut one = Client::login(&edge, 1, 11).await;
    for text in ["first", "second", "third"] {
        one.message(chat(1, 2), text.as_bytes()).await;
        one.result().await;
    }
    let mut two = Client::login(&edge, 2, 22).await;
    for text in ["first", "second", "third"] {
        let envelope = two.deliver().await.envelope.expect("an envelope");
        assert_eq!(&envelope.payload[..], text.as_bytes());
    }
}

#[tokio::test]
async fn every_device_gets_every_message_in_one_order() {
    let edge = Edge::start();
    let mut phone = Client::login(&edge, 1, 11).await;
    let mut tablet = Client::login(&edge, 1, 12).await;
    let mut peer = Client::login(&edge, 2, 22).await;
    let mut positions = Vec::new();
    for round in 0..10 {
        phone
            .message(chat(1, 2), format!("p{round}").as_bytes())
            .await;
        positions.push(phone.result().await.position);
        peer.message(chat(1, 2), format!("q{round}").as_bytes())
            .await;
        positions.push(peer.result().await.position);
        // R2: what a device sent itself is not delivered to it; everything else is.
        assert_eq!(Some(&phone.deliver().await.cursor), positions.last());
    }
    assert!(positions.is_sorted());
    for expected in &positions {
        assert_eq!(tablet.deliver().await.cursor, *expected);
    }
}

#[tokio::test]
async fn r12_the_same_number_makes_one_message() {
    let edge = Edge::start();
    let mut two = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    one.message_numbered(5, chat(1, 2), b"once").await;
    let first = one.result().await;
    one.message_numbered(5, chat(1, 2), b"once").await;
    assert_eq!(one.result().await, first);
    one.message_numbered(5, chat(1, 2), b"another").await;
    let error = one.error().await;
    assert_eq!((error.code(), error.number), (ErrorCode::NumberReused, 5));
    one.message_numbered(6, chat(1, 2), b"next").await;
    assert_eq!(
        &two.deliver().await.envelope.expect("one").payload[..],
        b"once"
    );
    assert_eq!(
        &two.deliver().await.envelope.expect("one").payload[..],
        b"next"
    );
}

#[tokio::test]
async fn r13_the_later_connection_takes_over() {
    let edge = Edge::start();
    let (mut old, _) = Client::resume(&edge, 1, 11, 1, Bytes::new()).await;
    let (mut new, _) = Client::resume(&edge, 1, 11, 2, Bytes::new()).await;
    assert_eq!(old.closed().await, Some(ErrorCode::SessionReplaced));
    let mut peer = Client::login(&edge, 2, 22).await;
    peer.message(chat(1, 2), b"to the new one").await;
    assert_eq!(
        &new.deliver().await.envelope.expect("one").payload[..],
        b"to the new one"
    );
}

#[tokio::test]
async fn r19_a_hello_cursor_acknowledges() {
    let edge = Edge::start();
    let mut two = Client::login(&edge, 2, 22).await;
    let mut one = Client::login(&edge, 1, 11).await;
    one.message(chat(1, 2), b"stored before the line broke")
        .await;
    let sent = one.result().await;
    let delivered = two.deliver().await;
    two.leave().await;
    let (mut two, welcome) = Client::resume(&edge, 2, 22, 2, delivered.cursor).await;
    assert!(!welcome.resync);
    let receipt = one.receipt().await;
    assert_eq!(receipt.delivered, sent.position);
    one.message(chat(1, 2), b"new").await;
    assert_eq!(
        &two.deliver().await.envelope.expect("one").payload[..],
        b"new"
    );
}

#[tokio::test]
async fn r3_a_cursor_of_another_generation_acknowledges_nothing() {
    let edge = Edge::start();
    let mut one = Client::login(&edge, 1, 11).await;
    Client::login(&edge, 2, 22).await.leave().await;
    one.message(chat(1, 2), b"kept").await;
    one.result().await;
    let foreign = Bytes::copy_from_slice(Position::new(77, [0xff; 10], 0).as_bytes());
    let (mut two, welcome) = Client::resume(&edge, 2, 22, 2, foreign).await;
    assert!(welcome.resync);
    assert_eq!(
        &two.deliver().await.envelope.expect("one").payload[..],
        b"kept"
    );
}

#[tokio::test]
async fn t14_a_resume_token_stands_in_for_the_signed_one() {
    let edge = Edge::start();
    let (client, welcome) = Client::resume(&edge, 1, 11, 1, Bytes::new()).await;
    client.leave().await;
    let mut client = Client::connect(&edge).await;
    let mut hello = Client::hello(&edge, 1, 11);
    hello.credential = Some(v1::hello::Credential::ResumeToken(
        welcome.resume_token.clone(),
    ));
    hello.connect_counter = 2;
    client.say(client_frame::Body::Hello(hello)).await;
    assert!(matches!(client.next().await, support::Expect::Welcome(_)));

    let mut thief = Client::connect(&edge).await;
    let mut hello = Client::hello(&edge, 1, 99);
    hello.connect_counter = 3;
    hello.credential = Some(v1::hello::Credential::ResumeToken(
        welcome.resume_token.clone(),
    ));
    thief.say(client_frame::Body::Hello(hello)).await;
    assert_eq!(thief.closed().await, Some(ErrorCode::TokenInvalid));

    // D-F15: of the device, and of a session that the device has counted on from.
    let mut copy = Client::connect(&edge).await;
    let mut hello = Client::hello(&edge, 1, 11);
    hello.credential = Some(v1::hello::Credential::ResumeToken(welcome.resume_token));
    copy.say(client_frame::Body::Hello(hello)).await;
    assert_eq!(copy.closed().await, Some(ErrorCode::TokenInvalid));
}

#[tokio::test]
async fn typing_passes_and_is_not_stored() {
    let edge = Edge::start();
    let mut one = Client::login(&edge, 1, 11).await;
    let mut two = Client::login(&edge, 2, 22).await;
    let typing = v1::Typing {
        chat: chat(1, 2),
        user: 0,
    };
    one.say(client_frame::Body::Typing(typing)).await;
    let pick = |frame| {
        if let support::Expect::Typing(it) = frame {
            Some(it)
        } else {
            None
        }
    };
    assert_eq!(two.wait_for("Typing", pick).await.user, 1);
    two.leave().await;
    let mut two = Client::login(&edge, 2, 22).await;
    one.message(chat(1, 2), b"text").await;
    // Nothing lies before the message.
    assert!(matches!(two.next().await, support::Expect::Deliver(_)));
}

#[tokio::test]
async fn r13_the_highest_number_is_told_when_asked() {
    let edge = Edge::start();
    Client::login(&edge, 2, 22).await.leave().await;
    let mut one = Client::login(&edge, 1, 11).await;
    for _ in 0..3 {
        one.message(chat(1, 2), b"text").await;
        one.result().await;
    }
    one.leave().await;
    let mut again = Client::connect(&edge).await;
    let mut hello = Client::hello(&edge, 1, 11);
    hello.capabilities = v1::Capability::AskHighestNumber as u64;
    again.say(client_frame::Body::Hello(hello)).await;
    match again.next().await {
        support::Expect::Welcome(welcome) => assert_eq!(welcome.highest_number, Some(3)),
        other => panic!("{other:?}"),
    }
}
