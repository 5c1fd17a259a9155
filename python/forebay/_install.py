"""Forebay in place of torch's loader, for a whole program. Does not import torch: it waits until the program does."""

import importlib
import sys
from typing import Any

from forebay import _log
from forebay._after_import import after_import
from forebay._configuration import is_switched_on

__all__ = ["install", "install_now", "uninstall"]

_TORCH = ("torch", "torch.utils.data")
"""What must be imported before anything can be put in its place."""

_waiting = False
_wanted = False


def install() -> None:
    """Has Forebay serve every loader of torch in this process, whoever constructs it.

    `torch.utils.data.DataLoader` becomes `forebay.torch.DataLoader`, in every module that has imported it already, too.
    Loaders that were made before, and loaders of classes derived from torch's, are served as well. Where torch is not
    imported yet, this happens when it is. Calling it again does no harm. With FOREBAY=off in the environment, it does
    nothing.

    Raises:
        ConfigError: when the variable FOREBAY is neither on nor off.

    Example:
        >>> install()
        >>> import torch
        >>> torch.utils.data.DataLoader
        <class 'forebay.torch._loader.DataLoader'>
        >>> uninstall()
    """
    global _waiting  # noqa: PLW0603 - a program has one torch
    if _is_wanted() and not _waiting:
        _waiting = True
        after_import(_TORCH, _torch_is_here)


def install_now() -> None:
    """Does what `install` does where torch is known to be complete, though its import may not have returned yet."""
    if _is_wanted():
        _torch_is_here()


def _is_wanted() -> bool:
    global _wanted  # noqa: PLW0603
    _wanted = is_switched_on("FOREBAY")
    if not _wanted:
        _log.logger.info("FOREBAY=off: torch's loaders are left as they are")
    return _wanted


def _torch_is_here() -> None:
    global _waiting  # noqa: PLW0603
    _waiting = False
    if _wanted:
        _installing().install()


def uninstall() -> None:
    """Undoes `install`: names that it changed are torch's again, and torch's loaders have torch's iterators.

    Modules that were imported meanwhile keep the class they have imported. Iterators that have begun go on.
    """
    global _wanted  # noqa: PLW0603
    _wanted = False
    if "forebay.torch._installing" in sys.modules:
        _installing().uninstall()


def _installing() -> Any:
    return importlib.import_module("forebay.torch._installing")
