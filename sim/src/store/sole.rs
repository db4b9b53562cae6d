//! The records driven as the embedded engine's committer drives them (R8 to R11).
//!
//! One batch at a time: evaluate, sync, publish, answer. The image holds what is synced and nothing else,
//! so a power cut and a kill differ only in what becomes of the batch under way: it is there or not.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use roadstead::store::{Command, Completion, Grown, Outcome, Request, RequestId, StoreError};
use roadstead_proto::{DeviceId, Position, UserId};
use roadstead_store::keys::{Keys, entry_position};
use roadstead_store::records::{Knowledge, RecordError, Scope, attempt};
use roadstead_store::txn::{TxnError, ready};

use super::image::Writes;
use super::work::Work;
use super::{
    Base, Origin, Pending, Step, StoreEvent, is_read, stamp_bytes, step_sends, tap_of, tap_sends,
};
use crate::canary::Canary;
use crate::swarm::{Faults, Plan};

/// Stamps reserved at once (R9): few, so that every run reserves often.
const STAMP_BLOCK: u64 = 64;

/// Devices that the committer knows things about: few, so that facts are forgotten in every run.
const KNOWN_DEVICES: usize = 64;

/// See the [module](self).
#[derive(Debug)]
pub struct Sole {
    /// What both drivers have.
    pub base: Base,
    faults: Faults,
    batch_max: usize,
    stamp: u64,
    ceiling: u64,
    knowledge: Knowledge,
    /// The last entry appended to each inbox by this life of the committer.
    appended: BTreeMap<(UserId, DeviceId), Position>,
    ahead: VecDeque<(Origin, Request)>,
    sends: VecDeque<Pending>,
    batch: Option<Batch>,
    batches: u64,
    begun: bool,
    down: bool,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    stamp: u64,
    writes: Writes,
    ahead: Vec<Evaluated>,
    sends: Vec<Pending>,
}

#[derive(Debug)]
struct Evaluated {
    origin: Origin,
    id: RequestId,
    command: Command,
    outcome: Result<Outcome, StoreError>,
    registered: Option<(UserId, DeviceId)>,
}

impl Sole {
    pub(super) fn new(base: Base, plan: &Plan) -> Self {
        let mut sole = Self {
            base,
            faults: plan.faults.clone(),
            batch_max: plan.batch_max,
            stamp: 0,
            ceiling: 0,
            knowledge: Knowledge::of_sole_committer(KNOWN_DEVICES),
            appended: BTreeMap::new(),
            ahead: VecDeque::new(),
            sends: VecDeque::new(),
            batch: None,
            batches: 0,
            begun: false,
            down: false,
        };
        sole.open();
        sole
    }

    /// Begins a life of the engine: stamps go on above everything that was ever reserved (R9).
    fn open(&mut self) {
        self.knowledge.clear();
        self.appended.clear();
        let stored = self.base.image.get(&Keys::stamp_ceiling());
        let ceiling = stored.map_or(0, |value| {
            u64::from_be_bytes(value[..].try_into().expect("8 bytes were written"))
        });
        self.stamp = match self.base.canary {
            Some(Canary::R9) if self.base.generation == 1 => self.newest_entry(),
            _ => ceiling,
        };
        self.ceiling = self.stamp;
        self.base.last = stamp_bytes(self.stamp);
    }

    /// R9's planted bug: stamps restart behind what happens to be there.
    fn newest_entry(&self) -> u64 {
        let positions = self
            .base
            .image
            .space(b'i')
            .filter_map(|(key, _)| entry_position(key));
        let newest = positions.max().unwrap_or_default().stamp();
        u64::from_be_bytes(newest[..8].try_into().expect("8 of 10 bytes"))
    }

    pub(super) fn submit(&mut self, step: &mut Step<'_>, origin: Origin, request: Request) {
        if is_read(&request.command) {
            let wait = step.takes(self.faults.store_delay);
            return step.after(wait, StoreEvent::Read(origin, request));
        }
        if self.down {
            return refuse(step, origin, &request);
        }
        match request.command {
            Command::Send(sends) => {
                self.sends
                    .push_back(Pending::new(origin, request.id, sends));
            }
            _ => self.ahead.push_back((origin, request)),
        }
        self.begin_soon(step);
    }

    fn begin_soon(&mut self, step: &mut Step<'_>) {
        let idle = self.ahead.is_empty() && self.sends.is_empty();
        if !idle && self.batch.is_none() && !self.begun {
            self.begun = true;
            let wait = Duration::from_micros(step.rng.between(1, 200));
            step.after(wait, StoreEvent::Begin);
        }
    }

