//! A user's object: epochs of batches, in order.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use forebay_engine::EngineConfig;
use forebay_shm::Region;
use forebay_shm::sync::{AtomicU64, Ordering};

use crate::collate::collate;
use crate::error::{Kind, Place};
use crate::order::{Cut, Plan};
use crate::threads::{Threads, sample};
use crate::{Batch, Dataset, Error};

/// Epochs of batches of a dataset, each an iteration over `&loader`.
pub struct DataLoader {
    dataset: Arc<dyn Dataset>,
    cut: Cut,
    seed: Option<u64>,
    /// `None` is the calling thread.
    crew: Option<EngineConfig>,
    next_epoch: AtomicU64,
}

impl DataLoader {
    /// A loader of `dataset`, to be configured. Defaults are as in PyTorch: batches of one sample, in order, made in
    /// the calling thread. An `Arc` of a dataset is a dataset, too.
    pub fn builder(dataset: impl Dataset + 'static) -> Builder {
        Builder {
            dataset: Arc::new(dataset),
            batch_size: 1,
            drop_last: false,
            seed: None,
            num_workers: 0,
            prefetch_factor: 2,
            memory_budget: None,
        }
    }

    /// Begins the next epoch. Its workers start at once, and end with the iterator.
    ///
    /// # Errors
    /// When the threads, the descriptors or the memory for them cannot be had.
    pub fn iter(&self) -> Result<Batches, Error> {
        self.epoch(self.next_epoch.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins the epoch with this number, counted from 0, whatever came before: the order of a shuffled epoch depends on
    /// the seed and this number. [`iter`](Self::iter) does not count it.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn epoch(&self, epoch: u64) -> Result<Batches, Error> {
        let plan = Plan::new(self.dataset.len(), self.cut, self.seed, epoch);
        let left = plan.batches_left();
        let journey = match self.crew {
            None => Journey::Alone(Alone { dataset: self.dataset.clone(), plan, batch: 0 }),
            Some(config) => Journey::Threads(Box::new(Threads::start(config, self.dataset.clone(), plan)?)),
        };
        Ok(Batches { journey: Ok(Some(journey)), left })
    }

    /// Batches in an epoch.
    pub fn len(&self) -> usize {
        self.cut.batches(self.dataset.len())
    }

    /// Whether an epoch has no batches.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl IntoIterator for &DataLoader {
    type Item = Result<Batch, Error>;
    type IntoIter = Batches;

    /// The next epoch. If it cannot begin, its only item is the error.
    fn into_iter(self) -> Batches {
        self.iter().unwrap_or_else(|error| Batches { journey: Err(error), left: 1 })
    }
}

impl fmt::Debug for DataLoader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cut, seed, crew, next_epoch, .. } = self;
        let mut text = formatter.debug_struct("DataLoader");
        text.field("cut", cut).field("seed", seed).field("crew", crew).field("next_epoch", next_epoch);
        text.finish_non_exhaustive()
    }
}

/// A [`DataLoader`] to be.
#[must_use]
pub struct Builder {
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    drop_last: bool,
    seed: Option<u64>,
    num_workers: u32,
    prefetch_factor: u32,
    memory_budget: Option<u64>,
}

impl Builder {
    /// Samples in a batch; the last one of an epoch may have fewer. 1 if not said.
    pub fn batch_size(self, batch_size: usize) -> Self {
        Self { batch_size, ..self }
    }

    /// Leaves a last batch out that would have fewer samples.
    pub fn drop_last(self, drop_last: bool) -> Self {
        Self { drop_last, ..self }
    }

    /// Another random order in every epoch. The orders depend on this seed, the epoch and the number of samples, and
    /// on nothing else; they stay the same in later releases.
    pub fn shuffle(self, seed: u64) -> Self {
        Self { seed: Some(seed), ..self }
    }

    /// Threads that make batches. 0, as if not said: the thread that asks for a batch makes it.
    pub fn num_workers(self, num_workers: u32) -> Self {
        Self { num_workers, ..self }
    }

