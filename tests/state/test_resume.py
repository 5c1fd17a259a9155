"""A loader that loads a state delivers exactly what the one that it was taken of had not delivered."""

import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from samplers import ALL, DATA, GLOBAL, OWN, Counting, OfTheEpoch, seeded, through_json
from torch.utils.data import DistributedSampler, RandomSampler, TensorDataset

from forebay.torch import DataLoader
from support import Gate, SlowFirst, values

EPOCHS = 3
INTERRUPTED = 1
"""The epoch that is interrupted: not the first, so that what is random has gone on."""


def loader_of(name: str, **options: Any) -> DataLoader[Any]:
    own = ALL[name]()
    if "batch_sampler" not in own:
        own.setdefault("batch_size", 4)
    return DataLoader(DATA, **own, **options)  # type: ignore[arg-type]


def kinds(workers: int) -> dict[str, Any]:
    return {"num_workers": workers, "persistent_workers": workers == 2}


def disturbed() -> None:
    """As another process would have them: global streams that know nothing of the epoch."""
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)


def interrupted(loader: DataLoader[Any], at: float) -> tuple[list[Any], dict[str, Any], list[Any]]:
    """What had been delivered of an epoch, the state then, and what the epoch would have gone on with."""
    for _ in range(INTERRUPTED):
        for _ in loader:
            pass
    epoch = iter(loader)
    before = values(islice(epoch, int(at * len(loader))))
    state = through_json(loader.state_dict())
    return before, state, values(epoch)


@pytest.mark.parametrize(("workers", "at"), [(0, 0), (0, 0.3), (0, 0.7), (0, 1), (2, 0), (2, 0.6), (2, 1)])
@pytest.mark.parametrize("name", ALL)
def test_the_rest_of_the_epoch_comes_in_the_same_order(name: str, workers: int, at: float) -> None:
    _, state, rest = interrupted(loader_of(name, **kinds(workers)), at)
    disturbed()
    again = loader_of(name, **kinds(workers))
    again.load_state_dict(state)
    assert values(again) == rest


