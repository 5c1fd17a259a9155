//! The two ends of the conversation between a trainer and one worker: an index queue, a result queue, and a bell for
//! each side.

use std::os::fd::{AsFd, BorrowedFd};

use crate::bell::Sleeper;
use crate::queue::{Consumer, Producer, Record};
use crate::segment::Words;
use crate::slot::SlotMemory;
use crate::sys::Event;
use crate::{Arena, ShmError, SlotWriter};

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
        if self.worker.must_ring() { self.bell.ring() } else { Ok(()) }
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
            slots: vec![SlotMemory::unmapped(); geometry.slots as usize],
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
        let known = self.slots.get_mut(slot as usize);
        let memory = known.ok_or(ShmError::Corrupt { what: "a slot's number", value: slot.into() })?;
        memory.settle(&self.arena, slot)?;
        memory.cover(&self.arena, slot, payload_len)?;
        let corrupt = ShmError::Corrupt { what: "the length of the indices", value: payload_len };
        let start = memory.pointer(0, payload_len).ok_or(corrupt)?;
        // SAFETY: `pointer` checked that the bytes are mapped; the trainer wrote them before it granted the slot and
        // leaves them alone now.
        let payload = unsafe { std::slice::from_raw_parts(start.as_ptr(), payload_len as usize) }.to_vec();
        Ok((SlotWriter::new(self.arena.clone(), slot, memory.clone()), payload))
    }

    /// Keeps what a finished writer has mapped, for the slot's next batch.
    pub fn close_slot(&mut self, writer: SlotWriter) {
        let slot = writer.slot() as usize;
        self.slots[slot] = writer.into_memory();
    }
}

impl Arena {
    /// A writer for the trainer itself, which puts the indices at the start of a free slot.
    pub fn indices_writer(&self, slot: u32, memory: SlotMemory) -> SlotWriter {
        SlotWriter::new(self.clone(), slot, memory)
    }
}
