//! Driving the shards: inputs in, outputs carried out, as the contract of the core asks.

use std::time::Duration;

use roadstead::store::Grown;
use roadstead::{Credential, Identity, Input, Output, Proof, SessionId, ShardId, ShardMessage};
use roadstead_proto::{ErrorCode, UserId};

use super::World;
use super::events::Event;
use crate::canary::Canary;

impl World {
    pub(super) fn shard_input(&mut self, shard: ShardId, input: Input) {
        let now = self.clock();
        self.node.host(shard).shard.handle(now, input);
        self.drain(shard);
    }

    pub(super) fn shard_timer(&mut self, shard: ShardId) {
        let now = self.clock();
        let host = self.node.host(shard);
        if host.timer != Some(now.at) {
            // Another timer, set since for an earlier moment, has taken its place.
            return;
        }
        host.timer = None;
        if host.shard.poll_timeout().is_some_and(|at| at <= now.at) {
            host.shard.handle_timeout(now);
        }
        self.drain(shard);
    }

    fn drain(&mut self, shard: ShardId) {
        while let Some(output) = self.node.host(shard).shard.poll() {
            match output {
                Output::Frame(session, frame) => {
                    if let Some(conn) = self.node.host(shard).conn(session) {
                        self.note("says", conn.0, &frame);
                        self.checker.server_frame(conn, &frame);
                        self.send_down(conn, frame);
                    }
                }
                Output::Authenticate {
                    session,
                    credential,
                    ..
                } => {
                    self.authenticate(shard, session, &credential);
                }
                Output::Close(session, reason) => {
                    self.count("close by server");
                    if let Some(conn) = self.node.host(shard).conn(session) {
                        self.server_closes(conn, reason.code);
                    }
                }
                Output::Shard(to, message) => self.shard_message(shard, to, message),
                Output::Store(request) => {
                    let origin = self.origin(shard);
                    self.with_store(|store, step| store.submit(step, origin, request));
                }
            }
        }
        self.set_timer(shard);
    }

    fn set_timer(&mut self, shard: ShardId) {
        let now = self.now;
        let host = self.node.host(shard);
        let Some(due) = host.shard.poll_timeout() else {
            return;
        };
        if host.timer.is_none_or(|timer| due < timer) {
            let at = due.max(now);
            host.timer = Some(at);
            let life = self.node.life;
            self.at(at, Event::Timer(life, shard));
        }
    }

    /// A token is the user's number: what tokens are worth is not this simulator's matter.
    fn authenticate(&mut self, shard: ShardId, session: SessionId, credential: &Credential) {
        let user = match credential {
            Credential::Token(token) => token.parse().ok().and_then(|id| UserId::new(id).ok()),
            Credential::Resume(_) => None,
        };
        let identity = user.map(|user| Identity {
            user,
            resume_token: bytes::Bytes::new(),
            issued_s: 0,
            proof: Proof::Signed,
        });
        let result = identity.ok_or(ErrorCode::TokenInvalid);
        let wait = self.rng.delay(Duration::from_millis(3));
        let (life, input) = (self.node.life, Input::Authenticated(session, result));
        self.after(wait, Event::Shard(life, shard, input));
    }

    fn shard_message(&mut self, from: ShardId, to: ShardId, mut message: ShardMessage) {
        let mut delay = Duration::from_micros(20);
        if self.hostile {
            delay = self.rng.delay(self.plan.faults.shard_delay);
        }
        let canary = self.plan.canary;
        match canary {
            Some(Canary::R4) if self.drops(&mut message) => return,
            Some(Canary::R5) => delay += self.registers_early(&message),
            Some(Canary::R13) => {
                if let ShardMessage::Register { claim, .. } = &mut message {
                    claim.connect_counter = u64::MAX - claim.connect_counter;
                }
            }
            _ => {}
        }
        let last = self.queues.entry((from, to)).or_default();
        let at = crate::net::in_order(last, self.now, delay);
        let life = self.node.life;
        self.at(at, Event::Shard(life, to, Input::Shard(from, message)));
    }

    /// R4's planted bug: a hand-over is lost, and the next one proves an interval that it does not know.
    fn drops(&mut self, message: &mut ShardMessage) -> bool {
        let (ShardMessage::Notify(_, grown) | ShardMessage::Grown(grown)) = message else {
            return false;
        };
        let Grown {
            user,
            device,
            previous,
            ..
        } = *grown;
        if let Some(proved) = self.dropped.remove(&(user, device)) {
            grown.previous = proved;
            return false;
        }
        let drops = self.rng.one_in(8);
        if drops {
            self.dropped.insert((user, device), previous);
        }
        drops
    }

    /// R5's planted bug: the session reads before its home knows of it.
    fn registers_early(&mut self, message: &ShardMessage) -> Duration {
        let ShardMessage::Register { holder, .. } = message else {
            return Duration::ZERO;
        };
        let (life, input) = (self.node.life, ShardMessage::Registered(holder.session));
        let input = Input::Shard(holder.shard, input);
        self.after(
            Duration::from_micros(1),
            Event::Shard(life, holder.shard, input),
        );
        Duration::from_millis(self.rng.between(100, 1_500))
    }
}
