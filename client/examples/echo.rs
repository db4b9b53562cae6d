//! A bot that sends every message back to whoever wrote it.
//!
//! ```text
//! cargo run -p roadstead-client --example echo -- 127.0.0.1:4433 roadstead-data/cert.pem "$(roadstead token --user 9)"
//! ```

use std::collections::{HashSet, VecDeque};

use roadstead_client::{Client, ClientError, Config, Event, FileJournal, Message, Trust};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, certificate, token] = arguments.as_slice() else {
        return Err("arguments: SERVER CERTIFICATE TOKEN".into());
    };
    let config = Config::new(server, Trust::pinned_file(certificate)?)
        .token(token)
        .journal(FileJournal::open("echo.journal")?);
    let (client, mut events) = Client::connect(config).await?;
    let mut user = None;
    let mut unanswered = VecDeque::new();
    while let Some(event) = events.next().await {
        match event {
            Event::Connected(connected) => user = Some(connected.user),
            Event::Message(message) if Some(message.sender) != user => {
                unanswered.push_back(message)
            }
            event => event.stored(),
        }
        answer(&client, &mut unanswered).await?;
    }
    Ok(())
}

/// Answers what there is room for. The rest waits here, unacknowledged, and is tried again at the next event:
/// there is one whenever there is room again. The bot goes on receiving meanwhile.
async fn answer(client: &Client, unanswered: &mut VecDeque<Message>) -> Result<(), ClientError> {
    // Somebody who has no room himself holds up no other, and gets his answers in order.
    let mut full = HashSet::new();
    for _ in 0..unanswered.len() {
        let message = unanswered.pop_front().expect("counted");
        let sent = match full.contains(&message.chat) {
            true => Err(ClientError::ChatFull),
            false => client.send(message.chat, message.payload.clone()).await,
        };
        match sent {
            // The journal holds the answer before the message is acknowledged: if the bot dies in between,
            // it answers twice rather than not at all.
            Ok(_) => {
                client.read(message.chat, message.position).await?;
                message.stored();
            }
            Err(error) if error.is_retryable() => {
                full.insert(message.chat);
                unanswered.push_back(message);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
