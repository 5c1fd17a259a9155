"""What kind of value each option of a loader takes: refused at construction, where torch would fail obscurely later."""

import operator
from typing import Any

from forebay.errors import ConfigError

__all__ = ["check_attributes", "check_option_types", "check_sources", "checked_memory_budget"]

_MOST_BYTES = 2**63 - 1
"""What the engine can count. More would not be more than all there is, either."""


def check_option_types(
    *,
    num_workers: Any = 0,
    timeout: Any = 0,
    prefetch_factor: Any = None,
    collate_fn: Any = None,
    worker_init_fn: Any = None,
) -> None:
    """Refuses what could serve in no loader. Values that are out of range are torch's business.

    Raises:
        TypeError: for an option of the wrong type.

    Example:
        >>> check_option_types(num_workers="4")
        Traceback (most recent call last):
        TypeError: num_workers option should be an integer, but got num_workers='4'
    """
    if not _is_integer(num_workers):
        raise _refusal("num_workers", num_workers, "an integer")
    if not _is_number(timeout):
        raise _refusal("timeout", timeout, "a number of seconds")
    if num_workers and prefetch_factor is not None and not _is_integer(prefetch_factor):
        raise _refusal("prefetch_factor", prefetch_factor, "an integer or None")
    if collate_fn is not None and not callable(collate_fn):
        raise _refusal("collate_fn", collate_fn, "a function of a list of samples, or None")
    if num_workers and worker_init_fn is not None and not callable(worker_init_fn):
        raise _refusal("worker_init_fn", worker_init_fn, "a function of a worker's number, or None")


def check_attributes(loader: Any) -> None:
    """Refuses, when workers are about to start, what was set after construction and could serve in no loader.

    Args:
        loader: of either front.

    Raises:
        TypeError: for an attribute of the wrong type.
        ValueError: for one out of range.
    """
    check_option_types(
        num_workers=loader.num_workers,
        timeout=loader.timeout,
        prefetch_factor=loader.prefetch_factor,
        collate_fn=loader.collate_fn,
        worker_init_fn=loader.worker_init_fn,
    )
    if loader.num_workers < 0:
        raise ConfigError(f"num_workers option should be non-negative, but num_workers={loader.num_workers} was set")
    if loader.prefetch_factor is not None and loader.prefetch_factor <= 0:
        raise ConfigError(
            f"prefetch_factor option should be positive, but prefetch_factor={loader.prefetch_factor} was set"
        )
    checked_memory_budget(getattr(loader, "memory_budget", None))  # torch's own class has none


def check_sources(dataset: Any, sampler: Any, batch_sampler: Any) -> None:
    """Refuses what cannot be read.

    Raises:
        TypeError: for a dataset without `__getitem__`, and for samplers that cannot be iterated.
    """
    for name, value in (("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None and not _has_method(value, "__iter__", "__getitem__"):
            raise _refusal(name, value, "an iterable of " + ("indices" if name == "sampler" else "lists of indices"))
    if not _has_method(dataset, "__getitem__") and not hasattr(dataset, "__getitems__"):
        raise _refusal("dataset", dataset, "an object with __getitem__, or an IterableDataset")


def checked_memory_budget(memory_budget: Any) -> int | None:
    """The value of a `memory_budget` argument.

    Raises:
        TypeError: when it is no integer.
        ConfigError: when it is not positive.
    """
    if memory_budget is None:
        return None
    if isinstance(memory_budget, bool) or not _is_integer(memory_budget):
        raise _refusal("memory_budget", memory_budget, "an integer number of bytes (such as 2 * 1024**3) or None")
    if memory_budget <= 0:
        raise ConfigError(
            f"memory_budget option should be a positive number of bytes or None, but got memory_budget={memory_budget}"
        )
    return min(operator.index(memory_budget), _MOST_BYTES)


def _is_integer(value: Any) -> bool:
    """As torch sees it: NumPy's integers and a bool are, and so is 0.0."""
    return _has_method(value, "__index__") or (type(value) is float and not value)


def _is_number(value: Any) -> bool:
    return _has_method(value, "__float__")  # not so strings, which `float` would take


def _has_method(value: Any, *names: str) -> bool:
    """Whether the value's class has one of these methods: Python looks for special methods nowhere else."""
    return any(hasattr(value.__class__, name) for name in names)


def _refusal(name: str, value: object, expected: str) -> TypeError:
    return TypeError(f"{name} option should be {expected}, but got {name}={repr(value)[:200]}")
