"""A worker's exception on its way to the trainer: as much of it as can travel, and where it happened."""

import contextlib
import pickle
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from forebay._engine import Worker
from forebay.errors import EngineError, SharedMemoryError

__all__ = ["MAX_SHORT_BYTES", "Report", "WorkerTraceback", "pack", "send", "shorten", "unpack"]

MAX_SHORT_BYTES = 8 * 1024
"""A report shortened to this always finds room, whatever the memory budget."""


class WorkerTraceback(Exception):
    """A traceback of another process, shown as the cause of the exception that came from there."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker tells about an exception.

    Attributes:
        text: the traceback as Python prints it.
        type_name: the name of the exception's type.
        type_pickle: the type, pickled; None when it cannot be.
        exception_pickle: the exception itself, pickled; None when it cannot be.
        index: the index whose sample was being made, as `repr`; None when it happened elsewhere.
        notes: what else the worker knows about its cause, a sentence each.
        task: what the worker was at, for a message.
        end: how it ended its worker, a clause; None if the worker goes on.
    """

    text: str
    type_name: str
    type_pickle: bytes | None
    exception_pickle: bytes | None
    index: str | None
    notes: tuple[str, ...] = ()
    task: str | None = None
    end: str | None = None

    def exception_type(self) -> type[BaseException] | None:
        """The exception's type, or None when it cannot be had here."""
        found = _loaded(self.type_pickle)
        return found if isinstance(found, type) and issubclass(found, BaseException) else None

    def exception(self) -> BaseException | None:
        """The exception itself, or None when it cannot be had here."""
        found = _loaded(self.exception_pickle)
        return found if isinstance(found, BaseException) else None


def pack(error: BaseException, index: str | None = None, notes: Iterable[str] = (), task: str | None = None) -> Report:
    """Reports `error`, with its traceback, causes and notes."""
    name = type(error).__qualname__
    end = None if isinstance(error, Exception) else _end(error)
    return Report(_text(error), name, _dumped(type(error)), _dumped(error), index, tuple(notes), task, end)


def send(worker: Worker, report: Report) -> None:
    """Sends a report in the place of the batch that `worker` is making, shortened if there is no room."""
    try:
        worker.fail(pickle.dumps(report))
    except (SharedMemoryError, EngineError):
        worker.fail(pickle.dumps(shorten(report)))


def shorten(report: Report) -> Report:
    """The same report within `MAX_SHORT_BYTES`: the end of the text is what says most."""
    name = report.type_name[:200]
    text = f"{name}, of whose text there is room for the end only: ...{report.text[-MAX_SHORT_BYTES // 4 :]}"
    notes = tuple(note[:400] for note in report.notes[:2])
    return Report(text, name, None, None, _cut(report.index), notes, _cut(report.task), _cut(report.end))


def unpack(data: bytes) -> Report:
    """The report that a worker sent."""
    report = pickle.loads(data)
    if not isinstance(report, Report):
        raise EngineError(
            f"a worker sent {type(report)} instead of a report of what went wrong in it; this is a fault of Forebay: "
            "please report it"
        )
    return report


def _cut(text: str | None) -> str | None:
    return None if text is None else text[:200]


def _end(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"sys.exit({'' if error.code is None else repr(error.code)[:100]}) was called"
    return f"{type(error).__qualname__} was raised"


def _text(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception as fault:  # noqa: BLE001 - a user's exception may refuse to be shown in any way it likes
        return f"{type(error).__qualname__} (it cannot be shown: {type(fault).__qualname__})\n"


def _dumped(value: Any) -> bytes | None:
    # A user's exception may refuse to be pickled in any way it likes; its text travels in any case.
    with contextlib.suppress(Exception):
        return pickle.dumps(value)
    return None


def _loaded(data: bytes | None) -> Any:
    if data is None:
        return None
    # ... or to be unpickled, for example when its constructor wants more than its arguments.
    with contextlib.suppress(Exception):
        return pickle.loads(data)
    return None
