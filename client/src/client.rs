//! The application's side: a handle to give orders, a stream of events.

use std::sync::Arc;

use bytes::Bytes;
use roadstead_proto::{ChatId, DeviceId, Position};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::driver::{Command, Driver, Submission};
use crate::error::{ClientError, SendError};
use crate::event::{Confirmation, Event};
use crate::journal::{Record, Saved};
use crate::session::{Now, Session, Settings};
use crate::transport::Tls;

/// Events that wait in the channel. More wait in the driver, which then stops reading from the
/// server: pressure runs back to where it comes from.
const EVENTS_BUFFERED: usize = 32;
/// Orders that wait for the driver.
const COMMANDS_BUFFERED: usize = 64;

/// What the client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// A connection is being made.
    Connecting,
    /// A session is open.
    Active,
    /// The last attempt failed or the session was lost; another will be made.
    Waiting,
    /// The client does nothing any more.
    Stopped,
}

/// A handle to a running client. Clones are the same client.
#[derive(Debug, Clone)]
pub struct Client {
    submissions: mpsc::Sender<Submission>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
    device: DeviceId,
}

/// What happens, in order. Keep reading: a client whose events are not read stops reading from the
/// server. Dropping it stops the client.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event; `None` once the client has stopped and everything was read. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The next event if there is one.
    pub fn try_next(&mut self) -> Option<Event> {
        self.events.try_recv().ok()
    }
}

impl Client {
    /// Starts a client. It connects by itself; the first event says how that went.
    ///
    /// # Errors
    /// [`ClientError`] if the configuration or the journal is no good. That a server can not be
    /// reached is no error: it may be, later.
    pub async fn connect(config: Config) -> Result<(Self, Events), ClientError> {
        let Some(credentials) = config.credentials else {
            return Err(ClientError::Config("there is no token".into()));
        };
        let tls = Tls::new(config.trust)?;
        let mut journal = config.journal;
        let mut fresh = Vec::new();
        let mut saved = journal.load()?;
        let now = Driver::now();
        name_device(&saved, &mut fresh, config.device, now, &tls)?;
        fresh.iter().for_each(|record| saved.apply(record));
        if !fresh.is_empty() {
            journal.append(&fresh)?;
        }
        let device = saved.device.expect("named above");
        let settings = Settings {
            reconnect_min: config.reconnect_min,
            reconnect_max: config.reconnect_max,
            send_deadline_ms: u32::try_from(config.send_deadline.as_millis()).unwrap_or(u32::MAX),
            keep_unconfirmed: config.keep_unconfirmed,
            jitter_seed: u64::from_be_bytes(tls.random()),
        };
        let (submissions, submissions_out) = mpsc::channel(COMMANDS_BUFFERED);
        let (commands, commands_out) = mpsc::channel(COMMANDS_BUFFERED);
        let (events_in, events) = mpsc::channel(EVENTS_BUFFERED);
        let (status_in, status) = watch::channel(Status::Connecting);
        let driver = Driver::new(
            Session::new(now, settings, saved),
            journal,
            tls,
            config.servers,
            config.server_name,
            Arc::clone(&credentials),
            (submissions_out, commands_out, events_in, status_in),
        );
        tokio::spawn(driver.run());
        let client = Self {
            submissions,
            commands,
            status,
            device,
        };
        Ok((client, Events { events }))
    }

    /// The device of this installation.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// Puts a message into a chat. Returns its number once the journal holds it: from then on it is
    /// sent until the server confirms it, which [`Event::SendConfirmed`] tells, and known by this number in
    /// every event. Never waits for the network.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was sent. [`ClientError::OutboxFull`] (1,024 messages are unconfirmed),
    /// [`ClientError::ChatFull`] (128 wait for a chat that takes none, or 512 for all such chats) and
    /// [`ClientError::NumbersUnknown`] pass.
    pub async fn send(&self, chat: ChatId, payload: impl Into<Bytes>) -> Result<u64, ClientError> {
        self.submit(chat, payload.into(), None).await
    }

    /// Puts a message into a chat and waits until the server has committed it, which may take days if the chat
    /// takes nothing. Somebody must read [`Events`] meanwhile. Dropping the future does not take the message
    /// back.
    ///
    /// # Errors
    /// [`ClientError`] if nothing was sent, as from [`send`](Self::send); inside, [`SendError`] if the message was given up.
    pub async fn send_confirmed(
        &self,
        chat: ChatId,
        payload: impl Into<Bytes>,
    ) -> Result<Result<Confirmation, SendError>, ClientError> {
        let (waiter, answer) = oneshot::channel();
        self.submit(chat, payload.into(), Some(waiter)).await?;
        Ok(answer.await.unwrap_or(Err(SendError::Stopped)))
    }

