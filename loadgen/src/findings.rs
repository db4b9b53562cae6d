//! What a run found to be wrong: counted by kind, the first of each kind in detail.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What can be wrong with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Acknowledged, and a device did not get it.
    Lost,
    /// A device got it twice.
    Duplicated,
    /// A device got it after something that comes later in the chat or inbox, or was acknowledged out
    /// of order.
    Reordered,
    /// Sent, and neither acknowledged nor refused.
    Unacknowledged,
    /// Sent, and refused for good.
    Refused,
    /// Arrived with other bytes than were sent.
    Damaged,
    /// Given to a device that is no party to it.
    Misdelivered,
    /// Two answers, or an answer and a delivery, name different ids or positions (R1, R12).
    Contradicted,
    /// A receipt that did not come.
    ReceiptMissing,
    /// A receipt for what nobody received or read, or one that went back (R20).
    ReceiptFalse,
    /// The server said that it did not keep entries (R21).
    Gap,
    /// Bytes or frames that a server must not send.
    ProtocolBroken,
    /// Something reached a session to which nobody had sent anything.
    SilenceBroken,
    /// A server that was asked to end dropped a session without a GoAway.
    NoGoAway,
    /// A session that was not established.
    SessionFailed,
    /// A session that was established and was not there at the end.
    SessionLost,
    /// A session whose connection was lost while it was to be held.
    SessionCut,
    /// Delivered later than the run allows.
    Late,
    /// An attack that no counter of the server refused.
    NotRefused,
    /// The edge that the demo started did not end as it should.
    EdgeExit,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Reordered => "reordered",
            Self::Unacknowledged => "unacknowledged",
            Self::Refused => "refused",
            Self::Damaged => "damaged",
            Self::Misdelivered => "misdelivered",
            Self::Contradicted => "contradicted",
            Self::ReceiptMissing => "receipt missing",
            Self::ReceiptFalse => "receipt false",
            Self::Gap => "gap",
            Self::ProtocolBroken => "protocol broken",
            Self::SilenceBroken => "silence broken",
            Self::NoGoAway => "no GoAway",
            Self::SessionFailed => "session failed",
            Self::SessionLost => "session lost",
            Self::SessionCut => "session cut",
            Self::Late => "late",
            Self::NotRefused => "not refused",
            Self::EdgeExit => "edge exit",
        }
    }
}

/// Everything found, in bounded space.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    kinds: BTreeMap<Kind, Found>,
    details_max: usize,
}

/// What was found of one kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) count: u64,
    /// The first of them in words.
    pub(crate) details: Vec<String>,
    /// Of a run on many machines, who found how many.
    pub(crate) by_agent: BTreeMap<String, u64>,
}

impl Findings {
    /// Keeps the first `details_max` of each kind in words.
    pub(crate) fn new(details_max: usize) -> Self {
        Self {
            kinds: BTreeMap::new(),
            details_max,
        }
    }

    pub(crate) fn add(&mut self, kind: Kind, detail: impl fmt::Display) {
        let found = self.kinds.entry(kind).or_default();
        found.count += 1;
        if found.details.len() < self.details_max {
            found.details.push(detail.to_string());
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (kind, theirs) in &other.kinds {
            let ours = self.kinds.entry(*kind).or_default();
            ours.count += theirs.count;
            let room = self.details_max.saturating_sub(ours.details.len());
            let details = theirs.details.iter().take(room);
            ours.details.extend(details.cloned());
            for (agent, count) in &theirs.by_agent {
                *ours.by_agent.entry(agent.clone()).or_default() += count;
            }
        }
    }

    /// All of these are from one machine of many.
    pub(crate) fn attribute(&mut self, agent: &str) {
        for found in self.kinds.values_mut() {
            found.by_agent = BTreeMap::from([(agent.to_owned(), found.count)]);
            for detail in &mut found.details {
                *detail = format!("{agent}: {detail}");
            }
        }
    }

    /// Of all kinds together.
    pub(crate) fn total(&self) -> u64 {
        self.kinds.values().map(|found| found.count).sum()
    }

    pub(crate) fn count(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).map_or(0, |found| found.count)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// By kind, worst first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Kind, &Found)> {
        self.kinds.iter().map(|(kind, found)| (*kind, found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_the_first_are_told() {
        let mut findings = Findings::new(2);
        for n in 0..5 {
            findings.add(Kind::Lost, format_args!("message {n}"));
        }
        let mut more = Findings::new(2);
        more.add(Kind::Lost, "another");
        more.add(Kind::Gap, "a gap");
        findings.merge(&more);
        assert_eq!(findings.count(Kind::Lost), 6);
        let all: Vec<_> = findings.iter().map(|(_, found)| &found.details).collect();
        assert_eq!(all[0], &["message 0", "message 1"]);
        assert_eq!(all[1], &["a gap"]);
        assert!(!findings.is_empty());
        assert_eq!(findings.total(), 7);
    }

    #[test]
    fn it_is_told_which_machine_found_what() {
        let machine = |name, lost| {
            let mut findings = Findings::new(9);
            (0..lost).for_each(|n| findings.add(Kind::Lost, format_args!("message {n}")));
            findings.attribute(name);
            findings
        };
        let mut all = machine("a:1", 2);
        all.merge(&machine("b:2", 1));
        let (_, found) = all.iter().next().expect("one kind");
        assert_eq!((found.by_agent["a:1"], found.by_agent["b:2"]), (2, 1));
        assert_eq!(found.details[2], "b:2: message 0");
    }
}
