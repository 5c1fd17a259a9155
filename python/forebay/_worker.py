"""A worker process, from its start to its end. Names no framework: what a front needs is done by its `prepare`."""

import pickle
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any

from forebay import _report
from forebay._engine import Front, Seat, Worker
from forebay.errors import EngineError, SharedMemoryError, UnpicklableError

__all__ = ["Assignment", "Prepared", "TravellingSeat", "work"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """All that a worker is told once, when it starts.

    Attributes:
        worker_id: its number, from 0.
        num_workers: how many there are.
        base_seed: this epoch's seed; a worker's own is derived from it.
        dataset: the dataset, its own copy from now on.
        collate_fn: makes a batch of samples.
        auto_collation: whether a ticket holds a list of indices, or the index of one sample.
        worker_init_fn: called with `worker_id` before any sample is made.
        prepare: the front's preparation of a worker: seeds, worker info, threads.
    """

    worker_id: int
    num_workers: int
    base_seed: int
    dataset: Any
    collate_fn: Callable[[Any], Any]
    auto_collation: bool
    worker_init_fn: Callable[[int], object] | None
    prepare: Callable[["Assignment"], "Prepared"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a front's preparation gives.

    Attributes:
        front: how objects become bytes.
        collates_natively: called after `worker_init_fn`: whether `collate_fn` is the front's own default, unchanged.
    """

    front: Front
    collates_natively: Callable[[], bool]


class TravellingSeat:
    """A seat that can be passed to a process being started: inherited by fork, or its descriptors sent along."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat

    def __reduce__(self) -> tuple[object, ...]:
        worker, descriptors = self.seat.descriptors()
        return _arrive, (worker, [reduction.DupFd(descriptor) for descriptor in descriptors])


def _arrive(worker: int, duplicates: list[Any]) -> TravellingSeat:
    arena, worker_bell, trainer_bell, lifeline = (duplicate.detach() for duplicate in duplicates)
    return TravellingSeat(Seat.of(worker, (arena, worker_bell, trainer_bell, lifeline)))


def work(seat: TravellingSeat, assignment: Assignment) -> None:
    """Makes batches until the trainer says stop. The target of a worker process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the trainer's would let the worker live
    # Ctrl-C reaches every process of the terminal. The trainer decides what becomes of it; a handler (unlike SIG_IGN)
    # is not passed on to programs that a dataset starts. Until now the signal was blocked (see `_crew`).
    signal.signal(signal.SIGINT, _leave_it_to_the_trainer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    prepared = assignment.prepare(assignment)
    worker = Worker(prepared.front, seat.seat)
    failed_start = _start(assignment)
    bench = _Bench(worker, assignment, native=failed_start is None and prepared.collates_natively())
    for indices in worker:
        if failed_start is None:
            bench.make(indices)
        else:
            bench.fail(failed_start, None)


def _leave_it_to_the_trainer(_signal: int, _frame: object) -> None:
    pass


def _start(assignment: Assignment) -> Exception | None:
    """Runs the user's own preparation; its exception takes the place of this worker's batches."""
    if assignment.worker_init_fn is None:
        return None
    try:
        assignment.worker_init_fn(assignment.worker_id)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything; it is reported in the trainer
        return error
    return None


class _Bench:
    """Where batches are made, one at a time."""

    def __init__(self, worker: Worker, assignment: Assignment, *, native: bool) -> None:
        self._worker = worker
        self._dataset = assignment.dataset
        self._collate_fn = assignment.collate_fn
        self._auto_collation = assignment.auto_collation
        self._native = native and assignment.auto_collation
        self._fetch_all = getattr(self._dataset, "__getitems__", None) if assignment.auto_collation else None
        self._worker_id = assignment.worker_id
        self._current: Any = None
        """The index whose sample is being made, in a tuple; None between samples."""

    def make(self, indices: Any) -> None:
        """Makes one batch and sends it, or the exception that came instead."""
        self._current = None
        try:
            self._publish(self._fetch(indices), indices)
        except Exception as error:  # noqa: BLE001 - as in _start
            self.fail(error, None if self._current is None else repr(self._current[0]))

    def _collates_natively(self, samples: Any) -> bool:
        # A dataset's __getitems__ may give any sequence.
        return self._native and isinstance(samples, list)

    def _fetch(self, indices: Any) -> Any:
        if not self._auto_collation:
            self._current = (indices,)
            sample = self._dataset[indices]
            self._current = None
            return sample
        if self._fetch_all:
            return self._fetch_all(indices)
        samples: list[Any] = []
        dataset = self._dataset
        index: Any = None
        try:
            for index in indices:
                samples.append(dataset[index])
        except BaseException:
            self._current = (index,)
            raise
        return samples

    def _publish(self, samples: Any, indices: Any) -> None:
        try:
            if self._collates_natively(samples):
                self._worker.collate(samples)
            else:
                self._worker.put(self._collate_fn(samples))
        except UnpicklableError as error:
            culprit = self._culprit(samples, indices)
            if culprit is not None:
                self._current = (culprit,)
            where = "" if culprit is None else f", because the sample of index {culprit!r} holds it"
            raise UnpicklableError(
                f"worker {self._worker_id} cannot send its batch to the trainer{where}: {error}. What a dataset and a "
                "collate_fn return must be picklable; return arrays, tensors, numbers, strings and containers of them."
            ) from error.__cause__

    def _culprit(self, samples: Any, indices: Any) -> Any:
        """The first index whose sample cannot be pickled by itself."""
        if not self._auto_collation:
            return indices
        for index, sample in zip(indices, samples, strict=False):
            try:
                pickle.dumps(sample)
            except Exception:  # noqa: BLE001 - whatever it is, it is what is looked for
                return index
        return None

    def fail(self, error: BaseException, index: str | None) -> None:
        """Sends an exception in the batch's place."""
        report = _report.pack(error, index)
        try:
            self._worker.fail(pickle.dumps(report))
        except (SharedMemoryError, EngineError):
            self._worker.fail(pickle.dumps(_report.shorten(report)))
