"""Where random numbers come from: generators, base seeds and the seeds of workers.

The seed of a worker and the state given to NumPy equal those of `torch.utils.data`, so that a
`worker_init_fn` or a dataset ported from torch sees the numbers it saw there.
"""

import random
import sys
from typing import TypeAlias, cast

import numpy as np

from forebay.errors import ConfigError

__all__ = [
    "GeneratorLike",
    "as_generator",
    "checked_epoch",
    "checked_seed",
    "draw_base_seed",
    "generator_or_fresh",
    "integer",
    "numpy_state",
    "seed_worker",
    "worker_seed",
]

GeneratorLike: TypeAlias = np.random.Generator | int | None
"""What a `generator` argument accepts: a generator, a seed for one, or None for NumPy's global stream."""

_BASE_SEED_BITS = 63  # the non-negative half of int64, as torch draws it
_MASK32 = 0xFFFFFFFF


def as_generator(generator: object) -> np.random.Generator | None:
    """Turns a `generator` argument into a generator; None stays None.

    Args:
        generator: a `numpy.random.Generator`, an integer seed, or None.

    Raises:
        TypeError: for anything else, among it `torch.Generator` and `numpy.random.RandomState`.
        ValueError: for a negative seed.

    Example:
        >>> int(as_generator(7).integers(100)) == int(np.random.default_rng(7).integers(100))
        True
    """
    if generator is None or isinstance(generator, np.random.Generator):
        return generator
    seed = integer(generator)
    if seed is not None:
        if seed < 0:
            raise ValueError(f"generator option should be a non-negative seed, but got generator={seed}")
        return np.random.default_rng(seed)
    raise TypeError(
        "generator option should be a numpy.random.Generator, an integer seed or None, but got "
        f"generator={generator!r} of {type(generator)}; pass numpy.random.default_rng(seed) instead"
    )


def generator_or_fresh(generator: np.random.Generator | None) -> np.random.Generator:
    """Returns `generator`, or for None a new one seeded by a draw from NumPy's global stream.

    Example:
        >>> np.random.seed(0)
        >>> first = generator_or_fresh(None).integers(1000)
        >>> np.random.seed(0)
        >>> bool(generator_or_fresh(None).integers(1000) == first)
        True
    """
    if generator is not None:
        return generator
    return np.random.default_rng(draw_base_seed(None))


def checked_seed(seed: object) -> int:
    """Returns the seed of orders and samples.

    Raises:
        ConfigError: when it is no integer from 0 up to but not including 2**64.
    """
    return _checked_word(seed, "seed")


def checked_epoch(epoch: object) -> int:
    """Returns the number of an epoch.

    Raises:
        ConfigError: when it is no integer from 0 up to but not including 2**64.
    """
    return _checked_word(epoch, "epoch")


def _checked_word(value: object, name: str) -> int:
    word = integer(value)
    if word is None or not 0 <= word < 2**64:
        raise ConfigError(f"{name} should be an integer from 0 to 2**64 - 1, but got {name}={value!r}")
    return word


def integer(value: object) -> int | None:
    """Python's or NumPy's integer as Python's; None for anything else, bools among it."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        return None
    return int(cast("int", value))


def draw_base_seed(generator: np.random.Generator | None) -> int:
    """Draws the seed of one epoch, in `[0, 2**63)`.

    Args:
        generator: the stream to draw from; None means NumPy's global one, which `np.random.seed` sets.

    Example:
        >>> 0 <= draw_base_seed(np.random.default_rng(0)) < 2**63
        True
    """
    limit = 2**_BASE_SEED_BITS
    if generator is None:
        return int(np.random.randint(0, limit, dtype=np.int64))
    return int(generator.integers(0, limit, dtype=np.int64))


def worker_seed(base_seed: int, worker_id: int) -> int:
    """Returns the seed of one worker, which `WorkerInfo.seed` shows.

    Example:
        >>> worker_seed(100, 3)
        103
    """
    return base_seed + worker_id


def numpy_state(base_seed: int, worker_id: int) -> list[int]:
    """Returns the four 32-bit words that seed NumPy's global stream in a worker.

    They differ from `worker_seed`, because `random` and `numpy.random` are the same algorithm and
    would give the same numbers for the same seed.

    Example:
        >>> numpy_state(0, 0)
        [2968811710, 3677149159, 745650761, 2884920346]
    """
    words = [worker_id, base_seed & _MASK32, (base_seed >> 32) & _MASK32]
    return [int(word) for word in np.random.SeedSequence(words).generate_state(4)]


def seed_worker(base_seed: int, worker_id: int) -> None:
    """Seeds `random`, NumPy's global stream and, where the program has imported it, torch.

    Called once by each worker before it touches the dataset.
    """
    seed = worker_seed(base_seed, worker_id)
    random.seed(seed)
    np.random.seed(numpy_state(base_seed, worker_id))
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)
