"""A worker's exception on its way to the trainer: as much of it as can travel, and where it happened."""

import contextlib
import pickle
import traceback
from dataclasses import dataclass
from typing import Any

__all__ = ["MAX_SHORT_BYTES", "Report", "pack", "shorten", "unpack"]

MAX_SHORT_BYTES = 8 * 1024
"""A report shortened to this always finds room, whatever the memory budget."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker tells about an exception.

    Attributes:
        text: the traceback as Python prints it.
        type_name: the name of the exception's type.
        type_pickle: the type, pickled; None when it cannot be.
        exception_pickle: the exception itself, pickled; None when it cannot be.
        index: the index whose sample was being made, as `repr`; None when it happened elsewhere.
    """

    text: str
    type_name: str
    type_pickle: bytes | None
    exception_pickle: bytes | None
    index: str | None

    def exception_type(self) -> type[BaseException] | None:
        """The exception's type, or None when it cannot be had here."""
        found = _loaded(self.type_pickle)
        return found if isinstance(found, type) and issubclass(found, BaseException) else None

    def exception(self) -> BaseException | None:
        """The exception itself, or None when it cannot be had here."""
        found = _loaded(self.exception_pickle)
        return found if isinstance(found, BaseException) else None


def pack(error: BaseException, index: str | None) -> Report:
    """Reports `error`, with its traceback, causes and notes."""
    text = "".join(traceback.format_exception(error))
    return Report(text, type(error).__qualname__, _dumped(type(error)), _dumped(error), index)


def shorten(report: Report) -> Report:
    """The same report within `MAX_SHORT_BYTES`: the end of the text is what says most."""
    name = report.type_name[:200]
    text = f"{name}, of whose text there is room for the end only: ...{report.text[-MAX_SHORT_BYTES // 4 :]}"
    return Report(text, name, None, None, (report.index or "")[:200])


def unpack(data: bytes) -> Report:
    """The report that a worker sent."""
    report = pickle.loads(data)
    if not isinstance(report, Report):
        raise TypeError(f"a worker sent {type(report)} instead of a report")
    return report


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
