"""How the samples of a batch become NumPy arrays.

The rules are those of `torch.utils.data.default_collate`, with arrays in place of tensors. Three things
differ: mixed Python numbers give float64 (torch: float32), arrays and scalars of date, time and structured
dtypes are stacked (torch refuses them), and mixed dtypes follow NumPy's promotion.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any, Protocol, TypeAlias, TypeGuard, cast

import numpy as np
import numpy.typing as npt

__all__ = ["collate", "default_collate", "default_collate_fn_map", "default_convert", "is_stock"]

# `Any` throughout: which type a batch has depends on the samples, not on anything a checker could see.
_Array: TypeAlias = npt.NDArray[Any]


class CollateFn(Protocol):
    """A function that collates one type of sample, as found in `default_collate_fn_map`."""

    def __call__(self, batch: Sequence[Any], /, *, collate_fn_map: "CollateFnMap | None") -> Any:
        """Returns the batch made of the samples in `batch`."""
        ...


CollateFnMap: TypeAlias = dict[type | tuple[type, ...], CollateFn]


def default_collate(batch: Sequence[Any]) -> Any:
    """Turns a list of samples into a batch, in which each leaf has one dimension more.

    The first sample decides; see the table. Functions added to `default_collate_fn_map` take part.

    | sample | batch |
    |---|---|
    | array, NumPy scalar | array, stacked along a new first axis |
    | float | float64 array |
    | int, bool | int64 array, bool array; float64 if a float is among them |
    | str, bytes | unchanged |
    | mapping | the same type of mapping, with the keys of the first sample |
    | named tuple | the same named tuple |
    | tuple | list |
    | other sequence | the same type of sequence, or else a list |

    Args:
        batch: at least one sample.

    Raises:
        TypeError: for a sample of any other type, and for arrays that hold strings or objects.
        ValueError: for arrays of unequal shapes, and for ints beyond int64.
        RuntimeError: for sequences of unequal lengths.
        KeyError: when a mapping lacks a key of the first one.
        IndexError: when `batch` is empty.

    Example:
        >>> default_collate([{"image": np.zeros((2, 2)), "label": 3}, {"image": np.ones((2, 2)), "label": 4}])
        {'image': array([[[0., 0.],
                [0., 0.]],
        <BLANKLINE>
               [[1., 1.],
                [1., 1.]]]), 'label': array([3, 4])}
        >>> default_collate([(0.5, "a"), (1.5, "b")])
        [array([0.5, 1.5]), ('a', 'b')]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def collate(batch: Sequence[Any], *, collate_fn_map: CollateFnMap | None = None) -> Any:
    """Turns a list of samples into a batch, with a registry of one's own.

    A function for the exact type of the first sample comes first, then the first entry of which the
    sample is an instance; mappings and sequences that no entry claims are collated element by element.

    Args:
        batch: at least one sample.
        collate_fn_map: a type, or a tuple of types, to the function that collates it. The function is
            called with the batch and this registry.

    Raises:
        TypeError: when there is no function for the first sample. See `default_collate` for the rest.

    Example:
        >>> def longest(batch, *, collate_fn_map=None):
        ...     return max(batch, key=len)
        >>> collate([{"text": "ab"}, {"text": "abc"}], collate_fn_map={str: longest})
        {'text': 'abc'}
    """
    first: object = batch[0]
    registered = _registered_fn(first, collate_fn_map or {})
    if registered is not None:
        return registered(batch, collate_fn_map=collate_fn_map)

    def recurse(samples: Sequence[Any]) -> Any:
        return collate(samples, collate_fn_map=collate_fn_map)

    if _is_mapping(first):
        return _collate_mappings(batch, recurse)
    if _is_namedtuple(first):
        return _namedtuple_like(first, map(recurse, zip(*batch, strict=False)))
    if _is_sequence(first):
        return _collate_sequences(batch, recurse)
    raise _refusal(type(first))


def default_convert(data: Any) -> Any:
    """Turns the NumPy scalars of one sample into arrays and leaves the rest as it is.

    Takes the place of `default_collate` in a loader without batches. Containers are rebuilt by the rules of
    `default_collate`: tuples become lists.

    Args:
        data: one sample.

    Example:
        >>> default_convert({"pair": (np.float32(1), 2), "name": "x"})
        {'pair': [array(1., dtype=float32), 2], 'name': 'x'}
    """
    if isinstance(data, np.generic) and not isinstance(data, (str, bytes)):
        return np.asarray(cast("Any", data))
    if _is_mapping(data):
        return _mapping_like(data, {key: default_convert(data[key]) for key in data})
    if _is_namedtuple(data):
        return _namedtuple_like(data, map(default_convert, data))
    if _is_sequence(data):
        return _sequence_like(data, [default_convert(element) for element in data])
    return data


def _registered_fn(sample: object, registry: CollateFnMap) -> CollateFn | None:
    exact = registry.get(type(sample))
    if exact is not None:
        return exact
    return next((fn for kind, fn in registry.items() if isinstance(sample, kind)), None)


