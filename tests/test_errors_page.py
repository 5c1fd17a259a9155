"""docs/errors.md has every error, warning and note, each as it really is.

A case provokes one message. It must be one of the page's, and every message of the page must have a case.
"""

import ast
import contextlib
import errno
import functools
import multiprocessing
import os
import pickle
import re
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import forebay
import forebay.sampler
import forebay.torch
from forebay import _descriptors, _fallback, _report, _run, errors
from support import Front, Gate, Numbers, SlowFirst, Wire, front_named, generator, identity, in_child, journey_of

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"
BOTH = ("numpy", "torch")
PLACEHOLDER = re.compile(r"<[a-zA-Z][^<>]*>")

# -- The page


@dataclass(frozen=True)
class Row:
    message: str
    classes: tuple[str, ...]
    fronts: tuple[str, ...]

    @property
    def pattern(self) -> str:
        parts = PLACEHOLDER.split(self.message)
        # What stands at a word without a space between, as in "word<more>", may be missing.
        joints = [".*" if part[-1:].isalpha() else ".+" for part in parts[:-1]]
        return "".join(re.escape(part) + joint for part, joint in zip(parts, [*joints, ""], strict=True))

    @property
    def letters(self) -> int:
        """How much of the message is said literally: of two rows that match, that which says more is meant."""
        return len(PLACEHOLDER.sub("", self.message))


def _row(line: str) -> Row:
    message, kind, cause, _ = (cell.strip() for cell in line.strip().strip("|").split(" | "))
    assert cause, line
    only = [front for front in BOTH if re.search(rf", {front}$", kind, re.IGNORECASE)]
    classes = tuple(re.findall(r"`(\w+)`", kind)) or (kind.split(",", maxsplit=1)[0],)
    return Row(message.strip("`"), classes, tuple(only) or BOTH)


def _rows() -> list[Row]:
    _, _, tables = PAGE.read_text().partition("\n## Options\n")
    lines = [line for line in tables.splitlines() if line.startswith("| ")]
    return [_row(line) for line in lines if not line.startswith("| message")]


ROWS = _rows()


def _row_of(kind: str, text: str) -> Row:
    rows = [row for row in ROWS if kind in row.classes and re.fullmatch(row.pattern, text)]
    assert rows, f"not on {PAGE.name}: {kind}: {text}"
    return max(rows, key=lambda row: row.letters)


# -- Cases


@dataclass(frozen=True)
class Case:
    fronts: tuple[str, ...]
    said: Callable[[Front], list[tuple[str, str]]]
    """What is said in a front: classes and texts."""


CASES: dict[str, Case] = {}


def _words(text: object) -> str:
    return " ".join(str(text).split())


def _name_of(error: BaseException | type[BaseException]) -> str:
    return (error if isinstance(error, type) else type(error)).__name__


