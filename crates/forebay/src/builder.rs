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
use crate::order::{Cut, Order};
use crate::processes::Processes;
use crate::recipe::{Mix, Rules, Source};
use crate::threads::WorkerInit;
use crate::{BatchSampler, BoxError, Collate, DataLoader, Error, Sampler, Stack, WorkerInfo};

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
    shuffle: Option<u64>,
    sampler: Option<Box<dyn Sampler>>,
    batch_sampler: Option<Box<dyn BatchSampler>>,
    seed: Option<u64>,
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

    /// Leaves a last batch out that would have fewer samples; of streams, the last one of each worker.
    pub fn drop_last(self, drop_last: bool) -> Self {
        self.with(|options| options.drop_last = drop_last)
    }

    /// Another random order in every epoch. The orders depend on this seed, the epoch and the number of samples, and
    /// on nothing else; they stay the same in later releases.
    pub fn shuffle(self, seed: u64) -> Self {
        self.with(|options| options.shuffle = Some(seed))
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

    /// What [`WorkerInfo::seed`] is derived from. If not said, [`shuffle`](Self::shuffle)'s seed, or 0.
    pub fn seed(self, seed: u64) -> Self {
        self.with(|options| options.seed = Some(seed))
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
        let drop_last = options.drop_last;
        let seed = options.seed.or(options.shuffle).unwrap_or(0);
        let order = options.order(S::STREAMS);
        let mix = Arc::new(Mix { source, collate, rules: Rules { order: order.name(), drop_last } });
        let crew = match options.num_workers {
            0 => None,
            workers => Some(
                options.crew(workers, |args| processes.map(|pack| pack(mix.clone(), args)).transpose())?,
            ),
        };
        let recipe = mix.clone();
        let open = move |batch| mix.collate.open(batch).map_err(Failure::of_opening);
        let (open, next_epoch) = (Box::new(open), AtomicU64::new(0));
        Ok(DataLoader { recipe, open, order, crew, seed, next_epoch, resting: Mutex::new(None) })
    }
}

impl Options {
    /// Refuses what cannot work, with PyTorch's reasons.
    fn check(&self, streams: bool, processes: bool) -> Result<(), Error> {
        for (name, value) in [
            ("batch_size", self.batch_size.unwrap_or(1)),
            ("prefetch_factor", self.prefetch_factor.unwrap_or(1) as usize),
        ] {
            if value == 0 {
                return Err(Kind::Zero { name, value }.into());
            }
        }
        let sized = self.batch_size.is_some() || self.drop_last;
        let (shuffled, sampled, batched) =
            (self.shuffle.is_some(), self.sampler.is_some(), self.batch_sampler.is_some());
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

    fn order(&mut self, streams: bool) -> Order {
        let cut = Cut { batch_size: self.batch_size.unwrap_or(1), drop_last: self.drop_last };
        match (self.batch_sampler.take(), self.sampler.take(), self.shuffle) {
            _ if streams => Order::Streams(cut),
            (Some(sampler), _, _) => Order::BatchSampler(sampler),
            (None, Some(sampler), _) => Order::Sampler(cut, sampler),
            (None, None, Some(seed)) => Order::Shuffled(cut, seed),
            (None, None, None) => Order::Sequential(cut),
        }
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
        let Options { batch_size, drop_last, shuffle, num_workers, prefetch_factor, memory_budget, .. } =
            &self.options;
        let mut text = formatter.debug_struct("Builder");
        text.field("batch_size", batch_size).field("drop_last", drop_last).field("shuffle", shuffle);
        text.field("num_workers", num_workers).field("prefetch_factor", prefetch_factor);
        text.field("memory_budget", memory_budget).finish_non_exhaustive()
    }
}
