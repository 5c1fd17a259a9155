"""One epoch of the NumPy front's loader without a seed: its order is drawn from generators, as PyTorch's is.

A state is what the generators were when the epoch began, and how many batches have been delivered: the order is drawn
again, and its beginning left out. Randomness in workers is not continued: it depends on who makes what.
"""

import base64
import random
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, cast

import numpy as np

from forebay import _seeds
from forebay._cursor import Cursor
from forebay._resume import Resume, State, damaged, misfit_of_kind, turn_after
from forebay._seeding import epoch_of, index_sampler_of, members

__all__ = ["DrawnEpoch", "Streams"]


class Streams:
    """The generators that a loader's order is drawn from: its own and its samplers', or else the global ones.

    Args:
        loader: of the NumPy front.
    """

    def __init__(self, loader: Any) -> None:
        samplers = members(index_sampler_of(loader))
        self._samplers = samplers
        candidates = [loader.generator, *(getattr(each, "generator", None) for each in samplers)]
        self._own: list[np.random.Generator] = []
        for each in candidates:
            if isinstance(each, np.random.Generator) and not any(each is other for other in self._own):
                self._own.append(each)

    def state(self) -> State:
        """Their states, for JSON, and the epochs that the samplers were told."""
        own = [_plain(generator.bit_generator.state) for generator in self._own]
        epochs = [epoch_of(sampler) for sampler in self._samplers]
        return {"own": own, "epochs": epochs, **({} if self._are_all() else _global_state())}

    def _are_all(self) -> bool:
        """Whether nothing draws from the global streams. What somebody else's sampler does, nobody knows."""
        last = self._samplers[-1]
        if isinstance(last, Sequence):
            return True
        drawing = getattr(last, "generator", self) is None
        return not drawing and all(type(each).__module__.startswith("forebay.") for each in self._samplers)

    def check(self, state: State | None) -> None:
        """Raises a StateError if this is not what `state` gave of generators like these."""
        try:
            there = _lengths(state)
        except Exception as error:
            raise damaged(error) from error
        if there["own"] != len(self._own):
            raise misfit_of_kind(f"it has {len(self._own)} generators of its own, but {there['own']} in the state")
        try:
            self._try(state)
        except Exception as error:
            raise damaged(error) from error

    def _try(self, state: Any) -> None:
        for generator, told in zip(self._own, state["own"], strict=True):
            type(generator.bit_generator)().state = told
        for epoch in state["epochs"]:
            if epoch is not None:
                _seeds.checked_epoch(epoch)
        if self._are_all():
            return
        np.random.RandomState().set_state(_numpy_state(state["numpy"]))
        random.Random().setstate(_python_state(state["python"]))

    def set_own(self, state: State) -> None:
        """Sets the loader's and the samplers' own generators, and the samplers' epochs."""
        for generator, told in zip(self._own, state["own"], strict=True):
            generator.bit_generator.state = told
        for sampler, epoch in zip(self._samplers, state["epochs"], strict=False):
            if epoch is not None and callable(getattr(sampler, "set_epoch", None)):
                sampler.set_epoch(epoch)

    @contextmanager
    def lent(self, state: State | None) -> Generator[None]:
        """The global streams have the states they had then for a while, of which the program notices nothing."""
        if state is None or "numpy" not in state:
            yield
            return
        python, numpy = random.getstate(), np.random.get_state(legacy=False)
        _set_global_state(state)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _lengths(state: Any) -> dict[str, int]:
    return {name: len(state[name]) for name in ("own", "epochs")}


