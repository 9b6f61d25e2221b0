//! A heap that counts what each thread takes of it, so that tests side by side do not count each other's. It counts only in a
//! program that makes it its global allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread has taken so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    /// Bytes that were asked for and not given back.
    bytes: i64,
    /// How many times some were asked for, or more of them.
    allocations: u64,
}

thread_local! {
    static TAKEN: Cell<Taken> = const { Cell::new(Taken { bytes: 0, allocations: 0 }) };
}

fn note(bytes: i64, allocations: u64) {
    TAKEN.with(|taken| {
        let before = taken.get();
        let (bytes, allocations) = (before.bytes + bytes, before.allocations + allocations);
        taken.set(Taken { bytes, allocations });
    });
}

fn signed(len: usize) -> i64 {
    i64::try_from(len).expect("an allocation is at most isize::MAX bytes long")
}

pub(crate) struct CountingHeap;

// SAFETY: every call is the system allocator's. Counting needs no memory: the counters of a thread are in place from its start.
unsafe impl GlobalAlloc for CountingHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()), 1);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-signed(layout.size()), 0);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        note(signed(new_size) - signed(layout.size()), 1);
        // SAFETY: the caller keeps the same contract.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Bytes that a value holds on the heap: what is given back when it is dropped.
pub(crate) fn bytes_of<T>(value: T) -> u64 {
    let before = TAKEN.get().bytes;
    drop(value);
    u64::try_from(before - TAKEN.get().bytes).expect("dropping takes nothing")
}

/// How many allocations some work makes.
pub(crate) fn allocations_of(work: impl FnOnce()) -> u64 {
    let before = TAKEN.get().allocations;
    work();
    TAKEN.get().allocations - before
}