def _is_mapping(sample: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(sample, Mapping)


def _is_namedtuple(sample: object) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(sample, tuple) and hasattr(cast("object", sample), "_fields")


def _is_sequence(sample: object) -> TypeGuard[Sequence[Any]]:
    # Strings would be taken apart for ever: each of their elements is a string again.
    return isinstance(sample, Sequence) and not isinstance(sample, (str, bytes))


def _collate_mappings(batch: Sequence[Mapping[Any, Any]], recurse: Callable[[list[Any]], Any]) -> Any:
    first = batch[0]
    return _mapping_like(first, {key: recurse([sample[key] for sample in batch]) for key in first})


def _collate_sequences(batch: Sequence[Sequence[Any]], recurse: Callable[[tuple[Any, ...]], Any]) -> Any:
    first = batch[0]
    if any(len(sample) != len(first) for sample in batch):
        raise RuntimeError("each element in list of batch should be of equal size")
    return _sequence_like(first, [recurse(column) for column in zip(*batch, strict=True)])


def _mapping_like(model: Mapping[Any, Any], items: dict[Any, Any]) -> Any:
    """Returns `items` as the type of `model`, or as a dict where that type cannot be rebuilt."""
    try:
        if isinstance(model, MutableMapping):
            clone = copy.copy(model)  # keeps attributes of its own
            clone.update(items)
            return clone
        return cast("Any", type(model))(items)
    except TypeError:
        return items


def _namedtuple_like(model: tuple[Any, ...], elements: Iterable[Any]) -> Any:
    return cast("Any", type(model))(*elements)


def _sequence_like(model: Sequence[Any], elements: list[Any]) -> Any:
    """Returns `elements` as the type of `model`, or as a list for tuples and what cannot be rebuilt."""
    if isinstance(model, tuple):
        return elements
    try:
        if isinstance(model, MutableSequence):
            clone = copy.copy(model)  # keeps attributes of its own
            for position, element in enumerate(elements):
                clone[position] = element
            return clone
        return cast("Any", type(model))(elements)
    except TypeError:
        return elements


def _collate_arrays(batch: Sequence[Any], /, **_: object) -> _Array:
    arrays = [_stackable(np.asarray(sample)) for sample in batch]
    if any(array.shape != arrays[0].shape for array in arrays):
        raise ValueError(_unequal_shapes(arrays))
    return np.stack(arrays)


def _collate_scalars(batch: Sequence[Any], /, **_: object) -> _Array:
    # With a stranger in the batch NumPy would convert it: None to NaT, a number to a string.
    if any(type(sample) is not type(batch[0]) for sample in batch):
        return _collate_arrays(batch)
    return _stackable(np.asarray(batch))


def _collate_floats(batch: Sequence[Any], /, **_: object) -> _Array:
    array = np.asarray(batch)
    if array.dtype.kind not in "biuf":  # a stranger, or an int beyond int64
        _require_numbers(batch, (int, float, np.bool_, np.integer, np.floating))
    return array.astype(np.float64, copy=False)


def _collate_ints(batch: Sequence[Any], /, **_: object) -> _Array:
    array = np.asarray(batch)
    if array.dtype.kind in "bi":
        return array
    if array.dtype.kind not in "ufc":
        _require_numbers(batch, (int, float, complex, np.bool_, np.number))
    # An int beyond int64 gives uint64 or objects, and among smaller ones a rounded float.
    for position, sample in enumerate(batch):
        if isinstance(sample, int) and not -(2**63) <= sample < 2**63:
            raise ValueError(
                f"default_collate: integers must fit into int64, but got {sample} at entry {position}; "
                "return a numpy.uint64 or a float instead"
            )
    return array


def _collate_strings(batch: Sequence[Any], /, **_: object) -> Sequence[Any]:
    return batch


def _stackable(array: _Array) -> _Array:
    if array.dtype.kind in "SU" or array.dtype.hasobject:
        raise _refusal(array.dtype)
    return array


def _require_numbers(batch: Sequence[object], numbers: tuple[type, ...]) -> None:
    for sample in batch:
        if not _is_number(sample, numbers):
            raise _refusal(type(sample))


def _is_number(sample: object, numbers: tuple[type, ...]) -> bool:
    return isinstance(sample, numbers) and not isinstance(sample, np.timedelta64)  # an integer to NumPy


def _refusal(found: object) -> TypeError:
    return TypeError(f"default_collate: batch must contain numpy arrays, numbers, dicts or lists; found {found}")


def _unequal_shapes(arrays: Sequence[_Array]) -> str:
    positions: dict[tuple[int, ...], list[int]] = {}
    for position, array in enumerate(arrays):
        positions.setdefault(array.shape, []).append(position)
    found = " and ".join(f"{shape} at {_entries(where)}" for shape, where in positions.items())
    return f"default_collate: stack expects each array to be equal size, but got {found}"


def _entries(positions: Sequence[int]) -> str:
    shown = ", ".join(map(str, positions[:4]))
    rest = len(positions) - 4
    more = f" and {rest} more" if rest > 0 else ""
    return f"{'entry' if len(positions) == 1 else 'entries'} {shown}{more}"


default_collate_fn_map: CollateFnMap = {
    np.ndarray: _collate_arrays,
    (np.bool_, np.number, np.datetime64, np.void): _collate_scalars,
    float: _collate_floats,
    int: _collate_ints,
    str: _collate_strings,
    bytes: _collate_strings,
}
"""The registry of `default_collate`; add the types of your samples to it."""

STOCK_COLLATE_FN_MAP: CollateFnMap = dict(default_collate_fn_map)
"""The registry as this module made it: while users have not changed theirs, the engine may collate in its own way."""


def is_stock(collate_fn: object) -> bool:
    """Whether `collate_fn` is `default_collate`, with the registry as this module made it."""
    return collate_fn is default_collate and default_collate_fn_map == STOCK_COLLATE_FN_MAP
