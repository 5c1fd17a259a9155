//! The one anonymous file of a loader and where everything is in it.
//!
//! The file is sparse and as large as its slots could ever become. A process maps the control block once, and of each
//! slot it uses as much as that has needed so far; address space is taken for what is used, not for what is possible.

use std::io::ErrorKind;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::bell::Sleeper;
use crate::board::{Board, board_words};
use crate::queue::queue_words;
use crate::segment::{Segment, Words};
use crate::sync::{Ordering, SharedWords};
use crate::{MIN_SLOT_BYTES, Region, ShmError, Span, memory, sys};

const MAGIC: u64 = u64::from_le_bytes(*b"forebay\x01");
const PAGE: u64 = 4096;
/// Slots begin on a multiple of a huge page, and are that large at least.
const SLOT_ALIGNMENT: u64 = 2 << 20;
/// Growth beyond this is checked against what the machine and its control groups have left.
const CHECKED_GROWTH_BYTES: u64 = 1 << 20;

// The header, in words. A sleeper's word has a cache line of its own.
const HEADER_MAGIC: usize = 0;
const HEADER_WORKERS: usize = 1;
const HEADER_QUEUE_CAPACITY: usize = 2;
const HEADER_SLOTS: usize = 3;
const HEADER_STRIDE: usize = 4;
const HEADER_BUDGET: usize = 5;
const HEADER_BOARD_ENTRIES: usize = 6;
const HEADER_SLEEPER: usize = 8;
const HEADER_STOPPED: usize = 16;
const HEADER_LEASED: usize = 24;
const HEADER_WORDS: usize = 32;
/// Before each worker's queues: its sleeper's word.
const SLEEPER_WORDS: usize = 8;
/// Scratch slots may take this share of what the others may.
const SCRATCH_SHARE: u64 = 7;

/// The sizes an arena is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Workers, each with an index queue and a result queue.
    pub workers: u32,
    /// Records in each queue.
    pub queue_capacity: u64,
    /// Slots. They cost address space only, until they are used.
    pub slots: u32,
    /// The largest batch, in bytes: the distance from one slot to the next.
    pub stride_bytes: u64,
    /// Memory that all slots together may take, in bytes.
    pub budget_bytes: u64,
    /// Batches that can stand on the board, where workers share rows; 0 where they do not. Each worker then has a scratch
    /// slot for each of them; all of those may take a seventh of `budget_bytes` beside it.
    pub board_entries: u32,
}

impl Geometry {
    /// Limits that keep every product below far from overflow.
    fn check(self) -> Result<Self, ShmError> {
        let corrupt = |what, value| Err(ShmError::Corrupt { what, value });
        if self.workers == 0 || self.workers > 1 << 16 {
            return corrupt("the number of workers", self.workers.into());
        }
        if self.queue_capacity == 0 || self.queue_capacity > 1 << 24 {
            return corrupt("a queue's capacity", self.queue_capacity);
        }
        if self.slots == 0 || self.slots > 1 << 20 {
            return corrupt("the number of slots", self.slots.into());
        }
        let scratch = u64::from(self.workers) * u64::from(self.board_entries);
        if scratch > 1 << 20 {
            return corrupt("the number of scratch slots", scratch);
        }
        if self.stride_bytes == 0
            || self.stride_bytes > 1 << 42
            || !self.stride_bytes.is_multiple_of(SLOT_ALIGNMENT)
        {
            return corrupt("the size of a slot", self.stride_bytes);
        }
        Ok(self)
    }

    /// The same, but for fewer and then smaller slots, where files may not be that large (`ulimit -f`).
    fn within(mut self, largest_file: u64) -> Self {
        let least = u32::try_from(self.queue_capacity.saturating_mul(2)).unwrap_or(u32::MAX);
        while self.total_bytes() > largest_file && self.slots / 2 > least {
            self.slots /= 2;
        }
        while self.total_bytes() > largest_file && self.stride_bytes > SLOT_ALIGNMENT {
            self.stride_bytes = (self.stride_bytes / 2).next_multiple_of(SLOT_ALIGNMENT);
        }
        self
    }

    /// Slots of both kinds; scratch slots come last.
    pub(crate) fn all_slots(&self) -> u32 {
        self.slots + self.workers * self.board_entries
    }

    fn reservations_words(&self) -> usize {
        (self.all_slots() as usize).next_multiple_of(8)
    }

