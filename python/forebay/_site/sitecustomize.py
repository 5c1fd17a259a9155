"""Run by Python at its start, before the program: `forebay run` puts this folder first on the path of modules.

It takes the folder off again, has Forebay installed as soon as torch is imported, and runs the `sitecustomize` that
would have been run without it. Nothing heavy is imported: every Python process below `forebay run` comes here.
"""

import atexit
import importlib
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from types import ModuleType

_FOLDER = os.path.dirname(os.path.abspath(__file__))


def _run(spec: ModuleSpec) -> ModuleType:
    assert spec.loader is not None, "a file has a loader"
    module = module_from_spec(spec)
    if spec.name == __name__:
        sys.modules[__name__] = module
    spec.loader.exec_module(module)
    return module


def _install() -> None:
    if find_spec("forebay") is None:  # another Python than the one that `forebay run` was started by
        sys.stderr.write(f"[forebay] {sys.executable} has no forebay: torch's loaders are left as they are\n")
    else:
        importlib.import_module("forebay._install").install_now()


def _say_that_nothing_was_used(pid: int) -> None:
    ledger = sys.modules.get("forebay._ledger")
    if os.getpid() == pid and (ledger is None or ledger.is_empty()):
        sys.stderr.write("[forebay] no DataLoader of torch was used in this process\n")


def _prepare() -> None:
    spec = spec_from_file_location("forebay._after_import", os.path.join(_FOLDER, "..", "_after_import.py"))
    assert spec is not None, "it lies beside this folder"
    _run(spec).after_import(("torch", "torch.utils.data"), _install)
    if os.environ.get("FOREBAY_LOG") == "on" and os.environ.get("FOREBAY_RUN") == str(os.getpid()):
        atexit.register(_say_that_nothing_was_used, os.getpid())


sys.path[:] = [path for path in sys.path if os.path.abspath(path) != _FOLDER]
if os.environ.get("FOREBAY_RUN") and sys.version_info >= (3, 11):
    _prepare()
_next = PathFinder.find_spec(__name__)
if _next is not None and _next.origin is not None:
    _run(_next)
