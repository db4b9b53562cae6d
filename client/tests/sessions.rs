//! The SDK against a server that speaks the protocol over real QUIC.

#[path = "sessions/chats.rs"]
mod chats;
mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use common::{Out, Server, is_code, next_message, pair, until, user, wait_for};
use roadstead_client::{
    Cause, Client, ClientError, Config, DeviceId, Event, FileJournal, SendError, Status, Trust,
};
use roadstead_proto::{ErrorCode, v1};

const MANY: u64 = 300;

async fn connected(events: &mut roadstead_client::Events) -> roadstead_client::Connected {
    wait_for(events, |event| match event {
        Event::Connected(connected) => Some(connected.clone()),
        _ => None,
    })
    .await
}

async fn disconnected(events: &mut roadstead_client::Events) -> Cause {
    wait_for(events, |event| match event {
        Event::Disconnected(disconnected) => Some(disconnected.cause.clone()),
        _ => None,
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_users_talk_and_ticks_turn() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    let (bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;

    let sent = alice.send_confirmed(pair(1, 2), "hello").await;
    let sent = sent.expect("runs").expect("committed");
    let message = next_message(&mut bob_events).await;
    assert_eq!(message.payload, "hello");
    assert_eq!((message.id, message.position), (sent.id, sent.position));

    message.stored();
    wait_for(&mut alice_events, |event| match event {
        Event::Receipt(receipt) if receipt.delivered >= sent.position => Some(()),
        _ => None,
    })
    .await;
    bob.read(message.chat, message.position)
        .await
        .expect("runs");
    let reader = wait_for(&mut alice_events, |event| match event {
        Event::Receipt(receipt) if receipt.read >= sent.position => Some(receipt.user),
        _ => None,
    })
    .await;
    assert_eq!(reader, user(2));

    bob.typing(pair(1, 2)).await.expect("runs");
    let typing = wait_for(&mut alice_events, |event| match event {
        Event::Typing { user, .. } => Some(*user),
        _ => None,
    })
    .await;
    assert_eq!(typing, user(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_wait_for_a_device_that_was_away() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    connected(&mut alice_events).await;
    let device = DeviceId::new(5).expect("not 0");
    let journal = server.folder.path().join("bob");
    let bob_config = || {
        let journal = FileJournal::open(&journal).expect("opens");
        server.config(2).device(device).journal(journal)
    };
    let (bob, mut bob_events) = Client::connect(bob_config()).await.expect("starts");
    connected(&mut bob_events).await;
    bob.shutdown().await;
    drop(bob_events);

    for n in 0..10 {
        let sent = alice.send_confirmed(pair(1, 2), format!("{n}")).await;
        sent.expect("runs").expect("committed");
    }
    let (bob, mut bob_events) = Client::connect(bob_config()).await.expect("starts");
    for n in 0..10 {
        let message = next_message(&mut bob_events).await;
        assert_eq!(message.payload, format!("{n}"));
        message.stored();
    }
    bob.shutdown().await;
    assert_eq!(bob.status(), Status::Stopped);
    let mut world = server.world();
    assert!(
        world.device_of(2).inbox.is_empty(),
        "a farewell acknowledges"
    );
    assert!(
        world.acks <= 5,
        "acknowledgements are gathered: {}",
        world.acks
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r12_answers_lost_with_the_session_make_no_second_message() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    let (_bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;

    server.world().swallow_answers = true;
    for n in 1..=20 {
        let number = alice.send(pair(1, 2), format!("{n}")).await.expect("runs");
        assert_eq!(number, n);
    }
    until(&server, |world| world.sends.len() == 20).await;
    {
        let mut world = server.world();
        world.swallow_answers = false;
        world.kick(1, ErrorCode::Internal);
    }
    for expected in 1..=20 {
        let number = wait_for(&mut alice_events, |event| match event {
            Event::SendConfirmed(confirmation) => Some(confirmation.number),
            _ => None,
        })
        .await;
        assert_eq!(number, expected);
        assert_eq!(next_message(&mut bob_events).await.number, expected);
    }
    assert!(bob_events.try_next().is_none(), "each came once");
    assert_eq!(server.world().sends.len(), 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p39_refusals_for_now_keep_the_order_of_a_chat() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    let (_bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;

    server.world().refusals = [ErrorCode::StoreUnavailable, ErrorCode::Overloaded].into();
    let reader = async {
        for expected in 1..=MANY {
            let message = next_message(&mut bob_events).await;
            assert_eq!(message.number, expected);
            message.stored();
        }
    };
    let writer = async {
        for n in 1..=MANY {
            alice.send(pair(1, 2), format!("{n}")).await.expect("runs");
        }
    };
    // Alice's own events are many too: unread they would hold her up, as they should.
    let confirmations = async {
        for _ in 1..=MANY {
            wait_for(&mut alice_events, |event| match event {
                Event::SendConfirmed(_) => Some(()),
                _ => None,
            })
            .await;
        }
    };
    tokio::join!(reader, writer, confirmations);
    assert!(server.world().sends.len() > 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_for_good_reaches_the_application() {
    let server = Server::start();
    let (alice, _events) = server.client(1).await;
    server.world().refusals = [ErrorCode::UserUnknown].into();
    let refused = alice.send_confirmed(pair(1, 9), "anyone?").await;
    assert!(matches!(
        refused.expect("runs"),
        Err(SendError::Refused {
            code: ErrorCode::UserUnknown,
            ..
        })
    ));
    let too_large = alice.send(pair(1, 2), vec![0; 70_000]).await;
    assert!(matches!(
        too_large,
        Err(ClientError::PayloadTooLarge { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_was_not_stored_comes_again_but_is_shown_once() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    let (_bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;
    alice.send(pair(1, 2), "first").await.expect("runs");
    let first = next_message(&mut bob_events).await;
    server.world().kick(2, ErrorCode::Internal);
    let again = connected(&mut bob_events).await;
    assert!(again.resumed, "the resume token was good");
    alice.send(pair(1, 2), "second").await.expect("runs");
    let second = next_message(&mut bob_events).await;
    assert_eq!(second.payload, "second", "the first was shown before");
    second.stored();
    first.stored();
    until(&server, |world| world.acks > 0).await;
    until(&server, |world| {
        let bob = world.devices.iter().find(|((user, _), _)| *user == 2);
        bob.is_some_and(|(_, device)| device.inbox.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r3_a_new_generation_shows_nothing_twice() {
    let server = Server::start();
    let (alice, mut alice_events) = server.client(1).await;
    let (_bob, mut bob_events) = server.client(2).await;
    connected(&mut alice_events).await;
    connected(&mut bob_events).await;
    for text in ["stored", "shown"] {
        alice.send(pair(1, 2), text).await.expect("runs");
    }
    next_message(&mut bob_events).await.stored();
    let shown = next_message(&mut bob_events).await;
    until(&server, |world| world.acks == 1).await;
    {
        let mut world = server.world();
        world.device_of(2).acked = roadstead_client::Position::ZERO;
        world.kick(2, ErrorCode::Internal);
        world.new_generation();
    }
    let generation = wait_for(&mut bob_events, |event| match event {
        Event::Resynced { generation } => Some(*generation),
        _ => None,
    })
    .await;
    assert_eq!(generation, 2);
    alice.send(pair(1, 2), "later").await.expect("runs");
    let later = next_message(&mut bob_events).await;
    assert_eq!(later.payload, "later");
    later.stored();
    shown.stored();
    until(&server, |world| {
        let bob = world.devices.iter().find(|((user, _), _)| *user == 2);
        bob.is_some_and(|(_, device)| device.inbox.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p45_of_two_sessions_of_a_device_the_later_wins_and_the_other_stops() {
    let server = Server::start();
    let device = DeviceId::new(5).expect("not 0");
    let config = || server.config(1).device(device);
    let (_first, mut first_events) = Client::connect(config()).await.expect("starts");
    connected(&mut first_events).await;
    let (second, mut second_events) = Client::connect(config()).await.expect("starts");
    connected(&mut second_events).await;
    wait_for(&mut first_events, |event| {
        is_code(event, ErrorCode::SessionReplaced).then_some(())
    })
    .await;
    assert!(first_events.next().await.is_none(), "it has stopped");
    assert_eq!(second.status(), Status::Active);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_replaced_by_a_fresh_one() {
    let server = Server::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let config = server.config(1).credentials(move || {
        let stale = counter.fetch_add(1, Ordering::Relaxed) == 0;
        std::future::ready(Ok(if stale { "expired" } else { "user:1" }.to_owned()))
    });
    let (_client, mut events) = Client::connect(config).await.expect("starts");
    wait_for(&mut events, |event| {
        is_code(event, ErrorCode::TokenExpired).then_some(())
    })
    .await;
    connected(&mut events).await;
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    {
        let mut world = server.world();
        world.refuse_resume = true;
        world.kick(1, ErrorCode::Internal);
    }
    assert!(!connected(&mut events).await.resumed);
    assert_eq!(asked.load(Ordering::Relaxed), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_the_next_first_id_bears_the_home_prefix() {
    let server = Server::start();
    let (_client, mut events) = server.client(1).await;
    for _ in 0..8 {
        connected(&mut events).await;
        server.world().kick(1, ErrorCode::Internal);
    }
    connected(&mut events).await;
    let world = server.world();
    let (first, rest) = world.first_ids.split_first().expect("connections");
    assert!(first.len() >= 8);
    assert!(
        rest.iter().all(|id| id[0] >> 5 == 0b101),
        "the three bits of Welcome"
    );
    let others: std::collections::HashSet<_> = rest.iter().map(|id| id[0] & 0x1f).collect();
    assert!(others.len() > 1, "and the others at random");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_survives_a_change_of_network() {
    let server = Server::start();
    let (alice, mut events) = server.client(1).await;
    connected(&mut events).await;
    alice.network_changed().await.expect("runs");
    let sent = alice.send_confirmed(pair(1, 2), "from elsewhere").await;
    sent.expect("runs").expect("committed");
    assert_eq!(server.world().hellos.len(), 1, "the same session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_from_the_server_costs_a_session_not_the_client() {
    let server = Server::start();
    let (_client, mut events) = server.client(1).await;
    connected(&mut events).await;
    let garbage = Bytes::from_static(b"\xff\xff\xff\xff");
    server.world().tell(1, Out::Garbage(garbage));
    let cause = disconnected(&mut events).await;
    assert!(matches!(cause, Cause::Protocol(_)), "{cause}");
    connected(&mut events).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p48_go_away_moves_the_client_without_losing_a_send() {
    let server = Server::start();
    let (alice, mut events) = server.client(1).await;
    connected(&mut events).await;
    let go_away = v1::server_frame::Body::GoAway(v1::GoAway {
        reconnect_after_ms: 30,
        reason: "drain".into(),
    });
    server.world().tell(1, Out::Frame(Box::new(go_away)));
    let confirmed = tokio::spawn(async move { alice.send_confirmed(pair(1, 2), "kept").await });
    assert_eq!(disconnected(&mut events).await, Cause::GoAway);
    connected(&mut events).await;
    let confirmed = confirmed.await.expect("no panic").expect("runs");
    confirmed.expect("committed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_another_certificate_is_not_believed() {
    let (server, stranger) = (Server::start(), Server::start());
    let trust = Trust::pinned_file(server.certificate()).expect("written");
    let config = Config::new(stranger.address.to_string(), trust)
        .token("user:1")
        .reconnect_delay(Duration::from_millis(1), Duration::from_millis(1))
        // The real one is the second address: the client finds it.
        .server(server.address.to_string());
    let (_client, mut events) = Client::connect(config).await.expect("starts");
    let cause = disconnected(&mut events).await;
    assert!(matches!(cause, Cause::Transport(_)), "{cause}");
    connected(&mut events).await;
    assert!(stranger.world().hellos.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_names_the_server_is_believed_by_its_root() {
    let server = Server::start();
    let trust = Trust::roots_file(server.certificate()).expect("written");
    let config = Config::new(server.address.to_string(), trust)
        .server_name("localhost")
        .token("user:1");
    let (client, _events) = Client::connect(config).await.expect("starts");
    client.wait_active().await.expect("connects");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r13_a_device_that_lost_its_journal_continues_above_its_numbers() {
    let server = Server::start();
    let config = || server.config(1).device(DeviceId::new(5).expect("not 0"));
    let (first, mut events) = Client::connect(config()).await.expect("starts");
    connected(&mut events).await;
    for _ in 0..3 {
        let sent = first.send_confirmed(pair(1, 2), "x").await;
        sent.expect("runs").expect("committed");
    }
    first.shutdown().await;
    // Before a Welcome it knows no number: here none ever comes.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let nowhere = silent.local_addr().expect("bound").to_string();
    let trust = Trust::pinned_file(server.certificate()).expect("written");
    let offline = Config::new(nowhere, trust)
        .token("user:1")
        .device(DeviceId::new(5).expect("not 0"));
    let (early, _events) = Client::connect(offline).await.expect("starts");
    let too_early = early.send(pair(1, 2), "y").await;
    assert!(matches!(too_early, Err(ClientError::NumbersUnknown)));
    early.shutdown().await;
    let (second, _events) = Client::connect(config()).await.expect("starts");
    second.wait_active().await.expect("connects");
    let sent = second.send_confirmed(pair(1, 2), "y").await;
    assert_eq!(sent.expect("runs").expect("committed").number, 4);
    let world = server.world();
    let counters: Vec<u64> = world.hellos.iter().map(|it| it.connect_counter).collect();
    assert!(counters[0] < counters[1], "the later life counts higher");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_sent_offline_survive_a_restart_of_the_application() {
    let server = Server::start();
    let journal = server.folder.path().join("journal");
    let trust = || Trust::pinned_file(server.certificate()).expect("written");
    // A socket that nobody reads.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("binds");
    let nowhere = silent.local_addr().expect("bound").to_string();
    let offline = Config::new(nowhere, trust())
        .token("user:1")
        .journal(FileJournal::open(&journal).expect("opens"));
    let (client, events) = Client::connect(offline).await.expect("starts");
    for n in 1..=5 {
        assert_eq!(client.send(pair(1, 2), "offline").await.expect("kept"), n);
    }
    client.shutdown().await;
    drop(events);
    let journal = FileJournal::open(&journal).expect("opens");
    let online = server.config(1).journal(journal);
    let (_client, mut events) = Client::connect(online).await.expect("starts");
    for n in 1..=5 {
        let number = wait_for(&mut events, |event| match event {
            Event::SendConfirmed(confirmation) => Some(confirmation.number),
            _ => None,
        })
        .await;
        assert_eq!(number, n);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_events_stops_the_client() {
    let server = Server::start();
    let (client, mut events) = server.client(1).await;
    connected(&mut events).await;
    drop(events);
    let sent = client.send_confirmed(pair(1, 2), "x").await;
    assert!(
        matches!(
            sent,
            Err(ClientError::Stopped) | Ok(Err(SendError::Stopped)) | Ok(Ok(_))
        ),
        "{sent:?}"
    );
    client.shutdown().await;
    assert!(matches!(
        client.send(pair(1, 2), "x").await,
        Err(ClientError::Stopped)
    ));
}
