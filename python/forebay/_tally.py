"""Whether a stream gives more than its length: told once asked, as PyTorch does."""

import warnings
from typing import Any

__all__ = ["StreamTally"]


class StreamTally:
    """Counts what an epoch gives, and warns when it is more than `len(loader)` was told before the epoch.

    Like PyTorch's, it compares the number of batches with the length of the dataset, so it is sure only where a sample
    is a batch; a stream that is read by several workers without sharding is found out there.

    Args:
        dataset: the stream.
        length_told: its length; None when nobody has asked for it.
        num_workers: how many workers read it.
    """

    def __init__(self, dataset: Any, length_told: int | None, num_workers: int) -> None:
        self._dataset = dataset
        self._length = length_told
        self._workers = num_workers
        self._count = 0

    def count(self, stacklevel: int) -> None:
        """One more; `stacklevel` as of `warnings.warn`, 1 being the caller."""
        if self._length is None:
            return
        self._count += 1
        if self._count <= self._length:
            return
        text = (
            f"Length of IterableDataset {self._dataset} was reported to be {self._length}"
            f"(when accessing len(dataloader)), but {self._count} samples have been fetched. "
        )
        if self._workers > 0:
            text += (
                "For multiprocessing data-loading, this could be caused by not properly configuring the "
                "IterableDataset replica at each worker: let __iter__ ask get_worker_info() which part is its own."
            )
        warnings.warn(text, stacklevel=stacklevel + 1)
