//! Read positions (R20).

use roadstead::store::{Grown, MarkRead};

use crate::txn::Txn;

use super::receipts::{self, Audience};
use super::{RecordError, Scope};

/// Carries out [`roadstead::store::Command::MarkRead`]: the peer and the reader's other devices learn of
/// it, if it advances.
///
/// # Errors
/// [`roadstead::store::StoreError::CursorInvalid`] if the position lies beyond everything committed.
pub async fn mark<T: Txn>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    mark: &MarkRead,
) -> Result<Vec<Grown>, RecordError> {
    let mut grown = Vec::new();
    let Some(peer) = mark.chat.peer_of(mark.user) else {
        return Ok(grown);
    };
    if !scope.is_of_the_past(mark.position)? {
        return Ok(grown);
    }
    let mut receipt = receipts::load(scope, txn, mark.chat, mark.user).await?;
    if mark.position <= receipt.read {
        return Ok(grown);
    }
    receipt.read = mark.position;
    // What is read has been delivered.
    receipt.delivered = receipt.delivered.max(mark.position);
    let of = (mark.chat, mark.user, peer);
    let audience = Audience::PeerAndOthersThan((mark.user, mark.device));
    receipts::advance(scope, txn, of, receipt, audience, &mut grown).await?;
    Ok(grown)
}
