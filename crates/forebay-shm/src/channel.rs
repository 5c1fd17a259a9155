//! The two ends of the conversation between a trainer and one worker: an index queue, a result queue, and a bell for
//! each side.

use std::os::fd::{AsFd, BorrowedFd};

use crate::bell::Sleeper;
use crate::board::{Board, Part, Posting, Wanted};
use crate::queue::{Consumer, Producer, Record};
use crate::segment::Words;
use crate::slot::SlotMemory;
use crate::sys::Event;
use crate::{Arena, Region, ShmError, SlotWriter, Span};

/// The trainer's end towards one worker.
#[derive(Debug)]
pub struct TrainerEnd {
    indices: Producer<Words>,
    results: Consumer<Words>,
    worker: Sleeper<Words>,
    bell: Event,
}

impl TrainerEnd {
    /// The end towards `worker`, whose bell is `bell`. Made once per worker of a fresh arena.
    pub fn new(arena: &Arena, worker: u32, bell: Event) -> Self {
        let capacity = arena.geometry().queue_capacity;
        Self {
            indices: Producer::new(arena.index_queue(worker), capacity),
            results: Consumer::new(arena.result_queue(worker), capacity),
            worker: arena.worker_sleeper(worker),
            bell,
        }
    }

    /// Sends a record and wakes the worker if it sleeps.
    ///
    /// # Errors
    /// When the queue is full or corrupt.
    pub fn send(&mut self, record: &Record) -> Result<(), ShmError> {
        self.indices.push(record)?;
        self.wake()
    }

    /// Wakes the worker if it sleeps.
    ///
    /// # Errors
    /// When the bell cannot be rung.
    pub fn wake(&mut self) -> Result<(), ShmError> {
        self.wakes().map(drop)
    }

    /// Wakes the worker if it sleeps, and tells whether it did.
    ///
    /// # Errors
    /// When the bell cannot be rung.
    pub fn wakes(&mut self) -> Result<bool, ShmError> {
        if self.worker.must_ring() { self.bell.ring().map(|()| true) } else { Ok(false) }
    }

    /// The oldest record the worker sent.
    ///
    /// # Errors
    /// When the queue is corrupt.
    pub fn receive(&mut self) -> Result<Option<Record>, ShmError> {
        self.results.pop()
    }

    /// The worker's bell, to hand it over.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

/// A worker's end.
#[derive(Debug)]
pub struct WorkerEnd {
    arena: Arena,
    worker: u32,
    board: Option<Board<Words>>,
    indices: Consumer<Words>,
    results: Producer<Words>,
    own: Sleeper<Words>,
    own_bell: Event,
    trainer: Sleeper<Words>,
    trainer_bell: Event,
    slots: Vec<SlotMemory>,
}

impl WorkerEnd {
    /// The end of `worker`. Made once per worker of a fresh arena.
    ///
    /// # Errors
    /// When the arena has no such worker.
    pub fn new(arena: Arena, worker: u32, own_bell: Event, trainer_bell: Event) -> Result<Self, ShmError> {
        let geometry = arena.geometry();
        if worker >= geometry.workers {
            return Err(ShmError::Corrupt { what: "a worker's number", value: worker.into() });
        }
        Ok(Self {
            indices: Consumer::new(arena.index_queue(worker), geometry.queue_capacity),
            results: Producer::new(arena.result_queue(worker), geometry.queue_capacity),
            own: arena.worker_sleeper(worker),
            own_bell,
            trainer: arena.trainer_sleeper(),
            trainer_bell,
            slots: vec![SlotMemory::unmapped(); geometry.all_slots() as usize],
            worker,
            board: arena.board(),
            arena,
        })
    }

    /// The oldest record the trainer sent.
    ///
    /// # Errors
    /// When the queue is corrupt.
    pub fn receive(&mut self) -> Result<Option<Record>, ShmError> {
        self.indices.pop()
    }

    /// Whether the trainer wants no more batches.
    pub fn is_stopped(&self) -> bool {
        self.arena.is_stopped()
    }

    /// Sends a record and wakes the trainer if it sleeps.
    ///
    /// # Errors
    /// When the queue is full or corrupt.
    pub fn send(&mut self, record: &Record) -> Result<(), ShmError> {
        self.results.push(record)?;
        if self.trainer.must_ring() { self.trainer_bell.ring() } else { Ok(()) }
    }

    /// The agreement by which this worker sleeps, and the bell that wakes it.
    pub fn sleep(&self) -> (&Sleeper<Words>, &Event) {
        (&self.own, &self.own_bell)
    }

    /// The writer of a slot that the trainer granted, after `payload_len` bytes of it were read.
    ///
    /// # Errors
    /// When there is no such slot, or it does not hold that many bytes.
    pub fn open_slot(&mut self, slot: u32, payload_len: u64) -> Result<(SlotWriter, Vec<u8>), ShmError> {
        if slot >= self.arena.geometry().slots {
            return Err(ShmError::Corrupt { what: "a slot's number", value: slot.into() });
        }
        let payload = self.read(slot, payload_len)?;
        Ok((SlotWriter::new(self.arena.clone(), slot, self.slots[slot as usize].clone()), payload))
    }

