"""Samples and batches of every kind we could think of, by name. Each makes its value from an index."""

import collections
import datetime as dt
import decimal
import enum
import fractions
import pathlib
import random
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch


class Pair(NamedTuple):
    left: Any
    right: Any


Old = collections.namedtuple("Old", ["one", "two"], defaults=[2])


class Labelled(collections.namedtuple("Base", ["x", "y"])):
    """A named tuple with a `__dict__`."""


class Colour(enum.IntEnum):
    RED = 1
    BLUE = 2


class Text(str):
    pass


class Whole(int):
    pass


class Bag(dict):
    pass


class Row(list):
    pass


@dataclass
class Record:
    image: Any
    label: Any = 0
    extra: list[Any] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Slotted:
    image: Any


class Custom:
    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


class Marked(torch.Tensor):
    """A tensor that is more than its elements."""


def marked(tensor: torch.Tensor) -> torch.Tensor:
    made = tensor.as_subclass(Marked)
    made.note = "kept"
    return made


class MarkedArray(np.ndarray):
    pass


NUMBERS = np.linspace(-3.0, 250.0, 24)
FILE = pathlib.Path(tempfile.mkdtemp()) / "numbers.bin"
NUMBERS.astype("f4").tofile(FILE)


def tensor(index: int, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    count = int(np.prod(shape, dtype=int))
    generator = torch.Generator().manual_seed(index)
    kind = torch.complex128 if dtype.is_complex else torch.float64
    return (torch.rand(count, generator=generator, dtype=kind) * 100).to(dtype).reshape(shape)


def array(index: int, dtype: Any, *shape: int) -> np.ndarray:
    return (np.random.default_rng(index).random(shape) * 100).astype(dtype)


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.bool,
    torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.complex32,
]  # fmt: skip
NUMPY_DTYPES = ["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8", "c8", "c16", "g", ">f4", ">i8"]

