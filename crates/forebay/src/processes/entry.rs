//! The worker's side: how a program that was started as a worker becomes one.

use std::any::{TypeId, type_name};
use std::fmt;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, OnceLock, PoisonError};

use forebay_engine::Worker;
use forebay_engine::layout::Value;
use forebay_shm::sys;
use serde::{Serialize, de::DeserializeOwned};

use super::hello::{Hello, Word};
use crate::failure::Failure;
use crate::recipe::{Indexed, Mix, Recipe, Source, Streamed};
use crate::worker::{Report, work};
use crate::{Collate, Dataset, Error, IterableDataset, Sample, Stack};

/// The first argument, the program's own name, of a worker begins so.
pub(super) const MARK: &str = "forebay-worker";
/// A worker that cannot work exits with this code (`EX_SOFTWARE`).
const CANNOT_WORK: i32 = 70;

/// What the program's entry knows, from its first call on.
static KNOWN: OnceLock<Vec<Kind>> = OnceLock::new();
/// Held for ever by the thread that serves as the worker.
static SERVING: Mutex<()> = Mutex::new(());

/// Lets this program be its own worker processes, for loaders of `D`. The first line of `main`:
///
/// ```
/// # use forebay::{BoxError, DataLoader, Dataset, Error, Sample};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Photographs;
/// # impl Dataset for Photographs {
/// #     type Sample = Sample;
/// #     fn len(&self) -> usize { 4 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> {
/// #         Ok(Sample::new().with("number", index as i64))
/// #     }
/// # }
/// fn main() -> Result<(), Error> {
///     forebay::worker_entry::<Photographs>();
///     // The program itself goes on here; a worker never does.
///     let loader = DataLoader::builder(Photographs).num_workers(2).processes().build()?;
///     # let mut numbers = Vec::new();
///     for batch in &loader {
///         # let batch = batch?; numbers.extend(batch.array::<i64>("number")?.as_slice().to_vec());
///         // ...
///     }
///     # assert_eq!(numbers, [0, 1, 2, 3]);
///     Ok(())
/// }
/// ```
///
/// A program with more than one kind of loader, another [`Collate`] or a stream names them all: [`WorkerEntry`].
pub fn worker_entry<D>()
where
    D: Dataset<Sample = Sample> + Serialize + DeserializeOwned + 'static,
{
    WorkerEntry::new().dataset::<D>().enter();
}

/// The kinds of loader that worker processes of this program serve.
///
/// ```
/// # use forebay::{BoxError, Dataset, IterableDataset, Sample, Stream, WorkerEntry, WorkerInfo};
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Photographs;
/// # impl Dataset for Photographs {
/// #     type Sample = Sample;
/// #     fn len(&self) -> usize { 4 }
/// #     fn get(&self, index: usize) -> Result<Sample, BoxError> { Ok(Sample::new()) }
/// # }
/// # #[derive(serde::Serialize, serde::Deserialize)]
/// # struct Lines;
/// # impl IterableDataset for Lines {
/// #     type Sample = Sample;
/// #     fn iter<'a>(&'a self, _: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> { Err("none".into()) }
/// # }
/// fn main() {
///     WorkerEntry::new().dataset::<Photographs>().streaming::<Lines>().enter();
///     // The program itself goes on here; a worker never does.
/// }
/// ```
#[must_use = "a worker becomes one in `enter`"]
#[derive(Default)]
pub struct WorkerEntry {
    kinds: Vec<Kind>,
}

struct Kind {
    id: TypeId,
    type_name: &'static str,
    read: fn(&[u8]) -> postcard::Result<Box<dyn Recipe>>,
}

impl Kind {
    fn of<S, C>() -> Self
    where
        S: Source + DeserializeOwned + 'static,
        C: Collate<S::Sample> + DeserializeOwned + 'static,
    {
        let read = |bytes: &[u8]| Ok(Box::new(postcard::from_bytes::<Mix<S, C>>(bytes)?) as Box<dyn Recipe>);
        Self { id: TypeId::of::<Mix<S, C>>(), type_name: type_name::<Mix<S, C>>(), read }
    }
}

impl WorkerEntry {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loaders of `D`.
    pub fn dataset<D>(self) -> Self
    where
        D: Dataset<Sample = Sample> + DeserializeOwned + 'static,
    {
        self.dataset_with::<D, Stack>()
    }

    /// Loaders of `D` with the collate `C`.
    pub fn dataset_with<D, C>(self) -> Self
    where
        D: Dataset + DeserializeOwned + 'static,
        C: Collate<D::Sample> + DeserializeOwned + 'static,
    {
        self.and(Kind::of::<Indexed<D>, C>())
    }

