"""Batches of a dataset that is one array in memory: one gather, instead of a look-up for every sample."""

from operator import countOf
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Otherwise", "gather", "gathers", "places_of"]

_KINDS = (np.ndarray, np.memmap)
_EXTENDED = "gG"
"""Element types whose bytes have holes."""


class Otherwise(Exception):
    """A batch has to be made in the ordinary way: sample by sample."""


def gathers(dataset: Any) -> bool:
    """Whether `gather` looks at such a dataset at all."""
    return type(dataset) in _KINDS and not hasattr(dataset, "__getitems__")


def gather(dataset: Any, indices: Any) -> npt.NDArray[Any] | None:
    """What `default_collate([dataset[index] for index in indices])` gives, or None where only that itself can tell.

    Example:
        >>> gather(np.arange(6).reshape(3, 2), [2, 0])
        array([[4, 5],
               [0, 1]])
    """
    if not gathers(dataset) or not _has_plain_samples(dataset):
        return None
    try:
        return np.take(np.asarray(dataset), places_of(indices), axis=0)
    except (Otherwise, IndexError):
        return None


def places_of(indices: Any) -> npt.NDArray[np.int64]:
    """A batch's indices, if they are a list of integers of Python's own.

    Raises:
        Otherwise: they are anything else, which a dataset may treat in any way it likes.
    """
    if not _is_list(indices) or not indices or countOf(map(type, indices), int) != len(indices):
        raise Otherwise
    try:
        return np.fromiter(indices, np.int64, len(indices))
    except OverflowError:
        raise Otherwise from None


def _is_list(value: object) -> bool:
    return type(value) is list


def _has_plain_samples(array: npt.NDArray[Any]) -> bool:
    """Whether stacked samples of `array` are rows one after the other: memory in another order stays in that order."""
    if array.ndim == 0 or array.size == 0 or array.dtype.kind not in "biufc" or not array.dtype.isnative:
        return False
    return (
        array.dtype.char not in _EXTENDED and array.strides[1:] == _contiguous_strides(array.shape, array.itemsize)[1:]
    )


def _contiguous_strides(shape: tuple[int, ...], step: int) -> tuple[int, ...]:
    """The bytes from element to element, per axis, of an array without gaps whose elements take `step` bytes."""
    strides: list[int] = []
    for count in reversed(shape):
        strides.append(step)
        step *= count
    return tuple(reversed(strides))