LEAVES: dict[str, Callable[[int], Any]] = {
    # Numbers
    "int": lambda i: i * 7 - 3,
    "int near the end": lambda i: 2**63 - 1 - i,
    "int beyond int64": lambda i: 2**70 + i,
    "sometimes beyond int64": lambda i: 2**64 if i % 2 else i,
    "bool": lambda i: i % 3 == 0,
    "float": lambda i: i / 7,
    "strange float": lambda i: [float("nan"), -0.0, float("inf"), 5e-324][i % 4],
    "complex": lambda i: complex(i, 1),
    "int then float": lambda i: i if i % 2 == 0 else i + 0.5,
    "float then int": lambda i: i if i % 2 else i + 0.5,
    "bool then int": lambda i: i > 2 if i % 2 == 0 else i,
    "int then bool": lambda i: i > 2 if i % 2 else i,
    "int enum": lambda i: Colour(1 + i % 2),
    "int subclass": Whole,
    "numpy float32": lambda i: np.float32(i / 3),
    "numpy float64": lambda i: np.float64(i / 3),
    "numpy int16": np.int16,
    "numpy uint64": lambda i: np.uint64(2**63 + i),
    "numpy bool": lambda i: np.bool_(i % 2),
    "numpy complex": lambda i: np.complex64(1j * i),
    "python then numpy int": lambda i: np.int32(i) if i % 2 else i,
    "tensor then int": lambda i: i if i % 2 else torch.tensor(i),
    "int then tensor": lambda i: torch.tensor(i) if i % 2 else i,
    # Text
    "str": lambda i: f"näme {i} \N{SNOWMAN} \0",
    "empty str": lambda i: "",
    "lone surrogate": lambda i: f"\ud800{i}",
    "str subclass": Text,
    "numpy str": lambda i: np.str_(f"s{i}"),
    "bytes": lambda i: bytes([i % 256, 0, 255]),
    "str then int": lambda i: i if i % 2 else str(i),
    "long bytes": lambda i: bytes([i % 256]) * 10_000,
    # What default_collate refuses
    "none": lambda i: None,
    "set": lambda i: {i},
    "object": lambda i: Custom(a=i),
    "dataclass": lambda i: Record(i),
    "date": lambda i: dt.date(2026, 1, 1 + i % 28),
    "numpy date": lambda i: np.datetime64("2026-01-01") + i,
    "array of str": lambda i: np.array(["a", "b"]),
    "array of objects": lambda i: np.array([i, None], dtype=object),
    "structured array": lambda i: np.zeros(2, dtype=[("a", "i4"), ("b", "f8")]),
    "array of dates": lambda i: np.array(["2026-01-01", "2026-02-01"], dtype="M8[D]"),
    # Tensors
    **{f"tensor {dtype}": (lambda i, dtype=dtype: tensor(i, dtype, 3, 4)) for dtype in DTYPES},
    "0-d tensor": lambda i: torch.tensor(i / 3),
    "0-d bool tensor": lambda i: torch.tensor(i % 2 == 0),
    "empty tensor": lambda i: torch.empty(0),
    "tensor without elements": lambda i: torch.empty(2, 0, 3, dtype=torch.int16),
    "tensor of one": lambda i: tensor(i, torch.float32, 1, 1, 1),
    "large tensor": lambda i: tensor(i, torch.float32, 3, 40, 40),
    "permuted tensor": lambda i: tensor(i, torch.float32, 4, 5, 6).permute(2, 0, 1),
    "expanded tensor": lambda i: tensor(i, torch.int32, 5, 1).expand(5, 1500),
    "strided tensor": lambda i: tensor(i, torch.float64, 8, 9)[1::2, ::3],
    "tensor with an offset": lambda i: tensor(i, torch.int64, 100)[37:41],
    "channels last": lambda i: tensor(i, torch.float32, 2, 3, 20, 20).to(memory_format=torch.channels_last),
    "transposed for some": lambda i: tensor(i, torch.float32, 4, 4).T if i % 2 else tensor(i, torch.float32, 4, 4),
    "tensor that wants a gradient": lambda i: tensor(i, torch.float32, 3).requires_grad_(),
    "parameter": lambda i: torch.nn.Parameter(tensor(i, torch.float32, 3)),
    "tensor in a graph": lambda i: tensor(i, torch.float32, 3).requires_grad_() * 2,
    "tensor subclass": lambda i: marked(tensor(i, torch.float32, 3)),
    "sparse tensor": lambda i: torch.eye(3).to_sparse(),
    "sparse csr tensor": lambda i: torch.eye(3).to_sparse_csr(),
    "nested tensor": lambda i: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "quantized tensor": lambda i: torch.quantize_per_tensor(tensor(i, torch.float32, 3), 0.5, 3, torch.quint8),
    "ragged tensor": lambda i: tensor(i, torch.float32, 2 + i % 2, 3),
    "tensor of changing rank": lambda i: tensor(i, torch.float32, *[2] * (1 + i % 2)),
    "tensor of changing dtype": lambda i: tensor(i, [torch.float32, torch.float64, torch.int32][i % 3], 3),
    "tensor of many dimensions": lambda i: tensor(i, torch.uint8, *[1, 2] * 6),
    # Arrays
    **{f"array {dtype}": (lambda i, dtype=dtype: array(i, dtype, 3, 4)) for dtype in NUMPY_DTYPES},
    "0-d array": lambda i: np.array(i / 3),
    "array without elements": lambda i: np.zeros((0, 3)),
    "large array": lambda i: array(i, "u1", 100, 60, 3),
    "Fortran array": lambda i: np.asfortranarray(array(i, "f4", 3, 4)),
    "transposed array": lambda i: array(i, "f4", 3, 4, 5).transpose(2, 0, 1),
    "strided array": lambda i: array(i, "i4", 9, 9)[::2, 1::3],
    "reversed array": lambda i: array(i, "f4", 5)[::-1],
    "broadcast array": lambda i: np.broadcast_to(array(i, "f4", 3), (4, 3)).copy(order="K"),
    "memory map": lambda i: np.memmap(FILE, "f4", "r+", shape=(4, 6))[i % 4],
    "transposed memory map": lambda i: np.memmap(FILE, "f4", "r+", shape=(4, 6)).T[i % 4],
    "array subclass": lambda i: array(i, "f4", 3).view(MarkedArray),
    "ragged array": lambda i: array(i, "f4", 2 + i % 2),
    "array of changing dtype": lambda i: array(i, ["f4", "f8", "i4"][i % 3], 3),
    "array then tensor": lambda i: tensor(i, torch.float32, 3) if i % 2 else array(i, "f4", 3),
    "tensor then array": lambda i: array(i, "f4", 3) if i % 2 else tensor(i, torch.float32, 3),
    "unaligned array": lambda i: np.frombuffer(bytearray(13), np.uint8)[1:].view("f4") + np.float32(i),
    # Containers
    "empty dict": lambda i: {},
    "empty list": lambda i: [],
    "empty tuple": lambda i: (),
    "dict of int keys": lambda i: {0: i, 1: i + 1},
    "dict of mixed keys": lambda i: {None: i, (1, 2): i, 1.5: i, b"x": i, "y": i, False: i},
    "dict with more keys later": lambda i: {"a": i} if i % 2 == 0 else {"b": 1, "a": i},
    "dict with missing keys": lambda i: {"a": i, "b": i} if i % 2 == 0 else {"a": i},
    "dict in changing order": lambda i: {"a": i, "b": -i} if i % 2 == 0 else {"b": -i, "a": i},
    "ordered dict": lambda i: collections.OrderedDict(z=i, a=[i]),
    "default dict": lambda i: collections.defaultdict(int, a=i),
    "user dict": lambda i: collections.UserDict(a=i),
    "dict subclass": lambda i: Bag(a=i),
    "dict then ordered dict": lambda i: {"a": i} if i % 2 == 0 else collections.OrderedDict(a=i),
    "list of changing length": lambda i: [i] * (1 + i % 2),
    "tuple of changing length": lambda i: (i,) * (1 + i % 2),
    "list then tuple": lambda i: [i, i] if i % 2 == 0 else (i, i),
    "list subclass": lambda i: Row([i, i]),
    "user list": lambda i: collections.UserList([i, i]),
    "deque": lambda i: collections.deque([i, i]),
    "range": lambda i: range(i, i + 3),
    "named tuple": lambda i: Pair(i, str(i)),
    "old named tuple": Old,
    "named tuple with attributes": lambda i: Labelled(i, i),
    "two named tuples": lambda i: Pair(i, i) if i % 2 == 0 else Old(i, i),
    "named tuple then tuple": lambda i: Pair(i, i) if i % 2 == 0 else (i, i),
    "tuple of strings": lambda i: (str(i), b"b"),
    "tuple of dicts": lambda i: ({"a": i}, [Pair(torch.tensor(i), (i, "x"))]),
    "deep": lambda i: [[[[[[[[[[i]]]]]]]]]],
    # Randomness
    "python's random": lambda i: random.random(),
    "numpy's random": lambda i: np.random.rand(3),
    "torch's random": lambda i: torch.rand(3),
    "all random": lambda i: (random.gauss(0, 1), np.random.randint(100, size=2), torch.randn(2, 2), i),
    # Exceptions
    "key error": lambda i: {}["missing"],
    "index error": lambda i: [][i],
    "os error": lambda i: pathlib.Path(f"/nowhere/{i}").read_bytes(),
    "stop iteration": lambda i: next(iter(())),
}

