//! What a process itself asks of its store, whatever the engine: rare, and each a commit of its own.

use std::sync::{Arc, OnceLock};

use crossbeam_channel::Sender;
use roadstead::Ended;
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
    /// Of tokens issued before this Unix time in seconds.
    SignOut(UserId, u64, Answer<bool>),
}

/// Hears what the store has ended, once that is committed: called by threads of the store, and must not block.
pub type Ends = Arc<dyn Fn(Ended) + Send + Sync>;

/// Who hears it, if anybody does.
#[derive(Default)]
pub(crate) struct EndsTo(OnceLock<Ends>);

impl EndsTo {
    /// From now on this one. There is one listener for the life of a store.
    pub(crate) fn set(&self, ends: Ends) {
        assert!(self.0.set(ends).is_ok(), "one listener for each store");
    }

    pub(crate) fn tell(&self, ended: Ended) {
        if let Some(ends) = self.0.get() {
            ends(ended);
        }
    }
}

impl Admin {
    /// Answers that the engine does not serve.
    pub(crate) fn refuse(self) {
        let error = StoreError::Unavailable;
        match self {
            Self::ReserveMessageIds(_, answer) => tell(&answer, Err(error)),
            Self::StampMinute(_, answer)
            | Self::RemoveDevice(_, _, answer)
            | Self::SignOut(_, _, answer) => {
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
