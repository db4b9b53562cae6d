//! Whatever happens, a chat gets what the application sent to it, in that order, once (R12, R16, P112).

use std::collections::{BTreeMap, BTreeSet};

use super::server::{Draw, Link, Server};
use super::*;

const CHATS: u64 = 4;
const STEPS: usize = 400;
const SEEDS: u64 = 300;

/// A file of which a crash may lose what was not synced.
#[derive(Debug, Default)]
struct Disk {
    records: Vec<Record>,
    synced: usize,
}

impl Disk {
    fn append(&mut self, records: Vec<Record>) {
        let is_durable = records.iter().any(Record::must_be_durable);
        self.records.extend(records);
        if is_durable {
            self.synced = self.records.len();
        }
    }

    /// The power goes while these are written.
    fn crash(&mut self, written: &[Record], draw: &mut Draw) {
        self.records.extend_from_slice(written);
        let unsynced = (self.records.len() - self.synced) as u64;
        let lost = usize::try_from(draw.below(unsynced + 1)).expect("few");
        self.records.truncate(self.records.len() - lost);
        self.synced = self.records.len();
    }

    fn replay(&self) -> Saved {
        let mut saved = Saved::default();
        self.records.iter().for_each(|record| saved.apply(record));
        // As after a compaction, which must say the same.
        let mut again = Saved::default();
        saved
            .to_records()
            .iter()
            .for_each(|record| again.apply(record));
        assert_eq!(saved, again);
        again
    }
}

