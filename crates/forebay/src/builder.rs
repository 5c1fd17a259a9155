//! What a loader is told, and which of it goes together.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay_engine::EngineConfig;
use forebay_shm::sync::AtomicU64;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::Kind;
use crate::failure::Failure;
use crate::loader::{CrewKind, CrewPlan};
use crate::order::{Cut, Epochs, Order, Shard};
use crate::processes::Processes;
use crate::recipe::{Mix, Rules, Source};
use crate::threads::WorkerInit;
use crate::{BatchSampler, BoxError, Collate, DataLoader, Error, Sampler, Stack, Uneven, WorkerInfo};

/// A [`DataLoader`] to be. What was not said is as in PyTorch.
#[must_use]
pub struct Builder<S, C = Stack> {
    source: S,
    collate: C,
    options: Options,
    processes: Option<Pack<S, C>>,
}

/// Makes the processes' part of the plan out of a recipe; known where the recipe can be serialised.
type Pack<S, C> = fn(Arc<Mix<S, C>>, Vec<String>) -> Result<Processes, Error>;

#[derive(Default)]
struct Options {
    batch_size: Option<usize>,
    drop_last: bool,
    shuffle: bool,
    shard: Option<(u32, u32)>,
    uneven: Option<Uneven>,
    sampler: Option<Box<dyn Sampler>>,
    batch_sampler: Option<Box<dyn BatchSampler>>,
    seed: u64,
    num_workers: u32,
    prefetch_factor: Option<u32>,
    persistent_workers: bool,
    worker_init: Option<WorkerInit>,
    process_args: Option<Vec<String>>,
    /// `collate` was called after `processes`.
    collate_came_late: bool,
    timeout: Option<Duration>,
    out_of_order: bool,
    memory_budget: Option<u64>,
}

impl<S: Source> Builder<S> {
    pub(crate) fn new(source: S) -> Self {
        Self { source, collate: Stack, options: Options::default(), processes: None }
    }
}

