//! The only door to atomics: the standard library's, or loom's twins when the crate is model-checked.

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU64, Ordering};

/// A run of 64-bit words that two parties share. Implemented over shared memory, and over a plain vector for
/// tests and the model checker.
pub trait SharedWords {
    /// The word at `index`.
    ///
    /// # Panics
    /// When `index` is outside the run: a mistake of this crate, never of the other process.
    fn word(&self, index: usize) -> &AtomicU64;

    /// How many words there are.
    fn count(&self) -> usize;
}

/// Words on the heap: the twin without an operating system.
#[derive(Debug)]
pub struct HeapWords(Vec<AtomicU64>);

impl HeapWords {
    /// `count` words, all zero.
    pub fn new(count: usize) -> Self {
        Self((0..count).map(|_| AtomicU64::new(0)).collect())
    }
}

impl SharedWords for std::sync::Arc<HeapWords> {
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0[index]
    }

    fn count(&self) -> usize {
        self.0.len()
    }
}