/// One device, its server, and an application that keeps a ledger.
struct World {
    draw: Draw,
    now: Now,
    session: Session,
    disk: Disk,
    server: Server,
    link: Option<Link>,
    /// Sessions that the client has lost and the server still reads.
    late: Vec<Link>,
    /// What the application sent, by number: its chat and its place there.
    sent: BTreeMap<u64, (ChatId, Bytes)>,
    taken_back: BTreeSet<u64>,
    /// Numbers of which the application was told that they are kept, or that they are taken back.
    promised: BTreeSet<u64>,
    messages: u64,
    crash_chance: u64,
    crashes: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Now {
            at: Instant::now(),
            unix_ms: 1_700_000_000_000,
        };
        let mut disk = Disk::default();
        let device = DeviceId::new(77).expect("not 0");
        disk.append(vec![Record::Device(device), Record::Numbers(0)]);
        Self {
            draw: Draw::new(seed),
            now,
            session: session(now, &disk, seed),
            disk,
            server: Server::default(),
            link: None,
            late: Vec::new(),
            sent: BTreeMap::new(),
            taken_back: BTreeSet::new(),
            promised: BTreeSet::new(),
            messages: 0,
            crash_chance: 0,
            crashes: 0,
        }
    }

    /// Does what the shell does after each input, unless the power goes.
    fn settle(&mut self) {
        let records = self.session.poll_record();
        if self.draw.below(1_000) < self.crash_chance {
            return self.crash(&records);
        }
        if !records.is_empty() {
            self.disk.append(records);
        }
        while let Some(event) = self.session.poll_event() {
            self.on_event(&event);
        }
        while let Some(frame) = self.session.poll_transmit(self.now) {
            match frame.body.expect("a body") {
                Sent::Hello(_) => self.link = Some(Link::default()),
                Sent::Send(send) => self.link.as_mut().expect("open").send(send),
                other => panic!("{other:?}"),
            }
        }
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Connect { needs_token } => {
                    let token = needs_token.then(|| "token".to_owned());
                    self.session.handle_connected(self.now, token);
                    self.settle();
                    if self.link.is_some() {
                        self.receive(Body::Welcome(welcome()));
                    }
                }
                Action::Close(_) => self.part(),
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::SendConfirmed(it) => {
                let (chat, payload) = &self.sent[&it.number];
                assert_eq!(it.chat, *chat);
                assert!(self.server.chats[chat].contains(payload), "{it:?}");
            }
            Event::SendFailed(it) => {
                assert_eq!(it.error, SendError::TakenBack, "nothing else is given up");
                assert!(self.taken_back.contains(&it.number));
            }
            _ => {}
        }
    }

    fn receive(&mut self, body: Body) {
        let frame = v1::ServerFrame { body: Some(body) };
        self.session.handle_frame(self.now, frame);
        self.settle();
    }

    fn send(&mut self) {
        let chat = chat_of(self.draw.below(CHATS));
        self.messages += 1;
        let payload = Bytes::copy_from_slice(&self.messages.to_be_bytes());
        if let Ok(number) = self.session.send(self.now, chat, payload.clone()) {
            self.sent.insert(number, (chat, payload));
            self.promise(number);
        }
    }

    fn take_back(&mut self) {
        let count = self.sent.len() as u64;
        let place = usize::try_from(self.draw.below(count.max(1))).expect("few");
        let Some(number) = self.sent.keys().nth(place).copied() else {
            return;
        };
        if self.session.take_back(self.now, number) {
            assert!(
                self.taken_back.insert(number),
                "{number} was taken back before"
            );
            self.promise(number);
        }
    }

    /// The application is told if no crash comes first.
    fn promise(&mut self, number: u64) {
        self.promised.remove(&number);
        let crashes = self.crashes;
        self.settle();
        if self.crashes == crashes {
            self.promised.insert(number);
        }
    }

    /// The session is over: what was on its way up the server may still read, now or much later.
    fn part(&mut self) {
        if let Some(link) = self.link.take() {
            self.late.push(link);
        }
    }

    fn lose(&mut self) {
        self.part();
        self.session.handle_disconnected(self.now, Cause::TimedOut);
        self.settle();
    }

    fn crash(&mut self, records: &[Record]) {
        let written = usize::try_from(self.draw.below(records.len() as u64 + 1)).expect("few");
        self.disk.crash(&records[..written], &mut self.draw);
        self.part();
        let seed = self.draw.below(1_000);
        self.session = session(self.now, &self.disk, seed);
        // What was written nowhere was never promised to anybody.
        let promised = &self.promised;
        let kept = |number: &u64, is_kept: bool| {
            assert!(
                is_kept || !promised.contains(number),
                "{number} was promised"
            );
            is_kept
        };
        let records = &self.disk.records;
        let is_send = |it: &Record, number| matches!(it, Record::Send(it) if it.number == number);
        let is_sent = |number: &u64| records.iter().any(|it| is_send(it, *number));
        self.sent.retain(|number, _| kept(number, is_sent(number)));
        let is_settled = |number: &u64| records.contains(&Record::Settled(*number));
        self.taken_back
            .retain(|number| kept(number, is_settled(number)));
        self.crashes += 1;
        self.settle();
    }

    fn pass(&mut self, time: Duration) {
        self.now.at += time;
        self.now.unix_ms += u64::try_from(time.as_millis()).expect("short");
        self.session.handle_timeout(self.now);
        self.settle();
    }

    fn pass_to_timeout(&mut self) {
        if let Some(at) = self.session.poll_timeout() {
            self.pass(at.saturating_duration_since(self.now.at));
        }
    }

    fn read_up(&mut self) {
        if let Some(link) = &mut self.link {
            self.server.read(link, &mut self.draw);
        }
    }

    fn read_down(&mut self) {
        let answer = self.link.as_mut().and_then(|link| link.down.pop_front());
        if let Some(answer) = answer {
            self.receive(answer);
        }
    }

    fn read_late(&mut self) {
        let count = self.late.len() as u64;
        let place = usize::try_from(self.draw.below(count.max(1))).expect("few");
        if let Some(link) = self.late.get_mut(place) {
            self.server.read(link, &mut self.draw);
        }
    }

    fn change_mood(&mut self) {
        let chat = chat_of(self.draw.below(CHATS));
        let of = |set: &mut BTreeSet<ChatId>| {
            if !set.remove(&chat) {
                set.insert(chat);
            }
        };
        match self.draw.below(5) {
            0 | 1 => of(&mut self.server.full),
            2 | 3 => of(&mut self.server.busy),
            _ => self.server.failing = !self.server.failing,
        }
    }

    fn step(&mut self, kind: u64) {
        match kind {
            0..25 => self.send(),
            25..50 => self.read_up(),
            50..75 => self.read_down(),
            75..80 => self.read_late(),
            80..84 => self.take_back(),
            84..90 => self.pass_to_timeout(),
            90..94 => self.pass(Duration::from_millis(100)),
            94..97 => self.change_mood(),
            97 => self.lose(),
            _ => (0..20).for_each(|_| self.send()),
        }
    }

    /// Nothing goes wrong any more, and everything settles.
    fn heal(&mut self) {
        self.crash_chance = 0;
        self.server.full.clear();
        self.server.busy.clear();
        self.server.failing = false;
        for _ in 0..20_000 {
            self.read_late();
            self.read_up();
            self.read_down();
            let link = self.link.as_ref();
            if link.is_none_or(|link| link.up.is_empty() && link.down.is_empty()) {
                if self.disk.replay().unconfirmed.is_empty() {
                    return;
                }
                self.pass_to_timeout();
            }
        }
        panic!("{:?} are not settled", self.disk.replay().unconfirmed);
    }

    fn check(&self) {
        let mut expected: BTreeMap<ChatId, Vec<Bytes>> = BTreeMap::new();
        for (number, (chat, payload)) in &self.sent {
            if !self.taken_back.contains(number) {
                expected.entry(*chat).or_default().push(payload.clone());
            }
        }
        assert_eq!(self.server.chats, expected);
    }
}

