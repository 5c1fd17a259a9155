//! The trainer's side of the journey.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use forebay_engine::{EngineConfig, EngineError, Outcome, OutsideCrew, Turn, layout::Value};
use forebay_shm::sync::{AtomicU64, Ordering};
use forebay_shm::sys::{Woken, close_on_exec, watch_process};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList};

use crate::decode::decode;
use crate::error::{exception, raise};
use crate::front::Front;

/// Indices are 64-bit integers, one after the other.
const PACKED: u32 = 0;
/// Indices are a pickle.
const PICKLED: u32 = 1;
/// Before the indices: the number of their epoch.
const EPOCH_BYTES: usize = 8;

/// Sends batches' indices to workers and takes their batches in: the whole journey but the making.
///
/// Args:
///     front: how to turn bytes into objects.
///     workers: how many processes take part.
///     prefetch_factor: batches ahead for each of them.
///     in_order: whether batches come in the order in which they were submitted.
///     memory_budget: bytes of shared memory for all batches; None for half of what the process may use.
///     on_full: called when a batch has to be copied because kept batches use the budget up.
///     shares_rows: whether workers that have nothing to do make rows of the others' batches.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Engine {
    front: Py<Front>,
    on_full: Py<PyAny>,
    /// `None` once released: then the last kept batch frees the memory.
    engine: Mutex<Option<forebay_engine::Engine>>,
    last: Mutex<Origin>,
    /// The number of the epoch whose batches are submitted.
    epoch: AtomicU64,
}

