"""What a loader does with an input, as a short text that is the same on every machine, and a verdict on it."""

import re
import sys
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

import forebay
import forebay.torch
from likeness import Failure, assert_same

PYTORCH, TORCH_FRONT, NUMPY_FRONT = "torch", "forebay.torch", "forebay"

_MOST_OUTCOMES = 600
"""More than any input gives: a loader that never ends is one of the things looked for."""


class Unobservable(Exception):
    """This machine cannot show what happens. The committed page keeps what another one has shown."""


@dataclass(frozen=True)
class Face:
    """One of the three loaders that an input is given to.

    Attributes:
        timeout: for inputs that stock torch is known to hang on: then it is asked to wait this long only.
    """

    name: str
    DataLoader: Any
    get_worker_info: Callable[[], Any]
    IterableDataset: Any
    get_collate_registry: Callable[[], dict[Any, Any]]
    timeout: float = 0

    def __call__(self, dataset: Any, **options: Any) -> Any:
        """A loader, with one worker unless `options` say otherwise."""
        if self.timeout:
            options.setdefault("timeout", self.timeout)
        return self.DataLoader(dataset, **{"num_workers": 1, **options})

    @property
    def is_torch(self) -> bool:
        return self.name != NUMPY_FRONT

    def array(self, values: Any) -> Any:
        return torch.tensor(values) if self.is_torch else np.array(values)


def face_named(name: str, timeout: float = 0) -> Face:
    if name == NUMPY_FRONT:
        from forebay.collate import default_collate_fn_map as ours

        return Face(name, forebay.DataLoader, forebay.get_worker_info, forebay.IterableDataset, lambda: ours, timeout)
    data = torch.utils.data
    registry = data._utils.collate.default_collate_fn_map
    loader = data.DataLoader if name == PYTORCH else forebay.torch.DataLoader
    return Face(name, loader, data.get_worker_info, data.IterableDataset, lambda: registry, timeout)


@dataclass(frozen=True)
class Input:
    """One row: something that a user throws at a loader.

    Attributes:
        title: what it is.
        given: makes a loader, which is then read for one epoch; or does all itself, and tells in words what it saw.
        numpy: whether it makes sense without torch.
        hangs: whether stock torch waits for ever.
        alone: whether each loader meets it in a process of its own: it kills, exits or bends the process.
        reason: why the torch front does something else than torch. Not for errors that say more, and hangs that end.
        numpy_reason: the same for the NumPy front.
        whole: whether the page shows all that is said, however long: notes and warnings are the point.
    """

    title: str
    given: Callable[[Face], Any]
    numpy: bool = True
    hangs: bool = False
    alone: bool = False
    reason: str = ""
    numpy_reason: str = ""
    whole: bool = False

    @property
    def faces(self) -> list[str]:
        return [PYTORCH, TORCH_FRONT, *([NUMPY_FRONT] if self.numpy else [])]


@dataclass(frozen=True)
class Section:
    title: str
    about: str
    inputs: list[Input]


# -- Looking


@dataclass
class Seen:
    """What one loader did.

    Attributes:
        text: all of it, for the page.
        steps: what came: ["values", count, words], or ["error", place, names of the type's bases, words].
        warned: its warnings.
        hung: whether it had to be stopped.
    """

    text: str = ""
    steps: list[list[Any]] = field(default_factory=list)
    warned: list[str] = field(default_factory=list)
    hung: bool = False


@dataclass(frozen=True)
class Missed(Failure):
    """An exception, and where it came: "making" the loader, at "iter", or at "next"."""

    place: str = "next"


