//! The trainer's handle on a finished batch, and the way its slot comes back.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::slot::SlotMemory;
use crate::sync::{AtomicU64, Ordering};
use crate::{ALIGNMENT_BYTES, Arena, ShmError, Span, fork, memory};

/// From this size on the heap is asked for only what the machine says it has.
const WORTH_A_LOOK_BYTES: usize = 64 << 20;

/// Where dropped leases leave word that their slots are free: one bit a slot, on the trainer's own heap.
///
/// A forked child has a copy, so what it drops is never seen by the trainer.
#[derive(Debug)]
pub struct Returns {
    free: Box<[AtomicU64]>,
    seen_by_children: Box<[AtomicU64]>,
}

impl Returns {
    /// Nothing returned yet.
    pub fn new(slots: u32) -> Self {
        let words = || (0..slots.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { free: words(), seen_by_children: words() }
    }

    /// Slots whose last view died since the last call; they are free.
    pub fn take_free(&self) -> impl Iterator<Item = u32> {
        take(&self.free)
    }

    /// Slots whose last view died since the last call, but which a forked child may still see.
    pub fn take_seen_by_children(&self) -> impl Iterator<Item = u32> {
        take(&self.seen_by_children)
    }

    /// One atomic, no lock: may run on any thread, inside a garbage collection, and at interpreter exit.
    fn put(bits: &[AtomicU64], slot: u32) {
        // SYNC POINT return: pairs with the acquire in `take`; the next worker's writes come after our last read.
        bits[slot as usize / 64].fetch_or(1 << (slot % 64), Ordering::Release);
    }
}

fn take(words: &[AtomicU64]) -> impl Iterator<Item = u32> {
    words.iter().enumerate().flat_map(|(index, word)| {
        // SYNC POINT return. The plain load spares idle words the read-modify-write.
        let bits = if word.load(Ordering::Relaxed) == 0 { 0 } else { word.swap(0, Ordering::Acquire) };
        (0..64).filter(move |bit| bits & (1 << bit) != 0).map(move |bit| index as u32 * 64 + bit)
    })
}

/// A slot in the trainer's hands. It comes back when the lease is dropped, which is when the last [`Region`] of
/// it is. It keeps the memory mapped, so it may outlive the loader.
#[derive(Debug)]
pub struct Lease {
    memory: SlotMemory,
    used: u64,
    returns: Arc<Returns>,
    slot: u32,
    forks: u64,
}

impl Lease {
    /// Leases `slot`, which holds a finished batch of `used` bytes; `memory` is the trainer's view of it.
    ///
    /// # Errors
    /// When the slot has no such bytes.
    pub fn new(
        arena: &Arena,
        returns: Arc<Returns>,
        slot: u32,
        used: u64,
        memory: &mut SlotMemory,
    ) -> Result<Self, ShmError> {
        memory.cover(arena, slot, used)?;
        Ok(Self { memory: memory.clone(), used, returns, slot, forks: fork::lease_begins() })
    }

    /// The slot.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// The count of forks when it was leased: children of those before cannot see it.
    pub fn forks(&self) -> u64 {
        self.forks
    }

    /// A copy of the bytes of `span`.
    ///
    /// # Errors
    /// [`ShmError::Corrupt`] when the slot has no such bytes.
    pub fn read(&self, span: Span) -> Result<Vec<u8>, ShmError> {
        self.bytes(span).map(<[u8]>::to_vec)
    }

    /// Splits the lease into one region per span. Where `keep` says so, a region is the bytes in the slot; else a
    /// copy on the heap. The slot comes back when the last region that is in it is dropped.
    ///
    /// # Errors
    /// [`ShmError::Corrupt`] when a span is outside the slot, or two kept spans share a byte.
    pub fn split(self, spans: &[Span], keep: impl Fn(Span) -> bool) -> Result<Vec<Region>, ShmError> {
        let mut kept: Vec<Span> = spans.iter().copied().filter(|span| keep(*span)).collect();
        kept.sort_unstable_by_key(|span| span.offset);
        if let Some(pair) =
            kept.windows(2).find(|pair| pair[0].offset.saturating_add(pair[0].len) > pair[1].offset)
        {
            return Err(ShmError::Corrupt { what: "the place of an array", value: pair[1].offset });
        }
        let lease = Arc::new(self);
        spans.iter().map(|span| if keep(*span) { lease.region(*span) } else { lease.copy(*span) }).collect()
    }

