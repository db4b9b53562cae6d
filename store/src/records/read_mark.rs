//! Read positions (R20).

use roadstead::store::{Grown, MarkRead, StoreError};

use crate::txn::Txn;

use super::receipts::{self, Audience};
use super::{RecordError, Scope, versions};

/// Carries out [`roadstead::store::Command::MarkRead`]: the peer and the reader's other devices learn of
/// it, if it advances. A mark reaches as far as something was delivered to a device of the reader, and where
/// nothing ever was there is nothing to mark: nobody writes into the inbox of a stranger by it.
///
/// # Errors
/// [`StoreError::DeviceRemoved`]: the device has nothing to say any more. [`StoreError::CursorInvalid`]: a note to
/// oneself beyond everything committed.
pub async fn mark<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    mark: &MarkRead,
) -> Result<Vec<Grown>, RecordError> {
    let mut grown = Vec::new();
    let Some(peer) = mark.chat.peer_of(mark.user) else {
        return Ok(grown);
    };
    let listed = versions::load(scope, txn, mark.user).await?;
    if listed.is_none_or(|user| user.device(mark.device).is_none()) {
        return Err(StoreError::DeviceRemoved.into());
    }
    let mut receipt = receipts::load(scope, txn, mark.chat, mark.user).await?;
    let position = if peer != mark.user {
        mark.position.min(receipt.delivered)
    } else if scope.is_of_the_past(mark.position)? {
        // Notes to oneself have no receipts of delivery, and concern nobody else.
        mark.position
    } else {
        return Ok(grown);
    };
    if position <= receipt.read {
        return Ok(grown);
    }
    receipt.read = position;
    let of = (mark.chat, mark.user, peer);
    let audience = Audience::PeerAndOthersThan((mark.user, mark.device));
    receipts::advance(scope, txn, of, receipt, audience, &mut grown).await?;
    Ok(grown)
}