/// Where a batch came from.
#[derive(Debug, Default)]
struct Origin {
    step: u64,
    worker: u32,
    state: Option<Vec<u8>>,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (front, *, workers, prefetch_factor, in_order, memory_budget, on_full, shares_rows=false))]
    #[expect(clippy::too_many_arguments, reason = "keyword-only, and each is an option of its own")]
    fn new(
        py: Python<'_>,
        front: Py<Front>,
        workers: u32,
        prefetch_factor: u32,
        in_order: bool,
        memory_budget: Option<u64>,
        on_full: Py<PyAny>,
        shares_rows: bool,
    ) -> PyResult<Self> {
        let config = EngineConfig::new(workers, prefetch_factor, in_order, memory_budget);
        let config = config.map(|config| if shares_rows { config.sharing_rows() } else { config });
        let engine = config.and_then(forebay_engine::Engine::new).map_err(|error| raise(py, error))?;
        Ok(Self {
            front,
            on_full,
            engine: Mutex::new(Some(engine)),
            last: Mutex::default(),
            epoch: AtomicU64::new(0),
        })
    }

    /// What worker `worker` needs to take part; pass it on while its process is started.
    fn seat(&self, py: Python<'_>, worker: u32) -> PyResult<Seat> {
        let seat = self.with(py, |engine| engine.seat(worker))?;
        Ok(Seat(Mutex::new(Some(seat))))
    }

    /// The workers have started, as processes `pids`; from now on their ends are watched.
    fn attach(&self, py: Python<'_>, pids: Vec<u32>) -> PyResult<()> {
        let exits: Result<Vec<_>, _> = pids.into_iter().map(watch_process).collect();
        let crew = OutsideCrew::new(exits.map_err(|error| raise(py, error.into()))?);
        self.with(py, |engine| {
            engine.attach(Box::new(crew));
            Ok(())
        })
    }

    /// Whether one more batch may be submitted.
    fn wants(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |engine| Ok(engine.wants()))
    }

    /// Sends the indices of one batch, as the sampler gave them; tells its step.
    fn submit(&self, py: Python<'_>, indices: &Bound<'_, PyAny>) -> PyResult<u64> {
        let (format, bytes) = pack(self.epoch.load(Ordering::Relaxed), indices)?;
        let rows = rows_of(indices);
        self.with(py, |engine| engine.submit_rows(format, bytes, rows))
    }

    /// The same for indices in a contiguous int64 array; the worker sees a list of integers.
    fn submit_places(&self, py: Python<'_>, places: &Bound<'_, PyAny>) -> PyResult<u64> {
        let mut bytes = self.epoch.load(Ordering::Relaxed).to_ne_bytes().to_vec();
        let places = PyBuffer::<i64>::get(places)?.to_vec(py)?;
        places.iter().for_each(|place| bytes.extend_from_slice(&place.to_ne_bytes()));
        let rows = u32::try_from(places.len()).unwrap_or(1);
        self.with(py, |engine| engine.submit_rows(PACKED, bytes, rows))
    }

    /// The number of the epoch whose batches are submitted from now on. Workers learn it with every batch.
    fn set_epoch(&self, epoch: u64) {
        self.epoch.store(epoch, Ordering::Relaxed);
    }

    /// The next batch. Waits for it without the interpreter's lock, at most `timeout` seconds (None: for ever).
    ///
    /// Raises:
    ///     StopIteration: everything that was submitted has been delivered.
    ///     forebay.errors.StreamEnded: a worker's stream is over; there may be room for batches of the others.
    ///     forebay.errors.BatchFailed: the batch's place is taken by an error of its worker.
    ///     forebay.errors.WorkerEnded: a worker ended before its work was done.
    ///     forebay.errors.WaitTimedOut: the time is over.
    #[pyo3(signature = (timeout))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let mut deadline = None;
        loop {
            match self.with(py, forebay_engine::Engine::turn)? {
                Turn::Batch(batch) => return self.deliver(py, batch),
                Turn::Idle => return Err(PyStopIteration::new_err(())),
                Turn::StreamEnded => return Err(exception(py, "StreamEnded", ())),
                Turn::Pending => {}
            }
            if deadline.is_none() {
                deadline = timeout
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .map(|limit| Instant::now() + limit);
            }
            let woken = py.detach(|| self.wait(deadline)).map_err(|error| raise(py, error))?;
            match woken {
                Woken::Interrupted => py.check_signals()?,
                Woken::TimedOut => return Err(exception(py, "WaitTimedOut", ())),
                Woken::Ready(_) => {
                    // Something came: the workers are alive, and the time starts again, as in torch.
                    deadline = None;
                    // A signal may have come with it; raised once the batch is taken, it would lose it.
                    py.check_signals()?;
                }
            }
        }
    }

    /// The step and the worker of what `next` gave last, a batch or a `BatchFailed`, and the state that came with it,
    /// which is given once.
    fn last<'py>(&self, py: Python<'py>) -> (u64, u32, Option<Bound<'py, PyBytes>>) {
        let (step, worker, state) = {
            let mut last = self.origin();
            (last.step, last.worker, last.state.take())
        };
        (step, worker, state.map(|bytes| PyBytes::new(py, &bytes)))
    }

    /// The indices of a batch that is awaited or in flight, as the sampler gave them; None for any other.
    fn indices<'py>(&self, py: Python<'py>, step: u64) -> PyResult<Option<Bound<'py, PyAny>>> {
        let packed = |engine: &mut forebay_engine::Engine| {
            Ok(engine.indices(step).map(|(format, bytes)| (format, bytes.to_vec())))
        };
        let unpacked = |(format, bytes): (u32, Vec<u8>)| Ok(unpack(py, format, &bytes)?.1);
        self.with(py, packed)?.map(unpacked).transpose()
    }

    /// The worker that has to make the batch awaited next, and that batch's step; None when nothing is awaited.
    fn awaited(&self, py: Python<'_>) -> PyResult<Option<(u32, u64)>> {
        self.with(py, |engine| Ok(engine.awaited()))
    }

    /// A new epoch begins with `first_worker`: what was submitted is not wanted any more. Waits until the workers have
    /// done it.
    #[pyo3(signature = (timeout, first_worker=0))]
    fn restart(&self, py: Python<'_>, timeout: Option<f64>, first_worker: u32) -> PyResult<()> {
        self.with(py, |engine| engine.restart(first_worker))?;
        match self.next(py, timeout) {
            Err(error) if error.is_instance_of::<PyStopIteration>(py) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(PyRuntimeError::new_err("a batch of an abandoned epoch was delivered")),
        }
    }

    /// Tells every worker to return once it has made the batch it is making.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |engine| {
            engine.stop();
            Ok(())
        })
    }

    /// All workers have ended: gives back all memory but that of batches that the user keeps. Nothing else can be asked of
    /// the engine afterwards.
    fn release(&self, py: Python<'_>) -> PyResult<()> {
        let engine = self.lock(py).take();
        let released = engine.map_or(Ok(()), |mut engine| engine.release());
        released.map_err(|error| raise(py, error))
    }

    /// Bytes of shared memory that batches take now.
    #[getter]
    fn memory_bytes(&self, py: Python<'_>) -> u64 {
        self.lock(py).as_ref().map_or(0, forebay_engine::Engine::memory_bytes)
    }

    /// Bytes of shared memory that batches may take.
    #[getter]
    fn memory_budget(&self, py: Python<'_>) -> u64 {
        self.lock(py).as_ref().map_or(0, |engine| engine.config().memory_budget_bytes())
    }

    /// Batches that there is room for at once, whatever their size.
    #[getter]
    fn slots(&self, py: Python<'_>) -> u32 {
        self.lock(py).as_ref().map_or(0, forebay_engine::Engine::slots)
    }
}