    /// Batches ahead for each worker. 2 if not said.
    pub fn prefetch_factor(self, prefetch_factor: u32) -> Self {
        Self { prefetch_factor, ..self }
    }

    /// Bytes of memory that the workers' batches may take together, those included that the program keeps. Half of the
    /// memory this program may use, if not said. Without workers it is not looked at.
    pub fn memory_budget(self, bytes: u64) -> Self {
        Self { memory_budget: Some(bytes), ..self }
    }

    /// The loader.
    ///
    /// # Errors
    /// When a value cannot work ([`Error::is_config`]).
    pub fn build(self) -> Result<DataLoader, Error> {
        let Self { dataset, batch_size, drop_last, seed, num_workers, prefetch_factor, memory_budget } = self;
        if batch_size == 0 {
            return Err(Kind::Zero { name: "batch_size", value: batch_size }.into());
        }
        if prefetch_factor == 0 {
            return Err(Kind::Zero { name: "prefetch_factor", value: 0 }.into());
        }
        let config = || EngineConfig::new(num_workers, prefetch_factor, true, memory_budget);
        let crew = if num_workers == 0 { None } else { Some(config()?) };
        let cut = Cut { batch_size, drop_last };
        Ok(DataLoader { dataset, cut, seed, crew, next_epoch: AtomicU64::new(0) })
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dataset: _, batch_size, drop_last, seed, num_workers, prefetch_factor, memory_budget } =
            self;
        let mut text = formatter.debug_struct("Builder");
        text.field("batch_size", batch_size).field("drop_last", drop_last).field("shuffle", seed);
        text.field("num_workers", num_workers).field("prefetch_factor", prefetch_factor);
        text.field("memory_budget", memory_budget).finish_non_exhaustive()
    }
}

/// The batches of one epoch, in order. An error stands in the place of the batch that it cost, and the next batches
/// follow; after one that is none of a batch's ([`Error::batch`] is `None`), the epoch ends.
///
/// Dropping it ends its workers: each finishes the sample it is at.
#[derive(Debug)]
pub struct Batches {
    /// `None` when the epoch has ended, an error when it is to end with it.
    journey: Result<Option<Journey>, Error>,
    /// Items still to come, at most.
    left: usize,
}

#[derive(Debug)]
enum Journey {
    Alone(Alone),
    Threads(Box<Threads>),
}

impl Iterator for Batches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match std::mem::replace(&mut self.journey, Ok(None)) {
            Ok(None) => Ok(None),
            Err(error) => Err(error),
            Ok(Some(mut journey)) => {
                let next = match &mut journey {
                    Journey::Alone(alone) => Ok(alone.next()),
                    Journey::Threads(threads) => threads.next(),
                };
                if matches!(next, Ok(Some(_))) {
                    self.journey = Ok(Some(journey));
                }
                next
            }
        };
        self.left = if matches!(next, Ok(Some(_))) { self.left.saturating_sub(1) } else { 0 };
        next.unwrap_or_else(|error| Some(Err(error)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left.min(1), Some(self.left))
    }
}

impl FusedIterator for Batches {}

/// The calling thread makes each batch when it is asked for.
struct Alone {
    dataset: Arc<dyn Dataset>,
    plan: Plan,
    batch: u64,
}

impl Alone {
    fn next(&mut self) -> Option<Result<Batch, Error>> {
        let indices = self.plan.next()?;
        let place = Place { batch: self.batch, worker: None };
        self.batch += 1;
        Some(self.make(&indices, place))
    }

    fn make(&self, indices: &[usize], place: Place) -> Result<Batch, Error> {
        let mut regions: Vec<Region> = Vec::new();
        let value = collate(indices, place, &mut regions, |index| sample(&*self.dataset, index, place))?;
        Batch::assemble(indices.len(), value, regions, false)
    }
}

impl fmt::Debug for Alone {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Alone").field("batch", &self.batch).finish_non_exhaustive()
    }
}
