"""Batches of datasets that are in memory as tensors or arrays: one gather, instead of a look-up for every sample.

Nothing is remembered from batch to batch, so whatever a program does to its dataset shows at once, as ever. Where
anything is not plain and torch's own, the batch is made in the ordinary way.
"""

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import StackDataset, Subset, TensorDataset, default_collate
from torch.utils.data._utils import fetch
from torch.utils.data._utils import worker as torch_worker

from forebay._gather import Otherwise, places_of
from forebay.torch._pickling import is_plain
from forebay.torch._places import Places
from forebay.torch._registry import is_stock_registry, is_watched

__all__ = ["Gather", "GatheringFetcher", "gather_places", "gathers"]

_DTYPES = frozenset(
    {
        torch.bool,
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64),
        *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
        *(torch.complex64, torch.complex128),
    }
)
_SCALARS = frozenset("?bBhHiIlqefdFD")
"""NumPy's element types whose scalars torch turns into a tensor of the same type."""
_EXACT_SCALARS = frozenset("?bBhHiIlqdD")
"""Those of which it keeps every bit; of the others, which it widens on the way, all but what tells two nans apart."""


class GatheringFetcher(fetch._MapDatasetFetcher):
    """Torch's fetcher of a map dataset, with a short cut."""

    @property
    def takes_places(self) -> bool:
        """Whether it is worth while to give it a batch's indices as an array."""
        return self.auto_collation and self.collate_fn is default_collate and gathers(self.dataset)

    def fetch(self, possibly_batched_index: Any) -> Any:
        """The batch at these indices."""
        batch = _gather(self.dataset, possibly_batched_index) if self._gathers() else None
        return super().fetch(possibly_batched_index) if batch is None else batch  # type: ignore[no-untyped-call]

    def fetch_places(self, places: Places) -> Any:
        """The batch at the indices in this array, of which the dataset learns as of a list of numbers."""
        batch = gather_places(self.dataset, places, self.collate_fn)
        return super().fetch(places.tolist()) if batch is None else batch  # type: ignore[no-untyped-call]

    def _gathers(self) -> bool:
        return self.takes_places and _stacks_here()


def gathers(dataset: Any) -> bool:
    """Whether such a dataset's batches may be gathered."""
    return type(dataset) in _PARTS


def gather_places(dataset: Any, places: Places, collate_fn: Any) -> Any:
    """The batch at the indices in this array, or None where it has to be made sample by sample."""
    if collate_fn is not default_collate or not gathers(dataset) or not _stacks_here():
        return None
    return _gather.at(dataset, places)


def _stacks_here() -> bool:
    """Whether torch would stack samples into ordinary memory: where there is a worker info, it does not."""
    return torch_worker._worker_info is None and is_stock_registry()


