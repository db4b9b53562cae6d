//! Devices that log in and then read nothing of what is sent to them.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use anyhow::Result;
use roadstead_client::{ChatId, Client, Config, Trust, UserId};

use crate::edge::Edge;

/// The user who writes to all of them.
const WRITER: u64 = 900_000;

/// What each of them is sent: several windows of a session.
const MESSAGES: u32 = 24;
const BYTES: usize = 30_000;

/// Devices that hold their sessions and read nothing, until dropped.
#[derive(Debug)]
pub(crate) struct SlowReaders {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SlowReaders {
    /// Logs so many of them in and sends each more than its session may hold.
    pub(crate) fn start(edge: &Edge, count: u64) -> Result<Self> {
        let readers: Result<Vec<Config>> = (1..=count)
            .map(|index| config(edge, WRITER + index))
            .collect();
        let (readers, writer) = (readers?, config(edge, WRITER)?);
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new()
            .name("slow readers".into())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = runtime.expect("a runtime of one thread needs nothing");
                // A session that is lost meanwhile is the scenario's matter: it counts what the server closed.
                let _ = runtime.block_on(write_to_all(readers, writer, &stopped));
            })?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for SlowReaders {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn config(edge: &Edge, user: u64) -> Result<Config> {
    let trust = Trust::pinned_file(edge.data.join("cert.pem"))?;
    Ok(Config::new(edge.listen.to_string(), trust).token(edge.token(user)?))
}

async fn write_to_all(readers: Vec<Config>, writer: Config, stopped: &Receiver<()>) -> Result<()> {
    let mut held = Vec::new();
    for reader in readers {
        let (client, events) = Client::connect(reader).await?;
        client.wait_active().await?;
        held.push((client, events));
    }
    let (client, mut events) = Client::connect(writer).await?;
    let writer = UserId::new(WRITER)?;
    for _ in 0..MESSAGES {
        for index in 1..=held.len() as u64 {
            let chat = ChatId::pair(writer, UserId::new(WRITER + index)?);
            client.send(chat, vec![7; BYTES]).await?;
        }
        while events.try_next().is_some() {}
    }
    let mut look = tokio::time::interval(std::time::Duration::from_millis(50));
    while !matches!(
        stopped.try_recv(),
        Err(std::sync::mpsc::TryRecvError::Disconnected)
    ) {
        look.tick().await;
        while events.try_next().is_some() {}
    }
    Ok(())
}
