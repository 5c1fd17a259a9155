"""What a loader reads from: datasets, and what a dataset may ask about the worker it runs in."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

__all__ = ["Dataset", "IterableDataset", "Subset", "WorkerInfo", "get_worker_info", "is_stream"]

_T_co = TypeVar("_T_co", covariant=True)


class Dataset(Generic[_T_co]):
    """A collection read by index.

    Inheriting is optional: a loader takes any object with `__getitem__` and, for the default samplers,
    `__len__`. A dataset that reads many samples at once better than one by one adds
    `__getitems__(indices) -> list`, which is then called once per batch.

    Example:
        >>> class Squares(Dataset[int]):
        ...     def __len__(self) -> int:
        ...         return 10
        ...
        ...     def __getitem__(self, index: int) -> int:
        ...         return index * index
        >>> Squares()[3]
        9
    """

    # `Any`: the indices are whatever the sampler yields. There is no `__len__`, because a default
    # that raises would also break `list(dataset)`.
    def __getitem__(self, index: Any) -> _T_co:
        """Returns the sample at `index`."""
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")


class IterableDataset(Dataset[_T_co], Iterable[_T_co]):
    """A stream of samples without indices.

    Each worker reads a copy of its own, from the first sample to the last. So that every sample comes once, `__iter__`
    asks `get_worker_info` which part is this worker's. A batch has samples of one worker only: the last batch of every
    worker may be short, and `drop_last` leaves each of them out.

    Example:
        >>> class Countdown(IterableDataset[int]):
        ...     def __init__(self, start: int) -> None:
        ...         self.start = start
        ...
        ...     def __iter__(self) -> Iterator[int]:
        ...         worker = get_worker_info()
        ...         first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        ...         return iter(range(self.start - first, 0, -step))
        >>> list(Countdown(3))
        [3, 2, 1]
    """

    def __iter__(self) -> Iterator[_T_co]:
        """Returns a new pass over the samples."""
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")


def is_stream(dataset: object) -> bool:
    """Whether a dataset is read by iteration: an `IterableDataset` (torch's too), or one that can only be iterated.

    Example:
        >>> is_stream(IterableDataset()), is_stream([1, 2]), is_stream(iter([1, 2]))
        (True, False, True)
    """
    # torch's class has to be known too, but nothing can be an instance of it before torch is imported.
    torch_data = sys.modules.get("torch.utils.data")
    torch_class = getattr(torch_data, "IterableDataset", IterableDataset)
    if isinstance(dataset, (IterableDataset, torch_class)):
        return True
    by_index = hasattr(dataset, "__getitem__") or hasattr(dataset, "__getitems__")
    return isinstance(dataset, Iterable) and not by_index


class Subset(Dataset[_T_co]):
    """The samples of another dataset at chosen indices.

    A subclass that overrides `__getitem__` must override `__getitems__` as well, since loaders prefer
    the latter.

    Args:
        dataset: the whole dataset.
        indices: position in the subset to index in the whole.

    Raises:
        NotImplementedError: when a subclass overrides `__getitem__` alone.

    Example:
        >>> subset = Subset("abcdef", [4, 0])
        >>> len(subset), subset[0], subset.__getitems__([1, 0])
        (2, 'e', ['a', 'e'])
    """

    # `Any`: every object with `__getitem__` will do, a plain list or a NumPy array too.
    def __init__(self, dataset: Any, indices: Sequence[Any]) -> None:
        self.dataset = dataset
        self.indices = indices
        methods = ("__getitem__", "__getitems__")
        overridden = [name for name in methods if getattr(type(self), name) is not getattr(Subset, name)]
        if overridden == ["__getitem__"]:
            raise NotImplementedError(
                f"{type(self).__name__} overrides __getitem__ but not __getitems__. Loaders call the latter "
                "with all indices of a batch, so it would bypass the override. For example, add:\n\n"
                "def __getitems__(self, indices):\n"
                "    return [self[index] for index in indices]"
            )

    def __getitem__(self, index: Any) -> _T_co:
        """Returns one sample; a list of positions goes to the whole dataset as one list."""
        if isinstance(index, list):
            positions = cast("list[int]", index)
            return cast("_T_co", self.dataset[[self.indices[position] for position in positions]])
        return cast("_T_co", self.dataset[self.indices[index]])

    def __getitems__(self, indices: Sequence[int]) -> list[_T_co]:
        """Returns the samples at several positions, in one call where the whole dataset can."""
        chosen = [self.indices[index] for index in indices]
        bulk: Callable[[list[Any]], list[_T_co]] | None = getattr(self.dataset, "__getitems__", None)
        if callable(bulk):
            return bulk(chosen)
        return [self.dataset[index] for index in chosen]

    def __len__(self) -> int:
        """Returns the number of chosen indices."""
        return len(self.indices)


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a dataset can know about the worker that runs it.

    Attributes:
        id: number of this worker, from 0.
        num_workers: number of workers of the loader.
        seed: the base seed of the epoch plus `id`; `random` was seeded with it.
        dataset: the dataset object this worker reads.
        epoch: the number of the epoch: what `set_epoch` said, or how many began before.
    """

    id: int
    num_workers: int
    seed: int
    dataset: Any
    epoch: int = 0


_worker_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Returns the description of the current worker, or None outside of workers.

    Example:
        >>> get_worker_info() is None
        True
    """
    return _worker_info


def set_worker_info(info: WorkerInfo | None) -> None:
    """Sets what `get_worker_info` returns. Called by a worker when it starts and when it ends."""
    global _worker_info  # noqa: PLW0603  (one worker per process)
    _worker_info = info
