//! The trainer's side of an epoch with workers, whether they are threads or processes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_engine::layout::Value;
use forebay_engine::{Engine, EngineConfig, EngineError, Outcome, Turn, WorkerEnd};
use forebay_shm::sys::Woken;

use crate::error::{Kind, Place};
use crate::failure::Failure;
use crate::order::Plan;
use crate::recipe::BatchOrder;
use crate::worker::Report;
use crate::{Batch, Error};

/// Failures that worker threads hand over as they are, by step, until they are delivered.
#[derive(Debug, Default)]
pub(crate) struct Handed(Mutex<BTreeMap<u64, Failure>>);

impl Handed {
    fn failures(&self) -> MutexGuard<'_, BTreeMap<u64, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Report for Handed {
    fn report(&self, step: u64, failure: Failure) -> Value {
        self.failures().insert(step, failure);
        Value::None
    }
}

/// How a crew's workers tell what went wrong with them.
pub(crate) trait Workers: fmt::Debug + Send {
    /// How `worker`, which has ended, came to its end.
    fn end(&self, worker: u32) -> End;
}

/// A worker's end.
#[derive(Debug)]
pub(crate) struct End {
    /// As in `worker 3 was killed by signal 9`.
    pub(crate) how: String,
    /// The likely cause, and what to do.
    pub(crate) likely: &'static str,
}

/// An engine with its crew. Dropping it ends the workers: each finishes the sample it is at.
#[derive(Debug)]
pub(crate) struct Crewed {
    // Dropped in this order: the engine tells the workers to stop before the crew waits for them.
    engine: Engine,
    workers: Option<Box<dyn Workers>>,
    handed: Arc<Handed>,
    /// The epoch's first step.
    first_step: u64,
    next_step: u64,
    /// The number of the batch of the first step.
    first_batch: u64,
    /// Why no more batches could be sent, until that is told.
    broken: Option<Error>,
}

/// A batch, or the error in its place, which is known of both.
pub(crate) type Delivered = (Place, Result<Batch, Error>);

/// One epoch's orders.
pub(crate) struct Orders<'a> {
    pub(crate) plan: Plan<'a>,
    pub(crate) epoch: u64,
    /// See [`BatchOrder`].
    pub(crate) count: usize,
}

impl Orders<'_> {
    pub(crate) fn next(&mut self) -> Option<BatchOrder> {
        let indices = self.plan.next()?;
        Some(BatchOrder { epoch: self.epoch, count: self.count, indices })
    }
}

impl Crewed {
    /// An engine whose crew `attach` starts.
    pub(crate) fn start(
        config: EngineConfig,
        attach: impl FnOnce(&mut Engine, &Arc<Handed>) -> Result<Option<Box<dyn Workers>>, Error>,
    ) -> Result<Self, Error> {
        let (mut engine, handed) = (Engine::new(config)?, Arc::default());
        let workers = attach(&mut engine, &handed)?;
        Ok(Self { engine, workers, handed, first_step: 0, next_step: 0, first_batch: 0, broken: None })
    }

    /// Another epoch with the same workers.
    pub(crate) fn restart(&mut self) -> Result<(), Error> {
        self.engine.restart(0)?;
        self.first_step = self.next_step;
        // Of batches that nobody asked for any more.
        let still_wanted = self.handed.failures().split_off(&self.first_step);
        *self.handed.failures() = still_wanted;
        Ok(())
    }

    /// Begins an epoch, whose first batch has this number.
    pub(crate) fn begin(&mut self, orders: &mut Orders<'_>, batch: u64) -> Result<(), Error> {
        self.first_batch = batch;
        self.send_ahead(orders).map(drop)
    }

    /// Sends as many batches as the workers may have; tells whether that was any.
    fn send_ahead(&mut self, orders: &mut Orders<'_>) -> Result<bool, Error> {
        let before = self.next_step;
        while self.engine.wants()
            && let Some(order) = orders.next()
        {
            self.next_step = self.engine.submit(0, order.encode())? + 1;
        }
        Ok(self.next_step > before)
    }

