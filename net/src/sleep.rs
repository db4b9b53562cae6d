//! Who wakes a loop that may be falling asleep: the two halves of one store and one load on each side.
//!
//! ```text
//! consumer: sleeping = true; fence; are the queues empty?    then sleep
//! producer: push;            fence; is the consumer sleeping? then wake, once
//! ```
//!
//! With both fences sequentially consistent at least one of them sees the other's write, so no message is
//! left lying while the loop sleeps. `net/loom` proves it over every interleaving and every order that the
//! memory model allows, with this very file: `cargo xtask model`.

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a loop sleeps.
#[derive(Debug)]
pub(crate) struct Sleep(AtomicBool);

impl Sleep {
    /// Awake.
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The consumer declares itself asleep. It must look at its queues once more before it sleeps.
    pub(crate) fn fall_asleep(&self) {
        self.set(true);
        fence(Ordering::SeqCst);
    }

    /// The consumer is awake again.
    pub(crate) fn awake(&self) {
        self.set(false);
    }

    /// A store comes after all that it overwrites. loom (0.7) does not know that of a store and another
    /// thread's swap, and invents lost wake-ups; a relaxed swap tells it, and synchronises nothing more.
    #[cfg(loom)]
    fn set(&self, sleeps: bool) {
        self.0.swap(sleeps, Ordering::Relaxed);
    }

    #[cfg(not(loom))]
    fn set(&self, sleeps: bool) {
        self.0.store(sleeps, Ordering::Relaxed);
    }

    /// For a producer, after its push: whether it is the one that has to wake the consumer.
    pub(crate) fn must_wake(&self) -> bool {
        fence(Ordering::SeqCst);
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}
