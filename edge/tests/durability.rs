//! Crashes of the process: nothing acknowledged is lost, nothing comes twice.

mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use support::{Client, Edge, Expect, chat};

/// R8, R12: kill -9 with sends under way. The client repeats what was not answered, by number.
#[tokio::test]
async fn kill_9_in_the_middle_of_sends() {
    let mut edge = Edge::start();
    Client::login(&edge, 2, 22).await.leave().await;
    let mut answered = BTreeSet::new();
    let mut next: u64 = 1;
    for round in 0u64..4 {
        let (mut one, _) = Client::resume(&edge, 1, 11, round + 1, Bytes::new()).await;
        // What the last round left open, then new ones.
        let open: Vec<u64> = (1..next)
            .filter(|number| !answered.contains(number))
            .collect();
        for number in open {
            one.message_numbered(number, chat(1, 2), format!("{number}").as_bytes())
                .await;
        }
        for _ in 0..100 {
            one.message_numbered(next, chat(1, 2), format!("{next}").as_bytes())
                .await;
            next += 1;
        }
        let enough = answered.len() + 50;
        while answered.len() < enough {
            if let Expect::SendResult(result) = one.next().await {
                answered.insert(result.number);
            }
        }
        edge.kill();
        edge.restart();
    }
    let (mut two, _) = Client::resume(&edge, 2, 22, 9, Bytes::new()).await;
    let mut seen = Vec::new();
    let mut last = Bytes::new();
    while !answered.iter().all(|number| seen.contains(number)) {
        let deliver = two.deliver().await;
        assert!(deliver.cursor > last, "cursors only grow (R4)");
        last = deliver.cursor.clone();
        let payload = deliver.envelope.expect("an envelope").payload;
        seen.push(
            String::from_utf8_lossy(&payload)
                .parse::<u64>()
                .expect("a number"),
        );
        two.ack(deliver.cursor).await;
    }
    let distinct: BTreeSet<u64> = seen.iter().copied().collect();
    assert_eq!(
        distinct.len(),
        seen.len(),
        "a number made two messages (R12)"
    );
    assert!(
        seen.is_sorted(),
        "one chat, one sender: order of numbers (R16)"
    );
}

/// T1: the restarted edge tells old connections that it does not know them, long before they time out.
#[tokio::test]
async fn t1_old_connections_learn_of_the_restart() {
    let mut edge = Edge::start();
    let mut client = Client::login(&edge, 1, 11).await;
    edge.kill();
    edge.restart();
    client.message(chat(1, 1), b"into the void").await;
    let end = support::soon("the reset", client.connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::Reset), "{end}");
}
