"""Batches with tensors as bytes, for what the engine cannot describe itself.

Tensors are left out of the pickle and travel beside it. Those that share memory share it again on the other side: per
storage, the bytes between the first and the last one that any tensor of the batch uses are sent once.
"""

import io
import pickle
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.multiprocessing import reductions

from forebay._pickling import BatchPickler

__all__ = ["dump", "is_plain", "load"]

_LENGTH_BYTES = 8
_ALIGNMENT_BYTES = 16
"""The widest element. Blocks begin on a multiple of it, so tensors of different types on one storage stay aligned."""


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor, as a window on a memory block. `offset_bytes` counts from the block's first byte."""

    block: int
    dtype: torch.dtype
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset_bytes: int
    requires_grad: bool


@dataclass(slots=True)
class _Block:
    """The part of one storage that the batch uses."""

    storage: torch.UntypedStorage
    start: int = 0
    end: int = 0

    def include(self, start: int, end: int) -> None:
        if start < end:
            start -= start % _ALIGNMENT_BYTES
            self.start = start if self.start == self.end else min(self.start, start)
            self.end = max(self.end, end)


@dataclass(slots=True)
class _Blocks:
    blocks: list[_Block] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)

    def place(self, storage: torch.UntypedStorage) -> int:
        """The number of the block over `storage`. The block holds the storage, so its address stays its name."""
        key = storage._cdata
        if key not in self.places:
            self.places[key] = len(self.blocks)
            self.blocks.append(_Block(storage))
        return self.places[key]


class _Pickler(BatchPickler):
    """Leaves plain tensors and storages in this process's memory out of the pickle."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.table = _Blocks()
        self.views: list[_View] = []

    def registered(self) -> dict[type, Any]:
        """All but torch's own, which would send a descriptor for every storage."""
        registered = super().registered()
        return {kind: how for kind, how in registered.items() if how.__module__ != reductions.__name__}

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is torch.Tensor and is_plain(obj):
            return _take_tensor, (self._add(obj),)
        if isinstance(obj, torch.UntypedStorage) and obj.device.type == "cpu":
            return _take_storage, (self._add_storage(obj),)
        if isinstance(obj, torch.storage.TypedStorage) and obj._untyped_storage.device.type == "cpu":
            return _typed_storage, (obj._untyped_storage, obj.dtype)
        if isinstance(obj, torch.Tensor) and obj.device.type not in ("cpu", "meta"):
            reduce: Any = reductions.reduce_tensor  # memory of a device stays where it is
            return reduce(obj)
        return NotImplemented

    def _add(self, tensor: torch.Tensor) -> int:
        if tensor.requires_grad and not tensor.is_leaf:
            raise RuntimeError(
                "a tensor that is part of an autograd graph cannot be sent to another process: detach it first "
                "(tensor.detach())"
            )
        place = self.table.place(tensor.untyped_storage())
        start = int(tensor.storage_offset()) * tensor.element_size()
        steps = sum((count - 1) * stride for count, stride in zip(tensor.size(), tensor.stride(), strict=True))
        end = start + (steps + 1) * tensor.element_size() if tensor.numel() else start
        self.table.blocks[place].include(start, end)
        view = _View(place, tensor.dtype, tuple(tensor.size()), tensor.stride(), start, tensor.requires_grad)
        self.views.append(view)
        return len(self.views) - 1

    def _add_storage(self, storage: torch.UntypedStorage) -> int:
        place = self.table.place(storage)
        self.table.blocks[place].include(0, storage.nbytes())
        return place


def is_plain(tensor: torch.Tensor) -> bool:
    """Whether the tensor is nothing but a window on ordinary memory."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_nested
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not tensor.is_conj()
        and not tensor.is_neg()
        and not tensor._backward_hooks
    )


def dump(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickles `value`; the inverse of `load`.

    Raises:
        UnpicklableError: when it cannot be pickled; its cause is pickle's own exception.
    """
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump_batch(value)
    blocks = pickler.table.blocks
    table = pickle.dumps((pickler.views, [block.start for block in blocks]), protocol=5)
    body = b"".join((len(table).to_bytes(_LENGTH_BYTES, "little"), table, file.getbuffer()))
    return body, [*map(_bytes_of, blocks), *pickler.buffers]


def _bytes_of(block: _Block) -> memoryview:
    whole = torch.empty(0, dtype=torch.uint8).set_(block.storage)
    used: Any = whole[block.start : block.end].numpy()
    return memoryview(used)


class _Arrivals:
    """The tensors of a batch that is being unpickled, by number."""

    def __init__(self, views: list[_View], starts: list[int], buffers: Sequence[Any]) -> None:
        self.views = views
        self.starts = starts
        self.blocks = [_block_of(buffer) for buffer in buffers]

    def tensor(self, number: int) -> torch.Tensor:
        view = self.views[number]
        tensor = torch.empty(0, dtype=view.dtype)
        offset_bytes = 0 if 0 in view.size else view.offset_bytes - self.starts[view.block]
        offset = offset_bytes // tensor.element_size()
        tensor.set_(self.blocks[view.block], offset, view.size, view.stride)
        return tensor.requires_grad_(view.requires_grad)


class _Unpickling(threading.local):
    """What is being unpickled by this thread: a stack, because unpickling can run code that unpickles."""

    def __init__(self) -> None:
        self.arrivals: list[_Arrivals] = []


_unpickling = _Unpickling()


def _block_of(buffer: Any) -> torch.UntypedStorage:
    if len(buffer) == 0:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    return torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()


def load(body: Any, buffers: Sequence[Any]) -> Any:
    """Unpickles what `dump` made; tensors and arrays in it stand on `buffers`."""
    view = memoryview(body)
    end = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    views, starts = pickle.loads(view[_LENGTH_BYTES:end])
    count = len(starts)
    _unpickling.arrivals.append(_Arrivals(views, starts, buffers[:count]))
    try:
        return pickle.loads(view[end:], buffers=buffers[count:])
    finally:
        _unpickling.arrivals.pop()


def _take_tensor(number: int) -> torch.Tensor:
    return _unpickling.arrivals[-1].tensor(number)


def _take_storage(place: int) -> torch.UntypedStorage:
    return _unpickling.arrivals[-1].blocks[place]


def _typed_storage(storage: torch.UntypedStorage, dtype: torch.dtype) -> torch.TypedStorage:
    make: Any = torch.TypedStorage
    typed: torch.TypedStorage = make(wrap_storage=storage, dtype=dtype, _internal=True)
    return typed