def observe(row: Input, name: str) -> tuple[Seen, list[Any]]:
    """Gives `row` to one loader; what is seen, and the outcomes themselves: batches, and `Missed` in their places."""
    face = face_named(name, timeout=2 if row.hangs and name == PYTORCH else 0)
    torch.manual_seed(1), np.random.seed(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        outcomes = _outcomes(row.given, face)
    seen = Seen(steps=_steps(outcomes), warned=_told(caught))
    seen.hung = row.hangs and any("DataLoader timed out" in step[-1] for step in seen.steps)
    seen.text = _text(seen)
    return seen, outcomes


def _outcomes(given: Callable[[Face], Any], face: Face) -> list[Any]:
    try:
        loader = given(face)
    except Unobservable:
        raise
    except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - it is what is looked at
        return [Missed(error.with_traceback(None), "making")]
    if isinstance(loader, str):
        return [Words(loader)]
    if isinstance(loader, list):
        return [Words(part) if type(part) is str else part for part in loader]
    return epoch(loader)


class Words(str):
    """What an input tells itself."""


def epoch(loader: Any) -> list[Any]:
    """The batches of one epoch, exceptions in their places. A loader that ended is asked for no more than its error."""
    try:
        iterator = iter(loader)
    except Exception as error:  # noqa: BLE001 - it is what is looked at
        return [Missed(error.with_traceback(None), "iter")]
    return [*rest(iterator)]


def rest(iterator: Any) -> list[Any]:
    """What is left of an epoch."""
    found: list[Any] = []
    while len(found) < _MOST_OUTCOMES:
        try:
            found.append(next(iterator))
        except StopIteration:
            break
        except (Exception, KeyboardInterrupt, SystemExit) as error:  # noqa: BLE001 - it is what is looked at
            # Without its frames, which would keep the iterator and its workers.
            error.with_traceback(None)
            if found and isinstance(found[-1], Missed) and found[-1].error is error:
                found[-1] = Missed(error, "every further next")
                break
            found.append(Missed(error))
            if "timed out" in error_words(error):
                break
    if hasattr(iterator, "_shutdown_workers") and not iterator._persistent_workers:
        iterator._shutdown_workers()
    return found


# -- Telling


def _steps(outcomes: list[Any]) -> list[list[Any]]:
    steps: list[list[Any]] = []
    values: list[Any] = []
    for outcome in [*outcomes, None] if outcomes and isinstance(outcomes[-1], Missed) else outcomes:
        if not isinstance(outcome, Missed):
            values.append(outcome)
            continue
        if values:
            steps.append(["values", len(values), _shown(values)])
            values = []
        bases = [kind.__name__ for kind in type(outcome.error).__mro__]
        steps.append(["error", outcome.place, bases, error_words(outcome.error)])
    values = values[:-1] if outcomes and isinstance(outcomes[-1], Missed) else values
    if values or not steps:
        steps.append(["values", len(values), _shown(values)])
    return steps


def _shown(values: list[Any]) -> str:
    if not values:
        return "no batches"
    if all(_is_short(value) for value in values) and len(values) <= 12:
        return " ".join(map(_numbers, values))
    if len(values) == 1:
        return describe(values[0])
    kinds = list(dict.fromkeys(describe(value) for value in values))
    return f"{len(values)} batches of {' and '.join(kinds[:2])}"


def _is_short(value: Any) -> bool:
    return isinstance(value, (Words, int)) or (
        type(value) in {torch.Tensor, np.ndarray}
        and value.ndim == 1
        and 0 < len(value) <= 4
        and str(value.dtype).endswith("int64")
    )


def _numbers(value: Any) -> str:
    if isinstance(value, Words):
        return plain(value)
    return str(value if isinstance(value, int) else value.tolist()).replace(",", "")


def describe(value: Any, depth: int = 0) -> str:
    """A batch in a few words."""
    if isinstance(value, torch.Tensor):
        return _describe_tensor(value)
    if isinstance(value, np.ndarray):
        kind = "array" if type(value) is np.ndarray else type(value).__name__
        dtype = str(value.dtype) if value.dtype.names is None else "structured"
        return f"{kind} {dtype}{list(value.shape)}"
    if depth > 2:
        return "…"
    if isinstance(value, dict) and len(value) <= 4:
        inside = ", ".join(f"{key!r}: {describe(value[key], depth + 1)}" for key in value)
        return f"{'' if type(value) is dict else type(value).__name__}{{{inside}}}"
    if type(value) in {list, tuple} and len(value) <= 6:
        inside = ", ".join(describe(branch, depth + 1) for branch in value)
        return f"[{inside}]" if type(value) is list else f"({inside}{',' * (len(value) == 1)})"
    if value is None or type(value) in {bool, int, float, complex, str, bytes, type(Ellipsis)}:
        return plain(repr(value))[:40]
    return f"{type(value).__name__} object"


def _describe_tensor(value: torch.Tensor) -> str:
    kind = "tensor" if type(value) is torch.Tensor else type(value).__name__
    layout = "" if value.layout is torch.strided else f"{str(value.layout).removeprefix('torch.')} "
    shape = "[nested]" if value.is_nested else str(list(value.shape))
    gradient = " that wants a gradient" if value.requires_grad and kind == "tensor" else ""
    return f"{kind} {layout}{str(value.dtype).removeprefix('torch.')}{shape}{gradient}"


_SAID_ONCE = ("This DataLoader will create", "This process", "Triggered internally")
"""Warnings that depend on the number of processors, on Python's version, or on who came first in this process."""


def _told(caught: Iterable[warnings.WarningMessage]) -> list[str]:
    """Warnings in words, each once."""
    told = [f"{warning.category.__name__}: {plain(str(warning.message))}" for warning in caught]
    return list(dict.fromkeys(text for text in told if not any(words in text for words in _SAID_ONCE)))


def _text(seen: Seen) -> str:
    if seen.hung:
        before = [step[2] for step in seen.steps if step[0] == "values"]
        return "; ".join([*before, "hangs"])
    parts: list[str] = []
    for step in seen.steps:
        if step[0] == "values":
            parts.append(step[2])
        else:
            where = {"making": "", "iter": " at iter()", "next": "", "every further next": " at every further next()"}
            parts.append(f"`{step[3]}`{where[step[1]]}")
    merged = [_times(count) + part for part, count in _runs(parts)]
    return "; ".join([*merged, *(f"warns `{text}`" for text in seen.warned)])


def _times(count: int) -> str:
    if count == 1:
        return ""
    return f"{count} times " if count < _MOST_OUTCOMES - 10 else "without end "


def _runs(parts: list[str]) -> list[tuple[str, int]]:
    runs: list[tuple[str, int]] = []
    for part in parts:
        if runs and runs[-1][0] == part:
            runs[-1] = (part, runs[-1][1] + 1)
        else:
            runs.append((part, 1))
    return runs


_PLACE = re.compile(r"\[forebay\] worker \d+, batch \d+")
"""The note that every exception of a worker has."""

_WHERE = re.compile(r"Caught \w+ in DataLoader worker process \d+\.\n")


def error_words(error: BaseException) -> str:
    """An exception's type, text and notes. Of a worker's traceback only its end: the rest is file names."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception as odd:  # noqa: BLE001 - a user's exception may do anything
        text = f"(its text fails: {odd!r})"
    if _WHERE.match(text):
        end = _end_of_traceback(text)
        text = end.removeprefix(name).removeprefix(": ") if end.split(":")[0] == name else end
    notes = [note for note in getattr(error, "__notes__", []) if not _PLACE.match(note)]
    words = plain(" ".join([text, *notes])).replace("`", "'")
    return f"{name}: {words}" if words else name


def _end_of_traceback(text: str) -> str:
    lines = text.rstrip().splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith("  File ")]
    ends = [number for number in range(frames[-1] + 1 if frames else 1, len(lines)) if not lines[number][:1].isspace()]
    end = "\n".join(lines[ends[0] :]) if ends else lines[-1]
    return re.sub(r"^(?:\w+\.)+(?=\w)", "", end)


def plain(text: str) -> str:
    """`text` without what is different in every run."""
    text = re.sub(r"0x[0-9a-fA-F]+", "0x…", text)
    text = re.sub(
        r"\d+ descriptors open \(its limit is (\d+), which may be raised up to \w+\)",
        r"N descriptors open (its limit is \1, which may be raised up to N)",
        text,
    )
    text = re.sub(r"Most open: \d+ x ([^,]+), .*?(?=\. [A-Z])", r"Most open: N x \1, …", text)
    text = re.sub(r"(pid(?:\(s\))?) \d+", r"\1 N", text)
    text = re.sub(r"\d{1,3}(?:,\d{3})+", "N", text)
    text = re.sub(r"\", line \d+, in", '", line N, in', text)
    text = re.sub(r"/torch_\w+", "a file", text)
    text = re.sub(r"(?<![\w:/])/(?:[-\w.]+/)+([-\w.]+)", r"\1", text)
    return re.sub(r"\s+", " ", text).strip()


# -- Comparing


def differences(name: str, ours: list[Any], theirs: list[Any]) -> str:
    """The first difference between what two loaders gave that the texts may not show; "" when there is none."""
    if len(ours) != len(theirs):
        return f"{len(ours)} outcomes for {len(theirs)}"
    for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        if isinstance(mine, Missed) or isinstance(yours, Missed):
            continue  # the steps tell
        if isinstance(mine, Words) and isinstance(yours, Words):
            if plain(mine) != plain(yours):
                return "see the columns"
            continue
        try:
            assert_same(mine, as_arrays(yours) if name == NUMPY_FRONT else yours)
        except AssertionError as difference:
            first = (str(difference).splitlines() or ["batch"])[0]
            return plain(first if len(ours) == 1 else f"number {number}: {first}")
    return ""


def as_arrays(value: Any) -> Any:
    """The same batch with arrays in place of tensors, where NumPy has such arrays."""
    if type(value) is torch.Tensor and not value.requires_grad and value.layout is torch.strided:
        try:
            return value.numpy()
        except (TypeError, RuntimeError):
            return value
    if type(value) in {dict, OrderedDict}:
        return type(value)((key, as_arrays(branch)) for key, branch in value.items())
    if type(value) in {list, tuple, deque}:
        return type(value)(map(as_arrays, value))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(as_arrays, value))
    return value


@dataclass(frozen=True)
class Verdict:
    """What the comparison of two loaders says.

    Attributes:
        text: for the page.
        unexplained: whether they differ, and nobody has written why.
        stale: whether a reason is written for a difference that is not there.
    """

    text: str
    unexplained: bool = False
    stale: bool = False


AS_IN_PYTORCH = "as in PyTorch"
CLEARER = "clearer error"
NO_HANG = "an error instead of a hang"
WORKS = "works; PyTorch hangs"
OWN_WORDS = "the same error in its own words"


def judge(theirs: Seen, ours: Seen, difference: str | None, reason: str, *, own_words: bool) -> Verdict:
    """Compares what a front did with what torch did.

    Args:
        difference: what `differences` says; None when the batches could not be compared.
        own_words: whether an error of the same type may have another text: the NumPy front's are about arrays.
    """
    if _alike(theirs, ours) and not difference and (difference is not None or theirs.text == ours.text):
        return Verdict(AS_IN_PYTORCH, stale=bool(reason))
    if reason:
        return Verdict(f"differs: {reason}")
    if theirs.hung and not ours.hung:
        return Verdict(NO_HANG if any(step[0] == "error" for step in ours.steps) else WORKS)
    if theirs.warned == ours.warned and _same_places(theirs, ours) and not difference:
        if _say_at_least(theirs, ours):
            return Verdict(CLEARER)
        if own_words:
            return Verdict(OWN_WORDS)
    return Verdict(f"differs: {difference or 'see the columns'}", unexplained=True)


def _outline(seen: Seen) -> list[Any]:
    return [step[:2] if step[0] == "values" else [*step[:2], step[2][0], step[3]] for step in seen.steps]


def _alike(theirs: Seen, ours: Seen) -> bool:
    return (_outline(theirs), theirs.warned, theirs.hung) == (_outline(ours), ours.warned, ours.hung)


def _same_places(theirs: Seen, ours: Seen) -> bool:
    """Whether errors come in the same places, each of a type that catches what torch's would."""
    if [step[:2] for step in theirs.steps] != [step[:2] for step in ours.steps]:
        return False
    pairs = zip(theirs.steps, ours.steps, strict=True)
    return all(step[0] == "values" or step[2][0] in twin[2] for step, twin in pairs)


def _say_at_least(theirs: Seen, ours: Seen) -> bool:
    """Whether each error of ours has all the words of its twin, and more."""
    pairs = zip(theirs.steps, ours.steps, strict=True)
    return all(step[0] == "values" or step[3].split(": ", 1)[-1] in twin[3] for step, twin in pairs)


def to_json(seen: Seen) -> dict[str, Any]:
    return asdict(seen)


def python_and_torch() -> str:
    """What the texts of errors depend on."""
    return f"Python {sys.version_info[0]}.{sys.version_info[1]}, torch {torch.__version__.split('+')[0]}"
