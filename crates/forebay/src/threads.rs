//! Batches made by worker threads: both sides of the engine, for this front.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_engine::layout::Value;
use forebay_engine::{
    Engine, EngineConfig, EngineError, Order, Outcome, ThreadCrew, Ticket, Turn, Unpublished, Worker,
};

use crate::collate::{Slot, collate};
use crate::error::{Kind, Place};
use crate::order::Plan;
use crate::{Batch, Dataset, Error, Sample};

/// Indices are 64-bit integers, one after the other.
const PACKED: u32 = 0;

/// What the workers and the trainer share beside the engine. They are threads of one program, so an error is handed
/// over as it is, and not described.
struct Shared {
    dataset: Arc<dyn Dataset>,
    /// The errors of batches, by step, until they are delivered.
    errors: Mutex<BTreeMap<u64, Error>>,
}

impl Shared {
    fn errors(&self) -> MutexGuard<'_, BTreeMap<u64, Error>> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An epoch with worker threads: the trainer's side.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    engine: Engine,
    plan: Plan,
    /// How many samples each batch has that was sent.
    lengths: BTreeMap<u64, usize>,
    /// Why no more batches could be sent.
    broken: Option<Error>,
}

impl Threads {
    /// Starts the workers and sends the first batches.
    pub(crate) fn start(config: EngineConfig, dataset: Arc<dyn Dataset>, plan: Plan) -> Result<Self, Error> {
        let shared = Arc::new(Shared { dataset, errors: Mutex::default() });
        let mut engine = Engine::new(config)?;
        let seats = (0..config.workers()).map(|worker| engine.seat(worker)).collect::<Result<_, _>>()?;
        let of_workers = shared.clone();
        let crew = ThreadCrew::start(seats, move |worker| work(worker, &of_workers))?;
        engine.attach(Box::new(crew));
        let mut threads = Self { shared, engine, plan, lengths: BTreeMap::new(), broken: None };
        threads.send_ahead()?;
        Ok(threads)
    }

    /// Sends as many batches as the workers may have.
    fn send_ahead(&mut self) -> Result<(), Error> {
        while self.engine.wants()
            && let Some(indices) = self.plan.next()
        {
            let packed = indices.iter().flat_map(|index| (*index as u64).to_ne_bytes()).collect();
            let step = self.engine.submit(PACKED, packed)?;
            self.lengths.insert(step, indices.len());
        }
        Ok(())
    }

    /// The next batch, or the error in its place; `None` at the end of the epoch.
    ///
    /// # Errors
    /// What ends the epoch early.
    pub(crate) fn next(&mut self) -> Result<Option<Result<Batch, Error>>, Error> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        loop {
            match self.engine.turn()? {
                Turn::Batch(batch) => {
                    // The workers go on while the program trains on this batch.
                    self.broken = self.send_ahead().err();
                    return Ok(Some(self.delivered(batch)));
                }
                Turn::Idle => return Ok(None),
                Turn::StreamEnded => self.send_ahead()?,
                Turn::Pending => {
                    self.engine.wait(None)?;
                }
            }
        }
    }

    fn delivered(&mut self, batch: forebay_engine::Batch) -> Result<Batch, Error> {
        let len = self.lengths.remove(&batch.step).unwrap_or(0);
        match batch.outcome {
            Outcome::Batch => Batch::from_engine(len, batch),
            Outcome::Error | Outcome::End => {
                let lost = || EngineError::Layout("an error was reported and not handed over").into();
                Err(self.shared.errors().remove(&batch.step).unwrap_or_else(lost))
            }
        }
    }
}

impl fmt::Debug for Threads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Threads").field("engine", &self.engine).finish_non_exhaustive()
    }
}

/// A worker's life.
fn work(mut worker: Worker, shared: &Shared) -> Result<(), EngineError> {
    loop {
        match worker.next_order()? {
            None => {}
            Some(Order::Stop) => return Ok(()),
            Some(Order::Fill(ticket)) => fill(&mut worker, ticket, shared)?,
        }
    }
}

/// Makes one batch, or puts the error in its place.
fn fill(worker: &mut Worker, mut ticket: Ticket, shared: &Shared) -> Result<(), EngineError> {
    let indices: Vec<usize> =
        ticket.indices.as_chunks().0.iter().map(|index| u64::from_ne_bytes(*index) as usize).collect();
    let place = Place { batch: ticket.step, worker: Some(worker.id()) };
    let get = |index| match worker.is_stopped() {
        false => sample(&*shared.dataset, index, place),
        true => Err(EngineError::Layout("nobody wants it any more").into()),
    };
    let made = collate(&indices, place, &mut Slot::new(&mut ticket.writer), get);
    let (ticket, error) = match made {
        Ok(value) => match worker.finish(ticket, Outcome::Batch, &value) {
            Ok(()) => return Ok(()),
            Err(Unpublished { ticket, error }) => (*ticket, error.into()),
        },
        Err(error) => (ticket, error),
    };
    fail(worker, ticket, error, shared)
}

fn fail(worker: &mut Worker, mut ticket: Ticket, error: Error, shared: &Shared) -> Result<(), EngineError> {
    shared.errors().insert(ticket.step, error);
    ticket.writer.clear();
    worker.finish(ticket, Outcome::Error, &Value::None).map_err(|unpublished| unpublished.error)
}

/// One sample, or how the dataset failed.
pub(crate) fn sample(dataset: &dyn Dataset, index: usize, place: Place) -> Result<Sample, Error> {
    match catch_unwind(AssertUnwindSafe(|| dataset.get(index))) {
        Ok(Ok(sample)) => Ok(sample),
        Ok(Err(source)) => Err(Kind::Dataset { index, place, source }.into()),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text =
                text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no text".into());
            Err(Kind::Panic { index, place, text }.into())
        }
    }
}
