//! A node: its shards, and which connection each of their sessions is.
//!
//! Everything that belongs to one life of the process is here, so a crash is another [`Node`]. A second
//! node would be a second value of this type beside the first, with a `life` of its own: connections and
//! store requests already name the life they belong to.

use roadstead::time::Time;
use roadstead::{Placement, SessionId, Shard, ShardConfig, ShardId};

use crate::net::ConnId;
use crate::swarm::Plan;

/// See the [module](self).
#[derive(Debug)]
pub struct Node {
    /// Counts the lives of the process.
    pub life: u32,
    /// The incarnation of its lease (R24); none while it is down.
    pub lease: Option<u64>,
    /// Its shards.
    pub shards: Vec<Host>,
}

/// A shard and its connections.
#[derive(Debug)]
pub struct Host {
    /// The shard itself.
    pub shard: Shard,
    /// When its timer is set to.
    pub timer: Option<Time>,
    sessions: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    conn: Option<ConnId>,
}

impl Node {
    /// A life of the node that has not begun to serve.
    #[must_use]
    pub fn new(life: u32, plan: &Plan, placement: Placement) -> Self {
        let host = |id| {
            let mut config = ShardConfig::new(ShardId(id), placement, [9; 16]);
            config.inbox_limits.entries_max = plan.inbox_entries_max;
            config.send_rate = plan.send_rate;
            config.recipient_rate = plan.recipient_rate;
            Host {
                shard: Shard::new(config),
                timer: None,
                sessions: Vec::new(),
                free: Vec::new(),
            }
        };
        Self {
            life,
            lease: None,
            shards: (0..plan.shards).map(host).collect(),
        }
    }

    /// A shard.
    pub fn host(&mut self, id: ShardId) -> &mut Host {
        &mut self.shards[usize::from(id.0)]
    }
}

impl Host {
    /// A connection is open: what its session is called. Slots are used again, as transports do.
    pub fn open(&mut self, conn: ConnId) -> SessionId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(Slot {
                generation: 0,
                conn: None,
            });
            u32::try_from(self.sessions.len() - 1).expect("a run has few connections")
        });
        let slot = &mut self.sessions[place(index)];
        slot.generation += 1;
        slot.conn = Some(conn);
        SessionId {
            index,
            generation: slot.generation,
        }
    }

    /// A connection is closed.
    pub fn close(&mut self, session: SessionId) {
        self.sessions[place(session.index)].conn = None;
        self.free.push(session.index);
    }

    /// The connection of a session.
    #[must_use]
    pub fn conn(&self, session: SessionId) -> Option<ConnId> {
        let slot = &self.sessions[place(session.index)];
        slot.conn.filter(|_| slot.generation == session.generation)
    }

    /// Connections that are open here.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.sessions
            .iter()
            .filter(|slot| slot.conn.is_some())
            .count() as u64
    }
}

fn place(index: u32) -> usize {
    usize::try_from(index).expect("an index fits")
}
