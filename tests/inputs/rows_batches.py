"""What samples and batches are made of: values, containers, and how tensors lie in memory."""

import dataclasses
import io
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from observing import Face, Input, Section, describe
from samples import LEAVES, RETURNS, Custom

# -- What a collate_fn returns


def returning(make: Callable[[], Any]) -> Callable[[Face], Any]:
    """A loader of one batch, which is what `make` gives in the worker."""
    return lambda face: face([0], collate_fn=lambda _samples: make())


def _returned(title: str, name: str, **more: Any) -> Input:
    return Input(title, returning(RETURNS[name]), **more)


def _stuck(title: str, make: Callable[[], Any], **more: Any) -> Input:
    """A batch that cannot be pickled: torch's worker waits for ever."""
    return Input(title, returning(make), hangs=True, **more)


@dataclasses.dataclass
class LocalState:
    lock: Any


def _generator() -> Any:
    yield 1


def _local_object() -> Any:
    class Local:
        pass

    return Local()


COLLATED = [
    Input("None", returning(lambda: None)),
    Input("an int", returning(lambda: 7)),
    Input("an int beyond 64 bits", returning(lambda: 2**100)),
    Input("a str", returning(lambda: "täxt")),
    Input("bytes", returning(lambda: b"\0\xff")),
    Input("a bytearray", returning(lambda: bytearray(5))),
    Input("a complex number", returning(lambda: 1 + 2j)),
    Input("a tensor", returning(lambda: torch.arange(6.0).reshape(2, 3)), numpy=False),
    Input("an array", returning(lambda: np.arange(6.0).reshape(2, 3))),
    Input("a NumPy scalar", returning(lambda: np.float32(1.5))),
    Input("a dict", returning(lambda: {"a": np.arange(3), "b": [1, 2]})),
    Input("… with keys of any type", returning(lambda: {(1, 2): 1, None: 2, frozenset({1}): np.arange(2)})),
    Input("a list", returning(lambda: [1, "x", None, np.arange(3)])),
    Input("a tuple", returning(lambda: (np.arange(3), "x", 4, None))),
    Input("a set", returning(lambda: {1})),
    _returned("an OrderedDict", "ordered dict", numpy=False),
    _returned("a defaultdict", "default dict", numpy=False),
    _returned("a Counter", "counter"),
    _returned("a deque", "deque", numpy=False),
    _returned("a namedtuple", "named tuple", numpy=False),
    _returned("… with attributes", "named tuple with attributes", numpy=False),
    _returned("a dataclass", "dataclass", numpy=False),
    _returned("a frozen dataclass with slots", "slotted dataclass", numpy=False),
    _returned("an object of a class of one's own", "custom class", numpy=False),
    Input("…, of NumPy arrays", returning(lambda: Custom(image=np.arange(2000), label=3))),
    _returned("a namespace", "namespace", numpy=False),
    _returned("dates, paths, decimals, types, exceptions", "library objects"),
    _returned("dtypes, sizes, devices", "torch objects", numpy=False),
    _returned("a cyclic list", "cycle", numpy=False),
    _returned("lists, 200 deep", "deeper than the layout", numpy=False),
    Input("lists, 50,000 deep", returning(lambda: _nest(50_000)), hangs=True),
    _returned("a module", "module", numpy=False),
    _returned("a torch.return_types value", "structseq", numpy=False),
    Input("an iterator over a list", lambda face: f"{list(next(iter(returning(lambda: iter([1, 2]))(face))))}"),
    Input("a class", returning(lambda: Custom)),
    _stuck("a generator object", _generator),
    _stuck("a lambda", lambda: lambda: 0),
    _stuck("an object of a local class", _local_object),
    _stuck("a lock in a dataclass in a list", lambda: [LocalState(threading.Lock())], whole=True),
    _stuck("an open file", lambda: Path(__file__).open("rb")),  # noqa: SIM115 - it is the batch
    _stuck("a memoryview", lambda: memoryview(b"abc")),
    _stuck("a weak reference", lambda: weakref.ref(Custom)),
    Input("a BytesIO", returning(lambda: io.BytesIO(b"abc").getbuffer().nbytes)),
]


