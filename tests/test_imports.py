"""What importing costs and promises, and what is left without the engine."""

import ast
import doctest
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import forebay
import forebay.torch

PACKAGE = Path(forebay.__file__).parent

# As on an operating system for which the engine is not built: its module is not there.
WITHOUT_ENGINE = """
import importlib.abc, importlib.machinery, sys, warnings

class NoEngine(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return None

real = importlib.machinery.PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name == "forebay._engine" else real(name, path, target)

importlib.machinery.PathFinder.find_spec = find_spec
"""


def run(code: str, *options: str) -> str:
    """What a fresh interpreter prints, which must end well and complain of nothing."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.strip()


def module_names() -> list[str]:
    return [
        module.name for module in pkgutil.walk_packages([str(PACKAGE)], "forebay.") if module.name != "forebay._engine"
    ]


def test_import_forebay_loads_no_torch() -> None:
    assert (
        run("import sys, forebay; print([name for name in sys.modules if name.partition('.')[0] == 'torch'])") == "[]"
    )


def test_loading_with_the_numpy_front_loads_no_torch_in_trainer_and_workers() -> None:
    code = """
import sys, forebay

class Asking:
    def __len__(self):
        return 2
    def __getitem__(self, index):
        return "torch" in sys.modules

if __name__ == "__main__":
    print([batch.tolist() for batch in forebay.DataLoader(Asking(), num_workers=1)], "torch" in sys.modules)
"""
    assert run(code) == "[[False], [False]] False"


def test_import_forebay_loads_little_beyond_numpy() -> None:
    # The time it costs is measured by `make bench`; what would make it long is another large package. Parts of NumPy
    # that are loaded when they are needed bring Cython's own modules.
    code = """
import sys, numpy
before = set(sys.modules)
import forebay
added = {name.partition(".")[0] for name in set(sys.modules) - before}
ours = {"forebay", "numpy", "__mp_main__"}  # the last is multiprocessing's name for the main module
print(sorted(name for name in added - set(sys.stdlib_module_names) - ours if "cython" not in name))
"""
    assert run(code) == "[]"


def test_the_public_names_are_all_there_and_no_others() -> None:
    for module in (forebay, forebay.torch):
        public = {
            name for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)
        }
        assert public == set(module.__all__)


@pytest.mark.parametrize("name", module_names())
def test_every_module_says_what_is_public_in_it(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


@pytest.mark.parametrize("name", ["forebay", *module_names()])
def test_the_examples_in_the_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_there_are_examples_in_the_docstrings() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for public in (forebay.DataLoader, forebay.torch.DataLoader, forebay.default_collate):
        assert any(found.examples for found in finder.find(public))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_is_imported_by_the_torch_front_only(path: Path) -> None:
    if "torch" in path.relative_to(PACKAGE).parts:
        return
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [name for name in names if name.split(".")[0] == "torch"]


def test_without_the_engine_the_package_imports_and_loads_in_this_process_and_says_so_once() -> None:
    code = """
import forebay
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loader = forebay.DataLoader(range(6), batch_size=2, num_workers=1)
    for _ in range(2):
        print([batch.tolist() for batch in loader], len(loader))
    with loader:
        next(iter(loader))
found = [str(warning.message) for warning in caught if warning.category.__name__ == "FallbackWarning"]
print(len(found), "no engine" in found[0])
"""
    assert run(WITHOUT_ENGINE + code).splitlines() == ["[[0, 1], [2, 3], [4, 5]] 3"] * 2 + ["1 True"]


def test_without_the_engine_the_torch_front_is_torchs_own_loader_and_says_so_once() -> None:
    code = """
import forebay.torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loader = forebay.torch.DataLoader(range(6), batch_size=2, num_workers=1)
    for _ in range(2):
        print([batch.tolist() for batch in loader])
    with loader:
        print(type(iter(loader)).__name__)
found = [str(warning.message) for warning in caught if warning.category.__name__ == "FallbackWarning"]
print(len(found), "this operating system" in found[0])
"""
    expected = ["[[0, 1], [2, 3], [4, 5]]"] * 2 + ["_MultiProcessingDataLoaderIter", "1 True"]
    assert run(WITHOUT_ENGINE + code).splitlines() == expected


def test_without_the_engine_nothing_is_said_where_there_are_no_workers() -> None:
    code = """
import forebay, forebay.torch
warnings.simplefilter("error", forebay.errors.ForebayWarning)
print([list(kind([1], num_workers=0))[0].tolist() for kind in (forebay.DataLoader, forebay.torch.DataLoader)])
"""
    assert run(WITHOUT_ENGINE + code) == "[[1], [1]]"


def test_without_the_engine_a_seed_is_refused_rather_than_forgotten() -> None:
    code = """
import forebay, forebay.torch
for kind in (forebay.DataLoader, forebay.torch.DataLoader):
    try:
        kind([1], seed=7)
    except forebay.errors.ConfigError as error:
        print(error)
"""
    said = "seed=7 needs Forebay's engine, which does not serve this operating system: leave seed, rank and world out"
    assert run(WITHOUT_ENGINE + code).splitlines() == [said] * 2


def test_an_engine_that_is_broken_is_an_error_and_not_taken_for_a_missing_one() -> None:
    code = """
import sys, types
sys.modules["forebay._engine"] = types.ModuleType("forebay._engine")
try:
    import forebay
    list(forebay.DataLoader([1], num_workers=1))
except (ImportError, NameError, AttributeError) as error:
    print(type(error).__name__)
"""
    assert run(code) in {"ImportError", "NameError", "AttributeError"}


def test_the_package_has_its_types_and_the_stub_of_the_engine_with_it() -> None:
    assert (PACKAGE / "py.typed").exists()
    assert (PACKAGE / "_engine.pyi").exists()
