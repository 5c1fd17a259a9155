"""The iterator of a torch loader without workers: batches are made where they are used."""

from typing import Any

import torch
from torch.utils.data.dataloader import _DatasetKind, _SingleProcessDataLoaderIter

from forebay import _ledger
from forebay.torch._gather import GatheringFetcher

__all__ = ["InlineIterator"]


class InlineIterator(_SingleProcessDataLoaderIter):
    """One epoch of a loader without workers.

    An instance of torch's own class, because libraries ask for that.
    """

    _account: _ledger.Account | None = None

    def __init__(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        super().__init__(loader)
        self._profile_name = f"enumerate(DataLoader)#{_SingleProcessDataLoaderIter.__name__}.__next__"
        if self._dataset_kind == _DatasetKind.Map:
            self._dataset_fetcher = GatheringFetcher(
                self._dataset, self._auto_collation, self._collate_fn, self._drop_last
            )

    def __next__(self) -> Any:
        # Torch's own also compares what an iterable dataset gives with what its length promised, and begins again.
        told: Any = self._IterableDataset_len_called
        indices: Any = self._sampler_iter
        if told is not None or indices is None or torch.autograd._profiler_enabled():  # type: ignore[attr-defined]
            return super().__next__()
        batch = self._next_data()  # type: ignore[no-untyped-call]
        self._num_yielded += 1
        return batch

    def __del__(self) -> None:
        if self._account is not None:
            self._account.finish(self)
