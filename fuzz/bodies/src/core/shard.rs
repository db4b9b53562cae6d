//! Two shards and the real records under any sequence of inputs: hostile frames, answers of the store in
//! any order, lost or refused, timers, takeovers, drains. No panic; what clients are told keeps to the
//! rules (R1, R2, R4, R8, R12); everything is bounded; and nothing is left when everybody is gone.

use arbitrary::{Arbitrary, Unstructured};
use bytes::Bytes;
use roadstead_proto::v1::{self, client_frame::Body as Up};
use roadstead_proto::{ChatId, Position, UserId};

use super::world::World;

/// Steps of one input.
const STEPS_MAX: usize = 256;

/// Where a cursor of a client comes from.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Cursor {
    None,
    /// The last one that the server gave this connection.
    Last,
    /// One that it gave earlier.
    Earlier(u8),
    /// A place near the commits.
    Near {
        generation: u8,
        stamp: u8,
        index: u8,
    },
    /// Not even the right length.
    Bytes(u8),
}

#[derive(Arbitrary, Clone, Debug)]
enum Step {
    Open {
        shard: u8,
    },
    Hello {
        conn: u8,
        user: u8,
        device: u8,
        counter: u8,
        cursor: Cursor,
        flags: u8,
    },
    Send {
        conn: u8,
        number: u16,
        to: u8,
        len: u16,
        deadline_ms: u16,
    },
    /// Many at once.
    Burst {
        conn: u8,
        from: u16,
        count: u8,
        to: u8,
    },
    Ack {
        conn: u8,
        cursor: Cursor,
    },
    Read {
        conn: u8,
        peer: u8,
        cursor: Cursor,
    },
    Typing {
        conn: u8,
        peer: u8,
    },
    /// A frame as it came off the wire.
    Raw {
        conn: u8,
        frame: Vec<u8>,
    },
    Close {
        conn: u8,
    },
    /// One of the things that wait happens.
    Happen {
        nth: u8,
    },
    /// Several of them do, in order.
    Pump {
        count: u8,
    },
    /// A request is refused.
    Refuse {
        nth: u8,
        error: u8,
    },
    /// An answer is lost: what was committed is answered as unknown (R15).
    Lose {
        nth: u8,
    },
    Advance {
        ms: u16,
    },
    Reopened {
        shard: u8,
    },
    Drain {
        shard: u8,
    },
}

#[derive(Arbitrary, Debug)]
struct Plan {
    /// Whether the engine knows the entry before each, as a sole committer does (R4).
    sole: bool,
    inbox_max: u8,
    steps: Vec<Step>,
}

/// A [`Plan`], as `arbitrary` reads it.
pub fn run(data: &[u8]) {
    let Ok(plan) = Plan::arbitrary_take_rest(Unstructured::new(data)) else {
        return;
    };
    let mut world = World::new(plan.sole, 4 + u64::from(plan.inbox_max % 64));
    for step in plan.steps.into_iter().take(STEPS_MAX) {
        perform(&mut world, step);
        world.check();
    }
    world.settle();
}