def _plain(value: Any) -> Any:
    """A generator's state without arrays."""
    if isinstance(value, dict):
        parts = cast("dict[str, Any]", value)
        return {name: _plain(part) for name, part in parts.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _global_state() -> State:
    python = random.getstate()
    numpy: Any = np.random.get_state(legacy=False)
    key = np.asarray(numpy["state"]["key"], np.uint32)
    return {
        "numpy": [_text(key), int(numpy["state"]["pos"]), int(numpy["has_gauss"]), float(numpy["gauss"])],
        "python": [python[0], _text(np.asarray(python[1], np.uint32)), python[2]],
    }


def _set_global_state(state: State) -> None:
    np.random.set_state(_numpy_state(state["numpy"]))
    random.setstate(_python_state(state["python"]))


def _numpy_state(told: Any) -> Any:
    key, *rest = told
    return ("MT19937", _words(key), *rest)


def _python_state(told: Any) -> Any:
    version, words, gauss = told
    return version, tuple(_words(words).tolist()), gauss


def _text(words: np.ndarray[Any, np.dtype[np.uint32]]) -> str:
    return base64.b64encode(words.astype("<u4").tobytes()).decode()


def _words(text: str) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.frombuffer(base64.b64decode(text), "<u4").astype(np.uint32)


class DrawnEpoch:
    """One epoch.

    Args:
        loader: of the NumPy front, without a seed.
        epoch: the number of the epoch.
        seed_workers: whether workers start with it, for which a seed is drawn.
        resume: where it goes on, if it does.

    Attributes:
        order: what the generators were when it began.
        base_seed: of the workers.
        cursor: the batches that have been delivered.
    """

    seed = None
    gives_places = False

    def __init__(self, loader: Any, epoch: int, *, seed_workers: bool, resume: Resume | None = None) -> None:
        self.epoch = epoch
        self.fetcher: Any = None
        self._stream = loader.stream
        self._sampler = index_sampler_of(loader)
        streams = Streams(loader)
        goes_on = resume if resume is not None and resume.in_epoch else None
        self.cursor = _cursor_of(resume, stream=self._stream)
        order = None if goes_on is None else goes_on.order
        if resume is not None and resume.order is not None:
            streams.set_own(resume.order)
        self.order = order or streams.state()
        self.base_seed = 0
        with streams.lent(order):
            self._indices: Iterator[Any] = iter(self._sampler)
            if seed_workers:
                # Drawn without workers, too: the order does not depend on whether there are any.
                self.base_seed = _seeds.draw_base_seed(loader.generator)
            if order is not None:
                self._indices = self._rest(self._indices)
        if goes_on is not None and goes_on.base_seed is not None:
            self.base_seed = goes_on.base_seed

    def _rest(self, indices: Iterator[Any]) -> Iterator[Any]:
        """Leaves out what was delivered. An order is drawn at its beginning: that happens now."""
        if self._stream:
            return indices
        deque(islice(indices, self.cursor.position), maxlen=0)
        first = list(islice(indices, 1))
        return self.cursor.undelivered(chain(first, indices))

    def __len__(self) -> int:
        """As many batches as the sampler says."""
        return len(self._sampler)

    def batches(self) -> Iterator[Any]:
        """The indices of the batches to deliver."""
        return self._indices

    def first_worker(self, num_workers: int) -> int:
        """Whose turn it is."""
        if not self._stream:
            return self.cursor.position % num_workers
        return turn_after(self.cursor, num_workers)

    def where(self) -> State:
        """What a state has of it."""
        told: State = {"batches": self.cursor.position, "order": self.order, "base_seed": self.base_seed}
        if self._stream:
            return told | {"last_worker": self.cursor.last_worker}
        return told | {"ahead": [[number, number + 1] for number in sorted(self.cursor.ahead)]}

    def watch(self, fetcher: Any) -> None:
        """Without workers, the iterator over the dataset is asked when the loader is."""
        self.fetcher = fetcher if self._stream else None


def _cursor_of(resume: Resume | None, *, stream: bool) -> Cursor:
    if resume is None:
        return Cursor()
    if not resume.in_epoch:
        return Cursor(standings=resume.standings())
    cursor = Cursor(resume.start, chain.from_iterable(range(*each) for each in resume.passed), resume.standings())
    cursor.last_worker = resume.last_worker if stream else None
    return cursor