impl Engine {
    /// Nobody waits for this lock while holding the interpreter's: a thread that has to wait lets others run, so the holder
    /// can finish, whatever it needs.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Option<forebay_engine::Engine>> {
        loop {
            match self.engine.try_lock() {
                Ok(guard) => return guard,
                Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => py.detach(|| drop(self.wait_lock())),
            }
        }
    }

    fn wait_lock(&self) -> MutexGuard<'_, Option<forebay_engine::Engine>> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the engine something. The lock is free again before an error becomes an exception, which runs Python code.
    fn with<T>(
        &self,
        py: Python<'_>,
        ask: impl FnOnce(&mut forebay_engine::Engine) -> Result<T, EngineError>,
    ) -> PyResult<T> {
        let answer = self.lock(py).as_mut().map(ask);
        match answer {
            Some(answer) => answer.map_err(|error| raise(py, error)),
            None => Err(exception(
                py,
                "EngineError",
                ("this iterator is closed; get a new one with iter(loader)",),
            )),
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Woken, EngineError> {
        // Released meanwhile: nothing to wait for, and whoever asks next is told.
        self.wait_lock().as_mut().map_or(Ok(Woken::Interrupted), |engine| engine.wait(deadline))
    }

    fn origin(&self) -> MutexGuard<'_, Origin> {
        // Held for a few instructions without Python code in them.
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver<'py>(&self, py: Python<'py>, mut batch: forebay_engine::Batch) -> PyResult<Bound<'py, PyAny>> {
        let state = if batch.outcome == Outcome::BatchAndState {
            let pair = || raise(py, EngineError::Layout("a state without its batch"));
            let (value, state) = apart(batch.value).ok_or_else(pair)?;
            batch.value = value;
            Some(state)
        } else {
            None
        };
        *self.origin() = Origin { step: batch.step, worker: batch.worker, state };
        if batch.outcome == Outcome::Error {
            let Value::Bytes(report) = &batch.value else {
                return Err(raise(py, EngineError::Layout("an error without a report")));
            };
            return Err(exception(py, "BatchFailed", (PyBytes::new(py, report), batch.step, batch.worker)));
        }
        if batch.copied {
            self.on_full.call0(py)?;
        }
        decode(py, self.front.get(), batch.value, batch.regions)
    }
}

/// A batch and the state that came with it.
fn apart(pair: Value) -> Option<(Value, Vec<u8>)> {
    let Value::Tuple(parts) = pair else { return None };
    match <[Value; 2]>::try_from(parts) {
        Ok([value, Value::Bytes(state)]) => Some((value, state)),
        _ => None,
    }
}

