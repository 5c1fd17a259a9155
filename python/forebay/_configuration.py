"""Options for loaders that others construct: what `configure` and the environment say, and the switches.

An argument of a loader wins over `configure`, and `configure` over the environment.
"""

import os
import re
from collections.abc import Callable
from typing import Any

from forebay._option_types import checked_memory_budget
from forebay.errors import ConfigError

__all__ = ["check_environment", "configure", "is_switched_on", "option"]

_UNITS = {"": 1} | {
    f"{letter}{unit}": base ** (power + 1)
    for power, letter in enumerate("KMGT")
    for unit, base in (("", 1024), ("iB", 1024), ("B", 1000))
}


def _memory_budget(value: Any) -> int | None:
    """Bytes, as a number or as a text such as "2G"."""
    if not isinstance(value, str):
        return checked_memory_budget(value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?(?:i?B)?)\s*", value, re.IGNORECASE)
    units = {name.lower(): factor for name, factor in {**_UNITS, "B": 1}.items()}
    if found is None or found[2].lower() not in units:
        raise ConfigError(
            "memory_budget option should be a number of bytes or a text such as '512M' or '2GiB', but got "
            f"memory_budget={value!r}"
        )
    return checked_memory_budget(int(float(found[1]) * units[found[2].lower()]))


_OPTIONS: dict[str, Callable[[Any], Any]] = {"memory_budget": _memory_budget}
"""Forebay's own options by name, with what checks and reads a value. Each is also a variable: FOREBAY_<NAME>."""

_configured: dict[str, Any] = {}


def configure(**options: Any) -> dict[str, Any]:
    """Sets Forebay's own options for all loaders of this process that are not given them as arguments.

    So they reach loaders that a library constructs. They are looked up when an iterator starts.

    Args:
        **options: `memory_budget`: bytes, or a text such as "2G". None returns to what the environment says
            (`FOREBAY_MEMORY_BUDGET`), or else to the default.

    Returns:
        What holds from now on, all options by name.

    Raises:
        TypeError: for an option that does not exist, or of the wrong type.
        ConfigError: for a value that cannot work.

    Example:
        >>> configure(memory_budget="2G")
        {'memory_budget': 2147483648}
        >>> configure(memory_budget=None)
        {'memory_budget': None}
    """
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise TypeError(f"configure() has no option {unknown[0]!r}; there are: {', '.join(sorted(_OPTIONS))}")
    checked = {name: _OPTIONS[name](value) for name, value in options.items()}
    _configured.update(checked)
    return {name: option(name) for name in _OPTIONS}


def option(name: str, argument: Any = None) -> Any:
    """What holds for one of Forebay's own options: the loader's argument, or what was configured, or None."""
    if argument is not None:
        return argument
    configured = _configured.get(name)
    return _in_environment(name) if configured is None else configured


def check_environment() -> None:
    """Looks at all variables of Forebay.

    Raises:
        ConfigError: for one with a value that cannot work.
    """
    for name in _OPTIONS:
        _in_environment(name)
    for variable in ("FOREBAY", "FOREBAY_LOG"):
        is_switched_on(variable)


def _in_environment(name: str) -> Any:
    variable = f"FOREBAY_{name.upper()}"
    text = os.environ.get(variable)
    if not text:
        return None
    try:
        return _OPTIONS[name](text)
    except ValueError as error:
        raise ConfigError(f"environment variable {variable}={text}: {error}") from None


def is_switched_on(variable: str, *, default: bool = True) -> bool:
    """What an environment variable that is `on` or `off` says.

    Raises:
        ConfigError: when it is neither.
    """
    text = os.environ.get(variable, "")
    if text not in {"", "on", "off"}:
        raise ConfigError(f"environment variable {variable} should be on or off, but is {text!r}")
    return text == "on" if text else default
