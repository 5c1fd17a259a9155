"""Putting `forebay.torch.DataLoader` in the place of torch's, and torch's back."""

import copyreg
import sys
from collections.abc import Iterator
from typing import Any

import torch.utils.data
from torch.utils.data.dataloader import _BaseDataLoaderIter

from forebay import _ledger
from forebay._fallback import say_once
from forebay.torch import _torchdata
from forebay.torch._loader import DataLoader
from forebay.torch._serving import iterator_of
from forebay.torch._standing_in import stands_in_for
from forebay.torch._stock import StockDataLoader, get_stock_iterator
from forebay.torch._wrap import reduce_stock

__all__ = ["install", "uninstall"]

_rebound: list[tuple[dict[str, Any], str]] = []
"""Where a module had torch's class under a name, and has ours now."""

_begin_stock_iterator = _BaseDataLoaderIter.__init__


def install() -> None:
    """Rebinds what is torch's `DataLoader` by any module's name, and has Forebay serve its instances."""
    stands_in_for[DataLoader] = StockDataLoader
    StockDataLoader._get_iterator = _get_iterator  # type: ignore[method-assign]
    _BaseDataLoaderIter.__init__ = _begin_iterator  # type: ignore[method-assign]
    copyreg.pickle(StockDataLoader, reduce_stock)
    for namespace, name in _names_of(StockDataLoader):
        namespace[name] = DataLoader
        _rebound.append((namespace, name))
    DataLoader.__init_subclass__ = classmethod(_derived)  # type: ignore[assignment, arg-type]
    _torchdata.serve_imported()


def uninstall() -> None:
    """Makes every change undone that nobody else has changed again."""
    for namespace, name in _rebound:
        if namespace.get(name) is DataLoader:
            namespace[name] = StockDataLoader
    _rebound.clear()
    if StockDataLoader._get_iterator is _get_iterator:
        StockDataLoader._get_iterator = get_stock_iterator  # type: ignore[method-assign]
    if _BaseDataLoaderIter.__init__ is _begin_iterator:
        _BaseDataLoaderIter.__init__ = _begin_stock_iterator  # type: ignore[method-assign]
    if copyreg.dispatch_table.get(StockDataLoader) is reduce_stock:
        del copyreg.dispatch_table[StockDataLoader]
    stands_in_for.pop(DataLoader, None)
    if "__init_subclass__" in vars(DataLoader):
        del DataLoader.__init_subclass__
    _torchdata.give_back()


def _names_of(value: object) -> Iterator[tuple[dict[str, Any], str]]:
    """Where modules have `value`. Asks no module for an attribute: some would load something, or raise."""
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("forebay."):
            continue
        try:
            namespace = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue  # what a program puts among the modules need not be one
        for name, found in list(namespace.items()):
            if found is value:
                yield namespace, name


def _derived(cls: type[DataLoader[Any]], **options: Any) -> None:
    """Sees every class that is derived from ours: torchdata's is, if it comes after us."""
    super(DataLoader, cls).__init_subclass__(**options)
    _torchdata.serve(cls)


def _get_iterator(self: torch.utils.data.DataLoader[Any]) -> _BaseDataLoaderIter:
    """Takes the place of the stock class's method."""
    iterator = iterator_of(self)
    return get_stock_iterator(self) if iterator is None else iterator


def _begin_iterator(self: _BaseDataLoaderIter, loader: Any) -> None:
    """Takes the place of the constructor of all torch's iterators: tells of those that were made without asking us."""
    if not hasattr(type(self), "_account") and not _ledger.is_expected(loader):
        kind = f"{type(self).__module__}.{type(self).__qualname__}"
        reason = f"{type(loader).__qualname__}, which makes iterators of its own ({kind})"
        _ledger.fall_back(loader, reason)
        if getattr(loader, "num_workers", 0) > 0:
            say_once(f"forebay.torch.DataLoader does not serve {reason}: they are used as they are")
    _begin_stock_iterator(self, loader)
