//! One mapping of a part of an anonymous file.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::ShmError;
use crate::sync::{AtomicU64, SharedWords};

/// A mapped part of an anonymous file. It stays mapped, at one address, as long as the value lives.
pub struct Segment {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory of this process; `Segment` hands out raw pointers and atomics only, and
// everything that dereferences the former states whose bytes they are.
unsafe impl Send for Segment {}
// SAFETY: as for Send; no method of `Segment` writes through `&self`.
unsafe impl Sync for Segment {}

impl Segment {
    /// Maps `len` bytes from `offset` (a multiple of a page) of a file that can never shrink.
    pub(crate) fn map(file: BorrowedFd<'_>, offset: u64, len: u64) -> Result<Self, ShmError> {
        let len =
            usize::try_from(len).map_err(|_| ShmError::Corrupt { what: "a segment's size", value: len })?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing; `file` is open, and its seals
        // forbid that it shrinks under the mapping.
        let base = unsafe { mmap(std::ptr::null_mut(), len, protection, flags, file, offset) };
        let base = base.map_err(ShmError::os("mmap"))?.cast::<u8>();
        let base = NonNull::new(base).ok_or(ShmError::Corrupt { what: "a mapping's address", value: 0 })?;
        let segment = Self { base, len };
        // Batches are no help in a core dump, and gigabytes of them would hurt it.
        segment.advise(0, len, Advice::LinuxDontDump);
        Ok(segment)
    }

    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where `len` bytes from `offset` are mapped, or `None` when they are not all inside.
    pub(crate) fn pointer(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: `offset <= self.len`, so the result is inside (or one past) the one mapping of `self.len` bytes.
        Some(unsafe { self.base.add(offset) })
    }

    /// Maps the pages of a range in one call instead of one fault each. Only a matter of speed: where the kernel
    /// does not know the advice, the faults come one by one.
    pub(crate) fn fault_in(&self, offset: usize, len: usize) {
        self.advise(offset, len, Advice::LinuxPopulateWrite);
    }

    fn advise(&self, offset: usize, len: usize, advice: Advice) {
        if let Some(start) = self.pointer(offset, len) {
            // SAFETY: the range is inside our mapping, and no advice used here changes what it contains.
            // An unknown or refused advice loses speed, nothing else.
            let _ = unsafe { madvise(start.as_ptr().cast(), len, advice) };
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are the mapping made in `map`; nothing derived from it outlives the segment,
        // because everything that holds such a pointer holds the segment too.
        let outcome = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
        debug_assert!(outcome.is_ok(), "munmap of our own mapping");
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Segment").field("len", &self.len).finish_non_exhaustive()
    }
}

/// A run of 64-bit words of a segment, which it keeps mapped.
#[derive(Debug, Clone)]
pub struct Words {
    segment: Arc<Segment>,
    offset: usize,
    count: usize,
}

impl Words {
    /// `count` words from byte `offset`.
    ///
    /// # Panics
    /// When they are not all inside the segment or not aligned: geometry is checked before it is used.
    pub(crate) fn new(segment: Arc<Segment>, offset: usize, count: usize) -> Self {
        assert!(offset.is_multiple_of(8), "words are aligned");
        assert!(segment.pointer(offset, count * 8).is_some(), "words are inside the segment");
        Self { segment, offset, count }
    }
}

impl SharedWords for Words {
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.count, "word {index} of {}", self.count);
        // SAFETY: the constructor checked that `offset + count * 8` bytes are mapped, and `index < count`.
        let address = unsafe { self.segment.base.add(self.offset + index * 8) };
        // SAFETY: mapped as long as `self.segment` lives, hence as long as the result; aligned to 8 (checked for
        // `offset`, and mappings start on a page); this part of the segment is only ever accessed as atomics.
        unsafe { AtomicU64::from_ptr(address.as_ptr().cast()) }
    }

    fn count(&self) -> usize {
        self.count
    }
}
