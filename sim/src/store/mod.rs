//! The store as the shards see it: requests in, answers out, at some later time and in some order.
//!
//! [`image`] and [`work`] are the engine. [`sole`] drives the records as the embedded engine's committer does,
//! [`many`] as FoundationDB lets its clients do. Both run the record layer itself, unchanged, and both tell
//! the checker of every commit at the moment it is durable, whether or not anyone will be answered.

pub mod image;
pub mod many;
pub mod sole;
mod time;
pub mod work;

use std::time::Duration;

use bytes::Bytes;
use roadstead::ShardId;
use roadstead::store::{
    CheckInbox, Command, Completion, DeviceOpened, EntryBody, Flush, Grown, MarkRead, OpenDevice,
    Outcome, Request, RequestId, SendItem, Sent, StoreError,
};
use roadstead::time::Time;
use roadstead_proto::position::Stamp;
use roadstead_proto::{DeviceId, Position, UserId};
use roadstead_store::keys::Keys;
use roadstead_store::records::order::Order;
use roadstead_store::records::pending::PendingSends;
use roadstead_store::records::{Knowledge, RecordError, Scope, device, node};
use roadstead_store::txn::{TxnError, ready};

use crate::canary::Canary;
use crate::rng::Rng;
use crate::swarm::{Engine, Plan};
use image::Image;
use many::Many;
use sole::Sole;
use work::{Lies, Work};

/// Who asked: answers for a process that has died are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Which life of the node.
    pub life: u32,
    /// Which of its shards.
    pub shard: ShardId,
}

/// Something of the store that is due.
#[derive(Debug)]
pub enum StoreEvent {
    /// The committer looks into its queue.
    Begin,
    /// The batch under way is synced, or has failed.
    Synced(u64),
    /// The engine is open again.
    Reopened,
    /// A reader gets to a request.
    Read(Origin, Request),
    /// A transaction is evaluated.
    Evaluate(u64),
    /// A transaction commits.
    Commit(u64),
}

/// What the store wants done.
#[derive(Debug)]
pub enum Effect {
    /// Come back after this time.
    After(Duration, StoreEvent),
    /// Answer after this time; in order with other ordered answers to the shard.
    Answer {
        /// After so long.
        after: Duration,
        /// Whom.
        origin: Origin,
        /// What.
        completion: Completion,
        /// Not before earlier ordered answers.
        ordered: bool,
    },
    /// Durable as of now.
    Tap(Tap),
    /// The engine was reopened after a failure: every shard is told (R15).
    Reopened,
}

/// What a commit did, in the words of the port. The checker's source of truth.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "a command and its outcome each")]
pub enum Tap {
    Sent {
        user: UserId,
        device: DeviceId,
        item: SendItem,
        answer: Result<Sent, StoreError>,
        /// The inboxes that grew by it: by the message, or by a gap in its place.
        grown: Vec<Grown>,
    },
    Opened(OpenDevice, Result<DeviceOpened, StoreError>),
    Flushed {
        flush: Flush,
        stored_ack: Position,
        grown: Vec<Grown>,
    },
    MarkedRead(MarkRead, Vec<Grown>),
    Checked(CheckInbox, bool, Vec<Grown>),
    Removed(UserId, DeviceId),
    /// A clock told this minute; where it is stamped, if it was not refused (R25).
    Stamped {
        minute: u32,
        at: Option<Position>,
    },
    /// The expiry job has found where to cut.
    ExpiryBegun,
    /// A step of it removed these keys of inboxes.
    Expired(Vec<Bytes>),
    /// It has visited whom it had to visit.
    ExpiryDone,
}

/// What every step of the store is given.
#[derive(Debug)]
pub struct Step<'a> {
    /// Now.
    pub now: Time,
    /// Chance.
    pub rng: &'a mut Rng,
    /// What is wanted.
    pub effects: &'a mut Vec<Effect>,
    /// Whether faults are on: at the end of a run they are not.
    pub hostile: bool,
}

impl Step<'_> {
    fn after(&mut self, wait: Duration, event: StoreEvent) {
        self.effects.push(Effect::After(wait, event));
    }

    fn answer(&mut self, origin: Origin, completion: Completion, ordered: bool) {
        let after = Duration::from_micros(self.rng.between(1, 400));
        self.effects.push(Effect::Answer {
            after,
            origin,
            completion,
            ordered,
        });
    }

    fn refuse(&mut self, origin: Origin, id: RequestId, error: StoreError) {
        self.answer(
            origin,
            Completion {
                id,
                outcome: Err(error),
            },
            false,
        );
    }

    fn tap(&mut self, tap: Tap) {
        self.effects.push(Effect::Tap(tap));
    }

    /// How long something of the store takes: at most `max`, and a moment once faults are off.
    fn takes(&mut self, max: Duration) -> Duration {
        let max = if self.hostile {
            max
        } else {
            Duration::from_millis(2)
        };
        self.rng.delay(max)
    }

    fn fails(&mut self, ppm: u64) -> bool {
        self.hostile && self.rng.ppm(ppm)
    }
}

