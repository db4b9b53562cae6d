//! Who holds how many bytes: an allocator that counts by owner. What one end allocates it also frees,
//! as packets are copied on the wire.
//!
//! The program has one thread, so a load and a store count without a locked instruction.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// Whom allocations belong to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Bench = 0,
    Client = 1,
    Server = 2,
}

static OWNER: AtomicUsize = AtomicUsize::new(0);
static HELD: [AtomicI64; 3] = [const { AtomicI64::new(0) }; 3];
static PEAK: [AtomicI64; 3] = [const { AtomicI64::new(0) }; 3];
static CALLS: AtomicI64 = AtomicI64::new(0);

/// Runs `f` with its allocations counted for `owner`.
pub fn owned_by<R>(owner: Owner, f: impl FnOnce() -> R) -> R {
    let before = OWNER.swap(owner as usize, Relaxed);
    let result = f();
    OWNER.store(before, Relaxed);
    result
}

/// Bytes that an owner holds.
pub fn held(owner: Owner) -> i64 {
    HELD[owner as usize].load(Relaxed)
}

/// The most that an owner held since the last call.
pub fn take_peak(owner: Owner) -> i64 {
    PEAK[owner as usize].swap(held(owner), Relaxed)
}

/// Allocations of both ends so far.
pub fn allocations() -> i64 {
    CALLS.load(Relaxed)
}

fn count(bytes: usize, sign: i64) {
    let owner = OWNER.load(Relaxed);
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let now = HELD[owner].load(Relaxed) + sign * bytes;
    HELD[owner].store(now, Relaxed);
    if now > PEAK[owner].load(Relaxed) {
        PEAK[owner].store(now, Relaxed);
    }
    if sign > 0 && owner != Owner::Bench as usize {
        CALLS.store(CALLS.load(Relaxed) + 1, Relaxed);
    }
}

#[derive(Debug)]
pub struct Counting;

// SAFETY: every call is passed on to the system allocator unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }

    // SAFETY: the caller's promises are the system allocator's.
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above.
        unsafe { System.realloc(ptr, layout, size) }
    }
}
