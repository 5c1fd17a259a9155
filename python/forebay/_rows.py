"""Rows of one batch that several workers make, where nobody can tell who made a sample."""

from typing import Any, TypeAlias

from forebay._engine import Worker
from forebay._fetch import RowFetcher
from forebay.errors import SharedMemoryError

__all__ = ["make_rows"]

_Samples: TypeAlias = dict[int, Any]
"""By row."""


def make_rows(worker: Worker, fetcher: RowFetcher, indices: list[Any]) -> list[Any] | None:
    """Makes rows of the batch as long as some are left. None if another worker has still to finish one of its own.

    Else all samples, in order: those of other workers, too. A row whose sample could not be made, or cannot travel, is
    made again here, in its turn: so the exception of the first bad row is raised, as if one worker had made them all.
    """
    fetcher.current = None
    made: _Samples = {}
    failed: dict[int, tuple[BaseException, Any]] = {}
    for row in iter(worker.next_row, None):
        try:
            made[row] = fetcher.fetch_row(indices[row])
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything; it is raised in its turn
            failed[row] = error, fetcher.current
            worker.leave_rest()
            break
    others = _hand_in(worker, made)
    if others is None:
        failed.clear()  # their tracebacks have this frame, and it has the samples
        return None
    if len(made) == len(indices):
        return list(made.values())
    for samples in others:
        made.update(samples)
    return [
        made[row] if row in made else _made_now(fetcher, index, failed.pop(row, None))
        for row, index in enumerate(indices)
    ]


def _made_now(fetcher: RowFetcher, index: Any, failure: tuple[BaseException, Any] | None) -> Any:
    """The sample of a row that nobody has, unless making it has failed in this very process."""
    if failure is None:
        return fetcher.fetch_row(index)
    error, fetcher.current = failure  # where it happened
    try:
        raise error
    finally:
        del error, failure  # the traceback has this frame


def _hand_in(worker: Worker, made: _Samples) -> list[_Samples] | None:
    """Gives what was made away, if others are still at it; else what the others made."""
    try:
        others = worker.hand_in((list(made), list(made.values())) if made else None)
    except BaseException as error:  # noqa: BLE001 - the user's code may raise anything when it is pickled
        if not worker.shares_rows:  # all rows are done, and there was no memory for what others made of them
            return []
        if not isinstance(error, SharedMemoryError):
            worker.stop_helping()
        others = worker.hand_in(None)
    if others is None:
        return None
    return [dict(zip(*part, strict=True)) for part in others if part is not None]
