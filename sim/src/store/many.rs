//! The records driven as clients of FoundationDB drive them: transactions side by side, each evaluated at
//! its read version and committed later, if nobody wrote what it read (R14).
//!
//! What an engine on FoundationDB owes to the shards is done here: conflicts and old versions are tried
//! again, an unknown outcome is rebuilt at a fresh version (R15), and whoever an unknown attempt would
//! have told is told to look, because the rebuilt one finds its work done and tells nobody.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use roadstead::store::{Command, Completion, Grown, Outcome, Request, RequestId, StoreError};
use roadstead::time::Time;
use roadstead_store::records::{Knowledge, RecordError, Scope, attempt, resolve};
use roadstead_store::txn::{STAMP_INCOMPLETE, TxnError, ready};

use super::image::{Span, Writes};
use super::work::Work;
use super::{Base, Origin, Pending, Step, StoreEvent, stamp_bytes, step_sends, tap_of, tap_sends};
use crate::canary::Canary;
use crate::swarm::{Faults, Plan};

/// A transaction may be so old at its commit, as in FoundationDB.
const AGE_MAX: Duration = Duration::from_secs(5);

/// Commits remembered for the check of conflicts; a transaction older than all of them is too old.
const COMMITS_KEPT: usize = 4_096;

/// Devices that one transaction remembers to have noted.
const KNOWN_DEVICES: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub struct Many {
    /// What both drivers have.
    pub base: Base,
    faults: Faults,
    version: u64,
    /// What recent commits wrote, by version.
    written: VecDeque<(u64, Vec<Span>)>,
    open: BTreeMap<u64, Open>,
    numbered: u64,
    down_until: Time,
    /// Conflicts met: a run that has none tests little.
    pub conflicts: u64,
}

#[derive(Debug)]
struct Open {
    asked: Asked,
    attempt: Option<Attempt>,
    /// Who an unknown attempt may have concerned.
    hints: Vec<Grown>,
    /// An attempt has an unknown outcome: it is rebuilt, come what may.
    unknown: bool,
    /// The process that asked is gone: nobody goes on with this after the attempt under way.
    orphan: bool,
}

#[derive(Debug)]
enum Asked {
    One {
        origin: Origin,
        id: RequestId,
        command: Command,
        outcome: Result<Outcome, StoreError>,
    },
    Sends(Pending),
}

#[derive(Debug)]
struct Attempt {
    version: u64,
    at: Time,
    reads: Vec<Span>,
    writes: Writes,
}

impl Many {
    pub(super) fn new(base: Base, plan: &Plan) -> Self {
        Self {
            base,
            faults: plan.faults.clone(),
            version: 0,
            written: VecDeque::new(),
            open: BTreeMap::new(),
            numbered: 0,
            down_until: Time::ZERO,
            conflicts: 0,
        }
    }

    pub(super) fn submit(&mut self, step: &mut Step<'_>, origin: Origin, request: Request) {
        let Request { id, command } = request;
        let asked = match command {
            Command::Send(sends) => Asked::Sends(Pending::new(origin, id, sends)),
            command => {
                let outcome = Err(StoreError::Unavailable);
                Asked::One {
                    origin,
                    id,
                    command,
                    outcome,
                }
            }
        };
        self.numbered += 1;
        let open = Open {
            asked,
            attempt: None,
            hints: Vec::new(),
            unknown: false,
            orphan: false,
        };
        self.open.insert(self.numbered, open);
        self.evaluate_soon(step, self.numbered);
    }

    fn evaluate_soon(&self, step: &mut Step<'_>, number: u64) {
        let wait = step.takes(self.faults.store_delay);
        step.after(wait, StoreEvent::Evaluate(number));
    }

    pub(super) fn handle(&mut self, step: &mut Step<'_>, event: StoreEvent) {
        match event {
            StoreEvent::Evaluate(number) => {
                if let Some(open) = self.open.remove(&number) {
                    self.evaluate(step, number, open);
                }
            }
            StoreEvent::Commit(number) => {
                if let Some(open) = self.open.remove(&number) {
                    self.commit(step, number, open);
                }
            }
            _ => unreachable!("the other driver's"),
        }
    }

