//! Stations 1, 2, 4 and 6: what every front drives.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use forebay_shm::bell::Sleeper;
use forebay_shm::board::{Board, MAX_ROWS, Posting};
use forebay_shm::sys::{self, Event, Woken};
use forebay_shm::{Arena, Region, Span, TrainerEnd, Words, fork};

use crate::collect::Collect;
use crate::config::SMALL_ARRAY_BYTES;
use crate::dispatch::Dispatch;
use crate::layout::{self, Value};
use crate::message::{FromWorker, Outcome, ToWorker};
use crate::slots::Slots;
use crate::{Crew, EngineConfig, EngineError};

/// When the trainer has waited for a batch for so long, all workers are to help.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1);
/// A scratch slot keeps so much memory from batch to batch.
const KEPT_SCRATCH_BYTES: u64 = 64 << 10;

/// All that a worker needs to take part: sent to it once, when it starts.
#[derive(Debug)]
pub struct Seat {
    /// Its number, from 0.
    pub worker: u32,
    /// The arena's file.
    pub arena: OwnedFd,
    /// Rung when the worker has work.
    pub worker_bell: OwnedFd,
    /// Rung when the trainer has results.
    pub trainer_bell: OwnedFd,
    /// Readable when the trainer has ended ([`forebay_shm::sys::die_with`]).
    pub lifeline: OwnedFd,
}

/// A finished batch in the trainer's hands.
#[derive(Debug)]
pub struct Batch {
    /// Which batch of the loader's life, counted from 0.
    pub step: u64,
    /// Who made it: where rows are shared, who made its last ones.
    pub worker: u32,
    /// A batch, or an error to be raised in its place.
    pub outcome: Outcome,
    /// What it is.
    pub value: Value,
    /// The bytes of its arrays and opaque parts, in the order of [`Value::spans`].
    pub regions: Vec<Region>,
    /// Whether it had to be copied because the user keeps so many batches that the memory budget is used up.
    pub copied: bool,
}

/// What [`Engine::turn`] found.
#[derive(Debug)]
pub enum Turn {
    /// The next batch.
    Batch(Batch),
    /// The next batch is not there yet: [`Engine::wait`].
    Pending,
    /// The stream of one worker is over: there may be room now for batches of the others ([`Engine::wants`]).
    StreamEnded,
    /// Everything that was sent has been delivered.
    Idle,
}

/// A batch that was sent and not yet delivered. The indices stay here, so that it could be sent again.
#[derive(Debug)]
struct Flight {
    worker: u32,
    slot: u32,
    indices: Vec<u8>,
    format: u32,
    wanted: bool,
    finished: bool,
}

/// A finished batch, waiting for its turn.
#[derive(Debug)]
struct Finished {
    step: u64,
    worker: u32,
    outcome: Outcome,
    layout: Span,
    used: u64,
}

/// The journey's driver, in the trainer. Every method returns at once but [`Engine::wait`].
#[derive(Debug)]
pub struct Engine {
    config: EngineConfig,
    arena: Arena,
    /// Where rows are shared.
    board: Option<Board<Words>>,
    slots: Slots,
    dispatch: Dispatch,
    collect: Collect<Finished>,
    flights: BTreeMap<u64, Flight>,
    next_step: u64,
    /// The epoch's first step.
    first_step: u64,
    epoch: u64,
    /// A worker's stream is over, and the front has not been told.
    stream_ended: bool,
    workers: Vec<TrainerEnd>,
    sleeper: Sleeper<Words>,
    bell: Event,
    lifeline: OwnedFd,
    crew: Option<Box<dyn Crew>>,
    depth: u64,
}

impl Engine {
    /// An engine without a crew: hand its [`seats`](Self::seat) out, then [`attach`](Self::attach) the crew.
    ///
    /// # Errors
    /// When the shared memory or the descriptors cannot be had.
    pub fn new(config: EngineConfig) -> Result<Self, EngineError> {
        let arena = Arena::create(config.geometry())?;
        let ends = (0..config.workers()).map(|worker| Ok(TrainerEnd::new(&arena, worker, Event::new()?)));
        Ok(Self {
            workers: ends.collect::<Result<_, EngineError>>()?,
            slots: Slots::new(arena.clone(), config.window()),
            dispatch: Dispatch::new(config.workers(), config.window(), config.in_order()),
            collect: Collect::new(config.in_order(), 0),
            flights: BTreeMap::new(),
            next_step: 0,
            first_step: 0,
            epoch: 0,
            stream_ended: false,
            sleeper: arena.trainer_sleeper(),
            bell: Event::new()?,
            lifeline: sys::watch_self()?,
            crew: None,
            depth: fork::depth(),
            board: arena.board(),
            config,
            arena,
        })
    }

