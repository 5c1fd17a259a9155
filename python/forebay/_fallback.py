"""Where the engine cannot serve: saying so, once."""

import importlib.util
import sys
import warnings

from forebay import _log
from forebay._callers import users_level
from forebay.errors import FallbackWarning

__all__ = ["engine_is_missing", "say_once"]

_said: set[str] = set()


def engine_is_missing() -> bool:
    """Whether this installation has no engine: it is built for Linux."""
    return "forebay._engine" not in sys.modules and importlib.util.find_spec("forebay._engine") is None


def say_once(text: str) -> None:
    """Says `text`, the first time in this process: in the log where it is shown, else as a warning of the caller's."""
    if text in _said:
        return
    _said.add(text)
    if _log.is_shown():
        _log.logger.warning(text)
    else:
        warnings.warn(text, FallbackWarning, stacklevel=users_level())
