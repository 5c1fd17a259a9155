"""A dataset that cannot be unpickled in the worker it was sent to: an error like any other, not a dead worker.

`multiprocessing` unpickles a worker's arguments itself, before it calls `work`, and what that raises ends in
`sys.excepthook`. The seat is the first to arrive; so it leaves a hook there that tells the trainer.
"""

import sys
from types import TracebackType
from typing import Any

from forebay import _report
from forebay._engine import Seat, Worker
from forebay._front import make_front

__all__ = ["await_rest", "complete"]

_hook_before: list[Any] = []
"""What was in `sys.excepthook`, while something is awaited."""


def await_rest(seat: Seat, *, stream: bool) -> None:
    """Called when the seat is there: from now on an exception takes the place of all batches of this worker.

    Of a stream, which would go on for ever, it takes the place of an epoch's first.
    """

    def take_the_place_of_batches(
        _kind: type[BaseException], error: BaseException, _traceback: TracebackType | None
    ) -> None:
        complete()
        report = _report.pack(
            error,
            notes=["this happened while the dataset, collate_fn and worker_init_fn were unpickled in the worker"],
        )
        worker = Worker(make_front(), seat)
        epoch: int | None = None
        for _ in worker:
            if stream and worker.epoch == epoch:
                worker.end()
            else:
                epoch = worker.epoch
                _report.send(worker, report)

    _hook_before.append(sys.excepthook)
    sys.excepthook = take_the_place_of_batches


def complete() -> None:
    """Called when nothing is awaited any more. Does nothing in a forked worker, where nothing was."""
    while _hook_before:
        sys.excepthook = _hook_before.pop()
