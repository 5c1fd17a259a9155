"""`forebay.install()`: torch's loaders are served, those that exist already too, and everything can be undone."""

import abc
import copy
import gc
import pickle
import sys
import types
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.utils.data.dataloader
import typing_extensions
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter, _SingleProcessDataLoaderIter

import forebay
import forebay.torch
from forebay import _fallback, _ledger
from forebay._after_import import after_import
from forebay.errors import ConfigError, FallbackWarning
from forebay.torch._inline import InlineIterator
from forebay.torch._iterator import WorkersIterator
from programs import python, write
from support import identity, values

LoaderOfInts = DataLoader[int]
STOCK: list[type] = [DataLoader]  # in a list, which nobody rebinds


class Derived(DataLoader):  # before any install: from torch's own class
    def __init__(self, dataset: Any, extra: str, **options: Any) -> None:
        DataLoader.__init__(self, dataset, **options)
        self.extra = extra

    def __iter__(self) -> Any:
        return DataLoader.__iter__(self)


class Own(DataLoader):
    def _get_iterator(self) -> Any:
        return OwnIterator(self)


class OwnIterator(_MultiProcessingDataLoaderIter):
    pass


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in which nothing was told yet."""
    monkeypatch.setattr(_ledger, "_ledger", _ledger._Ledger())
    monkeypatch.setattr(_fallback, "_said", set())


@pytest.fixture
def installed(fresh: None) -> Iterator[None]:
    forebay.install()
    yield
    forebay.uninstall()


def test_torchs_names_are_forebays_wherever_they_were_imported_before(installed: None) -> None:
    assert DataLoader is forebay.torch.DataLoader
    assert torch.utils.data.DataLoader is forebay.torch.DataLoader
    assert torch.utils.data.dataloader.DataLoader is forebay.torch.DataLoader


def test_uninstall_leaves_everything_as_it_was() -> None:
    stock = STOCK[0]
    before = (vars(stock)["_get_iterator"], torch.utils.data.dataloader._BaseDataLoaderIter.__init__)
    forebay.install()
    forebay.install()
    inside = DataLoader([1])
    forebay.uninstall()
    assert DataLoader is stock
    assert torch.utils.data.DataLoader is stock
    assert torch.utils.data.dataloader.DataLoader is stock
    assert before == (vars(stock)["_get_iterator"], torch.utils.data.dataloader._BaseDataLoaderIter.__init__)
    assert not isinstance(stock([1]), forebay.torch.DataLoader)
    assert type(iter(stock([1]))) is _SingleProcessDataLoaderIter
    assert type(iter(inside)) is InlineIterator
    forebay.uninstall()


def test_uninstall_leaves_alone_what_a_program_has_changed_since(installed: None) -> None:
    torch.utils.data.DataLoader = Derived  # type: ignore[misc]
    try:
        forebay.uninstall()
        assert torch.utils.data.DataLoader is Derived
    finally:
        torch.utils.data.DataLoader = STOCK[0]  # type: ignore[misc]


@pytest.mark.parametrize(("num_workers", "iterator"), [(0, InlineIterator), (1, WorkersIterator)])
def test_loaders_that_were_made_before_are_served(num_workers: int, iterator: type, fresh: None) -> None:
    loaders = [DataLoader(range(3), num_workers=num_workers), Derived(range(3), "x", num_workers=num_workers)]
    forebay.install()
    try:
        for loader in loaders:
            assert type(iter(loader)) is iterator
            assert values(loader) == [[0], [1], [2]]
    finally:
        forebay.uninstall()


def test_classes_and_aliases_from_before_make_loaders_that_are_served(installed: None) -> None:
    for loader in (
        Derived(range(3), "x", num_workers=1),
        Derived(range(3), "x", num_workers=1, persistent_workers=True),
        LoaderOfInts(range(3), num_workers=1),
        STOCK[0](range(3), num_workers=1),
    ):
        for _ in range(2):
            assert isinstance(iter(loader), WorkersIterator)
            assert values(loader) == [[0], [1], [2]]
        assert set(vars(loader)) - set(vars(STOCK[0]([1]))) <= {"extra", "__orig_class__"}, (
            "a library passes these to a constructor"
        )
        del loader
        gc.collect()


def test_a_loader_of_torch_without_samples_is_served_as_any_other(installed: None) -> None:
    assert type(iter(STOCK[0]([], batch_size=None))) is InlineIterator


def test_torchs_loaders_are_instances_of_the_class_in_its_place_while_it_is(fresh: None) -> None:
    ours, stock = forebay.torch.DataLoader, STOCK[0]
    loader, derived = stock([1]), Derived([1], "x")
    assert not isinstance(loader, ours)  # an answer that must not be remembered
    forebay.install()
    try:
        assert isinstance(loader, DataLoader)
        assert isinstance(derived, DataLoader)
        assert isinstance(ours([1]), stock)
        assert issubclass(Derived, DataLoader)
        assert issubclass(stock, DataLoader)
        assert Derived in DataLoader.__subclasses__()
        assert ours not in DataLoader.__subclasses__()

        class Mine(DataLoader):
            pass

        assert isinstance(Mine([1]), DataLoader)
        assert not isinstance(loader, Mine)
        assert not isinstance([1], DataLoader)
        assert Mine in DataLoader.__subclasses__()
    finally:
        forebay.uninstall()
    assert not isinstance(loader, ours)
    assert not issubclass(Derived, ours)
    assert Derived not in ours.__subclasses__()


def test_a_loader_of_torchs_class_can_be_pickled_and_copied_while_its_name_is_ours(installed: None) -> None:
    loader = STOCK[0](range(3), batch_size=2)
    for other in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
        assert type(other) is forebay.torch.DataLoader
        assert values(other) == [[0, 1], [2]]
    derived = pickle.loads(pickle.dumps(Derived(range(3), "x")))
    assert (type(derived), derived.extra) == (Derived, "x")
    forebay.uninstall()
    assert type(pickle.loads(pickle.dumps(STOCK[0]([1])))) is STOCK[0]


@typing.runtime_checkable
class Closing(typing.Protocol):
    def close(self) -> None: ...


@typing_extensions.runtime_checkable
class Counting(typing_extensions.Protocol):
    def count(self) -> int: ...


def test_a_class_may_derive_from_the_loader_and_from_an_abc_or_a_protocol(installed: None) -> None:
    class Abstract(DataLoader, abc.ABC):
        @abc.abstractmethod
        def count(self) -> int: ...

    class Concrete(Abstract, Closing, Counting):
        def count(self) -> int:
            return len(self)

    class Generic(DataLoader[int], typing.Generic[typing.TypeVar("T")]):
        pass

    with pytest.raises(TypeError, match="abstract"):
        Abstract([1])
    loader = Concrete([1, 2])
    assert (loader.count(), values(loader)) == (2, [[1], [2]])
    assert isinstance(loader, Closing)
    assert isinstance(loader, Counting)
    assert isinstance(loader, Abstract)
    assert not isinstance(DataLoader([1]), Abstract)
    Abstract.register(list)
    assert isinstance([], Abstract)
    assert values(Generic([1])) == [[1]]


class Modest:
    """What some programs put among the modules: it has nothing, not even a dictionary."""

    __slots__ = ()


class Touchy(types.ModuleType):
    """A module that loads what it is asked for, or fails to."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(f"asked for {name}")