    pub(super) fn handle(&mut self, step: &mut Step<'_>, event: StoreEvent) {
        match event {
            StoreEvent::Begin => {
                self.begun = false;
                if self.batch.is_none() && !self.down {
                    self.begin(step);
                }
            }
            StoreEvent::Synced(number) => {
                if let Some(batch) = self.batch.take_if(|batch| batch.number == number) {
                    self.synced(step, batch);
                }
            }
            StoreEvent::Reopened => {
                if self.down {
                    self.down = false;
                    self.open();
                    step.effects.push(super::Effect::Reopened);
                }
            }
            StoreEvent::Read(origin, request) => self.read(step, origin, &request),
            StoreEvent::Evaluate(_) | StoreEvent::Commit(_) => unreachable!("the other driver's"),
        }
    }

    fn begin(&mut self, step: &mut Step<'_>) {
        let stamp = self.stamp + 1;
        let mut work = Work::new(&self.base.image, Some(stamp_bytes(stamp)), self.base.lies);
        let mut scope = self.base.scope(stamp_bytes(stamp), &mut self.knowledge);
        let (mut ahead, mut sends, mut count) = (Vec::new(), Vec::new(), 0);
        let mut failed: Option<TxnError> = None;
        while let Some((origin, request)) = self.ahead.pop_front() {
            let evaluated = ready(attempt::command(&mut scope, &mut work, &request.command));
            failed = failed.or(evaluated.as_ref().err().copied());
            let done = evaluated.unwrap_or(Err(StoreError::Unavailable));
            let registered = done.as_ref().ok().and_then(|done| done.registered);
            let outcome = done.map(|done| done.outcome);
            let Request { id, command } = request;
            ahead.push(Evaluated {
                origin,
                id,
                command,
                outcome,
                registered,
            });
            count += 1;
            if failed.is_some() || count >= self.batch_max {
                break;
            }
        }
        while failed.is_none() && count < self.batch_max.max(2) {
            let Some(mut pending) = self.sends.pop_front() else {
                break;
            };
            while !pending.is_done() && failed.is_none() && count < self.batch_max.max(2) {
                let how = (step.now, self.base.canary);
                failed = step_sends(&mut pending, &mut scope, &mut work, how).err();
                count += 1;
            }
            sends.push(pending);
        }
        assert_eq!(failed, None, "the records use the engine as it allows");
        let (_, mut writes) = work.finish();
        if !writes.is_empty() && stamp >= self.ceiling {
            self.ceiling = stamp + STAMP_BLOCK;
            let ceiling = Bytes::copy_from_slice(&self.ceiling.to_be_bytes());
            writes.set(Keys::stamp_ceiling().into(), ceiling);
        }
        self.batches += 1;
        let mut batch = Batch {
            number: self.batches,
            stamp,
            writes,
            ahead,
            sends,
        };
        if self.base.canary == Some(Canary::R8) {
            self.answer_early(step, &mut batch);
        }
        let wait = step.takes(self.faults.store_delay);
        step.after(wait, StoreEvent::Synced(batch.number));
        self.batch = Some(batch);
    }

    /// R8's planted bug: the answer goes out before the sync.
    fn answer_early(&mut self, step: &mut Step<'_>, batch: &mut Batch) {
        for pending in batch.sends.iter_mut().filter(|pending| pending.is_done()) {
            step.answer(pending.origin, pending.clone().into_completion(), true);
        }
    }

    fn synced(&mut self, step: &mut Step<'_>, mut batch: Batch) {
        if step.fails(self.faults.unknown_commits) {
            if step.rng.one_in(2) {
                self.apply(step, &mut batch);
            }
            self.give_up(step, batch);
            let wait = step.takes(self.faults.outage_lasts);
            return self.fail(step, wait);
        }
        self.apply(step, &mut batch);
        self.answer(step, batch);
        self.begin_soon(step);
    }

    /// Makes a batch durable and visible, and tells the checker.
    fn apply(&mut self, step: &mut Step<'_>, batch: &mut Batch) {
        if !batch.writes.is_empty() {
            self.stamp = batch.stamp;
            self.base.last = stamp_bytes(batch.stamp);
            self.base.image.apply(&batch.writes, &self.base.last);
        }
        for evaluated in &batch.ahead {
            if let Some(tap) = tap_of(&evaluated.command, &evaluated.outcome) {
                step.tap(tap);
            }
        }
        for pending in &batch.sends {
            tap_sends(step, pending);
        }
    }

