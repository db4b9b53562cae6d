//! Bounded queues into a loop, and the wake-up that goes with them.
//!
//! A wake-up costs far more than a message, so a producer wakes only a loop that has declared itself
//! asleep; [`crate::sleep`] says why none is lost. A producer that is itself a loop of this crate leaves the
//! wake-up to its own ring (MSG_RING rides on its next submit); any other thread writes to an eventfd.

use std::{
    cell::RefCell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
};

use crossbeam_queue::ArrayQueue;

use crate::{error::Error, sleep::Sleep, sys::EventFd};

/// No ring yet, or no ring any more.
const NO_RING: i32 = -1;

thread_local! {
    /// Wake-ups that this thread's loop owes; `None` on a thread without a loop.
    static OWED: RefCell<Option<Vec<Arc<Waker>>>> = const { RefCell::new(None) };
}

/// How one loop is woken.
pub(crate) struct Waker {
    sleep: Sleep,
    ring: AtomicI32,
    event: EventFd,
    sent: AtomicU64,
}

impl Waker {
    pub(crate) fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            sleep: Sleep::new(),
            ring: AtomicI32::new(NO_RING),
            event: EventFd::new()?,
            sent: AtomicU64::new(0),
        }))
    }

    /// The eventfd that the loop's ring watches.
    pub(crate) fn event(&self) -> &EventFd {
        &self.event
    }

    /// The loop's ring, if it runs. The number may be stale by the time it is used: a message to a ring
    /// that is gone fails, and one to another loop's ring is a needless wake-up.
    pub(crate) fn ring(&self) -> Option<i32> {
        Some(self.ring.load(Ordering::Acquire)).filter(|ring| *ring != NO_RING)
    }

    /// The loop says which ring is its own.
    pub(crate) fn attach(&self, ring: i32) {
        self.ring.store(ring, Ordering::Release);
    }

    /// The loop ends.
    pub(crate) fn detach(&self) {
        self.ring.store(NO_RING, Ordering::Release);
    }

    /// Declares the loop asleep. It must look at its queues once more before it sleeps, and call
    /// `awake` in any case.
    pub(crate) fn fall_asleep(&self) {
        self.sleep.fall_asleep();
    }

    /// The loop is awake again.
    pub(crate) fn awake(&self) {
        self.sleep.awake();
    }

    /// Called after a push.
    fn wake(self: &Arc<Self>) {
        if !self.sleep.must_wake() {
            return;
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        let owed = OWED.with_borrow_mut(|owed| match owed {
            Some(list) => {
                list.push(self.clone());
                true
            }
            None => false,
        });
        if !owed {
            self.event.signal();
        }
    }
}

/// Marks this thread as one with a loop, whose wake-ups its ring sends.
pub(crate) fn enter_loop() {
    OWED.set(Some(Vec::new()));
}

/// The loop ends; what it still owes is sent by eventfd.
pub(crate) fn leave_loop() {
    for waker in OWED.take().unwrap_or_default() {
        waker.event.signal();
    }
}

/// Takes the wake-ups that this loop owes.
pub(crate) fn take_owed(mut each: impl FnMut(Arc<Waker>)) {
    OWED.with_borrow_mut(|owed| {
        if let Some(list) = owed {
            list.drain(..).for_each(&mut each);
        }
    });
}

/// A bounded queue into one loop.
pub(crate) struct Queue<T> {
    items: ArrayQueue<T>,
    waker: Arc<Waker>,
}

impl<T> Queue<T> {
    pub(crate) fn new(capacity: usize, waker: Arc<Waker>) -> Arc<Self> {
        Arc::new(Self {
            items: ArrayQueue::new(capacity.max(1)),
            waker,
        })
    }

    /// Queues `item` and wakes the loop if it sleeps. Gives it back when the queue is full.
    pub(crate) fn push(&self, item: T) -> Result<(), T> {
        self.items.push(item)?;
        self.waker.wake();
        Ok(())
    }

    pub(crate) fn pop(&self) -> Option<T> {
        self.items.pop()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// The way into one loop for messages of its application, from any thread. Cheap to clone.
pub struct Mailbox<M> {
    queue: Arc<Queue<M>>,
}

impl<M> Mailbox<M> {
    pub(crate) fn new(queue: Arc<Queue<M>>) -> Self {
        Self { queue }
    }

    /// Queues a message, which arrives at [`App::message`](crate::App::message) of the loop. Never
    /// blocks: a full mailbox gives the message back, and the caller slows its own source down.
    pub fn send(&self, message: M) -> Result<(), M> {
        self.queue.push(message)
    }

    /// How many messages wait, for metrics.
    pub fn len(&self) -> usize {
        self.queue.items.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many may wait.
    pub fn capacity(&self) -> usize {
        self.queue.items.capacity()
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<M> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waker")
            .field("ring", &self.ring())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A consumer that sleeps on the eventfd by the protocol of this module.
    fn consume(queue: &Queue<u64>, count: u64) -> (u64, u64) {
        let (mut sum, mut taken, mut sleeps) = (0, 0, 0);
        while taken < count {
            while let Some(n) = queue.pop() {
                sum += n;
                taken += 1;
            }
            queue.waker.fall_asleep();
            if queue.is_empty() && taken < count {
                sleeps += 1;
                queue.waker.event().wait();
            }
            queue.waker.awake();
        }
        (sum, sleeps)
    }

    #[test]
    fn no_message_and_no_wake_up_is_lost() {
        const EACH: u64 = 50_000;
        let queue = Queue::new(64, Waker::new().unwrap());
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let queue = queue.clone();
                thread::spawn(move || {
                    for n in 0..EACH {
                        let mut item = n;
                        while let Err(back) = queue.push(item) {
                            item = back;
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let (sum, sleeps) = consume(&queue, 2 * EACH);
        producers.into_iter().for_each(|p| p.join().unwrap());
        assert_eq!(sum, EACH * (EACH - 1));
        let sent = queue.waker.sent.load(Ordering::Relaxed);
        assert!(
            sent <= sleeps + 1 + 2 * EACH,
            "{sent} wake-ups for {sleeps} sleeps"
        );
    }

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let waker = Waker::new().unwrap();
        let queue = Queue::new(8, waker.clone());
        queue.push(1).unwrap();
        assert_eq!(waker.sent.load(Ordering::Relaxed), 0);
        waker.fall_asleep();
        queue.push(2).unwrap();
        queue.push(3).unwrap();
        assert_eq!(waker.sent.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_loop_owes_its_wake_ups_to_its_ring() {
        let waker = Waker::new().unwrap();
        let queue = Queue::new(8, waker.clone());
        enter_loop();
        waker.fall_asleep();
        queue.push(1).unwrap();
        let mut owed = 0;
        take_owed(|_| owed += 1);
        assert_eq!(owed, 1);
        leave_loop();
        waker.fall_asleep();
        queue.push(2).unwrap();
        waker.event().wait();
    }

    #[test]
    fn a_full_mailbox_gives_the_message_back() {
        let mailbox = Mailbox::new(Queue::new(2, Waker::new().unwrap()));
        assert_eq!(mailbox.send("a"), Ok(()));
        assert_eq!(mailbox.clone().send("b"), Ok(()));
        assert_eq!(mailbox.send("c"), Err("c"));
        assert_eq!((mailbox.len(), mailbox.capacity()), (2, 2));
    }
}