def _nest(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


# -- What default_collate makes of samples


def collating(make: Callable[[int], Any], **options: Any) -> Callable[[Face], Any]:
    """A loader of one batch of three samples, by default_collate."""

    class Made:
        def __getitem__(self, index: int) -> Any:
            return make(index)

    return lambda face: face(Made(), sampler=range(3), **{"batch_size": 3, **options})


def _leaf(title: str, name: str, **more: Any) -> Input:
    return Input(title, collating(LEAVES[name]), **more)


TENSOR_DTYPES = ["bfloat16", "complex64", "complex32", "float8_e4m3fn", "float8_e5m2", "uint16", "bool"]


def _torch(title: str, name: str, **more: Any) -> Input:
    return _leaf(title, name, numpy=False, **more)


SAMPLES = [
    Input("ints", collating(lambda i: i)),
    Input("bools", collating(lambda i: i > 1)),
    Input("floats", collating(lambda i: i / 2)),
    _leaf("an int beyond int64", "int beyond int64"),
    _leaf("ints, then a float", "int then float", numpy_reason="mixed numbers give float64, not float32"),
    _leaf("complex numbers", "complex"),
    _leaf("NumPy scalars", "numpy float32"),
    _leaf("NumPy datetime64", "numpy date", numpy_reason="dates are stacked"),
    _leaf("str", "str"),
    _leaf("bytes", "bytes"),
    _leaf("None", "none"),
    _leaf("sets", "set"),
    _leaf("objects of a class of one's own", "object"),
    _leaf("dataclasses", "dataclass"),
    Input("dicts", collating(lambda i: {"a": i, "b": [i, "x"]})),
    _leaf("dicts with a key more, later", "dict with more keys later"),
    _leaf("dicts with a key less, later", "dict with missing keys", whole=True),
    _leaf("OrderedDicts", "ordered dict"),
    _leaf("tuples", "tuple of strings"),
    _leaf("tuples of unequal lengths", "tuple of changing length"),
    _leaf("lists of unequal lengths", "list of changing length"),
    _leaf("namedtuples", "named tuple"),
    _leaf("ranges", "range"),
    _leaf("deques", "deque"),
    _leaf("empty dicts", "empty dict"),
    _leaf("empty lists", "empty list"),
    Input(
        "samples that hold a lock",
        collating(lambda i: {"a": [i, threading.Lock()]}, collate_fn=list),
        hangs=True,
        whole=True,
    ),
    Input(
        "one sample of three that holds None",
        collating(lambda i: {"a": [i, None if i == 1 else 0]}),
        numpy_reason="a TypeError, as for None alone",
        whole=True,
    ),
    Input(
        "a list of everything", collating(lambda i: [i, float(i), str(i), b"b", {"k": (i, None.__class__.__name__)}])
    ),
    *(Input(f"{dtype} tensors", collating(LEAVES[f"tensor torch.{dtype}"]), numpy=False) for dtype in TENSOR_DTYPES),
    _torch("0-d tensors", "0-d tensor"),
    _torch("tensors without elements", "tensor without elements"),
    _torch("tensors of unequal shapes", "ragged tensor", whole=True),
    _torch("tensors of unequal dtypes", "tensor of changing dtype"),
    _torch("a tensor, then an int", "int then tensor"),
    _torch("expanded tensors", "expanded tensor"),
    _torch("permuted tensors", "permuted tensor"),
    _torch("channels-last tensors", "channels last"),
    _torch("tensors of a subclass", "tensor subclass"),
    _torch("Parameters", "parameter"),
    _torch("leaf tensors that want a gradient", "tensor that wants a gradient"),
    _torch("tensors in an autograd graph", "tensor in a graph"),
    _torch("quantized tensors", "quantized tensor"),
    _torch("sparse COO tensors", "sparse tensor"),
    _torch("sparse CSR tensors", "sparse csr tensor"),
    _torch("nested tensors", "nested tensor"),
    Input("arrays", collating(lambda i: np.full((2, 2), i, np.float32))),
    _leaf("0-d arrays", "0-d array"),
    _leaf("arrays without elements", "array without elements"),
    _leaf("Fortran-ordered arrays", "Fortran array"),
    _leaf("non-contiguous arrays", "strided array"),
    _leaf("reversed arrays (negative strides)", "reversed array", numpy_reason="NumPy has negative strides"),
    Input("read-only arrays", collating(lambda i: np.frombuffer(bytes([i] * 4), np.uint8))),
    _leaf("memory maps", "memory map"),
    _leaf("big-endian arrays", "array >f4", numpy_reason="they are stacked in their own byte order"),
    _leaf("long double arrays", "array g", numpy_reason="NumPy has long doubles"),
    _leaf("structured arrays", "structured array", numpy_reason="they are stacked"),
    _leaf("object arrays", "array of objects"),
    _leaf("string arrays", "array of str"),
    _leaf("datetime arrays", "array of dates", numpy_reason="dates are stacked"),
    _leaf("arrays of unequal shapes", "ragged array", numpy_reason="a ValueError, as of numpy.stack", whole=True),
    _leaf("arrays of unequal dtypes", "array of changing dtype", numpy_reason="NumPy's promotion"),
    _leaf("arrays of a subclass", "array subclass"),
    Input("a dataset of an int, `batch_size=None`", collating(lambda i: i, batch_size=None)),
    Input("… of NumPy scalars", collating(np.float32, batch_size=None)),
    Input("… of tuples", collating(lambda i: (i, np.arange(2)), batch_size=None)),
    Input("… of read-only arrays", collating(lambda i: np.frombuffer(bytes([i] * 4), np.uint8), batch_size=None)),
]


# -- Functions that users register


def _join(batch: Any, *, collate_fn_map: Any = None) -> str:
    return "+".join(batch)


def _sum(batch: Any, *, collate_fn_map: Any = None) -> Any:
    return sum(item.label for item in batch)


def _registered(kind: type, function: Any, make: Callable[[int], Any], **options: Any) -> Callable[[Face], Any]:
    def given(face: Face) -> Any:
        face.get_collate_registry()[kind] = function
        return collating(make, **options)(face)

    return given


def _registered_by_init_fn(face: Face) -> Any:
    registry = face.get_collate_registry()
    return collating(str, worker_init_fn=lambda _worker: registry.update({str: _join}))(face)


REGISTRY = [
    Input("a function for `str` in `default_collate_fn_map`", _registered(str, _join, str)),
    Input("… for a class of one's own", _registered(Custom, _sum, lambda i: Custom(label=i))),
    Input("… for `int`", _registered(int, lambda batch, collate_fn_map=None: max(batch), lambda i: i)),
    Input("… inside dicts", _registered(str, _join, lambda i: {"a": [str(i)]})),
    Input("… put there by `worker_init_fn`", _registered_by_init_fn),
    Input(
        "a `collate_fn` that calls `default_collate`",
        lambda face: face(range(4), batch_size=2, collate_fn=_twice(face)),
    ),
]


def _twice(face: Face) -> Any:
    if face.is_torch:
        return lambda samples: {"x": torch.utils.data.default_collate(samples), "n": len(samples)}
    from forebay.collate import default_collate

    return lambda samples: {"x": default_collate(samples), "n": len(samples)}


# -- Memory


def _on_meta(face: Face) -> str:
    batch = next(iter(returning(lambda: torch.empty(3, device="meta"))(face)))
    return f"{describe(batch)} on {batch.device}"


def _written(face: Face) -> str:
    first, second = list(face([face.array([1, 2]), face.array([3, 4])]))
    first += 10
    return f"{first.tolist()} {second.tolist()}"


ORDER = "keeps its byte order, as without workers; PyTorch's pickle loses it"

MEMORY = [
    _returned("the same tensor twice", "same tensor twice", numpy=False),
    _returned("… in two places", "same tensor in two places", numpy=False),
    _returned("the same small tensor twice", "same small tensor twice", numpy=False),
    _returned("the same array twice", "same array twice"),
    _returned("the same list twice", "same list twice", numpy=False),
    _returned("overlapping views of one storage", "overlapping views", numpy=False),
    _returned("disjoint views of one storage", "disjoint views", numpy=False),
    _returned("views of three dtypes on one storage", "two dtypes on one storage", numpy=False),
    _returned("a tensor over an array, and the array", "tensor over an array", numpy=False),
    _returned("rows of one tensor, unbound", "unbound rows", numpy=False),
    _returned("a few numbers of a large tensor", "slice of much", numpy=False),
    _returned("an expanded tensor", "expanded", numpy=False),
    _returned("a transposed tensor", "transposed", numpy=False),
    _returned("a strided tensor", "strided", numpy=False),
    _returned("a channels-last tensor", "channels last", numpy=False),
    _returned("a tensor whose strides overlap", "overlapping strides", numpy=False),
    _returned("a tensor with holes between its rows", "holes", numpy=False),
    _returned("0-d tensor", "zero-d", numpy=False),
    _returned("tensors without elements", "no elements", numpy=False),
    _returned("a tensor of every dtype", "all dtypes", numpy=False),
    _returned("a leaf that wants a gradient", "leaf that wants a gradient", numpy=False),
    Input(
        "a tensor in an autograd graph",
        returning(lambda: torch.arange(3.0).requires_grad_() * 2),
        numpy=False,
        hangs=True,
    ),
    _returned("a Parameter", "parameter", numpy=False),
    _returned("a Buffer", "buffer", numpy=False),
    _returned("a tensor of a subclass, with attributes", "subclass", numpy=False),
    Input(
        "a conjugate view",
        returning(lambda: torch.tensor([1 + 2j, 3 - 1j]).conj()),
        numpy=False,
        reason="PyTorch's loader loses the conjugation: other numbers",
    ),
    _returned("sparse COO", "sparse", numpy=False),
    _returned("sparse COO, not coalesced", "uncoalesced", numpy=False),
    _returned("sparse CSR", "sparse csr", numpy=False),
    _returned("nested", "nested", numpy=False),
    _returned("nested, jagged", "jagged nested tensor", numpy=False),
    _returned("quantized", "quantized", numpy=False, reason="torch itself warns when it rebuilds one"),
    _returned("a PackedSequence", "packed sequence", numpy=False),
    _returned("a storage", "storage", numpy=False),
    Input("a tensor on the meta device", _on_meta, numpy=False),
    _returned("a Fortran-ordered array", "Fortran array"),
    _returned("a strided array", "strided array"),
    _returned("an array with negative strides", "reversed array"),
    _returned("a read-only array", "read-only array"),
    Input("a big-endian array", returning(lambda: np.arange(3, dtype=">i4")), reason=ORDER, numpy_reason=ORDER),
    _returned("a structured array", "structured array"),
    _returned("an object array", "array of objects", numpy=False),
    _returned("a string array", "array of strings"),
    _returned("a datetime array", "dates"),
    _returned("a 0-d array", "0-d array"),
    _returned("an array without elements", "array without elements"),
    _returned("an array of a subclass", "array subclass"),
    Input("a masked array", returning(lambda: np.ma.masked_array([1, 2, 3], [True, False, True]))),
    Input("writing into a batch, twice", lambda face: _written(face)),
]


SECTIONS = [
    Section("What a `collate_fn` returns", "One batch, from one worker.", COLLATED),
    Section("What `default_collate` makes of samples", "One batch of three samples.", SAMPLES),
    Section("The collate registry", "", REGISTRY),
    Section("Memory of a batch", "Tensors and arrays that a `collate_fn` returns: sharing, strides, layouts.", MEMORY),
]
