//! The wake-up of net's loops under [loom](https://docs.rs/loom): every interleaving, and every order of
//! memory that C11 allows. The file under test is the one that `roadstead-net` is built from.

#![cfg(loom)]
#![allow(dead_code, reason = "only tests use it")]

#[path = "../../src/sleep.rs"]
mod sleep;

#[cfg(test)]
mod tests {
    use loom::sync::atomic::{AtomicUsize, Ordering, fence};
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::sleep::Sleep;

    /// The weakest queue that the protocol may meet: its length is published by relaxed operations.
    struct Loop {
        queued: AtomicUsize,
        sleep: Sleep,
        event: Notify,
    }

    impl Loop {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                queued: AtomicUsize::new(0),
                sleep: Sleep::new(),
                event: Notify::new(),
            })
        }

        fn push(&self) {
            self.queued.fetch_add(1, Ordering::Relaxed);
            if self.sleep.must_wake() {
                self.event.notify();
            }
        }

        /// Takes `count` messages; sleeps as `looper.rs` does. A lost wake-up is a deadlock, which loom
        /// reports.
        fn consume(&self, count: usize) {
            let mut taken = 0;
            loop {
                taken += self.queued.swap(0, Ordering::Relaxed);
                if taken == count {
                    return;
                }
                self.sleep.fall_asleep();
                if self.queued.load(Ordering::Relaxed) == 0 {
                    self.event.wait();
                }
                self.sleep.awake();
            }
        }
    }

    #[test]
    fn no_wake_up_is_lost_with_one_producer() {
        loom::model(|| {
            let one = Loop::new();
            let producer = {
                let one = one.clone();
                thread::spawn(move || one.push())
            };
            one.consume(1);
            producer.join().expect("the producer ends");
        });
    }

    #[test]
    fn no_wake_up_is_lost_with_two_producers() {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(|| {
            let one = Loop::new();
            let producers = [one.clone(), one.clone()].map(|one| thread::spawn(move || one.push()));
            one.consume(2);
            for producer in producers {
                producer.join().expect("the producer ends");
            }
        });
    }

    /// The canary: with the producer's fence left out, loom must find the interleaving that deadlocks.
    #[test]
    #[should_panic(expected = "deadlock")]
    fn without_a_fence_a_wake_up_is_lost() {
        loom::model(|| {
            let queued = Arc::new(AtomicUsize::new(0));
            let sleeping = Arc::new(loom::sync::atomic::AtomicBool::new(false));
            let event = Arc::new(Notify::new());
            let producer = {
                let (queued, sleeping, event) = (queued.clone(), sleeping.clone(), event.clone());
                thread::spawn(move || {
                    queued.fetch_add(1, Ordering::Relaxed);
                    if sleeping.load(Ordering::Relaxed) {
                        event.notify();
                    }
                })
            };
            sleeping.store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if queued.load(Ordering::Relaxed) == 0 {
                event.wait();
            }
            producer.join().expect("the producer ends");
        });
    }
}
