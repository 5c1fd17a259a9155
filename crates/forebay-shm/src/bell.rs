//! When somebody must be woken: the agreement between one sleeper and those who bring it work.
//!
//! ```text
//!  sleeper                          bringer
//!  look for work: none              bring work (push a record)
//!  lie_down: swap(ASLEEP)           must_ring: swap(AWAKE) == ASLEEP ?  -> ring
//!  look for work again
//!  sleep until rung
//!  get_up: swap(AWAKE)
//! ```
//!
//! Both sides touch one word by read-modify-write only, so their operations on it have one order. If
//! the bringer's swap comes after `lie_down`, it sees `ASLEEP` and rings. If it comes before, `lie_down` reads
//! what it wrote (SYNC POINT bell) and the second look finds the work. So no wake-up is lost, and a system call is
//! made only for a sleeper. The model checker goes through all interleavings (`tests/loom.rs`).

use crate::sync::{Ordering, SharedWords};

const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;

/// One party's word: is it asleep?
#[derive(Debug, Clone)]
pub struct Sleeper<W> {
    words: W,
    index: usize,
}

impl<W: SharedWords> Sleeper<W> {
    /// The sleeper whose word is `words[index]`.
    pub fn new(words: W, index: usize) -> Self {
        Self { words, index }
    }

    /// Called by the sleeper before its last look for work.
    pub fn lie_down(&self) {
        // SYNC POINT bell: acquires what every bringer published before its `must_ring`.
        self.words.word(self.index).swap(ASLEEP, Ordering::AcqRel);
    }

    /// Called by the sleeper after it slept, or when the last look found work.
    pub fn get_up(&self) {
        self.words.word(self.index).swap(AWAKE, Ordering::AcqRel);
    }

    /// Called by a bringer after it published work: true when the sleeper has to be rung.
    #[must_use]
    pub fn must_ring(&self) -> bool {
        // SYNC POINT bell: releases the work just published.
        self.words.word(self.index).swap(AWAKE, Ordering::AcqRel) == ASLEEP
    }
}