impl<S: Source, C> Builder<S, C> {
    fn with(mut self, change: impl FnOnce(&mut Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// Samples in a batch; the last one of an epoch may have fewer. 1 if not said.
    pub fn batch_size(self, batch_size: usize) -> Self {
        self.with(|options| options.batch_size = Some(batch_size))
    }

    /// Leaves a last batch out that would have fewer samples; of streams, the last one of each worker. With
    /// [`shard`](Self::shard) every rank has equally many batches.
    pub fn drop_last(self, drop_last: bool) -> Self {
        self.with(|options| options.drop_last = drop_last)
    }

    /// Another random order in every epoch: a function of the [`seed`](Self::seed), the epoch and the number of samples,
    /// and the one that Python's `forebay.DataLoader(dataset, shuffle=True, seed=...)` has. It takes no memory.
    pub fn shuffle(self, shuffle: bool) -> Self {
        self.with(|options| options.shuffle = shuffle)
    }

    /// What all that is random derives from: the order of [shuffled](Self::shuffle) epochs, the
    /// [generator of every sample](crate::sample_rng), and [`WorkerInfo::seed`]. 0 if not said. A release that changes
    /// what derives from it says so in the changelog, under "Streams that changed".
    pub fn seed(self, seed: u64) -> Self {
        self.with(|options| options.seed = seed)
    }

    /// Gives rank `rank` of `world` (trainers that share the epochs' samples) its share: of the order that is the same on
    /// all ranks, the places `rank`, `rank + world`, `rank + 2 * world` and so on. All ranks need the same seed; together
    /// they have every sample once, except for what [`uneven`](Self::uneven) says. A stream is told of it by
    /// [`WorkerInfo::rank`] and [`WorkerInfo::world`], and deals its samples itself ([`WorkerInfo::deal`]).
    ///
    /// ```
    /// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample, Uneven};
    /// # struct Numbers;
    /// # impl Dataset for Numbers {
    /// #     type Sample = Sample;
    /// #     fn len(&self) -> usize { 5 }
    /// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
    /// #         Ok(Sample::new().with("number", index as i64))
    /// #     }
    /// # }
    /// let of_rank_1 = |uneven| -> Result<Vec<i64>, Error> {
    ///     let loader = DataLoader::builder(Numbers).batch_size(5).shard(1, 2).uneven(uneven).build()?;
    ///     let batch = loader.iter()?.next().expect("each rank has samples")?;
    ///     Ok(batch.array::<i64>("number")?.as_slice().to_vec())
    /// };
    /// assert_eq!(of_rank_1(Uneven::Keep)?, [1, 3]); // rank 0 has 0, 2, 4
    /// assert_eq!(of_rank_1(Uneven::Pad)?, [1, 3, 0]);
    /// assert_eq!(of_rank_1(Uneven::Drop)?, [1, 3]); // rank 0 has 0, 2
    /// # Ok::<(), Error>(())
    /// ```
    pub fn shard(self, rank: u32, world: u32) -> Self {
        self.with(|options| options.shard = Some((rank, world)))
    }

    /// What is done where samples do not divide evenly among the ranks of [`shard`](Self::shard). If not said, all are kept:
    /// some ranks then have one sample more, and may have one batch more. A training that waits for all ranks in every step
    /// needs [`Uneven::Pad`], [`Uneven::Drop`] or [`drop_last`](Self::drop_last).
    pub fn uneven(self, uneven: Uneven) -> Self {
        self.with(|options| options.uneven = Some(uneven))
    }

    /// The samples' order in each epoch: a [`Sampler`], for example a closure from the epoch's number to indices. Excludes
    /// [`shuffle`](Self::shuffle).
    pub fn sampler(self, sampler: impl Sampler + 'static) -> Self {
        self.with(|options| options.sampler = Some(Box::new(sampler)))
    }

    /// The samples of each batch: a [`BatchSampler`], for example a closure from the epoch's number to vectors of indices.
    /// Excludes [`batch_size`](Self::batch_size), [`shuffle`](Self::shuffle), [`sampler`](Self::sampler) and
    /// [`drop_last`](Self::drop_last).
    pub fn batch_sampler(self, batch_sampler: impl BatchSampler + 'static) -> Self {
        self.with(|options| options.batch_sampler = Some(Box::new(batch_sampler)))
    }

    /// Workers that make batches: threads, if not [`processes`](Self::processes). 0, as if not said: the thread that asks
    /// for a batch makes it.
    pub fn num_workers(self, num_workers: u32) -> Self {
        self.with(|options| options.num_workers = num_workers)
    }

    /// Batches ahead for each worker. 2 if not said.
    pub fn prefetch_factor(self, prefetch_factor: u32) -> Self {
        self.with(|options| options.prefetch_factor = Some(prefetch_factor))
    }

    /// Keeps the workers from epoch to epoch. If not said, every epoch has new ones; of processes, each with a new copy of
    /// the dataset.
    pub fn persistent_workers(self, persistent_workers: bool) -> Self {
        self.with(|options| options.persistent_workers = persistent_workers)
    }

    /// Called once in every worker *thread* before its first sample, after
    /// [`Dataset::init_worker`](crate::Dataset::init_worker). A closure cannot go to a process: there, that method is the
    /// place.
    pub fn worker_init<F>(self, init: F) -> Self
    where
        F: Fn(&WorkerInfo) -> Result<(), BoxError> + Send + Sync + 'static,
    {
        self.with(|options| options.worker_init = Some(WorkerInit(Arc::new(init))))
    }

    /// How long a batch may take before asking for it is an error ([`Error::is_timeout`]). No limit if not said.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with(|options| options.timeout = Some(timeout))
    }

    /// `false`: batches come as they are finished, so one slow sample does not hold the others up; their order then
    /// differs from run to run. `true` if not said.
    pub fn in_order(self, in_order: bool) -> Self {
        self.with(|options| options.out_of_order = !in_order)
    }

    /// Bytes of memory that the workers' batches may take together, those included that the program keeps. Half of the
    /// memory this program may use, if not said. Without workers it is not looked at.
    pub fn memory_budget(self, bytes: u64) -> Self {
        self.with(|options| options.memory_budget = Some(bytes))
    }

    /// How batches are made of samples, and what they are. Not after [`processes`](Self::processes).
    pub fn collate<D: Collate<S::Sample>>(self, collate: D) -> Builder<S, D> {
        let Self { source, collate: _, mut options, processes } = self;
        options.collate_came_late |= processes.is_some();
        Builder { source, collate, options, processes: None }
    }
}

impl<S, C> Builder<S, C>
where
    S: Source + Serialize + DeserializeOwned + 'static,
    C: Collate<S::Sample> + Serialize + DeserializeOwned + 'static,
{
    /// Workers are processes, not threads: for a dataset that calls what is not safe in threads, that leaks, or that may
    /// crash. Each is this program, started again, with a copy of the dataset; the first line of the program's `main` must
    /// be [`worker_entry`](crate::worker_entry), or [`build`](Self::build) refuses. Batches come without a copy, as from
    /// threads.
    ///
    /// ```no_run
    /// use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct Files(Vec<std::path::PathBuf>);
    ///
    /// impl Dataset for Files {
    ///     type Sample = Sample;
    ///
    ///     fn len(&self) -> usize {
    ///         self.0.len()
    ///     }
    ///
    ///     fn get(&self, index: usize) -> Result<Sample, BoxError> {
    ///         Ok(Sample::new().with("size", std::fs::metadata(&self.0[index])?.len()))
    ///     }
    /// }
    ///
    /// fn main() -> Result<(), Error> {
    ///     forebay::worker_entry::<Files>();
    ///     let files = Files(vec!["/etc/hostname".into(), "/etc/hosts".into()]);
    ///     for batch in &DataLoader::builder(files).num_workers(2).processes().build()? {
    ///         println!("{:?}", batch?.array::<u64>("size")?);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn processes(self) -> Self {
        let options = Options { collate_came_late: false, ..self.options };
        Self { processes: Some(Processes::new), options, ..self }
    }

