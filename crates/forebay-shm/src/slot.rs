//! A slot as one process sees it: how much of it is mapped, and how much of that has its pages.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::segment::Segment;
use crate::{Arena, ShmError};

/// Below this, pages are mapped as they are touched; from this on, in one call.
const FAULT_IN_BYTES: u64 = 128 * 1024;

/// One process's view of one slot. Kept from batch to batch, so that a reused slot costs no system call.
#[derive(Debug, Clone)]
pub struct SlotMemory {
    segment: Option<Arc<Segment>>,
    faulted_in: u64,
}

impl SlotMemory {
    /// Nothing mapped yet.
    pub const fn unmapped() -> Self {
        Self { segment: None, faulted_in: 0 }
    }

    /// Makes the first `bytes` of `slot` accessible. They must be reserved.
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
        if bytes > self.faulted_in && bytes >= FAULT_IN_BYTES {
            segment.fault_in(self.faulted_in as usize & !4095, (bytes - (self.faulted_in & !4095)) as usize);
            self.faulted_in = bytes;
        }
        Ok(())
    }

    /// Where `len` bytes from `offset` are mapped; `None` when they are not all.
    pub(crate) fn pointer(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        self.segment.as_ref()?.pointer(usize::try_from(offset).ok()?, usize::try_from(len).ok()?)
    }
}