class Gather:
    """Makes batches as `default_collate` does, without making their samples.

    Args:
        most_row_bytes: of larger samples, batches are made in the ordinary way.

    Example:
        >>> Gather()(TensorDataset(torch.arange(6).reshape(3, 2)), [2, 0])
        [tensor([[4, 5],
                [0, 1]])]
    """

    def __init__(self, most_row_bytes: float = math.inf) -> None:
        self._most_row_bytes = most_row_bytes

    def __call__(self, dataset: Any, indices: Any) -> Any:
        """What `default_collate([dataset[index] for index in indices])` gives; None where only that itself can tell."""
        if type(dataset) not in _PARTS:
            return None
        try:
            return self.at(dataset, places_of(indices))
        except Otherwise:
            return None

    def at(self, dataset: Any, places: Places) -> Any:
        """The same, of indices in an array."""
        if is_watched():
            return None
        try:
            return self._batch(dataset, places)
        except (Otherwise, IndexError):
            return None

    def _batch(self, dataset: Any, places: Places) -> Any:
        part = _PARTS.get(type(dataset))
        if part is None or not _is_stock(dataset):
            raise Otherwise
        return part(self, dataset, places)

    def _of_tensor(self, tensor: torch.Tensor, places: Places) -> torch.Tensor:
        plain = tensor.dtype in _DTYPES and is_plain(tensor) and not tensor.requires_grad and not _has_names(tensor)
        if not plain or tensor.dim() == 0 or tensor.numel() == 0:
            raise Otherwise
        if math.prod(tensor.shape[1:]) * tensor.element_size() > self._most_row_bytes:
            raise Otherwise
        # Like `torch.stack`, in the order of axes, whatever order the samples have in memory.
        return torch.index_select(tensor, 0, torch.from_numpy(places))

    def _of_array(self, array: npt.NDArray[Any], places: Places) -> torch.Tensor:
        if array.ndim == 1:
            return _of_scalars(array, places)
        try:
            tensor = torch.from_numpy(array)
        except (TypeError, ValueError):  # an element type or a stride that torch has not; it shall say so itself
            raise Otherwise from None
        return self._of_tensor(tensor, places)

    def _of_tensors(self, dataset: TensorDataset, places: Places) -> list[torch.Tensor]:
        tensors: Any = dataset.tensors
        if type(tensors) not in (tuple, list) or not tensors:
            raise Otherwise
        return [self._batch(tensor, places) for tensor in tensors]

    def _of_subset(self, dataset: Subset[Any], places: Places) -> Any:
        chosen: Any = dataset.indices
        if type(chosen) is np.ndarray:
            if chosen.ndim != 1 or chosen.dtype != np.int64:
                raise Otherwise
            return self._batch(dataset.dataset, np.take(chosen, places))
        if type(chosen) not in (list, tuple, range):
            raise Otherwise
        return self._batch(dataset.dataset, places_of([*map(chosen.__getitem__, places.tolist())]))

    def _of_stack(self, dataset: StackDataset[Any], places: Places) -> Any:
        parts: Any = dataset.datasets
        if type(parts) is dict and parts:
            return {name: self._batch(part, places) for name, part in parts.items()}
        if type(parts) is tuple and parts:
            return [self._batch(part, places) for part in parts]
        raise Otherwise


def _has_names(tensor: torch.Tensor) -> bool:
    """Whether its axes have names, which older versions of torch have."""
    has_names = getattr(tensor, "has_names", None)
    return has_names is not None and has_names()


def _of_scalars(array: npt.NDArray[Any], places: Places) -> torch.Tensor:
    """The samples of an array of one dimension are no arrays, but NumPy's numbers."""
    kind = array.dtype.char
    if kind not in _SCALARS or not array.dtype.isnative:
        raise Otherwise
    numbers = np.take(np.asarray(array), places)
    if kind not in _EXACT_SCALARS and np.isnan(numbers).any():
        raise Otherwise
    return torch.from_numpy(numbers)


_PARTS: dict[type, Callable[[Gather, Any, Places], Any]] = {
    torch.Tensor: Gather._of_tensor,
    np.ndarray: Gather._of_array,
    np.memmap: Gather._of_array,
    TensorDataset: Gather._of_tensors,
    Subset: Gather._of_subset,
    StackDataset: Gather._of_stack,
}
"""What a dataset may consist of: these types, and no subclass of theirs."""


def _method(kind: type, name: str, package: Path) -> Any:
    """A method of `kind`; something that is equal to nothing, if it was replaced by code from elsewhere."""
    method = getattr(kind, name, None)
    code = getattr(method, "__code__", None)
    return method if code is None or package in Path(code.co_filename).parents else object()


def _stock_methods(kind: type) -> tuple[Any, Any]:
    package = Path(inspect.getfile(np if kind is np.memmap else torch)).parent
    return _method(kind, "__getitem__", package), _method(kind, "__getitems__", package)


_STOCK = {kind: _stock_methods(kind) for kind in _PARTS}

_gather = Gather()


def _is_stock(dataset: Any) -> bool:
    """Whether samples are got as the class's own package does it: nobody has replaced a method of it or its class."""
    one, many = _STOCK[type(dataset)]
    bulk = getattr(dataset, "__getitems__", None)
    return type(dataset).__getitem__ is one and getattr(bulk, "__func__", bulk) is many
