//! The client SDK against a real edge.

mod support;

use bytes::Bytes;
use roadstead_client::{Client, Config, Event, Events, MemoryJournal, Trust};
use roadstead_proto::{ChatId, DeviceId, UserId};
use support::{Edge, soon};

async fn connect(edge: &Edge, user: u64) -> (Client, Events) {
    let trust = Trust::pinned_file(edge.data.join("cert.pem")).expect("the edge made it");
    let config = Config::new(edge.listen.to_string(), trust)
        .server_name("localhost")
        .token(edge.token(user))
        .journal(MemoryJournal::default())
        .device(DeviceId::new(u32::try_from(user).expect("small")).expect("not 0"));
    let (client, events) = Client::connect(config)
        .await
        .expect("a valid configuration");
    soon("the session", client.wait_active())
        .await
        .expect("it opens");
    (client, events)
}

fn chat(a: u64, b: u64) -> ChatId {
    let user = |id| UserId::new(id).expect("not 0");
    ChatId::pair(user(a), user(b))
}

/// The next event that this picks; everything else is stored, as an application would.
async fn next<T>(events: &mut Events, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
    let found = async {
        loop {
            let event = events.next().await.expect("the client runs");
            let found = pick(&event);
            event.stored();
            if let Some(found) = found {
                return found;
            }
        }
    };
    soon(what, found).await
}

#[tokio::test]
async fn two_applications_talk_and_ticks_turn() {
    let edge = Edge::start();
    let (one, mut at_one) = connect(&edge, 1).await;
    let (two, mut at_two) = connect(&edge, 2).await;
    let sent = one.send_confirmed(chat(1, 2), Bytes::from_static(b"hello"));
    let sent = soon("the first tick", sent)
        .await
        .expect("accepted")
        .expect("committed");
    let message = next(&mut at_two, "the message", |event| match event {
        Event::Message(message) => Some(message.clone()),
        _ => None,
    });
    let message = message.await;
    assert_eq!(
        (&message.payload[..], message.position),
        (&b"hello"[..], sent.position)
    );
    next(&mut at_one, "the second tick", |event| match event {
        Event::Receipt(receipt) => (receipt.delivered == sent.position).then_some(()),
        _ => None,
    })
    .await;
    two.read(chat(1, 2), message.position)
        .await
        .expect("the session is open");
    next(&mut at_one, "the read mark", |event| match event {
        Event::Receipt(receipt) => (receipt.read == sent.position).then_some(()),
        _ => None,
    })
    .await;
}

/// T1, R12: the edge crashes; the SDK comes back by itself, and what was sent meanwhile arrives once.
#[tokio::test]
async fn a_crash_of_the_edge_is_only_a_pause() {
    let mut edge = Edge::start();
    let (one, _at_one) = connect(&edge, 1).await;
    let (two, mut at_two) = connect(&edge, 2).await;
    let send = async |text| {
        let sent = soon(
            "the commit",
            one.send_confirmed(chat(1, 2), Bytes::from_static(text)),
        );
        sent.await.expect("accepted").expect("committed")
    };
    send(b"1").await;
    edge.kill();
    let (_, ()) = tokio::join!(send(b"2"), async { edge.restart() });
    send(b"3").await;
    // A silent client would learn of the crash with its next heartbeat; anything it sends tells it now.
    two.typing(chat(1, 2)).await.expect("the client runs");
    for expected in ["1", "2", "3"] {
        let payload = next(&mut at_two, "the next message", |event| match event {
            Event::Message(message) => Some(message.payload.clone()),
            _ => None,
        });
        assert_eq!(payload.await, expected);
    }
}

/// R16, R26: an application that writes faster than its user may is slowed down, and loses nothing.
#[tokio::test]
async fn an_application_above_its_rate_is_slowed_down() {
    let edge = Edge::start_with("[limits]\nsends_per_s = 2\nsends_burst = 3\n", &[]);
    let (one, _at_one) = connect(&edge, 1).await;
    let (_two, mut at_two) = connect(&edge, 2).await;
    let texts: Vec<String> = (0..9).map(|number| number.to_string()).collect();
    for text in &texts {
        let sent = one.send(chat(1, 2), Bytes::from(text.clone()));
        sent.await.expect("accepted");
    }
    for expected in &texts {
        let payload = next(&mut at_two, "the next message", |event| match event {
            Event::Message(message) => Some(message.payload.clone()),
            _ => None,
        });
        assert_eq!(payload.await, expected.as_bytes());
    }
    edge.metric_reaches("roadstead_sends_rate_limited_total", "", 1)
        .await;
    edge.metric_reaches("roadstead_sends_committed_total", "", 9)
        .await;
    assert_eq!(edge.metric("roadstead_sends_committed_total", "").await, 9);
}

/// R16, R21, P112, P113: whoever has no room holds up nobody else, what waits for him can be taken back, and he
/// gets the rest in order once he has been there.
#[tokio::test]
async fn df1_p112_a_full_recipient_holds_up_nobody_else() {
    let edge = Edge::start_with("[sessions]\ninbox_entries_max = 40\n", &[]);
    let (two, at_two) = connect(&edge, 2).await;
    two.shutdown().await;
    drop(at_two);
    let (one, mut at_one) = connect(&edge, 1).await;
    let (_three, mut at_three) = connect(&edge, 3).await;
    let text = |n: u64| Bytes::from(n.to_string());
    // The limit is a soft one: it shows after some more than it says.
    let mut first_delayed = None;
    let mut sent = 0;
    while first_delayed.is_none() {
        let number = one.send(chat(1, 2), text(sent)).await.expect("kept");
        sent += 1;
        first_delayed = next(&mut at_one, "an answer", |event| match event {
            Event::SendConfirmed(it) if it.number == number => Some(None),
            Event::SendDelayed(it) if it.number == number => Some(Some(number)),
            _ => None,
        })
        .await;
    }
    let mut last = 0;
    for _ in 0..2 {
        last = one.send(chat(1, 2), text(sent)).await.expect("kept");
        sent += 1;
    }
    let other = one.send_confirmed(chat(1, 3), Bytes::from_static(b"meanwhile"));
    let other = soon("the commit", other).await.expect("kept");
    other.expect("another chat goes on");
    next(&mut at_three, "what goes to another", |event| match event {
        Event::Message(message) => (message.payload == "meanwhile").then_some(()),
        _ => None,
    })
    .await;
    assert!(one.take_back(last).await.expect("runs"));
    let (_two, mut at_two) = connect(&edge, 2).await;
    let reading = async {
        for n in 0..sent - 1 {
            let payload = loop {
                let event = at_two.next().await.expect("runs");
                event.stored();
                if let Event::Message(message) = event {
                    break message.payload;
                }
            };
            assert_eq!(payload, text(n));
        }
    };
    // The server asks for half a minute before another try.
    let patience = std::time::Duration::from_secs(120);
    tokio::time::timeout(patience, reading)
        .await
        .expect("in time");
}
