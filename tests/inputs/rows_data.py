"""Datasets and samplers: the data model of PyTorch's loader."""

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from observing import Face, Input, Section, epoch, rest

import forebay

# -- Streams


def stream(face: Face, samples: Callable[[Any], Iterator[Any]], length: int | None = None) -> Any:
    """An iterable dataset of the face's own kind. `samples` is called with the worker's info."""

    class Stream(face.IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return samples(face.get_worker_info())

    class Sized(Stream):
        def __len__(self) -> int:
            return length

    return Stream() if length is None else Sized()


def _all(_info: Any) -> Iterator[int]:
    return iter(range(5))


def _shard(info: Any) -> Iterator[int]:
    return iter(range(7)) if info is None else iter(range(info.id, 7, info.num_workers))


def _breaks(_info: Any) -> Iterator[int]:
    yield from range(2)
    raise ValueError("the stream broke")


def _refuses(_info: Any) -> Iterator[int]:
    raise OSError("no such stream")


class _Generous:
    """Says it is a stream by having `__iter__` alone."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


def _after_len(face: Face, length: int = 2, **options: Any) -> Any:
    loader = face(stream(face, _all, length=length), **options)
    return [f"len {len(loader)}:", *epoch(loader)]


def _two_epochs(loader: Any) -> list[Any]:
    found = [*epoch(loader), "then", *epoch(loader)]
    stop = getattr(loader._iterator, "_shutdown_workers", None) or getattr(loader._iterator, "close", None)
    if stop is not None:
        stop()
    return found


NAMED = "names the option and what it takes"
ADVISES = "the warning advises get_worker_info itself"
ONCE = "once for each worker; PyTorch goes on without end"
READ = "it is read"
SILENT = "an error; PyTorch leaves the sample out"


def _uneven(info: Any) -> Iterator[int]:
    return iter(range(10 * info.id, 10 * info.id + (5, 1, 3)[info.id]))


class _Stops:
    """Of lists of numbers makes sums, but of the second none."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, samples: list[int]) -> int:
        self.calls += 1
        if self.calls == 2:
            raise StopIteration
        return sum(samples)


def _with_items(face: Face) -> Any:
    """A stream that could be read by index, too."""
    dataset = stream(face, _all, length=5)
    type(dataset).__getitem__ = lambda _self, index: index + 100
    return dataset


def _no_length(face: Face) -> str:
    dataset = stream(face, _all, length=0)

    def refuse(_self: Any) -> int:
        raise RuntimeError("how long is a river?")

    type(dataset).__len__ = refuse
    return f"{len(face(dataset))}"


def _unequal(face: Face) -> Callable[[Any], Iterator[Any]]:
    return lambda _info: (face.array([0] * (count + 1)) for count in range(2))


def _locked(_info: Any) -> Iterator[Any]:
    yield 0
    yield threading.Lock()


STREAMS = [
    Input("an iterable dataset", lambda face: face(stream(face, _all), batch_size=2)),
    Input("…, no workers", lambda face: face(stream(face, _all), batch_size=2, num_workers=0)),
    Input(
        "…, two workers: each has a copy and reads all of it",
        lambda face: face(stream(face, _all), batch_size=2, num_workers=2),
    ),
    Input(
        "…, sharded by `get_worker_info()`: a short last batch for each worker",
        lambda face: face(stream(face, _shard), batch_size=3, num_workers=2),
    ),
    Input(
        "…, `drop_last`: dropped for each worker",
        lambda face: face(stream(face, _shard), batch_size=3, num_workers=2, drop_last=True),
    ),
    Input("…, `batch_size=None`", lambda face: face(stream(face, _all), batch_size=None)),
    Input("…, a collate_fn of lists", lambda face: face(stream(face, _all), batch_size=3, collate_fn=list)),
    Input("… with `len`, more samples than it says", _after_len, numpy_reason=ADVISES),
    Input("… with `len`, no workers", lambda face: _after_len(face, num_workers=0)),
    Input(
        "… with `len`, read by two workers in full",
        lambda face: _after_len(face, 5, num_workers=2),
        numpy_reason=ADVISES,
    ),
    Input("… with `len`, fewer samples than it says", lambda face: _after_len(face, 9)),
    Input("… with `len` that nobody asked for", lambda face: face(stream(face, _all, length=2), batch_size=3)),
    Input("`len(loader)` where `__len__` raises", _no_length),
    Input("`len(iterator)`", lambda face: f"{len(iter(face(stream(face, _all, length=5), num_workers=0)))}"),
    Input("`len(loader)` of a stream without `__len__`", lambda face: f"{len(face(stream(face, _all)))}"),
    Input("… that raises in the middle", lambda face: face(stream(face, _breaks), batch_size=2)),
    Input(
        "… whose `__iter__` raises",
        lambda face: face(stream(face, _refuses), batch_size=2),
        reason=ONCE,
        numpy_reason=ONCE,
    ),
    Input(
        "… whose `__iter__` gives no iterator",
        lambda face: face(stream(face, lambda _: [1, 2])),
        reason=ONCE,
        numpy_reason=ONCE,
    ),
    Input("… of three parts of unequal lengths", lambda face: face(stream(face, _uneven), batch_size=2, num_workers=3)),
    Input(
        "… of samples of unequal shapes",
        lambda face: face(stream(face, _unequal(face)), batch_size=2),
        numpy_reason="a ValueError, as of numpy.stack",
        whole=True,
    ),
    Input(
        "… with a sample that cannot be pickled",
        lambda face: face(stream(face, _locked), collate_fn=list),
        reason=SILENT,
        numpy_reason=SILENT,
        whole=True,
    ),
    Input("… whose collate_fn raises StopIteration", lambda face: face(stream(face, _all), collate_fn=_Stops())),
    Input("… that has `__getitem__`, too", lambda face: face(_with_items(face), batch_size=2)),
    Input("… without samples", lambda face: face(stream(face, lambda _: iter(())), num_workers=2)),
    Input(
        "… with persistent workers, two epochs",
        lambda face: _two_epochs(face(stream(face, _all), batch_size=3, persistent_workers=True)),
    ),
    Input("… and `in_order=False`", lambda face: face(stream(face, _all), batch_size=2, in_order=False)),
    Input(
        "torch's ChainDataset of two streams",
        lambda face: face(torch.utils.data.ChainDataset([stream(face, _all), stream(face, _all)]), batch_size=4),
        numpy=False,
    ),
    Input(
        "a `forebay.IterableDataset`, in a torch loader",
        lambda face: face(stream(_numpy_like(face), _all), batch_size=2),
        numpy=False,
    ),
    Input(
        "an object with `__iter__` alone, no IterableDataset",
        lambda face: face(_Generous()),
        reason=NAMED,
        numpy_reason=READ,
    ),
    Input(
        "a generator as the dataset", lambda face: face(number for number in range(3)), reason=NAMED, numpy_reason=READ
    ),
]


def _numpy_like(face: Face) -> Face:
    return Face(face.name, face.DataLoader, face.get_worker_info, forebay.IterableDataset, face.get_collate_registry)


# -- Datasets read by index


class Squares:
    def __init__(self, count: int = 5) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(f"no sample {index}")
        return index * index


class AtOnce(Squares):
    def __getitems__(self, indices: list[int]) -> Any:
        return [index + 100 for index in indices]


class AtOnceAsArray(Squares):
    def __getitems__(self, indices: list[int]) -> Any:
        return np.array(indices) + 100


class AtOnceTooFew(Squares):
    def __getitems__(self, indices: list[int]) -> Any:
        return indices[:1]


class AtOnceNothing(Squares):
    def __getitems__(self, indices: list[int]) -> Any:
        return None


class OnlyAtOnce(Squares):
    def __getitems__(self, indices: list[int]) -> Any:
        return [range(self.count)[index] for index in indices]


class NeverAtOnce(Squares):
    __getitems__ = None


class Growing(Squares):
    """Grows by two while its first epoch is read."""

    def grown(self) -> "Growing":
        self.count += 2
        return self


def _growing(face: Face) -> list[Any]:
    dataset = Growing(3)
    loader = face(dataset, batch_size=2)
    first = epoch(loader)
    dataset.grown()
    return [*first, f"then {len(loader)} batches:", *epoch(loader)]


def _growing_while_read(face: Face) -> list[Any]:
    dataset = Growing(3)
    iterator = iter(face(dataset, batch_size=2))
    dataset.grown()
    return rest(iterator)


class NoLength:
    def __getitem__(self, index: int) -> int:
        return index


class BadLength(NoLength):
    def __len__(self) -> int:
        raise RuntimeError("how long is a piece of string?")


class OddLength(NoLength):
    def __init__(self, length: Any) -> None:
        self.length = length

    def __len__(self) -> Any:
        return self.length


class Bulk(Squares):
    def __getitem__(self, indices: Any) -> Any:
        return np.array(indices) * 10


def _tensors() -> Any:
    return torch.utils.data.TensorDataset(torch.arange(6).reshape(3, 2), torch.arange(3))


MAPS = [
    Input("a map dataset", lambda face: face(Squares(), batch_size=2)),
    Input("… with 3 workers", lambda face: face(Squares(), batch_size=2, num_workers=3)),
    Input("`batch_size=None`", lambda face: face(Squares(), batch_size=None)),
    Input("`drop_last`", lambda face: face(Squares(), batch_size=2, drop_last=True)),
    Input("`drop_last` that leaves nothing", lambda face: face(Squares(), batch_size=9, drop_last=True)),
    Input("fewer batches than workers", lambda face: face(Squares(2), num_workers=5)),
    Input("`__getitems__`", lambda face: face(AtOnce(), batch_size=2)),
    Input("`__getitems__` that gives an array", lambda face: face(AtOnceAsArray(), batch_size=2)),
    Input("`__getitems__` that gives too few samples", lambda face: face(AtOnceTooFew(), batch_size=2)),
    Input("`__getitems__` that gives None", lambda face: face(AtOnceNothing(), batch_size=9)),
    Input("`__getitems__ = None`", lambda face: face(NeverAtOnce(), batch_size=2)),
    Input(
        "`__getitems__` with `batch_size=None`",
        lambda face: face(AtOnce(), batch_size=None),
    ),
    Input("a dataset that has grown since the last epoch", _growing),
    Input("a dataset that grows while it is read", _growing_while_read),
    Input("an empty dataset", lambda face: face([])),
    Input("…, shuffled", lambda face: face([], shuffle=True)),
    Input("a list", lambda face: face([3, 1, 2], batch_size=2)),
    Input("a range", lambda face: face(range(5), batch_size=2)),
    Input("a string", lambda face: face("abc", batch_size=2)),
    Input("a dict with a sampler of its keys", lambda face: face({"a": 1, "b": 2}, sampler=["b", "a"], batch_size=2)),
    Input("a dict without one", lambda face: face({"a": 1, "b": 2})),
    Input("an array", lambda face: face(np.arange(6).reshape(3, 2), batch_size=2)),
    Input("a tensor", lambda face: face(torch.arange(6).reshape(3, 2), batch_size=2), numpy=False),
    Input("torch's TensorDataset", lambda face: face(_tensors(), batch_size=2), numpy=False),
    Input(
        "torch's Subset, ConcatDataset and StackDataset",
        lambda face: face(
            torch.utils.data.StackDataset(
                torch.utils.data.Subset(Squares(), [4, 0, 2, 1]),
                torch.utils.data.ConcatDataset([Squares(2), Squares(2)]),
            ),
            batch_size=2,
        ),
    ),
    Input("None as the dataset", lambda face: face(None), reason=NAMED, numpy_reason=NAMED),
    Input("a number as the dataset", lambda face: face(3), reason=NAMED, numpy_reason=NAMED),
    Input("a dataset without `__len__`", lambda face: face(NoLength())),
    Input("…, with a sampler", lambda face: face(NoLength(), sampler=range(3), batch_size=2)),
    Input("`len(loader)` where the sampler has none", lambda face: f"{len(face(NoLength(), sampler=iter([1])))}"),
    Input("`__len__` raises", lambda face: face(BadLength())),
    Input("… shuffled", lambda face: face(BadLength(), shuffle=True)),
    Input("`__len__` is negative", lambda face: face(OddLength(-1))),
    Input("`__len__` is a float", lambda face: face(OddLength(2.0))),
    Input("a class in place of a dataset", lambda face: face(Squares), reason=NAMED, numpy_reason=NAMED),
]


# -- Samplers


class Raising:
    def __iter__(self) -> Iterator[int]:
        yield 0
        yield 1
        raise ValueError("the sampler broke")


class RefusesToStart:
    def __iter__(self) -> Iterator[int]:
        raise ValueError("no order today")


class Chatty:
    """Any index is good."""

    def __getitem__(self, index: Any) -> str:
        return f"{type(index).__name__} {index!r}"[:40]


def _indices(*indices: Any, **options: Any) -> Callable[[Face], Any]:
    return lambda face: face(Squares(), sampler=list(indices), **options)


READY = "the batches that are ready come first, and the error in its place"

SAMPLERS = [
    Input(
        "a sampler that yields lists, `batch_size=None`",
        lambda face: face(Bulk(), batch_size=None, sampler=[[0, 1], [2]]),
    ),
    Input("a batch sampler: a list of lists", lambda face: face(Squares(), batch_sampler=[[0, 1], [4], [2, 2, 2]])),
    Input("… of tuples", lambda face: face(Squares(), batch_sampler=[(0, 1), (4,)])),
    Input("… of arrays", lambda face: face(Squares(), batch_sampler=[np.array([0, 1]), np.array([4])])),
    Input("… of tensors", lambda face: face(Squares(), batch_sampler=[torch.tensor([0, 1])]), numpy=False),
    Input("… of sets", lambda face: face(Squares(), batch_sampler=[{1}, {2}])),
    Input(
        "… of generators",
        lambda face: face(Squares(), batch_sampler=((i for i in (0, 1)) for _ in range(2))),
        hangs=True,
    ),
    Input("… of numbers", lambda face: face(Squares(), batch_sampler=[1, 2])),
    Input("… with an empty batch", lambda face: face(Squares(), batch_sampler=[[1], [], [2]])),
    Input(
        "a generator as the batch sampler, two epochs",
        lambda face: _two_epochs(face(Squares(), batch_sampler=(b for b in [[1]]))),
    ),
    Input("an endless sampler", lambda face: [next(iter(face(Squares(), sampler=itertools.repeat(2))))]),
    Input("indices that are NumPy integers", _indices(np.int64(1), np.uint8(2), batch_size=2)),
    Input("… that are 0-d tensors", _indices(torch.tensor(1), torch.tensor(2), batch_size=2), numpy=False),
    Input("… that are 0-d arrays", _indices(np.array(1), np.array(2), batch_size=2)),
    Input("… out of range", _indices(1, 9, 2)),
    Input("… out of range, with `__getitems__`", lambda face: face(OnlyAtOnce(), sampler=[1, 9], batch_size=2)),
    Input("… negative", _indices(1, -1, 2)),
    Input("… negative, for a list", lambda face: face([5, 6, 7], sampler=[0, -1])),
    Input("… that are floats, for a list", lambda face: face([5, 6, 7], sampler=[0, 1.5, 2])),
    Input("… that are strings, for a list", lambda face: face([5, 6, 7], sampler=["a"])),
    Input(
        "… of every type",
        lambda face: face(Chatty(), sampler=[1, True, None, "a", b"b", 1.5, (1, 2), 2**70, -3, [4]], batch_size=10),
    ),
    Input(
        "… that no pickle can hold",
        lambda face: face(Chatty(), sampler=[1, Chatty.__getitem__.__get__(lambda: 0)]),
        hangs=True,
    ),
    Input(
        "a sampler that raises in the middle",
        lambda face: face(Squares(), sampler=Raising()),
        reason=READY,
        numpy_reason=READY,
    ),
    Input("… in its `__iter__`", lambda face: face(Squares(), sampler=RefusesToStart())),
    Input("a sampler that is no iterable", lambda face: face(Squares(), sampler=3), reason=NAMED, numpy_reason=NAMED),
    Input(
        "a batch sampler that is no iterable",
        lambda face: face(Squares(), batch_sampler=3),
        reason=NAMED,
        numpy_reason=NAMED,
    ),
    Input(
        "an iterator as the sampler, two epochs",
        lambda face: _two_epochs(face(Squares(), sampler=iter([1, 2]), batch_size=2)),
    ),
    Input("an empty sampler", lambda face: face(Squares(), sampler=[])),
]

SECTIONS = [
    Section(
        "Iterable datasets",
        "Five numbers, or seven shared by two workers; one worker where nothing else is said.",
        STREAMS,
    ),
    Section("Map datasets", "", MAPS),
    Section("Samplers", "", SAMPLERS),
]
