"""The iterator of a torch loader without workers: batches are made where they are used."""

from typing import Any

import torch
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from forebay import _ledger

__all__ = ["InlineIterator"]


class InlineIterator(_SingleProcessDataLoaderIter):
    """One epoch of a loader without workers.

    An instance of torch's own class, because libraries ask for that.
    """

    _account: _ledger.Account | None = None

    def __init__(self, loader: torch.utils.data.DataLoader[Any]) -> None:
        super().__init__(loader)

    def __del__(self) -> None:
        if self._account is not None:
            self._account.finish(self)