    async fn submit(
        &self,
        chat: ChatId,
        payload: Bytes,
        waiter: Option<oneshot::Sender<Result<Confirmation, SendError>>>,
    ) -> Result<u64, ClientError> {
        let (reply, answer) = oneshot::channel();
        let submission = Submission {
            chat,
            payload,
            reply,
            waiter,
        };
        self.submissions
            .send(submission)
            .await
            .map_err(|_| ClientError::Stopped)?;
        answer.await.map_err(|_| ClientError::Stopped)?
    }

    /// Takes a message back that is not sent yet, or waits because its chat takes nothing
    /// ([`Event::SendDelayed`]): true if it is certain that it was not committed and never will be. Then
    /// [`Event::SendFailed`] says so, too. False if the server may have it, or there is no such message: what
    /// became of it an event tells, or has told.
    ///
    /// # Errors
    /// [`ClientError::Stopped`]: the message may be in the journal still.
    pub async fn take_back(&self, number: u64) -> Result<bool, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.command(Command::TakeBack(number, reply)).await?;
        answer.await.map_err(|_| ClientError::Stopped)
    }

    /// Says that everything up to the cursor is stored durably, as [`Event::stored`] does for one
    /// event.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn ack(&self, cursor: Position) -> Result<(), ClientError> {
        self.command(Command::StoredUpTo(cursor)).await
    }

    /// Says that the user has seen the chat up to the position of a message of somebody else: blue tick. A mark
    /// at the position of an own message waits until an entry behind it has come.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn read(&self, chat: ChatId, position: Position) -> Result<(), ClientError> {
        self.command(Command::Read(chat, position)).await
    }

    /// Says that the user is typing. Lost without harm if there is no session.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn typing(&self, chat: ChatId) -> Result<(), ClientError> {
        self.command(Command::Typing(chat)).await
    }

    /// Says that the device has changed networks: the connection moves to a new socket at once, or,
    /// if there is none, one is tried without further delay.
    ///
    /// # Errors
    /// [`ClientError::Stopped`].
    pub async fn network_changed(&self) -> Result<(), ClientError> {
        self.command(Command::NetworkChanged).await
    }

    /// Acknowledges what is stored, closes the session and stops. Unconfirmed messages stay in the
    /// journal for the next start.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        if self.command(Command::ShutDown(done)).await.is_ok() {
            let _ = finished.await;
        }
    }

    async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.commands
            .send(command)
            .await
            .map_err(|_| ClientError::Stopped)
    }

    /// What the client is doing now.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Waits until a session is open.
    ///
    /// # Errors
    /// [`ClientError::Stopped`] if there will be none.
    pub async fn wait_active(&self) -> Result<(), ClientError> {
        let mut status = self.status.clone();
        let reached = status
            .wait_for(|status| matches!(status, Status::Active | Status::Stopped))
            .await
            .map(|status| *status);
        match reached {
            Ok(Status::Active) => Ok(()),
            _ => Err(ClientError::Stopped),
        }
    }
}

/// Decides which device this is, once.
fn name_device(
    saved: &Saved,
    fresh: &mut Vec<Record>,
    wanted: Option<DeviceId>,
    now: Now,
    tls: &Tls,
) -> Result<(), ClientError> {
    match (saved.device, wanted) {
        (Some(device), Some(wanted)) if device != wanted => Err(ClientError::Config(format!(
            "the journal is of device {device:?}, not {wanted:?}"
        ))),
        (Some(_), _) => Ok(()),
        // Earlier lives of this device may have used numbers, and counted connections: the server is
        // asked for the numbers, and time is ahead of the count.
        (None, Some(device)) => {
            fresh.extend([Record::Device(device), Record::Connect(now.unix_ms)]);
            Ok(())
        }
        (None, None) => {
            fresh.extend([Record::Device(random_device(tls)), Record::Numbers(0)]);
            Ok(())
        }
    }
}

fn random_device(tls: &Tls) -> DeviceId {
    loop {
        if let Ok(device) = DeviceId::new(u32::from_be_bytes(tls.random())) {
            return device;
        }
    }
}
