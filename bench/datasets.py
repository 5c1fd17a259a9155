"""Samples that cost next to nothing to make, so that the hand-off is what is measured.

All samples of a batch are made beforehand; `__getitem__` only stamps the index into the start, the middle and
the end of every array. So each index has its own content, and a batch that is stale, torn or out of place is
seen when it is compared. A sample is stamped again one batch later. The trainer never sees that: forked workers
write to their own copies, and with 0 workers a batch has been copied by then.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset, get_worker_info

from cases import IMAGES

ROWS = 1_000_000
TOKENS = 16
TOKEN_FIELDS = ("input_ids", "attention_mask", "labels")

Array = np.ndarray[Any, Any]
Pool = list[tuple[Any, list[Array]]]
"""Samples, each with the places of its stamps."""


class Scalars(Dataset[int]):
    """The index itself."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        return index


class Stamped(Dataset[Any]):
    """The samples of a pool, over and over, each time with the index stamped into them."""

    def __init__(self, length: int, pool: Pool) -> None:
        self.length = length
        self.pool = pool

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        sample, stamps = self.pool[index % len(self.pool)]
        for stamp in stamps:
            stamp[...] = index
        return sample


class Labelled(Stamped):
    """Pairs of such a sample and a label."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return super().__getitem__(index), index


class Stream(IterableDataset[Any]):
    """The same samples one after the other, each from one worker."""

    def __init__(self, dataset: Stamped) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        return map(self.dataset.__getitem__, range(first, self.dataset.length, step))


def _stamps(array: Array) -> Array:
    words = array.reshape(-1).view(np.int64)
    return words[:: (words.size - 1) // 2]


@cache
def _images(dtype: type[np.generic], *, tensors: bool) -> Pool:
    random = np.random.default_rng(0)
    pool: Pool = []
    for _ in range(IMAGES):
        if dtype is np.uint8:
            image = random.integers(0, 256, (224, 224, 3), np.uint8)
        else:
            image = random.random((3, 224, 224), np.float32)
        pool.append((torch.from_numpy(image) if tensors else image, [_stamps(image)]))
    return pool


@cache
def _tokens(*, tensors: bool) -> Pool:
    random = np.random.default_rng(0)
    pool: Pool = []
    for _ in range(TOKENS):
        arrays = {name: random.integers(0, 50_000, 1024) for name in TOKEN_FIELDS}
        sample = {name: torch.from_numpy(array) if tensors else array for name, array in arrays.items()}
        pool.append((sample, [_stamps(array) for array in arrays.values()]))
    return pool


@cache
def _rows() -> torch.Tensor:
    return torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(0))


DATASETS: dict[str, Callable[[int], Dataset[Any]]] = {
    "scalars": Scalars,
    "tokens": lambda length: Stamped(length, _tokens(tensors=True)),
    "token-stream": lambda length: Stream(Stamped(length, _tokens(tensors=True))),
    "token-arrays": lambda length: Stamped(length, _tokens(tensors=False)),
    "uint8": lambda length: Stamped(length, _images(np.uint8, tensors=True)),
    "arrays": lambda length: Stamped(length, _images(np.uint8, tensors=False)),
    "float32": lambda length: Stamped(length, _images(np.float32, tensors=True)),
    "rows": lambda _: TensorDataset(_rows()),  # an epoch is longer than any window
    "pairs": lambda length: Labelled(length, _images(np.uint8, tensors=True)),
}


def stack_pairs(samples: Sequence[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """A `collate_fn` as users write them."""
    images, labels = zip(*samples, strict=True)
    return torch.stack(images), torch.tensor(labels)


COLLATES: dict[str, Callable[[Any], Any]] = {"stack_pairs": stack_pairs}
