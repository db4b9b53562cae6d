//! A chat that takes nothing at the moment, seen by an application (P112, P113).

use roadstead_client::{Client, ClientError, ErrorCode, Event, Events, FileJournal, SendError};

use super::common::{Server, next_message, pair, until, wait_for};
use super::connected;

async fn confirmed(events: &mut Events) -> (u64, u64) {
    wait_for(events, |event| match event {
        Event::SendConfirmed(it) => Some((it.number, it.sent_as)),
        _ => None,
    })
    .await
}

async fn delayed(events: &mut Events) -> u64 {
    wait_for(events, |event| match event {
        Event::SendDelayed(it) => {
            assert_eq!(it.code, ErrorCode::RecipientFull);
            Some(it.number)
        }
        _ => None,
    })
    .await
}

/// Alice, Bob, who has no room, and what Bob gets.
async fn alice_and_full_bob(server: &Server) -> (Client, Events, Events) {
    let (alice, mut alice_events) = server.client(1).await;
    let (_bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;
    server.world().full.insert(2);
    (alice, alice_events, bob_events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn df1_p112_a_recipient_without_room_holds_up_nobody_else() {
    let server = Server::start();
    let (alice, mut alice_events, mut bob_events) = alice_and_full_bob(&server).await;
    let (_carol, mut carol_events) = server.client(3).await;
    connected(&mut carol_events).await;
    let mut to_bob = Vec::new();
    for n in 1..=5 {
        let number = alice.send(pair(1, 2), format!("{n}")).await.expect("kept");
        to_bob.push(number);
        alice.send(pair(1, 3), format!("{n}")).await.expect("kept");
        let (number, sent_as) = confirmed(&mut alice_events).await;
        assert!(!to_bob.contains(&number));
        assert_eq!(number, sent_as);
        assert_eq!(
            next_message(&mut carol_events).await.payload,
            format!("{n}")
        );
    }
    assert!(bob_events.try_next().is_none());
    assert_eq!(server.world().hellos.len(), 3, "in the same sessions");
    server.world().full.clear();
    for (n, expected) in (1..).zip(&to_bob) {
        let (number, sent_as) = confirmed(&mut alice_events).await;
        assert_eq!(number, *expected);
        let message = next_message(&mut bob_events).await;
        assert_eq!(message.payload, format!("{n}"));
        assert_eq!(message.number, sent_as);
        assert!(sent_as > to_bob[4], "a number above all that were used");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn df1_p112_what_waits_survives_a_restart_of_the_application() {
    let server = Server::start();
    let (_bob, mut bob_events) = server.client(2).await;
    connected(&mut bob_events).await;
    server.world().full.insert(2);
    let journal = server.folder.path().join("alice");
    let start = async || {
        let journal = FileJournal::open(&journal).expect("opens");
        let config = server.config(1).journal(journal);
        Client::connect(config).await.expect("starts")
    };
    let (alice, mut events) = start().await;
    for n in 1..=3 {
        alice.send(pair(1, 2), format!("{n}")).await.expect("kept");
    }
    for n in 1..=3 {
        assert_eq!(delayed(&mut events).await, n);
    }
    alice.shutdown().await;
    drop(events);
    let (alice, mut events) = start().await;
    assert_eq!(delayed(&mut events).await, 1, "it is tried again");
    alice.shutdown().await;
    drop(events);
    server.world().full.clear();
    let (_alice, mut events) = start().await;
    for n in 1..=3 {
        assert_eq!(confirmed(&mut events).await.0, n);
        assert_eq!(next_message(&mut bob_events).await.payload, format!("{n}"));
    }
    assert!(bob_events.try_next().is_none(), "each came once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn df1_p113_what_waits_can_be_taken_back_and_what_is_committed_can_not() {
    let server = Server::start();
    let (alice, mut alice_events, mut bob_events) = alice_and_full_bob(&server).await;
    let waiting = alice.clone();
    let waiting = tokio::spawn(async move { waiting.send_confirmed(pair(1, 2), "a slip").await });
    let number = delayed(&mut alice_events).await;
    assert!(alice.take_back(number).await.expect("runs"));
    let told = waiting.await.expect("no panic").expect("kept");
    assert_eq!(told, Err(SendError::TakenBack));
    let failed = wait_for(&mut alice_events, |event| match event {
        Event::SendFailed(it) => Some((it.number, it.error.clone())),
        _ => None,
    });
    assert_eq!(failed.await, (number, SendError::TakenBack));
    assert!(!alice.take_back(number).await.expect("runs"), "it is gone");
    server.world().full.clear();
    let later = alice.send(pair(1, 2), "what I meant").await.expect("kept");
    assert_eq!(confirmed(&mut alice_events).await.0, later);
    assert!(!alice.take_back(later).await.expect("runs"));
    assert_eq!(next_message(&mut bob_events).await.payload, "what I meant");
}

/// An application that sends from the loop that reads its events, as a bot does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn df1_p112_with_a_full_outbox_an_application_goes_on_receiving() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    let (bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;
    server.world().swallow_answers = true;
    let full = loop {
        match alice.send(pair(1, 3), "unanswered").await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(full, ClientError::OutboxFull), "{full}");
    assert!(full.is_retryable());
    let confirmed = alice.send_confirmed(pair(1, 3), "unanswered").await;
    assert!(matches!(confirmed, Err(ClientError::OutboxFull)));
    bob.send(pair(1, 2), "are you there?").await.expect("kept");
    let message = next_message(&mut alice_events).await;
    assert_eq!(message.payload, "are you there?");
    message.stored();
    until(&server, |world| world.acks > 0).await;
}