fn perform(world: &mut World, step: Step) {
    match step {
        Step::Open { shard } => world.open(shard),
        Step::Hello {
            conn,
            user,
            device,
            counter,
            cursor,
            flags,
        } => {
            let hello = hello(world, conn, (user, device, counter), cursor, flags);
            world.frame(conn, Up::Hello(hello));
        }
        Step::Send {
            conn,
            number,
            to,
            len,
            deadline_ms,
        } => {
            let send = send(world, conn, number, to, usize::from(len), deadline_ms);
            world.frame(conn, Up::Send(send));
        }
        Step::Burst {
            conn,
            from,
            count,
            to,
        } => {
            for n in 0..u16::from(count) {
                let send = send(world, conn, from.saturating_add(n), to, 3, 0);
                world.frame(conn, Up::Send(send));
            }
        }
        Step::Ack { conn, cursor } => {
            let cursor = place(world, conn, cursor);
            world.frame(conn, Up::Ack(v1::Ack { cursor }));
        }
        Step::Read { conn, peer, cursor } => {
            let (chat, position) = (chat(world, conn, peer), place(world, conn, cursor));
            world.frame(conn, Up::Read(v1::Read { chat, position }));
        }
        Step::Typing { conn, peer } => {
            let chat = chat(world, conn, peer);
            world.frame(conn, Up::Typing(v1::Typing { chat, user: 0 }));
        }
        Step::Raw { conn, frame } => world.raw(conn, Bytes::from(frame)),
        Step::Close { conn } => world.close(conn),
        Step::Happen { nth } => world.happen(usize::from(nth)),
        Step::Pump { count } => (0..=count).for_each(|_| world.happen(0)),
        Step::Refuse { nth, error } => world.refuse(usize::from(nth), error),
        Step::Lose { nth } => world.lose(usize::from(nth)),
        Step::Advance { ms } => world.advance(u64::from(ms)),
        Step::Reopened { shard } => world.reopened(shard),
        Step::Drain { shard } => world.drain(shard),
    }
}

fn hello(
    world: &World,
    conn: u8,
    (user, device, counter): (u8, u8, u8),
    cursor: Cursor,
    flags: u8,
) -> v1::Hello {
    use v1::hello::Credential;
    let user = 1 + user % 3;
    v1::Hello {
        version: if flags & 0xc0 == 0xc0 { 2 } else { 1 },
        credential: match flags & 0x30 {
            0x30 => None,
            0x20 => Some(Credential::ResumeToken(Bytes::copy_from_slice(&[user]))),
            _ => Some(Credential::Token(user.to_string())),
        },
        device: u32::from(user) * 16 + u32::from(device % 5),
        connect_counter: counter.into(),
        cursor: place(world, conn, cursor),
        capabilities: u64::from(flags & 1),
    }
}

fn send(world: &World, conn: u8, number: u16, to: u8, len: usize, deadline_ms: u16) -> v1::Send {
    // Now and then one byte more than a payload may have.
    let max = roadstead_proto::limits::PAYLOAD_BYTES_MAX + 1;
    let len = if len > 65_000 { max } else { len % 256 };
    v1::Send {
        number: u64::from(number % 600),
        chat: chat(world, conn, to),
        payload: Bytes::from(vec![7; len]),
        deadline_ms: deadline_ms.into(),
        after: 0,
    }
}

/// The chat with a user; of strangers, or of no pair at all, for some.
fn chat(world: &World, conn: u8, peer: u8) -> Bytes {
    let user = |id: u8| UserId::new(u64::from(id % 4).max(1)).expect("not 0");
    match peer {
        250.. => Bytes::from(vec![peer; usize::from(peer - 240)]),
        240.. => Bytes::copy_from_slice(ChatId::pair(user(peer), user(peer / 2)).as_bytes()),
        _ => {
            let me = world.user(conn).unwrap_or(user(1));
            Bytes::copy_from_slice(ChatId::pair(me, user(peer)).as_bytes())
        }
    }
}

fn place(world: &World, conn: u8, cursor: Cursor) -> Bytes {
    let bytes = |position: Position| Bytes::copy_from_slice(position.as_bytes());
    match cursor {
        Cursor::None => Bytes::new(),
        Cursor::Last => world.cursor(conn, 0).map(bytes).unwrap_or_default(),
        Cursor::Earlier(back) => {
            let given = world.cursor(conn, usize::from(back));
            given.map(bytes).unwrap_or_default()
        }
        Cursor::Near {
            generation,
            stamp,
            index,
        } => bytes(Position::new(
            u32::from(generation % 3),
            [0, 0, 0, 0, 0, 0, 0, stamp, 0, 0],
            index.into(),
        )),
        Cursor::Bytes(len) => Bytes::from(vec![1; usize::from(len % 40)]),
    }
}

/// Drawn bytes: short plans and long ones.
#[must_use]
pub fn seeds() -> Vec<Vec<u8>> {
    crate::drawn(32, 2_000)
}
