//! What the client library's errors mean here.

use std::path::PathBuf;

use ::foundationdb::FdbError;
use thiserror::Error;

use crate::records::RecordError;
use crate::txn::TxnError;

/// Why a store on FoundationDB can not be opened.
#[derive(Debug, Error)]
pub enum FoundationError {
    /// The client was started before in this process; the library allows it once.
    #[error("the FoundationDB client can be started only once in a process")]
    NetworkTwice,
    /// The cluster file can not be read.
    #[error("the cluster file {0} cannot be read: {1}")]
    ClusterFile(PathBuf, std::io::Error),
    /// The client library or the cluster refused.
    #[error("FoundationDB: {} (error {})", .0.message(), .0.code())]
    Client(FdbError),
    /// The cluster did not answer in time.
    #[error("the FoundationDB cluster does not answer")]
    NoAnswer,
    /// The directory of the deployment can not be opened.
    #[error("the directory of the deployment cannot be opened: {0}")]
    Directory(String),
    /// A thread could not be started.
    #[error("a thread of the store cannot be started: {0}")]
    Thread(#[from] std::io::Error),
    /// What it holds can not be read.
    #[error("the store cannot be read: {0}")]
    Record(#[from] RecordError),
}

impl From<FdbError> for FoundationError {
    fn from(error: FdbError) -> Self {
        Self::Client(error)
    }
}

/// Error codes of the client library that are told apart here; the rest is known by its predicates.
mod code {
    pub(super) const TRANSACTION_TOO_OLD: i32 = 1007;
    pub(super) const FUTURE_VERSION: i32 = 1009;
    pub(super) const NOT_COMMITTED: i32 = 1020;
    pub(super) const COMMIT_UNKNOWN_RESULT: i32 = 1021;
    pub(super) const TRANSACTION_CANCELLED: i32 = 1025;
    pub(super) const TRANSACTION_TIMED_OUT: i32 = 1031;
    pub(super) const ACCESSED_UNREADABLE: i32 = 1036;
    pub(super) const PROCESS_BEHIND: i32 = 1037;
    pub(super) const CLUSTER_VERSION_CHANGED: i32 = 1039;
    pub(super) const TRANSACTION_TOO_LARGE: i32 = 2101;
    pub(super) const KEY_TOO_LARGE: i32 = 2102;
    pub(super) const VALUE_TOO_LARGE: i32 = 2103;
}

/// The error of a read.
pub(crate) fn of_read(error: FdbError) -> TxnError {
    match error.code() {
        code::TRANSACTION_TOO_OLD | code::FUTURE_VERSION | code::PROCESS_BEHIND => TxnError::TooOld,
        code::KEY_TOO_LARGE => TxnError::TooLarge,
        code::ACCESSED_UNREADABLE => TxnError::Unreadable,
        _ => TxnError::Unavailable,
    }
}

/// The error of a commit. What is not known to have failed is unknown (R15): beside what the library
/// itself calls so, a commit that timed out or was cancelled may still arrive.
pub(crate) fn of_commit(error: FdbError) -> TxnError {
    match error.code() {
        code::NOT_COMMITTED => TxnError::Conflict,
        code::TRANSACTION_TOO_OLD | code::FUTURE_VERSION | code::PROCESS_BEHIND => TxnError::TooOld,
        code::TRANSACTION_TOO_LARGE | code::KEY_TOO_LARGE | code::VALUE_TOO_LARGE => {
            TxnError::TooLarge
        }
        code::COMMIT_UNKNOWN_RESULT
        | code::CLUSTER_VERSION_CHANGED
        | code::TRANSACTION_TIMED_OUT
        | code::TRANSACTION_CANCELLED => TxnError::UnknownResult,
        _ if error.is_maybe_committed() => TxnError::UnknownResult,
        _ => TxnError::Unavailable,
    }
}

/// Stands for a failure that the library did not report: it waits as after one that will pass.
pub(crate) fn retry_later() -> FdbError {
    FdbError::from_code(code::PROCESS_BEHIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r15_a_commit_that_may_have_arrived_is_unknown() {
        for code in [1021, 1025, 1031, 1039] {
            assert_eq!(
                of_commit(FdbError::from_code(code)),
                TxnError::UnknownResult
            );
        }
        assert_eq!(of_commit(FdbError::from_code(1020)), TxnError::Conflict);
        assert_eq!(of_commit(FdbError::from_code(2101)), TxnError::TooLarge);
    }

    #[test]
    fn a_read_that_failed_has_committed_nothing() {
        assert_eq!(of_read(FdbError::from_code(1007)), TxnError::TooOld);
        assert_eq!(of_read(FdbError::from_code(1031)), TxnError::Unavailable);
    }
}