/// What both drivers have.
#[derive(Debug)]
pub struct Base {
    /// What is durable.
    pub image: Image,
    /// Builds keys.
    pub keys: Keys,
    /// The store's generation (R3).
    pub generation: u32,
    /// The stamp of the last commit.
    pub last: Stamp,
    lies: Lies,
    canary: Option<Canary>,
    /// Keys of inboxes that the last transaction of the process itself removed.
    taken: Vec<Bytes>,
    /// See [`Faults::overflows`](crate::swarm::Faults::overflows).
    overflows: u64,
}

impl Base {
    fn committed(&self) -> Position {
        Position::end_of(self.generation, self.last)
    }

    /// What commands of a transaction with this stamp are evaluated in.
    fn scope<'a>(&'a self, stamp: Stamp, knowledge: &'a mut Knowledge) -> Scope<'a> {
        Scope {
            keys: &self.keys,
            generation: self.generation,
            stamp,
            committed: self.committed(),
            next_index: 0,
            knowledge,
        }
    }

    fn lies_of(canary: Option<Canary>) -> Lies {
        Lies {
            hidden: match canary {
                Some(Canary::R12) => Some(b'k'),
                Some(Canary::R20) => Some(b'r'),
                _ => None,
            },
            unguarded: (canary == Some(Canary::R14)).then_some(b'u'),
            unsuspended: canary == Some(Canary::R21),
            dropped: (canary == Some(Canary::R25)).then_some(b'x'),
            newest: (canary == Some(Canary::R25Early)).then_some(b't'),
        }
    }

    /// R18's and R19's planted bugs change a flush on its way to the records.
    fn twist(&self, command: &mut Command) {
        let Command::Flush(flush) = command else {
            return;
        };
        if self.canary == Some(Canary::R18) && flush.known.is_none() {
            let key = self.keys.ack(flush.user, flush.device);
            let from = self
                .image
                .get(&key)
                .and_then(|value| Position::from_slice(value.get(1..17)?));
            let from = from.unwrap_or_default();
            flush.known = Some(roadstead::store::KnownEntries {
                from,
                entries: Vec::new(),
            });
        }
        if self.canary == Some(Canary::R19) && flush.known.is_some() {
            flush.upto = self.committed();
            flush.known = None;
        }
    }
}

/// Nanoseconds do not matter here: a stamp is a number in the bytes of a commit version.
fn stamp_bytes(number: u64) -> Stamp {
    let mut stamp = [0; 10];
    stamp[..8].copy_from_slice(&number.to_be_bytes());
    stamp
}

fn is_read(command: &Command) -> bool {
    matches!(command, Command::ReadInbox(_))
}

/// The sends of one device on their way through a driver.
type Pending = PendingSends<Origin>;

/// Evaluates the next item.
fn step_sends(
    pending: &mut Pending,
    scope: &mut Scope<'_>,
    work: &mut Work<'_>,
    (now, canary): (Time, Option<Canary>),
) -> Result<(), TxnError> {
    if canary == Some(Canary::R16) {
        // The planted bug: a failure stops nothing.
        pending.order = Order::default();
    }
    ready(pending.step(scope, work, now))
}

/// Tells what the commit made durable.
fn tap_sends(step: &mut Step<'_>, pending: &Pending) {
    let sends = pending.sends();
    for (item, answer) in pending.new_answers() {
        let is_of = |grown: &&Grown| {
            answer.is_ok_and(|sent| match grown.entry {
                Some(EntryBody::Gap(_)) => {
                    let next = sent.position.index().checked_add(1);
                    grown.cursor.stamp() == sent.position.stamp()
                        && Some(grown.cursor.index()) == next
                }
                _ => grown.cursor == sent.position,
            })
        };
        step.tap(Tap::Sent {
            user: sends.user,
            device: sends.device,
            item: item.clone(),
            answer: *answer,
            grown: pending.growth().iter().filter(is_of).cloned().collect(),
        });
    }
}

/// The truth of a command that was carried out.
fn tap_of(command: &Command, outcome: &Result<Outcome, StoreError>) -> Option<Tap> {
    match (command, outcome) {
        (Command::OpenDevice(open), Ok(Outcome::DeviceOpened(opened))) => {
            Some(Tap::Opened(open.clone(), Ok(*opened)))
        }
        (Command::OpenDevice(open), Err(error)) => Some(Tap::Opened(open.clone(), Err(*error))),
        (
            Command::Flush(flush),
            Ok(Outcome::Flushed {
                stored_ack, grown, ..
            }),
        ) => Some(Tap::Flushed {
            flush: flush.clone(),
            stored_ack: *stored_ack,
            grown: grown.clone(),
        }),
        (Command::MarkRead(mark), Ok(Outcome::MarkedRead { grown })) => {
            Some(Tap::MarkedRead(mark.clone(), grown.clone()))
        }
        (Command::CheckInbox(check), Ok(Outcome::InboxChecked { suspended, grown })) => {
            Some(Tap::Checked(check.clone(), *suspended, grown.clone()))
        }
        _ => None,
    }
}