def _caught(action: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whatever it is, the page must have it
        action()
    return caught.value


def raised(action: Callable[[Front], object], fronts: tuple[str, ...] = BOTH) -> Case:
    def said(front: Front) -> list[tuple[str, str]]:
        error = _caught(lambda: action(front))
        if str(error).startswith("Caught ") and error.__cause__ is not None:  # torch's words around a worker's
            error = error.__cause__
        return [(_name_of(error), _words(error))]

    return Case(fronts, said)


def noted(action: Callable[[Front], object], fronts: tuple[str, ...] = BOTH) -> Case:
    """The notes of an exception: all of them count."""

    def said(front: Front) -> list[tuple[str, str]]:
        notes = getattr(_caught(lambda: action(front)), "__notes__", [])
        assert notes
        assert all(note.startswith("[forebay] ") for note in notes)
        return [("note", _words(note.removeprefix("[forebay] "))) for note in notes]

    return Case(fronts, said)


def warned(action: Callable[[Front], object], fronts: tuple[str, ...] = BOTH) -> Case:
    def said(front: Front) -> list[tuple[str, str]]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forks of a threaded process
            action(front)
        return [(_name_of(warning.category), _words(warning.message)) for warning in caught]

    return Case(fronts, said)


def _in_rust(file: str, variant: str, *, of: str = "EngineError") -> Case:
    """The text of an error that nothing can provoke from outside, from the source that makes it."""
    source = (ROOT / "crates" / file).read_text()
    found = re.search(rf'#\[error\(\s*"((?:[^"\\]|\\.)*)"\s*\)\]\s*{variant}\b', source, re.DOTALL)
    assert found is not None, variant
    text = re.sub(r"\{[^{}]*\}", "7", re.sub(r"\\\n\s*", "", found.group(1)))
    return Case(BOTH, lambda _: [(of, _words(text))])


def option(**options: Any) -> Callable[[Front], object]:
    dataset = options.pop("dataset", [1, 2])
    return lambda front: front.DataLoader(dataset, **options)


def epoch(dataset: Any, **options: Any) -> Callable[[Front], object]:
    return lambda front: list(front.DataLoader(dataset, **{"num_workers": 1, **options}))


class Stream(torch.utils.data.IterableDataset[int]):
    """Three numbers from every worker, although three are promised."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        return 3


NUMPY, TORCH = ("numpy",), ("torch",)

WRONG_TYPES: dict[str, Any] = {
    "num_workers": "4",
    "timeout": "1",
    "prefetch_factor": 1.5,
    "collate_fn": 3,
    "worker_init_fn": 3,
    "memory_budget": "1G",
    "sampler": 3,
    "batch_sampler": 3,
}
CASES |= {f"{name} of a wrong type": raised(epoch([1], **{name: value})) for name, value in WRONG_TYPES.items()}
CASES["a dataset of a wrong type"] = raised(epoch(7))


def _assign(front: Front) -> None:
    front.DataLoader([1]).batch_size = 2


OPTIONS: dict[str, dict[str, Any]] = {
    "negative num_workers": {"num_workers": -1},
    "prefetch without workers": {"prefetch_factor": 2},
    "negative prefetch": {"prefetch_factor": -1, "num_workers": 1},
    "no prefetch": {"prefetch_factor": 0, "num_workers": 1},
    "persistent without workers": {"persistent_workers": True},
    "negative timeout": {"timeout": -1},
    "no budget": {"memory_budget": 0},
    "a generator of a wrong type": {"generator": "seed"},
    "context without workers": {"multiprocessing_context": "fork"},
    "unknown context": {"multiprocessing_context": "thread", "num_workers": 1},
    "context of a wrong type": {"multiprocessing_context": 3, "num_workers": 1},
    "sampler and shuffle": {"sampler": [0], "shuffle": True},
    "batch sampler and batch size": {"batch_sampler": [[0]], "batch_size": 2},
    "drop_last without batches": {"batch_size": None, "drop_last": True},
    "shuffle of a stream": {"dataset": Stream(), "shuffle": True},
    "sampler of a stream": {"dataset": Stream(), "sampler": [0]},
    "batch sampler of a stream": {"dataset": Stream(), "batch_sampler": [[0]]},
    "batch size 0": {"batch_size": 0},
    "drop_last of a wrong type": {"drop_last": "yes"},
    "shuffle of nothing": {"dataset": [], "shuffle": True},
    "a negative seed of a loader": {"seed": -1},
    "rank without a seed": {"rank": 0, "world": 2},
    "uneven in other words": {"seed": 7, "uneven": "Pad"},
    "rank without world": {"seed": 7, "rank": 0},
    "rank outside of world": {"seed": 7, "rank": 4, "world": 4},
    "world of nobody": {"seed": 7, "rank": 0, "world": 0},
    "ranks of a stream": {"dataset": Stream(), "seed": 7, "rank": 0, "world": 2},
    "ranks of batches": {"batch_sampler": [[0]], "seed": 7, "rank": 0, "world": 2},
    "ranks of a share": {"sampler": forebay.sampler.ShardSampler(3, rank=0, world=2), "seed": 7, "rank": 0, "world": 2},
}
for _name, _options in OPTIONS.items():
    CASES[_name] = raised(option(**_options))


def _set(name: str, value: object) -> Callable[[Front], object]:
    def begin(front: Front) -> object:
        loader = front.DataLoader([1], num_workers=1)
        setattr(loader, name, value)
        return iter(loader)

    return begin


CASES |= {
    "datapipe": raised(lambda front: front.DataLoader(torch.utils.data.datapipes.iter.IterableWrapper([1])), NUMPY),
    "num_workers set later": raised(_set("num_workers", -1)),
    "prefetch_factor set later": raised(_set("prefetch_factor", 0)),
    "a pickled iterator": raised(lambda front: pickle.dumps(iter(front.DataLoader([1]))), NUMPY),
    "timeout nan": raised(option(timeout=float("nan")), NUMPY),
    "timeout without workers": raised(epoch([1], timeout=1, num_workers=0), NUMPY),
    "a negative seed": raised(option(generator=-1), NUMPY),
    "a seed and a generator": raised(lambda front: front.DataLoader([1], seed=7, generator=generator(front, 3))),
    "an epoch of a loader": raised(lambda front: front.DataLoader([1], seed=7).set_epoch(-1)),
    "an epoch without a seed": raised(lambda front: front.DataLoader([1]).set_epoch(1), TORCH),
    "timeout with a seed": raised(epoch([1], timeout=1, num_workers=0, seed=7), TORCH),
    "a tiny budget": raised(epoch([1], memory_budget=1)),
    "too far ahead": raised(epoch([1], prefetch_factor=100_000)),
    "farther than can be counted": raised(epoch([1], prefetch_factor=2**40)),
    "assigned": raised(_assign),
}

# -- The command, the environment, and loaders of others


def _in_environment(action: Callable[[Front], object], **variables: str) -> Callable[[Front], object]:
    def act(front: Front) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            action(front)

    return act


def _isolated(_: Front) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_run, "sys", SimpleNamespace(flags=SimpleNamespace(isolated=1)))
        _run._check([__file__])


CASES |= {
    "an unknown option": raised(lambda _: forebay.configure(memory=1)),
    "a size": raised(lambda _: forebay.configure(memory_budget="lots")),
    "a variable": raised(_in_environment(epoch([1]), FOREBAY_MEMORY_BUDGET="lots")),
    "a switch": raised(_in_environment(lambda _: forebay.install(), FOREBAY="no")),
    "no program": raised(lambda _: _run._check([])),
    "no file": raised(lambda _: _run._check(["nowhere.py"])),
    "isolated": raised(_isolated),
    "wrap": raised(lambda _: forebay.torch.wrap([1]), TORCH),
}

# -- Dataset and collate


class WithoutItems(forebay.Dataset[int]):
    def __len__(self) -> int:
        return 1


class WithoutItemsForTorch(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 1


class WithoutIter(forebay.IterableDataset[int]):
    pass


class Half(forebay.Subset[int]):
    def __getitem__(self, index: Any) -> int:
        return 0


def _half_a_subset(_: Front) -> object:
    return Half([1], [0])


class RefusesOnce:
    """Cannot be pickled the first time, so that nothing can tell why."""

    refused = False

    def __reduce__(self) -> Any:
        if not RefusesOnce.refused:
            RefusesOnce.refused = True
            raise RuntimeError("not now")
        return RefusesOnce, ()


class InGraph(Numbers):
    def __getitem__(self, index: int) -> Any:
        return torch.ones(2, requires_grad=True) * 2


class Faulty(Numbers):
    """Its only sample is what a function returns or raises."""

    def __init__(self, fault: Callable[[], Any]) -> None:
        super().__init__(1)
        self.fault = fault

    def __getitem__(self, index: int) -> Any:
        return self.fault()


def throwing(error: BaseException | type[BaseException]) -> Callable[..., Any]:
    def throw(*_: Any) -> Any:
        raise error

    return throw


class NeedsMore(Exception):
    def __init__(self, first: int, second: int) -> None:
        super().__init__(first)


def _as_torch_says_it(front: Front) -> list[tuple[str, str]]:
    error = _caught(lambda: epoch(Faulty(throwing(OSError("bad"))))(front))
    assert isinstance(error, OSError)
    return [("your own", _words(error))]


CASES |= {
    "no __getitem__": raised(
        lambda front: epoch(WithoutItems() if front.name == "numpy" else WithoutItemsForTorch())(front)
    ),
    "no __iter__": raised(epoch(WithoutIter()), NUMPY),
    "half a subset": raised(_half_a_subset, NUMPY),
    "objects": raised(epoch([object()]), NUMPY),
    "shapes": raised(epoch([np.zeros(1), np.zeros(2)], batch_size=2), NUMPY),
    "huge integers": raised(epoch([2**70]), NUMPY),
    "lengths": raised(epoch([[1], [1, 2]], batch_size=2)),
    "a lock in a sample": raised(epoch(Faulty(lambda: {"lock": threading.Lock()}), collate_fn=identity)),
    "a lambda of collate_fn": raised(epoch([1], collate_fn=lambda _: [lambda: 0])),
    "a culprit that hides": raised(epoch(Faulty(RefusesOnce), collate_fn=identity)),
    "a graph": raised(epoch(InGraph(1), collate_fn=identity), TORCH),
    "torch's words": Case(TORCH, _as_torch_says_it),
    "an exception that cannot travel": raised(epoch(Faulty(throwing(NeedsMore(1, 2)))), NUMPY),
}

# -- Samplers


def numpy_sampler(name: str, *arguments: Any, **options: Any) -> Case:
    return raised(lambda _: list(getattr(forebay, name)(*arguments, **options)), NUMPY)


def _emptied(_: Front) -> list[int]:
    return list(forebay.RandomSampler([], num_samples=3))


def _of_the_front(name: str, *arguments: Any, **options: Any) -> Case:
    modules: dict[str, Any] = {"numpy": forebay, "torch": torch.utils.data}
    return raised(lambda front: getattr(modules[front.name], name)(*arguments, **options))


CASES |= {
    "no __iter__ of a sampler": numpy_sampler("Sampler"),
    "num_samples 0": _of_the_front("RandomSampler", [1], num_samples=0),
    "replacement of a wrong type": _of_the_front("RandomSampler", [1], replacement="no"),
    "replacement of weights of a wrong type": _of_the_front("WeightedRandomSampler", [1.0], 1, replacement="no"),
    "nothing to draw from": raised(_emptied, NUMPY),
    "weights in a square": numpy_sampler("WeightedRandomSampler", np.ones((2, 2)), 1),
    "negative weights": numpy_sampler("WeightedRandomSampler", [-1.0, 2.0], 1),
    "weights of nothing": numpy_sampler("WeightedRandomSampler", [0.0, 0.0], 1),
    "too few weights": numpy_sampler("WeightedRandomSampler", [0.0, 1.0], 2, replacement=False),
    "no rank": numpy_sampler("DistributedSampler", [1]),
    "rank outside": numpy_sampler("DistributedSampler", [1], num_replicas=2, rank=2),
}


def _of_seeds(name: str, *arguments: Any, **options: Any) -> Case:
    return raised(lambda _: getattr(forebay.sampler, name)(*arguments, **options), NUMPY)


def _loading_into_a_sampler(change: Callable[[Any], Any]) -> Case:
    sampler = forebay.sampler.ShuffleSampler(3)
    return raised(lambda _: sampler.load_state_dict(change(sampler.state_dict())), NUMPY)


def _among_ranks(**variables: str) -> Case:
    def act(front: Front) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("RANK", "WORLD_SIZE"):
                patch.delenv(name, raising=False)
            for name, text in variables.items():
                patch.setenv(name, text)
            iter(front.DataLoader([1], seed=7))

    return raised(act)


CASES |= {
    "a negative seed of a sampler": _of_seeds("ShuffleSampler", 3, seed=-1),
    "a negative epoch of a sampler": raised(lambda _: forebay.sampler.ShuffleSampler(3).set_epoch(-1), NUMPY),
    "no data source": _of_seeds("ShuffleSampler", None),
    "a subset of letters": _of_seeds("SubsetSampler", "ab"),
    "lengths of letters": _of_seeds("LengthGroupedSampler", ["a"], 2),
    "megabatches of nothing": _of_seeds("LengthGroupedSampler", [1], 2, megabatch=0),
    "a negative block": _of_seeds("BlockShuffleSampler", 3, [4, -1]),
    "blocks of another source": _of_seeds("BlockShuffleSampler", 3, [2, 2]),
    "unknown unevenness": _of_seeds("ShardSampler", 3, rank=0, world=1, uneven="split"),
    "a share without a seed": _of_seeds("ShardSampler", forebay.RandomSampler([1]), rank=0, world=1),
    "a rank of how many": _of_seeds("ShardSampler", 3, rank=0),
    "a rank outside": _of_seeds("ShardSampler", 3, rank=2, world=2),
    "no ranks": _of_seeds("ShardSampler", 3, rank=0, world=0),
    "RANK alone": _among_ranks(RANK="1"),
    "RANK in words": _among_ranks(RANK="one", WORLD_SIZE="2"),
    "RANK outside": _among_ranks(RANK="2", WORLD_SIZE="2"),
    "no sampler's state": _loading_into_a_sampler(lambda _: {"weight": 1}),
    "a sampler's later state": _loading_into_a_sampler(lambda state: state | {"version": 2}),
    "a sampler's damaged state": _loading_into_a_sampler(lambda state: state | {"epoch": "one"}),
    "another sampler's state": _loading_into_a_sampler(lambda _: forebay.sampler.ShuffleSampler(4).state_dict()),
}

# -- Workers


def dies(fault: Callable[[], Any], **options: Any) -> Case:
    return raised(epoch(Faulty(fault), **options))


def by_signal(number: int) -> Callable[[], Any]:
    return functools.partial(_kill_myself, number)


def _kill_myself(number: int) -> None:
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL,) else None
    os.kill(os.getpid(), number)
    signal.pause()


class EndsOnArrival:
    """Ends the process that unpickles it."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def _timed_out(front: Front) -> None:
    gate = Gate()
    try:
        next(iter(front.DataLoader(SlowFirst(2, front.get_worker_info, gate), num_workers=1, timeout=0.05)))
    finally:
        gate.open()


def _on_an_accelerator(patch: pytest.MonkeyPatch, pin: Callable[[Any], Any]) -> None:
    """As if there were one, on which `pin` pins tensors."""
    patch.setattr(torch.accelerator, "is_available", lambda: True)
    patch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    patch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    patch.setattr(torch.accelerator, "set_device_index", lambda _: None)
    patch.setattr(torch.Tensor, "pin_memory", lambda tensor: pin(tensor))
    patch.setattr("forebay.torch._pinning._CHECK_S", 0.01)


def _pinned_too_slowly(front: Front) -> None:
    gate = Gate()
    with pytest.MonkeyPatch.context() as patch:
        _on_an_accelerator(patch, lambda _: gate.wait())
        iterator = iter(front.DataLoader([1], num_workers=1, pin_memory=True, timeout=0.05))
        try:
            while True:
                try:
                    next(iterator)
                except errors.LoaderTimeout as error:
                    if "has not finished" not in str(error):  # on a slow machine, the batch itself may be late
                        raise
        finally:
            gate.open()


def _pinned_by_nobody(front: Front) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _on_an_accelerator(patch, lambda _: sys.exit())
        patch.setattr(threading, "excepthook", lambda _: None)
        next(iter(front.DataLoader([1], num_workers=1, pin_memory=True)))


_SIGNALS = ("SIGKILL", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTERM", "SIGUSR1")
CASES |= {name: dies(by_signal(getattr(signal, name))) for name in _SIGNALS}
CASES |= {
    "exit with 1": dies(lambda: os._exit(1)),
    "exit with 3": dies(lambda: os._exit(3)),
    "exit on arrival": raised(epoch(EndsOnArrival(), multiprocessing_context="forkserver"), NUMPY + TORCH),
    "sys.exit": dies(lambda: sys.exit(3)),
    "sys.exit in worker_init_fn": raised(epoch([1], worker_init_fn=throwing(SystemExit))),
    "a timeout": raised(_timed_out),
    "a timeout while pinning": raised(_pinned_too_slowly, TORCH),
    "nobody pins": raised(_pinned_by_nobody, TORCH),
    # No worker sends anything but reports, so the function that reads them is asked.
    "no report": raised(lambda _: _report.unpack(pickle.dumps("no report"))),
}

# -- Memory and descriptors


class Wide(Numbers):
    """Samples of any number of bytes, which take none themselves."""

    def __getitem__(self, index: int) -> Any:
        return np.broadcast_to(np.int8(0), (self.size,))


class Telling(Numbers):
    """Tells when it is asked for its third sample: then two batches are done."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(3, 655_360)
        self.wire = wire

    def __getitem__(self, index: int) -> Any:
        if index == 2:
            self.wire.send(index)
        return super().__getitem__(index)


def _two_in_flight(front: Front) -> None:
    wire = Wire()
    iterator = iter(front.DataLoader(Telling(wire), num_workers=1, prefetch_factor=3, memory_budget=8 << 20))
    wire.receive()
    wire.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.MemoryBudgetWarning)  # it may come first
        list(iterator)


def _wide(size: int, **options: Any) -> Case:
    # The NumPy front, where the engine reserves memory before anything is copied; the torch front has the same text.
    return Case(
        BOTH,
        lambda _: raised(epoch(Wide(8, size), **options)).said(front_named("numpy")),
    )


@contextlib.contextmanager
def _few_descriptors(spare: int) -> Iterator[None]:
    """Leaves this process that many descriptors."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held = [os.dup(2)]
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1, before[1])
    )
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(2))
        for _ in range(spare):
            os.close(held.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in held:
            os.close(descriptor)


def _without_descriptors(front: Front) -> None:
    loader = front.DataLoader([1], num_workers=1)
    iter(front.DataLoader([1], num_workers=1)).close()  # imports what is needed
    with _few_descriptors(0):
        iter(loader)


def _exhaust() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    while True:
        os.dup(2)


def _whole_system(_: Front) -> None:
    # The whole system's descriptors are not ours to use up: the function that makes the note is given such an error.
    with _descriptors.explained("the trainer", "Close files"):
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))


