"""Random generators that a dataset holds. A worker gets them as they are, so that all workers draw equal numbers.

Seeding a worker reaches the global streams only. Looking for others runs no code of the user's, and costs little
whatever the dataset holds.
"""

import random
import sys
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from types import BuiltinFunctionType, FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any, cast

import numpy as np

from forebay.errors import EqualGeneratorsWarning

__all__ = ["held_generators", "warn_of_equal_generators"]

_MOST_OBJECTS = 500
_MOST_ENTRIES = 50
"""Of each list, tuple and dict: what its first entries do not hold, the others hardly do."""
_DEEPEST = 10
_MOST_NAMED = 3

_LEAVES = (
    *(str, bytes, int, float, complex, type(None), np.ndarray),
    *(ModuleType, BuiltinFunctionType, type),
    random.SystemRandom,  # it has no state
)

_AGREED = ("datasets.",)
"""Packages whose datasets hold equal generators on purpose: by them all workers agree on who reads which shard."""

_examined: weakref.WeakSet[Any] = weakref.WeakSet()
"""The loaders whose datasets have been looked at."""


def warn_of_equal_generators(loader: Any, *, stacklevel: int) -> None:
    """Warns, once for each loader, of generators in its dataset that its workers would have in common.

    Args:
        loader: of either front, about to start its workers.
        stacklevel: which frame the warning points at; 1 is the caller of this function.
    """
    one_stream = loader.num_workers == 1 and loader.persistent_workers
    if one_stream or loader.worker_init_fn is not None:
        return
    try:
        found = {} if loader in _examined else held_generators(loader.dataset)
        _examined.add(loader)
    except Exception:  # noqa: BLE001 - a look that fails (at a dict that a thread changes) must not stop a loader
        return
    if found:
        seeding = getattr(loader, "_seeding", None)
        text = _text(found, loader.num_workers, persistent=loader.persistent_workers, seeded=seeding is not None)
        warnings.warn(text, EqualGeneratorsWarning, stacklevel=stacklevel + 1)


def held_generators(dataset: object) -> dict[str, type]:
    """The kinds of the random generators that a dataset holds, by the expressions that lead to them, nearest first.

    Looks into attributes, slots, class attributes, lists, tuples, dicts, closures, partials and bound methods, up to
    bounds. The global streams do not count.

    Example:
        >>> from forebay import Subset
        >>> class Noise:
        ...     def __init__(self):
        ...         self.transforms = [str, random.Random(0)]
        >>> held_generators(Subset(Noise(), [0]))
        {'dataset.dataset.transforms[1]': <class 'random.Random'>}
    """
    kinds = tuple(_kinds())
    # Kept alive by the walk, so that no number of theirs is used twice.
    seen: dict[int, object] = {id(stream): stream for stream in _global_streams()}
    layouts: dict[int, _Layout] = {}
    found: dict[str, type] = {}
    ahead: deque[tuple[int, str, object]] = deque([(0, "dataset", dataset)])
    while ahead:
        depth, path, value = ahead.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        kind = type(value)  # and never isinstance, which asks the object for its __class__
        layout = layouts.get(id(kind)) or layouts.setdefault(id(kind), _Layout(kind, kinds))
        if layout.generator is not None:
            found[path] = layout.generator
        elif depth < _DEEPEST:
            room = max(0, _MOST_OBJECTS - len(seen) - len(ahead))
            parts = ((depth + 1, path + step, part) for step, part in layout.parts(value))
            ahead.extend(islice((part for part in parts if not issubclass(type(part[2]), layout.leaves)), room))
    return found


_mro = type.__dict__["__mro__"].__get__
_class_dict = type.__dict__["__dict__"].__get__
"""What a class holds, past any `__getattribute__` of its metaclass."""


