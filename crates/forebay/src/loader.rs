//! A user's object: epochs of batches, in order.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_engine::EngineConfig;
use forebay_order::Share;
use forebay_shm::Region;
use forebay_shm::sync::{AtomicU64, Ordering};

use crate::builder::Builder;
use crate::crewed::{Crewed, Delivered, Orders};
use crate::error::Place;
use crate::failure::Failure;
use crate::order::{Cursor, Epochs, Order, Rest};
use crate::processes::Processes;
use crate::recipe::{Indexed, Pass, Recipe, Streamed};
use crate::state::Check;
use crate::threads::{self, WorkerInit};
use crate::worker::Start;
use crate::{Batch, Dataset, Error, IterableDataset, LoaderState};

/// Epochs of batches of a dataset, each an iteration over `&loader`.
///
/// `B` is what the loader's [`Collate`](crate::Collate) makes of a batch: a [`Batch`] of named arrays, if nothing else was
/// said.
pub struct DataLoader<B = Batch> {
    pub(crate) recipe: Arc<dyn Recipe>,
    pub(crate) open: Open<B>,
    pub(crate) epochs: Epochs,
    /// `None` is the calling thread.
    pub(crate) crew: Option<CrewPlan>,
    pub(crate) next_epoch: AtomicU64,
    /// Workers that wait for their next epoch.
    pub(crate) resting: Mutex<Option<Box<Crewed>>>,
}

pub(crate) type Open<B> = Box<dyn Fn(Batch) -> Result<B, Failure> + Send + Sync>;

/// How the workers are to be started.
#[derive(Debug)]
pub(crate) struct CrewPlan {
    pub(crate) config: EngineConfig,
    pub(crate) kind: CrewKind,
    pub(crate) persistent: bool,
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum CrewKind {
    Threads(Option<WorkerInit>),
    Processes(Processes),
}

impl DataLoader {
    /// A loader of `dataset`, to be configured. Defaults are as in PyTorch: batches of one sample, in order, made in
    /// the calling thread. An `Arc` of a dataset is a dataset, too.
    pub fn builder<D: Dataset + 'static>(dataset: D) -> Builder<Indexed<D>> {
        Builder::new(Indexed(dataset))
    }

    /// A loader of a dataset that is a stream, to be configured.
    pub fn streaming<D: IterableDataset + 'static>(dataset: D) -> Builder<Streamed<D>> {
        Builder::new(Streamed(dataset))
    }
}

