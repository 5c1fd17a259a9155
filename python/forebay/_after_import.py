"""Acting when modules have been imported, without importing them.

Stands alone, on the standard library: `forebay run` loads it at the start of every process, before `forebay`.
"""

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec

__all__ = ["after_import"]


def after_import(names: Iterable[str], action: Callable[[], object]) -> None:
    """Calls `action` once all these modules have been completely imported: at once, or whenever that will be."""
    missing = {name for name in names if not _is_imported(name)}
    if missing:
        sys.meta_path.insert(0, _Watch(missing, action))
    else:
        action()


def _is_imported(name: str) -> bool:
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


class _Watch:
    """A finder that lets the others find, and learns when what they have found is imported."""

    def __init__(self, missing: set[str], action: Callable[[], object]) -> None:
        self._missing = missing
        self._action = action

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> "ModuleSpec | None":
        """What the finders after this one find."""
        if name not in self._missing:
            return None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._watch(spec)
                return spec
        return None

    def _watch(self, spec: "ModuleSpec") -> None:
        loader: Any = spec.loader
        run = loader.exec_module

        def exec_module(module: Any) -> None:
            loader.__dict__.pop("exec_module", None)  # the class's own again: nobody sees that it was watched
            run(module)
            self._imported(spec.name)

        loader.exec_module = exec_module

    def _imported(self, name: str) -> None:
        self._missing.discard(name)
        if not self._missing and self in sys.meta_path:
            sys.meta_path.remove(self)
            self._action()