    fn board_words(&self) -> usize {
        if self.board_entries == 0 { 0 } else { board_words(self.board_entries.into(), self.workers) }
    }

    fn worker_words(&self) -> usize {
        SLEEPER_WORDS + 2 * queue_words(self.queue_capacity)
    }

    fn control_bytes(&self) -> u64 {
        ((self.board_begin() + self.board_words()) as u64 * 8).next_multiple_of(PAGE)
    }

    /// Words before the board.
    fn board_begin(&self) -> usize {
        HEADER_WORDS + self.reservations_words() + self.workers as usize * self.worker_words()
    }

    fn slots_begin(&self) -> u64 {
        self.control_bytes().next_multiple_of(SLOT_ALIGNMENT)
    }

    fn total_bytes(&self) -> u64 {
        self.slots_begin() + u64::from(self.all_slots()) * self.stride_bytes
    }
}

/// A loader's shared memory, as one process sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Arena {
    file: Arc<OwnedFd>,
    control: Arc<Segment>,
    header: Words,
    geometry: Geometry,
    reservations: Words,
}

impl Arena {
    /// A new arena.
    ///
    /// # Errors
    /// When the geometry is impossible, or no descriptor or memory for the control block is left.
    pub fn create(wanted: Geometry) -> Result<Self, ShmError> {
        let stride_bytes = wanted.stride_bytes.max(MIN_SLOT_BYTES).next_multiple_of(SLOT_ALIGNMENT);
        let geometry = Geometry { stride_bytes, ..wanted }.check()?.within(sys::largest_file());
        let file = sys::anonymous_file(geometry.total_bytes())?;
        sys::reserve(file.as_fd(), 0, geometry.control_bytes())?;
        let arena = Self::over(file, geometry)?;
        arena.write_header();
        Ok(arena)
    }

    /// The arena behind a descriptor that came from the trainer.
    ///
    /// # Errors
    /// When the descriptor is no arena, or its header contradicts its size.
    pub fn open(file: OwnedFd) -> Result<Self, ShmError> {
        let len = sys::file_len(&file)?;
        if len < PAGE || !sys::keeps_its_size(&file) {
            return Err(ShmError::Corrupt { what: "the size of an arena", value: len });
        }
        let header = Arc::new(Segment::map(file.as_fd(), 0, PAGE)?);
        let geometry = read_header(&Words::new(header, 0, HEADER_WORDS))?;
        if geometry.total_bytes() != len {
            return Err(ShmError::Corrupt { what: "the size of an arena", value: len });
        }
        Self::over(file, geometry)
    }

    fn over(file: OwnedFd, geometry: Geometry) -> Result<Self, ShmError> {
        let control = Arc::new(Segment::map(file.as_fd(), 0, geometry.control_bytes())?);
        let reservations = Words::new(control.clone(), HEADER_WORDS * 8, geometry.reservations_words());
        let header = Words::new(control.clone(), 0, HEADER_WORDS);
        Ok(Self { file: Arc::new(file), control, header, geometry, reservations })
    }

    fn write_header(&self) {
        let Geometry { workers, queue_capacity, slots, stride_bytes, budget_bytes, board_entries } =
            self.geometry;
        for (index, value) in [
            (HEADER_WORKERS, workers.into()),
            (HEADER_QUEUE_CAPACITY, queue_capacity),
            (HEADER_SLOTS, slots.into()),
            (HEADER_STRIDE, stride_bytes),
            (HEADER_BUDGET, budget_bytes),
            (HEADER_BOARD_ENTRIES, board_entries.into()),
            (HEADER_MAGIC, MAGIC),
        ] {
            self.header.word(index).store(value, Ordering::Release);
        }
    }

    /// The sizes it was made with.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The file, to hand it to a worker process.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The agreement by which the trainer sleeps.
    pub fn trainer_sleeper(&self) -> Sleeper<Words> {
        Sleeper::new(self.header.clone(), HEADER_SLEEPER)
    }

    /// Tells all workers to return as soon as they have made the batch they are making. Wake them afterwards.
    pub fn stop(&self) {
        self.header.word(HEADER_STOPPED).store(1, Ordering::Release);
    }

    /// Whether workers are to return.
    pub(crate) fn is_stopped(&self) -> bool {
        self.header.word(HEADER_STOPPED).load(Ordering::Acquire) != 0
    }

    pub(crate) fn worker_sleeper(&self, worker: u32) -> Sleeper<Words> {
        Sleeper::new(Words::new(self.control.clone(), self.worker_offset(worker), SLEEPER_WORDS), 0)
    }

