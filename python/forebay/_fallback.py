"""Where the engine cannot serve: saying so, once."""

import importlib.util
import sys
import warnings

from forebay.errors import FallbackWarning

__all__ = ["engine_is_missing", "say_once"]

_said: set[str] = set()


def engine_is_missing() -> bool:
    """Whether this installation has no engine: it is built for Linux."""
    return "forebay._engine" not in sys.modules and importlib.util.find_spec("forebay._engine") is None


def say_once(text: str, stacklevel: int) -> None:
    """Warns with `text`, the first time in this process."""
    if text not in _said:
        _said.add(text)
        warnings.warn(text, FallbackWarning, stacklevel=stacklevel + 1)
