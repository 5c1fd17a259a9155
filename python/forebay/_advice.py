"""What a loader adds to an exception of the user's code: likely causes that can be seen only where it came."""

import contextlib
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from forebay import _culprit, _descriptors, _differences
from forebay._callers import warn_of_early_end
from forebay.errors import ForebayError

__all__ = ["Scene"]

_LONGEST = 1500
"""Characters of one piece of advice."""

_CLOSE_FILES = "Close files after use, keep them open per worker instead of per sample"


@dataclass(slots=True)
class Scene:
    """The batches that one process makes, and what is known of the one it is at. One object serves them all.

    Attributes:
        who: the process, in words.
        dataset: the dataset.
        auto_collation: whether the sampler gives a list of indices, or the index of one sample.
        stream: whether the dataset is iterable: then the indices mean nothing.
        indices: what the sampler gave for this batch.
        index: the index whose sample is being made, in a tuple; None between samples.
        samples: the samples, in a tuple, once they are all there.
    """

    who: str
    dataset: Any
    auto_collation: bool
    stream: bool
    indices: Any = None
    index: tuple[Any] | None = None
    samples: tuple[Any] | None = None

    def begin(self, indices: Any) -> None:
        """Another batch, made of what the sampler gave."""
        self.indices, self.index, self.samples = indices, None, None

    @property
    def shown_index(self) -> str | None:
        """The index whose sample is being made, for a message."""
        return None if self.index is None else _shown(self.index[0])

    @property
    def task(self) -> str:
        """What the batch is made of, for a message."""
        return "of its stream" if self.stream else f"of indices {_shown(self.indices)}"

    def blame(self, culprit: object, batch: object) -> str | None:
        """Where `culprit`, which cannot be sent, stands in the samples or in the batch; notes that sample's index."""
        if self.samples is None:
            return None
        samples, indices = (self.samples[0], self.indices) if self.auto_collation else (self.samples, [self.indices])
        place, where = _culprit.in_batch(culprit, samples, None if self.stream else indices, batch)
        if not self.stream and not self.auto_collation:
            self.index = (self.indices,)
        elif not self.stream and place is not None:
            self.index = (indices[place],)
        return where

    def advice(self, error: BaseException) -> list[str]:
        """Likely causes of `error`, a sentence each. Never raises."""
        found: list[str] = []
        if isinstance(error, ForebayError):
            return found  # says everything itself
        for adviser in (self._on_indices, self._on_samples, self._on_descriptors):
            with contextlib.suppress(Exception):  # a user's object may refuse to be looked at
                found += [advice[:_LONGEST] for advice in adviser(error)]
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Where the user's code runs in the trainer itself: tells there what a worker would report."""
        if isinstance(error, StopIteration):
            if not self.stream:  # where it is a stream's ordinary end
                warn_of_early_end(self.shown_index)
        elif error is not None:
            where = [] if self.index is None else [f"sample index {self.shown_index}"]
            for note in (*where, *self.advice(error)):
                error.add_note(f"[forebay] {note}")
        self.samples = None  # not kept until the next batch

    def _on_indices(self, error: BaseException) -> Iterator[str]:
        if self.stream or self.indices is None or self.samples is not None:
            return
        if not isinstance(error, (IndexError, KeyError, TypeError)):
            return
        indices: Any = [self.index[0]] if self.index is not None else self.indices
        if not _is_sequence(indices):
            yield f"the batch sampler gave {_shown(indices)} of type {_type(indices)}, where a list of indices belongs"
            return
        count = _length(self.dataset)
        for index in indices:
            try:
                number = operator.index(index)
            except TypeError:
                yield f"the sampler gave {_shown(index)} of type {_type(index)}, which is not an integer"
                return
            if count is not None and not -count <= number < count:
                yield f"the sampler gave {number}, but the dataset has {count} samples"
                return

    def _on_samples(self, error: BaseException) -> Iterator[str]:
        if self.samples is None or not self.auto_collation or not _differences.is_of_default_collate(error):
            return
        differences = _differences.between(self.samples[0], None if self.stream else self.indices)
        if differences is not None:
            yield differences

    def _on_descriptors(self, error: BaseException) -> Iterator[str]:
        shortage = _descriptors.shortage(error, self.who, _CLOSE_FILES)
        if shortage is not None:
            yield shortage


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence)


def _shown(value: object) -> str:
    try:
        return repr(value)[:200]
    except Exception as error:  # noqa: BLE001 - whatever a user's object does in __repr__
        return f"<{_type(value)} whose repr raises {_type(error)}>"


def _type(value: object) -> str:
    return type(value).__qualname__


def _length(dataset: Any) -> int | None:
    with contextlib.suppress(Exception):
        return len(dataset)
    return None
