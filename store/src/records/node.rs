//! `n/<node>`: the lease of a node, and the ceiling under which its message ids lie (R24).

use bytes::{BufMut, Bytes};
use roadstead::store::StoreError;

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
/// [`StoreError::Unavailable`] if another incarnation holds the lease.
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
    lease.ids_below_ms = until_ms.max(from.saturating_add(ID_BLOCK_MS_MIN));
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

    #[test]
    fn r24_a_ceiling_without_room_above_it_reserves_nothing_and_does_not_wrap() {
        let engine = with_lease(Lease {
            incarnation: 1,
            ids_below_ms: u64::MAX - 1,
        });
        let block = ready(reserve_ids(&mut engine.begin(), (0, 1), 5));
        assert_eq!(block, Ok((u64::MAX - 1, u64::MAX)));
    }
}