    /// What `worker` needs to take part.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn seat(&self, worker: u32) -> Result<Seat, EngineError> {
        Ok(Seat {
            worker,
            arena: sys::duplicate(self.arena.descriptor())?,
            worker_bell: sys::duplicate(self.workers[worker as usize].bell())?,
            trainer_bell: sys::duplicate(self.bell.as_fd())?,
            lifeline: sys::duplicate(self.lifeline.as_fd())?,
        })
    }

    /// The workers have started; from now on their ends are watched.
    pub fn attach(&mut self, crew: Box<dyn Crew>) {
        self.crew = Some(crew);
    }

    /// Whether one more batch may be sent: fewer are out than the window allows, and some worker has samples left.
    pub fn wants(&self) -> bool {
        self.flights.len() < self.config.window() as usize
            && self.dispatch.has_room()
            && self.board_has_room()
    }

    /// Whether the place of the next step on the board is free. It is, but for batches of an epoch that was broken off.
    fn board_has_room(&self) -> bool {
        let oldest = self.flights.first_key_value().map_or(self.next_step, |(step, _)| *step);
        self.board.as_ref().is_none_or(|board| self.next_step - oldest < board.entries())
    }

    /// Sends a batch, to be made by one worker; tells its step.
    ///
    /// # Errors
    /// As [`submit_rows`](Self::submit_rows).
    pub fn submit(&mut self, format: u32, indices: Vec<u8>) -> Result<u64, EngineError> {
        self.submit_rows(format, indices, 1)
    }

    /// Sends a batch to the worker whose turn it is; tells its step. Where rows are shared, several workers may make it,
    /// each some of its `rows`.
    ///
    /// # Errors
    /// When there is no memory for the indices, or a queue is corrupt. Called when [`wants`](Self::wants) is false, it
    /// is a [`EngineError::Config`].
    pub fn submit_rows(&mut self, format: u32, indices: Vec<u8>, rows: u32) -> Result<u64, EngineError> {
        self.check_process()?;
        let full =
            || EngineError::Config(format!("more than {} batches were sent ahead", self.config.window()));
        if !self.wants() {
            return Err(full());
        }
        let worker = self.dispatch.choose().ok_or_else(full)?;
        let slot = self.stow(worker, &indices).inspect_err(|_| self.dispatch.take_back(worker))?;
        let step = self.next_step;
        self.next_step += 1;
        let (epoch, indices_len) = (self.epoch, indices.len() as u64);
        self.flights.insert(step, Flight { worker, slot, indices, format, wanted: true, finished: false });
        if let Some(board) = &self.board {
            let rows = rows.clamp(1, MAX_ROWS);
            board.post(&Posting { step, epoch, slot, rows, format, indices_len }, step == self.first_step);
            self.wake_one(worker)?;
        } else {
            let fill = ToWorker::Fill { step, epoch, slot, format, indices_len };
            self.workers[worker as usize].send(&fill.encode())?;
        }
        Ok(step)
    }

    /// Wakes one sleeping worker, if there is one, `first` before others: it has the slot mapped.
    fn wake_one(&mut self, first: u32) -> Result<(), EngineError> {
        let (before, from) = self.workers.split_at_mut(first as usize);
        for worker in from.iter_mut().chain(before) {
            if worker.wakes()? {
                break;
            }
        }
        Ok(())
    }

    /// Puts the indices of a batch for `worker` into a free slot.
    fn stow(&mut self, worker: u32, indices: &[u8]) -> Result<u32, EngineError> {
        let none = || EngineError::Config("no slot is free".into());
        let slot = self.slots.grant(worker)?.ok_or_else(none)?;
        match self.slots.put_indices(slot, indices) {
            Ok(()) => Ok(slot),
            Err(error) => {
                self.slots.free(slot)?;
                Err(error.into())
            }
        }
    }

    /// The next batch, if it is there.
    ///
    /// # Errors
    /// When a worker broke the protocol, or this is a forked child of the trainer.
    pub fn turn(&mut self) -> Result<Turn, EngineError> {
        self.check_process()?;
        if let Some(batch) = self.deliver()? {
            return Ok(Turn::Batch(batch));
        }
        self.receive()?;
        match self.deliver()? {
            Some(batch) => Ok(Turn::Batch(batch)),
            None if std::mem::take(&mut self.stream_ended) => Ok(Turn::StreamEnded),
            None if self.flights.is_empty() => Ok(Turn::Idle),
            None => Ok(Turn::Pending),
        }
    }

    /// Sleeps until [`turn`](Self::turn) may find more, a signal arrives, or `deadline` passes.
    ///
    /// # Errors
    /// [`EngineError::WorkerEnded`] at once when a worker has ended.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Woken, EngineError> {
        self.check_process()?;
        self.sleeper.lie_down();
        let outcome = self.sleep(deadline);
        self.sleeper.get_up();
        outcome
    }

    fn sleep(&mut self, deadline: Option<Instant>) -> Result<Woken, EngineError> {
        if self.receive()? {
            return Ok(Woken::Ready(0));
        }
        let woken = {
            let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.bell.as_fd()];
            if let Some(crew) = &self.crew {
                descriptors.extend((0..self.config.workers()).map(|worker| crew.exit(worker)));
            }
            let patience = self.patience().filter(|until| deadline.is_none_or(|deadline| *until < deadline));
            match sys::wait(&descriptors, patience.or(deadline))? {
                Woken::TimedOut if patience.is_some() => {
                    self.workers.iter_mut().try_for_each(TrainerEnd::wake)?;
                    sys::wait(&descriptors, deadline)?
                }
                woken => woken,
            }
        };
        match woken {
            Woken::Ready(0) => self.bell.silence()?,
            Woken::Ready(place) => self.worker_ended(place as u32 - 1)?,
            Woken::Interrupted | Woken::TimedOut => {}
        }
        Ok(woken)
    }

    /// Until when to wait before all sleeping workers are woken, because there are rows that nobody has claimed.
    fn patience(&self) -> Option<Instant> {
        self.board.as_ref().filter(|board| board.has_rows()).map(|_| Instant::now() + PATIENCE)
    }

    /// `worker` will never write again: what it finished counts, what it did not is lost.
    fn worker_ended(&mut self, worker: u32) -> Result<(), EngineError> {
        if self.receive()? {
            return Ok(());
        }
        let lost = |(step, flight): &(&u64, &Flight)| self.is_at(worker, **step, flight) && !flight.finished;
        let in_flight = self.flights.iter().filter(lost).map(|(step, _)| *step).collect();
        let end = self.crew.as_ref().map_or(crate::error::WorkerEnd::Process, |crew| crew.end(worker));
        Err(EngineError::WorkerEnded { worker, in_flight, end })
    }

    /// Whether `worker` has to make a batch; where rows are shared, whether it has claimed rows of it.
    fn is_at(&self, worker: u32, step: u64, flight: &Flight) -> bool {
        self.board.as_ref().map_or(flight.worker == worker, |board| board.at(worker) == Some(step))
    }

    /// The indices of a batch that was sent and not delivered, in the front's format.
    pub fn indices(&self, step: u64) -> Option<(u32, &[u8])> {
        self.flights.get(&step).map(|flight| (flight.format, flight.indices.as_slice()))
    }

    /// Which worker has to make the batch that is awaited next, and which batch that is. Where rows are shared, one of those
    /// that are at it.
    pub fn awaited(&self) -> Option<(u32, u64)> {
        let (step, flight) = self.flights.iter().find(|(_, flight)| !flight.finished)?;
        let maker = (0..self.config.workers()).find(|worker| self.is_at(*worker, *step, flight));
        Some((maker.unwrap_or(flight.worker), *step))
    }

    /// A new epoch begins: nothing that was sent is wanted any more. Batches still in flight come in and are
    /// dropped; until then [`turn`](Self::turn) reports [`Turn::Pending`]. Its first batch is `first_worker`'s: worker 0,
    /// unless an epoch goes on in its middle.
    ///
    /// # Errors
    /// When the kernel refuses to take memory back.
    pub fn restart(&mut self, first_worker: u32) -> Result<(), EngineError> {
        self.check_process()?;
        for finished in self.collect.drain() {
            if let Some(flight) = self.flights.remove(&finished.step) {
                self.slots.free(flight.slot)?;
            }
        }
        self.flights.values_mut().for_each(|flight| flight.wanted = false);
        self.dispatch.restart(first_worker);
        self.epoch += 1;
        self.first_step = self.next_step;
        self.stream_ended = false;
        self.collect = Collect::new(self.config.in_order(), self.next_step);
        Ok(())
    }

    /// Tells every worker to return once it has made the batch it is making. Does nothing in a forked child.
    pub fn stop(&mut self) {
        if self.check_process().is_err() {
            return;
        }
        self.arena.stop();
        for worker in &mut self.workers {
            // A bell that cannot be rung is a worker's that will be stopped by whoever started it.
            let _ = worker.wake();
        }
    }

    /// All workers have ended: gives back all memory but that of batches the user keeps. Does nothing in a forked
    /// child.
    ///
    /// # Errors
    /// When the kernel refuses to take memory back.
    pub fn release(&mut self) -> Result<(), EngineError> {
        if self.check_process().is_err() {
            return Ok(());
        }
        for flight in std::mem::take(&mut self.flights).into_values() {
            self.slots.free(flight.slot)?;
        }
        self.collect.drain();
        for step in 0..self.board.as_ref().map_or(0, Board::entries) {
            self.clear_scratch(step, 0)?;
        }
        Ok(self.slots.release()?)
    }

    /// Batches that there is room for at once, whatever their size.
    pub fn slots(&self) -> u32 {
        self.arena.geometry().slots
    }

    /// Bytes of shared memory that batches take now.
    pub fn memory_bytes(&self) -> u64 {
        self.arena.reserved_total()
    }

    /// What the engine was told at birth.
    pub fn config(&self) -> EngineConfig {
        self.config
    }

    /// Takes in everything the workers have sent; tells whether that was anything.
    fn receive(&mut self) -> Result<bool, EngineError> {
        let mut any = false;
        for worker in 0..self.workers.len() {
            while let Some(record) = self.workers[worker].receive()? {
                let protocol = |what| EngineError::Protocol { worker: worker as u32, what };
                let message = FromWorker::decode(&record).map_err(protocol)?;
                self.note(worker as u32, message)?;
                any = true;
            }
        }
        Ok(any)
    }

    /// A worker reports a finished batch. It may report only what it was sent, and only once.
    fn note(&mut self, worker: u32, message: FromWorker) -> Result<(), EngineError> {
        let FromWorker::Done { step, slot, outcome, layout, used } = message;
        let protocol = |what| EngineError::Protocol { worker, what };
        let flight = self.flights.get_mut(&step).ok_or_else(|| protocol("a batch that was not sent"))?;
        let its_own = self.board.as_ref().map_or(flight.worker == worker, |board| board.is_complete(step));
        if !its_own || flight.slot != slot || flight.finished {
            return Err(protocol("a batch that was sent to somebody else or has come before"));
        }
        flight.finished = true;
        let wanted = flight.wanted;
        self.dispatch.finished(flight.worker);
        self.clear_scratch(step, KEPT_SCRATCH_BYTES)?;
        if wanted && outcome == Outcome::End {
            self.dispatch.retire(worker);
            self.stream_ended = true;
        }
        if wanted {
            self.collect.put(step, Finished { step, worker, outcome, layout, used });
        } else {
            self.flights.remove(&step);
            self.slots.free(slot)?;
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<Option<Batch>, EngineError> {
        while let Some(finished) = self.collect.take() {
            let missing = EngineError::Layout("its flight is unknown");
            let Flight { slot, .. } = self.flights.remove(&finished.step).ok_or(missing)?;
            if finished.outcome != Outcome::End {
                return self.hand_over(slot, finished).map(Some);
            }
            self.slots.free(slot)?;
        }
        Ok(None)
    }

    /// Gives back the memory of what workers made of the batch of `step` for each other, beyond so many bytes a worker.
    fn clear_scratch(&self, step: u64, kept_bytes: u64) -> Result<(), EngineError> {
        let Some(board) = &self.board else { return Ok(()) };
        for worker in 0..self.config.workers() {
            let slot = self.arena.scratch_slot(worker, step % board.entries());
            if self.arena.reserved(slot) > kept_bytes {
                self.arena.give_back(slot)?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, slot: u32, finished: Finished) -> Result<Batch, EngineError> {
        let Finished { step, worker, outcome, layout, used } = finished;
        let (lease, may_keep) = self.slots.lease(slot, used, self.config.window())?;
        let value = layout::decode(&lease.read(layout)?)?;
        let spans = value.spans();
        let large = |span: Span| span.len > SMALL_ARRAY_BYTES;
        let copied = !may_keep && spans.iter().any(|span| large(*span));
        let regions = lease.split(&spans, |span| may_keep && large(span))?;
        Ok(Batch { step, worker, outcome, value, regions, copied })
    }

    fn check_process(&self) -> Result<(), EngineError> {
        if fork::depth() == self.depth { Ok(()) } else { Err(EngineError::ForkedChild) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