/// The store of a run.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Store {
    /// See [`sole`].
    Sole(Sole),
    /// See [`many`].
    Many(Many),
}

impl Store {
    /// An empty store for a run.
    #[must_use]
    pub fn new(plan: &Plan, placement_key: [u8; 16]) -> Self {
        let base = Base {
            image: Image::default(),
            keys: Keys::new(placement_key),
            generation: 1,
            last: stamp_bytes(0),
            lies: Base::lies_of(plan.canary),
            canary: plan.canary,
            taken: Vec::new(),
            overflows: plan.faults.overflows,
        };
        match plan.engine {
            Engine::Sole => Self::Sole(Sole::new(base, plan)),
            Engine::Many => Self::Many(Many::new(base, plan)),
        }
    }

    /// What both drivers have.
    #[must_use]
    pub fn base(&self) -> &Base {
        match self {
            Self::Sole(sole) => &sole.base,
            Self::Many(many) => &many.base,
        }
    }

    /// A shard asks.
    pub fn submit(&mut self, step: &mut Step<'_>, origin: Origin, mut request: Request) {
        self.base().twist(&mut request.command);
        if step.fails(self.base().overflows) {
            return step.refuse(origin, request.id, StoreError::Overloaded);
        }
        match self {
            Self::Sole(sole) => sole.submit(step, origin, request),
            Self::Many(many) => many.submit(step, origin, request),
        }
    }

    /// Something is due.
    pub fn handle(&mut self, step: &mut Step<'_>, event: StoreEvent) {
        match self {
            Self::Sole(sole) => sole.handle(step, event),
            Self::Many(many) => many.handle(step, event),
        }
    }

    /// The store does not serve for a while.
    pub fn fail(&mut self, step: &mut Step<'_>, lasts: Duration) {
        match self {
            Self::Sole(sole) => sole.fail(step, lasts),
            Self::Many(many) => many.fail(step, lasts),
        }
    }

    /// The process that the shards live in is gone; with a sole committer, so is the committer.
    pub fn crash(&mut self, step: &mut Step<'_>) {
        match self {
            Self::Sole(sole) => sole.crash(step),
            Self::Many(many) => many.crash(),
        }
    }

    /// A transaction of the process itself, committed at once; `None` if the store can not now.
    fn admin<R>(
        &mut self,
        run: impl FnOnce(&mut Scope<'_>, &mut Work<'_>) -> Result<R, RecordError>,
    ) -> Option<R> {
        match self {
            Self::Sole(sole) => sole.admin(run),
            Self::Many(many) => many.admin(run),
        }
    }

    /// Everything is moved to another engine, which begins to count where it likes: entries keep their
    /// positions, and the generation is raised (R3). To be called while no process has the store open.
    pub fn import(&mut self) -> u32 {
        match self {
            Self::Sole(sole) => sole.import(),
            Self::Many(many) => many.import(),
        }
        self.base().generation
    }

    /// The same with an older image: what was committed since is lost.
    pub fn restore(&mut self, older: &Image) -> u32 {
        match self {
            Self::Sole(sole) => sole.base.image.restore(older),
            Self::Many(many) => many.base.image.restore(older),
        }
        self.import()
    }

    /// Removes a device for good (R13); `false` if the store can not now.
    pub fn remove(&mut self, step: &mut Step<'_>, user: UserId, id: DeviceId) -> bool {
        let removed = self.admin(|scope, work| {
            ready(async {
                let removed = device::remove(scope, work, (user, id)).await?;
                // In pieces where there is more than a transaction's worth.
                while device::clean(scope, work, (user, id)).await? {}
                Ok(removed)
            })
        });
        if removed == Some(true) {
            step.tap(Tap::Removed(user, id));
        }
        removed.is_some()
    }

    /// Takes the lease of the node and answers its incarnation (R24).
    pub fn take_lease(&mut self) -> Option<u64> {
        self.admin(|_, work| ready(node::take(work, 0)))
            .map(|lease| lease.incarnation)
    }

    /// Reserves message ids for the node (R24).
    pub fn reserve_ids(&mut self, incarnation: u64, until_ms: u64) -> Option<(u64, u64)> {
        self.admin(|_, work| ready(node::reserve_ids(work, (0, incarnation), until_ms)))
    }
}