CASES |= {
    "a batch over the budget": raised(epoch(Numbers(1, 2_000_000), memory_budget=8 << 20)),
    "batches over the budget": raised(_two_in_flight),
    # As much as the engine lets a batch have, and hardly a machine has.
    "a batch over the memory": _wide(2**40 - 2**20, memory_budget=2**50),
    "no descriptors": raised(_without_descriptors),
    "no descriptors, noted": noted(_without_descriptors),
    "no descriptors in a worker": noted(epoch(Faulty(_exhaust))),
    "no descriptors anywhere": noted(_whole_system),
    # Only memory that is overwritten, or a fault of the engine, leads there.
    "corrupt": _in_rust("forebay-shm/src/error.rs", "Corrupt"),
    "full": _in_rust("forebay-shm/src/error.rs", "QueueFull"),
    "nonsense": _in_rust("forebay-engine/src/error.rs", "Protocol"),
    "a layout of nonsense": _in_rust("forebay-engine/src/error.rs", "Layout"),
}

# -- Iterators and processes


def _in_a_child(front: Front) -> None:
    iterator = iter(front.DataLoader(Numbers(4), num_workers=1))
    out, into = os.pipe()

    def use() -> None:
        os.write(into, pickle.dumps(_caught(lambda: next(iterator))))

    assert in_child(use) == 0
    raise pickle.loads(os.read(out, 4096))