def test_modules_that_must_not_be_touched_are_not(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    touchy = Touchy("touchy")
    object.__getattribute__(touchy, "__dict__")["Loader"] = DataLoader
    for name, module in (("touchy", touchy), ("modest", Modest()), ("none", None)):
        monkeypatch.setitem(sys.modules, name, module)
    forebay.install()
    try:
        assert object.__getattribute__(touchy, "__dict__")["Loader"] is forebay.torch.DataLoader
    finally:
        forebay.uninstall()
    assert object.__getattribute__(touchy, "__dict__")["Loader"] is STOCK[0]


# -- What cannot be served


class ThreadContext(torch.multiprocessing.get_context("fork").__class__):  # as MONAI's: its processes are threads
    def Process(self, *arguments: Any, **options: Any) -> Any:  # noqa: N802
        raise AssertionError("no iterator is begun here")


class Duck:
    """As fastai's: no loader, but what an iterator of torch's asks one for."""

    def __init__(self, num_workers: int) -> None:
        stock = STOCK[0](range(3), num_workers=num_workers)
        vars(self).update(vars(stock), multiprocessing_context=None)
        for name in ("_auto_collation", "_index_sampler"):
            setattr(self, name, getattr(stock, name))


def falls_back(make: Any) -> list[str]:
    """What is said when an iterator is made twice, which must be torch's."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            iterator = make()
            assert not isinstance(iterator, (WorkersIterator, InlineIterator))
            assert values(iterator) == [[0], [1], [2]]
    said = [warning for warning in caught if warning.category is FallbackWarning]
    assert {Path(warning.filename).name for warning in said} <= {Path(__file__).name}
    return [str(warning.message) for warning in said]


def test_datapipes_have_torchs_own_iterator(installed: None) -> None:
    from torch.utils.data.datapipes.iter import IterableWrapper

    assert falls_back(lambda: iter(DataLoader(IterableWrapper(range(3)), num_workers=1))) == [
        "forebay.torch.DataLoader does not serve datapipes yet: torch's own iterator does"
    ]
    assert _ledger.summary() == ["torch's own iterators served 2 loaders: datapipes"]


def test_a_context_whose_processes_are_threads_goes_to_torchs_own_iterator(
    installed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Any] = []
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__init__", lambda _, loader: begun.append(loader))
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "__del__", lambda _: None)
    loader = DataLoader(range(3), num_workers=1, multiprocessing_context=ThreadContext())
    with pytest.warns(FallbackWarning, match="does not serve the multiprocessing context"):
        iter(loader)
    assert begun == [loader]


def test_a_class_with_iterators_of_its_own_keeps_them_and_that_is_said_once(installed: None) -> None:
    (said,) = falls_back(lambda: iter(Own(range(3), num_workers=1)))
    assert said == (
        "forebay.torch.DataLoader does not serve Own, which makes iterators of its own (test_install.OwnIterator): "
        "they are used as they are"
    )
    assert falls_back(lambda: iter(forebay.torch.wrap(Own(range(3), num_workers=1)))) == []


def test_iterators_that_a_library_makes_itself_are_torchs_and_that_is_said_once(installed: None) -> None:
    (said,) = falls_back(lambda: _MultiProcessingDataLoaderIter(Duck(1)))
    assert "does not serve Duck, which makes iterators of its own" in said
    assert falls_back(lambda: _SingleProcessDataLoaderIter(Duck(0))) == []  # there is nothing to hand over


def test_off_switches_everything_back(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY", "off")
    forebay.install()
    assert DataLoader is STOCK[0]
    for num_workers, kind in ((0, _SingleProcessDataLoaderIter), (1, _MultiProcessingDataLoaderIter)):
        with warnings.catch_warnings():
            warnings.simplefilter("error", FallbackWarning)
            assert type(iter(forebay.torch.DataLoader(range(3), num_workers=num_workers))) is kind
    assert _ledger.summary() == ["torch's own iterators served 2 loaders: FOREBAY=off"]
    monkeypatch.setenv("FOREBAY", "maybe")
    for refuses in (forebay.install, lambda: iter(forebay.torch.DataLoader([1]))):
        with pytest.raises(ConfigError, match="environment variable FOREBAY should be on or off, but is 'maybe'"):
            refuses()


def test_torchs_own_iterator_serves_no_loader_with_a_seed_it_would_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY", "off")
    with pytest.raises(ConfigError, match="seed=7 needs Forebay's engine, which does not serve programs with FOREBAY"):
        iter(forebay.torch.DataLoader([1], seed=7))


# -- What was served


def test_batches_are_counted_to_the_last_whoever_ends_the_iterator(installed: None) -> None:
    loader = DataLoader(range(6), num_workers=1, persistent_workers=True)
    for _ in range(2):
        values(loader)
    kept = iter(loader)
    next(kept)
    lost = iter(STOCK[0](range(6), num_workers=1))
    next(lost)
    lost.__del__()  # as a library does
    del lost
    values(DataLoader(range(6)))
    (line,) = _ledger.summary()
    assert line == (
        "14 batches of 2 loaders came from Forebay's workers; 6 batches of 1 loader were made in this process "
        "(num_workers=0)"
    )


# -- When torch comes later


def test_install_waits_for_torch_and_does_not_import_it(tmp_path: Path) -> None:
    program = write(
        tmp_path,
        """
        import sys
        import forebay
        forebay.install()
        print("torch" in sys.modules)
        import torch
        print(torch.utils.data.DataLoader.__module__, torch.__spec__.loader, len(sys.meta_path))
        forebay.uninstall()
        print(torch.utils.data.DataLoader.__module__)
        """,
    )
    plain = write(tmp_path, "import sys, torch; print(torch.__spec__.loader, len(sys.meta_path))", "plain.py")
    ended, loader = python(tmp_path, program), python(tmp_path, plain).stdout
    address = loader.partition(" at ")[0]
    assert ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert (lines[0], lines[2]) == ("False", "torch.utils.data.dataloader")
    assert lines[1].startswith(f"forebay.torch._loader {address}")
    assert lines[1].endswith(f" {loader.split()[-1]}")


def test_uninstall_before_torch_comes_lets_it_be(tmp_path: Path) -> None:
    text = "import forebay; forebay.install(); forebay.uninstall(); import torch; print(torch.utils.data.DataLoader)"
    ended = python(tmp_path, write(tmp_path, text))
    assert (ended.stdout, ended.stderr) == ("<class 'torch.utils.data.dataloader.DataLoader'>\n", "")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of modules that can be imported; afterwards they are forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before, finders = set(sys.modules), list(sys.meta_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]
    assert sys.meta_path == finders


def test_an_action_comes_when_all_modules_are_complete_and_once(modules: Path) -> None:
    write(modules, "import later_inner\nafter = 'complete'", "later_outer.py")
    write(modules, "", "later_inner.py")
    seen: list[str] = []
    for _ in range(2):  # two watches do not disturb one another
        after_import(("later_outer", "later_inner"), lambda: seen.append(sys.modules["later_outer"].after))
    import later_outer  # type: ignore[import-not-found]

    assert seen == ["complete", "complete"]
    after_import(("later_outer",), lambda: seen.append("at once"))
    assert seen[2:] == ["at once"]
    assert "exec_module" not in vars(later_outer.__spec__.loader)


def test_an_import_that_fails_is_waited_for_again(modules: Path) -> None:
    seen: list[str] = []
    after_import(("later_broken",), lambda: seen.append("here"))
    with pytest.raises(ModuleNotFoundError):
        import later_broken  # type: ignore[import-not-found]
    broken = write(modules, "raise RuntimeError('not yet')", "later_broken.py")
    with pytest.raises(RuntimeError, match="not yet"):
        import later_broken
    assert seen == []
    broken.write_text("fine = True  # and of another length")
    import later_broken

    assert (seen, later_broken.fine) == (["here"], True)


def test_a_collate_fn_of_the_users_is_called_by_those_who_serve(installed: None) -> None:
    assert list(STOCK[0](range(3), batch_size=2, num_workers=1, collate_fn=identity)) == [[0, 1], [2]]
