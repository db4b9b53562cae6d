//! One command among several of a transaction: what it wrote stays only if it is carried out.

use roadstead::store::{Command, Grown, InboxLimits, SendItem, Sent, StoreError};

use crate::txn::{Shared, TxnError};

use super::command::{self, Done};
use super::{Device, RecordError, Scope, send};

/// The answer to a send that was carried out, and the inboxes that grew by it.
pub type Answered = (Result<Sent, StoreError>, Vec<Grown>);

/// Carries out one command; a refusal leaves nothing.
///
/// # Errors
/// The transaction can not go on with this command, and it left nothing either.
pub async fn command<T: Shared>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    command: &Command,
) -> Result<Result<Done, StoreError>, TxnError> {
    attempt(scope, txn, async |scope, txn| {
        command::run(scope, txn, command).await
    })
    .await
}

/// Commits one message; a refusal leaves nothing but an answer that is kept (R12).
///
/// # Errors
/// As [`command`].
pub async fn send<T: Shared>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    sender: Device,
    limits: InboxLimits,
    item: &SendItem,
) -> Result<Result<Answered, StoreError>, TxnError> {
    attempt(scope, txn, async |scope, txn| {
        send::send(scope, txn, sender, limits, item).await
    })
    .await
}

/// Carries out anything that may share a transaction; a refusal leaves nothing.
///
/// # Errors
/// As [`command`].
pub async fn attempt<T: Shared, R>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    run: impl AsyncFnOnce(&mut Scope<'_>, &mut T) -> Result<R, RecordError>,
) -> Result<Result<R, StoreError>, TxnError> {
    begin(scope, txn);
    let result = run(scope, txn).await;
    settle(scope, txn, result)
}

fn begin<T: Shared>(scope: &mut Scope<'_>, txn: &mut T) {
    txn.savepoint();
    scope.knowledge.keep_notes();
}

fn settle<T: Shared, R>(
    scope: &mut Scope<'_>,
    txn: &mut T,
    result: Result<R, RecordError>,
) -> Result<Result<R, StoreError>, TxnError> {
    let settled = match (result, txn.error()) {
        (Ok(result), None) => return Ok(Ok(result)),
        (Err(RecordError::Refused(error)), _) => Ok(Err(error)),
        (Err(RecordError::Txn(error)), _) | (Ok(_), Some(error)) => Err(error),
    };
    txn.rollback();
    scope.knowledge.take_back_notes();
    settled
}