def _after_close(front: Front) -> None:
    iterator: Any = iter(front.DataLoader([1], num_workers=1))
    iterator.close()
    journey_of(iterator).begin(iter([[0]]))  # what another thread's iter() of persistent workers comes to


CASES |= {"a forked child": raised(_in_a_child), "closed": raised(_after_close)}

# -- States


class TellingStream(Stream):
    """A stream that tells its state."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class TellingTooMuch(Numbers):
    def state_dict(self) -> dict[str, Any]:
        return {"function": lambda: None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def _taken(loader: Any) -> Any:
    next(iter(loader))
    return loader.state_dict()


def loading(change: Callable[[Any], Any]) -> Case:
    """A state that was changed."""
    return raised(
        lambda front: front.DataLoader([1, 2]).load_state_dict(change(_taken(front.DataLoader([1, 2])))), TORCH
    )


def loading_with_seed(change: Callable[[Any], Any], **options: Any) -> Case:
    """The same, with a seed."""

    def act(front: Front) -> None:
        state = change(_taken(front.DataLoader([1, 2], seed=7)))
        front.DataLoader([1, 2], **({"seed": 7} | options)).load_state_dict(state)

    return raised(act)


def _changed(state: Any, **parts: Any) -> Any:
    return state | {"forebay": state["forebay"] | parts} if "forebay" in state else state | parts


def _of_the_other(front: Front) -> None:
    other = front_named("torch" if front.name == "numpy" else "numpy")
    front.DataLoader([1, 2], seed=7).load_state_dict(_taken(other.DataLoader([1, 2], seed=7)))


def _on_another_rank(front: Front) -> None:
    ranks = [front.DataLoader([1, 2], seed=7, rank=rank, world=2, in_order=False) for rank in range(2)]
    ranks[1].load_state_dict(_taken(ranks[0]))
    iter(ranks[1])


def _in_another_epoch(front: Front) -> None:
    loader = front.DataLoader([1, 2], seed=7)
    loader.load_state_dict(_taken(front.DataLoader([1, 2], seed=7)))
    loader.set_epoch(3)


def resuming(taken: Any, other: Any = None, **options: Any) -> Callable[[Front], object]:
    """The state of a loader over one dataset, in another loader."""

    def act(front: Front) -> None:
        loader = front.DataLoader(taken if other is None else other, **({"num_workers": 1} | options))
        loader.load_state_dict(_taken(front.DataLoader(taken, num_workers=1)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if other is not None else "always", errors.StateWarning)
            next(iter(loader))

    return act


def _changed_stream(front: Front) -> None:
    state = _taken(front.DataLoader(TellingStream(), num_workers=1))
    front.DataLoader(TellingStream(), num_workers=1).load_state_dict(state | {"_num_yielded": 0})


def _unserved(front: Front) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forebay.torch._serving.engine_is_missing", lambda: True)
        return _taken(front.DataLoader([1, 2]))


def _resuming_unserved(front: Front) -> None:
    loader = front.DataLoader([1, 2])
    loader.load_state_dict(_taken(front.DataLoader([1, 2])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forebay.torch._serving.engine_is_missing", lambda: True)
        iter(loader)


CASES |= {
    "a state that is none": loading(lambda _: [1]),
    "another object's state": loading(lambda _: {"weight": 1}),
    "a damaged state": loading(lambda state: state | {"_num_yielded": -1}),
    "a damaged version": loading(lambda state: state | {"forebay": {"version": "one"}}),
    "a later version": loading(lambda state: state | {"forebay": {"version": 99}}),
    "no state": raised(lambda front: front.DataLoader([1]).load_state_dict({"weight": 1}), NUMPY),
    "a later version of either front": loading_with_seed(lambda state: _changed(state, version=99)),
    "a damaged state with a seed": loading_with_seed(lambda state: _changed(state, epoch=-1)),
    "a state of another order": loading_with_seed(lambda state: state, shuffle=True),
    "a state with a seed for one without": loading_with_seed(lambda state: state, seed=None),
    "a state of the other front": raised(_of_the_other),
    "a state of another rank": raised(_on_another_rank),
    "a state of another epoch": warned(_in_another_epoch),
    "torchdata's state": loading(lambda state: {"_num_yielded": 1}),
    "an unserved state": raised(lambda front: front.DataLoader([1, 2]).load_state_dict(_unserved(front)), TORCH),
    "an unserved loader": raised(_resuming_unserved, TORCH),
    "another length": raised(resuming([1, 2], [1, 2, 3]), TORCH),
    "another generator": raised(
        lambda front: front.DataLoader([1, 2], generator=torch.Generator()).load_state_dict(
            _taken(front.DataLoader([1, 2]))
        ),
        TORCH,
    ),
    "another number of workers": raised(resuming(TellingStream(), num_workers=2)),
    "a state for nobody": raised(resuming(TellingStream(), Stream())),
    "a state that cannot be sent": raised(epoch(TellingTooMuch(1))),
    "a stream read again": warned(resuming(Stream())),
    "a stream that cannot go back": warned(_changed_stream, TORCH),
}

# -- Warnings


def _told_too_little(front: Front) -> None:
    loader = front.DataLoader(Stream(), num_workers=2, batch_size=None)
    len(loader)
    list(loader)


class Drawing(Numbers):
    def __init__(self) -> None:
        super().__init__(2)
        self.generator = np.random.default_rng(0)


def _without_engine(front: Front) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forebay.loader.engine_is_missing", lambda: True)
        patch.setattr(_fallback, "_said", set())
        list(front.DataLoader([1], num_workers=1))


def _seeded_without_engine(front: Front) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forebay._seeding.engine_is_missing", lambda: True)
        front.DataLoader([1], seed=7)


class WithIterators(torch.utils.data.DataLoader[int]):
    def _get_iterator(self) -> Any:
        return torch.utils.data.dataloader._MultiProcessingDataLoaderIter(self)


def _with_iterators(_: Front) -> None:
    forebay.install()
    try:
        list(WithIterators([1], num_workers=1))
    finally:
        forebay.uninstall()


def _with_threads(front: Front) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("forebay.torch._serving.engine_is_missing", lambda: True)
        patch.setattr(_fallback, "_said", set())
        list(front.DataLoader([1], num_workers=1))


CASES |= {
    "too many workers": warned(option(num_workers=5000)),
    "more than was told": warned(_told_too_little),
    "all kept": warned(epoch(Numbers(80, 20_000), memory_budget=2 << 20, num_workers=2)),
    "StopIteration": warned(epoch(Faulty(throwing(StopIteration)))),
    "StopIteration here": warned(epoch(Faulty(throwing(StopIteration)), num_workers=0), NUMPY),
    "StopIteration of collate_fn": warned(epoch([1], collate_fn=throwing(StopIteration))),
    "equal generators": warned(epoch(Drawing(), num_workers=2)),
    "not served": warned(_with_threads, TORCH),
    "iterators of its own": warned(_with_iterators, TORCH),
    "no engine": warned(_without_engine, NUMPY),
    "no engine for a seed": raised(_seeded_without_engine),
}

# -- Notes


class Nested(Numbers):
    def __getitem__(self, index: int) -> Any:
        return list(forebay.DataLoader([1], num_workers=1))


class RefusesToArrive(Numbers):
    def __setstate__(self, state: Any) -> None:
        raise RuntimeError("not here")


def _in_a_daemon(_: Front) -> None:
    process: Any = multiprocessing.current_process()
    process._config["daemon"] = True  # as multiprocessing marks its daemonic children
    try:
        iter(forebay.DataLoader([1], num_workers=1))
    finally:
        del process._config["daemon"]


CASES |= {
    "an error of a sample": noted(epoch(Faulty(throwing(OSError)))),
    "an error of collate_fn": noted(epoch([1], collate_fn=throwing(OSError))),
    "an error of worker_init_fn": noted(epoch([1], worker_init_fn=throwing(OSError))),
    "an error of a sample here": noted(epoch(Faulty(throwing(OSError)), num_workers=0), NUMPY),
    "an index too large": noted(epoch([1], sampler=[7])),
    "an index of letters": noted(epoch([1], sampler=["a"])),
    "no list": noted(epoch([1], batch_sampler=[1])),
    "samples that differ": noted(epoch([np.zeros(1), np.zeros(2)], batch_size=2)),
    "samples that differ within": noted(epoch([{"a": np.zeros(1)}, {"a": np.zeros(2)}], batch_size=2)),
    "samples of no rule": noted(epoch([{"a": {1}}, {"a": {2}}], batch_size=2)),
    "nothing to pickle": noted(epoch([lambda: 0], multiprocessing_context="spawn")),
    "not arriving": noted(epoch(RefusesToArrive(1), multiprocessing_context="forkserver")),
    "in a daemon": noted(_in_a_daemon),
}

# -- Laws


@functools.cache
def _said(name: str, front: str) -> tuple[tuple[str, str], ...]:
    return tuple(CASES[name].said(front_named(front)))


CALLS = [(name, front) for name, case in CASES.items() for front in case.fronts]


@pytest.mark.parametrize(("name", "front"), CALLS)
def test_what_is_said_is_on_the_page(name: str, front: str) -> None:
    said = _said(name, front)
    assert said
    for kind, text in said:
        assert front in _row_of(kind, text).fronts, f"{front}: {text}"


def test_every_message_of_the_page_is_said_in_every_front_that_it_names() -> None:
    said = {(_row_of(kind, text), kind, front) for name, front in CALLS for kind, text in _said(name, front)}
    listed = {(row, kind, front) for row in ROWS for kind in row.classes for front in row.fronts}
    assert listed == said


@pytest.mark.parametrize("name", errors.__all__)
def test_every_public_class_is_on_the_page_with_what_else_it_is(name: str) -> None:
    assert f"`{name}`" in PAGE.read_text()
    bases = [base.__name__ for base in getattr(errors, name).__bases__ if not base.__name__.startswith("Forebay")]
    if issubclass(getattr(errors, name), errors.ForebayError) and bases != ["Exception"]:
        line = next(line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |"))
        assert sorted(re.findall(r"`(\w+)`", line)) == sorted([name, *bases])


def _spelled(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The messages that `raise` statements of a file spell: the parts between what is filled in."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func)[0].isupper():
            text = node.exc.args[0] if node.exc.args else ast.Constant("")
            values = text.values if isinstance(text, ast.JoinedStr) else [text]
            parts = [str(value.value) if isinstance(value, ast.Constant) else "\0" for value in values]
            if parts != ["\0"]:
                yield node.lineno, "".join(parts).split("\0")


def test_every_message_that_the_source_raises_is_on_the_page() -> None:
    def is_listed(parts: list[str]) -> bool:
        filled = _words("7".join(parts))
        pattern = ".+".join(re.escape(_words(f"_{part}_")[1:-1]) for part in parts)
        return any(re.fullmatch(row.pattern, filled) or re.search(pattern, row.message) for row in ROWS)

    missing = [
        f"{path.relative_to(ROOT)}:{line}: {parts}"
        for path in sorted((ROOT / "python" / "forebay").rglob("*.py"))
        for line, parts in _spelled(path)
        if not is_listed(parts)
    ]
    assert not missing, "\n".join(missing)
