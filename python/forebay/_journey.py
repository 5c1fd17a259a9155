"""One iterator's life: the engine, its crew, and the sampler that feeds them. Shared by both fronts."""

import gc
import multiprocessing
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any

from forebay import _configuration, _descriptors, _report
from forebay._ahead import Ahead
from forebay._callers import users_level, warn_of_early_end
from forebay._crew import Crew
from forebay._cursor import Cursor, Standing
from forebay._engine import Engine, Front
from forebay._randomness import warn_of_equal_generators
from forebay._report import Report
from forebay._stateful import is_stateful
from forebay._worker import Assignment, Prepared
from forebay.errors import (
    BatchFailed,
    ConfigError,
    EngineError,
    ForebayError,
    ForkedChildError,
    LoaderTimeout,
    MemoryBudgetWarning,
    StreamEnded,
    WaitTimedOut,
    WorkerDied,
    WorkerEnded,
)

__all__ = ["Journey", "Options", "SampleError"]


@dataclass(frozen=True, slots=True)
class Options:
    """How an iterator works.

    Attributes:
        prefetch_factor: batches ahead for each worker.
        in_order: whether batches come in the sampler's order.
        timeout_s: how long to wait for a batch; 0 for ever.
        persistent: whether the workers stay when an epoch is over.
        memory_budget_bytes: shared memory for all batches; None for half of what the process may use.
        shares_rows: whether workers that have nothing to do make rows of the others' batches. Only where nobody can
            tell who made a sample, and each is made by itself.
    """

    prefetch_factor: int
    in_order: bool
    timeout_s: float
    persistent: bool
    memory_budget_bytes: int | None
    shares_rows: bool = False


_FEWER_DESCRIPTORS = "An iterator takes 4 per worker and 3 more: lower num_workers, close files and other loaders"


_PREFETCH_FACTOR = 2
"""As in torch, where none was given."""
_PREFETCH_FACTOR_SHARING_ROWS = 4
"""So that workers which pass a late sample find enough to do before it is done."""


def _prefetch_factor(loader: Any, *, shares_rows: bool) -> int:
    default = loader.prefetch_factor in {None, _PREFETCH_FACTOR}
    if shares_rows and default and loader._seeding.prefetch_factor is None:
        return _PREFETCH_FACTOR_SHARING_ROWS
    return int(loader.prefetch_factor or _PREFETCH_FACTOR)


_MOST_COUNTED = 2**32 - 1
"""Larger numbers cannot even be told to the engine, which refuses many smaller ones, in the same words."""


class SampleError(Exception):
    """A batch's place is taken by an exception of its worker; the fronts raise it in their own ways."""

    def __init__(self, report: Report, worker: int, batch: int) -> None:
        super().__init__(report, worker, batch)
        self.report = report
        self.worker = worker
        self.batch = batch

    def add_notes(self, raised: BaseException) -> None:
        """Tells by notes where it happened, and what the worker knows about why."""
        index = "" if self.report.index is None else f", sample index {self.report.index}"
        for note in (f"worker {self.worker}, batch {self.batch}{index}", *self.report.notes):
            raised.add_note(f"[forebay] {note}")


