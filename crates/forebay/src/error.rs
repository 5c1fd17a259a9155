//! One small error outside, the precise ones inside.

use std::time::Duration;

use forebay_engine::EngineError;
use forebay_shm::ShmError;

use crate::failure::{Class, Failure};
use crate::{BoxError, DType};

/// What went wrong: with the configuration, the dataset, the workers, the memory, or the use of a batch.
///
/// The text says what happened, with which value, and what to do. What the dataset itself returned is the
/// [`source`](std::error::Error::source), so that it can be taken down to its own type; of worker processes, which can
/// hand over its texts only, the source is a [`RemoteError`](crate::RemoteError).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("{name} must be at least 1, but is {value}")]
    Zero { name: &'static str, value: usize },
    #[error("{0}")]
    Config(String),
    #[error("an array of shape {shape:?} cannot be made of {given} elements")]
    Shape { shape: Vec<usize>, given: usize },
    #[error("the batch has no array {name:?}; it has {}", listed(names))]
    NoArray { name: String, names: Vec<String> },
    #[error("array {name:?} has elements of type {dtype}, not {asked}: ask for array::<{dtype}>")]
    OtherType { name: String, dtype: DType, asked: DType },
    #[error("array {name:?} has bytes that are no elements of type {dtype}: its memory was overwritten")]
    NoElements { name: String, dtype: DType },
    #[error("{what}")]
    Writing { what: String },
    #[error("{text}{}", in_place(*place))]
    Batch { class: Class, index: Option<usize>, text: String, source: Option<BoxError>, place: Option<Place> },
    #[error(
        "worker {worker} has not made batch {batch} within the timeout of {} s; it may be stuck in the dataset: raise \
         timeout, or ask again to go on waiting",
        timeout.as_secs_f64()
    )]
    Timeout { worker: u32, batch: u64, timeout: Duration },
    #[error(
        "this thread is not making a sample, so it has no sample_rng: call it within Dataset::get or a stream's next, in the \
         thread that was called; a test calls them within with_sample_rng"
    )]
    OutsideSample,
    #[error("{0}")]
    State(String),
    #[error("{text}")]
    WorkerDied { worker: u32, text: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Where a batch was being made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// Counted from the beginning of the epoch.
    pub(crate) batch: u64,
    /// `None` is the calling thread.
    pub(crate) worker: Option<u32>,
}

fn in_place(place: Option<Place>) -> String {
    match place {
        Some(Place { batch, worker: Some(worker) }) => format!(" (batch {batch}, worker {worker})"),
        Some(Place { batch, worker: None }) => format!(" (batch {batch}, without workers)"),
        None => String::new(),
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self(Box::new(kind))
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Kind::Engine(error).into()
    }
}

impl From<ShmError> for Error {
    fn from(error: ShmError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::of_batch(failure, None)
    }
}

impl Error {
    pub(crate) fn config(text: impl Into<String>) -> Self {
        Kind::Config(text.into()).into()
    }

    pub(crate) fn of_batch(failure: Failure, place: Option<Place>) -> Self {
        let Failure { class, index, text, source } = failure;
        Kind::Batch { class, index, text, source, place }.into()
    }

    /// What this error, which came up while a batch was being made, says about the batch.
    pub(crate) fn into_failure(self) -> Failure {
        match *self.0 {
            Kind::Batch { class, index, text, source, .. } => Failure { class, index, text, source },
            other => {
                Failure::new(Class::Collate, "the batch could not be collated").because(Self::from(other))
            }
        }
    }

    /// Whether a value given to the [`Builder`](crate::Builder) cannot work, or two of them exclude each other.
    pub fn is_config(&self) -> bool {
        matches!(*self.0, Kind::Zero { .. } | Kind::Config(_) | Kind::Engine(EngineError::Config(_)))
    }

    /// Whether the dataset returned an error, which is the source of this one.
    pub fn is_dataset(&self) -> bool {
        self.is_of(Class::Dataset)
    }

    /// Whether the dataset, or what collates its samples, panicked.
    pub fn is_panic(&self) -> bool {
        self.is_of(Class::Panic)
    }

    /// Whether the samples of a batch differ in names, element types or shapes.
    pub fn is_mismatch(&self) -> bool {
        self.is_of(Class::Mismatch)
    }

    /// Whether a [`Collate`](crate::Collate) returned an error of its own.
    pub fn is_collate(&self) -> bool {
        self.is_of(Class::Collate)
    }

    /// Whether a sampler gave an index that the dataset does not have.
    pub fn is_index(&self) -> bool {
        self.is_of(Class::Index)
    }

    /// Whether a worker could not begin: its `init_worker` failed.
    pub fn is_init_worker(&self) -> bool {
        self.is_of(Class::InitWorker)
    }

    /// Whether [`sample_rng`](crate::sample_rng) was called where no sample is being made.
    pub fn is_outside_sample(&self) -> bool {
        matches!(*self.0, Kind::OutsideSample)
    }

    /// Whether a [`LoaderState`](crate::LoaderState) is not for this loader, or cannot be had of it.
    pub fn is_state(&self) -> bool {
        matches!(*self.0, Kind::State(_))
    }

    /// Whether a batch took longer than the loader's timeout. Asking again goes on waiting.
    pub fn is_timeout(&self) -> bool {
        matches!(*self.0, Kind::Timeout { .. })
    }

    /// Whether a worker ended although it had work to do.
    pub fn is_worker_died(&self) -> bool {
        matches!(*self.0, Kind::WorkerDied { .. })
    }

    /// Whether there was no memory for a batch, or no room left in the memory budget.
    pub fn is_memory(&self) -> bool {
        use ShmError::{NoMemory, OverBudget, TooLarge};
        let of_memory = |error: &_| matches!(error, NoMemory { .. } | OverBudget { .. } | TooLarge { .. });
        match &*self.0 {
            Kind::Engine(EngineError::Shm(error)) => of_memory(error),
            _ => self.is_of(Class::Memory),
        }
    }

    /// Whether the operating system refused something else that an epoch needs: a thread, a process, a descriptor.
    pub fn is_system(&self) -> bool {
        matches!(*self.0, Kind::Engine(EngineError::Shm(ShmError::Os { .. })))
    }

    /// Whether an array was made with a wrong number of elements, or asked for by a wrong name or element type.
    pub fn is_array(&self) -> bool {
        use Kind::{NoArray, NoElements, OtherType, Shape, Writing};
        matches!(
            *self.0,
            Shape { .. } | NoArray { .. } | OtherType { .. } | NoElements { .. } | Writing { .. }
        )
    }

    /// The index of the sample that could not be had.
    pub fn index(&self) -> Option<usize> {
        if let Kind::Batch { index, .. } = *self.0 { index } else { None }
    }

    /// The batch in whose place this error comes, counted from the beginning of the epoch; of a
    /// [timeout](Self::is_timeout), the batch that is awaited.
    pub fn batch(&self) -> Option<u64> {
        match *self.0 {
            Kind::Batch { place, .. } => place.map(|place| place.batch),
            Kind::Timeout { batch, .. } => Some(batch),
            _ => None,
        }
    }

    /// The worker that was making the batch, or that died. `None` also when there are no workers.
    pub fn worker(&self) -> Option<u32> {
        match *self.0 {
            Kind::Batch { place, .. } => place.and_then(|place| place.worker),
            Kind::Timeout { worker, .. } | Kind::WorkerDied { worker, .. } => Some(worker),
            _ => None,
        }
    }

    fn is_of(&self, asked: Class) -> bool {
        matches!(*self.0, Kind::Batch { class, .. } if class == asked)
    }
}
