//! A worker process's side of the journey.

use std::sync::{Mutex, PoisonError};

use forebay_engine::layout::Value;
use forebay_engine::{Complete, Order, Outcome, Part, Piece, Ticket, Unpublished};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::collate::collate;
use crate::decode::decode;
use crate::encode::encode;
use crate::engine::{Seat, unpack};
use crate::error::raise;
use crate::front::Front;

/// Takes the seat that the trainer's engine prepared. From then on the process ends when the trainer does.
///
/// Args:
///     front: how to turn objects into bytes.
///     seat: what the trainer's `Engine.seat` gave, passed on while the process was started.
#[pyclass(frozen, module = "forebay._engine")]
#[derive(Debug)]
pub struct Worker {
    front: Py<Front>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    worker: forebay_engine::Worker,
    ticket: Option<Ticket>,
    epoch: u64,
    /// In the place of a ticket, until the last row of the batch is done, where rows are shared.
    part: Option<Part>,
    /// The row that was claimed when the part was begun, until it is given.
    first_row: Option<u32>,
}

#[pymethods]
impl Worker {
    #[new]
    fn new(py: Python<'_>, front: Py<Front>, seat: &Bound<'_, Seat>) -> PyResult<Self> {
        let seat = seat.get().take()?;
        let worker = forebay_engine::Worker::join_as_process(seat).map_err(|error| raise(py, error))?;
        let state = State { worker, ticket: None, epoch: 0, part: None, first_row: None };
        Ok(Self { front, state: Mutex::new(state) })
    }

    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    /// The indices of the next batch to make, as the sampler gave them, until there is no more to do. Waits without the
    /// interpreter's lock.
    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        loop {
            let order = py.detach(|| self.lock().worker.next_order()).map_err(|error| raise(py, error))?;
            match order {
                None => py.check_signals()?,
                Some(Order::Stop) => return Ok(None),
                Some(Order::Fill(ticket)) => {
                    let (epoch, indices) = unpack(py, ticket.format, &ticket.indices)?;
                    let mut state = self.lock();
                    state.epoch = epoch;
                    state.ticket = Some(ticket);
                    return Ok(Some(indices.unbind()));
                }
                Some(Order::Rows(part)) => {
                    let (epoch, indices) = unpack(py, part.format, &part.indices)?;
                    let mut state = self.lock();
                    state.epoch = epoch;
                    state.first_row = Some(part.first_row());
                    state.part = Some(part);
                    return Ok(Some(indices.unbind()));
                }
            }
        }
    }

    /// The number that the trainer gave the epoch of the latest batch.
    #[getter]
    fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Which epoch of this worker's life the batch that is being made is of, counted from 0; None between batches. A
    /// stream begins anew with each, whatever their numbers are.
    #[getter]
    fn pass_number(&self) -> Option<u64> {
        let state = self.lock();
        let part = state.part.as_ref().map(|part| part.epoch);
        part.or_else(|| state.ticket.as_ref().map(|ticket| ticket.epoch))
    }

    /// Whether other workers may make rows of the batch that is being made.
    #[getter]
    fn shares_rows(&self) -> bool {
        self.lock().part.is_some()
    }

    /// The next row of the batch that this worker is to make; None when all are claimed.
    fn next_row(&self) -> Option<u32> {
        let mut state = self.lock();
        let State { worker, part, first_row, .. } = &mut *state;
        first_row.take().or_else(|| worker.next_row(part.as_mut()?))
    }

    /// Claims all rows of the batch that are left, and leaves them to the finisher to make.
    fn leave_rest(&self) {
        let mut state = self.lock();
        let State { worker, part, .. } = &mut *state;
        if let Some(part) = part {
            worker.rest(part);
        }
    }

    /// The rows that were claimed are done. None when others are still at theirs: then `made` is on its way to the finisher. Else
    /// this worker is the finisher, and has to publish the batch: what the others made, as they gave it; None for what
    /// cannot be opened here.
    ///
    /// Args:
    ///     made: what was made, in a form that can travel; None to leave all rows to the finisher.
    ///
    /// Raises:
    ///     forebay.errors.UnpicklableError: `made` cannot travel; nothing was handed in.
    ///     forebay.errors.SharedMemoryError: there is no room for it; nothing was handed in.
    #[pyo3(signature = (made))]
    fn hand_in<'py>(
        &self,
        py: Python<'py>,
        made: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Vec<Option<Bound<'py, PyAny>>>>> {
        let part =
            self.lock().part.take().ok_or_else(|| PyRuntimeError::new_err("no rows are being made"))?;
        let written = match made {
            Some(made) if !self.lock().worker.is_last(&part) => {
                let mut writer = self.lock().worker.scratch(&part);
                match encode(self.front.get(), &mut writer, made, 0) {
                    Ok(value) => Some((writer, value)),
                    Err(error) => {
                        self.lock().part = Some(part);
                        return Err(error);
                    }
                }
            }
            _ => None,
        };
        let complete = self.lock().worker.hand_in(part, written).map_err(|error| raise(py, error))?;
        let Some(Complete { ticket, others }) = complete else { return Ok(None) };
        self.lock().ticket = Some(ticket);
        let others = others.map_err(|error| raise(py, error))?.into_iter();
        // What a class of the user's raises when it is unpickled is told when its rows are made again, if at all.
        let open = |Piece { value, regions }| decode(py, self.front.get(), value, regions).ok();
        Ok(Some(others.map(open).collect()))
    }

    /// From now on this worker joins in no batch that another has begun.
    fn stop_helping(&self) {
        self.lock().worker.stop_helping();
    }

    /// Makes the batch of `samples` by the front's default collate, and sends it, with `state` if there is one.
    #[pyo3(signature = (samples, state=None))]
    fn collate(
        &self,
        py: Python<'_>,
        samples: &Bound<'_, PyList>,
        state: Option<&Bound<'_, PyBytes>>,
    ) -> PyResult<()> {
        let front = self.front.get();
        self.publish_batch(py, state, |ticket| collate(front, &mut ticket.writer, samples))
    }

    /// Sends a batch that is made already, with `state` if there is one.
    #[pyo3(signature = (batch, state=None))]
    fn put(
        &self,
        py: Python<'_>,
        batch: &Bound<'_, PyAny>,
        state: Option<&Bound<'_, PyBytes>>,
    ) -> PyResult<()> {
        let front = self.front.get();
        self.publish_batch(py, state, |ticket| encode(front, &mut ticket.writer, batch, 0))
    }

    /// Sends an error in the batch's place, as bytes that the trainer's side understands.
    fn fail(&self, py: Python<'_>, report: &Bound<'_, PyBytes>) -> PyResult<()> {
        let value = Value::Bytes(report.as_bytes().to_vec());
        self.publish(py, Outcome::Error, |_| Ok(value))
    }

    /// Says that this worker has no more samples in this epoch. Every further batch of it is to be answered so.
    fn end(&self, py: Python<'_>) -> PyResult<()> {
        self.publish(py, Outcome::End, |_| Ok(Value::None))
    }
}

