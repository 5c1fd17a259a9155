"""Who serves a loader: Forebay, or, where it cannot, torch's own iterators."""

import multiprocessing
import multiprocessing.process
from multiprocessing.context import BaseContext
from typing import Any

import torch
import torch.utils.data
from torch.utils.data.dataloader import _BaseDataLoaderIter
from torch.utils.data.datapipes.datapipe import IterDataPipe, MapDataPipe

from forebay import _ledger
from forebay._configuration import is_switched_on
from forebay._fallback import engine_is_missing, say_once
from forebay._option_types import check_attributes, check_sources
from forebay._seeding import not_without_engine

__all__ = ["fall_back", "iterator_of"]

_OLDEST_TORCH = (2, 10)
_FIRST_UNTESTED_TORCH = (2, 16)


def iterator_of(loader: torch.utils.data.DataLoader[Any]) -> _BaseDataLoaderIter | None:
    """Forebay's iterator for `loader`, or None where torch's own has to serve; that is said once.

    Raises:
        ConfigError: torch's own would have to serve a loader with a seed.
    """
    if not is_switched_on("FOREBAY"):
        _check_no_seed(loader, "programs with FOREBAY=off")
        _ledger.switch_off(loader)
        return None
    reason = _not_served(loader)
    if reason is not None:
        _check_no_seed(loader, reason)
        fall_back(loader, reason)
        return None
    iterator = _iterator_of(loader)
    _ledger.begin(loader, iterator)
    return iterator


def fall_back(loader: torch.utils.data.DataLoader[Any], reason: str) -> None:
    """Says once that torch's own iterator is about to be made for `loader`, and why."""
    _ledger.fall_back(loader, reason)
    if loader.num_workers > 0:
        say_once(f"forebay.torch.DataLoader does not serve {reason} yet: torch's own iterator does")


def _check_no_seed(loader: Any, what: str) -> None:
    seeding = getattr(loader, "_seeding", None)
    if seeding is not None:
        raise not_without_engine(seeding.seed, what)


def _iterator_of(loader: torch.utils.data.DataLoader[Any]) -> _BaseDataLoaderIter:
    if loader.num_workers == 0:
        from forebay.torch._inline import InlineIterator

        return InlineIterator(loader)
    check_sources(loader.dataset, loader.sampler, loader.batch_sampler)
    check_attributes(loader)
    loader.check_worker_number_rationality()
    from forebay.torch._iterator import WorkersIterator  # needs the engine, which not every system has

    return WorkersIterator(loader)


def _not_served(loader: torch.utils.data.DataLoader[Any]) -> str | None:
    """What about this loader the engine cannot do yet, or None."""
    if engine_is_missing():
        return "this operating system"
    if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
        return "datapipes"
    if not _starts_processes(loader.multiprocessing_context):
        return f"the multiprocessing context {loader.multiprocessing_context!r}"
    if not _OLDEST_TORCH <= _version(torch.__version__) < _FIRST_UNTESTED_TORCH:
        return f"torch {torch.__version__}"
    return None


def _starts_processes(context: BaseContext | None) -> bool:
    """Whether a context is of the kind that starts processes: some libraries pass one whose processes are threads."""
    kind = multiprocessing.Process if context is None else getattr(context, "Process", None)
    return isinstance(kind, type) and issubclass(kind, multiprocessing.process.BaseProcess)


def _version(text: str) -> tuple[int, int]:
    major, minor = text.split(".")[:2]
    return int(major), int(minor)