    /// The arguments that worker processes are started with: none, if not said. They are for a program that cannot reach
    /// [`worker_entry`](crate::worker_entry) without, like a test harness, which must be told which test calls it.
    pub fn process_args(self, args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let args = args.into_iter().map(Into::into).collect();
        self.with(|options| options.process_args = Some(args))
    }
}

impl<S: Source + 'static, C: Collate<S::Sample> + 'static> Builder<S, C> {
    /// The loader.
    ///
    /// # Errors
    /// When a value cannot work, or two exclude each other ([`Error::is_config`]).
    pub fn build(self) -> Result<DataLoader<C::Batch>, Error> {
        let Self { source, collate, mut options, processes } = self;
        options.check(S::STREAMS, processes.is_some())?;
        let epochs = options.epochs(S::STREAMS);
        let rules = Rules { order: epochs.order.name(), drop_last: options.drop_last };
        let mix = Arc::new(Mix { source, collate, rules });
        let crew = match options.num_workers {
            0 => None,
            workers => Some(
                options.crew(workers, |args| processes.map(|pack| pack(mix.clone(), args)).transpose())?,
            ),
        };
        let recipe = mix.clone();
        let open = move |batch| mix.collate.open(batch).map_err(Failure::of_opening);
        let (open, next_epoch) = (Box::new(open), AtomicU64::new(0));
        Ok(DataLoader { recipe, open, epochs, crew, next_epoch, resting: Mutex::new(None) })
    }
}

impl Options {
    /// Refuses values that cannot work.
    fn check_values(&self) -> Result<(), Error> {
        for (name, value) in [
            ("batch_size", self.batch_size.unwrap_or(1)),
            ("prefetch_factor", self.prefetch_factor.unwrap_or(1) as usize),
        ] {
            if value == 0 {
                return Err(Kind::Zero { name, value }.into());
            }
        }
        if let Some((rank, world)) = self.shard
            && rank >= world
        {
            return Err(Error::config(format!(
                "shard({rank}, {world}) is no share: the rank counts from 0 and is less than the number of ranks"
            )));
        }
        Ok(())
    }

