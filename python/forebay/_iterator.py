"""Iterators of the NumPy front whose batches are made by worker processes."""

import contextlib
import sys
from typing import TYPE_CHECKING, Any, NoReturn, Self

from forebay import _seeds, dataset
from forebay._copies import refuse_to_be_pickled
from forebay._front import make_front
from forebay._gather import gather, gathers
from forebay._journey import Journey, SampleError
from forebay._report import WorkerTraceback
from forebay._seeding import shares_rows
from forebay._state import Epoch
from forebay._tally import StreamTally
from forebay._worker import Assignment, Prepared
from forebay.collate import is_stock
from forebay.errors import WorkerFailed

if TYPE_CHECKING:
    from forebay.loader import DataLoader

__all__ = ["WorkersIterator"]


class WorkersIterator:
    """An epoch (or, with persistent workers, all epochs) of a loader."""

    def __init__(self, loader: "DataLoader", epoch: Epoch, tally: StreamTally) -> None:
        self._epoch = epoch
        self._tally = tally
        self._num_workers = loader.num_workers
        self._journey = Journey.of_loader(
            loader,
            make_front(),
            stream=loader.stream,
            auto_collation=loader.batch_sampler is not None,
            base_seed=epoch.base_seed,
            prepare=_prepare,
            standings=epoch.cursor.standings,
            seed=epoch.seed,
            epoch=epoch.epoch,
            shares_rows=shares_rows(loader, gathers=gathers(loader.dataset)),
        )
        self._begin()

    @property
    def ended(self) -> bool:
        """Whether there are no workers any more."""
        return self._journey.ended

    def begin(self, epoch: Epoch, tally: StreamTally) -> None:
        """Begins another epoch."""
        self._epoch, self._tally = epoch, tally
        self._begin()

    def _begin(self) -> None:
        epoch = self._epoch
        first = epoch.first_worker(self._num_workers)
        self._journey.begin(epoch.batches(), epoch.cursor, first, epoch=epoch.epoch, as_places=epoch.gives_places)

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        return len(self._epoch)

    def __getstate__(self) -> NoReturn:
        refuse_to_be_pickled()

    def __next__(self) -> Any:
        try:
            batch = self._journey.next()
        except SampleError as error:
            _reraise(error)
        self._tally.count(stacklevel=2)
        return batch

    def close(self) -> None:
        """Ends the workers."""
        journey = getattr(self, "_journey", None)
        if journey is not None:
            journey.close()

    def __del__(self) -> None:
        # Half-built iterators, forked children and the end of the interpreter come here too.
        with contextlib.suppress(Exception):
            self.close()


def _reraise(error: SampleError) -> NoReturn:
    """Raises a worker's exception itself, or, where it cannot travel, its traceback as a text."""
    report = error.report
    original = report.exception()
    if original is not None:
        original.__cause__ = WorkerTraceback(report.text)
    else:
        original = WorkerFailed(
            f"worker {error.worker} raised {report.type_name}, which cannot be pickled and unpickled, so it is not "
            "raised here itself (let its class be at the top level of a module, its constructor's arguments go to "
            f"super().__init__, and its attributes be picklable).\nOriginal {report.text}"
        )
    error.add_notes(original)
    raise original


def _prepare(assignment: Assignment) -> Prepared:
    """Makes a process a worker: seeds, and worker info."""
    _seeds.seed_worker(assignment.base_seed, assignment.worker_id)
    _tell(assignment, assignment.epoch)
    return Prepared(
        make_front(),
        collates_natively=lambda: is_stock(assignment.collate_fn),
        gather=gather,
        tell_epoch=lambda epoch: _tell(assignment, epoch),
    )


def _tell(assignment: Assignment, epoch: int) -> None:
    """Sets what `get_worker_info` returns; torch's too, where the program has imported it: streams may ask that."""
    seed = _seeds.worker_seed(assignment.base_seed, assignment.worker_id)
    info = dataset.WorkerInfo(assignment.worker_id, assignment.num_workers, seed, assignment.dataset, epoch)
    dataset.set_worker_info(info)
    module: Any = sys.modules.get("torch.utils.data._utils.worker")
    if module is not None:
        kind: Any = module.WorkerInfo
        if assignment.seed is not None:
            kind = type("WorkerInfo", (kind,), {"epoch": epoch})
        module._worker_info = kind(  # noqa: SLF001 - torch has no public way
            id=info.id, num_workers=info.num_workers, seed=info.seed, dataset=info.dataset
        )
