"""An option of a type that can serve in no loader is refused at construction; whatever serves in torch is taken."""

from typing import Any

import numpy as np
import pytest
import torch

import forebay
import forebay.torch
from forebay.errors import ConfigError
from support import Front, flat

REFUSED = [
    ({"num_workers": "4"}, "num_workers option should be an integer, but got num_workers='4'"),
    ({"num_workers": 2.5}, "num_workers option should be an integer, but got num_workers=2.5"),
    ({"num_workers": 2.0}, "num_workers option should be an integer, but got num_workers=2.0"),
    ({"num_workers": None}, "num_workers option should be an integer, but got num_workers=None"),
    ({"timeout": "1"}, "timeout option should be a number of seconds, but got timeout='1'"),
    ({"timeout": None}, "timeout option should be a number of seconds, but got timeout=None"),
    ({"prefetch_factor": 1.5}, "prefetch_factor option should be an integer or None, but got prefetch_factor=1.5"),
    ({"prefetch_factor": "2"}, "prefetch_factor option should be an integer or None, but got prefetch_factor='2'"),
    ({"collate_fn": 3}, "collate_fn option should be a function of a list of samples, or None, but got collate_fn=3"),
    ({"worker_init_fn": 3}, "worker_init_fn option should be a function of a worker's number, or None, but got"),
    ({"memory_budget": "1GB"}, "memory_budget option should be an integer number of bytes .* but got .*'1GB'"),
    ({"memory_budget": 1.5}, "memory_budget option should be an integer number of bytes .* but got .*1.5"),
    ({"memory_budget": True}, "memory_budget option should be an integer number of bytes .* but got .*True"),
    ({"generator": "seed"}, "generator option should be a .*Generator.* but got generator='seed'"),
    ({"multiprocessing_context": 5}, "multiprocessing_context option should be a valid context object"),
]


@pytest.mark.parametrize(("options", "text"), REFUSED, ids=lambda value: str(value)[:40])
def test_an_option_of_the_wrong_type_is_refused_at_construction_by_name_and_value(
    front: Front, options: dict[str, Any], text: str
) -> None:
    with pytest.raises(TypeError, match=text):
        front.DataLoader([1, 2], **{"num_workers": 1, **options})


REFUSED_AS_IN_TORCH = [
    {"batch_size": 2.0},
    {"batch_size": "2"},
    {"batch_size": 0},
    {"batch_size": True},
    {"batch_size": np.int64(2)},
    {"drop_last": "yes"},
    {"drop_last": 1},
    {"drop_last": None},
    {"num_workers": -1},
    {"timeout": -1},
    {"prefetch_factor": -1},
    {"multiprocessing_context": "bad"},
    {"multiprocessing_context": 5},
]


@pytest.mark.parametrize("options", REFUSED_AS_IN_TORCH, ids=str)
def test_what_torch_refuses_in_words_is_refused_in_the_same_words(front: Front, options: dict[str, Any]) -> None:
    def refusal(kind: Any) -> tuple[type[Exception], str]:
        with pytest.raises((TypeError, ValueError)) as caught:
            kind([1, 2], **{"num_workers": 1, **options})
        return type(caught.value), str(caught.value)

    assert refusal(front.DataLoader) == refusal(torch.utils.data.DataLoader)


TAKEN = [
    {"num_workers": True},
    {"num_workers": np.int64(1)},
    {"num_workers": torch.tensor(1)},
    {"num_workers": 0.0},
    {"num_workers": 0, "worker_init_fn": 3},
    {"timeout": np.float32(50)},
    {"timeout": True},
    {"prefetch_factor": np.int64(2)},
    {"prefetch_factor": True},
    {"in_order": None},
    {"in_order": 0},
    {"in_order": "yes"},
    {"persistent_workers": "yes"},
    {"persistent_workers": None},
    {"shuffle": np.False_},
]


@pytest.mark.parametrize("options", TAKEN, ids=str)
def test_what_serves_in_torch_serves(front: Front, options: dict[str, Any]) -> None:
    options = {"num_workers": 1, **options}
    assert flat(torch.utils.data.DataLoader([1, 2, 3], **options)) == [1, 2, 3]
    loader = front.DataLoader([1, 2, 3], **options)
    assert flat(loader) == [1, 2, 3]
    loader.close()


def test_a_timeout_that_is_no_number_waits_for_ever_as_in_torch() -> None:
    assert flat(forebay.torch.DataLoader([1, 2], num_workers=1, timeout=float("nan"))) == [1, 2]
    with pytest.raises(ValueError, match="timeout=nan"):
        forebay.DataLoader([1, 2], num_workers=1, timeout=float("nan"))


@pytest.mark.parametrize("timeout", [float("inf"), 1e30])
def test_a_timeout_beyond_all_time_waits_for_ever(front: Front, timeout: float) -> None:
    assert flat(front.DataLoader([1, 2], num_workers=1, timeout=timeout)) == [1, 2]


@pytest.mark.parametrize("budget", [np.int64(1 << 30), 2**63, 2**70])
def test_a_memory_budget_may_be_any_integer_above_zero(front: Front, budget: Any) -> None:
    assert flat(front.DataLoader([1, 2], num_workers=1, memory_budget=budget)) == [1, 2]


@pytest.mark.parametrize("options", [{"prefetch_factor": 0}, {"memory_budget": 0}, {"memory_budget": -1}])
def test_a_value_that_torch_has_no_word_for_is_a_config_error(front: Front, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"{next(iter(options))} option should be positive|a positive number"):
        front.DataLoader([1, 2], **{"num_workers": 1, **options})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"dataset": None, "sampler": [0]},
            "dataset option should be an object with __getitem__, or an IterableDataset, but got dataset=None",
        ),
        ({"dataset": [1], "sampler": 5}, "sampler option should be an iterable of indices, but got sampler=5"),
        ({"dataset": [1], "batch_sampler": 5}, "batch_sampler option should be an iterable of lists of indices"),
    ],
)
def test_what_cannot_be_read_is_refused_before_workers_start(front: Front, arguments: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        iter(front.DataLoader(**arguments, num_workers=1))
    if front.name == "numpy":
        with pytest.raises(TypeError, match=text):
            front.DataLoader(**arguments)
