//! A slot as one process sees it: how much of it is mapped, and how much of that has its pages.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::segment::Segment;
use crate::{Arena, ShmError, copy};

const PAGE: u64 = 4096;

/// Below this, pages are mapped as they are touched; from this on, in one call.
const FAULT_IN_BYTES: u64 = 128 * 1024;

/// One process's view of one slot. Kept from batch to batch, so that a reused slot costs no system call.
#[derive(Debug, Clone)]
pub struct SlotMemory {
    segment: Option<Arc<Segment>>,
    /// The first bytes whose pages are mapped.
    faulted_in: u64,
    /// The first bytes that this process has written without mapping them.
    written: u64,
}

impl SlotMemory {
    /// Nothing mapped yet.
    pub const fn unmapped() -> Self {
        Self { segment: None, faulted_in: 0, written: 0 }
    }

    /// Makes the first `bytes` of `slot` accessible through [`pointer`](Self::pointer). They must be reserved.
    ///
    /// # Errors
    /// When the slot has no such bytes, or the kernel refuses to map them.
    pub(crate) fn cover(&mut self, arena: &Arena, slot: u32, bytes: u64) -> Result<(), ShmError> {
        let reserved = arena.reserved(slot);
        if bytes > reserved {
            return Err(ShmError::Corrupt { what: "the size of a batch", value: bytes });
        }
        // Of a slot whose memory was given back meanwhile, no pages are left.
        self.faulted_in = self.faulted_in.min(reserved);
        let segment = match &self.segment {
            Some(segment) if segment.len() as u64 >= bytes => segment,
            _ => {
                self.faulted_in = 0;
                self.segment.insert(Arc::new(arena.map_slot(slot, bytes)?))
            }
        };
        if bytes >= FAULT_IN_BYTES && bytes > self.faulted_in {
            segment.fault_in(self.faulted_in as usize, (bytes - self.faulted_in) as usize);
            self.faulted_in = bytes.next_multiple_of(PAGE);
        }
        Ok(())
    }

    /// Called when the slot is used again: maps what was only written the first time.
    pub(crate) fn settle(&mut self, arena: &Arena, slot: u32) -> Result<(), ShmError> {
        let written = std::mem::take(&mut self.written).min(arena.reserved(slot));
        self.cover(arena, slot, written)
    }

    /// Writes `bytes`, which must be reserved. Pages that are not mapped yet are written by the kernel, which need not
    /// clear and map them first: half the time of a first batch.
    ///
    /// `large`: they are part of a batch that no cache should keep.
    pub(crate) fn write(
        &mut self,
        arena: &Arena,
        slot: u32,
        offset: u64,
        bytes: &[u8],
        large: bool,
    ) -> Result<(), ShmError> {
        let end = offset + bytes.len() as u64;
        if end >= FAULT_IN_BYTES && end > self.faulted_in {
            self.written = self.written.max(end);
            return arena.write_slot(slot, offset, bytes);
        }
        self.cover(arena, slot, end)?;
        let corrupt = ShmError::Corrupt { what: "the size of a batch", value: end };
        let start = self.pointer(offset, bytes.len() as u64).ok_or(corrupt)?;
        if large {
            // SAFETY: `pointer` checked that the target is mapped; the slot is held by the caller alone, and `bytes`, an
            // ordinary slice, is elsewhere: the only slices of a slot are those its one writer lends mutably.
            unsafe { copy::stream(bytes, start.as_ptr()) };
        } else {
            // SAFETY: as above.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len()) };
        }
        Ok(())
    }

    /// Where `len` bytes from `offset` are mapped; `None` when they are not all.
    pub(crate) fn pointer(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        self.segment.as_ref()?.pointer(usize::try_from(offset).ok()?, usize::try_from(len).ok()?)
    }
}