class _Layout:
    """Where objects of one type keep what they hold. Found and read without running code of the user's."""

    def __init__(self, kind: type, generators: tuple[type, ...]) -> None:
        self.generator = next((generator for generator in generators if issubclass(kind, generator)), None)
        """The kind of generator that such an object is, if it is one."""
        home = _class_dict(kind).get("__module__")
        agreed = type(home) is str and home.startswith(_AGREED)
        self.leaves: tuple[type, ...] = (*_LEAVES, *generators) if agreed else _LEAVES
        """What of such an object's parts is not looked at."""
        self._kind = kind
        self._dict: Any = None
        self._slots: list[tuple[str, Any]] = []
        self._shared: list[tuple[str, object]] = []
        for base in _mro(kind):
            members: dict[str, object] = _class_dict(base)
            for name, member in members.items():
                member_kind = type(member)
                if member_kind is MemberDescriptorType:
                    self._slots.append((f".{name}", member))
                elif member_kind is GetSetDescriptorType and name == "__dict__":
                    self._dict = self._dict or member
                elif issubclass(member_kind, generators):
                    self._shared.append((f".{name}", member))

    def parts(self, value: object) -> Iterator[tuple[str, object]]:
        """What an object of this type holds, each with the step that leads there."""
        if self._kind is FunctionType:
            yield from _of_closure(cast("FunctionType", value))
            return
        yield from self._shared
        if self._dict is not None:
            attributes: dict[str, object] = self._dict.__get__(value)
            yield from ((f".{name}", part) for name, part in islice(attributes.items(), _MOST_OBJECTS))
        for step, slot in self._slots:
            try:
                part = slot.__get__(value)
            except AttributeError:
                continue  # not assigned yet
            yield step, part
        yield from self._entries(value)

    def _entries(self, value: Any) -> Iterator[tuple[str, object]]:
        # By the built-in types' own methods, since a subclass may have others.
        bases = _mro(self._kind)
        entries: Iterable[object] = ()
        if list in bases:
            entries = list[object].__iter__(value)
        elif tuple in bases:
            entries = tuple[object, ...].__iter__(value)
        yield from ((f"[{place}]", entry) for place, entry in enumerate(islice(entries, _MOST_ENTRIES)))
        if dict in bases:
            for key, entry in islice(dict[object, object].items(value), _MOST_ENTRIES):
                yield f"[{key!r}]" if type(key) in {str, int} else "[...]", entry


def _of_closure(function: FunctionType) -> Iterator[tuple[str, object]]:
    for place, cell in enumerate(function.__closure__ or ()):
        try:
            yield f".__closure__[{place}].cell_contents", cell.cell_contents
        except ValueError:
            continue  # empty


def _kinds() -> dict[type, tuple[str, str]]:
    """The kinds of generators, with their names and what makes one of a worker's seed. Torch's, if torch is there."""
    kinds: dict[type, tuple[str, str]] = {
        np.random.Generator: ("numpy.random.Generator", "numpy.random.default_rng(info.seed)"),
        np.random.RandomState: ("numpy.random.RandomState", "numpy.random.RandomState(info.seed % 2**32)"),
        random.Random: ("random.Random", "random.Random(info.seed)"),
    }
    torch_generator = getattr(sys.modules.get("torch"), "Generator", None)
    if torch_generator is not None:
        kinds[torch_generator] = ("torch.Generator", "torch.Generator().manual_seed(info.seed)")
    return kinds


def _global_streams() -> list[object]:
    """The streams behind the functions of `random`, `numpy.random` and `torch`, which are seeded in every worker."""
    functions: list[Any] = [random.random, np.random.random]
    return [
        *(getattr(function, "__self__", None) for function in functions),
        getattr(sys.modules.get("torch"), "default_generator", None),
    ]


def _text(found: dict[str, type], num_workers: int, *, persistent: bool, seeded: bool) -> str:
    kinds = _kinds()
    named = [(path, *kinds[kind]) for path, kind in islice(found.items(), _MOST_NAMED)]
    held = ", ".join(f"{path} (a {name})" for path, name, _ in named)
    more = f" and {len(found) - len(named)} more" if len(found) > len(named) else ""
    where = [f"in all {num_workers} workers"] * (num_workers > 1) + ["in every epoch"] * (not persistent)
    cures = "\n".join(f"        info.{path} = {cure}" for path, _, cure in named)
    better = (
        "Its numbers then still depend on which worker makes a sample. With a seed, draw from forebay.sample_rng() or "
        "from the global streams instead: then nobody can tell.\n\n"
    )
    return (
        f"the dataset holds random generators of its own: {held}{more}. Only the global streams are seeded in a "
        f"worker; what a dataset holds is copied as it is, so it gives the same numbers {' and '.join(where)}. Make it "
        "anew in every worker, from the worker's own seed:\n\n"
        "    def worker_init_fn(worker_id):\n"
        "        info = get_worker_info()  # of forebay, or of torch.utils.data\n"
        f"{cures}\n\n{better * seeded}"
        "If no worker uses it, ignore this warning (forebay.errors.EqualGeneratorsWarning)."
    )