    /// Refuses what cannot go together, with PyTorch's reasons.
    fn check(&self, streams: bool, processes: bool) -> Result<(), Error> {
        self.check_values()?;
        let sized = self.batch_size.is_some() || self.drop_last;
        let (shuffled, sampled, batched) =
            (self.shuffle, self.sampler.is_some(), self.batch_sampler.is_some());
        let alone = self.num_workers == 0;
        let refused = [
            (
                streams && shuffled,
                "a stream has an order of its own, so shuffle is not for it: shuffle in its iter",
            ),
            (
                streams && (sampled || batched),
                "a stream has no indices, so a sampler or batch_sampler is not for it",
            ),
            (
                streams && self.uneven.is_some(),
                "a stream's samples are dealt to the ranks by its dataset, so uneven is not for it",
            ),
            (
                batched && self.shard.is_some(),
                "batch_sampler excludes shard: it makes the batches itself, so let it make those of one rank",
            ),
            (
                batched && sized,
                "batch_sampler excludes batch_size and drop_last: it makes the batches itself",
            ),
            (
                batched && (shuffled || sampled),
                "batch_sampler excludes shuffle and sampler: it gives the order itself",
            ),
            (sampled && shuffled, "sampler excludes shuffle: the sampler gives the order itself"),
            (
                alone && (processes || self.process_args.is_some()),
                "processes needs workers: say num_workers(1) or more, or leave it out",
            ),
            (
                alone && self.timeout.is_some(),
                "timeout needs workers, since nobody can interrupt the calling thread: say num_workers(1) or more",
            ),
            (
                alone && self.persistent_workers,
                "persistent_workers needs workers: say num_workers(1) or more, or leave it out",
            ),
            (
                processes && self.worker_init.is_some(),
                "a worker_init closure cannot go to a worker process: do it in the dataset's init_worker, which runs in \
                 every worker",
            ),
            (
                self.collate_came_late,
                "collate was called after processes, which has to know it: call collate first",
            ),
            (
                self.process_args.is_some() && !processes,
                "process_args is for worker processes: call processes, too, or leave it out",
            ),
            (
                self.timeout.is_some_and(|timeout| timeout.is_zero()),
                "timeout must be more than 0 s, but is 0 s: leave it out to wait as long as it takes",
            ),
        ];
        match refused.into_iter().find(|(refused, _)| *refused) {
            Some((_, reason)) => Err(Error::config(reason)),
            None => Ok(()),
        }
    }

    fn epochs(&mut self, streams: bool) -> Epochs {
        let cut = Cut { batch_size: self.batch_size.unwrap_or(1), drop_last: self.drop_last };
        let (rank, world) = self.shard.unwrap_or((0, 1));
        let shard = Shard { rank, world, uneven: self.uneven.unwrap_or_default() };
        let order = match (self.batch_sampler.take(), self.sampler.take(), self.shuffle) {
            _ if streams => Order::Streams,
            (Some(sampler), _, _) => Order::BatchSampler(sampler),
            (None, Some(sampler), _) => Order::Sampler(sampler),
            (None, None, true) => Order::Shuffled,
            (None, None, false) => Order::Sequential,
        };
        Epochs { order, seed: self.seed, cut, shard }
    }

    fn crew(
        self,
        workers: u32,
        processes: impl FnOnce(Vec<String>) -> Result<Option<Processes>, Error>,
    ) -> Result<CrewPlan, Error> {
        let config = EngineConfig::new(
            workers,
            self.prefetch_factor.unwrap_or(2),
            !self.out_of_order,
            self.memory_budget,
        )?;
        let kind = match processes(self.process_args.unwrap_or_default())? {
            Some(processes) => CrewKind::Processes(processes),
            None => CrewKind::Threads(self.worker_init),
        };
        Ok(CrewPlan { config, kind, persistent: self.persistent_workers, timeout: self.timeout })
    }
}

impl<S, C> fmt::Debug for Builder<S, C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options {
            batch_size, drop_last, shuffle, seed, num_workers, prefetch_factor, memory_budget, ..
        } = &self.options;
        let mut text = formatter.debug_struct("Builder");
        text.field("batch_size", batch_size).field("drop_last", drop_last).field("shuffle", shuffle);
        text.field("seed", seed);
        text.field("num_workers", num_workers).field("prefetch_factor", prefetch_factor);
        text.field("memory_budget", memory_budget).finish_non_exhaustive()
    }
}
