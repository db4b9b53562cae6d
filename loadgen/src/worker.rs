//! One thread of the generator: its sessions, their connections and its part of the schedule.
//!
//! The loop of `roadstead-net` calls it with events and once per turn. A turn sends what is due, then
//! writes for every session that something happened to, so that an acknowledgement and the next message
//! share a packet.

mod connect;
mod exchange;
mod probe;
mod slot;
mod sweep;
mod upset;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Instant;

use roadstead_net::{App, ConnId, Engine, Event, Io};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Micros};
use crate::control::{Command, Stage, Status, Window};
use crate::findings::{Findings, Kind};
use crate::latency::Latency;
use crate::ledger::{Arrival, Delivery, Ledger, Rules, Timing};
use crate::plan::{Exchange, Plan, Post};
use crate::process;
use crate::rng::{Rng, Shuffle};
use crate::schedule::{Arrivals, Schedule};
use crate::session::{Effects, Happened};
use crate::talk::Talks;
use crate::topology::Roster;
use probe::Probe;
use slot::{Millis, Slot};
use sweep::Sweep;

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

/// What a worker measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// From send to SendResult.
    pub(crate) ack: Latency,
    /// From send to Deliver.
    pub(crate) deliver: Latency,
    /// From the time at which a message was meant to be sent to its first byte: what waited in this end,
    /// by its own fault or for the server's credit.
    pub(crate) queue: Latency,
    /// The same for messages whose receiver was away.
    pub(crate) catch_up: Latency,
    /// From the start of a connection to the end of the handshake, and to Welcome (T14).
    pub(crate) handshake: Latency,
    pub(crate) login: Latency,
    /// From a cut, or a restart of the server, to the Welcome after it.
    pub(crate) come_back: Latency,
    /// From a send to several users to its last delivery.
    pub(crate) fan_out: Latency,
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

    fn read<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, conn: ConnId) {
        while let Some(chunk) = io.read(conn) {
            let now = self.clock.now();
            self.check_silence(session, chunk.len(), now);
            let slot = &mut self.slots[session as usize];
            slot.session
                .received(chunk, now, &mut self.rng, &mut self.effects);
            self.book(io, session, now);
        }
        self.mark_dirty(session);
    }

    /// Between its Welcome and the first message nothing may reach a silent session.
    fn check_silence(&mut self, session: u32, bytes: usize, now: Micros) {
        let slot = &self.slots[session as usize];
        let is_quiet_time = match self.stage {
            Stage::Ramp => now > slot.online_since.micros() + CATCH_UP,
            Stage::Hold => true,
            _ => false,
        };
        if self.plan.silence && is_quiet_time && slot.session.is_active() {
            let what = format!("{bytes} bytes to a session that nobody wrote to");
            self.ledger.note(Kind::SilenceBroken, session, what);
        }
    }

    /// Enters into the account what a session's input led to.
    fn book<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, now: Micros) {
        let mut happened = std::mem::take(&mut self.effects.happened);
        for event in happened.drain(..) {
            self.book_one(io, session, event, now);
        }
        self.effects.happened = happened;
        if let Some(at) = self.effects.wake_at.take() {
            self.set_alarm(at, session, Alarm::Flush);
        }
    }

    fn book_one<E: Engine>(
        &mut self,
        io: &mut Io<'_, E>,
        session: u32,
        event: Happened,
        now: Micros,
    ) {
        match event {
            Happened::Welcomed(welcomed) => self.welcomed(session, welcomed, now),
            Happened::Answered {
                message,
                id,
                position,
                ..
            } => {
                if let Some(timing) = self.ledger.answered(message, id, position) {
                    self.record_ack(session, timing, now);
                }
            }
            Happened::Delivered {
                position,
                envelope,
                resynced,
            } => {
                let arrival = Arrival {
                    session,
                    position,
                    envelope: &envelope,
                    resynced,
                };
                match self.ledger.delivered(&arrival) {
                    Delivery::Fresh {
                        timing,
                        sender,
                        read,
                        fanned_out,
                    } => {
                        self.record_delivery(session, sender, timing, now);
                        if fanned_out {
                            let of = &mut self.latencies.fan_out;
                            of.record(timing.intended, timing.written, now);
                        }
                        if let Some(chat) = read {
                            self.slot(session).session.read(chat, position);
                        }
                    }
                    Delivery::Foreign => self.surprise(session, "a message of somebody else"),
                    Delivery::Settled => {}
                }
            }
            Happened::Receipt(update) => self.ledger.receipt(session, &update),
            Happened::Ephemeral(what) => self.surprise(session, what),
            Happened::Postponed { .. } => self.status.postponed += 1,
            Happened::AnsweredAgain { .. } | Happened::SessionError { .. } => {}
            Happened::Refused { message, code } => self.ledger.refused(message, code),
            Happened::Gap { reason } => {
                self.ledger
                    .note(Kind::Gap, session, format_args!("reason {reason}"));
            }
            Happened::Backwards { cursor, after } => {
                let what = format_args!("cursor {cursor:?} after {after:?}");
                self.ledger.note(Kind::Reordered, session, what);
            }
            Happened::GoAway { after } => self.go_away(io, session, now + after),
            Happened::Broken(what) => {
                *self
                    .status
                    .closes
                    .entry("protocol broken".into())
                    .or_default() += 1;
                self.ledger.note(Kind::ProtocolBroken, session, what);
                self.hang_up(io, session);
            }
        }
    }

    /// Something that is none of this run's: harmless, but no silence.
    fn surprise(&mut self, session: u32, what: &str) {
        if self.plan.silence && self.stage != Stage::Ramp {
            self.ledger.note(Kind::SilenceBroken, session, what);
        }
    }

    fn record_ack(&mut self, session: u32, timing: Timing, now: Micros) {
        if self.slot(session).online_since.micros() <= timing.intended {
            self.latencies
                .ack
                .record(timing.intended, timing.written, now);
            let queued = timing.written.saturating_sub(timing.intended);
            self.latencies.queue.record(0, 0, queued);
            self.recent.0.record(timing.intended, timing.written, now);
        }
    }

    /// A message waits for its receiver to come back, or was cut off from its sender by an absence: both
    /// say nothing about the server, and are kept apart.
    fn record_delivery(&mut self, session: u32, sender: u32, timing: Timing, now: Micros) {
        let present =
            |session: u32| self.slots[session as usize].online_since.micros() <= timing.intended;
        let (of, recent) = match present(session) && present(sender) {
            true => (&mut self.latencies.deliver, Some(&mut self.recent.1)),
            false => (&mut self.latencies.catch_up, None),
        };
        of.record(timing.intended, timing.written, now);
        if let Some(recent) = recent {
            recent.record(timing.intended, timing.written, now);
        }
    }

    fn flush_dirty<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for session in dirty.drain(..) {
            let slot = &mut self.slots[session as usize];
            slot.dirty = false;
            let ledger = &mut self.ledger;
            let compose = |message, _| ledger.compose(message, now);
            slot.session.flush(now, compose, &mut self.effects);
            self.write(io, session, now);
        }
        self.dirty = dirty;
    }

    /// Hands over what a session wants to write; what the connection does not take waits.
    fn write<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, now: Micros) {
        let out = &mut self.effects.out;
        let slot = &mut self.slots[session as usize];
        let Some(conn) = slot.conn().filter(|_| !out.is_empty()) else {
            return out.clear();
        };
        slot.last_write = Millis::after(now);
        if let Some(unsent) = &mut slot.unsent {
            unsent.extend_from_slice(out);
        } else {
            let taken = io.write(conn, out);
            if taken < out.len() {
                slot.unsent = Some(Box::new(out[taken..].into()));
                slot.session.set_blocked(true);
            }
        }
        out.clear();
    }

    fn continue_writing<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32, conn: ConnId) {
        let slot = &mut self.slots[session as usize];
        if let Some(mut unsent) = slot.unsent.take() {
            let taken = io.write(conn, &unsent);
            if taken < unsent.len() {
                bytes::Buf::advance(unsent.as_mut(), taken);
                slot.unsent = Some(unsent);
                return;
            }
        }
        slot.session.set_blocked(false);
        self.mark_dirty(session);
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

    fn send_heartbeats<E: Engine>(&mut self, io: &mut Io<'_, E>, now: Micros) {
        let quiet = self.heartbeat() / 2;
        while let Some(session) = self.heartbeats.take(now) {
            let slot = &self.slots[session as usize];
            if now.saturating_sub(slot.last_write.micros()) >= quiet {
                self.status.heartbeats += u64::from(self.ping(io, session));
            }
        }
        while let Some(session) = self.probe.take(now) {
            self.ping(io, session);
        }
    }

    /// Pings a session, and answers whether it was there.
    fn ping<E: Engine>(&mut self, io: &mut Io<'_, E>, session: u32) -> bool {
        let slot = &self.slots[session as usize];
        let conn = slot.conn().filter(|_| slot.session.is_active());
        conn.is_some_and(|conn| {
            io.ping(conn);
            true
        })
    }

    fn heartbeat(&self) -> Micros {
        self.plan.heartbeat.unwrap_or(self.status.heartbeat)
    }

    /// The first round starts with the first turn after the ramp; in a ramp longer than an interval it
    /// starts while it lasts (T10).
    fn start_heartbeats(&mut self, now: Micros) {
        let interval = self.heartbeat();
        if interval > 0 && self.heartbeats.is_over() {
            self.heartbeats = Sweep::endless(now, interval, self.roster.sessions());
        }
    }

    fn obey<E: Engine>(&mut self, io: &Io<'_, E>, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Hold => {
                self.stage = Stage::Hold;
                self.end_control();
                self.start_heartbeats(now);
            }
            Command::Exchange {
                step,
                from,
                until,
                scale,
            } => self.start_exchange(step, from, until, scale),
            Command::Cut {
                spread,
                control_rate,
            } => self.cut(spread, control_rate, now),
            Command::Rebind { over } => self.start_rebind(io, over, now),
            Command::Restart => self.expect_restart(now),
            Command::Drain => self.start_drain(now),
            Command::Stop => self.stop(),
        }
        self.publish_at = now;
    }

    fn publish(&mut self, now: Micros) {
        self.ledger.retire();
        self.status.tally = self.ledger.tally();
        self.status.settled = self.is_settled();
        self.status.stage = self.stage;
        let usage = process::thread_usage();
        (self.status.cpu, self.status.waited) = (usage.cpu, usage.waited);
        let mut view = self.window.view();
        view.status.clone_from(&self.status);
        view.ack.merge(&self.recent.0);
        view.deliver.merge(&self.recent.1);
        drop(view);
        self.recent.0.clear();
        self.recent.1.clear();
        self.publish_at = now + PUBLISH_EVERY;
    }

    fn is_settled(&self) -> bool {
        let everyone = self.status.active + self.status.gave_up == self.roster.sessions();
        match self.stage {
            Stage::Ramp => everyone,
            Stage::Hold | Stage::Stopped => true,
            Stage::Exchange => self.next_send().is_none(),
            Stage::Storm if self.is_control => true,
            Stage::Storm => self.severing.is_none() && everyone,
            Stage::Rebind => self.has_rebound(),
            Stage::Restart => everyone && self.is_back(),
            Stage::Drain => everyone && self.ledger.is_complete(),
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
            Event::Finished { .. } => {}
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

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self {
            ack: Latency::new(),
            deliver: Latency::new(),
            queue: Latency::new(),
            catch_up: Latency::new(),
            handshake: Latency::new(),
            login: Latency::new(),
            come_back: Latency::new(),
            fan_out: Latency::new(),
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.ack.merge(&other.ack);
        self.deliver.merge(&other.deliver);
        self.queue.merge(&other.queue);
        self.catch_up.merge(&other.catch_up);
        self.handshake.merge(&other.handshake);
        self.login.merge(&other.login);
        self.come_back.merge(&other.come_back);
        self.fan_out.merge(&other.fan_out);
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}
