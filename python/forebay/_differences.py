"""Why samples do not become one batch: where in them they differ, and which sample has what."""

import numbers
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np

__all__ = ["between", "is_of_default_collate"]

_MOST_PLACES = 10_000
_MOST_GROUPS = 4
_MOST_LABELS = 4

_DEFAULT_COLLATE = {"forebay.collate", "torch.utils.data._utils.collate"}


def is_of_default_collate(error: BaseException) -> bool:
    """Whether an exception came out of a front's `default_collate`, called by the loader or by somebody's own function.

    What goes wrong inside of somebody's own function may have nothing to do with samples that differ.
    """
    return any(module in _DEFAULT_COLLATE for module in _modules(error.__traceback__))


def _modules(frames: TracebackType | None) -> Iterator[object]:
    while frames is not None:
        yield frames.tb_frame.f_globals.get("__name__")
        frames = frames.tb_next


def between(samples: Sequence[Any], indices: Any) -> str | None:
    """Where `samples` differ so that they cannot be stacked, or hold what no batch can; None where neither is found.

    Args:
        samples: at least one.
        indices: theirs; entries are numbered when there are none.
    """
    labels, noun = _labels(samples, indices)
    for aspects in (_obstacles, _subtleties):
        for path, values in _places(samples):
            for words in aspects(values):
                if len(set(words)) > 1:
                    return f"samples differ{_at(path)}: {_grouped(words, labels, noun)}"
    for path, values in _places(samples):
        if _family(values[0]) is None:
            words = [_kind(value) for value in values]
            return f"default_collate has no rule for what samples hold{_at(path)}: {_grouped(words, labels, noun)}"
    return None


def _at(path: str) -> str:
    return f" at {path}" if path else ""


def _labels(samples: Sequence[Any], indices: Any) -> tuple[Sequence[Any], tuple[str, str]]:
    if _is_sequence(indices) and len(indices) == len(samples):
        return indices, ("index", "indices")
    return range(len(samples)), ("entry", "entries")


def _places(samples: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """What stands at each place of every sample, places in the order in which they are collated."""
    waiting: list[tuple[str, list[Any]]] = [("", list(samples))]
    for _ in range(_MOST_PLACES):
        if not waiting:
            return
        path, values = waiting.pop()
        yield path, values
        below: list[tuple[str, list[Any]]] = []
        first = values[0]
        if _is_mapping(first):
            below = [(f"{path}[{key!r}]", [value[key] for value in values]) for key in first]
        elif _is_sequence(first):
            names = getattr(first, "_fields", None)
            for position in range(len(first)):
                step = f"[{position}]" if names is None else f".{names[position]}"
                below.append((path + step, [value[position] for value in values]))
        waiting += reversed(below)


def _obstacles(values: Sequence[Any]) -> Iterator[list[str]]:
    """What no collate can bring together, each for all values."""
    yield [_kind(value) for value in values]
    first = values[0]
    if _is_mapping(first):
        for key in first:
            yield [f"has {key!r}" if key in value else f"lacks {key!r}" for value in values]
    elif _is_sequence(first):
        yield [f"has length {len(value)}" for value in values]
    elif _family(first) == "holds an array":
        yield [f"has shape {tuple(value.shape)}" for value in values]


def _subtleties(values: Sequence[Any]) -> Iterator[list[str]]:
    """What some collate can bring together: only where there is no obstacle."""
    if hasattr(values[0], "dtype"):
        yield [f"has dtype {value.dtype}" for value in values]
    if not _is_mapping(values[0]) and not _is_sequence(values[0]):
        yield [f"holds an instance of {type(value).__qualname__}" for value in values]


def _kind(value: Any) -> str:
    return _family(value) or ("holds None" if value is None else f"holds an instance of {type(value).__qualname__}")


def _family(value: Any) -> str | None:
    """What `default_collate` treats alike, in words; None for what it does not take."""
    if isinstance(value, (str, bytes)):
        return "holds text"
    if isinstance(value, Mapping):
        return "holds a mapping"
    if isinstance(value, Sequence):
        return "holds a sequence"
    if isinstance(value, (numbers.Number, np.generic)):
        return "holds a number"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return None if getattr(value.dtype, "kind", None) in ("O", "S", "U") else "holds an array"
    return None


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def _grouped(words: Sequence[str], labels: Sequence[Any], noun: tuple[str, str]) -> str:
    """Who has what; the rarest first, because that is who is to blame."""
    groups: dict[str, list[Any]] = {}
    for label, word in zip(labels, words, strict=True):
        groups.setdefault(word, []).append(label)
    rarest = sorted(groups.items(), key=lambda group: len(group[1]))
    shown = [f"{_listed(held, noun)} {_agreeing(word, held)}" for word, held in rarest[:_MOST_GROUPS]]
    more = len(groups) - len(shown)
    return ", ".join(shown) + (f", and {more} more kinds" if more else "")


def _listed(labels: Sequence[Any], noun: tuple[str, str]) -> str:
    shown = ", ".join(repr(label)[:50] for label in labels[:_MOST_LABELS])
    more = len(labels) - _MOST_LABELS
    return f"{noun[len(labels) > 1]} {shown}" + (f" and {more} more" if more > 0 else "")


def _agreeing(words: str, subjects: Sequence[Any]) -> str:
    """The verb in the plural, where there are several subjects."""
    verb, _, rest = words.partition(" ")
    plural = {"has": "have", "holds": "hold", "lacks": "lack"}
    return words if len(subjects) == 1 else f"{plural[verb]} {rest}"