impl<B> DataLoader<B> {
    /// Begins the next epoch. Its workers start at once.
    ///
    /// # Errors
    /// When the workers, the descriptors or the memory for them cannot be had.
    pub fn iter(&self) -> Result<Batches<'_, B>, Error> {
        self.epoch(self.next_epoch.fetch_add(1, Ordering::Relaxed))
    }

    /// Begins the epoch with this number, counted from 0, whatever came before: the order of a shuffled epoch depends on
    /// the seed and this number. [`iter`](Self::iter) does not count it.
    ///
    /// # Errors
    /// As [`iter`](Self::iter).
    pub fn epoch(&self, epoch: u64) -> Result<Batches<'_, B>, Error> {
        self.epoch_from(epoch, 0)
    }

    /// Begins an epoch at batch number `batch`: what is left of an epoch that was broken off after so many batches. No
    /// sample before is read. A [`Sampler`](crate::Sampler) is asked for all indices; the loader's own orders begin
    /// anywhere at once.
    ///
    /// ```
    /// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
    /// # struct Numbers;
    /// # impl Dataset for Numbers {
    /// #     type Sample = Sample;
    /// #     fn len(&self) -> usize { 100 }
    /// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
    /// #         Ok(Sample::new().with("number", index as i64))
    /// #     }
    /// # }
    /// let loader = DataLoader::builder(Numbers).batch_size(10).shuffle(true).seed(7).build()?;
    /// let numbers = |batch: forebay::Batch| Ok(batch.array::<i64>("number")?.as_slice().to_vec());
    /// let whole: Vec<_> = loader.epoch(3)?.map(|batch| numbers(batch?)).collect::<Result<_, Error>>()?;
    /// let rest: Vec<_> = loader.epoch_from(3, 4)?.map(|batch| numbers(batch?)).collect::<Result<_, Error>>()?;
    /// assert_eq!(rest, whole[4..]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`iter`](Self::iter); and for streams, where only the dataset can know how to begin later
    /// ([`Error::is_config`]).
    pub fn epoch_from(&self, epoch: u64, batch: usize) -> Result<Batches<'_, B>, Error> {
        if matches!(self.epochs.order, Order::Streams) && batch > 0 {
            return Err(Error::config(format!(
                "a stream cannot begin at batch {batch}: let the dataset's iter skip what was read"
            )));
        }
        self.begin(self.epochs.rest_from(epoch, self.length()?, batch as u64))
    }

    /// Goes on with an epoch where it stood when this state was taken: with exactly the samples that had not been
    /// delivered, cut into batches of this loader's size. The next [`iter`](Self::iter) is the epoch after it.
    ///
    /// The loader may have other workers than the one whose state it is, another batch size, and another number of
    /// [ranks](crate::Builder::shard): see [`LoaderState`]. A [`Sampler`](crate::Sampler) is asked for its order again, and
    /// must give the same for the same epoch.
    ///
    /// # Errors
    /// When the state is of a loader with another seed, length of the dataset or kind of order, and the text says which
    /// ([`Error::is_state`]); and as [`iter`](Self::iter).
    pub fn resume(&self, state: &LoaderState) -> Result<Batches<'_, B>, Error> {
        self.go_on(state, Check::All)
    }

    /// As [`resume`](Self::resume), but goes on at that place of this loader's own order also where its seed, the length of
    /// its dataset or its kind of order is not the state's: for a dataset that has grown, say. Which samples come then, and
    /// which of them had been delivered, nobody checks.
    ///
    /// # Errors
    /// When the state cannot be opened at all ([`Error::is_state`]); and as [`iter`](Self::iter).
    pub fn resume_anyway(&self, state: &LoaderState) -> Result<Batches<'_, B>, Error> {
        self.go_on(state, Check::Sense)
    }

    fn go_on(&self, state: &LoaderState, check: Check) -> Result<Batches<'_, B>, Error> {
        let rest = state.rest(&self.epochs, self.length()?, check)?;
        self.next_epoch.store(rest.epoch.wrapping_add(1), Ordering::Relaxed);
        self.begin(rest)
    }

    /// Samples of the dataset; 0 of streams.
    fn length(&self) -> Result<u64, Error> {
        let length = self.recipe.len() as u64;
        if length > Share::MOST {
            return Err(Error::config(format!(
                "a dataset of {length} samples is too long: at most {}",
                Share::MOST
            )));
        }
        Ok(length)
    }

    /// Begins what is left of an epoch.
    fn begin(&self, rest: Rest) -> Result<Batches<'_, B>, Error> {
        let Rest { epoch, length, .. } = rest;
        let first_batch = self.epochs.first_batch(&rest);
        let left = self.epochs.batches(&rest).map(|batches| usize::try_from(batches).unwrap_or(usize::MAX));
        let streams = matches!(self.epochs.order, Order::Streams);
        let count = if streams { self.epochs.cut.batch_size } else { length as usize };
        let mut orders = Orders { plan: self.epochs.plan(rest.clone()), epoch, count };
        let journey = match &self.crew {
            None => {
                let start = self.start(1, epoch);
                let pass = self.recipe.begin(start.info(0, epoch), start.key(epoch));
                Journey::Alone(Alone { pass, orders, batch: first_batch })
            }
            Some(crew) => {
                let mut workers = self.workers(crew, epoch)?;
                workers.begin(&mut orders, first_batch)?;
                Journey::Crewed(workers, orders)
            }
        };
        let stand = Stand { rest, first_batch, cursor: Cursor::default(), over: false };
        Ok(Batches { loader: self, journey: Ok(Some(journey)), left, stand })
    }

    fn start(&self, num_workers: u32, epoch: u64) -> Start {
        let Epochs { seed, shard, .. } = self.epochs;
        Start { num_workers, seed, epoch, rank: shard.rank, world: shard.world }
    }

    /// Workers for an epoch: those that rest, or new ones.
    fn workers(&self, crew: &CrewPlan, epoch: u64) -> Result<Box<Crewed>, Error> {
        let resting = self.resting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut workers) = resting {
            workers.restart()?;
            return Ok(workers);
        }
        let start = self.start(crew.config.workers(), epoch);
        let workers = Crewed::start(crew.config, |engine, handed| match &crew.kind {
            CrewKind::Threads(init) => {
                threads::start(engine, handed, &self.recipe, start, init.clone()).map(|()| None)
            }
            CrewKind::Processes(processes) => processes.start(engine, start).map(Some),
        })?;
        Ok(Box::new(workers))
    }

    /// Batches in an epoch, of this rank; `None` when that depends on a sampler or a stream.
    pub fn num_batches(&self) -> Option<usize> {
        let whole = self.epochs.rest_from(0, self.length().ok()?, 0);
        usize::try_from(self.epochs.batches(&whole)?).ok()
    }
}

impl<'a, B> IntoIterator for &'a DataLoader<B> {
    type Item = Result<B, Error>;
    type IntoIter = Batches<'a, B>;

    /// The next epoch. If it cannot begin, its only item is the error.
    fn into_iter(self) -> Batches<'a, B> {
        let epoch = self.next_epoch.fetch_add(1, Ordering::Relaxed);
        self.epoch(epoch).unwrap_or_else(|error| {
            let rest = self.epochs.rest_from(epoch, self.length().unwrap_or(0), 0);
            let stand = Stand { rest, first_batch: 0, cursor: Cursor::default(), over: false };
            Batches { loader: self, journey: Err(error), left: Some(1), stand }
        })
    }
}