    /// The first `payload_len` bytes of a slot.
    fn read(&mut self, slot: u32, payload_len: u64) -> Result<Vec<u8>, ShmError> {
        let memory = &mut self.slots[slot as usize];
        memory.settle(&self.arena, slot)?;
        memory.cover(&self.arena, slot, payload_len)?;
        let corrupt = ShmError::Corrupt { what: "the length of the indices", value: payload_len };
        let start = memory.pointer(0, payload_len).ok_or(corrupt)?;
        // SAFETY: `pointer` checked that the bytes are mapped; the trainer wrote them before it granted the slot and
        // leaves them alone now.
        Ok(unsafe { std::slice::from_raw_parts(start.as_ptr(), payload_len as usize) }.to_vec())
    }

    /// Keeps what a finished writer has mapped, for the slot's next batch.
    pub fn close_slot(&mut self, writer: SlotWriter) {
        let slot = writer.slot() as usize;
        self.slots[slot] = writer.into_memory();
    }
}

/// Rows of batches that several workers make, where they do.
impl WorkerEnd {
    /// Whether batches come from the board, and not from the index queue.
    pub fn shares_rows(&self) -> bool {
        self.board.is_some()
    }

    /// Whether some batch has rows that nobody has claimed.
    pub fn has_rows(&self) -> bool {
        self.board.as_ref().is_some_and(Board::has_rows)
    }

    /// Claims a row of the oldest batch that is wanted, if there is one, and reads the batch's indices.
    ///
    /// # Errors
    /// When what stands on the board is impossible.
    pub fn begin(&mut self, wanted: Wanted) -> Result<Option<(Part, Vec<u8>)>, ShmError> {
        let Some(board) = &self.board else { return Ok(None) };
        let Some(part) = board.begin(self.worker, wanted)? else { return Ok(None) };
        let Posting { slot, indices_len, .. } = part.posting;
        if slot >= self.arena.geometry().slots {
            return Err(ShmError::Corrupt { what: "a slot's number", value: slot.into() });
        }
        let indices = self.read(slot, indices_len)?;
        Ok(Some((part, indices)))
    }

    /// Claims one more row, if one is left.
    pub fn next_row(&self, part: &mut Part) -> Option<u32> {
        self.board.as_ref()?.next_row(part)
    }

    /// Claims all rows that are left.
    pub fn rest(&self, part: &mut Part) {
        if let Some(board) = &self.board {
            board.rest(part);
        }
    }

    /// Whether all rows of others are done.
    pub fn is_last(&self, part: &Part) -> bool {
        self.board.as_ref().is_some_and(|board| board.is_last(part))
    }

    /// The writer for what this worker makes of a batch.
    pub fn scratch(&self, part: &Part) -> SlotWriter {
        let slot = self.arena.scratch_slot(self.worker, part.entry());
        SlotWriter::new(self.arena.clone(), slot, self.slots[slot as usize].clone())
    }

    /// The rows of `part` are done. What was made of them is described by the bytes at `written` of its scratch slot, if it
    /// is there. Tells whether this worker is the finisher; if not, it owes nothing more.
    ///
    /// # Errors
    /// When what stands on the board is impossible.
    pub fn hand_in(&mut self, part: &Part, written: Option<(SlotWriter, Span)>) -> Result<bool, ShmError> {
        let written = written.map(|(writer, span)| {
            self.close_slot(writer);
            span
        });
        let Some(board) = &self.board else { return Ok(true) };
        let last = board.hand_in(self.worker, part, written)?;
        if !last {
            board.leave(self.worker);
        }
        Ok(last)
    }

    /// What others have made of the batch: their scratch slots, and where these are described. Called by the finisher.
    pub fn parts(&self, part: &Part) -> Vec<(u32, Span)> {
        let parts = self.board.as_ref().map(|board| board.parts(self.worker, part)).unwrap_or_default();
        let slot = |worker| self.arena.scratch_slot(worker, part.entry());
        parts.into_iter().map(|(worker, span)| (slot(worker), span)).collect()
    }

    /// A copy of a part of a scratch slot.
    ///
    /// # Errors
    /// When it has no such bytes, or there is no memory for them.
    pub fn read_scratch(&self, slot: u32, span: Span) -> Result<Region, ShmError> {
        self.arena.read_slot(slot, span)
    }

    /// This worker owes nothing more of any batch.
    pub fn leave(&self) {
        if let Some(board) = &self.board {
            board.leave(self.worker);
        }
    }
}

impl Arena {
    /// A writer for the trainer itself, which puts the indices at the start of a free slot.
    pub fn indices_writer(&self, slot: u32, memory: SlotMemory) -> SlotWriter {
        SlotWriter::new(self.clone(), slot, memory)
    }
}
