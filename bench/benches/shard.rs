//! One message through the core: Send in, the store asked, its answer in, SendResult and Deliver out, and
//! the receiver's Ack with its share of a flush. The store's answer is made up on the spot, so that what
//! is measured is the shard alone: a commit without a receipt for the sender.

use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use roadstead::store::{
    Command, Completion, DeviceOpened, EntryBody, Grown, InboxPage, Outcome, Sends, Sent,
};
use roadstead::{
    Identity, Input, Now, Output, Placement, Proof, SessionId, Shard, ShardConfig, ShardId, Time,
};
use roadstead_proto::v1::{self, ClientFrame, client_frame::Body, server_frame};
use roadstead_proto::{ChatId, DeviceId, MessageId, Position, UserId};

const UNIX_MS: u64 = 1_800_000_000_000;
const GENERATION: u32 = 1;

/// Time between two messages of the shard.
const STEP: Duration = Duration::from_micros(20);

/// A shard, and pairs of users: 2n+1 writes to 2n+2.
struct World {
    shard: Shard,
    now: Now,
    commits: u64,
    /// The entry last appended to the inbox of each user, by session index.
    last: Vec<Position>,
    numbers: Vec<u64>,
    results: u64,
    delivered: u64,
}

fn user(session: u32) -> UserId {
    UserId::new(u64::from(session) + 1).expect("not 0")
}

fn device() -> DeviceId {
    DeviceId::new(1).expect("not 0")
}

fn id(index: u32) -> SessionId {
    SessionId {
        index,
        generation: 0,
    }
}

fn at(index: u32) -> usize {
    usize::try_from(index).expect("a small number")
}

fn session_of(user: UserId) -> u32 {
    u32::try_from(user.get() - 1).expect("a session's index")
}

impl World {
    fn new(pairs: u32) -> Self {
        let placement = Placement::new([1; 16], 1);
        let mut world = Self {
            shard: Shard::new(ShardConfig::new(ShardId(0), placement, [2; 16])),
            now: Now {
                at: Time::from_micros(1),
                unix_ms: UNIX_MS,
            },
            commits: 1,
            last: vec![Position::ZERO; at(2 * pairs)],
            numbers: vec![0; at(2 * pairs)],
            results: 0,
            delivered: 0,
        };
        let from_ms = UNIX_MS - MessageId::EPOCH_UNIX_MS;
        world.handle(Input::MessageIdsReserved {
            from_ms,
            until_ms: from_ms + (1 << 36),
        });
        for session in 0..2 * pairs {
            world.open(id(session));
        }
        world
    }

    fn open(&mut self, session: SessionId) {
        self.handle(Input::Opened(session));
        let hello = v1::Hello {
            version: roadstead_proto::VERSION,
            credential: Some(v1::hello::Credential::Token("a token".into())),
            device: device().get(),
            connect_counter: 1,
            cursor: Bytes::new(),
            capabilities: 0,
        };
        self.frame(session, Body::Hello(hello));
    }

    /// The steps of one message from a pair's first user to its second.
    fn message(&mut self, pair: u32, payload: &Bytes) {
        let (from, to) = (2 * pair, 2 * pair + 1);
        let chat = ChatId::pair(user(from), user(to));
        self.numbers[at(from)] += 1;
        let send = v1::Send {
            number: self.numbers[at(from)],
            chat: Bytes::copy_from_slice(chat.as_bytes()),
            payload: payload.clone(),
            deadline_ms: 0,
            after: 0,
        };
        self.frame(id(from), Body::Send(send));
        let cursor = Bytes::copy_from_slice(self.last[at(to)].as_bytes());
        self.frame(id(to), Body::Ack(v1::Ack { cursor }));
        self.tick();
    }

    fn frame(&mut self, session: SessionId, body: Body) {
        self.handle(Input::Frame(session, ClientFrame { body: Some(body) }));
    }

    /// Lets time pass and does what is due.
    fn tick(&mut self) {
        self.now.at = self.now.at + STEP;
        self.now.unix_ms = UNIX_MS + self.now.at.as_micros() / 1_000;
        if self
            .shard
            .poll_timeout()
            .is_some_and(|due| due <= self.now.at)
        {
            self.shard.handle_timeout(self.now);
            self.drain();
        }
    }