    fn answer(&mut self, step: &mut Step<'_>, batch: Batch) {
        for mut evaluated in batch.ahead {
            if let Some(device) = evaluated.registered {
                // Nothing lies before the first entry of an inbox that has never had one.
                self.appended.insert(device, Position::ZERO);
            }
            if let Ok(outcome) = &mut evaluated.outcome {
                link(&mut self.appended, outcome.grown_mut());
            }
            let completion = Completion {
                id: evaluated.id,
                outcome: evaluated.outcome,
            };
            step.answer(evaluated.origin, completion, true);
        }
        for mut pending in batch.sends {
            link(&mut self.appended, pending.new_growth());
            if !pending.is_done() {
                pending.keep();
                self.sends.push_front(pending);
            } else if self.base.canary != Some(Canary::R8) {
                step.answer(pending.origin, pending.into_completion(), true);
            }
        }
    }

    /// Whether it was committed is not known to anyone (R15).
    fn give_up(&mut self, step: &mut Step<'_>, batch: Batch) {
        for evaluated in batch.ahead {
            step.refuse(evaluated.origin, evaluated.id, StoreError::Unavailable);
        }
        for mut pending in batch.sends {
            pending.fail();
            if self.base.canary != Some(Canary::R8) {
                step.answer(pending.origin, pending.into_completion(), true);
            }
        }
    }

    fn read(&mut self, step: &mut Step<'_>, origin: Origin, request: &Request) {
        if self.down {
            return refuse(step, origin, request);
        }
        let mut work = Work::new(&self.base.image, None, self.base.lies);
        let mut scope = self.base.scope(stamp_bytes(0), &mut self.knowledge);
        let done = ready(attempt::command(&mut scope, &mut work, &request.command));
        let done = done.expect("a read uses the engine as it allows");
        let outcome = done.map(|done| done.outcome);
        let completion = Completion {
            id: request.id,
            outcome,
        };
        let wait = step.takes(self.faults.store_delay);
        step.effects.push(super::Effect::Answer {
            after: wait,
            origin,
            completion,
            ordered: false,
        });
    }

    /// R10: nothing is served until the engine has been reopened.
    pub(super) fn fail(&mut self, step: &mut Step<'_>, lasts: Duration) {
        self.down = true;
        if let Some(mut batch) = self.batch.take() {
            if step.rng.one_in(2) {
                self.apply(step, &mut batch);
            }
            self.give_up(step, batch);
        }
        for (origin, request) in std::mem::take(&mut self.ahead) {
            refuse(step, origin, &request);
        }
        for mut pending in std::mem::take(&mut self.sends) {
            pending.fail();
            step.answer(pending.origin, pending.into_completion(), true);
        }
        step.after(lasts, StoreEvent::Reopened);
    }

    pub(super) fn crash(&mut self, step: &mut Step<'_>) {
        if let Some(mut batch) = self.batch.take()
            && step.rng.one_in(2)
        {
            self.apply(step, &mut batch);
        }
        self.ahead.clear();
        self.sends.clear();
        self.down = false;
        self.open();
    }

    pub(super) fn import(&mut self) {
        self.base.generation += 1;
        self.base.image.forget_engine();
        self.open();
    }

    pub(super) fn admin<R>(
        &mut self,
        run: impl FnOnce(&mut Scope<'_>, &mut Work<'_>) -> Result<R, RecordError>,
    ) -> Option<R> {
        if self.down || self.batch.is_some() {
            return None;
        }
        let stamp = self.stamp + 1;
        let mut work = Work::new(&self.base.image, Some(stamp_bytes(stamp)), self.base.lies);
        let mut scope = self.base.scope(stamp_bytes(stamp), &mut self.knowledge);
        let result = run(&mut scope, &mut work).ok()?;
        let (_, mut writes) = work.finish();
        if stamp >= self.ceiling {
            self.ceiling = stamp + STAMP_BLOCK;
            let ceiling = Bytes::copy_from_slice(&self.ceiling.to_be_bytes());
            writes.set(Keys::stamp_ceiling().into(), ceiling);
        }
        self.stamp = stamp;
        self.base.last = stamp_bytes(stamp);
        self.base.taken = self.base.image.taken(&writes, b'i');
        self.base.image.apply(&writes, &self.base.last);
        Some(result)
    }
}

fn refuse(step: &mut Step<'_>, origin: Origin, request: &Request) {
    step.refuse(origin, request.id, StoreError::Unavailable);
}

/// Names in every growth the entry before it: this committer alone appends, in order (R4).
fn link(appended: &mut BTreeMap<(UserId, DeviceId), Position>, growth: &mut [Grown]) {
    for grown in growth {
        let device = (grown.user, grown.device);
        grown.previous = appended.insert(device, grown.cursor);
    }
}
