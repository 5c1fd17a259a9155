"""What was served in this process, and by whom: told at the first iteration of a loader, and when the process ends."""

import atexit
import contextlib
import os
import weakref
from typing import Any

from forebay import _log

__all__ = ["Account", "begin", "fall_back", "is_empty", "is_expected", "silence", "summary", "switch_off"]


class Account:
    """Loaders that were served in one way."""

    def __init__(self) -> None:
        self.loaders = 0
        # By address: a user's loader need not be hashable. Who dies leaves, so an address that comes again is new.
        self._seen: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._live: weakref.WeakSet[Any] = weakref.WeakSet()
        self._delivered: int = 0

    def meet(self, loader: Any) -> None:
        """Counts a loader that is new."""
        if self._seen.get(id(loader)) is not loader:
            self.loaders += 1
            with contextlib.suppress(TypeError):  # it has __slots__: counted whenever it comes
                self._seen[id(loader)] = loader

    def begin(self, iterator: Any) -> None:
        """Watches an iterator that may be there still when the process ends."""
        self._live.add(iterator)

    def finish(self, iterator: Any) -> None:
        """Adds what an iterator has delivered. Uses no global name: it may come at the end of the interpreter."""
        self._delivered += iterator._num_yielded - iterator._num_before  # noqa: SLF001 - torch's iterators count anyway
        iterator._num_yielded = iterator._num_before = 0  # noqa: SLF001

    @property
    def batches(self) -> int:
        """How many batches its iterators have delivered."""
        live = [iterator._num_yielded - iterator._num_before for iterator in self._live]  # noqa: SLF001
        return self._delivered + sum(map(int, live))


class _Ledger:
    """The accounts of a process."""

    def __init__(self) -> None:
        self.workers = Account()
        self.inline = Account()
        self.fallbacks: dict[str, Account] = {}
        self.said: set[str] = set()
        self.silent = False
        self.expected: int | None = None
        """The address of the loader for which torch's own iterator is about to be made."""

    def say(self, text: str) -> None:
        if text not in self.said and not self.silent:
            self.said.add(text)
            _log.logger.info(text)


_ledger = _Ledger()


def _forget() -> None:
    global _ledger
    before, _ledger = _ledger, _Ledger()
    _ledger.said, _ledger.silent = before.said, before.silent


def silence() -> None:
    """Called in a worker: what it loads is not told."""
    _ledger.silent = True


def begin(loader: Any, iterator: Any) -> None:
    """Enters an iterator of ours that begins, and gives it its account, to be told when an epoch is over."""
    account = _ledger.workers if loader.num_workers > 0 else _ledger.inline
    iterator._account = account  # noqa: SLF001
    account.meet(loader)
    account.begin(iterator)
    _ledger.say(f"serves {describe(loader)}")


def switch_off(loader: Any) -> None:
    """Enters that FOREBAY=off has torch's own iterator made."""
    fall_back(loader, "FOREBAY=off")
    _ledger.say("FOREBAY=off: torch's own iterators serve")


def fall_back(loader: Any, reason: str) -> None:
    """Enters an iterator of torch's own that is about to be made."""
    _ledger.expected = id(loader)
    _ledger.fallbacks.setdefault(reason, Account()).meet(loader)


def is_expected(loader: Any) -> bool:
    """Whether torch's own iterator is about to be made for this loader, after `fall_back`."""
    expected, _ledger.expected = _ledger.expected, None
    return expected == id(loader)


def is_empty() -> bool:
    """Whether no loader was used."""
    return not (_ledger.workers.loaders or _ledger.inline.loaders or _ledger.fallbacks)


def summary() -> list[str]:
    """What was served, in one or two lines."""
    parts: list[str] = []
    if _ledger.workers.loaders:
        parts.append(f"{_counted(_ledger.workers)} came from Forebay's workers")
    if _ledger.inline.loaders:
        parts.append(f"{_counted(_ledger.inline)} were made in this process (num_workers=0)")
    lines = ["; ".join(parts)] if parts else []
    if _ledger.fallbacks:
        count = sum(account.loaders for account in _ledger.fallbacks.values())
        lines.append(f"torch's own iterators served {_loaders(count)}: {'; '.join(_ledger.fallbacks)}")
    return lines


def describe(loader: Any) -> str:
    """A loader in short: what it is, of what, and how."""
    batches = f"batch_size={loader.batch_size}"
    if loader.batch_size is None and loader.batch_sampler is not None:
        batches = f"batch_sampler={type(loader.batch_sampler).__name__}"
    return f"{type(loader).__name__}({type(loader.dataset).__name__}, {batches}, num_workers={loader.num_workers})"


def _counted(account: Account) -> str:
    return f"{account.batches} batch{'' if account.batches == 1 else 'es'} of {_loaders(account.loaders)}"


def _loaders(count: int) -> str:
    return f"{count} loader{'' if count == 1 else 's'}"


def _tell_summary() -> None:
    if not _ledger.silent:
        for line in summary():
            _log.logger.info(line)


os.register_at_fork(after_in_child=_forget)
atexit.register(_tell_summary)
