"""When a process has no descriptor left: how many it has, which, and what to do about it."""

import contextlib
import errno
import os
import re
import resource
from collections import Counter
from collections.abc import Generator
from pathlib import Path

__all__ = ["explained", "make_sure_of", "shortage"]

_OPEN = Path("/proc/self/fd")
_MOST_ASKED = 65_536
_MOST_SHOWN = 4
_SHORTAGES = (errno.EMFILE, errno.ENFILE)
_KINDS = {"socket": "socket", "pipe": "pipe", "anon_inode": "event of the kernel"}


@contextlib.contextmanager
def explained(who: str, cure: str) -> Generator[None]:
    """Adds a note to an exception of the block that is due to a lack of descriptors.

    Args:
        who: the process, as the note's subject.
        cure: what to do, but for raising the limit.
    """
    try:
        yield
    except Exception as error:
        note = shortage(error, who, cure)
        if note is not None:
            error.add_note(f"[forebay] {note}")
        raise


def shortage(error: BaseException, who: str, cure: str) -> str | None:
    """Where the descriptors are, if `error` or what led to it is due to a lack of them; else None.

    Needs no descriptor itself.
    """
    number = _number(error)
    if number is None:
        return None
    open_ones = _open()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ", ".join(f"{count} x {name}" for name, count in Counter(open_ones).most_common(_MOST_SHOWN))
    limit = f"its limit is {_limit(soft)}, which may be raised up to {_limit(hard)}"
    whole = "" if number == errno.EMFILE else "; it is the whole system that has no more (/proc/sys/fs/file-max)"
    return (
        f"{who} has {len(open_ones)} descriptors open ({limit}){whole}. Most open: {most}. {cure}, or "
        "raise the limit (ulimit -n)."
    )


def make_sure_of(count: int) -> None:
    """Raises the system's error unless there is room for `count` more descriptors."""
    held: list[int] = []
    try:
        held.extend(os.eventfd(0) for _ in range(count))
    finally:
        for descriptor in held:
            os.close(descriptor)


def _number(error: BaseException | None) -> int | None:
    """EMFILE or ENFILE, if an exception is that, was caused by that, or quotes its text."""
    for _ in range(10):
        if error is None:
            return None
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return error.errno
        with contextlib.suppress(Exception):  # whatever a user's exception does in __str__
            text = str(error)
            for number in _SHORTAGES:
                if os.strerror(number) in text:  # libraries in other languages quote it, as our engine does
                    return number
        error = error.__cause__ or error.__context__
    return None


def _open() -> list[str]:
    """What is open, by name; things without a path by their kind."""
    # Listing /proc/self/fd would need a descriptor. Asking for a number's name needs none.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    asked = _MOST_ASKED if soft == resource.RLIM_INFINITY else min(soft, _MOST_ASKED)
    names: list[str] = []
    for descriptor in range(asked):
        with contextlib.suppress(OSError):
            names.append(_name(str(_OPEN.joinpath(str(descriptor)).readlink())))
    return names


def _name(target: str) -> str:
    kind = re.match(r"(\w+):", target)
    return _KINDS.get(kind.group(1), target) if kind else target


def _limit(value: int) -> str:
    return "none" if value == resource.RLIM_INFINITY else str(value)
