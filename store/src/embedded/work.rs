//! Work that goes on between the commands of shards: a piece of it in each batch, so that it holds nobody up and
//! costs no sync of its own while others commit.

use roadstead::store::StoreError;
use roadstead_proto::{DeviceId, UserId};

use crate::admin::{Answer, tell};
use crate::records::expiry::{self, Budget, Expired, Progress};
use crate::records::{RecordError, Scope, device};

use super::batch::BatchTxn;

/// Work that was begun and is not done.
#[derive(Debug)]
pub(crate) enum Work {
    /// Entries are removed by age.
    Expire {
        progress: Progress,
        answer: Answer<Expired>,
    },
    /// What a removed device has left is cleaned away.
    Clean {
        device: (UserId, DeviceId),
        answer: Answer<bool>,
    },
}

/// What a piece of it came to.
#[derive(Debug)]
pub(crate) enum Piece {
    Expired(Progress),
    Cleaned { more: bool },
}

impl Work {
    /// Does a piece.
    pub(crate) async fn step(
        &self,
        scope: &mut Scope<'_>,
        txn: &mut BatchTxn<'_>,
    ) -> Result<Piece, RecordError> {
        match self {
            Self::Expire { progress, .. } => {
                let progress = expiry::step(scope, txn, *progress, Budget::OF_A_BATCH).await?;
                Ok(Piece::Expired(progress))
            }
            Self::Clean { device, .. } => {
                let more = device::clean(scope, txn, *device).await?;
                Ok(Piece::Cleaned { more })
            }
        }
    }

    /// A piece is durable: the rest, or nothing if it is done and answered.
    pub(crate) fn keep(self, piece: Piece) -> Option<Self> {
        match (self, piece) {
            (Self::Expire { answer, .. }, Piece::Expired(progress)) if progress.is_done() => {
                tell(&answer, Ok(progress.result()));
                None
            }
            (Self::Expire { answer, .. }, Piece::Expired(progress)) => {
                Some(Self::Expire { progress, answer })
            }
            (Self::Clean { answer, .. }, Piece::Cleaned { more: false }) => {
                tell(&answer, Ok(true));
                None
            }
            (work, _) => Some(work),
        }
    }

    /// Answers that it is not done.
    pub(crate) fn refuse(self, error: StoreError) {
        match self {
            Self::Expire { answer, .. } => tell(&answer, Err(error)),
            Self::Clean { answer, .. } => tell(&answer, Err(error)),
        }
    }
}
