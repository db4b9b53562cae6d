//! One thread of the generator: its sessions, their connections and its part of the schedule.
//!
//! The loop of `roadstead-net` calls it with events and once per turn. A turn sends what is due, then
//! writes for every session that something happened to, so that an acknowledgement and the next message
//! share a packet.

mod account;
mod connect;
mod exchange;
mod heartbeat;
mod latencies;
mod orders;
mod output;
mod probe;
mod slot;
mod sweep;
mod upset;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

use roadstead_net::{App, ConnId, Engine, Event, Io};

use crate::clock::{Clock, Micros};
use crate::control::{Command, Stage, Status, Window};
use crate::findings::Findings;
use crate::latency::Latency;
use crate::ledger::{Ledger, Rules};
use crate::plan::{Exchange, Plan, Post};
use crate::rng::{Rng, Shuffle};
use crate::schedule::{Arrivals, Schedule};
use crate::session::Effects;
use crate::talk::Talks;
use crate::topology::Roster;
use probe::Probe;
use slot::Slot;
use sweep::Sweep;

pub(crate) use latencies::Latencies;

/// How often the conductor hears from a worker.
const PUBLISH_EVERY: Micros = 100_000;

/// Makes the order of a sample independent of other choices by the same seed.
const LOTS: u64 = 0x6c6f_7473;

/// A session of a silent run may find what an earlier run left in its inbox. That comes at once.
const CATCH_UP: Micros = 5_000_000;

/// Sessions that a thread closes per millisecond at the end: a close is kept for some round trips, and
/// millions at once would need as many buffers.
const CLOSES_PER_MS: u32 = 50;

/// Something to be done for a session at its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Connect,
    /// A refused send may be tried again.
    Flush,
    /// Close it if it has no Welcome by now. Names the attempt.
    Login(u32),
    Leave,
    Return,
}

/// One thread's application.
pub(crate) struct Worker {
    plan: Arc<Plan>,
    roster: Roster,
    clock: Clock,
    window: Arc<Window>,
    rng: Rng,
    stage: Stage,
    slots: Vec<Slot>,
    /// Which session has a connection, by the connection's index.
    sessions_by_conn: Vec<u32>,
    alarms: BinaryHeap<Reverse<(Micros, u32, Alarm)>>,
    /// Sessions to flush at the end of the turn.
    dirty: Vec<u32>,
    ramp: Schedule,
    ramped: u32,
    /// Sessions that were closed at the end.
    closed_up_to: u32,
    /// Sessions between their first packet and their Welcome, and how many there may be.
    opening: u32,
    opening_max: u32,
    opening_cut_at: Micros,
    heartbeats: Sweep,
    probe: Probe,
    schedule: Schedule,
    /// What kind of messages are sent, and until when.
    traffic: Exchange,
    until: Micros,
    talks: Talks,
    churn: Sweep,
    /// Of the control group of a storm.
    is_control: bool,
    /// The sockets are to go after this turn, and the sessions to come back within this time.
    severing: Option<Micros>,
    /// The ramp is one of sessions that were there before.
    returning: bool,
    /// When a storm or a restart began.
    upset_at: Micros,
    /// Sessions that left because of a restart.
    left: u32,
    rebinds: Sweep,
    rebound_all: bool,
    /// Messages of a sample that were sent, and the order of its users.
    sampled: u32,
    lots: Shuffle,
    ledger: Ledger,
    latencies: Latencies,
    /// Of the last moment only.
    recent: (Latency, Latency),
    status: Status,
    effects: Effects,
    publish_at: Micros,
}

/// What a worker leaves behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: Status,
    pub(crate) latencies: Latencies,
    pub(crate) findings: Findings,
    /// Of the control group.
    pub(crate) control: bool,
}

impl Worker {
    pub(crate) fn new(
        plan: Arc<Plan>,
        post: &Post,
        thread: u16,
        clock: Clock,
        window: Arc<Window>,
    ) -> Self {
        let (roster, is_control) = (post.roster.clone(), post.control);
        let share = f64::from(roster.sessions()) / f64::from(plan.topology.sessions());
        let rng = Rng::stream(plan.topology.seed, u64::from(thread) + 1);
        let rules = Rules {
            thread,
            run: plan.run,
            size: plan.size,
            read_fraction: plan.read_fraction,
            details_max: plan.details_max,
        };
        let now = clock.now();
        let sessions = roster.sessions();
        let lots = Shuffle::new(plan.topology.seed ^ LOTS, roster.users());
        Self {
            ramp: Schedule::new(
                Arrivals::Constant,
                plan.ramp.scaled(share),
                now,
                Micros::MAX,
                sessions.into(),
                rng.clone(),
            ),
            slots: (0..sessions).map(|_| Slot::new(plan.resumption)).collect(),
            ledger: Ledger::new(rules, roster.clone()),
            rng,
            plan,
            roster,
            clock,
            window,
            stage: Stage::Ramp,
            sessions_by_conn: Vec::with_capacity(sessions as usize),
            alarms: BinaryHeap::new(),
            dirty: Vec::new(),
            ramped: 0,
            closed_up_to: 0,
            opening: 0,
            opening_max: connect::OPENING_START,
            opening_cut_at: 0,
            heartbeats: Sweep::none(),
            probe: Probe::new(sessions),
            schedule: Schedule::empty(),
            traffic: Exchange::none(),
            until: 0,
            talks: Talks::default(),
            churn: Sweep::none(),
            is_control,
            severing: None,
            returning: false,
            upset_at: 0,
            left: 0,
            rebinds: Sweep::none(),
            rebound_all: false,
            sampled: 0,
            lots,
            latencies: Latencies::new(),
            recent: (Latency::new(), Latency::new()),
            status: Status::default(),
            effects: Effects::default(),
            publish_at: now,
        }
    }

