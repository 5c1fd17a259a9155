"""Objects as bytes, for what the engine cannot describe itself: pickle, with large buffers beside it."""

import copyreg
import io
import pickle
from collections import ChainMap
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from typing import Any, cast

from forebay import _culprit
from forebay.errors import UnpicklableError

__all__ = ["BatchPickler", "dump", "load"]

_IN_BAND_BYTES = 1024
"""Smaller buffers cost less inside the pickle than beside it."""


class BatchPickler(pickle.Pickler):
    """Pickles a batch; large contiguous buffers are left out and collected in `buffers`.

    What users registered with `multiprocessing` (`ForkingPickler.register`) is respected, as PyTorch's loader does.
    """

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._take)
        self.dispatch_table: Any = ChainMap(self.registered(), copyreg.dispatch_table)
        self.buffers: list[memoryview] = []

    def registered(self) -> dict[type, Any]:
        """The reducers registered with `multiprocessing` that serve here."""
        return cast("dict[type, Any]", getattr(ForkingPickler, "_extra_reducers"))  # noqa: B009 - it has no public name

    def dump_batch(self, value: Any) -> None:
        """Pickles `value`. What goes wrong then is pickle's or the value's, so it is told apart from all else."""
        try:
            self.dump(value)
        except Exception as error:
            culprit = _culprit.of(type(self), value)
            raise UnpicklableError(f"{type(error).__name__}: {error}", culprit) from error

    def _take(self, buffer: pickle.PickleBuffer) -> bool:
        view = buffer.raw()
        if view.nbytes < _IN_BAND_BYTES:
            return True
        self.buffers.append(view)
        return False


def dump(value: Any) -> tuple[bytes, list[memoryview]]:
    """Pickles `value`; the inverse of `load`.

    Raises:
        UnpicklableError: when it cannot be pickled; its cause is pickle's own exception.
    """
    file = io.BytesIO()
    pickler = BatchPickler(file)
    pickler.dump_batch(value)
    return file.getvalue(), pickler.buffers


def load(body: Any, buffers: Sequence[Any]) -> Any:
    """Unpickles what `dump` made; arrays in it stand on `buffers`."""
    return pickle.loads(body, buffers=buffers)