fn session(now: Now, disk: &Disk, seed: u64) -> Session {
    let settings = Settings {
        reconnect_min: Duration::from_millis(10),
        reconnect_max: Duration::from_secs(1),
        send_deadline_ms: 0,
        keep_unconfirmed: Duration::from_secs(7 * 24 * 3600),
        jitter_seed: seed,
    };
    Session::new(now, settings, disk.replay())
}

fn chat_of(index: u64) -> ChatId {
    let user = |id| UserId::new(id).expect("not 0");
    ChatId::pair(user(ME), user(PEER + index))
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    world.settle();
    world.crash_chance = seed % 4 * 10;
    for _ in 0..STEPS {
        let kind = world.draw.below(100);
        world.step(kind);
    }
    world.heal();
    world.check();
}

#[test]
fn df1_r16_a_chat_gets_all_in_order_and_once_whatever_happens() {
    for seed in 0..SEEDS {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

/// One recipient has no room for a day. What goes to another is answered at once, all the time.
#[test]
fn df1_p112_other_chats_never_wait_for_one_that_takes_nothing() {
    let mut world = World::new(1);
    world.settle();
    let (full, other) = (chat_of(0), chat_of(1));
    world.server.full.insert(full);
    let end = world.now.at + Duration::from_secs(24 * 3600);
    let mut committed = 0;
    while world.now.at < end {
        for chat in [full, other] {
            world.messages += 1;
            let payload = Bytes::copy_from_slice(&world.messages.to_be_bytes());
            if world.session.send(world.now, chat, payload).is_ok() {
                world.settle();
            }
        }
        while world.link.as_ref().is_some_and(|link| !link.up.is_empty()) {
            world.read_up();
            // Those who write to the full one are told of it; nothing is confirmed that was not sent.
            let answer = world.link.as_mut().and_then(|link| link.down.pop_front());
            let frame = v1::ServerFrame { body: answer };
            world.session.handle_frame(world.now, frame);
            let records = world.session.poll_record();
            world.disk.append(records);
            while world.session.poll_event().is_some() {}
            world.settle();
        }
        committed += 1;
        assert_eq!(world.server.chats[&other].len(), committed);
        world.pass(Duration::from_secs(10));
    }
    assert!(!world.server.chats.contains_key(&full));
    let waiting = world.disk.replay().unconfirmed.len();
    assert!(waiting > 100, "they wait: {waiting}");
}
