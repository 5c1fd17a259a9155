//! What a user gives: samples by index, or streams of samples.

use std::borrow::Cow;
use std::iter::{Skip, StepBy};
use std::sync::Arc;

use forebay_order::Key;

use crate::Array;

/// Any error of a dataset, or of another part that the user writes.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Samples by index, read by several workers at once.
///
/// ```
/// # use forebay::{BoxError, Dataset, Sample};
/// struct Texts(Vec<Vec<u32>>);
///
/// impl Dataset for Texts {
///     type Sample = Sample;
///
///     fn len(&self) -> usize {
///         self.0.len()
///     }
///
///     fn get(&self, index: usize) -> Result<Sample, BoxError> {
///         // Samples of one batch need one shape.
///         let mut tokens = self.0[index].clone();
///         tokens.resize(16, 0);
///         Ok(Sample::new().with("tokens", tokens).with("length", self.0[index].len() as u32))
///     }
/// }
/// # assert_eq!(Texts(vec![vec![1]]).get(0).unwrap().names().collect::<Vec<_>>(), ["tokens", "length"]);
/// ```
pub trait Dataset: Send + Sync {
    /// What is at an index: a [`Sample`] of named arrays, or anything that the loader's [`Collate`](crate::Collate) makes
    /// batches of.
    type Sample;

    /// How many samples there are. Called once for each epoch, when it begins.
    fn len(&self) -> usize;

    /// The sample at `index`, which is less than [`len`](Self::len).
    ///
    /// Called by a worker, several at once; without workers, by the thread that asks for the batch.
    ///
    /// # Errors
    /// Whatever went wrong: the error comes to the trainer in the place of the batch. A panic does, too, unless the
    /// program is built with `panic = "abort"`.
    fn get(&self, index: usize) -> Result<Self::Sample, BoxError>;

    /// Whether there are no samples.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Called once by every worker before its first sample: the place to open what is not to be shared. A worker
    /// *process* has a copy of the dataset of its own, worker threads share one. Without workers it is not called.
    ///
    /// # Errors
    /// Whatever went wrong: it comes in the place of every batch of this worker.
    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        let _ = info;
        Ok(())
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    type Sample = D::Sample;

    fn len(&self) -> usize {
        (**self).len()
    }

    fn get(&self, index: usize) -> Result<Self::Sample, BoxError> {
        (**self).get(index)
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        (**self).init_worker(info)
    }
}

/// One worker's pass over an [`IterableDataset`].
pub type Stream<'a, S> = Box<dyn Iterator<Item = Result<S, BoxError>> + Send + 'a>;

/// Samples that come as a stream: lines of a log, records of an archive, rows of a query.
///
/// Every worker makes a pass of its own in every epoch, so a dataset that does not look at the worker's number gives each
/// sample once *per worker*. A batch has samples of one worker's stream only, and the last one of each stream may have
/// fewer. These are PyTorch's rules.
///
/// # Randomness
///
/// [`sample_rng`](crate::sample_rng) within the iterator's `next` is a function of the seed, the epoch and the *place* of
/// the item: number `n` of worker `id` is at place `n * step + first`, where `first` and `step` are those of
/// [`WorkerInfo::deal`]. That is its place in the whole of which the workers have been dealt their shares. So
///
/// - a stream that deals single samples has the same bits for any number of workers and of ranks;
/// - one that deals anything else (files, say) has the same bits in every run with as many workers and ranks, and other
///   ones with others: there, take the generator of a place that you know, by
///   [`with_sample_rng`](crate::with_sample_rng);
/// - what comes before the first item, in [`iter`](Self::iter) itself, belongs to no sample.
///
/// ```
/// # use forebay::{BoxError, DataLoader, Error, IterableDataset, Sample, Stream, WorkerInfo};
/// /// Counts down from 9.
/// struct Countdown;
///
/// impl IterableDataset for Countdown {
///     type Sample = Sample;
///
///     fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
///         // This worker's share of all numbers.
///         let numbers = info.deal((0..10i64).rev());
///         Ok(Box::new(numbers.map(|number| Ok(Sample::new().with("number", number)))))
///     }
/// }
///
/// let loader = DataLoader::streaming(Countdown).batch_size(2).num_workers(2).build()?;
/// let mut batches = Vec::new();
/// for batch in &loader {
///     batches.push(batch?.array::<i64>("number")?.as_slice().to_vec());
/// }
/// assert_eq!(batches, [vec![9, 7], vec![8, 6], vec![5, 3], vec![4, 2], vec![1], vec![0]]);
/// # Ok::<(), Error>(())
/// ```
pub trait IterableDataset: Send + Sync {
    /// What the stream is made of.
    type Sample;

