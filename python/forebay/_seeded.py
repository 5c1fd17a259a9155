"""Samplers whose order is a function of a seed and an epoch: what they all have in common, and the plain shuffle."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from operator import length_hint
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from forebay._sampler import Sampler
from forebay._seeds import checked_epoch, checked_seed, integer
from forebay.errors import ConfigError, StateError

__all__ = [
    "ArrayOrder",
    "Fingerprint",
    "Indices",
    "Order",
    "Pass",
    "Place",
    "SeededSampler",
    "ShuffleOrder",
    "ShuffleSampler",
    "SizedOrLength",
    "SubsetSampler",
    "digest_of",
    "integers_of",
    "length_of",
]

Indices: TypeAlias = npt.NDArray[np.int64]
Fingerprint: TypeAlias = dict[str, Any]
SizedOrLength: TypeAlias = Sized | int

_VERSION = 1
_HASHED_AT_ONCE = 1 << 17
_CHUNK = 4096  # indices held as Python objects at a time


class Order(ABC):
    """The order of one epoch: any part of it can be told alone, and it stays what it is."""

    @abstractmethod
    def __len__(self) -> int:
        """How many places it has."""

    @abstractmethod
    def at(self, places: Indices) -> Indices:
        """The indices at these places. Costs what is asked for, wherever it lies."""

    def indices(self, start: int | None = None, stop: int | None = None) -> Indices:
        """The indices at the places `start:stop`, as a slice has them."""
        start, stop, _ = slice(start, stop).indices(len(self))
        return self._part(start, max(start, stop))

    def passed(self, given: int) -> int:
        """The position in a state, after so many indices have been given out."""
        return given

    def _part(self, start: int, stop: int) -> Indices:
        return self.at(np.arange(start, stop, dtype=np.int64))


class ShuffleOrder(Order):
    """`forebay._engine.Shuffle` as an order."""

    def __init__(self, length: int, seed: int, epoch: int, part: int = 0) -> None:
        from forebay._engine import Shuffle  # not every system has the engine

        self._length = length
        self._shuffle = Shuffle(length, seed, epoch, part)

    def __len__(self) -> int:
        return self._length

    def at(self, places: Indices) -> Indices:
        indices = np.empty(len(places), np.int64)
        self._shuffle.pick(np.ascontiguousarray(places), indices)
        return indices

    def _part(self, start: int, stop: int) -> Indices:
        indices = np.empty(stop - start, np.int64)
        self._shuffle.fill(start, indices)
        return indices


class ArrayOrder(Order):
    """An order that lies in memory."""

    def __init__(self, indices: npt.NDArray[Any]) -> None:
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def at(self, places: Indices) -> Indices:
        return self._indices[places].astype(np.int64, copy=False)


class SubsetOrder(Order):
    """An order over places of a subset."""

    def __init__(self, subset: npt.NDArray[Any], order: Order) -> None:
        self._subset, self._order = subset, order

    def __len__(self) -> int:
        return len(self._order)

    def at(self, places: Indices) -> Indices:
        return self._subset[self._order.at(places)].astype(np.int64, copy=False)

    def _part(self, start: int, stop: int) -> Indices:
        return self._subset[self._order.indices(start, stop)].astype(np.int64, copy=False)


class Place(NamedTuple):
    """Where an epoch stands."""

    epoch: int
    position: int


@dataclass(slots=True)
class Pass:
    """One way through the order of an epoch."""

    epoch: int
    order: Order
    drawn: int = 0
    """Up to which place indices have been drawn."""
    chunk: Iterator[int] = field(default_factory=lambda: iter(()))
    """Of these, what has not been given out."""

    @property
    def place(self) -> Place:
        return Place(self.epoch, self.order.passed(self.drawn - length_hint(self.chunk)))

    def chunks(self) -> Iterator[Iterator[int]]:
        while self.drawn < len(self.order):
            indices = self.order.indices(self.drawn, self.drawn + _CHUNK).tolist()
            self.drawn, self.chunk = self.drawn + len(indices), iter(indices)
            yield self.chunk


class SeededSampler(Sampler[int], ABC):
    """Base of the samplers whose order is a function of (seed, epoch), and of what they are made of.

    PyTorch's loader, `torch.utils.data.BatchSampler`, Accelerate and Lightning take them as they take any sampler.

    **Epochs.** `epoch` is the epoch that the next pass reads: 0 at first. A pass begins when its first index is asked
    for, not at `iter()`: it takes `epoch`, and moves it on by one, whether it is then read to its end or left.
    `set_epoch(n)` says otherwise. A pass that has begun reads its own epoch to the end, whatever is set, and whoever
    else reads.

    **States.** `state_dict()` is about the pass that was begun last; after `set_epoch` or `load_state_dict` about the
    pass that will begin. After `load_state_dict`, the next pass of that epoch begins where the state was taken. If
    nothing was left of the epoch, the next pass is of the epoch after it, unless `set_epoch` names the one that is
    over: then the pass is empty.

    Args:
        seed: from 0 up to but not including 2**64.

    Attributes:
        seed: as given.
        epoch: which epoch the next pass reads.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = checked_seed(seed)
        self.epoch = 0
        self._latest: Pass | Place | None = None
        """The pass that was begun last; in a copy, where it stood. None if the next pass is what counts."""
        self._resume: Place | None = None
        self._kept: tuple[tuple[int, int], Order] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Returns the number of indices of one pass."""

    @abstractmethod
    def fingerprint(self) -> Fingerprint:
        """What determines the orders of this sampler, fit for JSON: equal for samplers of equal orders."""

    @abstractmethod
    def _order(self, epoch: int) -> Order:
        """Makes the order of an epoch."""

    def order(self, epoch: int | None = None) -> Order:
        """The order of an epoch, None for that of the next pass. It does not change when a data source grows."""
        key = (self.epoch if epoch is None else checked_epoch(epoch), len(self))
        if self._kept is None or self._kept[0] != key:
            self._kept = key, self._order(key[0])
        return self._kept[1]

    def indices(self, start: int | None = None, stop: int | None = None) -> Indices:
        """The indices at the places `start:stop` of the next pass's epoch, as a slice has them.

        Costs what is asked for, wherever it lies: nothing before it is drawn.
        """
        return self.order().indices(start, stop)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch of the next pass.

        Raises:
            ConfigError: when it is no number from 0 up to but not including 2**64.
        """
        self.epoch = checked_epoch(epoch)
        self._latest = None

    def __iter__(self) -> Iterator[int]:
        """Returns a pass, which begins when it is asked for its first index."""
        return chain.from_iterable(self._chunks())

    def _chunks(self) -> Iterator[Iterator[int]]:
        begun = self._latest = self._next_pass()
        self.epoch, self._resume = begun.epoch + 1, None
        yield from begun.chunks()

    def _next_pass(self) -> Pass:
        resume = self._resume
        return self._pass_from(self.epoch, resume.position if resume and resume.epoch == self.epoch else 0)

    def _pass_from(self, epoch: int, position: int) -> Pass:
        order = self.order(epoch)
        return Pass(epoch, order, min(position, len(order)))

    def _is_over(self, place: Place) -> bool:
        return place.position >= len(self.order(place.epoch))

    def _standing(self) -> Place:
        latest = self._latest or self._next_pass()
        return latest if isinstance(latest, Place) else latest.place

    def state_dict(self) -> dict[str, Any]:
        """Where this sampler stands: a few numbers, fit for JSON."""
        return {"version": _VERSION, **self._standing()._asdict(), "fingerprint": self.fingerprint()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on where a state was taken, with the next pass.

        Raises:
            StateError: when the state is none of such a sampler's, damaged, of a later version, or of a sampler with
                another fingerprint; the text says what differs.
        """
        place = _checked_state(state_dict, self.fingerprint())
        self._resume, self._latest = place, None
        self.epoch = place.epoch + self._is_over(place)

    def __getstate__(self) -> dict[str, Any]:
        """A sampler can be pickled and copied; its passes stay here."""
        return {**vars(self), "_kept": None, "_latest": self._latest and self._standing()}


class ShuffleSampler(SeededSampler):
    """Yields each index once, in an order that is computed place by place.

    It starts in microseconds and takes no memory, however many indices there are.

    Args:
        data_source: anything with a length, which is asked for anew in every pass, or the length.
        seed: from 0 up to but not including 2**64.

    Raises:
        ConfigError: when the seed or the length is out of range.

    Example:
        >>> sampler = ShuffleSampler(10**9, seed=7)
        >>> len(sampler.indices(900_000_000, 900_000_004))
        4
        >>> sorted(ShuffleSampler("abcd"))
        [0, 1, 2, 3]
    """

    def __init__(self, data_source: SizedOrLength, *, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.data_source = data_source
        length_of(data_source)

    def __len__(self) -> int:
        """Returns the length of the data source."""
        return length_of(self.data_source)

    def fingerprint(self) -> Fingerprint:
        """Kind, length and seed."""
        return {"kind": "ShuffleSampler", "length": len(self), "seed": self.seed}

    def _order(self, epoch: int) -> Order:
        return ShuffleOrder(len(self), self.seed, epoch)


class SubsetSampler(SeededSampler):
    """Yields given indices, each once, shuffled or as they are given.

    Args:
        subset: the indices: any sequence of integers. An array is not copied, and must not change.
        shuffle: whether every epoch has an order of its own.
        seed: from 0 up to but not including 2**64.

    Raises:
        ConfigError: when the indices are no integers in one dimension, or the seed is out of range.

    Example:
        >>> sorted(SubsetSampler([7, 3, 5], seed=7))
        [3, 5, 7]
        >>> list(SubsetSampler(range(3), shuffle=False))
        [0, 1, 2]
    """

    def __init__(self, subset: Sequence[int] | npt.NDArray[Any], *, shuffle: bool = True, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.subset = integers_of(subset, "subset")
        self.shuffle = bool(shuffle)
        self._digest: str | None = None

    def __len__(self) -> int:
        """Returns the number of indices."""
        return len(self.subset)

    def fingerprint(self) -> Fingerprint:
        """Kind, length, seed, whether it is shuffled, and a hash of the indices, which is made once."""
        self._digest = self._digest or digest_of(self.subset, np.int64)
        return {
            "kind": "SubsetSampler",
            "length": len(self),
            "seed": self.seed,
            "shuffle": self.shuffle,
            "subset": self._digest,
        }

    def _order(self, epoch: int) -> Order:
        if not self.shuffle:
            return ArrayOrder(self.subset)
        return SubsetOrder(self.subset, ShuffleOrder(len(self), self.seed, epoch))


def integers_of(sequence: Any, name: str) -> npt.NDArray[Any]:
    """A sequence of integers as an array; an array is not copied.

    Raises:
        ConfigError: when it is none, or has several dimensions.
    """
    array = np.asarray(sequence)
    if not array.size and array.ndim == 1:
        return array.astype(np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ConfigError(
            f"{name} should be a sequence of integers, but got an array of {array.dtype} with shape {array.shape}"
        )
    return array


def digest_of(array: npt.NDArray[Any], kind: type[np.generic]) -> str:
    """BLAKE2b with 8 bytes, of the numbers as little-endian `kind`: equal for equal numbers of any type."""
    digest = blake2b(digest_size=8)
    for start in range(0, len(array), _HASHED_AT_ONCE):
        part = array[start : start + _HASHED_AT_ONCE]
        digest.update(np.ascontiguousarray(part, np.dtype(kind).newbyteorder("<")).tobytes())
    return digest.hexdigest()


def length_of(data_source: object) -> int:
    """The length that was given, or that of what was given.

    Raises:
        ConfigError: when it is neither a length nor has one.
    """
    if isinstance(data_source, Sized):
        return len(data_source)
    length = integer(data_source)
    if length is None or not 0 <= length < 2**63:
        raise ConfigError(
            f"data_source should have a length, or be one (an int from 0 on), but got data_source={data_source!r}"
        )
    return length


def _checked_state(state: object, fingerprint: Fingerprint) -> Place:
    """Epoch and position of a state, if it fits the sampler with this fingerprint."""
    found, theirs = _mapping(state), None
    if found is not None and "version" in found:
        theirs = _mapping(found.get("fingerprint"))
    if found is None or theirs is None:
        raise StateError(f"this is not the state of a sampler with a seed, as state_dict() gives it: {state!r:.200}")
    if found["version"] != _VERSION:
        raise StateError(
            f"this state of a sampler has version {found['version']}, and this Forebay reads versions up to "
            f"{_VERSION}: update Forebay"
        )
    for name in sorted({*fingerprint, *theirs}, key=lambda name: (name != "kind", name)):
        if fingerprint.get(name) != theirs.get(name):
            raise StateError(
                f"this state does not fit this sampler: {name} is {fingerprint.get(name)!r}, but {theirs.get(name)!r} "
                "in the state. Load a state into a sampler made as the one it was taken of; or load none, and say with "
                "set_epoch which epoch is next"
            )
    return Place(_checked_number(found, "epoch"), _checked_number(found, "position"))


def _mapping(thing: object) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", thing) if isinstance(thing, Mapping) else None


def _checked_number(state: Mapping[str, Any], name: str) -> int:
    number = state.get(name)
    if type(number) is not int or not 0 <= number < 2**64:
        raise StateError(
            f"this state of a sampler is damaged ({name} is {number!r}): load one that is as state_dict() gave it"
        )
    return number
