//! Station 3: a worker's side of the journey, whoever runs it.

use std::os::fd::AsFd;
use std::time::Instant;

use forebay_shm::board::Wanted;
use forebay_shm::sys::{self, Event, Woken};
use forebay_shm::{Arena, SlotWriter, Span, WorkerEnd};

use crate::engine::PATIENCE;
use crate::layout::{self, Value};
use crate::message::{FromWorker, Outcome, ToWorker};
use crate::{EngineError, Part, Seat};

/// The work order for one batch, and the slot to make it in.
#[derive(Debug)]
pub struct Ticket {
    /// Which batch of the loader's life, counted from 0.
    pub step: u64,
    /// Which epoch of the loader's life, counted from 0: a dataset that is a stream begins anew with it.
    pub epoch: u64,
    /// The front's mark of how `indices` is written.
    pub format: u32,
    /// The indices, as the front wrote them.
    pub indices: Vec<u8>,
    /// The slot.
    pub writer: SlotWriter,
}

/// A batch that could not be published.
#[derive(Debug)]
pub struct Unpublished {
    /// Its ticket, handed back so that the error can be reported in its place.
    pub ticket: Box<Ticket>,
    /// Why.
    pub error: EngineError,
}

/// What a worker is to do next.
#[derive(Debug)]
pub enum Order {
    /// Make a batch.
    Fill(Ticket),
    /// Make rows of a batch, of which others may make some, too.
    Rows(Part),
    /// Return.
    Stop,
}

/// A worker of a crew. Used by the thread that makes the batches, and by no other.
#[derive(Debug)]
pub struct Worker {
    id: u32,
    pub(crate) end: WorkerEnd,
    /// Whether it joins in batches that others have begun.
    helps: bool,
}

impl Worker {
    /// Takes the seat the trainer prepared, in a process of its own, which from now on ends when the trainer does,
    /// whatever it is doing then.
    ///
    /// # Errors
    /// As [`join`](Self::join), or when no thread can be started.
    pub fn join_as_process(seat: Seat) -> Result<Self, EngineError> {
        sys::die_with(sys::duplicate(seat.lifeline.as_fd())?)?;
        sys::reuse_freed_memory();
        Self::join(seat)
    }

    /// Takes the seat the trainer prepared, in a thread of the trainer.
    ///
    /// # Errors
    /// When what the seat refers to is no arena, or has no such worker.
    pub fn join(seat: Seat) -> Result<Self, EngineError> {
        let Seat { worker, arena, worker_bell, trainer_bell, .. } = seat;
        let arena = Arena::open(arena)?;
        let (own, trainer) = (Event::from_descriptor(worker_bell), Event::from_descriptor(trainer_bell));
        Ok(Self { id: worker, end: WorkerEnd::new(arena, worker, own, trainer)?, helps: true })
    }

    /// Its number, from 0.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether the trainer wants no more batches, not even the one that is being made.
    pub fn is_stopped(&self) -> bool {
        self.end.is_stopped()
    }

    /// From now on this worker joins in no batch that another has begun: its samples cannot travel.
    pub fn stop_helping(&mut self) {
        self.helps = false;
    }

    /// The oldest order, if there is one.
    ///
    /// # Errors
    /// When the trainer's record makes no sense.
    pub fn try_next(&mut self) -> Result<Option<Order>, EngineError> {
        self.look(Wanted::Unbegun)
    }

    fn look(&mut self, wanted: Wanted) -> Result<Option<Order>, EngineError> {
        if self.end.is_stopped() {
            return Ok(Some(Order::Stop));
        }
        if self.end.shares_rows() {
            return self.begin(if self.helps { wanted } else { Wanted::Alone });
        }
        let Some(record) = self.end.receive()? else { return Ok(None) };
        let protocol = |what| EngineError::Protocol { worker: self.id, what };
        let ToWorker::Fill { step, epoch, slot, format, indices_len } =
            ToWorker::decode(&record).map_err(protocol)?;
        let (writer, indices) = self.end.open_slot(slot, indices_len)?;
        Ok(Some(Order::Fill(Ticket { step, epoch, format, indices, writer })))
    }

    /// The oldest order; sleeps until there is one. `None` when a signal came first, so that the program can react
    /// to it.
    ///
    /// # Errors
    /// When the trainer's record makes no sense, or the operating system refuses to wait.
    pub fn next_order(&mut self) -> Result<Option<Order>, EngineError> {
        let mut wanted = Wanted::Unbegun;
        loop {
            if let Some(order) = self.look(wanted)? {
                return Ok(Some(order));
            }
            self.end.sleep().0.lie_down();
            let order = self.look(Wanted::Unbegun);
            let woken = if matches!(order, Ok(None)) { self.sleep() } else { Ok(Woken::Ready(0)) };
            self.end.sleep().0.get_up();
            wanted = match (order?, woken?) {
                (Some(order), _) => return Ok(Some(order)),
                (None, Woken::Interrupted) => return Ok(None),
                (None, Woken::TimedOut) => Wanted::Any,
                (None, Woken::Ready(_)) => Wanted::Unbegun,
            }
        }
    }

    /// Sleeps until there is something to do: at once, or because others have not claimed all their rows in a while.
    fn sleep(&self) -> Result<Woken, EngineError> {
        let bell = self.end.sleep().1;
        let patience = (self.helps && self.end.has_rows()).then(|| Instant::now() + PATIENCE);
        let woken = sys::wait(&[bell.as_fd()], patience)?;
        if woken != Woken::TimedOut {
            bell.silence()?;
        }
        Ok(woken)
    }

    /// Publishes what the ticket's writer holds: a batch, or an error, described by `value`. After an
    /// [`Outcome::End`], every further ticket of the same epoch is to be answered by another one.
    ///
    /// # Errors
    /// When the description finds no memory; then the ticket is handed back, cleared, for an error to be reported.
    pub fn finish(&mut self, mut ticket: Ticket, outcome: Outcome, value: &Value) -> Result<(), Unpublished> {
        let mut description = Vec::new();
        layout::encode(value, &mut description);
        let offset = match ticket.writer.append(&description) {
            Ok(offset) => offset,
            Err(error) => {
                ticket.writer.clear();
                return Err(Unpublished { ticket: Box::new(ticket), error: error.into() });
            }
        };
        let layout = Span { offset, len: description.len() as u64 };
        let (step, slot, used) = (ticket.step, ticket.writer.slot(), ticket.writer.used());
        let done = FromWorker::Done { step, slot, outcome, layout, used };
        match self.end.send(&done.encode()) {
            Ok(()) => {
                self.end.leave();
                self.end.close_slot(ticket.writer);
                Ok(())
            }
            Err(error) => Err(Unpublished { ticket: Box::new(ticket), error: error.into() }),
        }
    }
}
