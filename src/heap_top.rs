//! Makes glibc return freed memory to the system.
//!
//! glibc returns memory only from the top of its heap, and only when a large block is freed. After a
//! burst the top may still be in use: glibc keeps some freed blocks of each size in a cache of the
//! thread, and these may lie at the top. Other allocators need none of this, and it does them no
//! harm.

use std::fmt;

/// glibc caches this many freed blocks of each size per thread.
const CACHED: usize = 7;
/// Bytes of a block that glibc treats as large, and does not map on its own.
const LARGE: usize = 96 * 1024;

/// Boxes from the bottom of the heap, as large as those that a burst frees.
pub(crate) struct HeapTop<T> {
    low: [Option<Box<T>>; CACHED],
    make: fn() -> T,
}

impl<T> HeapTop<T> {
    /// `make` makes a value with memory of the sizes that a burst frees.
    pub(crate) fn new(make: fn() -> T) -> Self {
        Self { low: boxes(make), make }
    }

    /// Returns to the system what was freed at the top of the heap:
    ///
    /// 1. It allocates boxes, which takes the blocks out of the cache.
    /// 2. It frees the boxes in `low`, which lie at the bottom of the heap. They fill the cache.
    /// 3. It frees the boxes of step 1. The cache is full, so glibc frees them.
    /// 4. It frees a large block, so that glibc looks at the top.
    pub(crate) fn give_back(&mut self) {
        let high = boxes(self.make);
        self.low = Default::default();
        drop(high);
        drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
        self.low = boxes(self.make);
    }
}

impl<T> fmt::Debug for HeapTop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapTop").finish_non_exhaustive()
    }
}

fn boxes<T>(make: fn() -> T) -> [Option<Box<T>>; CACHED] {
    std::array::from_fn(|_| Some(Box::new(make())))
}