impl Worker {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish_batch(
        &self,
        py: Python<'_>,
        state: Option<&Bound<'_, PyBytes>>,
        make: impl FnOnce(&mut Ticket) -> PyResult<Value>,
    ) -> PyResult<()> {
        let Some(state) = state else { return self.publish(py, Outcome::Batch, make) };
        let state = Value::Bytes(state.as_bytes().to_vec());
        self.publish(py, Outcome::BatchAndState, |ticket| Ok(Value::Tuple(vec![make(ticket)?, state])))
    }

    /// `make` may run any Python code, so the lock is not held meanwhile. If it fails, the ticket stays, to be failed.
    fn publish(
        &self,
        py: Python<'_>,
        outcome: Outcome,
        make: impl FnOnce(&mut Ticket) -> PyResult<Value>,
    ) -> PyResult<()> {
        let ticket = self.lock().ticket.take();
        let mut ticket = ticket.ok_or_else(|| PyRuntimeError::new_err("no batch is being made"))?;
        ticket.writer.clear();
        let made = make(&mut ticket);
        let mut state = self.lock();
        let value = match made {
            Ok(value) => value,
            Err(error) => {
                state.ticket = Some(ticket);
                return Err(error);
            }
        };
        state.worker.finish(ticket, outcome, &value).map_err(|Unpublished { ticket, error }| {
            state.ticket = Some(*ticket);
            raise(py, error)
        })
    }
}
