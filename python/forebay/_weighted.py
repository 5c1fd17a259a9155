"""Draws by weight, from a seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay._sampler import require_bool, require_positive_int
from forebay._seeded import ArrayOrder, Fingerprint, Indices, Order, SeededSampler, digest_of

__all__ = ["WeightedSampler", "as_weights", "check_weights"]

_Weights = npt.NDArray[np.float64]


class WeightedSampler(SeededSampler):
    """Yields indices `0, ..., len(weights) - 1`, each as likely as its weight.

    With replacement, every draw is a function of seed, epoch and place, by a table that is made once, in time and
    memory (16 bytes each) proportional to the number of weights: Vose's alias method. Without, an epoch's order is
    drawn when the epoch begins, each time in time and memory proportional to that number: Efraimidis and Spirakis's
    keys.

    A sample that is drawn twice in an epoch looks alike both times in a loader with a seed: its augmentation is a
    function of seed, epoch and index.

    Args:
        weights: one non-negative weight per index; their sum need not be one. An array of float64 is not copied, and
            must not change.
        num_samples: number of indices of one pass.
        replacement: False yields each index at most once; heavy ones tend to come early.
        seed: from 0 up to but not including 2**64.

    Raises:
        ValueError: when `num_samples` is no positive integer, `replacement` no bool, `weights` not one-dimensional, or
            the seed out of range.
        RuntimeError: when the weights describe no distribution, or too few are positive to draw without replacement.

    Example:
        >>> list(WeightedSampler([0.0, 1.0, 0.0], 4, seed=7))
        [1, 1, 1, 1]
        >>> sorted(WeightedSampler([0.5, 0.25, 0.25], 3, replacement=False, seed=7))
        [0, 1, 2]
    """

    def __init__(
        self, weights: Sequence[float] | npt.NDArray[Any], num_samples: int, *, replacement: bool = True, seed: int = 0
    ) -> None:
        super().__init__(seed=seed)
        self.num_samples = require_positive_int(num_samples, "num_samples")
        self.replacement = require_bool(replacement, "replacement", ValueError)
        self.weights = as_weights(weights)
        check_weights(self.weights, self.num_samples, self.replacement)
        self._digest: str | None = None
        self._alias: Any = None

    def __len__(self) -> int:
        """Returns the number of indices of one pass."""
        return self.num_samples

    def fingerprint(self) -> Fingerprint:
        """Kind, length, seed, whether with replacement, and a hash of the weights, which is made once."""
        self._digest = self._digest or digest_of(self.weights, np.float64)
        return {
            "kind": "WeightedSampler",
            "length": len(self),
            "seed": self.seed,
            "replacement": self.replacement,
            "weights": self._digest,
        }

    def _order(self, epoch: int) -> Order:
        from forebay._engine import Alias, weighted_order  # not every system has the engine

        if not self.replacement:
            indices = np.empty(self.num_samples, np.int64)
            weighted_order(self.weights, self.seed, epoch, indices)
            return ArrayOrder(indices)
        if self._alias is None:
            self._alias = Alias(self.weights)
        return _Draws(self._alias, self.num_samples, self.seed, epoch)

    def __getstate__(self) -> dict[str, Any]:
        """The table is made again from the weights."""
        return {**super().__getstate__(), "_alias": None}


class _Draws(Order):
    """Draws with replacement."""

    def __init__(self, alias: Any, count: int, seed: int, epoch: int) -> None:
        self._alias, self._count, self._key = alias, count, (seed, epoch)

    def __len__(self) -> int:
        return self._count

    def at(self, places: Indices) -> Indices:
        indices = np.empty(len(places), np.int64)
        self._alias.pick(*self._key, np.ascontiguousarray(places), indices)
        return indices


def as_weights(weights: Any) -> _Weights:
    """Weights as an array, which is copied only if it has to be.

    Raises:
        ValueError: when they have several dimensions, or none.
    """
    array = np.asarray(weights, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"weights should be a 1d sequence but given weights have shape {array.shape}")
    return np.ascontiguousarray(array)


def check_weights(weights: _Weights, num_samples: int, replacement: bool) -> None:
    """Whether so many samples can be drawn with these weights.

    Raises:
        RuntimeError: when they cannot.
    """
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    usable = int(np.count_nonzero(weights))
    if not usable:
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    if not replacement and num_samples > usable:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement: "
            f"num_samples={num_samples}, but only {usable} of {len(weights)} weights are positive"
        )