    /// Ends the account.
    pub(crate) fn into_outcome(self) -> Outcome {
        let (tally, findings) = self.ledger.close();
        let mut status = self.status;
        status.tally = tally;
        Outcome {
            status,
            latencies: self.latencies,
            findings,
            control: self.is_control,
        }
    }

    fn session_of(&self, conn: ConnId) -> Option<u32> {
        let session = *self.sessions_by_conn.get(conn.index as usize)?;
        (self.slots.get(session as usize)?.conn() == Some(conn)).then_some(session)
    }

    fn slot(&mut self, session: u32) -> &mut Slot {
        &mut self.slots[session as usize]
    }

    fn mark_dirty(&mut self, session: u32) {
        let slot = &mut self.slots[session as usize];
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(session);
        }
    }

    fn set_alarm(&mut self, at: Micros, session: u32, alarm: Alarm) {
        self.alarms.push(Reverse((at, session, alarm)));
    }

    fn ring_alarms<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        while let Some(Reverse((at, session, alarm))) = self.alarms.peek().copied() {
            if at > now {
                return;
            }
            self.alarms.pop();
            match alarm {
                Alarm::Connect => self.connect(io, session, now),
                Alarm::Flush => self.mark_dirty(session),
                Alarm::Login(attempt) => self.check_login(io, session, attempt),
                Alarm::Leave => {
                    self.leave(io, session);
                }
                Alarm::Return => self.come_back(io, session, now),
            }
        }
    }

    fn next_turn(&self, now: Micros) -> Micros {
        let held_up = if self.may_connect() {
            0
        } else {
            now + connect::LIMIT_POLL
        };
        let ramp = self.ramp.due().map(|due| due.max(held_up));
        let alarm = self.alarms.peek().map(|Reverse((at, _, _))| *at);
        let due = [
            ramp,
            alarm,
            self.next_send(),
            self.heartbeats.due(),
            self.probe.due(),
            self.churn.due().filter(|at| *at < self.until),
            self.rebinds.due(),
            Some(self.publish_at),
        ];
        due.into_iter()
            .flatten()
            .min()
            .expect("there is always a time to publish")
    }
}

impl<E: Engine> App<E> for Worker {
    type Message = Command;

    fn event(&mut self, io: &mut Io<'_, E>, event: Event) {
        match event {
            Event::Opened { conn, resumed, .. } => {
                if let Some(session) = self.session_of(conn) {
                    self.opened(io, session, resumed);
                }
            }
            Event::Readable { conn } => {
                if let Some(session) = self.session_of(conn) {
                    self.read(io, session, conn);
                }
            }
            Event::Writable { conn } => {
                if let Some(session) = self.session_of(conn) {
                    self.continue_writing(io, session, conn);
                }
            }
            Event::Closed { conn, reason } => {
                if let Some(session) = self.session_of(conn) {
                    self.closed(session, &reason);
                }
            }
            Event::Datagram { conn, .. } => {
                if let Some(session) = self.session_of(conn) {
                    self.surprise(session, "a datagram");
                }
            }
            // A server that ends the stream closes the connection next.
            Event::Finished { .. } | Event::Aborted { .. } => {}
        }
    }

    fn message(&mut self, io: &mut Io<'_, E>, command: Command) {
        self.obey(io, command);
    }

    fn turn(&mut self, io: &mut Io<'_, E>) -> Option<Instant> {
        let now = self.clock.now();
        if self.stage == Stage::Stopped {
            let more = self.close_some(io);
            return more.then(|| self.clock.instant(now + 1_000));
        }
        if self.is_severing() {
            io.stop();
            return None;
        }
        self.go_on_ramping(io, now);
        self.go_on_churning(io, now);
        self.go_on_rebinding(io, now);
        self.ring_alarms(io, now);
        self.send_due(self.clock.now());
        self.send_heartbeats(io, now);
        self.flush_dirty(io, self.clock.now());
        if now >= self.publish_at {
            self.publish(now);
        }
        Some(self.clock.instant(self.next_turn(now)))
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
