"""1.4 Seeding: what is drawn from which stream, and what workers are seeded with, bit for bit."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from subjects import Calls, Squares, as_is, asking, column
from torch.utils.data import RandomSampler
from torch.utils.data._utils.worker import _generate_state

from support import flat


def draw(generator: torch.Generator | None = None) -> int:
    """One draw of an int64, as the loader draws its base_seed and the sampler its own."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def permutation(count: int, generator: torch.Generator) -> list[int]:
    """What a `RandomSampler` gives: it draws another permutation at its end, for the samples beyond whole rounds."""
    order = torch.randperm(count, generator=generator).tolist()
    torch.randperm(count, generator=generator)
    return order


@pytest.mark.parametrize("workers", [0, 2])
def test_each_epoch_draws_one_base_seed_from_the_global_stream(kind: Any, workers: int) -> None:
    loader = kind(Squares(4), num_workers=workers)
    torch.manual_seed(7)
    for _ in range(3):
        list(loader)
    found = torch.get_rng_state()
    torch.manual_seed(7)
    for _ in range(3):
        draw()
    assert torch.equal(torch.get_rng_state(), found)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shuffled_epoch_draws_the_samplers_seed_after_the_base_seed(kind: Any, workers: int) -> None:
    loader = kind(range(20), shuffle=True, num_workers=workers)
    torch.manual_seed(7)
    orders = [flat(loader) for _ in range(2)]
    found = torch.get_rng_state()
    torch.manual_seed(7)
    for order in orders:
        draw()
        assert order == permutation(20, seeded(draw()))
    assert torch.equal(torch.get_rng_state(), found)


@pytest.mark.parametrize("workers", [0, 2])
def test_with_a_generator_the_base_seed_and_the_order_come_from_it_and_the_global_stream_is_left_alone(
    kind: Any, workers: int
) -> None:
    state = torch.get_rng_state()
    given, twin = seeded(42), seeded(42)
    loader = kind(range(20), shuffle=True, num_workers=workers, generator=given)
    for _ in range(2):
        order = flat(loader)
        draw(twin)
        assert order == permutation(20, twin)
    assert torch.equal(given.get_state(), twin.get_state())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_generator_of_the_sampler_only_leaves_the_base_seed_to_the_global_stream(kind: Any) -> None:
    given, twin = seeded(42), seeded(42)
    loader = kind(asking(20), sampler=RandomSampler(range(20), generator=given), num_workers=1)
    torch.manual_seed(7)
    batches = list(loader)
    torch.manual_seed(7)
    assert set(column(batches, 5)) == {draw()}
    assert column(batches, 0) == permutation(20, twin)


def test_a_generator_with_the_same_seed_repeats_everything(kind: Any) -> None:
    def epochs() -> list[Any]:
        dataset = Calls(8, lambda _: torch.rand(()))
        loader = kind(dataset, shuffle=True, num_workers=2, generator=seeded(42))
        return [flat(loader) for _ in range(2)]

    first = epochs()
    assert first == epochs()
    assert first[0] != first[1]


@pytest.mark.parametrize("shuffle", [False, True])
def test_persistent_workers_draw_their_base_seed_once(kind: Any, shuffle: bool) -> None:
    loader = kind(range(6), shuffle=shuffle, num_workers=2, persistent_workers=True)
    torch.manual_seed(7)
    for _ in range(3):
        list(loader)
    found = torch.get_rng_state()
    torch.manual_seed(7)
    for _ in range(4 if shuffle else 1):
        draw()
    assert torch.equal(torch.get_rng_state(), found)


def test_persistent_workers_draw_their_base_seed_from_a_generator_once_too(kind: Any) -> None:
    given, twin = seeded(42), seeded(42)
    loader = kind(range(6), shuffle=True, num_workers=2, persistent_workers=True, generator=given)
    draw(twin)
    for _ in range(3):
        assert flat(loader) == permutation(6, twin)
    assert torch.equal(given.get_state(), twin.get_state())


