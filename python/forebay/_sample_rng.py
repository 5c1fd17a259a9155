"""A generator for every sample, for code that wants one of its own instead of the global ones."""

from collections.abc import Callable, Sequence

import numpy as np

from forebay._seeds import generator_or_fresh

__all__ = ["Sample", "current", "make_current", "sample_rng"]


class Sample:
    """A sample that is being made.

    Args:
        key: tells what its private generator is keyed with: two words.
    """

    def __init__(self, key: Callable[[], Sequence[int]]) -> None:
        self._key = key
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """Its private generator, made when it is first asked for."""
        if self._rng is None:
            key = np.array(self._key(), dtype=np.uint64)
            self._rng = np.random.Generator(np.random.Philox(key=key))
        return self._rng

    @property
    def has_drawn(self) -> bool:
        """Whether it was asked for."""
        return self._rng is not None


_current: Sample | None = None


def current() -> Sample | None:
    """The sample that is being made, of a loader with a seed."""
    return _current


def make_current(sample: Sample | None) -> None:
    """Says which sample is being made."""
    global _current  # noqa: PLW0603 - one process makes one sample at a time
    _current = sample


def sample_rng() -> np.random.Generator:
    """The private random generator of the sample that is being made, for use in a dataset and its transforms.

    With `DataLoader(..., seed=...)` its numbers are a function of the seed, the epoch and the sample's index: the same
    in every worker, for any number of workers, and after a resume. Every call for one sample returns the same
    generator. Elsewhere (without `seed`, or in a notebook) it is a new generator, seeded from NumPy's global stream.

    Example:
        >>> from forebay import DataLoader
        >>> class Noisy:
        ...     def __len__(self):
        ...         return 4
        ...     def __getitem__(self, index):
        ...         return index + sample_rng().random()
        >>> [first, second] = [list(DataLoader(Noisy(), batch_size=4, seed=7))[0] for _ in range(2)]
        >>> bool((first == second).all())
        True
    """
    return generator_or_fresh(None) if _current is None else _current.rng