/// The payload of a ticket: the number of the epoch and the indices.
fn pack(epoch: u64, indices: &Bound<'_, PyAny>) -> PyResult<(u32, Vec<u8>)> {
    let mut bytes = epoch.to_ne_bytes().to_vec();
    if pack_list(indices, &mut bytes).is_some() {
        return Ok((PACKED, bytes));
    }
    bytes.truncate(EPOCH_BYTES);
    // A plain pickle: they are the sampler's, not a batch's.
    let pickle = indices.py().import("pickle")?.call_method1("dumps", (indices, 5))?;
    bytes.extend_from_slice(pickle.cast_into::<PyBytes>()?.as_bytes());
    Ok((PICKLED, bytes))
}

/// A list of plain integers, as samplers make them. Anything else keeps its types by pickle.
fn pack_list(indices: &Bound<'_, PyAny>, bytes: &mut Vec<u8>) -> Option<()> {
    let list = indices.cast_exact::<PyList>().ok()?;
    bytes.reserve(list.len() * 8);
    for index in list.iter() {
        if !index.is_exact_instance_of::<PyInt>() {
            return None;
        }
        bytes.extend_from_slice(&index.extract::<i64>().ok()?.to_ne_bytes());
    }
    Some(())
}

/// How many rows of the batch can be made each by itself: what is no list is the fetcher's to understand, as a whole.
fn rows_of(indices: &Bound<'_, PyAny>) -> u32 {
    let rows = indices.cast_exact::<PyList>().map_or(1, |list| list.len());
    u32::try_from(rows).unwrap_or(1)
}

/// The epoch and the indices as the sampler gave them: the inverse of `pack`.
pub(crate) fn unpack<'py>(py: Python<'py>, format: u32, bytes: &[u8]) -> PyResult<(u64, Bound<'py, PyAny>)> {
    let (epoch, bytes) = bytes
        .split_first_chunk()
        .ok_or_else(|| raise(py, EngineError::Layout("a ticket without the number of its epoch")))?;
    let indices = if format == PACKED {
        let (numbers, _) = bytes.as_chunks::<8>();
        PyList::new(py, numbers.iter().map(|number| i64::from_ne_bytes(*number)))?.into_any()
    } else {
        py.import("pickle")?.call_method1("loads", (PyBytes::new(py, bytes),))?
    };
    Ok((u64::from_ne_bytes(*epoch), indices))
}

/// A worker's place: four descriptors and a number. A process started by `fork` inherits it; for others it is
/// taken apart with `descriptors` and put together again with `of`.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Seat(Mutex<Option<forebay_engine::Seat>>);

#[pymethods]
impl Seat {
    /// The worker's number and the descriptors (arena, worker's bell, trainer's bell, lifeline). They stay this seat's.
    fn descriptors(&self) -> PyResult<(u32, [RawFd; 4])> {
        let guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = guard.as_ref().ok_or_else(taken)?;
        let forebay_engine::Seat { worker, arena, worker_bell, trainer_bell, lifeline } = seat;
        Ok((*worker, [arena, worker_bell, trainer_bell, lifeline].map(AsRawFd::as_raw_fd)))
    }

    /// A seat of descriptors that came from another process; it owns them from now on.
    #[staticmethod]
    fn of(worker: u32, descriptors: [RawFd; 4]) -> PyResult<Self> {
        if descriptors.iter().any(|descriptor| *descriptor < 0) {
            return Err(PyRuntimeError::new_err("a seat's descriptors are not negative"));
        }
        // SAFETY: not negative; the caller has just received them and gives them away here.
        let descriptors = descriptors.map(|raw| unsafe { OwnedFd::from_raw_fd(raw) });
        for descriptor in &descriptors {
            close_on_exec(descriptor.as_fd()).map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        }
        let [arena, worker_bell, trainer_bell, lifeline] = descriptors;
        Ok(Self(Mutex::new(Some(forebay_engine::Seat {
            worker,
            arena,
            worker_bell,
            trainer_bell,
            lifeline,
        }))))
    }

    /// Closes the descriptors in this process.
    fn close(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Seat {
    pub(crate) fn take(&self) -> PyResult<forebay_engine::Seat> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(taken)
    }
}

fn taken() -> PyErr {
    PyRuntimeError::new_err("this seat is taken or closed")
}
