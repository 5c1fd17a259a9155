"""Whether two batches are the same: bit for bit, in type, in memory layout, and in what they share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Failure:
    """An exception in a batch's place."""

    error: Exception

    @property
    def text(self) -> tuple[type, str, str]:
        """Its type, and the ends of its text; between them are file names and line numbers."""
        lines = str(self.error).strip().splitlines() or [""]
        return type(self.error), lines[0], lines[-1]


def assert_same(ours: Any, theirs: Any) -> None:
    """Fails, naming the place, unless the two cannot be told apart."""
    _Walk().same(ours, theirs, "batch")


class _Walk:
    def __init__(self) -> None:
        self._partners: dict[tuple[str, int], tuple[str, int]] = {}
        self._held: list[Any] = []
        self._extents: list[tuple[str, range, range]] = []

    def same(self, ours: Any, theirs: Any, place: str) -> None:
        if isinstance(ours, Failure) and isinstance(theirs, Failure):
            assert ours.text == theirs.text, place
            return
        assert type(ours) is type(theirs), f"{place}: {ours!r} for {theirs!r}"
        if self._immutable(ours):
            # repr tells -0.0 from 0.0 and is the same for two nans.
            assert repr(ours) == repr(theirs), place
            return
        if self._paired("object", id(ours), id(theirs), place, held=(ours, theirs)):
            return
        self._same_inside(ours, theirs, place)

    @staticmethod
    def _immutable(value: Any) -> bool:
        return value is None or type(value) in {bool, int, float, complex, str, bytes, type(Ellipsis), range}

    def _paired(self, kind: str, ours: int, theirs: int, place: str, held: tuple[Any, Any]) -> bool:
        """Whether the two were met before; fails when only one was, or with another partner."""
        mine, yours = (f"our {kind}", ours), (f"their {kind}", theirs)
        known = mine in self._partners or yours in self._partners
        if known:
            assert self._partners.get(mine) == yours, f"{place}: shares a {kind} that its twin does not"
            assert self._partners.get(yours) == mine, f"{place}: does not share a {kind} that its twin does"
        self._partners[mine], self._partners[yours] = yours, mine
        self._held.append(held)
        return known

    def _same_inside(self, ours: Any, theirs: Any, place: str) -> None:
        if isinstance(ours, torch.Tensor):
            self._same_tensor(ours, theirs, place)
            if ours.is_nested:
                return  # its attributes name its ragged dimension differently in every process
        elif isinstance(ours, np.ndarray):
            self._same_array(ours, theirs, place)
        elif isinstance(ours, Mapping):
            assert [repr(key) for key in ours] == [repr(key) for key in theirs], place
            for key, twin in zip(ours, theirs, strict=True):
                self.same(ours[key], theirs[twin], f"{place}[{key!r}]")
        elif isinstance(ours, (list, tuple)):
            assert len(ours) == len(theirs), place
            for number, pair in enumerate(zip(ours, theirs, strict=True)):
                self.same(*pair, f"{place}[{number}]")
        elif isinstance(ours, (torch.UntypedStorage, torch.TypedStorage)):
            assert list(ours) == list(theirs), place
        elif not hasattr(ours, "__dict__") and not hasattr(type(ours), "__slots__"):
            assert repr(ours) == repr(theirs), place
        for name in self._attributes(ours):
            assert hasattr(theirs, name), f"{place}.{name}"
            self.same(getattr(ours, name), getattr(theirs, name), f"{place}.{name}")

    @staticmethod
    def _attributes(value: Any) -> list[str]:
        if isinstance(value, type) or (callable(value) and not isinstance(value, torch.nn.Module)):
            return []
        slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ())]
        return [*getattr(value, "__dict__", {}), *(name for name in slots if hasattr(value, name))]

    def _same_tensor(self, ours: torch.Tensor, theirs: torch.Tensor, place: str) -> None:
        for name in ("dtype", "layout", "device", "requires_grad", "is_leaf", "is_nested"):
            assert getattr(ours, name) == getattr(theirs, name), f"{place}.{name}"
        assert (ours.is_conj(), ours.is_neg()) == (theirs.is_conj(), theirs.is_neg()), place
        assert ours.is_nested or ours.shape == theirs.shape, f"{place}.shape"
        if ours.is_nested:
            pairs = zip(ours.unbind(), theirs.unbind(), strict=True)
            for number, (mine, yours) in enumerate(pairs):
                assert _bits(mine) == _bits(yours), f"{place}[{number}]"
        elif ours.layout is torch.strided:
            assert _bits(ours) == _bits(theirs), f"{place}: {ours} for {theirs}"
            # The strides of no elements mean nothing.
            if ours.numel():
                assert ours.stride() == theirs.stride(), f"{place}.stride"
                self._same_neighbours(_extent(ours), _extent(theirs), place)
        else:
            assert _bits(ours.to_dense()) == _bits(theirs.to_dense()), place

    def _same_neighbours(self, ours: range, theirs: range, place: str) -> None:
        """Fails unless this tensor overlaps the same tensors as its twin does, at the same distance."""
        for other, mine, yours in self._extents:
            assert _overlap(ours, mine) == _overlap(theirs, yours), f"{place} and {other}: one pair shares memory"
            if _overlap(ours, mine):
                assert ours.start - mine.start == theirs.start - yours.start, f"{place} and {other}"
        self._extents.append((place, ours, theirs))

    def _same_array(self, ours: np.ndarray, theirs: np.ndarray, place: str) -> None:
        assert ours.dtype == theirs.dtype, f"{place}.dtype"
        assert ours.shape == theirs.shape, f"{place}.shape"
        assert not ours.size or ours.strides == theirs.strides, f"{place}.strides"
        assert ours.flags.writeable == theirs.flags.writeable, f"{place}.flags.writeable"
        if ours.dtype.hasobject:
            self.same(ours.tolist(), theirs.tolist(), place)
        elif ours.dtype.char in "gG":  # their bytes have holes
            assert np.array_equal(ours, theirs), place
        else:
            assert ours.tobytes() == theirs.tobytes(), place


def _extent(tensor: torch.Tensor) -> range:
    """The addresses from a tensor's first byte to its last."""
    steps = sum((count - 1) * stride for count, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return range(tensor.data_ptr(), tensor.data_ptr() + (steps + 1) * tensor.element_size())


def _overlap(one: range, other: range) -> bool:
    return max(one.start, other.start) < min(one.stop, other.stop)


def _bits(tensor: torch.Tensor) -> bytes:
    plain = tensor.detach().as_subclass(torch.Tensor)
    if plain.is_quantized:
        plain = plain.int_repr()
    plain = plain.resolve_conj().resolve_neg().contiguous()
    if not plain.numel():
        return b""
    count = math.prod(plain.shape) * plain.element_size()
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes()[:count]
