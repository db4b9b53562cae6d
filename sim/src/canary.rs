//! Planted bugs: each breaks one rule on purpose, so that a checker that checks nothing is noticed.
//!
//! All of them sit in what the simulator itself provides around the code under test: the engine below the
//! records, the committer that drives them, the queues between shards, the clients. So the code under test is the
//! same, byte for byte, in a canary's run and in an honest one.

use std::fmt;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Canary {
    /// A Hello's cursor of another generation is taken for one of this.
    R3,
    /// Clients recognise what comes again by its message id alone.
    R3Repeat,
    /// A hand-over between shards is dropped and the next one still claims a complete interval.
    R4,
    /// The session hears that it is registered before its home has registered it.
    R5,
    /// The committer answers before it has synced.
    R8,
    /// After a restart, stamps continue behind the newest inbox entry instead of the reserved ceiling.
    R9,
    /// The answers to earlier sends are not found.
    R12,
    /// A late registration with a lower connect counter wins.
    R13,
    /// The devices of a user do not belong to the read set of a send.
    R14,
    /// A batch goes on behind a retryable failure.
    R16,
    /// A Hello's cursor clears the inbox by a door of its own, without receipts.
    R18,
    /// The server acknowledges what the client has not.
    R19,
    /// A receipt is written without a look at how far it was.
    R20,
    /// A suspended device goes on getting entries.
    R21,
    /// The notes of which devices got entries are lost.
    R25,
    /// Every minute's stamp is taken for the newest one's.
    R25Early,
    /// Nobody is told of what expired before a session began.
    R25Gap,
}

impl Canary {
    /// Every one.
    pub const ALL: [Self; 17] = [
        Self::R3,
        Self::R3Repeat,
        Self::R4,
        Self::R5,
        Self::R8,
        Self::R9,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R16,
        Self::R18,
        Self::R19,
        Self::R20,
        Self::R21,
        Self::R25,
        Self::R25Early,
        Self::R25Gap,
    ];

    /// By name, as `r4` or `R4`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let is_named = |canary: &Self| canary.to_string().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(is_named)
    }
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
