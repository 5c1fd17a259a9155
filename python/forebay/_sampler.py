"""The base of all samplers."""

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Sampler", "require_bool", "require_positive_int"]

_T_co = TypeVar("_T_co", covariant=True)


class Sampler(Generic[_T_co]):
    """Base of all samplers; any other iterable serves a loader as well.

    A sampler that knows its length also has `__len__`. The base has none, because a default that
    raises would also break `list(sampler)`.

    Example:
        >>> class Evens(Sampler[int]):
        ...     def __iter__(self) -> Iterator[int]:
        ...         return iter(range(0, 10, 2))
        >>> list(Evens())
        [0, 2, 4, 6, 8]
    """

    def __iter__(self) -> Iterator[_T_co]:
        """Returns a new pass, usually one per epoch."""
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


def require_bool(value: object, name: str, error: type[Exception]) -> bool:
    """Returns a bool, and refuses anything else."""
    if not isinstance(value, bool):
        raise error(f"{name} should be a boolean value, but got {name}={value}")
    return value


def require_positive_int(value: object, name: str, *, allow_bool: bool = False) -> int:
    """Returns a positive integer, and refuses anything else."""
    if not isinstance(value, int) or (isinstance(value, bool) and not allow_bool) or value <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={value}")
    return value