def _streams(index: int) -> list[float]:
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


def seed_as_worker(base_seed: int, worker: int) -> None:
    random.seed(base_seed + worker)
    np.random.seed(_generate_state(base_seed, worker))
    torch.manual_seed(base_seed + worker)


def test_a_workers_three_streams_are_seeded_with_base_seed_and_its_number(kind: Any) -> None:
    torch.manual_seed(7)
    found = list(kind(Calls(6, _streams), batch_size=None, num_workers=2, collate_fn=as_is))
    torch.manual_seed(7)
    base_seed = draw()
    for worker in range(2):
        seed_as_worker(base_seed, worker)
        assert found[worker::2] == [_streams(index) for index in range(3)]


def test_persistent_workers_keep_their_seed_and_their_streams_go_on(kind: Any) -> None:
    torch.manual_seed(7)
    dataset = Calls(2, lambda index: [*_streams(index), torch.utils.data.get_worker_info().seed])
    loader = kind(dataset, batch_size=None, num_workers=1, persistent_workers=True, collate_fn=as_is)
    found = [sample for _ in range(3) for sample in loader]
    torch.manual_seed(7)
    base_seed = draw()
    seed_as_worker(base_seed, 0)
    assert found == [[*_streams(index), base_seed] for index in range(6)]


def test_workers_and_epochs_have_different_seeds(kind: Any) -> None:
    loader = kind(asking(6), num_workers=3)
    assert len({seed for _ in range(2) for seed in column(loader, 5)}) == 6


def test_a_seed_set_in_worker_init_fn_is_what_samples_draw_from(kind: Any) -> None:
    def seed(worker: int) -> None:
        seed_as_worker(1000, worker)

    found = list(kind(Calls(2, _streams), batch_size=None, num_workers=2, worker_init_fn=seed, collate_fn=as_is))
    for worker, numbers in enumerate(found):
        seed_as_worker(1000, worker)
        assert numbers == _streams(0)


def test_the_base_seed_can_be_had_from_torch_initial_seed_in_a_worker(kind: Any) -> None:
    def base_seed(worker: int) -> None:
        torch.utils.data.get_worker_info().dataset.mark = torch.initial_seed() - worker

    torch.manual_seed(7)
    batches = list(kind(asking(4), num_workers=2, worker_init_fn=base_seed))
    torch.manual_seed(7)
    assert set(column(batches, 4)) == {draw()}


def test_generate_state_is_that_of_numpys_seed_sequence(kind: Any) -> None:
    for base_seed, worker in ((0, 0), (1, 2), (2**32 + 5, 1), (2**63 - 1, 31), (123456789012345, 7)):
        entropy = [worker, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
        expected = np.random.SeedSequence(entropy).generate_state(4).tolist()
        assert _generate_state(base_seed, worker) == expected
    numpy_state = Calls(2, lambda _: np.random.get_state()[1][:8].tolist())
    torch.manual_seed(7)
    found = list(kind(numpy_state, batch_size=None, num_workers=2, collate_fn=as_is))
    torch.manual_seed(7)
    base_seed = draw()
    for worker, numbers in enumerate(found):
        np.random.seed(_generate_state(base_seed, worker))
        assert numbers == np.random.get_state()[1][:8].tolist()


@pytest.mark.filterwarnings("ignore::forebay.errors.EqualGeneratorsWarning")
def test_generators_that_a_dataset_holds_are_not_seeded(kind: Any) -> None:
    class Holding(Squares):
        def __init__(self) -> None:
            super().__init__(2)
            self.generator = np.random.default_rng(5)

        def __getitem__(self, index: int) -> float:
            return float(self.generator.random())

    expected = [np.random.default_rng(5).random()] * 2
    assert list(kind(Holding(), batch_size=None, num_workers=2)) == expected


def test_nothing_depends_on_the_distributed_rank(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        torch.manual_seed(7)
        seeds.append(column(kind(asking(2), num_workers=2), 5))
    assert seeds[0] == seeds[1]
