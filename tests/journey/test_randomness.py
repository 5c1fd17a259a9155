"""Random generators that a dataset holds: when they are warned of, what is said, and what looking for them may do."""

import functools
import gc
import importlib
import random
import warnings
import weakref
from collections import OrderedDict, UserDict, namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import forebay
from forebay._randomness import held_generators, warn_of_equal_generators
from forebay.errors import EqualGeneratorsWarning, ForebayWarning
from support import Front, Numbers


class Noise(Numbers):
    """Samples are numbers from `rng`."""

    def __init__(self, rng: Any) -> None:
        super().__init__(8)
        self.rng = rng

    def __getitem__(self, index: int) -> float:
        return float(self.rng.random())


class Bag:
    """An object with the attributes it is given."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def warnings_of(action: Callable[[], object]) -> list[warnings.WarningMessage]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    return [warning for warning in caught if issubclass(warning.category, EqualGeneratorsWarning)]


def noise(batches: Any) -> list[float]:
    return [number for batch in batches for number in batch.tolist()]


# -- The trap, and the cure


@pytest.mark.filterwarnings("ignore::forebay.errors.EqualGeneratorsWarning")
def test_without_a_cure_workers_draw_equal_numbers_and_the_next_epoch_the_same(front: Front) -> None:
    loader = front.DataLoader(Noise(rng()), num_workers=2)
    first, second = noise(loader), noise(loader)
    assert first[0::2] == first[1::2]
    assert first == second


def test_the_cure_that_the_warning_names_works(front: Front) -> None:
    (warning,) = warnings_of(lambda: list(front.DataLoader(Noise(rng()), num_workers=2)))
    lines = str(warning.message).splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    names: dict[str, Any] = {"numpy": np, "get_worker_info": front.get_worker_info}
    exec(code, names)
    loader = front.DataLoader(Noise(rng()), num_workers=2, worker_init_fn=names["worker_init_fn"])
    assert len(set(noise(loader) + noise(loader))) == 16


@pytest.mark.parametrize(
    ("held", "draw"),
    [
        (random.Random(0), lambda info: info.dataset.rng.random()),
        (np.random.RandomState(0), lambda info: info.dataset.rng.random()),
        (np.random.default_rng(0), lambda info: info.dataset.rng.random()),
        (torch.Generator(), lambda info: torch.rand((), generator=info.dataset.rng).item()),
    ],
    ids=["random", "RandomState", "numpy", "torch"],
)
def test_the_cure_of_every_kind_of_generator_runs(held: Any, draw: Callable[[Any], float]) -> None:
    dataset = Noise(held)
    (warning,) = warnings_of(lambda: iter(forebay.DataLoader(dataset, num_workers=2)))
    lines = str(warning.message).splitlines()
    code = "\n".join(line[4:] for line in lines if line.startswith("    "))
    drawn = set()
    for seed in (2**63 + 1, 2**63 + 2):
        info = forebay.WorkerInfo(0, 2, seed, dataset)
        names: dict[str, Any] = {
            "numpy": np,
            "random": random,
            "torch": torch,
            "get_worker_info": lambda info=info: info,
        }
        exec(code, names)
        names["worker_init_fn"](0)
        drawn.add(draw(info))
    assert len(drawn) == 2


# -- When


def test_the_warning_comes_once_for_a_loader(front: Front) -> None:
    loader = front.DataLoader(Noise(rng()), num_workers=2)
    assert len(warnings_of(lambda: [list(loader) for _ in range(3)])) == 1
    assert len(warnings_of(lambda: list(front.DataLoader(Noise(rng()), num_workers=2)))) == 1


def test_it_is_a_warning_of_forebay_that_points_at_the_users_line(front: Front) -> None:
    loader = front.DataLoader(Noise(rng()), num_workers=2)
    (warning,) = warnings_of(lambda: list(loader))
    assert issubclass(warning.category, ForebayWarning)
    assert Path(warning.filename) == Path(__file__)


def test_as_an_error_it_leaves_no_worker_and_does_not_come_again(front: Front) -> None:
    loader = front.DataLoader(Noise(rng()), num_workers=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EqualGeneratorsWarning)
        with pytest.raises(EqualGeneratorsWarning):
            iter(loader)
        assert len(list(loader)) == 8


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 0},
        {"num_workers": 2, "worker_init_fn": print},
        {"num_workers": 1, "persistent_workers": True},  # one stream that goes on
    ],
    ids=["no workers", "a worker_init_fn", "one persistent worker"],
)
def test_there_is_no_warning_where(front: Front, options: dict[str, Any]) -> None:
    with front.DataLoader(Noise(rng()), **options) as loader:
        assert warnings_of(lambda: iter(loader)) == []


@pytest.mark.parametrize(
    ("options", "said", "unsaid"),
    [
        ({"num_workers": 3}, "in all 3 workers and in every epoch", "#"),
        ({"num_workers": 3, "persistent_workers": True}, "in all 3 workers.", "every epoch"),
        ({"num_workers": 1}, "the same numbers in every epoch", "in all"),
    ],
    ids=["workers", "persistent workers", "one worker"],
)
def test_it_says_where_the_numbers_are_the_same(front: Front, options: dict[str, Any], said: str, unsaid: str) -> None:
    with front.DataLoader(Noise(rng()), **options) as loader:
        (warning,) = warnings_of(lambda: iter(loader))
    assert said in str(warning.message)
    assert unsaid not in str(warning.message).partition("#")[0]


def test_a_loader_that_cannot_be_hashed_still_loads(front: Front) -> None:
    class Alike(front.DataLoader):  # type: ignore[misc, name-defined]
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            return True

    loader = Alike(Noise(rng()), num_workers=0)
    loader.num_workers = 2
    assert warnings_of(lambda: warn_of_equal_generators(loader, stacklevel=1)) == []


# -- What is found


class Slotted:
    __slots__ = ("early", "late")

    def __init__(self, late: Any) -> None:
        self.late = late


class Shared:
    rng = np.random.default_rng(0)


class Row(list[Any]):
    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the user's code ran")


class Table(dict[Any, Any]):
    def items(self) -> Any:
        raise AssertionError("the user's code ran")


Pair = namedtuple("Pair", "left right")


def closed_over(held: Any) -> Callable[[], Any]:
    return lambda: held


def a_method(self: Any) -> None:
    pass


HOLDERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "an attribute": (lambda held: Bag(rng=held), "dataset.rng"),
    "a list": (lambda held: Bag(all=[0, "a", held]), "dataset.all[2]"),
    "a tuple in a dict": (lambda held: Bag(all={"a": (held,)}), "dataset.all['a'][0]"),
    "a dict by numbers": (lambda held: {3: held}, "dataset[3]"),
    "a dict by objects": (lambda held: {Pair: held}, "dataset[...]"),
    "an ordered dict": (lambda held: OrderedDict(a=held), "dataset['a']"),
    "a user's dict": (lambda held: UserDict(a=held), "dataset.data['a']"),
    "a named tuple": (lambda held: Pair(0, held), "dataset[1]"),
    "a slot": (lambda held: Slotted(held), "dataset.late"),
    "its class": (lambda held: Shared(), "dataset.rng"),
    "a list with its own __iter__": (lambda held: Row([held]), "dataset[0]"),
    "a dict with its own items": (lambda held: Table(a=held), "dataset['a']"),
    "a subset": (lambda held: forebay.Subset(Bag(rng=held), [0]), "dataset.dataset.rng"),
    "torch's subset": (lambda held: torch.utils.data.Subset(Noise(held), [0]), "dataset.dataset.rng"),
    "a joined dataset": (
        lambda held: torch.utils.data.ConcatDataset([Noise(0), Noise(held)]),
        "dataset.datasets[1].rng",
    ),
    "a closure": (lambda held: Bag(f=closed_over(held)), "dataset.f.__closure__[0].cell_contents"),
    "a partial": (lambda held: Bag(f=functools.partial(max, key=held)), "dataset.f.keywords['key']"),
    "a bound method": (lambda held: Bag(f=a_method.__get__(Bag(rng=held))), "dataset.f.__self__.rng"),
    "a cycle": (lambda held: _cyclic(held), "dataset.rng"),
}


def _cyclic(held: Any) -> Any:
    bag = Bag(all=[])
    bag.all += [bag, bag.all]
    bag.rng = held
    return bag


@pytest.mark.parametrize("holder", HOLDERS)
def test_a_generator_is_found_in(holder: str) -> None:
    make, path = HOLDERS[holder]
    assert list(held_generators(make(rng()))) == [path]


class MyGenerator(random.Random):
    pass


@pytest.mark.parametrize(
    ("held", "kind"),
    [
        (np.random.default_rng(0), np.random.Generator),
        (np.random.RandomState(0), np.random.RandomState),
        (random.Random(0), random.Random),
        (MyGenerator(0), random.Random),
        (torch.Generator(), torch.Generator),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_kind_of_generator_is_found(held: Any, kind: type) -> None:
    assert held_generators(Bag(rng=held)) == {"dataset.rng": kind}


@pytest.mark.parametrize(
    "held",
    [
        random,
        np.random,
        random.random,
        np.random.random,
        getattr(random.random, "__self__"),  # noqa: B009 - no public name
        getattr(np.random.random, "__self__"),  # noqa: B009
        torch.default_generator,
        random.SystemRandom(),
        np.random.Generator,
    ],
    ids=repr,
)
def test_what_every_worker_seeds_or_what_has_no_state_is_not_warned_of(held: Any) -> None:
    assert held_generators(Bag(rng=held)) == {}


def test_a_library_whose_workers_must_agree_is_not_told_to_make_them_differ() -> None:
    shuffled = type("Shuffled", (Bag,), {"__module__": "datasets.iterable_dataset"})
    dataset = shuffled(generator=rng(), transform=Bag(rng=rng()))
    assert list(held_generators(dataset)) == ["dataset.transform.rng"]


def test_many_generators_are_counted_and_the_nearest_are_named(front: Front) -> None:
    dataset = Noise(rng())
    dataset.more = [Bag(rng=rng()) for _ in range(5)]
    (warning,) = warnings_of(lambda: iter(front.DataLoader(dataset, num_workers=2)))
    text = str(warning.message)
    assert "dataset.rng (a numpy.random.Generator), dataset.more[0].rng (a numpy.random.Generator), " in text
    assert "and 3 more" in text


# -- What looking may do


class Touchy:
    """Every way of asking it is an error."""

    def __init__(self) -> None:
        object.__setattr__(self, "rng", rng())

    def _ran(self, *_: object) -> Any:
        raise AssertionError("the user's code ran")

    __getattribute__ = __getattr__ = __len__ = __iter__ = __getitem__ = __hash__ = __eq__ = __repr__ = __bool__ = _ran
    __class__ = property(_ran)  # type: ignore[assignment]
    secret = property(_ran)


class TouchyKind(type):
    def __getattribute__(cls, name: str) -> Any:
        raise AssertionError("the user's code ran")

    def __hash__(cls) -> int:
        raise AssertionError("the user's code ran")


class OfTouchyKind(metaclass=TouchyKind):
    pass


def test_looking_runs_no_code_of_the_dataset() -> None:
    touchy, odd = Touchy(), OfTouchyKind()
    found = held_generators([touchy, odd, {("a", 1): touchy}])
    assert list(found) == ["dataset[0].rng"]


def test_neither_the_loader_nor_what_was_looked_at_is_kept(front: Front) -> None:
    dataset = Noise(rng())
    loader = front.DataLoader(dataset, num_workers=2)
    with pytest.warns(EqualGeneratorsWarning):
        list(loader)
    kept = [weakref.ref(dataset), weakref.ref(loader)]
    del dataset, loader
    gc.collect()
    assert [reference() for reference in kept] == [None, None]


def test_of_long_lists_only_the_beginning_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("forebay._randomness")
    looked: list[object] = []
    original = module._Layout.parts

    def parts(self: Any, value: object) -> Any:
        for found in original(self, value):
            looked.append(found)
            yield found

    monkeypatch.setattr(module._Layout, "parts", parts)
    samples = [Bag(path=str(number), place=Bag(row=[number])) for number in range(2_000)]
    wide = [[[Bag() for _ in range(40)] for _ in range(40)] for _ in range(40)]
    held_generators([samples, list(range(1_000_000)), {number: Bag() for number in range(10_000)}, wide])
    # What is held by at most _MOST_OBJECTS objects with few entries each, however many there are.
    assert len(looked) < 4 * module._MOST_OBJECTS
    assert held_generators([0] * 1_000_000 + [rng()]) == {}


@pytest.mark.parametrize(("depth", "is_found"), [(10, True), (11, False)])
def test_looking_goes_ten_steps_deep(depth: int, is_found: bool) -> None:
    chain: Any = rng()
    for _ in range(depth):
        chain = [chain]
    assert bool(held_generators(chain)) is is_found


def test_a_look_that_fails_stops_no_loader(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    def changed(_dataset: object) -> Any:
        raise RuntimeError("dictionary changed size during iteration")  # by another thread

    monkeypatch.setattr("forebay._randomness.held_generators", changed)
    assert len(list(front.DataLoader(Noise(rng()), num_workers=2))) == 8