    fn handle(&mut self, input: Input) {
        self.shard.handle(self.now, input);
        self.drain();
    }

    /// Polls until there is nothing more; answers come after, as the drive contract wants.
    fn drain(&mut self) {
        let mut answers = Vec::new();
        while let Some(output) = self.shard.poll() {
            match output {
                Output::Frame(_, frame) => self.count(frame.body.as_ref()),
                Output::Authenticate { session, .. } => {
                    let identity = Identity {
                        user: user(session.index),
                        resume_token: Bytes::from_static(b"a resume token"),
                        issued_s: 0,
                        proof: Proof::Signed,
                    };
                    answers.push(Input::Authenticated(session, Ok(identity)));
                }
                Output::Store(request) => answers.push(Input::Store(Completion {
                    id: request.id,
                    outcome: Ok(self.answer(&request.command)),
                })),
                Output::Close(_, reason) => panic!("{reason:?}"),
                Output::Shard(..) => panic!("there is one shard"),
            }
        }
        for answer in answers {
            self.handle(answer);
        }
    }

    fn count(&mut self, frame: Option<&server_frame::Body>) {
        match frame {
            Some(server_frame::Body::SendResult(_)) => self.results += 1,
            Some(server_frame::Body::Deliver(_)) => self.delivered += 1,
            Some(server_frame::Body::Error(error)) => panic!("{error:?}"),
            _ => {}
        }
    }

    /// What a store would say.
    fn answer(&mut self, command: &Command) -> Outcome {
        match command {
            Command::OpenDevice(_) => Outcome::DeviceOpened(DeviceOpened {
                generation: GENERATION,
                stored_ack: Position::ZERO,
                expired_through: Position::ZERO,
                resync: false,
                highest_number: None,
                version: 0,
            }),
            Command::Send(sends) => self.commit(sends),
            Command::ReadInbox(read) => Outcome::Inbox(InboxPage {
                entries: Vec::new(),
                through: self.last[at(session_of(read.user))],
                more: false,
            }),
            Command::Flush(flush) => Outcome::Flushed {
                stored_ack: flush.upto,
                more: false,
                grown: Vec::new(),
            },
            Command::CheckInbox(_) => Outcome::InboxChecked {
                suspended: false,
                grown: Vec::new(),
            },
            Command::MarkRead(_) => panic!("nobody reads"),
        }
    }

    fn commit(&mut self, sends: &Sends) -> Outcome {
        let (mut answers, mut grown) = (Vec::new(), Vec::new());
        for item in &sends.items {
            self.commits += 1;
            let mut stamp = [0; 10];
            stamp[..8].copy_from_slice(&self.commits.to_be_bytes());
            let cursor = Position::new(GENERATION, stamp, 0);
            let inbox = &mut self.last[at(session_of(item.recipient))];
            grown.push(Grown {
                user: item.recipient,
                device: device(),
                previous: Some(std::mem::replace(inbox, cursor)),
                cursor,
                entry: Some(EntryBody::Message {
                    chat_position: Position::ZERO,
                    envelope: item.envelope.clone(),
                }),
            });
            answers.push(Ok(Sent {
                message_id: MessageId::new(item.envelope.message_id),
                position: cursor,
                server_time_ms: item.envelope.server_time_ms,
                repeated: false,
            }));
        }
        Outcome::Sent { answers, grown }
    }
}

fn shard(criterion: &mut Criterion) {
    roadstead_bench::print_machine();
    let mut group = criterion.benchmark_group("shard message");
    let payload = Bytes::from_static(&[7; 100]);
    // One pair stays in the cache, 50,000 pairs do not.
    for pairs in [1, 1_000, 50_000] {
        let mut world = World::new(pairs);
        let (mut pair, mut sent) = (0, 0);
        group.bench_function(BenchmarkId::new("pairs", pairs), |bencher| {
            bencher.iter(|| {
                pair = (pair + 611_953) % pairs;
                sent += 1;
                world.message(pair, &payload);
            });
        });
        assert_eq!((world.results, world.delivered), (sent, sent));
        let counters = world.shard.counters();
        assert_eq!(counters.delivered_without_read, sent, "the live path");
    }
    group.finish();
}

criterion_group!(benches, shard);
criterion_main!(benches);
