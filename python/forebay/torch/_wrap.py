"""A loader of torch's as one of Forebay's."""

import functools
import types
from typing import Any

from forebay.torch._loader import DataLoader
from forebay.torch._standing_in import StandIn
from forebay.torch._stock import StockDataLoader

__all__ = ["reduce_stock", "wrap"]


def wrap(loader: Any) -> DataLoader[Any]:
    """The same loader, served by Forebay; the one that is given stays as it is.

    Args:
        loader: a `torch.utils.data.DataLoader`, or an instance of a class derived from it, which keeps its methods. One
            of Forebay's own is returned as it is.

    Raises:
        TypeError: for anything else.

    Example:
        >>> import torch
        >>> loader = wrap(torch.utils.data.DataLoader([1, 2, 3], batch_size=3))
        >>> type(loader).__module__, next(iter(loader))
        ('forebay.torch._loader', tensor([1, 2, 3]))
    """
    if isinstance(loader, type) or not issubclass(type(loader), StockDataLoader):
        raise TypeError(
            f"wrap() takes a torch.utils.data.DataLoader, but got {repr(loader)[:200]}; make a "
            "forebay.torch.DataLoader of its dataset instead"
        )
    if DataLoader in type(loader).__mro__:
        return loader  # type: ignore[no-any-return]
    return _made(type(loader), {**vars(loader), "_iterator": None})


def _made(kind: type, state: dict[str, Any]) -> DataLoader[Any]:
    wrapped: DataLoader[Any] = object.__new__(_served(kind))
    vars(wrapped).update({"memory_budget": None, **state})
    return wrapped


@functools.cache
def _served(kind: type) -> type:
    """`kind` with Forebay's loader behind it: where it calls `super()`, it gets ours."""
    if kind is StockDataLoader or kind is DataLoader:
        return DataLoader
    meta: Any = type(kind) if issubclass(type(kind), StandIn) else StandIn
    if not issubclass(meta, type(kind)):
        meta = type(meta.__name__, (meta, type(kind)), {})

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(
            __module__=kind.__module__, __qualname__=kind.__qualname__, __doc__=kind.__doc__, __reduce__=_reduce
        )

    return types.new_class(kind.__name__, (kind, DataLoader), {"metaclass": meta}, fill)


def reduce_stock(loader: Any) -> tuple[Any, ...]:
    """Pickles a loader of torch's own class while its name is ours: it arrives as one of ours."""
    return _made, (DataLoader, vars(loader))


def _reduce(self: Any) -> tuple[Any, ...]:
    """Pickles by the class that was wrapped, which has a name of its own."""
    return _made, (type(self).__mro__[1], DataLoader.__getstate__(self))
