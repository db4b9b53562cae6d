//! Devices that log in, read nothing of what is sent to them, and read it all in the end.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use anyhow::{Context, Result, anyhow};
use roadstead_client::{ChatId, Client, Config, DeviceId, Event, Events, Trust, UserId};

use crate::edge::{Edge, LOOK_EVERY, PATIENCE};

/// The user who writes to all of them.
const WRITER: u64 = 900_000;

/// What each of them is sent: several windows of a session.
const MESSAGES: u32 = 24;
const BYTES: usize = 30_000;

/// Devices that hold their sessions and read nothing until they are told to. The same ones every time: what
/// they take leaves nothing behind.
#[derive(Debug)]
pub(crate) struct SlowReaders {
    /// A word: read. Without its other end: go.
    door: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl SlowReaders {
    /// Logs so many of them in and sends each more than its session may hold.
    pub(crate) fn start(edge: &Edge, count: u64) -> Result<Self> {
        let readers: Result<Vec<Config>> = (1..=count)
            .map(|index| config(edge, WRITER + index))
            .collect();
        let (readers, writer) = (readers?, config(edge, WRITER)?);
        let (door, word) = channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("slow readers".into())
            .spawn(move || runtime.block_on(hold(readers, writer, &word)))?;
        Ok(Self {
            door: Some(door),
            thread: Some(thread),
        })
    }

    /// They read at last, in new sessions where the server has closed the old ones: nothing is missing.
    pub(crate) fn catch_up(mut self) -> Result<()> {
        if let Some(door) = self.door.take() {
            // A thread that has ended says below why.
            let _ = door.send(());
        }
        let thread = self.thread.take().expect("taken only here and at the end");
        thread
            .join()
            .map_err(|_| anyhow!("the slow readers panicked"))?
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        drop(self.door.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(edge: &Edge, user: u64) -> Result<Config> {
    let trust = Trust::pinned_file(edge.data.join("cert.pem"))?;
    let config = Config::new(edge.listen.to_string(), trust).token(edge.token(user)?);
    Ok(config.device(DeviceId::new(1)?))
}

/// A device under way, and the marks of what it has not seen.
struct Reader {
    client: Client,
    events: Events,
    missing: BTreeSet<u32>,
}

async fn hold(readers: Vec<Config>, writer: Config, word: &Receiver<()>) -> Result<()> {
    let mut held = Vec::new();
    for reader in readers {
        let (client, events) = Client::connect(reader).await?;
        client.wait_active().await?;
        held.push(Reader {
            client,
            events,
            missing: BTreeSet::new(),
        });
    }
    let (client, mut events) = Client::connect(writer).await?;
    client.wait_active().await?;
    let writer = UserId::new(WRITER)?;
    for mark in 0..MESSAGES {
        for (user, reader) in (WRITER + 1..).zip(&mut held) {
            let chat = ChatId::pair(writer, UserId::new(user)?);
            send(&client, &mut events, chat, mark).await?;
            reader.missing.insert(mark);
        }
        store_what_came(&mut events);
    }
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        store_what_came(&mut events);
        match word.try_recv() {
            Ok(()) => break,
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {}
        }
        look.tick().await;
    }
    for reader in &mut held {
        tokio::time::timeout(PATIENCE, read_all(reader))
            .await
            .with_context(|| format!("a slow reader still misses {}", reader.missing.len()))??;
    }
    for reader in held {
        end(reader.client, reader.events).await;
    }
    end(client, events).await;
    Ok(())
}

/// Sends a message that bears a mark, as soon as there is room for it.
async fn send(client: &Client, events: &mut Events, chat: ChatId, mark: u32) -> Result<()> {
    let mut payload = vec![7; BYTES];
    payload[..size_of::<u32>()].copy_from_slice(&mark.to_be_bytes());
    loop {
        match client.send(chat, payload.clone()).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_retryable() => {
                let event = events.next().await;
                event.context("the writer's client stopped")?.stored();
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn store_what_came(events: &mut Events) {
    while let Some(event) = events.try_next() {
        event.stored();
    }
}

async fn read_all(reader: &mut Reader) -> Result<()> {
    while !reader.missing.is_empty() {
        let event = reader.events.next().await;
        let event = event.context("a slow reader's client stopped")?;
        if let Event::Message(message) = &event {
            let mark = message
                .payload
                .first_chunk()
                .context("a message has a mark")?;
            reader.missing.remove(&u32::from_be_bytes(*mark));
        }
        event.stored();
    }
    Ok(())
}

/// Acknowledges what is stored, and takes what still comes meanwhile.
async fn end(client: Client, mut events: Events) {
    let rest = async {
        while let Some(event) = events.next().await {
            event.stored();
        }
    };
    tokio::join!(client.shutdown(), rest);
}