class Journey:
    """Batches from workers, epoch after epoch.

    Args:
        front: how bytes become objects.
        context: how worker processes are started.
        assignment: what workers are told.
        options: how it works.
    """

    def __init__(self, front: Front, context: BaseContext, assignment: Assignment, options: Options) -> None:
        self._options = options
        self._stream = assignment.stream
        self._timeout = options.timeout_s or None
        self._full = False
        self._warned = False
        self._warned_of_end = False
        self._held: list[Any] = []
        """A batch that was taken and could not be delivered."""
        self._ahead = Ahead(0, lambda batch: batch, lambda _batch: None)
        self._undelivered = 0
        """Batches that were sent and not yet delivered, of a dataset with indices."""
        self._window = assignment.num_workers * options.prefetch_factor
        self._cursor = Cursor()
        self._asks = assignment.stream or not options.in_order or is_stateful(assignment.dataset)
        """Whether it matters to the cursor which batch was delivered, and by whom."""
        self._first_worker = 0
        self._first_step = 0
        self._next_step = 0
        self._indices: Iterator[Any] | None = None
        self._sampler_error: BaseException | None = None
        self._broken: ForebayError | None = None
        self._closed = False
        self._pid = os.getpid()
        self._closing = threading.Lock()
        self._turn = threading.RLock()
        """Held by whoever takes a batch or begins an epoch: two threads that share an iterator take turns."""
        with _descriptors.explained("the trainer", _FEWER_DESCRIPTORS):
            self._engine = Engine(
                front,
                workers=assignment.num_workers,
                prefetch_factor=options.prefetch_factor,
                in_order=options.in_order,
                memory_budget=options.memory_budget_bytes,
                on_full=_weakly(self._on_full),
                shares_rows=options.shares_rows,
            )
            self._submit_indices: Callable[[Any], int] = self._engine.submit
            self._crew = Crew(context, self._engine, assignment)

    @classmethod
    def of_loader(
        cls,
        loader: Any,
        front: Front,
        *,
        stream: bool,
        auto_collation: bool,
        base_seed: int,
        prepare: Callable[[Assignment], Prepared],
        standings: Mapping[int, Standing] | None = None,
        seed: int | None = None,
        epoch: int = 0,
        shares_rows: bool = False,
    ) -> "Journey":
        """The journey that a loader of either front describes: their other attributes have the same names."""
        warn_of_equal_generators(loader, stacklevel=users_level())
        assignment = Assignment(
            worker_id=0,
            num_workers=loader.num_workers,
            base_seed=base_seed,
            dataset=loader.dataset,
            collate_fn=loader.collate_fn,
            stream=stream,
            auto_collation=auto_collation,
            drop_last=loader.drop_last,
            worker_init_fn=loader.worker_init_fn,
            prepare=prepare,
            standings=standings or {},
            seed=seed,
            epoch=epoch,
        )
        prefetch_factor = _prefetch_factor(loader, shares_rows=shares_rows)
        if max(prefetch_factor, loader.num_workers) > _MOST_COUNTED:
            raise ConfigError(
                f"num_workers * prefetch_factor must be from 1 to 65536 batches ahead, but is {loader.num_workers} * "
                f"{prefetch_factor}"
            )
        options = Options(
            prefetch_factor=prefetch_factor,
            in_order=bool(loader.in_order),
            timeout_s=loader.timeout if loader.timeout > 0 else 0,  # NaN is for ever, as in torch
            persistent=bool(loader.persistent_workers),
            memory_budget_bytes=_configuration.option("memory_budget", getattr(loader, "memory_budget", None)),
            shares_rows=shares_rows,
        )
        return cls(front, loader.multiprocessing_context or multiprocessing.get_context(), assignment, options)

    @property
    def processes(self) -> list[BaseProcess]:
        """The worker processes, by number."""
        return self._crew.processes

    @property
    def ended(self) -> bool:
        """Whether there are no workers any more: closed, one has died, or they are those of a parent process."""
        return self._closed or os.getpid() != self._pid

    def take_ahead(self, most: int, prepare: Callable[[Any], Any], await_ready: Callable[[Any], object]) -> None:
        """From now on batches are given to `prepare` when they are taken, and what that returns is delivered.

        It counts as delivered when `await_ready` has returned; if that raises, the next call asks again. Up to `most`
        batches are taken before they are asked for, if they have arrived. The sampler does not notice.
        """
        self._ahead = Ahead(most, prepare, await_ready)

    def begin(
        self,
        indices: Iterator[Any],
        cursor: Cursor | None = None,
        first_worker: int = 0,
        *,
        epoch: int = 0,
        as_places: bool = False,
    ) -> None:
        """Begins an epoch over what a sampler gives, and sends the first batches ahead.

        What is left of an epoch that was not read to its end is waited for and dropped.

        Args:
            indices: of the batches to deliver.
            cursor: which batches have been delivered already, and where it is noted from now on.
            first_worker: who makes the first batch.
            epoch: its number, which the workers learn.
            as_places: whether indices come as arrays; workers see lists.
        """
        self._check_process()
        with self._turn:
            self._check_open()
            self._engine.set_epoch(epoch)
            self._submit_indices = self._engine.submit_places if as_places else self._engine.submit
            self._begin(indices, cursor or Cursor(), first_worker)

    def _begin(self, indices: Iterator[Any], cursor: Cursor, first_worker: int) -> None:
        self._held.clear()
        self._ahead.clear()
        self._undelivered = 0
        self._indices = None  # if waiting fails, what is left of the epoch before does not go on with holes
        if first_worker != self._first_worker or self._next_step > self._first_step:
            self._run(lambda: self._engine.restart(self._timeout, first_worker))
        self._first_worker = first_worker
        self._cursor = cursor
        self._indices = indices
        self._first_step = self._next_step
        self._sampler_error = None
        self._send_ahead()
        error = self._take_sampler_error()
        if error is not None:
            self.close()
            raise error

    def next(self) -> Any:
        """The next batch.

        Raises:
            StopIteration: the epoch is over.
            SampleError: the batch's place is taken by an exception of its worker.
            WorkerDied: a worker died.
            LoaderTimeout: the batch did not come in time.
            ForkedChildError: this is a forked child of the process that made the iterator.
        """
        self._check_process()
        with self._turn:
            return self._next()

    def _next(self) -> Any:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise StopIteration
        if self._held:
            return self._deliver()
        self._send_ahead()  # nothing, unless an exception came between the last batch and its successor
        try:
            self._held.append(self._take())
        except StopIteration:
            if self._indices is not None and not self._stream:
                self._undelivered = 0  # Ctrl-C came between taking a batch and counting it
                return self._next()
            self._finish()
            raise
        except BatchFailed as failed:
            error = self._failed(failed)
            raise error from error.__cause__
        except WaitTimedOut:
            raise self._timed_out() from None
        except WorkerEnded as ended:
            if self._closed:
                raise StopIteration from None  # by another thread, which has ended the workers
            raise self._died(ended) from None
        except Exception:
            self._note_delivery()  # what unpickling the batch raised takes its place
            raise
        self._send_ahead()
        return self._deliver()

    def _deliver(self) -> Any:
        """Hands over what was taken. If that is interrupted, or a warning is made an error, the next call does it."""
        if self._full and not self._warned:
            self._warn_of_full()
        self._ahead.await_ready(self._held[0])
        self._note_delivery()
        return self._held.pop()

    def _note_delivery(self) -> None:
        """What the engine gave last is the program's now."""
        cursor = self._cursor
        if not self._asks and not cursor.ahead:
            cursor.position += 1
            return
        step, worker, state = self._ahead.last(self._engine)
        if self._stream:
            cursor.passed_of(worker, state)
        else:
            cursor.passed(self._number(step))
            cursor.keep(worker, state)

    def _number(self, step: int) -> int:
        """Which batch of its epoch a step is."""
        return self._cursor.number(step - self._first_step)

    def _take(self) -> Any:
        """The engine's next batch. The room that an ended stream leaves goes to the other workers at once."""
        while True:
            self._ahead.fill(self._engine)
            try:
                batch = self._ahead.next(self._engine, self._timeout)
            except StreamEnded:
                self._send_ahead()
            except (StopIteration, WaitTimedOut, WorkerEnded):
                raise
            except Exception:
                self._undelivered -= 1
                raise
            else:
                self._undelivered -= 1
                return batch

    def close(self) -> None:
        """Ends the workers. May be called at any time, any number of times, from any thread."""
        if os.getpid() != self._pid:
            return  # a forked child: the workers are its parent's
        # Not waited for: who closes already may be further up in this very thread (a signal's handler closes too).
        if not self._closing.acquire(blocking=False):
            return
        try:
            if self._closed:
                return
            self._closed = True
            self._end_workers()
        finally:
            self._closing.release()

    def _end_workers(self) -> None:
        if not self._turn.acquire(blocking=False):
            # Another thread waits for a batch, with the engine in its hands: when the workers end, it comes back.
            self._crew.terminate()
            self._turn.acquire()
        try:
            self._indices = None
            self._ahead.clear()
            self._crew.stop(self._engine)
        except BaseException:
            self._crew.terminate()  # Ctrl-C while workers were given time to finish
            raise
        finally:
            self._engine.release()
            self._turn.release()

    def _send_ahead(self) -> None:
        while self._engine.wants() and self._has_room() and self._submit():
            pass

    def _has_room(self) -> bool:
        """Whether what was taken ahead, which the engine counts as delivered, leaves room.

        A stream has no sampler that could notice.
        """
        return self._stream or self._undelivered < self._window

    def _submit(self) -> bool:
        """Sends the sampler's next batch, if there is one. Its error comes after the batches sent before it."""
        if self._indices is None:
            return False
        try:
            self._submit_indices(next(self._indices))
        except StopIteration:
            self._indices = None
            return False
        except Exception as error:  # noqa: BLE001 - a user's sampler may raise anything; it is raised in its place
            self._indices = None
            self._sampler_error = error
            return False
        self._next_step += 1
        self._undelivered += 1
        return True

    def _finish(self) -> None:
        if not self._options.persistent:
            self.close()
        error = self._take_sampler_error()
        if error is not None:
            raise error
        self._cursor.finished = True

    def _take_sampler_error(self) -> BaseException | None:
        error, self._sampler_error = self._sampler_error, None
        return error

    def _run(self, action: Any) -> None:
        try:
            action()
        except WaitTimedOut:
            raise self._timed_out() from None
        except WorkerEnded as ended:
            self._check_open()
            raise self._died(ended) from None

    def _failed(self, failed: BatchFailed) -> Exception:
        """What a batch's place is taken by: an exception, or the end of its worker."""
        report, number = _report.unpack(failed.report), self._number(failed.step)
        if report.end is not None:
            return self._end(self._crew.gave_up(failed.worker, number, report))
        self._note_delivery()
        self._send_ahead()
        if issubclass(report.exception_type() or object, StopIteration) and not self._warned_of_end:
            self._warned_of_end = True
            warn_of_early_end(report.index, f" (worker {failed.worker}, batch {number})")
        return SampleError(report, failed.worker, number)

    def _timed_out(self) -> LoaderTimeout:
        awaited = self._engine.awaited()
        where = ""
        if awaited is not None:
            worker, step = awaited
            indices = self._indices_of(step)
            where = f"; worker {worker} (pid {self.processes[worker].pid}) has not finished batch {self._number(step)}"
            where += "" if indices is None else f" of indices {indices!r}"[:300]
        return LoaderTimeout(
            f"DataLoader timed out after {self._options.timeout_s} seconds{where}. Nothing is lost: the next call goes "
            "on waiting. If batches may take so long, raise timeout"
        )

    def _died(self, ended: WorkerEnded) -> WorkerDied:
        """What a dead worker leaves: an error now, and the same error at every further call."""
        batches = [self._number(step) for step in ended.in_flight]
        indices = self._indices_of(ended.in_flight[0]) if ended.in_flight else None
        return self._end(self._crew.died(ended.worker, batches, indices))

    def _end(self, error: WorkerDied) -> WorkerDied:
        self._broken = error
        self._crew.terminate()  # what the others are making is lost, so it is not waited for
        self.close()
        return error

    def _indices_of(self, step: int) -> Any:
        """The indices of a batch that has not been delivered; None for a stream, which has none."""
        return None if self._stream else self._engine.indices(step)

    def _check_process(self) -> None:
        # Asked before any lock is taken: in a child they may be held by threads that are not there.
        if os.getpid() != self._pid:
            raise ForkedChildError(
                "this iterator belongs to the process that made it; a forked child cannot use it (make a new iterator "
                "in the child)"
            )

    def _check_open(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise EngineError("this iterator is closed; get a new one with iter(loader)")

    def _on_full(self) -> None:
        """Called by the engine when kept batches use the budget up."""
        if not self._full:
            self._full = True
            gc.collect()  # they may be in reference cycles, which only a collection ends

    def _warn_of_full(self) -> None:
        self._warned = True
        used, budget, slots = self._engine.memory_bytes, self._engine.memory_budget, self._engine.slots
        warnings.warn(
            f"the program keeps so many batches that no more fit into shared memory ({used:,} bytes are in use, the "
            f"memory budget is {budget:,} bytes and {slots:,} batches); from now on batches are copied to ordinary "
            "memory, which is slower. If you keep batches on purpose, nothing is wrong; else drop them sooner, or "
            "raise memory_budget.",
            MemoryBudgetWarning,
            stacklevel=users_level(),
        )


def _weakly(method: Callable[[], None]) -> Callable[[], None]:
    """Calls `method` as long as its object lives.

    The engine would keep that object, which keeps the engine: a cycle that no garbage collector sees.
    """
    reference = weakref.WeakMethod(method)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return call
