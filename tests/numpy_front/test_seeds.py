"""Seeds of workers equal torch's, seeds of epochs are repeatable, and a worker knows who it is."""

import random
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay._seeds import (
    as_generator,
    draw_base_seed,
    generator_or_fresh,
    numpy_state,
    seed_worker,
    worker_seed,
)
from forebay.dataset import WorkerInfo, get_worker_info, set_worker_info

base_seeds = st.integers(0, 2**63 - 1)
worker_ids = st.integers(0, 2**16)


@pytest.fixture
def restored_streams() -> Iterator[None]:
    """Leaves the global streams as the test found them."""
    python, legacy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(legacy)


@pytest.fixture(scope="module")
def torch_worker() -> ModuleType:
    return pytest.importorskip("torch.utils.data._utils.worker")


@given(base_seed=base_seeds, worker_id=worker_ids)
def test_the_numpy_state_of_a_worker_equals_torchs(torch_worker: ModuleType, base_seed: int, worker_id: int) -> None:
    assert numpy_state(base_seed, worker_id) == torch_worker._generate_state(base_seed, worker_id)


@pytest.mark.parametrize(
    ("base_seed", "worker_id", "state"),
    [
        (0, 0, [2968811710, 3677149159, 745650761, 2884920346]),
        (2**32, 1, [1501029259, 415423813, 425966647, 3516250141]),
        (2**63 - 1, 7, [3706660862, 1642455348, 3333652763, 3068748488]),
    ],
)
def test_the_numpy_state_is_the_same_in_every_version(base_seed: int, worker_id: int, state: list[int]) -> None:
    assert numpy_state(base_seed, worker_id) == state


@given(base_seed=base_seeds, worker_id=worker_ids)
def test_the_seed_of_a_worker_is_the_base_seed_plus_its_id(base_seed: int, worker_id: int) -> None:
    assert worker_seed(base_seed, worker_id) == base_seed + worker_id


@pytest.mark.usefixtures("restored_streams")
def test_a_seeded_worker_repeats_python_and_numpy_streams() -> None:
    def drawn() -> tuple[float, float]:
        seed_worker(2**62, 3)
        return random.random(), float(np.random.random_sample())

    assert drawn() == drawn()


@pytest.mark.usefixtures("restored_streams")
def test_a_seeded_worker_seeds_an_imported_torch() -> None:
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        seed_worker(40, 2)
        assert torch.initial_seed() == 42


def test_seeding_a_worker_does_not_import_torch() -> None:
    program = """
import sys
from forebay._seeds import seed_worker

seed_worker(1, 2)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@given(seed=st.integers(0, 2**40))
def test_a_base_seed_is_a_non_negative_int64_that_its_generator_repeats(seed: int) -> None:
    drawn = draw_base_seed(np.random.default_rng(seed))
    assert type(drawn) is int
    assert 0 <= drawn < 2**63
    assert drawn == draw_base_seed(np.random.default_rng(seed))


def test_base_seeds_use_all_63_bits() -> None:
    generator = np.random.default_rng(0)
    union = 0
    for _ in range(200):
        union |= draw_base_seed(generator)
    assert union == 2**63 - 1


@pytest.mark.usefixtures("restored_streams")
def test_without_a_generator_numpys_global_seed_decides() -> None:
    def drawn() -> tuple[int, int]:
        np.random.seed(5)
        return draw_base_seed(None), int(generator_or_fresh(None).integers(2**62))

    assert drawn() == drawn()


def test_a_given_generator_is_used_itself() -> None:
    generator = np.random.default_rng(0)
    assert as_generator(generator) is generator
    assert generator_or_fresh(generator) is generator


@pytest.mark.parametrize("seed", [0, 7, 2**70, np.int64(7), np.uint8(7)])
def test_an_integer_means_a_generator_with_that_seed(seed: int) -> None:
    generator = as_generator(seed)
    assert generator is not None
    assert generator.integers(2**62) == np.random.default_rng(int(seed)).integers(2**62)


@pytest.mark.parametrize("wrong", [True, 1.5, "7", np.random.RandomState(0), object()])
def test_another_type_of_generator_is_refused_with_advice(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"(?s)generator=.*default_rng\(seed\)"):
        as_generator(wrong)


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="generator=-1"):
        as_generator(-1)


def test_worker_info_is_what_the_worker_set_and_cannot_be_changed() -> None:
    info = WorkerInfo(id=1, num_workers=2, seed=8, dataset=[1])
    set_worker_info(info)
    try:
        assert get_worker_info() is info
        with pytest.raises(AttributeError):
            info.id = 0  # type: ignore[misc]
    finally:
        set_worker_info(None)
    assert get_worker_info() is None