shared = torch.arange(4000.0)
twice = torch.arange(3000)


def _cycle() -> list[Any]:
    cycle: list[Any] = [torch.arange(2000)]
    cycle.append(cycle)
    return cycle


def _nested(depth: int) -> Any:
    value: Any = torch.arange(3)
    for _ in range(depth):
        value = [value]
    return value


def _two_lists() -> list[Any]:
    inner = [1, torch.arange(3)]
    return [inner, inner, {"again": inner}]


def _read_only() -> np.ndarray:
    made = np.arange(3000)
    made.flags.writeable = False
    return made


RETURNS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "true": lambda: True,
    "int": lambda: -5,
    "big int": lambda: 2**100,
    "nan": lambda: float("nan"),
    "minus zero": lambda: -0.0,
    "complex": lambda: 1 + 2j,
    "ellipsis": lambda: ...,
    "text": lambda: "täxt \0 \N{SNOWMAN}",
    "lone surrogate": lambda: "\ud800",
    "long text": lambda: "täxt" * 50_000,
    "bytes": lambda: b"\0\xff" * 50_000,
    "bytearray": lambda: bytearray(range(256)) * 100,
    "text subclass": lambda: Text("x"),
    "int enum": lambda: [Colour.RED],
    "bool in a list": lambda: [True, 1, 1.0, False, 0],
    "tuple": lambda: (torch.arange(3), "x", 4, None),
    "empty containers": lambda: [(), [], {}, set(), ""],
    "one tuple": lambda: (torch.arange(2000.0),),
    "dict": lambda: {"a": torch.ones(2, 2), "b": [1, 2, {"c": np.arange(4)}]},
    "dict of strange keys": lambda: {(1, 2): torch.arange(2), None: 1, 1.5: 2, frozenset({1}): 3, 2**80: 4},
    "ordered dict": lambda: collections.OrderedDict(b=torch.arange(2), a=1),
    "default dict": lambda: collections.defaultdict(list, a=[torch.arange(2)]),
    "counter": lambda: collections.Counter("abca"),
    "set": lambda: {1},
    "deque": lambda: collections.deque([torch.arange(2000), 1], maxlen=7),
    "named tuple": lambda: Pair(torch.arange(2000), {"x": 1}),
    "old named tuple": lambda: Old(torch.arange(2)),
    "named tuple with attributes": lambda: _with(Labelled(torch.arange(2), 1), note="kept"),
    "structseq": lambda: torch.arange(6.0).reshape(2, 3).max(0),
    "dataclass": lambda: Record(torch.arange(2000.0), 3, [np.arange(2000)]),
    "slotted dataclass": lambda: Slotted(torch.arange(2000.0)),
    "custom class": lambda: Custom(x=torch.arange(2000), y=[np.arange(3)], z="s"),
    "namespace": lambda: SimpleNamespace(x=torch.arange(2000)),
    "library objects": lambda: [
        dt.datetime(2026, 1, 2),
        decimal.Decimal("1.5"),
        fractions.Fraction(1, 3),
        pathlib.PurePosixPath("a/b"),
        uuid.UUID(int=7),
        slice(1, 2),
        range(3),
        complex,
        len,
        collections.OrderedDict,
        ValueError("x", 1),
    ],
    "torch objects": lambda: [torch.float32, torch.Size([1, 2]), torch.device("cpu"), torch.strided],
    "list of strings": lambda: [str(number) for number in range(1000)],
    "list of ints": lambda: list(range(10_000)),
    "cycle": _cycle,
    "deep": lambda: _nested(20),
    "deeper than the layout": lambda: _nested(200),
    # Sharing
    "same tensor twice": lambda: [twice, twice],
    "same tensor in two places": lambda: {"a": twice, "b": (1, [twice])},
    "same small tensor twice": lambda: _twice(torch.tensor(1)),
    "same array twice": lambda: _twice(np.arange(3000)),
    "same list twice": _two_lists,
    "overlapping views": lambda: (shared[:3000], shared[1000:]),
    "disjoint views": lambda: (shared[:1500], shared[2500:]),
    "view within a view": lambda: [shared, shared[5:10]],
    "two dtypes on one storage": lambda: [shared, shared.view(torch.int32), shared[3:].view(torch.uint8)],
    "tensor over an array": lambda: [torch.from_numpy(made := np.arange(3000)), made],
    "unbound rows": lambda: torch.arange(6000).reshape(3, 2000).unbind(),
    "split halves": lambda: torch.arange(6000).split(3000),
    # Layouts
    "slice of much": lambda: torch.arange(100_000)[5:7],
    "expanded": lambda: torch.arange(5).unsqueeze(1).expand(5, 4000),
    "expanded to none": lambda: torch.arange(1).expand(0, 1),
    "transposed": lambda: torch.arange(6000).reshape(60, 100).t(),
    "strided": lambda: torch.arange(10_000)[3::7],
    "channels last": lambda: tensor(0, torch.float32, 2, 3, 30, 30).to(memory_format=torch.channels_last),
    "holes": lambda: torch.empty_strided((3, 4), (100, 2)).copy_(torch.arange(12.0).reshape(3, 4)),
    "overlapping strides": lambda: torch.arange(3000).as_strided((10, 20), (5, 1)),
    "zero-d": lambda: torch.tensor(3.5),
    "no elements": lambda: [torch.empty(0), torch.empty(3, 0, 2), torch.arange(5)[5:]],
    "all dtypes": lambda: [tensor(number, dtype, 30, 40) for number, dtype in enumerate(DTYPES)],
    # Beyond plain tensors
    "leaf that wants a gradient": lambda: torch.arange(3000.0).requires_grad_(),
    "small leaf that wants a gradient": lambda: [torch.zeros(2, requires_grad=True), torch.zeros(2)],
    "parameter": lambda: torch.nn.Parameter(torch.arange(3000.0)),
    "buffer": lambda: torch.nn.Buffer(torch.arange(3.0)),
    "module": lambda: torch.nn.Linear(3, 2, dtype=torch.float64).requires_grad_(False),
    "state of a module": lambda: torch.nn.BatchNorm2d(3).state_dict(),
    "jagged nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "subclass": lambda: marked(torch.arange(3000)),
    "sparse": lambda: torch.eye(50).to_sparse(),
    "uncoalesced": lambda: torch.sparse_coo_tensor([[0, 0]], [1.0, 2.0], (3,)),
    "sparse csr": lambda: torch.eye(50).to_sparse_csr(),
    "quantized": lambda: torch.quantize_per_tensor(torch.arange(9.0), 0.5, 3, torch.quint8),
    "nested": lambda: torch.nested.nested_tensor([torch.arange(2.0), torch.arange(3.0)]),
    "packed sequence": lambda: torch.nn.utils.rnn.pack_sequence([torch.arange(3), torch.arange(2)]),
    "storage": lambda: torch.arange(3000).untyped_storage(),
    "typed storage": lambda: torch.arange(5)._typed_storage(),
    # Arrays
    "array": lambda: np.arange(6000).reshape(60, 100),
    "small array": lambda: np.arange(6),
    "Fortran array": lambda: np.asfortranarray(np.arange(6000).reshape(60, 100)),
    "strided array": lambda: np.arange(6000)[::3],
    "reversed array": lambda: np.arange(6000)[::-1],
    "0-d array": lambda: np.array(3.5),
    "array without elements": lambda: np.zeros((3, 0)),
    "numpy scalar": lambda: np.float32(1.5),
    "structured array": lambda: np.zeros(300, dtype=[("a", "i4"), ("b", "f8")]),
    "record array": lambda: np.rec.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    "dates": lambda: np.arange("2026-01-01", "2027-01-01", dtype="M8[D]"),
    "array of objects": lambda: np.array([1, None, "x", torch.arange(2)], dtype=object),
    "array of strings": lambda: np.array(["a", "bcd"]),
    "masked array": lambda: np.ma.masked_array([1, 2, 3], [True, False, True]).filled(0),
    "array subclass": lambda: np.arange(3000).view(MarkedArray),
    "long doubles": lambda: np.arange(3000).astype("g"),
    "read-only array": _read_only,
    "memory map": lambda: np.array(np.memmap(FILE, "f4", "r+")),
    "many arrays": lambda: [np.full((50, 50), number) for number in range(100)],
    "ragged": lambda: [tensor(number, torch.float32, number, 3) for number in range(40)],
    "ragged arrays": lambda: [array(number, "f4", number, 300) for number in range(10)],
}


def _with(value: Any, **attributes: Any) -> Any:
    value.__dict__.update(attributes)
    return value


def _twice(value: Any) -> list[Any]:
    return [value, value]
