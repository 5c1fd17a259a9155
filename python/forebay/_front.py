"""What the engine must know about NumPy."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from forebay import _pickling
from forebay._engine import Front
from forebay.collate import default_collate

__all__ = ["DTYPES", "make_front", "stack"]

# DLPack's type codes.
_INT, _UINT, _FLOAT, _COMPLEX, _BOOL = 0, 1, 2, 5, 6

DTYPES: dict[tuple[int, int], np.dtype[Any]] = {
    (_BOOL, 8): np.dtype(np.bool_),
    **{(_INT, bits): np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{(_UINT, bits): np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{(_FLOAT, bits): np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    **{(_COMPLEX, bits): np.dtype(f"c{bits // 8}") for bits in (64, 128)},
}


def stack(samples: Sequence[Any], out: np.ndarray[Any, Any]) -> None:
    """Stacks arrays of any strides into `out`."""
    np.stack(samples, out=out)


def make_front(collate: Callable[[Any], Any] = default_collate) -> Front:
    """The NumPy front: arrays in, arrays out."""
    return Front(
        ndarray=np.ndarray,
        memmap=np.memmap,
        dtypes=DTYPES,
        dump=_pickling.dump,
        load=_pickling.load,
        collate=collate,
        stack=stack,
    )