    /// The next batch, or the error in its place; `None` at the end of the epoch. The workers go on while the program
    /// trains on this batch.
    ///
    /// # Errors
    /// What ends the epoch early; and a timeout, which does not.
    pub(crate) fn next(
        &mut self,
        orders: &mut Orders<'_>,
        timeout: Option<Duration>,
    ) -> Result<Option<Delivered>, Error> {
        // One that is later than any clock will show is none.
        let deadline = timeout.and_then(|timeout| Some((timeout, Instant::now().checked_add(timeout)?)));
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        loop {
            self.send_ahead(orders)?;
            match self.engine.turn()? {
                Turn::Batch(batch) => {
                    self.broken = self.send_ahead(orders).err();
                    return Ok(Some(self.delivered(batch)));
                }
                // Batches of an epoch that was broken off may have taken all room until now.
                Turn::Idle if self.send_ahead(orders)? => {}
                Turn::Idle => return Ok(None),
                Turn::StreamEnded => {}
                Turn::Pending => {
                    let woken = self.engine.wait(deadline.map(|(_, deadline)| deadline));
                    if let (Woken::TimedOut, Some((timeout, _))) =
                        (woken.map_err(|error| self.died(error))?, deadline)
                    {
                        return Err(self.timed_out(timeout));
                    }
                }
            }
        }
    }

    fn delivered(&mut self, batch: forebay_engine::Batch) -> Delivered {
        let place = Place { batch: self.number(batch.step), worker: Some(batch.worker) };
        if batch.outcome == Outcome::Batch {
            return (place, Batch::assemble(batch.value, batch.regions, batch.copied));
        }
        let handed = self.handed.failures().remove(&batch.step);
        let failure = handed.map_or_else(|| Failure::decode(batch.value), Ok);
        (place, Err(failure.map_or_else(Error::from, |failure| Error::of_batch(failure, Some(place)))))
    }

    fn timed_out(&self, timeout: Duration) -> Error {
        let (worker, step) = self.engine.awaited().unwrap_or((0, self.first_step));
        Kind::Timeout { worker, batch: self.number(step), timeout }.into()
    }

    /// Tells how a worker ended, when that is what the error is about.
    fn died(&self, error: EngineError) -> Error {
        let EngineError::WorkerEnded { worker, in_flight, end } = error else { return error.into() };
        let End { how, likely } = match (&self.workers, end) {
            (Some(workers), _) => workers.end(worker),
            (None, WorkerEnd::Thread(end)) => {
                End { how: format!("ended: {end}"), likely: "this is a fault of forebay: please report it" }
            }
            (None, WorkerEnd::Process) => End { how: "ended".into(), likely: "nobody knows why" },
        };
        let batches: Vec<String> = in_flight.iter().filter_map(|step| self.described(*step)).collect();
        let batches = if batches.is_empty() { String::from("no batch") } else { batches.join(", ") };
        let text = format!("worker {worker} {how}; it had still to make {batches}; {likely}");
        Kind::WorkerDied { worker, text }.into()
    }

    /// Batches are counted from the beginning of their epoch.
    fn number(&self, step: u64) -> u64 {
        step.saturating_sub(self.first_step) + self.first_batch
    }

    /// A batch in flight, with its indices.
    fn described(&self, step: u64) -> Option<String> {
        const MOST: usize = 8;
        if step < self.first_step {
            return None; // Of an epoch before: nobody waits for it.
        }
        let (_, bytes) = self.engine.indices(step)?;
        let indices = BatchOrder::decode(bytes).ok()?.indices;
        let batch = self.number(step);
        let more = if indices.len() > MOST { ", ..." } else { "" };
        let indices: Vec<String> = indices.iter().take(MOST).map(ToString::to_string).collect();
        let of_indices = if indices.is_empty() {
            String::new()
        } else {
            format!(" (indices {}{more})", indices.join(", "))
        };
        Some(format!("batch {batch}{of_indices}"))
    }
}
