"""What in an object cannot be pickled, and where: a path such as `dataset.transforms[1].fn`.

Pickle names the type that it fails at, and no place. So the object is pickled once more, watched: what pickle looked at
last is the culprit. Its path is then searched for by identity. Both are bounded, neither raises, and nothing is kept.
"""

import contextlib
import functools
import multiprocessing.context
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from multiprocessing.reduction import ForkingPickler
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

__all__ = ["in_batch", "in_luggage", "of"]

_MOST_PICKLED = 2_000_000
_MOST_SEARCHED = 100_000
"""Objects looked at: a few seconds at most."""

_CONTAINERS = (dict, list, tuple, deque, set, frozenset)
_WITHOUT_PARTS = (type(None), bool, int, float, complex, str, bytes, bytearray, type, FunctionType, ModuleType)


def in_luggage(luggage: Mapping[str, object]) -> str | None:
    """What cannot be sent to a process that is being started, as "dataset.fn is a lambda".

    Args:
        luggage: what is sent, by name.
    """
    for name, value in luggage.items():
        with _as_if_starting_a_process():
            culprit = of(ForkingPickler, value)
        if culprit is not None:
            path = _path(value, culprit)
            return f"{name}{path} is {_what(culprit)}" if path is not None else f"{name} holds {_what(culprit)}"
    return None


def in_batch(culprit: object, samples: Any, indices: Any, batch: object) -> tuple[int | None, str | None]:
    """The place of the sample that holds `culprit`, or None, and words that tell where it is, or None.

    Args:
        culprit: what `of` found.
        samples: the samples of which the batch is made.
        indices: theirs; None for samples of a stream.
        batch: what `collate_fn` made of the samples.
    """
    if culprit is None:
        return None, None
    if _is(samples, Sequence) and (indices is None or _is(indices, Sequence)):
        for place, sample in enumerate(samples):
            path = _path(sample, culprit)
            if path is not None:
                which = f"its sample {place}" if indices is None else f"the sample of index {indices[place]!r}"
                return place, f"{which} {_holds(path, culprit)}"
    path = _path(batch, culprit)
    return None, None if path is None else f"what is to be sent {_holds(path, culprit)}"


def of(pickler: Any, value: object) -> object:
    """The object at which pickling `value` with this class of pickler fails; None when it does not, or too late."""
    kind: Any = type("Watching", (_Watching, pickler), {})
    watching = kind(_Nowhere())
    try:
        watching.dump(value)
    except (_TooMany, RecursionError, MemoryError):
        return None
    except Exception:  # noqa: BLE001 - whatever it is, the object at which it came is what is looked for
        return watching.last
    return None


class _TooMany(Exception):
    pass


class _Watching:
    """Notes what a pickler looks at."""

    last: object = None
    count = 0

    def persistent_id(self, value: object) -> None:
        """Called by pickle for every object before anything else; None lets it go on."""
        self.last = value
        self.count += 1
        if self.count > _MOST_PICKLED:
            raise _TooMany


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class _Sending:
    """What multiprocessing's locks, arrays and connections ask for while a process is being started."""

    DupFd = int

    def duplicate_for_child(self, descriptor: int) -> int:
        return descriptor


@contextlib.contextmanager
def _as_if_starting_a_process() -> Generator[None]:
    """Lets everything be pickled that may be pickled only to start a process."""
    theirs: Any = multiprocessing.context
    before = theirs.get_spawning_popen()
    theirs.set_spawning_popen(_Sending())
    try:
        yield
    finally:
        theirs.set_spawning_popen(before)


def _path(root: object, culprit: Any) -> str | None:
    """How to get from `root` to `culprit` (or to an instance of it), in Python; the shortest way."""
    waiting = deque([(root, "")])
    seen = {id(root): root}  # held, because a number is an object's name only while it lives
    while waiting:
        value, path = waiting.popleft()
        if value is culprit or type(value) is culprit:
            return path
        if len(path) > 500:
            continue
        with contextlib.suppress(Exception):  # a user's object may refuse to be looked at
            for step, part in _parts(value):
                if id(part) not in seen and len(seen) < _MOST_SEARCHED:
                    seen[id(part)] = part
                    waiting.append((part, path + step))
    return None


def _parts(value: Any) -> Iterator[tuple[str, object]]:
    """What pickling `value` pickles too, each with the step that leads there."""
    if _is(value, _WITHOUT_PARTS):
        return
    if _is(value, _CONTAINERS):
        yield from _elements(value)
    elif _is(value, (MethodType, BuiltinFunctionType)):
        yield ".__self__", value.__self__
    elif _is(value, functools.partial):
        yield from ((f".{name}", getattr(value, name)) for name in ("func", "args", "keywords"))
    elif _is(value, BaseException):
        yield ".args", value.args
    yield from _state(value)


def _elements(value: Any) -> Iterator[tuple[str, object]]:
    if _is(value, dict):
        yield from ((f"[{_short(key)}]", part) for key, part in value.items())
        yield from ((f" (its key {_short(key)})", key) for key in value if not isinstance(key, _WITHOUT_PARTS))
    elif _is(value, (list, tuple, deque)):
        yield from ((f"[{position}]", part) for position, part in enumerate(value))
    else:
        yield from ((" (an element of it)", part) for part in value)


def _state(value: Any) -> Iterator[tuple[str, object]]:
    if isinstance(value.__class__.__reduce__, FunctionType):
        # Somebody's own way; those of arrays and tensors, which copy much, are none of Python's functions.
        yield from ((f".__reduce__()[{position}]", part) for position, part in enumerate(value.__reduce__()))
    state = value.__getstate__()
    members = state if _is(state, tuple) and len(state) == 2 else (state,)
    for names in members:  # attributes, and those in slots
        if _is(names, dict):
            yield from ((f".{name}", part) for name, part in names.items())
        elif names is not None:
            yield ".__getstate__()", names


def _short(key: object) -> str:
    return repr(key)[:60]


def _is(value: Any, kinds: Any) -> bool:
    # Without a checker's narrowing: what a user's container holds stays Any.
    return isinstance(value, kinds)


def _holds(path: str, culprit: object) -> str:
    return f"holds {_what(culprit)} at {path}" if path else f"is {_what(culprit)}"


def _what(culprit: object) -> str:
    """A culprit, in words."""
    kind = culprit if isinstance(culprit, type) else type(culprit)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(culprit, FunctionType):
        code = culprit.__code__
        place = f"{culprit.__module__}.{culprit.__qualname__}, {code.co_filename}:{code.co_firstlineno}"
        if culprit.__name__ == "<lambda>":
            return f"a lambda ({place})"
        return f"a local function ({place})" if _is_local(culprit) else f"a function not found by its name ({place})"
    if isinstance(culprit, type) or _is_local(kind):
        return f"an instance of the {'local ' if _is_local(kind) else ''}class {name}"
    return f"a {name}"


def _is_local(named: Any) -> bool:
    return "<locals>" in named.__qualname__
