//! What ends a journey.

use forebay_shm::ShmError;

/// How a worker ended, as far as its crew can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WorkerEnd {
    /// It returned or panicked; the text says which.
    Thread(String),
    /// Only whoever started the process knows.
    Process,
}

/// An error of the engine. Errors of the *dataset* are none: they travel as a batch with
/// [`Outcome::Error`](crate::Outcome).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// Memory or the operating system failed.
    #[error(transparent)]
    Shm(#[from] ShmError),
    /// A worker ended although its work was not done.
    #[error("worker {worker} ended unexpectedly with {} batches in flight ({end:?})", in_flight.len())]
    WorkerEnded {
        /// Which worker.
        worker: u32,
        /// The batches it had been sent and had not finished.
        in_flight: Vec<u64>,
        /// How it ended.
        end: WorkerEnd,
    },
    /// A record in a queue makes no sense.
    #[error("worker {worker} sent a record that makes no sense: {what}")]
    Protocol {
        /// Which worker (or, in a worker, its own number).
        worker: u32,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The description of a batch makes no sense.
    #[error("the layout of a batch makes no sense: {0}")]
    Layout(&'static str),
    /// The engine was used in a child process that was forked from the trainer.
    #[error(
        "this iterator belongs to the process that made it; a forked child cannot use it (make a new iterator in the \
         child)"
    )]
    ForkedChild,
}
