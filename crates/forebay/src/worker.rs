//! Station 3: a worker's life, whether it is a thread or a process.

use std::panic::{AssertUnwindSafe, catch_unwind};

use forebay_engine::layout::Value;
use forebay_engine::{EngineError, Order, Outcome, Ticket, Unpublished, Worker};
use forebay_order::Key;
use serde::{Deserialize, Serialize};

use crate::WorkerInfo;
use crate::collate::Slot;
use crate::failure::{Class, Failure};
use crate::recipe::{BatchOrder, Pass, Recipe};

/// What all workers of a crew are told when they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Start {
    pub(crate) num_workers: u32,
    pub(crate) seed: u64,
    pub(crate) epoch: u64,
    pub(crate) rank: u32,
    pub(crate) world: u32,
}

impl Start {
    pub(crate) fn info(self, worker: u32, epoch: u64) -> WorkerInfo {
        WorkerInfo::new(worker as usize, self.num_workers as usize, self.seed, epoch)
            .on_rank(self.rank as usize, self.world as usize)
    }

    pub(crate) fn key(self, epoch: u64) -> Key {
        Key::new(self.seed, epoch)
    }
}

/// How a worker hands a failure over to the trainer.
pub(crate) trait Report {
    /// The value to publish in the place of batch `step`.
    fn report(&self, step: u64, failure: Failure) -> Value;
}

/// Makes batches until the trainer says stop. `ready` is how the worker's init went.
///
/// # Errors
/// When the trainer's orders make no sense, or nothing can be published.
pub(crate) fn work(
    mut worker: Worker,
    recipe: &dyn Recipe,
    start: Start,
    mut ready: Result<(), Failure>,
    report: &dyn Report,
) -> Result<(), EngineError> {
    let mut pass: Option<(u64, Box<dyn Pass + '_>)> = None;
    let mut told_in = None;
    loop {
        let ticket = match worker.next_order()? {
            None => continue,
            Some(Order::Stop) => return Ok(()),
            Some(Order::Fill(ticket)) => ticket,
            Some(Order::Rows(_)) => {
                let what = "rows to share, which this front does not";
                return Err(EngineError::Protocol { worker: worker.id(), what });
            }
        };
        if let Err(failure) = &mut ready {
            if recipe.streams() && told_in == Some(ticket.epoch) {
                // Without this end there would be a failure after the other for ever.
                publish(&mut worker, ticket, Outcome::End, &Value::None)?;
                continue;
            }
            told_in = Some(ticket.epoch);
            // Every batch gets the reason, the first one the original.
            let told = failure.told();
            fail(&mut worker, ticket, std::mem::replace(failure, told), report)?;
            continue;
        }
        let order = BatchOrder::decode(&ticket.indices)?;
        let pass = match &mut pass {
            Some((epoch, pass)) if *epoch == ticket.epoch => pass,
            stale => {
                // The last epoch's stream ends before the next begins. A panic of its drop has been printed.
                let _ = catch_unwind(AssertUnwindSafe(|| *stale = None));
                let begun = recipe.begin(start.info(worker.id(), order.epoch), start.key(order.epoch));
                &mut stale.insert((ticket.epoch, begun)).1
            }
        };
        fill(&mut worker, ticket, &order, &mut **pass, report)?;
    }
}

fn publish(worker: &mut Worker, ticket: Ticket, outcome: Outcome, value: &Value) -> Result<(), EngineError> {
    worker.finish(ticket, outcome, value).map_err(|unpublished| unpublished.error)
}

/// Makes one batch, or puts the failure in its place.
fn fill(
    worker: &mut Worker,
    mut ticket: Ticket,
    order: &BatchOrder,
    pass: &mut dyn Pass,
    report: &dyn Report,
) -> Result<(), EngineError> {
    let made = pass.make(order, &mut Slot::new(&mut ticket.writer), &|| worker.is_stopped());
    let (outcome, value) = match made {
        Ok(Some(value)) => (Outcome::Batch, value),
        Ok(None) => (Outcome::End, Value::None),
        Err(failure) => return fail(worker, ticket, failure, report),
    };
    match worker.finish(ticket, outcome, &value) {
        Ok(()) => Ok(()),
        Err(Unpublished { ticket, error }) => {
            let failure = Failure::new(Class::Memory, "there is no memory for a batch").because(error);
            fail(worker, *ticket, failure, report)
        }
    }
}

fn fail(
    worker: &mut Worker,
    mut ticket: Ticket,
    failure: Failure,
    report: &dyn Report,
) -> Result<(), EngineError> {
    let (step, short) = (ticket.step, failure.short());
    ticket.writer.clear();
    match worker.finish(ticket, Outcome::Error, &report.report(step, failure)) {
        Ok(()) => Ok(()),
        Err(Unpublished { ticket, .. }) => {
            publish(worker, *ticket, Outcome::Error, &report.report(step, short))
        }
    }
}
