//! What a process itself asks of its store, whatever the engine: rare, and each a commit of its own.

use crossbeam_channel::Sender;
use roadstead::store::StoreError;
use roadstead_proto::{DeviceId, MessageId, UserId};

use crate::records::expiry::Expired;

/// Where the answer goes.
pub(crate) type Answer<R> = Sender<Result<R, StoreError>>;

/// A command of the process itself.
#[derive(Debug)]
pub(crate) enum Admin {
    /// Until this Unix time in ms.
    ReserveMessageIds(u64, Answer<(u64, u64)>),
    /// At this Unix time in ms.
    StampMinute(u64, Answer<bool>),
    /// By the store's own time, unless the day of the cut has been done.
    Expire(Option<u32>, Answer<Expired>),
    /// For good.
    RemoveDevice(UserId, DeviceId, Answer<bool>),
}

impl Admin {
    /// Answers that the engine does not serve.
    pub(crate) fn refuse(self) {
        let error = StoreError::Unavailable;
        match self {
            Self::ReserveMessageIds(_, answer) => tell(&answer, Err(error)),
            Self::StampMinute(_, answer) | Self::RemoveDevice(_, _, answer) => {
                tell(&answer, Err(error));
            }
            Self::Expire(_, answer) => tell(&answer, Err(error)),
        }
    }
}

/// Answers. Who asked may be gone.
pub(crate) fn tell<R>(answer: &Answer<R>, result: Result<R, StoreError>) {
    let _ = answer.send(result);
}

/// A Unix time in ms as message ids count it.
pub(crate) fn since_epoch(unix_ms: u64) -> u64 {
    unix_ms.saturating_sub(MessageId::EPOCH_UNIX_MS)
}
