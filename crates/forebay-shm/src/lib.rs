//! The memory a batch travels in, and the words by which two processes agree about it.
//!
//! One [`Arena`] per loader: an anonymous `memfd`, sparse at its full size, sealed, opened once and passed once to
//! every worker. It holds a control block (a header, the reservations of the slots, and
//! for every worker an *index queue* and a *result queue*), where workers share rows a *board*, and, behind it, the slots.
//!
//! Who may touch what, and when:
//!
//! | part | written by | read by | guarded by |
//! |---|---|---|---|
//! | header | trainer, before any worker exists | all | immutable afterwards |
//! | a queue's records | its one producer | its one consumer | [`queue`]: release of `tail`, release of `head` |
//! | a sleeper's word | both sides | both sides | [`bell`]: read-modify-writes only |
//! | the board | all | all | [`board`]: a claim word and a count of rows left for each batch |
//! | reservation of a slot | whoever holds the slot | anybody | a lone counter, carries no other memory |
//! | bytes of a slot | whoever holds the slot | the same | handed over through a queue, returned through [`Lease`] |
//! | bytes of a scratch slot | its worker, until it hands in | the finisher of the batch | [`board`]: release and acquire of the rows left |
//!
//! There is no lock and no state machine in shared memory: *which* slot belongs to whom is known to the
//! trainer alone (crate `forebay-engine`). A killed process can therefore leave nothing locked or half
//! changed; what it held is what the trainer had granted it.
//!
//! This crate is the engine's workshop. Which process or thread holds a slot is the engine's knowledge, so that one slot has
//! one [`SlotWriter`] or one [`Lease`] at a time is a rule its callers keep, not one the types enforce.
//!
//! Everything read here was written by another process and is checked as if it were hostile: a wrong value
//! becomes a [`ShmError::Corrupt`], never an access outside a slot.

pub mod bell;
pub mod board;
pub mod queue;
pub mod sync;

mod error;
pub use error::ShmError;

#[cfg(not(loom))]
mod arena;
#[cfg(not(loom))]
mod channel;
#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
pub mod fork;
#[cfg(not(loom))]
mod lease;
#[cfg(not(loom))]
pub mod memory;
#[cfg(not(loom))]
mod segment;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
pub mod socket;
#[cfg(not(loom))]
pub mod sys;
#[cfg(not(loom))]
mod writer;

#[cfg(not(loom))]
pub use arena::{Arena, Geometry};
#[cfg(not(loom))]
pub use channel::{TrainerEnd, WorkerEnd};
#[cfg(not(loom))]
pub use lease::{Lease, Region, Returns};
#[cfg(not(loom))]
pub use segment::{Segment, Words};
#[cfg(not(loom))]
pub use slot::SlotMemory;
#[cfg(not(loom))]
pub use writer::SlotWriter;

/// A part of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Bytes from the start of the slot.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// Every array in a slot starts on a multiple of this many bytes (a cache line, and the widest vector).
pub const ALIGNMENT_BYTES: usize = 64;

/// Every granted slot has at least this much memory, so that a worker can always report an error.
pub const MIN_SLOT_BYTES: u64 = 16 * 1024;
