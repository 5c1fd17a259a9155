"""What the NumPy front's iterators say to who would pickle or copy them."""

from typing import NoReturn

__all__ = ["refuse_to_be_pickled"]


def refuse_to_be_pickled() -> NoReturn:
    """The `__getstate__` of an iterator.

    Raises:
        NotImplementedError: always, as PyTorch's iterators do.
    """
    raise NotImplementedError(
        "an iterator of a DataLoader cannot be pickled or copied: it is half-way through an epoch, and its workers are "
        "processes; pickle or copy the DataLoader"
    )