    pub(crate) fn index_queue(&self, worker: u32) -> Words {
        let offset = self.worker_offset(worker) + SLEEPER_WORDS * 8;
        Words::new(self.control.clone(), offset, queue_words(self.geometry.queue_capacity))
    }

    pub(crate) fn result_queue(&self, worker: u32) -> Words {
        let words = queue_words(self.geometry.queue_capacity);
        let offset = self.worker_offset(worker) + (SLEEPER_WORDS + words) * 8;
        Words::new(self.control.clone(), offset, words)
    }

    /// The board, where workers share rows.
    pub fn board(&self) -> Option<Board<Words>> {
        let Geometry { workers, board_entries, .. } = self.geometry;
        let (begin, words) = (self.geometry.board_begin() * 8, self.geometry.board_words());
        let words = || Words::new(self.control.clone(), begin, words);
        (board_entries > 0).then(|| Board::new(words(), board_entries.into(), workers))
    }

    /// The slot for what `worker` makes of the batch in `entry` of the board.
    ///
    /// # Panics
    /// When there is no such worker or entry.
    pub fn scratch_slot(&self, worker: u32, entry: u64) -> u32 {
        let Geometry { workers, board_entries, slots, .. } = self.geometry;
        assert!(worker < workers && entry < board_entries.into(), "entry {entry} of worker {worker}");
        slots + worker * board_entries + entry as u32
    }

    fn worker_offset(&self, worker: u32) -> usize {
        assert!(worker < self.geometry.workers, "worker {worker} of {}", self.geometry.workers);
        let words = HEADER_WORDS
            + self.geometry.reservations_words()
            + worker as usize * self.geometry.worker_words();
        words * 8
    }

    fn slot_offset(&self, slot: u32) -> u64 {
        assert!(slot < self.geometry.all_slots(), "slot {slot} of {}", self.geometry.all_slots());
        self.geometry.slots_begin() + u64::from(slot) * self.geometry.stride_bytes
    }

    /// Memory taken by `slot`, in bytes.
    pub fn reserved(&self, slot: u32) -> u64 {
        let bytes = self.reservations.word(slot as usize).load(Ordering::Relaxed);
        bytes.min(self.geometry.stride_bytes)
    }

    /// Memory taken by all slots, in bytes.
    pub fn reserved_total(&self) -> u64 {
        self.reserved_by(0..self.geometry.all_slots())
    }

    fn reserved_by(&self, slots: Range<u32>) -> u64 {
        slots.map(|slot| self.reserved(slot)).sum()
    }

    /// Notes how much of the memory is leased. Called by the trainer.
    pub fn set_leased(&self, bytes: u64) {
        self.header.word(HEADER_LEASED).store(bytes, Ordering::Relaxed);
    }

    /// Makes sure that `slot` has memory for `bytes`. Called by whoever holds the slot.
    ///
    /// The budget holds for batches in flight by themselves: what the user keeps is bounded when it is leased, and must
    /// never stop the loader. The intention is written before the sum is taken, so two workers that grow at once may
    /// both be refused but never both exceed the budget.
    ///
    /// # Errors
    /// [`ShmError::TooLarge`], [`ShmError::OverBudget`], [`ShmError::NoMemory`], each with numbers.
    pub fn reserve(&self, slot: u32, bytes: u64) -> Result<(), ShmError> {
        let Geometry { stride_bytes, budget_bytes, slots, .. } = self.geometry;
        let before = self.reserved(slot);
        if bytes <= before {
            return Ok(());
        }
        if bytes > stride_bytes {
            return Err(ShmError::TooLarge { needed: bytes, limit: stride_bytes });
        }
        let after = bytes.max(MIN_SLOT_BYTES).next_multiple_of(PAGE);
        let word = self.reservations.word(slot as usize);
        word.store(after, Ordering::SeqCst);
        let scratch = slot >= slots;
        // What is on its way from worker to worker never takes a batch's room.
        let (alike, leased, budget) = if scratch {
            (slots..self.geometry.all_slots(), 0, budget_bytes / SCRATCH_SHARE)
        } else {
            (0..slots, self.header.word(HEADER_LEASED).load(Ordering::Relaxed), budget_bytes)
        };
        let others = self.reserved_by(alike).saturating_sub(after).saturating_sub(leased);
        // The first pages of a batch's slot are always granted: errors travel in them.
        let outcome = if (scratch || after > MIN_SLOT_BYTES) && others + after > budget {
            let left = budget.saturating_sub(others);
            Err(ShmError::OverBudget { needed: bytes, budget, left, reserved: others })
        } else {
            self.take(slot, before, after - before)
        };
        if outcome.is_err() {
            word.store(before, Ordering::SeqCst);
        }
        outcome
    }

