"""Serving torchdata's `StatefulDataLoader`, where a program has imported it: this module never does.

Its class stays as it is, with its constructor, its samplers (whose order for a seed is not torch's) and the moments at
which it draws. Only the iterators that it makes are ours, and so are the states that it asks them for.
"""

import functools
import sys
import weakref
from typing import Any

from forebay.torch._serving import fall_back, iterator_of
from forebay.torch._state import KEY, State, check_no_resume, loaded

__all__ = ["give_back", "serve", "serve_imported"]

_MODULE = "torchdata.stateful_dataloader.stateful_dataloader"
_CLASS = "StatefulDataLoader"

_get_own_iterator: Any = None
"""The method of torchdata's class that ours stands in for."""


def serve_imported() -> None:
    """Serves the class of torchdata, if that is imported."""
    kind = getattr(sys.modules.get(_MODULE), _CLASS, None)
    if kind is not None:
        serve(kind)


def serve(kind: Any) -> None:
    """Has Forebay serve the instances of `kind`, if that is torchdata's loader, and of all classes derived from it."""
    global _get_own_iterator  # noqa: PLW0603 - a program has one torchdata
    if (kind.__module__, kind.__qualname__) == (_MODULE, _CLASS) and kind._get_iterator is not _get_iterator:
        _get_own_iterator = kind._get_iterator
        kind._get_iterator = _get_iterator


def give_back() -> None:
    """Undoes `serve`, unless somebody else has changed the class since."""
    kind = getattr(sys.modules.get(_MODULE), _CLASS, None)
    if kind is not None and kind._get_iterator is _get_iterator:
        kind._get_iterator = _get_own_iterator


def _get_iterator(self: Any) -> Any:
    """Takes the place of the method of torchdata's class."""
    state = self.next_iter_state
    if state is not None and KEY not in state:
        fall_back(self, "a state that torchdata's own iterator took")
        return _get_own_iterator(self)
    self._bookmark = None
    self._resume = None if state is None else loaded(self, state)
    iterator: Any = iterator_of(self)
    if iterator is None:
        check_no_resume(self)
        return _get_own_iterator(self)
    self._resume = self.next_iter_state = None
    # What torchdata's loader asks of its iterators. Ours begins the epoch after a finished one by itself.
    iterator._finished = False
    iterator.state_dict = functools.partial(_state_of, weakref.proxy(iterator), _without_iterator(self))
    return iterator


def _state_of(iterator: Any, loader: Any) -> State:
    told: State = iterator._bookmark.describe(loader)
    return told


def _without_iterator(loader: Any) -> Any:
    """The same loader to ask. The loader itself would not be freed, nor its workers, while its iterator had it."""
    twin = object.__new__(type(loader))
    vars(twin).update(vars(loader), _iterator=None, _bookmark=None)
    return twin
