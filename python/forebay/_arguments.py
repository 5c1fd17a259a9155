"""The arguments of a loader: checked once, in torch's order and with torch's messages.

`check` is called by `forebay.DataLoader.__init__`; the two smaller checks also serve later, when the
multiprocessing context is replaced and when workers start.
"""

import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any, cast

import numpy as np

from forebay._option_types import check_option_types, check_sources
from forebay._seeds import GeneratorLike, as_generator
from forebay.collate import default_collate, default_convert
from forebay.dataset import is_stream
from forebay.errors import ConfigError
from forebay.sampler import BatchSampler, EndlessSampler, RandomSampler, SequentialSampler, ShuffleSampler

__all__ = ["Arguments", "check", "check_multiprocessing_context", "warn_of_too_many_workers"]

_DEFAULT_PREFETCH_FACTOR = 2


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a loader works with: arguments that fit together, defaults filled in.

    `batch_sampler` is None exactly when samples are handed out one by one; `batch_size` is None then, and
    also when the caller brought a batch sampler.
    """

    dataset: Any
    sampler: Iterable[Any]
    batch_sampler: Iterable[Sequence[Any]] | None
    batch_size: int | None
    drop_last: bool
    num_workers: int
    prefetch_factor: int | None
    persistent_workers: bool
    timeout: float
    collate_fn: Callable[[Any], Any]
    worker_init_fn: Callable[[int], object] | None
    multiprocessing_context: BaseContext | None
    generator: np.random.Generator | None
    in_order: bool


def check(
    dataset: Any,
    *,
    batch_size: int | None = 1,
    shuffle: bool | None = None,
    sampler: Iterable[Any] | None = None,
    batch_sampler: Iterable[Sequence[Any]] | None = None,
    num_workers: int = 0,
    collate_fn: Callable[[Any], Any] | None = None,
    drop_last: bool = False,
    timeout: float = 0,
    worker_init_fn: Callable[[int], object] | None = None,
    multiprocessing_context: BaseContext | str | None = None,
    generator: GeneratorLike = None,
    prefetch_factor: int | None = None,
    persistent_workers: bool = False,
    in_order: bool = True,
    seed: int | None = None,
) -> Arguments:
    """Checks the arguments of `forebay.DataLoader` and fills in the defaults.

    Called once per loader, directly by its `__init__`: warnings point at the caller of that.

    Raises:
        ValueError: for a value out of range, and for arguments that exclude each other.
        TypeError: for a generator, multiprocessing context or dataset of the wrong type.

    Example:
        >>> checked = check("abcd", batch_size=2)
        >>> list(checked.batch_sampler)
        [[0, 1], [2, 3]]
    """
    check_option_types(
        num_workers=num_workers,
        timeout=timeout,
        prefetch_factor=prefetch_factor,
        collate_fn=collate_fn,
        worker_init_fn=worker_init_fn,
    )
    _check_numbers(num_workers, timeout)
    prefetch_factor = _checked_prefetch_factor(prefetch_factor, num_workers)
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")
    context = check_multiprocessing_context(multiprocessing_context, num_workers)
    if is_stream(dataset):
        _refuse_datapipe(dataset)
        _check_no_order(shuffle, sampler, batch_sampler)
        sampler = EndlessSampler()
    else:
        check_sources(dataset, sampler, batch_sampler)
    _check_exclusions(batch_size, shuffle, sampler, batch_sampler, drop_last)
    stream = as_generator(generator)
    if sampler is None:
        sampler = _default_sampler(dataset, shuffle, stream, seed)
    if batch_sampler is not None:
        batch_size, drop_last = None, False
    elif batch_size is not None:
        batch_sampler = BatchSampler(sampler, batch_size, drop_last)
    if collate_fn is None:
        collate_fn = default_convert if batch_sampler is None else default_collate
    # The levels: this function, the loader's __init__, its caller.
    warn_of_too_many_workers(num_workers, stacklevel=3)
    return Arguments(
        dataset=dataset,
        sampler=sampler,
        batch_sampler=batch_sampler,
        batch_size=batch_size,
        drop_last=drop_last,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor,
        persistent_workers=persistent_workers,
        timeout=timeout,
        collate_fn=collate_fn,
        worker_init_fn=worker_init_fn,
        multiprocessing_context=context,
        generator=stream,
        in_order=in_order,
    )


def check_multiprocessing_context(multiprocessing_context: object, num_workers: int) -> BaseContext | None:
    """Returns the context that a `multiprocessing_context` argument means; None stays None.

    Called at construction and when the attribute of a loader is set.

    Raises:
        ValueError: for a context without workers, and for an unknown start method.
        TypeError: for anything but a context, a string and None.

    Example:
        >>> check_multiprocessing_context("spawn", num_workers=2).get_start_method()
        'spawn'
    """
    if multiprocessing_context is None:
        return None
    if num_workers <= 0:
        raise ValueError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), "
            f"but got num_workers={num_workers}"
        )
    if isinstance(multiprocessing_context, str):
        return _context_of(multiprocessing_context)
    if not isinstance(multiprocessing_context, BaseContext):
        raise TypeError(
            "multiprocessing_context option should be a valid context object or a string specifying "
            f"the start method, but got multiprocessing_context={multiprocessing_context}"
        )
    return multiprocessing_context


def warn_of_too_many_workers(num_workers: int, *, stacklevel: int = 1) -> None:
    """Warns when there are more workers than CPUs that this process may use.

    Called at construction and whenever workers start.

    Args:
        num_workers: number of workers about to be started.
        stacklevel: which frame the warning points at; 1 is the caller of this function.
    """
    if num_workers == 0:
        return
    cpus, respects_affinity = _usable_cpus()
    if cpus is not None and num_workers <= cpus:
        return
    if cpus is None:
        suggestion = "DataLoader is not able to compute a suggested max number of worker in current system."
    else:
        caveat = "" if respects_affinity else " (`cpuset` is not taken into account)"
        suggestion = (
            f"Our suggested max number of worker in current system is {cpus}{caveat}, which is smaller "
            "than what this DataLoader is going to create."
        )
    warnings.warn(
        f"This DataLoader will create {num_workers} worker processes in total. {suggestion} "
        "Please be aware that excessive worker creation might get DataLoader running slow or even freeze, "
        "lower the worker number to avoid potential slowness/freeze if necessary.",
        stacklevel=stacklevel + 1,
    )


def _check_numbers(num_workers: int, timeout: float) -> None:
    if num_workers < 0:
        raise ValueError("num_workers option should be non-negative; use num_workers=0 to disable multiprocessing.")
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if timeout != timeout:  # noqa: PLR0124 - which only NaN is
        raise ConfigError("timeout option should be a number of seconds, 0 for ever, but got timeout=nan")


def _checked_prefetch_factor(prefetch_factor: int | None, num_workers: int) -> int | None:
    if num_workers == 0:
        if prefetch_factor is not None:
            raise ValueError(
                # No space after the full stop: that is how torch's message reads.
                "prefetch_factor option could only be specified in multiprocessing.let num_workers > 0 "
                "to enable multiprocessing, otherwise set prefetch_factor to None."
            )
        return None
    if prefetch_factor is None:
        return _DEFAULT_PREFETCH_FACTOR
    if prefetch_factor < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if prefetch_factor == 0:
        raise ConfigError(
            "prefetch_factor option should be positive, but got prefetch_factor=0: "
            "a worker without a batch to prepare would never deliver one"
        )
    return prefetch_factor


def _context_of(start_method: str) -> BaseContext:
    known = multiprocessing.get_all_start_methods()
    if start_method not in known:
        raise ValueError(
            f"multiprocessing_context option should specify a valid start method in {known!r}, but got "
            f"multiprocessing_context={start_method!r}"
        )
    return multiprocessing.get_context(start_method)


def _refuse_datapipe(dataset: object) -> None:
    """Refuses what torch's loader configures in its workers: read as a plain stream, each would give every sample."""
    kind = getattr(sys.modules.get("torch.utils.data"), "IterDataPipe", None)
    if kind is not None and isinstance(dataset, kind):
        raise ConfigError(
            f"dataset option should be no datapipe, but got {type(dataset).__qualname__}: forebay.DataLoader does not "
            "shard and shuffle datapipes as PyTorch's does; use forebay.torch.DataLoader, or an IterableDataset"
        )


def _check_no_order(shuffle: object, sampler: object, batch_sampler: object) -> None:
    shuffle = None if shuffle is False else shuffle
    for name, value in {"shuffle": shuffle, "sampler": sampler, "batch_sampler": batch_sampler}.items():
        if value is not None:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value}"
            )


def _check_exclusions(
    batch_size: object, shuffle: object, sampler: object, batch_sampler: object, drop_last: object
) -> None:
    if sampler is not None and shuffle:
        raise ValueError("sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ValueError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
    elif batch_size is None and drop_last:
        raise ValueError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")


def _default_sampler(
    dataset: Any, shuffle: object, generator: np.random.Generator | None, seed: int | None
) -> Iterable[int]:
    sized = cast("Sized", dataset)
    if shuffle and seed is not None:
        return ShuffleSampler(sized, seed=seed)
    return RandomSampler(sized, generator=generator) if shuffle else SequentialSampler(sized)


def _usable_cpus() -> tuple[int | None, bool]:
    """Returns the number of CPUs, if known, and whether it respects the affinity of this process."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)), True
    return os.cpu_count(), False
