//! An allocator that counts, so that a length that is only claimed is found out when memory is taken for it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// What any input may take, however short: tables that are made once, a session's state, and as many values as a record may
/// have, each a map of its own, held decoded, compared with what it would be written as, and read once more.
const BASE_BYTES: usize = 8 << 20;
/// What each byte of input may take beyond that.
const PER_INPUT_BYTE: usize = 40;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(live, Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Runs a target, and panics where it held more memory at once than its input explains.
pub fn within_memory(bytes: &[u8], target: fn(&[u8])) {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    target(bytes);
    let taken = PEAK.load(Relaxed).saturating_sub(before);
    let allowed = BASE_BYTES + PER_INPUT_BYTE * bytes.len();
    assert!(
        taken <= allowed,
        "{taken} bytes of memory for {} bytes of input, where {allowed} are allowed",
        bytes.len()
    );
}