    fn region(self: &Arc<Self>, span: Span) -> Result<Region, ShmError> {
        let start = self.pointer(span.offset, span.len)?;
        Ok(Region { start, len: span.len as usize, owner: Owner::Slot(self.clone()) })
    }

    fn copy(&self, span: Span) -> Result<Region, ShmError> {
        let bytes = self.bytes(span)?;
        let mut region = Region::on_heap(bytes.len())?;
        region.bytes_mut().copy_from_slice(bytes);
        Ok(region)
    }

    fn bytes(&self, span: Span) -> Result<&[u8], ShmError> {
        let start = self.pointer(span.offset, span.len)?;
        // SAFETY: `pointer` checked that the bytes are mapped; the slot is leased, so no worker writes them, and the
        // lease has not been split, so no region does.
        Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), span.len as usize) })
    }

    fn pointer(&self, offset: u64, len: u64) -> Result<NonNull<u8>, ShmError> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.used);
        let pointer = if inside { self.memory.pointer(offset, len) } else { None };
        pointer.ok_or(ShmError::Corrupt { what: "the place of an array", value: offset })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let bits =
            if fork::lease_ends(self.forks) { &self.returns.seen_by_children } else { &self.returns.free };
        Returns::put(bits, self.slot);
    }
}

#[repr(align(64))]
#[derive(Clone)]
struct Line(#[expect(dead_code, reason = "only its address and size are used")] [u8; ALIGNMENT_BYTES]);

enum Owner {
    Slot(#[expect(dead_code, reason = "held for its drop, which returns the slot")] Arc<Lease>),
    Heap(#[expect(dead_code, reason = "held for its drop, which frees the bytes")] Vec<Line>),
}

/// Bytes of one array of a batch: in a slot, or copied to the heap. Owned by whoever holds the region.
pub struct Region {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

// SAFETY: the bytes belong to the region alone (see `bytes_mut`), and its owner is Send.
unsafe impl Send for Region {}
// SAFETY: `&Region` gives shared access only.
unsafe impl Sync for Region {}

impl Region {
    /// `len` zero bytes on the heap.
    ///
    /// # Errors
    /// When there is not that much memory: asking the allocator for it would end the program.
    pub fn on_heap(len: usize) -> Result<Self, ShmError> {
        if len >= WORTH_A_LOOK_BYTES
            && let Some(memory::Available { bytes, limited_by }) = memory::available()
            && len as u64 > bytes
        {
            return Err(ShmError::NoMemory { needed: len as u64, available: bytes, limited_by });
        }
        let mut lines = vec![Line([0; ALIGNMENT_BYTES]); len.div_ceil(ALIGNMENT_BYTES)];
        let start = NonNull::new(lines.as_mut_ptr().cast()).expect("a vector's pointer is never null");
        Ok(Self { start, len, owner: Owner::Heap(lines) })
    }

    /// Where the bytes are; they stay there as long as the region lives.
    pub fn pointer(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bytes are in the slot, so that the region keeps it.
    pub fn is_leased(&self) -> bool {
        matches!(self.owner, Owner::Slot(_))
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `start` and `len` were checked when the region was made; the owner keeps them mapped; nobody
        // else writes a leased slot or our heap.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be changed. Regions of one batch never overlap.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`; `&mut self` excludes any other slice of this region, and `split` refuses regions
        // that overlap.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leased = self.is_leased();
        formatter
            .debug_struct("Region")
            .field("len", &self.len)
            .field("leased", &leased)
            .finish_non_exhaustive()
    }
}