    /// Begins this worker's pass: called by every worker in every epoch. Without workers there is one pass, of worker 0
    /// of 1.
    ///
    /// # Errors
    /// Whatever went wrong: it comes in the place of a batch, and this worker's pass is over. An error in the stream
    /// costs the batch in which it comes; the pass goes on.
    fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, Self::Sample>, BoxError>;

    /// As [`Dataset::init_worker`].
    ///
    /// # Errors
    /// Whatever went wrong: it comes in the place of this worker's first batch of every epoch, which is its last.
    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        let _ = info;
        Ok(())
    }
}

impl<D: IterableDataset + ?Sized> IterableDataset for Arc<D> {
    type Sample = D::Sample;

    fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, Self::Sample>, BoxError> {
        (**self).iter(info)
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        (**self).init_worker(info)
    }
}

/// Which worker this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerInfo {
    /// Its number, from 0.
    pub id: usize,
    /// How many workers there are; 1 when there are none and the calling thread makes the batches.
    pub num_workers: usize,
    /// For its random generators: different for every worker of an epoch and for every epoch, and the same in every run.
    /// It depends on the loader's seed ([`Builder::seed`](crate::Builder::seed)), the epoch and the worker's number; it is
    /// that of a worker of Forebay in Python. For the randomness of samples, [`sample_rng`](crate::sample_rng) is better:
    /// it does not depend on who makes them.
    pub seed: u64,
    /// The epoch. In [`Dataset::init_worker`], the one for which the worker was started.
    pub epoch: u64,
    /// The rank whose worker it is ([`Builder::shard`](crate::Builder::shard)), from 0.
    pub rank: usize,
    /// How many ranks there are; 1 if nothing else was said.
    pub world: usize,
}

impl WorkerInfo {
    /// What worker `id` of `num_workers` is told in `epoch` by a loader with this seed: for a dataset's own tests.
    ///
    /// ```
    /// # use forebay::WorkerInfo;
    /// assert_ne!(WorkerInfo::new(0, 2, 7, 0).seed, WorkerInfo::new(1, 2, 7, 0).seed);
    /// ```
    pub fn new(id: usize, num_workers: usize, loader_seed: u64, epoch: u64) -> Self {
        let seed = Key::new(loader_seed, epoch).base_seed().wrapping_add(id as u64);
        Self { id, num_workers, seed, epoch, rank: 0, world: 1 }
    }

    /// The same of another rank.
    #[must_use]
    pub fn on_rank(self, rank: usize, world: usize) -> Self {
        Self { rank, world, ..self }
    }

    /// This worker's share of all that the workers of all ranks have before them: every `world * num_workers`-th, from
    /// number `world * id + rank` on. The ranks are dealt to first, so each has what [`Builder::shard`] gives it of a
    /// [`Dataset`].
    ///
    /// ```
    /// # use forebay::WorkerInfo;
    /// let share = |id, rank| WorkerInfo::new(id, 2, 7, 0).on_rank(rank, 2).deal(0..10).collect::<Vec<_>>();
    /// assert_eq!([share(0, 0), share(1, 0)], [vec![0, 4, 8], vec![2, 6]]);
    /// assert_eq!([share(0, 1), share(1, 1)], [vec![1, 5, 9], vec![3, 7]]);
    /// ```
    ///
    /// [`Builder::shard`]: crate::Builder::shard
    pub fn deal<I: IntoIterator>(&self, all: I) -> StepBy<Skip<I::IntoIter>> {
        all.into_iter().skip(self.first()).step_by(self.step())
    }

    pub(crate) fn first(&self) -> usize {
        self.world * self.id + self.rank
    }

    pub(crate) fn step(&self) -> usize {
        (self.world * self.num_workers).max(1)
    }
}

/// One record of a dataset: named arrays.
///
/// All samples of a batch need the same names, element types and shapes.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    arrays: Vec<(Cow<'static, str>, Array)>,
}

impl Sample {
    /// No arrays yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an array, a vector or a scalar; replaces the one that has this name already.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, array: impl Into<Array>) -> Self {
        let (name, array) = (name.into(), array.into());
        match self.arrays.iter_mut().find(|(known, _)| *known == name) {
            Some((_, place)) => *place = array,
            None => self.arrays.push((name, array)),
        }
        self
    }

    /// The names, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.arrays.iter().map(|(name, _)| name.as_ref())
    }

    /// The array of this name.
    pub fn array(&self, name: &str) -> Option<&Array> {
        self.arrays.iter().find(|(known, _)| known == name).map(|(_, array)| array)
    }

    pub(crate) fn arrays(&self) -> &[(Cow<'static, str>, Array)] {
        &self.arrays
    }
}