    /// Loaders of the stream `D`.
    pub fn streaming<D>(self) -> Self
    where
        D: IterableDataset<Sample = Sample> + DeserializeOwned + 'static,
    {
        self.streaming_with::<D, Stack>()
    }

    /// Loaders of the stream `D` with the collate `C`.
    pub fn streaming_with<D, C>(self) -> Self
    where
        D: IterableDataset + DeserializeOwned + 'static,
        C: Collate<D::Sample> + DeserializeOwned + 'static,
    {
        self.and(Kind::of::<Streamed<D>, C>())
    }

    fn and(mut self, kind: Kind) -> Self {
        self.kinds.push(kind);
        self
    }

    /// In the program itself, returns at once. In a process that a loader has started as a worker, does the worker's work
    /// and never returns: what comes behind this line is not for workers.
    ///
    /// Only a program's first call counts, since a worker gets no further.
    pub fn enter(self) {
        if is_worker() {
            serve(&self.kinds);
        }
        KNOWN.get_or_init(|| self.kinds);
    }
}

impl fmt::Debug for WorkerEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.kinds.iter().map(|kind| kind.type_name)).finish()
    }
}

/// Whether this process was started as a worker.
fn is_worker() -> bool {
    let name = std::env::args_os().next();
    let number = name.as_ref().and_then(|name| name.to_str()?.strip_prefix(MARK)?.strip_prefix(' '));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// The place, among the kinds that workers of this program know, of the recipe of this type.
pub(super) fn place(id: TypeId, of: &str) -> Result<u32, Error> {
    let known = KNOWN.get();
    if let Some(place) = known.and_then(|kinds| kinds.iter().position(|kind| kind.id == id)) {
        return Ok(place as u32);
    }
    if is_worker() {
        return Err(Error::config(
            "a worker process cannot have worker processes itself: a loader in a dataset uses worker threads",
        ));
    }
    let before = match known {
        None => "it has not called its entry yet",
        Some(_) => "the first call of its entry does not name this type",
    };
    Err(Error::config(format!(
        "worker processes are this program, started again, but {before}: make `forebay::worker_entry::<YourDataset>();` the \
         first line of main, or, for a stream, a collate of your own or several datasets, \
         `forebay::WorkerEntry::new().dataset::<One>().dataset_with::<Other, ItsCollate>().enter();` (the source and collate \
         here are {of})"
    )))
}

/// A worker's whole life.
fn serve(kinds: &[Kind]) -> ! {
    let _for_ever = SERVING.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = match sys::take_standard_input() {
        Ok(socket) => socket,
        Err(error) => give_up(None, &error.to_string()),
    };
    match catch_unwind(AssertUnwindSafe(|| live(&socket, kinds))) {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(why)) => give_up(Some(&socket), &why),
        Err(panic) => give_up(Some(&socket), &Failure::panic("it panicked", panic.as_ref()).text),
    }
}

fn give_up(socket: Option<&OwnedFd>, why: &str) -> ! {
    if let Some(socket) = socket {
        Word::Last(why.into()).send(socket);
    }
    // The trainer may be gone, or may never have been: then the terminal is all there is.
    let _ = writeln!(std::io::stderr(), "{MARK}: cannot work: {why}");
    std::process::exit(CANNOT_WORK)
}

fn live(socket: &OwnedFd, kinds: &[Kind]) -> Result<(), String> {
    let Some((hello, seat, recipe)) = Hello::receive(socket)? else { return Ok(()) };
    // From here on it ends when the trainer does, whatever it is doing.
    let worker = Worker::join_as_process(seat).map_err(|error| error.to_string())?;
    Word::Joined.send(socket);
    // By place, since two types may have one name; by name, since an entry may name other kinds in another run.
    let kind = kinds.get(hello.kind as usize).filter(|kind| kind.type_name == hello.type_name);
    let kind = kind.ok_or_else(|| format!("the program's entry does not know {}", hello.type_name))?;
    let bytes = sys::read_file(&recipe).map_err(|error| error.to_string())?;
    drop(recipe);
    let recipe = (kind.read)(&bytes).map_err(|error| {
        format!("the dataset cannot be read back as it was serialised: {error}; its Deserialize must fit its Serialize")
    })?;
    drop(bytes);
    let ready = recipe.init_worker(&hello.start.info(hello.worker, hello.start.epoch));
    work(worker, &*recipe, hello.start, ready, &Told).map_err(|error| error.to_string())
}

/// Failures go to the trainer as texts.
struct Told;

impl Report for Told {
    fn report(&self, _step: u64, failure: Failure) -> Value {
        failure.encode()
    }
}