impl<B> fmt::Debug for DataLoader<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epochs, crew, next_epoch, .. } = self;
        let mut text = formatter.debug_struct("DataLoader");
        text.field("epochs", epochs)
            .field("crew", crew)
            .field("next_epoch", next_epoch)
            .finish_non_exhaustive()
    }
}

/// The batches of one epoch, in order. An error stands in the place of the batch that it cost, and the next batches
/// follow; after one that is none of a batch's ([`Error::batch`] is `None`), the epoch ends. A
/// [timeout](Error::is_timeout) costs nothing: the next call goes on waiting.
///
/// Dropping it ends its workers, if they are not persistent: each finishes the sample it is at.
pub struct Batches<'a, B = Batch> {
    loader: &'a DataLoader<B>,
    /// `None` when the epoch has ended, an error when it is to end with it.
    journey: Result<Option<Journey<'a>>, Error>,
    /// Items still to come, if that is known.
    left: Option<usize>,
    stand: Stand,
}

/// How far an epoch is.
struct Stand {
    /// What was to come when it began.
    rest: Rest,
    /// The number of the first batch that was.
    first_batch: u64,
    cursor: Cursor,
    /// There are no batches more.
    over: bool,
}

enum Journey<'a> {
    Alone(Alone<'a>),
    Crewed(Box<Crewed>, Orders<'a>),
}

impl<B> Iterator for Batches<'_, B> {
    type Item = Result<B, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut journey = match std::mem::replace(&mut self.journey, Ok(None)) {
            Ok(Some(journey)) => journey,
            Ok(None) => return None,
            Err(error) => {
                self.left = Some(0);
                return Some(Err(error));
            }
        };
        let next = match &mut journey {
            Journey::Alone(alone) => Ok(alone.next()),
            Journey::Crewed(workers, orders) => {
                workers.next(orders, self.loader.crew.as_ref().and_then(|crew| crew.timeout))
            }
        };
        let next = match next {
            Ok(None) => {
                self.keep_workers(journey);
                self.stand.over = true;
                None
            }
            Ok(Some((place, batch))) => {
                self.stand.cursor.delivered(place.batch - self.stand.first_batch);
                self.journey = Ok(Some(journey));
                self.left = self.left.map(|left| left.saturating_sub(1));
                let open = |batch| {
                    (self.loader.open)(batch).map_err(|failure| Error::of_batch(failure, Some(place)))
                };
                return Some(batch.and_then(open));
            }
            Err(error) if error.is_timeout() => {
                self.journey = Ok(Some(journey));
                return Some(Err(error));
            }
            Err(error) => Some(Err(error)),
        };
        self.left = Some(0);
        next
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error may end the epoch early.
        (self.left.unwrap_or(0).min(1), self.left)
    }
}

impl<B> Batches<'_, B> {
    /// Where the epoch stands: which batches have been given out, whatever workers have made ahead. It may be taken as
    /// often as you like, at any batch and after the last. A batch in whose place an error came counts as given out.
    ///
    /// # Errors
    /// Of a stream, since only its dataset could begin it later ([`Error::is_state`]).
    pub fn state(&self) -> Result<LoaderState, Error> {
        let (epochs, Stand { rest, cursor, over, .. }) = (&self.loader.epochs, &self.stand);
        let rest = if *over { epochs.end(rest, cursor) } else { epochs.after(rest, cursor) };
        LoaderState::of(epochs, &rest)
    }

    /// The epoch is over: persistent workers wait for the next one.
    fn keep_workers(&self, journey: Journey<'_>) {
        let persistent = self.loader.crew.as_ref().is_some_and(|crew| crew.persistent);
        if let (true, Journey::Crewed(workers, _)) = (persistent, journey) {
            let mut resting = self.loader.resting.lock().unwrap_or_else(PoisonError::into_inner);
            let surplus = resting.replace(workers);
            // Of two epochs at once. Not ended under the lock.
            drop(resting);
            drop(surplus);
        }
    }
}

impl<B> Drop for Batches<'_, B> {
    fn drop(&mut self) {
        if let Ok(Some(journey)) = std::mem::replace(&mut self.journey, Ok(None)) {
            self.keep_workers(journey);
        }
    }
}

impl<B> FusedIterator for Batches<'_, B> {}

impl<B> fmt::Debug for Batches<'_, B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Batches").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The calling thread makes each batch when it is asked for.
struct Alone<'a> {
    pass: Box<dyn Pass + 'a>,
    orders: Orders<'a>,
    batch: u64,
}

impl Alone<'_> {
    fn next(&mut self) -> Option<Delivered> {
        let order = self.orders.next()?;
        let mut regions: Vec<Region> = Vec::new();
        let made = self.pass.make(&order, &mut regions, &|| false).transpose()?;
        let place = Place { batch: self.batch, worker: None };
        self.batch += 1;
        Some(match made {
            Ok(value) => (place, Batch::assemble(value, regions, false)),
            Err(failure) => (place, Err(Error::of_batch(failure, Some(place)))),
        })
    }
}
