//! A bot that sends every message back to whoever wrote it.
//!
//! ```text
//! cargo run -p roadstead-client --example echo -- 127.0.0.1:4433 roadstead-data/cert.pem "$(roadstead token --user 9)"
//! ```

use roadstead_client::{Client, Config, Event, FileJournal, Trust};

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
    while let Some(event) = events.next().await {
        match &event {
            Event::Connected(connected) => user = Some(connected.user),
            Event::Message(message) if Some(message.sender) != user => {
                // The journal holds the answer before the message is acknowledged: if the bot dies in
                // between, it answers twice rather than not at all.
                client.send(message.chat, message.payload.clone()).await?;
                client.read(message.chat, message.position).await?;
            }
            _ => {}
        }
        event.stored();
    }
    Ok(())
}
