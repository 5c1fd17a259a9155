//! One small error outside, the precise ones inside.

use std::fmt;

use forebay_engine::EngineError;
use forebay_shm::ShmError;

use crate::{BoxError, DType};

/// What went wrong: with the configuration, the dataset, the memory, or the use of a batch.
///
/// The text says what happened, with which value, and what to do. What the dataset itself returned is the
/// [`source`](std::error::Error::source), so that it can be taken down to its own type.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Kind>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Kind {
    #[error("{name} must be at least 1, but is {value}")]
    Zero { name: &'static str, value: usize },
    #[error("an array of shape {shape:?} cannot be made of {given} elements")]
    Shape { shape: Vec<usize>, given: usize },
    #[error("the batch has no array {name:?}; it has {}", listed(names))]
    NoArray { name: String, names: Vec<String> },
    #[error("array {name:?} has elements of type {dtype}, not {asked}: ask for array::<{dtype}>")]
    OtherType { name: String, dtype: DType, asked: DType },
    #[error("array {name:?} has bytes that are no elements of type {dtype}: its memory was overwritten")]
    NoElements { name: String, dtype: DType },
    #[error("the dataset returned an error for index {index} ({place})")]
    Dataset { index: usize, place: Place, source: BoxError },
    #[error("the dataset panicked for index {index} ({place}): {text}")]
    Panic { index: usize, place: Place, text: String },
    #[error(
        "the samples of one batch must have the same arrays, but the one at index {first_index} has {first} and the one \
         at index {index} has {other} ({place}); make them alike in the dataset, or use batch_size(1)"
    )]
    Mismatch { first_index: usize, first: String, index: usize, other: String, place: Place },
    #[error("there is no memory for a batch ({place})")]
    Memory { place: Place, source: ShmError },
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

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.worker {
            Some(worker) => write!(formatter, "batch {}, worker {worker}", self.batch),
            None => write!(formatter, "batch {}, without workers", self.batch),
        }
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

impl Error {
    /// Whether a value given to the [`Builder`](crate::Builder) cannot work.
    pub fn is_config(&self) -> bool {
        matches!(*self.0, Kind::Zero { .. } | Kind::Engine(EngineError::Config(_)))
    }

    /// Whether the dataset returned an error, which is the source of this one.
    pub fn is_dataset(&self) -> bool {
        matches!(*self.0, Kind::Dataset { .. })
    }

    /// Whether the dataset panicked.
    pub fn is_panic(&self) -> bool {
        matches!(*self.0, Kind::Panic { .. })
    }

    /// Whether the samples of a batch differ in names, element types or shapes.
    pub fn is_mismatch(&self) -> bool {
        matches!(*self.0, Kind::Mismatch { .. })
    }

    /// Whether there was no memory for a batch, or no room left in the memory budget.
    pub fn is_memory(&self) -> bool {
        use ShmError::{NoMemory, OverBudget, TooLarge};
        let of_indices = |error: &_| matches!(error, NoMemory { .. } | OverBudget { .. } | TooLarge { .. });
        match &*self.0 {
            Kind::Memory { .. } => true,
            Kind::Engine(EngineError::Shm(error)) => of_indices(error),
            _ => false,
        }
    }

    /// Whether the operating system refused something else that an epoch needs: a thread, a descriptor.
    pub fn is_system(&self) -> bool {
        matches!(*self.0, Kind::Engine(EngineError::Shm(ShmError::Os { .. })))
    }

    /// Whether an array was made with a wrong number of elements, or asked for by a wrong name or element type.
    pub fn is_array(&self) -> bool {
        use Kind::{NoArray, NoElements, OtherType, Shape};
        matches!(*self.0, Shape { .. } | NoArray { .. } | OtherType { .. } | NoElements { .. })
    }

    /// The index of the sample that could not be had.
    pub fn index(&self) -> Option<usize> {
        match *self.0 {
            Kind::Dataset { index, .. } | Kind::Panic { index, .. } | Kind::Mismatch { index, .. } => {
                Some(index)
            }
            _ => None,
        }
    }

    /// The batch in whose place this error comes, counted from the beginning of the epoch.
    pub fn batch(&self) -> Option<u64> {
        self.place().map(|place| place.batch)
    }

    /// The worker that was making the batch. `None` also when there are no workers.
    pub fn worker(&self) -> Option<u32> {
        self.place().and_then(|place| place.worker)
    }

    fn place(&self) -> Option<Place> {
        match *self.0 {
            Kind::Dataset { place, .. }
            | Kind::Panic { place, .. }
            | Kind::Mismatch { place, .. }
            | Kind::Memory { place, .. } => Some(place),
            _ => None,
        }
    }
}