    fn take(&self, slot: u32, from: u64, growth: u64) -> Result<(), ShmError> {
        if growth > CHECKED_GROWTH_BYTES
            && let Some(memory::Available { bytes, limited_by }) = memory::available()
            && growth > bytes
        {
            return Err(ShmError::NoMemory { needed: growth, available: bytes, limited_by });
        }
        let offset = self.slot_offset(slot) + from;
        sys::reserve(self.descriptor(), offset, growth).map_err(|error| {
            // What was taken before the refusal is in nobody's sum.
            let _ = sys::give_back(self.descriptor(), offset, growth);
            short_of_memory(error, growth)
        })
    }

    /// Gives the memory of `slot` back. Called by the trainer, for a slot that is free.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn give_back(&self, slot: u32) -> Result<(), ShmError> {
        let offset = self.slot_offset(slot);
        sys::give_back(self.descriptor(), offset, self.reserved(slot).max(PAGE))?;
        self.reservations.word(slot as usize).store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Writes `bytes` at `offset` of `slot` without mapping them.
    pub(crate) fn write_slot(&self, slot: u32, offset: u64, bytes: &[u8]) -> Result<(), ShmError> {
        if offset + bytes.len() as u64 > self.reserved(slot) {
            return Err(ShmError::Corrupt {
                what: "the size of a batch",
                value: offset + bytes.len() as u64,
            });
        }
        sys::write_all(self.descriptor(), self.slot_offset(slot) + offset, bytes)
            .map_err(|error| short_of_memory(error, bytes.len() as u64))
    }

    /// A copy of a part of `slot`, on the heap.
    pub(crate) fn read_slot(&self, slot: u32, span: Span) -> Result<Region, ShmError> {
        let Span { offset, len } = span;
        if offset.checked_add(len).is_none_or(|end| end > self.reserved(slot)) {
            return Err(ShmError::Corrupt { what: "the place of an array", value: offset });
        }
        let mut copy = Region::on_heap(len as usize)?;
        sys::read(self.descriptor(), self.slot_offset(slot) + offset, copy.bytes_mut())?;
        Ok(copy)
    }

    /// Maps at least the first `bytes` of `slot` in this process, with room to grow.
    pub(crate) fn map_slot(&self, slot: u32, bytes: u64) -> Result<Segment, ShmError> {
        let stride = self.geometry.stride_bytes;
        if bytes > stride {
            return Err(ShmError::TooLarge { needed: bytes, limit: stride });
        }
        let len = bytes.max(MIN_SLOT_BYTES).next_power_of_two().min(stride);
        Segment::map(self.file.as_fd(), self.slot_offset(slot), len)
    }
}

/// A refusal for want of memory, with numbers.
fn short_of_memory(error: ShmError, needed: u64) -> ShmError {
    match (&error, memory::available()) {
        (ShmError::Os { source, .. }, Some(memory::Available { bytes, limited_by }))
            if matches!(source.kind(), ErrorKind::OutOfMemory | ErrorKind::StorageFull) =>
        {
            ShmError::NoMemory { needed, available: bytes, limited_by }
        }
        _ => error,
    }
}

fn read_header(header: &Words) -> Result<Geometry, ShmError> {
    let word = |index: usize| header.word(index).load(Ordering::Acquire);
    let small =
        |what, index| u32::try_from(word(index)).map_err(|_| ShmError::Corrupt { what, value: word(index) });
    if word(HEADER_MAGIC) != MAGIC {
        return Err(ShmError::Corrupt { what: "an arena's mark", value: word(HEADER_MAGIC) });
    }
    let geometry = Geometry {
        workers: small("the number of workers", HEADER_WORKERS)?,
        queue_capacity: word(HEADER_QUEUE_CAPACITY),
        slots: small("the number of slots", HEADER_SLOTS)?,
        stride_bytes: word(HEADER_STRIDE),
        budget_bytes: word(HEADER_BUDGET),
        board_entries: small("the size of the board", HEADER_BOARD_ENTRIES)?,
    };
    geometry.check()
}
