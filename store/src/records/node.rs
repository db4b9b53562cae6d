//! `n/<node>`: the lease of a node, and the ceiling under which its message ids lie (R24).

use bytes::{BufMut, Bytes};
use roadstead::store::StoreError;
use roadstead_proto::MessageId;

use crate::keys::Keys;
use crate::txn::{Read, Txn};

use super::codec::{Parts, finish, value};
use super::{RecordError, read};

const VERSION: u8 = 1;

/// The shortest block of message ids, so that a clock that was set back still gets one.
pub const ID_BLOCK_MS_MIN: u64 = 1_000;

/// Who holds a node number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lease {
    /// Grows with every holder. Every commit reads it (R24).
    pub incarnation: u64,
    /// Message ids of milliseconds below this may be in use, since the epoch of message ids.
    pub ids_below_ms: u64,
}

impl Lease {
    pub(crate) fn encode(self) -> Bytes {
        let mut value = value(VERSION, 16);
        value.put_u64(self.incarnation);
        value.put_u64(self.ids_below_ms);
        finish(value)
    }

    pub(crate) fn decode(value: &[u8]) -> Option<Self> {
        let mut parts = Parts::of(value, VERSION)?;
        let incarnation = parts.u64()?;
        let ids_below_ms = parts.u64()?;
        // The next holder needs a next incarnation: nobody restarts that often.
        let damaged = incarnation == u64::MAX;
        let lease = Self {
            incarnation,
            ids_below_ms,
        };
        parts.end(lease).filter(|_| !damaged)
    }
}

/// The lease of a node.
///
/// # Errors
/// If it can not be read.
pub async fn load<T: Txn>(txn: &mut T, node: u16) -> Result<Lease, RecordError> {
    let lease = read(txn, &Keys::node(node), Read::Serializable, Lease::decode).await?;
    Ok(lease.unwrap_or_default())
}

/// Takes over a node number: whoever held it before can commit no more.
///
/// # Errors
/// If the lease can not be read.
pub async fn take<T: Txn>(txn: &mut T, node: u16) -> Result<Lease, RecordError> {
    let mut lease = load(txn, node).await?;
    lease.incarnation += 1;
    txn.set(&Keys::node(node), lease.encode());
    Ok(lease)
}

/// Reserves message ids up to `until_ms`, and at least [`ID_BLOCK_MS_MIN`] of them: a block above every
/// one that was reserved under this node number before (R24).
///
/// # Errors
/// [`StoreError::Unavailable`] if another incarnation holds the lease, or if this block would lie beyond the last id
/// ([`MessageId::MS_END`]): then the clock of a server under this number was wrong, and nothing is written.
pub async fn reserve_ids<T: Txn>(
    txn: &mut T,
    (node, incarnation): (u16, u64),
    until_ms: u64,
) -> Result<(u64, u64), RecordError> {
    let mut lease = load(txn, node).await?;
    if lease.incarnation != incarnation {
        return Err(StoreError::Unavailable.into());
    }
    let from = lease.ids_below_ms;
    let until_ms = until_ms.max(from.saturating_add(ID_BLOCK_MS_MIN));
    if until_ms > MessageId::MS_END {
        tracing::error!(
            node,
            "no message ids are left before 2094: the clock is wrong, or was"
        );
        return Err(StoreError::Unavailable.into());
    }
    lease.ids_below_ms = until_ms;
    txn.set(&Keys::node(node), lease.encode());
    Ok((from, lease.ids_below_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryEngine;
    use crate::txn::ready;

    fn with_lease(lease: Lease) -> MemoryEngine {
        let engine = MemoryEngine::new();
        let mut txn = engine.begin();
        txn.set(&Keys::node(0), lease.encode());
        ready(txn.commit()).expect("commits");
        engine
    }

    #[test]
    fn an_incarnation_without_a_next_one_is_damage() {
        let engine = with_lease(Lease {
            incarnation: u64::MAX,
            ids_below_ms: 0,
        });
        let refused = Err(RecordError::Refused(StoreError::Corrupt));
        assert_eq!(ready(take(&mut engine.begin(), 0)), refused);
    }

    /// D-F7: the ceiling of ids was raised for good by a wrong clock, beyond what an id can name.
    #[test]
    fn df7_r24_ids_beyond_the_last_are_refused_and_raise_no_ceiling() {
        let refused = Err(RecordError::Refused(StoreError::Unavailable));
        for ids_below_ms in [MessageId::MS_END, u64::MAX - 1] {
            let engine = with_lease(Lease {
                incarnation: 1,
                ids_below_ms,
            });
            let block = ready(reserve_ids(&mut engine.begin(), (0, 1), 5));
            assert_eq!(block, refused);
        }
        let engine = with_lease(Lease {
            incarnation: 1,
            ids_below_ms: 5,
        });
        let mut txn = engine.begin();
        let block = ready(reserve_ids(&mut txn, (0, 1), MessageId::MS_END + 1));
        assert_eq!(block, refused);
        let block = ready(reserve_ids(&mut txn, (0, 1), MessageId::MS_END));
        assert_eq!(block, Ok((5, MessageId::MS_END)));
    }
}
