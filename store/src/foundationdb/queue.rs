//! What waits in a shard, and which of it may go together.

use std::collections::{HashSet, VecDeque};

use roadstead::store::Command;
use roadstead_proto::UserId;

use super::config::FoundationLimits;
use super::work::Work;

/// Conflicts after which a command runs alone (R16).
const ALONE_AFTER: u8 = 2;

/// The commands of one shard that wait for a transaction.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Acknowledgements, openings, read marks: they have room ahead of sends (R26).
    ahead: VecDeque<Work>,
    sends: VecDeque<Work>,
    /// Users with a command in a transaction under way.
    busy: HashSet<UserId>,
}

impl Queue {
    pub(crate) fn push(&mut self, work: Work) {
        self.lane(&work).push_back(work);
    }

    fn lane(&mut self, work: &Work) -> &mut VecDeque<Work> {
        match work.command {
            Command::Send(_) => &mut self.sends,
            _ => &mut self.ahead,
        }
    }

    /// A batch has ended: its users are free, and what it put off comes first, in the same order.
    pub(crate) fn ended(&mut self, users: &[UserId], put_off: Vec<Work>) {
        for user in users {
            self.busy.remove(user);
        }
        for work in put_off.into_iter().rev() {
            self.lane(&work).push_front(work);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ahead.is_empty() && self.sends.is_empty()
    }

    /// The next batch, and its users, who are busy from now on. Empty if everything that waits belongs
    /// to busy users.
    pub(crate) fn next_batch(&mut self, limits: &FoundationLimits) -> (Vec<Work>, Vec<UserId>) {
        let mut batch = Vec::new();
        let mut users = HashSet::new();
        let busy = &self.busy;
        let ahead_max = limits.batch_ahead_max.min(limits.batch_commands_max);
        take(&mut self.ahead, busy, &mut batch, &mut users, ahead_max);
        take(
            &mut self.sends,
            busy,
            &mut batch,
            &mut users,
            limits.batch_commands_max,
        );
        self.busy.extend(&users);
        (batch, users.into_iter().collect())
    }
}

/// Moves what may go from a lane to a batch, in order. Whoever has something left behind in the lane
/// keeps the rest there too.
fn take(
    lane: &mut VecDeque<Work>,
    busy: &HashSet<UserId>,
    batch: &mut Vec<Work>,
    users: &mut HashSet<UserId>,
    places_max: usize,
) {
    let mut places: usize = batch.iter().map(Work::places).sum();
    if batch.iter().any(is_alone) {
        return;
    }
    let mut passed = Vec::new();
    while places < places_max {
        let Some(work) = lane.pop_front() else { break };
        if busy.contains(&work.user()) {
            passed.push(work);
            continue;
        }
        if is_alone(&work) && !batch.is_empty() {
            passed.push(work);
            break;
        }
        places += work.places();
        users.insert(work.user());
        let alone = is_alone(&work);
        batch.push(work);
        if alone {
            break;
        }
    }
    for work in passed.into_iter().rev() {
        lane.push_front(work);
    }
}

fn is_alone(work: &Work) -> bool {
    work.conflicts >= ALONE_AFTER
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use roadstead::ShardId;
    use roadstead::store::{InboxLimits, MarkRead, RequestId, Sends};
    use roadstead_proto::{ChatId, DeviceId, Position};

    use super::*;

    fn user(id: u64) -> UserId {
        UserId::new(id).expect("not 0")
    }

    fn work(id: u64, command: Command) -> Work {
        Work::new(ShardId(0), RequestId(id), command, Instant::now())
    }

    fn mark(id: u64, of: u64) -> Work {
        let device = DeviceId::new(1).expect("not 0");
        let command = Command::MarkRead(MarkRead {
            user: user(of),
            device,
            chat: ChatId::pair(user(of), user(99)),
            position: Position::ZERO,
        });
        work(id, command)
    }

    fn sends(id: u64, of: u64) -> Work {
        let command = Command::Send(Sends {
            user: user(of),
            device: DeviceId::new(1).expect("not 0"),
            limits: InboxLimits::DEFAULT,
            items: Vec::new(),
        });
        work(id, command)
    }

    fn ids(works: &[Work]) -> Vec<u64> {
        works.iter().map(|work| work.id.0).collect()
    }

    #[test]
    fn r16_a_users_commands_are_in_one_transaction_at_a_time() {
        let mut queue = Queue::default();
        queue.push(mark(1, 7));
        let (first, users) = queue.next_batch(&FoundationLimits::default());
        assert_eq!(ids(&first), [1]);
        queue.push(sends(2, 7));
        queue.push(sends(3, 8));
        let (second, _) = queue.next_batch(&FoundationLimits::default());
        assert_eq!(ids(&second), [3]);
        assert!(queue.next_batch(&FoundationLimits::default()).0.is_empty());
        queue.ended(&users, first);
        let (third, _) = queue.next_batch(&FoundationLimits::default());
        assert_eq!(ids(&third), [1, 2]);
        assert!(queue.is_empty());
    }

    #[test]
    fn r16_what_conflicted_twice_runs_alone() {
        let mut queue = Queue::default();
        let mut twice = mark(1, 7);
        twice.conflicts = ALONE_AFTER;
        queue.push(twice);
        queue.push(mark(2, 8));
        queue.push(sends(3, 9));
        let limits = FoundationLimits::default();
        assert_eq!(ids(&queue.next_batch(&limits).0), [1]);
        assert_eq!(ids(&queue.next_batch(&limits).0), [2, 3]);
    }

    #[test]
    fn r26_acknowledgements_have_room_ahead_of_sends_but_not_all_of_it() {
        let limits = FoundationLimits {
            batch_commands_max: 4,
            batch_ahead_max: 2,
            ..FoundationLimits::default()
        };
        let mut queue = Queue::default();
        for id in 1..=3 {
            queue.push(mark(id, id));
            queue.push(sends(10 + id, 10 + id));
        }
        let (batch, _) = queue.next_batch(&limits);
        assert_eq!(ids(&batch)[..2], [1, 2]);
        assert!(ids(&batch)[2..].iter().all(|id| *id > 10));
    }
}