    fn evaluate(&mut self, step: &mut Step<'_>, number: u64, mut open: Open) {
        if open.orphan {
            return;
        }
        if step.now < self.down_until {
            if !open.unknown {
                return give_up(step, open);
            }
            self.open.insert(number, open);
            return self.evaluate_soon(step, number);
        }
        let mut work = Work::new(&self.base.image, None, self.base.lies);
        let mut knowledge = Knowledge::of_one_among_many(KNOWN_DEVICES);
        let mut scope = self.base.scope(STAMP_INCOMPLETE, &mut knowledge);
        let how = (step.now, self.base.canary);
        evaluate(&mut scope, &mut work, &mut open.asked, how);
        let (reads, writes) = work.finish();
        if writes.is_empty() {
            return self.conclude(step, number, open);
        }
        open.attempt = Some(Attempt {
            version: self.version,
            at: step.now,
            reads,
            writes,
        });
        self.open.insert(number, open);
        let wait = step.takes(self.faults.store_delay);
        step.after(wait, StoreEvent::Commit(number));
    }

    fn commit(&mut self, step: &mut Step<'_>, number: u64, mut open: Open) {
        let attempt = open.attempt.take().expect("it was evaluated");
        let too_old = step.now.since(attempt.at) > AGE_MAX || step.fails(self.faults.too_old);
        if too_old || step.now < self.down_until || self.conflicts_with(&attempt) {
            return self.again(step, number, open);
        }
        if step.fails(self.faults.unknown_commits) {
            let made = step.rng.one_in(2);
            if made {
                self.apply(step, &attempt.writes, &mut open);
            }
            open.unknown = true;
            let hints = growth(&mut open.asked);
            open.hints.extend(hints);
            return self.again(step, number, open);
        }
        self.apply(step, &attempt.writes, &mut open);
        self.finish(step, number, open);
    }

    /// Tries again at a fresh version.
    fn again(&mut self, step: &mut Step<'_>, number: u64, mut open: Open) {
        if let Asked::Sends(sends) = &mut open.asked {
            sends.forget();
        }
        self.open.insert(number, open);
        self.evaluate_soon(step, number);
    }

    fn conflicts_with(&mut self, attempt: &Attempt) -> bool {
        let oldest = self.written.front().map_or(0, |(version, _)| *version);
        let since = self
            .written
            .iter()
            .rev()
            .take_while(|(version, _)| *version > attempt.version);
        let mut spans = since.flat_map(|(_, spans)| spans);
        let forgotten = self.written.len() >= COMMITS_KEPT && oldest > attempt.version;
        let met = spans.any(|(from, to)| {
            let meets = |(a, b): &Span| a < to && from < b;
            attempt.reads.iter().any(meets)
        });
        self.conflicts += u64::from(met);
        met || forgotten
    }

    fn next_stamp(&mut self) {
        // Versions of FoundationDB run with its clock: they are sparse.
        self.version += 1 + self.version % 7;
        self.base.last = stamp_bytes(self.version);
    }

    fn remember(&mut self, spans: Vec<Span>) {
        self.written.push_back((self.version, spans));
        if self.written.len() > COMMITS_KEPT {
            self.written.pop_front();
        }
    }

    /// Makes an attempt durable and visible, and tells the checker.
    fn apply(&mut self, step: &mut Step<'_>, writes: &Writes, open: &mut Open) {
        self.next_stamp();
        let stamp = self.base.last;
        let spans = self.base.image.apply(writes, &stamp);
        self.remember(spans);
        match &mut open.asked {
            Asked::One {
                command, outcome, ..
            } => {
                if let Ok(outcome) = outcome {
                    resolve(outcome, stamp);
                }
                if let Some(tap) = tap_of(command, outcome) {
                    step.tap(tap);
                }
            }
            Asked::Sends(sends) => {
                sends.resolve(stamp);
                tap_sends(step, sends);
            }
        }
    }

    /// It had nothing to commit: it is true as of its read version, which is now.
    fn conclude(&mut self, step: &mut Step<'_>, number: u64, open: Open) {
        match &open.asked {
            Asked::One {
                command, outcome, ..
            } => {
                if let Some(tap) = tap_of(command, outcome) {
                    step.tap(tap);
                }
            }
            Asked::Sends(sends) => tap_sends(step, sends),
        }
        self.finish(step, number, open);
    }

