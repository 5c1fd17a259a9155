"""A worker process, from its start to its end. Names no framework: what a front needs is done by its `prepare`."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing import reduction
from typing import Any

from forebay import _arrival, _report
from forebay._advice import Scene
from forebay._cursor import Standing
from forebay._engine import Front, Seat, Worker
from forebay._fetch import FailedFetcher, Fetcher, StreamFetcher, fetcher_of, skip
from forebay._rows import make_rows
from forebay._sample_seeds import SamplerStreams, SampleSeeds
from forebay._stateful import is_stateful, pack, restore, restore_iterator, tell_of, unpack
from forebay.errors import UnpicklableError

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
        stream: whether the dataset is iterable: each worker reads its own copy from the first sample to the last.
        auto_collation: whether a ticket holds a list of indices, or the index of one sample.
        drop_last: whether a stream's last batch is left out when it is short.
        worker_init_fn: called with `worker_id` before any sample is made.
        prepare: the front's preparation of a worker: seeds, worker info, threads.
        standings: how far the workers were, by number, where an epoch goes on in its middle.
        seed: of the loader; None if it has none.
        epoch: the number of the epoch for which the worker starts.
    """

    worker_id: int
    num_workers: int
    base_seed: int
    dataset: Any
    collate_fn: Callable[[Any], Any]
    stream: bool
    auto_collation: bool
    drop_last: bool
    worker_init_fn: Callable[[int], object] | None
    prepare: Callable[["Assignment"], "Prepared"]
    standings: Mapping[int, Standing] = field(default_factory=dict[int, Standing])
    seed: int | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a front's preparation gives.

    Attributes:
        front: how objects become bytes.
        collates_natively: called after `worker_init_fn`: whether `collate_fn` is the front's own default, unchanged.
        gather: where it is: `(dataset, indices)` to the batch, or to None for making it sample by sample.
        tell_epoch: called with the number of every later epoch, which `get_worker_info` shows.
    """

    front: Front
    collates_natively: Callable[[], bool]
    gather: Callable[[Any, Any], Any]
    tell_epoch: Callable[[int], None]


class TravellingSeat:
    """A seat that can be passed to a process being started: inherited by fork, or its descriptors sent along.

    It arrives before the assignment, so it tells what must be known if that cannot be unpickled.
    """

    def __init__(self, seat: Seat, *, stream: bool) -> None:
        self.seat = seat
        self._stream = stream

    def __reduce__(self) -> tuple[object, ...]:
        worker, descriptors = self.seat.descriptors()
        return _arrive, (worker, [reduction.DupFd(descriptor) for descriptor in descriptors], self._stream)


def _arrive(worker: int, duplicates: list[Any], stream: bool) -> TravellingSeat:
    arena, worker_bell, trainer_bell, lifeline = (duplicate.detach() for duplicate in duplicates)
    seat = Seat.of(worker, (arena, worker_bell, trainer_bell, lifeline))
    _arrival.await_rest(seat, stream=stream)
    return TravellingSeat(seat, stream=stream)


def work(seat: TravellingSeat, assignment: Assignment) -> None:
    """Makes batches until the trainer says stop. The target of a worker process."""
    _arrival.complete()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a handler of the trainer's would let the worker live
    # Ctrl-C reaches every process of the terminal. The trainer decides what becomes of it; a handler (unlike SIG_IGN)
    # is not passed on to programs that a dataset starts. Until now the signal was blocked (see `_crew`).
    signal.signal(signal.SIGINT, _leave_it_to_the_trainer)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    prepared = assignment.prepare(assignment)
    worker = Worker(prepared.front, seat.seat)
    failed_start = _start(assignment)
    native = failed_start is None and prepared.collates_natively()
    bench = _Bench(worker, assignment, failed_start, prepared.gather if native else None, prepared.tell_epoch)
    for indices in worker:
        bench.make(indices)


def _leave_it_to_the_trainer(_signal: int, _frame: object) -> None:
    pass


def _start(assignment: Assignment) -> BaseException | None:
    """Runs the user's own preparation; its exception takes the place of this worker's batches."""
    try:
        if assignment.worker_init_fn is not None:
            assignment.worker_init_fn(assignment.worker_id)
        standing = assignment.standings.get(assignment.worker_id)
        if standing is not None and standing.state is not None:
            restore(assignment.dataset, unpack(standing.state))
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; it is reported in the trainer
        return error
    return None


class _Bench:
    """Where batches are made, one at a time."""

    def __init__(
        self,
        worker: Worker,
        assignment: Assignment,
        failed_start: BaseException | None,
        gather: Callable[[Any, Any], Any] | None,
        tell_epoch: Callable[[int], None],
    ) -> None:
        self._worker = worker
        self._assignment = assignment
        self._failed_start = failed_start
        self._failed_epoch: BaseException | None = None
        """What the dataset's `set_epoch` raised for this epoch."""
        self._native = gather is not None and assignment.auto_collation
        self._gather = None if assignment.stream or not self._native else gather
        self._who = f"worker {assignment.worker_id}"
        self._scene = Scene(self._who, assignment.dataset, assignment.auto_collation, assignment.stream)
        self._tell_epoch = tell_epoch
        self._epoch = assignment.epoch
        self._seeds = None if assignment.seed is None else SampleSeeds(assignment.seed, assignment.epoch)
        self._pass: int | None = None
        self._fetcher: Fetcher | None = None
        self._standing = assignment.standings.get(assignment.worker_id)
        """Where the stream's first epoch goes on; None after that."""
        self._tells = not assignment.stream and is_stateful(assignment.dataset)

    def make(self, indices: Any) -> None:
        """Makes one batch and sends it, or the exception that came instead, or the end of the stream.

        Where workers share rows, makes rows of a batch, and sends it if it has made the last one.
        """
        fetcher, scene = self._fetcher_now(indices), self._scene
        scene.begin(indices)
        try:
            if self._worker.shares_rows and not isinstance(fetcher, StreamFetcher):
                samples = make_rows(self._worker, fetcher, indices)
                if samples is None:
                    return
            else:
                gathered = self._gather and self._gather(self._assignment.dataset, indices)
                if gathered is not None:
                    self._worker.put(gathered)
                    return
                samples = fetcher.fetch(indices)
            scene.samples = (samples,)
            if not self._collates_natively(samples):
                fetcher.seed_collate(indices)
            self._publish(samples, scene)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; it is reported in the trainer
            if isinstance(error, StopIteration) and self._assignment.stream:
                self._fetcher = StreamFetcher((), auto_collation=False, drop_last=False)
                self._worker.end()
                return
            scene.index = scene.index or fetcher.current
            self._fail(error, scene)
        finally:
            scene.samples = None  # not kept until the next batch

    def _fetcher_now(self, indices: Any) -> Fetcher:
        """What fetches in this epoch: a stream begins anew with every one."""
        if self._worker.epoch != self._epoch:
            self._begin_epoch(self._worker.epoch)
        if self._fetcher is None or (self._assignment.stream and self._worker.pass_number != self._pass):
            self._pass, self._fetcher = self._worker.pass_number, self._new_fetcher(indices)
        return self._fetcher

    def _begin_epoch(self, epoch: int) -> None:
        """Tells everybody here that another epoch has begun."""
        self._epoch = epoch
        self._tell_epoch(epoch)
        if self._seeds is None:
            return
        self._seeds.epoch = epoch
        set_epoch: Callable[[int], object] | None = getattr(self._assignment.dataset, "set_epoch", None)
        if not callable(set_epoch):
            return
        failed_before, self._failed_epoch = self._failed_epoch, None
        try:
            with SamplerStreams(self._seeds.seed, epoch).lent():
                set_epoch(epoch)
        except BaseException as error:  # noqa: BLE001 - as in make
            self._failed_epoch = error
        if failed_before or self._failed_epoch:
            self._fetcher = None

    def _new_fetcher(self, indices: Any) -> Fetcher:
        told = self._assignment
        failed = self._failed_start or self._failed_epoch
        if failed is None:
            try:
                fetcher = fetcher_of(
                    told.dataset,
                    stream=told.stream,
                    auto_collation=told.auto_collation,
                    drop_last=told.drop_last,
                    seeds=self._seeds,
                    worker=(told.worker_id, told.num_workers),
                )
                if isinstance(fetcher, StreamFetcher):
                    self._open(fetcher, indices)
                return fetcher
            except BaseException as error:  # noqa: BLE001 - as in make
                failed = error
        return FailedFetcher(failed, stream=told.stream)

    def _open(self, fetcher: StreamFetcher, indices: Any) -> None:
        """Brings a new stream to where it stood, if its epoch goes on in its middle."""
        self._tells = is_stateful(self._assignment.dataset) or is_stateful(fetcher.samples)
        standing, self._standing = self._standing, None
        if standing is None:
            return
        if standing.state is None:
            skip(fetcher, standing.batches, indices)
            return
        held = unpack(standing.state)
        restore_iterator(fetcher.samples, held)
        fetcher.ended = bool(held.get("ended"))
        if self._seeds is not None:
            told = self._assignment
            fetcher.seed(self._seeds, told.worker_id, told.num_workers, held.get("place", 0))

    def _state(self) -> bytes | None:
        """How the dataset stands after the batch that was just made, if it can tell."""
        if not self._tells:
            return None
        stream = self._fetcher if isinstance(self._fetcher, StreamFetcher) else None
        held = tell_of(self._assignment.dataset, stream)
        return None if held is None else pack(held, self._who)

    def _collates_natively(self, samples: Any) -> bool:
        # A dataset's __getitems__ may give any sequence.
        return self._native and isinstance(samples, list)

    def _publish(self, samples: Any, scene: Scene) -> None:
        batch = None
        native = self._collates_natively(samples)
        if not native:
            batch = self._assignment.collate_fn(samples)
        state = self._state()
        try:
            if native:
                self._worker.collate(samples, state)
            else:
                self._worker.put(batch, state)
        except UnpicklableError as error:
            where = scene.blame(error.culprit, batch)
            because = "" if where is None else f", because {where}"
            raise UnpicklableError(
                f"{self._who} cannot send its batch to the trainer{because}: {error}. What a dataset and "
                "a collate_fn return must be picklable: arrays, tensors, numbers, strings and containers of them."
            ) from error.__cause__

    def _fail(self, error: BaseException, scene: Scene) -> None:
        """Sends an exception in the batch's place. One that ends a program ends the worker."""
        tasks = {id(self._failed_start): "(in worker_init_fn)", id(self._failed_epoch): "(in the dataset's set_epoch)"}
        task = tasks.get(id(error), scene.task)
        _report.send(self._worker, _report.pack(error, scene.shown_index, scene.advice(error), task))
        if not isinstance(error, Exception):
            raise error
