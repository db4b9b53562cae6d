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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossbeam_channel::bounded;
    use roadstead::ShardId;
    use roadstead::store::{Command, OpenDevice, Request, RequestId};
    use roadstead::time::Time;
    use roadstead_proto::Position;

    use super::super::committer::Job;
    use super::super::{EmbeddedConfig, EmbeddedLimits, EmbeddedStore};
    use super::*;
    use crate::admin::Admin;

    const T0: u64 = 1_800_000_000_000;
    const DAY: u64 = 24 * 60 * 60_000;

    fn opening() -> Request {
        let open = OpenDevice {
            user: UserId::new(1).expect("not 0"),
            device: DeviceId::new(1).expect("not 0"),
            cursor: Position::ZERO,
            want_highest_number: false,
            unix_ms: 0,
            issued_s: 0,
        };
        Request {
            id: RequestId(1),
            command: Command::OpenDevice(open),
        }
    }

    /// D-F2: a store that stops does not wait for the job, which takes as long as it takes.
    #[test]
    fn df2_r25_a_store_that_stops_ends_the_expiry() {
        let folder = tempfile::tempdir().expect("a folder");
        // Every batch asks for the time first, and waits there for as long as the gate is shut.
        let (gate, shut) = bounded::<()>(0);
        let config = EmbeddedConfig {
            path: folder.path().to_path_buf(),
            node: 1,
            placement_key: [7; 16],
            clock: Arc::new(move || {
                let _ = shut.recv();
                Time::ZERO
            }),
            limits: EmbeddedLimits {
                reserve_bytes_max: 0,
                ..EmbeddedLimits::default()
            },
        };
        let store = EmbeddedStore::open(config, Arc::new(|_, _| {})).expect("opens");
        let handle = store.handle();
        assert_eq!(handle.stamp_minute(T0), Ok(true));
        for _ in 0..2 {
            let _ = handle.stamp_minute(T0 + 33 * DAY);
        }
        let (answer, answered) = bounded(1);
        let jobs = [
            Job::Requests(ShardId(0), vec![opening()]),
            Job::Admin(Admin::Expire(None, answer)),
            Job::Stop,
        ];
        for job in jobs {
            store.handle.0.jobs.send(job).expect("it serves");
        }
        // No piece of the job was done before the store was to stop.
        drop(gate);
        assert_eq!(answered.recv(), Ok(Err(StoreError::Unavailable)));
        store.stop();
    }
}
