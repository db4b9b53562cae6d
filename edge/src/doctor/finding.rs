//! What a check says.

use serde::Serialize;

/// How bad it is. Ordered from harmless to fatal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// As wanted.
    Ok,
    /// Cannot be told, or is a matter of taste.
    Note,
    /// Works, and costs speed, memory or messages under load.
    Warning,
    /// The server will not start, or will not hold that many sessions.
    Failure,
}

/// One check's answer. `wanted`, `why` and `fix` say enough to act on without another page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// A stable name, for programs.
    pub(crate) check: &'static str,
    pub(crate) severity: Severity,
    pub(crate) found: String,
    pub(crate) wanted: String,
    pub(crate) why: &'static str,
    /// A command, or what to buy. Empty if nothing is wrong.
    pub(crate) fix: String,
}

/// What is wanted of one thing, and why.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    pub(crate) check: &'static str,
    pub(crate) wanted: String,
    pub(crate) why: &'static str,
}

impl Want {
    pub(crate) fn new(check: &'static str, wanted: impl Into<String>, why: &'static str) -> Self {
        let wanted = wanted.into();
        Self { check, wanted, why }
    }

    /// It is as wanted.
    pub(crate) fn ok(self, found: impl Into<String>) -> Finding {
        self.finding(Severity::Ok, found, "")
    }

    /// It cannot be told, or does not matter much.
    pub(crate) fn note(self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.finding(Severity::Note, found, fix)
    }

    /// It costs something.
    pub(crate) fn warning(self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.finding(Severity::Warning, found, fix)
    }

    /// It will not work.
    pub(crate) fn failure(self, found: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.finding(Severity::Failure, found, fix)
    }

    /// At least `least` is wanted of a number; less is a warning.
    pub(crate) fn at_least(
        self,
        found: Option<u64>,
        least: u64,
        fix: impl Into<String>,
    ) -> Finding {
        match found {
            None => self.note("cannot be read", ""),
            Some(value) if value >= least => self.ok(super::grouped(value)),
            Some(value) => self.warning(super::grouped(value), fix),
        }
    }

    fn finding(
        self,
        severity: Severity,
        found: impl Into<String>,
        fix: impl Into<String>,
    ) -> Finding {
        Finding {
            check: self.check,
            severity,
            found: found.into(),
            wanted: self.wanted,
            why: self.why,
            fix: fix.into(),
        }
    }
}
