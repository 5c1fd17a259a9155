//! A worker's exclusive handle on the slot it was granted.

use crate::slot::SlotMemory;
use crate::{ALIGNMENT_BYTES, Arena, ShmError};

/// A batch of this size is streamed past the caches.
const LARGE_BYTES: u64 = 1 << 20;

/// Writes one batch into one slot: every write is bounded by what was allocated.
///
/// Called by: the worker that was granted the slot, from one thread. It is not `Clone`: the engine makes one per
/// grant, and publishing consumes it.
#[derive(Debug)]
pub struct SlotWriter {
    arena: Arena,
    slot: u32,
    used: u64,
    memory: SlotMemory,
}

impl SlotWriter {
    pub(crate) fn new(arena: Arena, slot: u32, memory: SlotMemory) -> Self {
        Self { arena, slot, used: 0, memory }
    }

    /// The slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Bytes allocated so far.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// This process's view of the slot, to be kept for its next batch.
    pub fn into_memory(self) -> SlotMemory {
        self.memory
    }

    /// Forgets everything written so far.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Forgets everything allocated after the first `used` bytes.
    pub fn truncate(&mut self, used: u64) {
        self.used = self.used.min(used);
    }

    /// Sets `len` bytes aside and tells their offset in the slot.
    ///
    /// # Errors
    /// When there is no memory for them, with numbers.
    pub fn allocate(&mut self, len: u64) -> Result<u64, ShmError> {
        let offset = self.used.next_multiple_of(ALIGNMENT_BYTES as u64);
        let end = offset.checked_add(len).ok_or(ShmError::TooLarge { needed: u64::MAX, limit: u64::MAX })?;
        self.arena.reserve(self.slot, end)?;
        self.used = end;
        Ok(offset)
    }

    /// Writes `bytes` at `offset`, where they were allocated.
    ///
    /// # Errors
    /// When the kernel refuses to map or write.
    ///
    /// # Panics
    /// When the range was not allocated: a mistake of the caller, not of the user.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        self.assert_allocated(offset, bytes.len() as u64);
        self.memory.write(&self.arena, self.slot, offset, bytes, self.used >= LARGE_BYTES)
    }

    /// Allocates room for `bytes` and writes them there; tells the offset.
    ///
    /// # Errors
    /// When there is no memory for them, with numbers.
    pub fn append(&mut self, bytes: &[u8]) -> Result<u64, ShmError> {
        let offset = self.allocate(bytes.len() as u64)?;
        self.write(offset, bytes)?;
        Ok(offset)
    }

    /// Allocated bytes, to be filled in place.
    ///
    /// # Errors
    /// When the kernel refuses to map them.
    ///
    /// # Panics
    /// When the range was not allocated: a mistake of the caller, not of the user.
    pub fn bytes_mut(&mut self, offset: u64, len: u64) -> Result<&mut [u8], ShmError> {
        self.assert_allocated(offset, len);
        self.memory.cover(&self.arena, self.slot, offset + len)?;
        let corrupt = ShmError::Corrupt { what: "the size of a batch", value: offset + len };
        let start = self.memory.pointer(offset, len).ok_or(corrupt)?;
        // SAFETY: `pointer` checked that the range is mapped. The slot is granted to this writer alone, the trainer
        // reads it only after publication, and `&mut self` excludes a second slice from here.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len as usize) })
    }

    fn assert_allocated(&self, offset: u64, len: u64) {
        let allocated = offset.checked_add(len).is_some_and(|end| end <= self.used);
        assert!(allocated, "{len} bytes at {offset} of {} allocated", self.used);
    }
}