@pytest.mark.parametrize(("workers", "at"), [(0, 0), (0, 0.4), (0, 1), (1, 0.4), (2, 0.4)])
@pytest.mark.parametrize("name", OWN)
def test_later_epochs_are_those_of_the_uninterrupted_run(name: str, workers: int, at: float) -> None:
    loader = loader_of(name, **kinds(workers))
    _, state, _ = interrupted(loader, at)
    later = [values(loader) for _ in range(2)]
    again = loader_of(name, **kinds(workers))
    again.load_state_dict(state)
    list(again)
    assert [values(again) for _ in range(2)] == later


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_taken_after_the_end_begins_a_whole_new_epoch(name: str, workers: int) -> None:
    loader = loader_of(name, **kinds(workers))
    list(loader)
    state = through_json(loader.state_dict())
    again = loader_of(name, **kinds(workers))
    again.load_state_dict(state)
    assert values(again) == values(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_after_the_last_batch_and_before_the_end_nothing_is_left(workers: int) -> None:
    loader = loader_of("shuffle", **kinds(workers))
    epoch = iter(loader)
    for _ in range(len(loader)):
        next(epoch)
    again = loader_of("shuffle", **kinds(workers))
    again.load_state_dict(loader.state_dict())
    assert values(again) == []
    assert len(values(again)) == len(loader), "the next epoch is whole"


@pytest.mark.parametrize(("taken", "resumed"), [(0, 2), (2, 0), (1, 3), (3, 2)])
@pytest.mark.parametrize("name", ["shuffle", "all streams", "batch sampler of a class", "stateful sampler"])
def test_a_map_dataset_goes_on_with_any_number_of_workers(name: str, taken: int, resumed: int) -> None:
    _, state, rest = interrupted(loader_of(name, num_workers=taken), 0.5)
    disturbed()
    again = loader_of(name, num_workers=resumed)
    again.load_state_dict(state)
    assert values(again) == rest


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("name", ["shuffle", "with replacement", "all streams", "stateful sampler"])
def test_an_epoch_may_be_resumed_again_and_again(name: str, workers: int) -> None:
    loader = loader_of(name, **kinds(workers))
    epoch = iter(loader)
    delivered = [next(epoch).tolist()]
    state = through_json(loader.state_dict())
    whole = delivered + values(epoch)
    while True:
        disturbed()
        loader = loader_of(name, **kinds(workers))
        loader.load_state_dict(state)
        few = values(islice(iter(loader), 2))
        delivered += few
        if len(few) < 2:
            break
        state = through_json(loader.state_dict())
    assert delivered == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_is_for_the_next_iter_and_only_for_that(workers: int) -> None:
    loader = DataLoader(DATA, batch_size=4, **kinds(workers))  # type: ignore[arg-type]
    epoch = iter(loader)
    next(epoch)
    state = loader.state_dict()
    assert len(values(epoch)) == 5
    loader.load_state_dict(state)
    loader.load_state_dict({})
    assert loader.state_dict() == state, "what waits is what it stands for"
    assert [len(values(loader)) for _ in range(2)] == [5, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_may_be_loaded_in_the_middle_of_another_epoch(workers: int) -> None:
    loader = DataLoader(DATA, batch_size=4, **kinds(workers))  # type: ignore[arg-type]
    epoch = iter(loader)
    next(epoch)
    state = loader.state_dict()
    next(epoch)
    loader.load_state_dict(state)
    assert values(loader)[0] == [4, 5, 6, 7]


def test_before_the_first_iter_a_state_is_of_an_epoch_that_has_not_begun() -> None:
    loader = loader_of("shuffle with generator", num_workers=2)
    state = through_json(loader.state_dict())
    assert not loader._live, "no workers were started"
    whole = values(loader)
    again = loader_of("shuffle with generator", num_workers=2)
    assert again.generator is not None
    again.generator.manual_seed(1)
    again.load_state_dict(state)
    assert values(again) == whole


# Of a class that draws in its __iter__ torch's own call of iter() draws, too, as in every epoch.
@pytest.mark.parametrize("name", sorted(GLOBAL.keys() - {"batch sampler of a class"}))
@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_streams_are_only_lent(name: str, workers: int) -> None:
    """A resumed epoch leaves them as the first half of an ordinary one does: the base seed is drawn, as always."""
    _, state, _ = interrupted(loader_of(name, num_workers=workers), 0.5)
    again = loader_of(name, num_workers=workers)
    again.load_state_dict(state)
    disturbed()
    next(iter(again))
    found = torch.rand(3).tolist(), random.random(), np.random.rand()
    disturbed()
    if again.generator is None:
        torch.empty((), dtype=torch.int64).random_()
    assert found == (torch.rand(3).tolist(), random.random(), np.random.rand())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("workers", [0, 2])
def test_taking_states_changes_nothing(name: str, workers: int) -> None:
    def epochs(*, taking: bool) -> Iterator[Any]:
        torch.manual_seed(4)
        random.seed(4)
        np.random.seed(4)
        loader = loader_of(name, **kinds(workers))
        for _ in range(2):
            if taking:
                loader.state_dict()
            for batch in loader:
                if taking:
                    loader.state_dict()
                yield batch.tolist()
        yield torch.rand(3).tolist()

    assert list(epochs(taking=True)) == list(epochs(taking=False))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_keeps_its_state_draws_what_torchs_draws(name: str, workers: int) -> None:
    def drawn(kind: Any) -> list[Any]:
        disturbed()
        loader = kind(DATA, **ALL[name](), num_workers=workers)
        return [values(loader), values(loader), torch.rand(3).tolist(), random.random(), np.random.rand()]

    assert drawn(DataLoader) == drawn(torch.utils.data.DataLoader)


class Maker:
    """Samples tell who made them."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> torch.Tensor:
        info = torch.utils.data.get_worker_info()
        assert info is not None
        return torch.tensor([index, info.id])


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_come_from_the_workers_they_would_have_come_from(persistent: bool) -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader(Maker(), batch_size=2, num_workers=3, persistent_workers=persistent)  # type: ignore[arg-type]

    first = loader()
    epoch = iter(first)
    list(islice(epoch, 5))
    again = loader()
    again.load_state_dict(first.state_dict())
    assert values(again) == values(epoch)
    assert values(again) == values(first), "the next epoch begins with worker 0 again"


def test_a_whole_epoch_begins_with_worker_0_after_one_that_had_nothing_left() -> None:
    loader = DataLoader(Maker(), batch_size=2, num_workers=3, persistent_workers=True)  # type: ignore[arg-type]
    epoch = iter(loader)
    for _ in range(len(loader)):
        next(epoch)
    again = DataLoader(Maker(), batch_size=2, num_workers=3, persistent_workers=True)  # type: ignore[arg-type]
    again.load_state_dict(loader.state_dict())
    assert values(again) == []
    assert values(again) == values(loader)


class Failing:
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 2:
            raise ValueError("sample 2")
        return index


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_whose_place_was_taken_by_an_exception_counts_as_delivered(workers: int) -> None:
    loader = DataLoader(Failing(), batch_size=1, num_workers=workers)  # type: ignore[arg-type]
    epoch = iter(loader)
    assert values(islice(epoch, 2)) == [[0], [1]]
    with pytest.raises(ValueError, match="sample 2"):
        next(epoch)
    again = DataLoader(Failing(), batch_size=1, num_workers=workers)  # type: ignore[arg-type]
    again.load_state_dict(loader.state_dict())
    assert values(again) == [[3], [4], [5]]


def explode(number: int) -> int:
    raise ValueError(f"cannot load {number}")


class Mine:
    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return (explode if self.number == 2 else int), (self.number,)


def test_a_batch_that_could_not_be_unpickled_counts_as_delivered() -> None:
    def loader() -> DataLoader[Any]:
        return DataLoader([Mine(number) for number in range(6)], batch_size=None, num_workers=1)  # type: ignore[arg-type]

    first = loader()
    epoch = iter(first)
    assert list(islice(epoch, 2)) == [0, 1]
    with pytest.raises(ValueError, match="cannot load 2"):
        next(epoch)
    again = loader()
    again.load_state_dict(first.state_dict())
    assert list(again) == list(epoch) == [3, 4, 5]


class Interrupting:
    """Ctrl-C, once."""

    def __init__(self) -> None:
        self.armed = True

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        if index == 2 and self.armed:
            self.armed = False
            raise KeyboardInterrupt
        return index


def test_an_interrupted_batch_without_workers_comes_again_unless_the_epoch_went_on_without_it() -> None:
    loader = DataLoader(Interrupting())  # type: ignore[arg-type]
    epoch = iter(loader)
    assert values(islice(epoch, 2)) == [[0], [1]]
    with pytest.raises(KeyboardInterrupt):
        next(epoch)
    state = loader.state_dict()
    assert next(epoch).tolist() == [3]
    later = loader.state_dict()
    loader.load_state_dict(state)
    assert values(loader) == [[2], [3], [4], [5]]
    loader.load_state_dict(later)
    assert values(loader) == [[4], [5]]


class Told(Exception):
    """A sampler's."""


def failing_sampler() -> Iterator[int]:
    yield 0
    raise Told


def test_an_error_of_the_sampler_is_no_batch() -> None:
    class Sampler:
        def __iter__(self) -> Iterator[int]:
            return failing_sampler()

    loader = DataLoader(DATA, batch_size=1, sampler=Sampler())  # type: ignore[arg-type]
    epoch = iter(loader)
    next(epoch)
    with pytest.raises(Told):
        next(epoch)
    assert loader.state_dict()["_num_yielded"] == 1


@pytest.mark.parametrize("resumed_in_order", [False, True])
def test_out_of_order_exactly_the_rest_comes(gate: Gate, resumed_in_order: bool) -> None:
    dataset = SlowFirst(30, torch.utils.data.get_worker_info, gate)
    loader = DataLoader(dataset, batch_size=2, num_workers=2, in_order=False)  # type: ignore[arg-type]
    epoch = iter(loader)
    before = [batch[:, 0].tolist() for batch in islice(epoch, 5)]
    assert [0, 1] not in before, "the first batch is held back"
    state = through_json(loader.state_dict())
    gate.open()
    again = DataLoader(dataset, batch_size=2, num_workers=2, in_order=resumed_in_order)  # type: ignore[arg-type]
    again.load_state_dict(state)
    epoch = iter(again)
    some = [batch[:, 0].tolist() for batch in islice(epoch, 3)]
    once_more = DataLoader(dataset, batch_size=2, num_workers=2, in_order=False)  # type: ignore[arg-type]
    once_more.load_state_dict(through_json(again.state_dict()))
    rest = [batch[:, 0].tolist() for batch in once_more]
    assert sorted(before + some + rest) == [[2 * number, 2 * number + 1] for number in range(15)]


@pytest.mark.parametrize("sampler", [DistributedSampler(DATA, 2, 0), OfTheEpoch()])
def test_the_epoch_of_a_sampler_is_restored(sampler: Any) -> None:
    sampler.set_epoch(3)
    loader = DataLoader(DATA, batch_size=2, sampler=sampler)  # type: ignore[arg-type]
    epoch = iter(loader)
    next(epoch)
    state = through_json(loader.state_dict())
    rest = values(epoch)
    sampler.set_epoch(0)
    again = DataLoader(DATA, batch_size=2, sampler=sampler)  # type: ignore[arg-type]
    again.load_state_dict(state)
    assert values(again) == rest
    assert sampler.epoch == 3


def test_a_stateful_sampler_is_asked_for_every_batch_and_told_apart_from_what_it_drew_ahead() -> None:
    sampler = Counting()
    loader = DataLoader(DATA, batch_size=4, sampler=sampler, num_workers=2)  # type: ignore[arg-type]
    epoch = iter(loader)
    next(epoch)
    assert sampler.drawn > 4
    assert loader.state_dict()["_index_sampler_state"] == {"samples_yielded": 4, "sampler_state": {"drawn": 4}}


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_get_the_seeds_of_the_epoch_that_goes_on(workers: int) -> None:
    loader = DataLoader(TensorDataset(torch.arange(8)), num_workers=workers)
    epoch: Any = iter(loader)
    next(epoch)
    again = DataLoader(TensorDataset(torch.arange(8)), num_workers=workers)
    again.load_state_dict(through_json(loader.state_dict()))
    resumed: Any = iter(again)
    assert resumed._base_seed == epoch._base_seed


def test_a_loaded_state_survives_pickling_and_a_running_epoch_does_not_prevent_it() -> None:
    import copy

    loader = loader_of("shuffle with generator")
    epoch = iter(loader)
    next(epoch)
    state = loader.state_dict()
    rest = values(epoch)
    again = loader_of("shuffle with generator")
    again.load_state_dict(state)
    assert values(copy.deepcopy(again)) == rest
    assert copy.deepcopy(loader).state_dict()["_num_yielded"] == 0


@pytest.mark.parametrize("replacement", [False, True])
def test_ten_million_samples_resume_at_the_right_place(replacement: bool) -> None:
    count = 10_000_000 if replacement else 1_000_000

    def loader() -> DataLoader[Any]:
        sampler = RandomSampler(range(count), replacement, generator=seeded())
        return DataLoader(range(count), batch_size=1000, sampler=sampler, collate_fn=list)  # type: ignore[arg-type]

    first = loader()
    next(iter(first))
    state = first.state_dict()
    state["_num_yielded"] = state["_sampler_iter_yielded"] = at = count // 1000 * 9 // 10
    again = loader()
    again.load_state_dict(state)
    draw = torch.randint(count, (count,), generator=seeded()) if replacement else None
    order = torch.randperm(count, generator=_after_base_seed()) if draw is None else draw
    assert next(iter(again)) == order[at * 1000 : (at + 1) * 1000].tolist()


def _after_base_seed() -> torch.Generator:
    return seeded()  # the loader has no generator of its own: its base seed is drawn from the global stream


def test_vars_of_a_loader_are_still_its_arguments() -> None:
    loader = loader_of("shuffle")
    next(iter(loader))
    loader.load_state_dict(loader.state_dict())
    public = {name for name in vars(loader) if not name.startswith("_")}
    assert public == {
        *("batch_sampler", "batch_size", "collate_fn", "dataset", "drop_last", "generator", "in_order", "num_workers"),
        *("persistent_workers", "pin_memory", "pin_memory_device", "prefetch_factor", "sampler", "timeout"),
        *("worker_init_fn", "memory_budget"),
    }
