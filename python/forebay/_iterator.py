"""Iterators of the NumPy front whose batches are made by worker processes."""

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn, Self

from forebay import _seeds, dataset
from forebay._copies import refuse_to_be_pickled
from forebay._front import make_front
from forebay._gather import gather
from forebay._journey import Journey, SampleError
from forebay._report import WorkerTraceback
from forebay._tally import StreamTally
from forebay._worker import Assignment, Prepared
from forebay.collate import is_stock
from forebay.errors import WorkerFailed

if TYPE_CHECKING:
    from forebay.loader import DataLoader

__all__ = ["WorkersIterator"]


class WorkersIterator:
    """An epoch (or, with persistent workers, all epochs) of a loader."""

    def __init__(self, loader: "DataLoader", tally: StreamTally) -> None:
        self._length = loader.index_sampler
        indices = iter(loader.index_sampler)
        self._tally = tally
        self._journey = Journey.of_loader(
            loader,
            make_front(),
            stream=loader.stream,
            auto_collation=loader.batch_sampler is not None,
            base_seed=_seeds.draw_base_seed(loader.generator),
            prepare=_prepare,
        )
        self._journey.begin(indices)

    @property
    def ended(self) -> bool:
        """Whether there are no workers any more."""
        return self._journey.ended

    def begin(self, indices: Iterator[Any], tally: StreamTally) -> None:
        """Begins another epoch."""
        self._tally = tally
        self._journey.begin(indices)

    def __iter__(self) -> Self:
        return self

    def __len__(self) -> int:
        return len(self._length)

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
    seed = _seeds.worker_seed(assignment.base_seed, assignment.worker_id)
    info = dataset.WorkerInfo(assignment.worker_id, assignment.num_workers, seed, assignment.dataset)
    dataset.set_worker_info(info)
    _tell_torch(info)
    return Prepared(make_front(), lambda: is_stock(assignment.collate_fn), gather)


def _tell_torch(info: dataset.WorkerInfo) -> None:
    """Tells torch's `get_worker_info` too, where the program has imported it: streams made for torch ask that."""
    module: Any = sys.modules.get("torch.utils.data._utils.worker")
    if module is not None:
        module._worker_info = module.WorkerInfo(  # noqa: SLF001 - torch has no public way
            id=info.id, num_workers=info.num_workers, seed=info.seed, dataset=info.dataset
        )