    fn finish(&mut self, step: &mut Step<'_>, number: u64, mut open: Open) {
        if open.orphan {
            return;
        }
        let hints = self.hints(&mut open);
        match open.asked {
            Asked::One {
                origin,
                id,
                mut outcome,
                ..
            } => {
                if let Ok(outcome) = &mut outcome {
                    tell(outcome, hints);
                }
                let wait = step.takes(self.faults.store_delay);
                let completion = Completion { id, outcome };
                step.effects.push(super::Effect::Answer {
                    after: wait,
                    origin,
                    completion,
                    ordered: false,
                });
            }
            Asked::Sends(mut sends) => {
                sends.add_growth(hints);
                if sends.is_done() {
                    return step.answer(sends.origin, sends.into_completion(), false);
                }
                sends.keep();
                let asked = Asked::Sends(sends);
                let open = Open {
                    asked,
                    attempt: None,
                    hints: Vec::new(),
                    unknown: false,
                    ..open
                };
                self.open.insert(number, open);
                self.evaluate_soon(step, number);
            }
        }
    }

    /// Whoever an unknown attempt may have told is told to look, up to what is committed now.
    fn hints(&self, open: &mut Open) -> Vec<Grown> {
        let cursor = self.base.committed();
        let mut hints = std::mem::take(&mut open.hints);
        for hint in &mut hints {
            *hint = Grown {
                previous: None,
                cursor,
                entry: None,
                ..hint.clone()
            };
        }
        hints
    }

    pub(super) fn fail(&mut self, step: &mut Step<'_>, lasts: Duration) {
        self.down_until = step.now + lasts;
    }

    pub(super) fn crash(&mut self) {
        for open in self.open.values_mut() {
            open.orphan = true;
        }
    }

    pub(super) fn import(&mut self) {
        self.base.generation += 1;
        self.base.image.forget_engine();
        // Whatever was under way was under way in the cluster that was left.
        self.open.clear();
        self.written.clear();
        self.version = 0;
        self.base.last = stamp_bytes(0);
    }

    pub(super) fn admin<R>(
        &mut self,
        run: impl FnOnce(&mut Scope<'_>, &mut Work<'_>) -> Result<R, RecordError>,
    ) -> Option<R> {
        let mut work = Work::new(&self.base.image, None, self.base.lies);
        let mut knowledge = Knowledge::of_one_among_many(KNOWN_DEVICES);
        let mut scope = self.base.scope(STAMP_INCOMPLETE, &mut knowledge);
        let result = run(&mut scope, &mut work).ok()?;
        let (_, writes) = work.finish();
        self.next_stamp();
        self.base.taken = self.base.image.taken(&writes, b'i');
        let spans = self.base.image.apply(&writes, &self.base.last);
        self.remember(spans);
        Some(result)
    }
}

fn evaluate(
    scope: &mut Scope<'_>,
    work: &mut Work<'_>,
    asked: &mut Asked,
    how: (Time, Option<Canary>),
) {
    match asked {
        Asked::One {
            command, outcome, ..
        } => {
            let done = ready(attempt::command(scope, work, command));
            let done = done.expect("records never read what they cannot");
            *outcome = done.map(|done| done.outcome);
        }
        Asked::Sends(sends) => {
            while !sends.is_done() {
                match step_sends(sends, scope, work, how) {
                    Ok(()) => {}
                    // A number that is there twice: its second send waits for the first one's commit.
                    Err(TxnError::Unreadable) if sends.has_new() => return,
                    Err(error) => panic!("records use the engine as it allows: {error}"),
                }
            }
        }
    }
}

fn give_up(step: &mut Step<'_>, open: Open) {
    match open.asked {
        Asked::One { origin, id, .. } => step.refuse(origin, id, StoreError::Unavailable),
        Asked::Sends(mut sends) => {
            sends.fail();
            step.answer(sends.origin, sends.into_completion(), false);
        }
    }
}

/// The growth of an attempt, taken out of it.
fn growth(asked: &mut Asked) -> Vec<Grown> {
    match asked {
        Asked::Sends(sends) => sends.take_new_growth(),
        Asked::One { outcome, .. } => match outcome {
            Ok(
                Outcome::Flushed { grown, .. }
                | Outcome::MarkedRead { grown }
                | Outcome::InboxChecked { grown, .. },
            ) => std::mem::take(grown),
            _ => Vec::new(),
        },
    }
}

fn tell(outcome: &mut Outcome, hints: Vec<Grown>) {
    match outcome {
        Outcome::Flushed { grown, .. }
        | Outcome::MarkedRead { grown }
        | Outcome::InboxChecked { grown, .. } => grown.extend(hints),
        _ => {}
    }
}
