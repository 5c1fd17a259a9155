"""The randomness of samples, where a loader has a seed: a function of seed, epoch and index, whoever makes them.

Before a sample is made, the global generators (`random`, NumPy's legacy stream and, where the program has imported it,
torch's) are set by its key. So a dataset and its transforms draw what they would draw in any other worker.
"""

import ctypes
import hashlib
import operator
import random
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np

from forebay._engine import collate_seeds, sample_rng_key, sample_seeds, sampler_seeds
from forebay._sample_rng import Sample, current, make_current

__all__ = ["SampleSeeds", "SamplerStreams", "SeededPass", "lent_streams", "number_of"]

_T_co = TypeVar("_T_co", covariant=True)

_MASK64 = 2**64 - 1
_MT19937_BYTES = (624 + 1) * 4
"""NumPy's legacy stream: its words, and how many of them have been used."""


def number_of(index: Any) -> int:
    """The number that an index is keyed by: itself, if it is an integer; else a hash of how it is written."""
    try:
        return operator.index(index) & _MASK64
    except TypeError:
        return int.from_bytes(hashlib.blake2b(repr(index).encode(), digest_size=8).digest(), "little")


class SampleSeeds:
    """Sets the global generators for one sample after the other.

    Args:
        seed: of the loader.
        epoch: the number of the epoch, which may be set to another one.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self.seed = seed
        self.epoch = epoch

    def set(self, index: Any) -> None:
        """Called before the sample at `index` is made."""
        key = self.seed, self.epoch, number_of(index)
        _put(sample_seeds(*key))
        make_current(Sample(lambda: sample_rng_key(*key)))

    def set_for_collate(self, first: Any) -> None:
        """Called before a batch is collated, by the index that it begins with."""
        _put(collate_seeds(self.seed, self.epoch, number_of(first)))
        make_current(None)

    def set_for_pass(self, worker: int) -> None:
        """Called before a worker begins a pass over a stream, which may draw: by a number that no sample has."""
        self.set(-1 - worker)

    def draws(self, make: Callable[[], _T_co]) -> tuple[_T_co, bool]:
        """What `make` returns, and whether it drew from any of the generators."""
        before = _positions()
        made = make()
        sample = current()
        return made, (sample is not None and sample.has_drawn) or _positions() != before

    def over(self, samples: Iterator[_T_co], worker: int, num_workers: int, place: int) -> "SeededPass[_T_co]":
        """A pass over a stream, `place` samples of which have been given."""
        return SeededPass(samples, self, worker, num_workers, place)


class SeededPass(Generic[_T_co]):
    """One pass over a stream, with the generators set before each of its samples.

    A sample's number is its turn, if all workers give one in turn: so a dataset that deals its samples round to the
    workers has the same randomness for any number of them.

    Args:
        samples: the pass.
        seeds: what sets the generators.
        worker: which worker reads it, from 0.
        num_workers: how many there are; 1 for none.
        place: how many samples of it have been given.

    Attributes:
        place: how many have been given by now.
    """

    def __init__(
        self, samples: Iterator[_T_co], seeds: SampleSeeds, worker: int, num_workers: int, place: int = 0
    ) -> None:
        self._samples = samples
        self._seeds = seeds
        self._worker = worker
        self._num_workers = num_workers
        self.place = place

    def __iter__(self) -> Iterator[_T_co]:
        return self

    def __next__(self) -> _T_co:
        self._seeds.set(self.turn)
        sample = next(self._samples)
        self.place += 1
        return sample

    @property
    def turn(self) -> int:
        """The number of the next sample."""
        return self.place * self._num_workers + self._worker


def _put(seeds: tuple[int, int, int]) -> None:
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch: Any = sys.modules.get("torch")
    # Not `torch.manual_seed`, which seeds every device as well: samples are made on the CPU.
    generator = getattr(torch, "default_generator", None)  # None while torch is being imported
    if generator is not None:
        generator.manual_seed(seeds[2])


def _torch_state() -> Any:
    generator = getattr(sys.modules.get("torch"), "default_generator", None)
    return None if generator is None else generator.get_state()


def _states() -> tuple[Any, Any, Any]:
    """Of `random`, NumPy's legacy stream and torch; None for torch if the program has not imported it."""
    return random.getstate(), np.random.get_state(legacy=False), _torch_state()


def _set_states(states: tuple[Any, Any, Any]) -> None:
    python, numpy, torch = states
    random.setstate(python)
    np.random.set_state(numpy)
    if torch is not None:
        sys.modules["torch"].default_generator.set_state(torch)


def _positions() -> tuple[Any, ...]:
    """Something that differs once a number was drawn, of generators that have just been seeded."""
    # Read from memory: NumPy makes its state a list of numbers, one by one.
    numpy: Any = np.random  # whose stubs forget the next function
    torch_state = _torch_state()
    return (
        random.getstate(),
        ctypes.string_at(numpy.get_bit_generator().ctypes.state_address, _MT19937_BYTES),
        None if torch_state is None else torch_state.numpy().tobytes(),
    )


@contextmanager
def lent_streams() -> Generator[None]:
    """Whatever is done to the global generators meanwhile, the program does not notice."""
    states, sample = _states(), current()
    try:
        yield
    finally:
        _set_states(states)
        make_current(sample)


class SamplerStreams:
    """What the global generators are for somebody else's sampler, which may draw from them whenever it is asked.

    Args:
        seed: of the loader.
        epoch: the number of the epoch.
    """

    def __init__(self, seed: int, epoch: int) -> None:
        self._key = seed, epoch
        self._states: tuple[Any, Any, Any] | None = None

    @contextmanager
    def lent(self) -> Generator[None]:
        """Meanwhile the sampler goes on drawing where it stopped; the program does not notice."""
        with lent_streams():
            make_current(None)
            if self._states is None:
                _put(sampler_seeds(*self._key))
            else:
                _set_states(self._states)
            try:
                yield
            finally:
                self._states = _states()
